package main

import (
	"fmt"
	"strconv"
	"strings"
)

// decode reads a word of a script: %XX is a byte, "" nothing, and *N is N times x.
func decode(word string) string {
	if word == `""` {
		return ""
	}
	if count, err := strconv.Atoi(strings.TrimPrefix(word, "*")); err == nil && word[0] == '*' {
		return strings.Repeat("x", count)
	}
	var decoded strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] != '%' {
			decoded.WriteByte(word[i])
			continue
		}
		value, err := strconv.ParseUint(word[i+1:i+3], 16, 8)
		if err != nil {
			panic(err)
		}
		decoded.WriteByte(byte(value))
		i += 2
	}
	return decoded.String()
}

// escape writes bytes beyond printable ASCII as %xx, and what is long as its length.
func escape(text string) string {
	if len(text) > 2000 {
		return fmt.Sprintf("(%d bytes)", len(text))
	}
	var escaped strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; c == '%' || c < 32 || c > 126 {
			fmt.Fprintf(&escaped, "%%%02x", c)
		} else {
			escaped.WriteByte(c)
		}
	}
	return escaped.String()
}
