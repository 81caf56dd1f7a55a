package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode"
)

var (
	errMissing     = errors.New("missing bearer token")
	errMalformed   = errors.New("malformed token")
	errAlgorithm   = errors.New("unsupported algorithm")
	errSignature   = errors.New("invalid signature")
	errExpired     = errors.New("token expired")
	errNotYetValid = errors.New("token not yet valid")
	errClaims      = errors.New("invalid claims")
)

// verify returns the subject of a JWT that is signed with secret and valid at now.
func verify(token string, secret []byte, now time.Time) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errMalformed
	}

	// The algorithm is fixed here: a token never chooses how it is verified.
	header, err := decodeObject(parts[0])
	if err != nil {
		return "", err
	}
	if _, critical := header["crit"]; critical || header["alg"] != "HS256" {
		return "", errAlgorithm
	}

	signature, err := decode(parts[2])
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	if !hmac.Equal(signature, mac.Sum(nil)) {
		return "", errSignature
	}

	claims, err := decodeObject(parts[1])
	if err != nil {
		return "", err
	}
	return subject(claims, float64(now.UnixNano())/1e9)
}

func subject(claims map[string]any, now float64) (string, error) {
	expires, ok := claims["exp"].(float64)
	if !ok {
		return "", errClaims
	}
	if now >= expires {
		return "", errExpired
	}
	if notBefore, present := claims["nbf"]; present {
		start, ok := notBefore.(float64)
		if !ok {
			return "", errClaims
		}
		if now < start {
			return "", errNotYetValid
		}
	}
	// The subject becomes a header's value.
	name, ok := claims["sub"].(string)
	if !ok || name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		return "", errClaims
	}
	return name, nil
}

func decodeObject(part string) (map[string]any, error) {
	text, err := decode(part)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if json.Unmarshal(text, &object) != nil {
		return nil, errMalformed
	}
	return object, nil
}

func decode(part string) ([]byte, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errMalformed
	}
	return decoded, nil
}
