package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// An operation of a script; its words are decoded, its text is as it was written.
type operation struct {
	phase, name, text string
	words             []string
}

func parse(script string) (operations []operation) {
	for _, line := range strings.Split(script, "\n") {
		phase, names, _ := strings.Cut(line, ": ")
		for _, text := range strings.Split(names, "; ") {
			parts := strings.Split(text, " ")
			words := make([]string, 0, len(parts))
			for _, word := range parts[1:] {
				words = append(words, decode(word))
			}
			operations = append(operations, operation{phase, parts[0], phase + " " + text, words})
		}
	}
	return operations
}

// scripted is a request that is treated as the configuration says.
type scripted struct {
	types.DefaultHttpContext
	script []operation
	cas    uint32
}

func (s *scripted) OnHttpRequestHeaders(headers int, end bool) types.Action {
	return s.run("request_headers", fmt.Sprint(headers, end))
}

func (s *scripted) OnHttpRequestBody(size int, end bool) types.Action {
	return s.body("request", size, end)
}

func (s *scripted) OnHttpResponseHeaders(headers int, end bool) types.Action {
	return s.run("response_headers", fmt.Sprint(headers, end))
}

func (s *scripted) OnHttpResponseBody(size int, end bool) types.Action {
	return s.body("response", size, end)
}

func (s *scripted) OnHttpStreamDone() { s.run("log", "") }

func (s *scripted) body(phase string, size int, end bool) types.Action {
	part := "_more"
	if end {
		part = "_end"
	}
	arguments := fmt.Sprint(size, end)
	return max(s.run(phase+"_body", arguments), s.run(phase+part, arguments))
}

// run says, of each operation of a phase that has a result, the operation and the result.
func (s *scripted) run(phase, arguments string) types.Action {
	action := types.ActionContinue
	for _, o := range s.script {
		if o.phase != phase {
			continue
		}
		result, says, err := "", true, error(nil)
		switch o.name {
		case "pause":
			action = types.ActionPause
			continue
		case "arguments":
			result = arguments
		case "get", "pairs", "read", "property", "sharedget", "sharedset", "httpcall":
			result, err = s.ask(o)
		default:
			says, err = false, s.do(o)
		}
		if err != nil {
			proxywasm.LogInfo(o.text + " -> error: " + err.Error())
		} else if says {
			proxywasm.LogInfo(o.text + " -> " + escape(result))
		}
	}
	return action
}

// number is a word as a number.
func (o operation) number(index int) int {
	value, err := strconv.Atoi(o.words[index])
	if err != nil {
		panic(err)
	}
	return value
}

func (o operation) pairs(index int) (pairs [][2]string) {
	for _, word := range o.words[index:] {
		name, value, _ := strings.Cut(word, "=")
		pairs = append(pairs, [2]string{name, value})
	}
	return pairs
}

func (s *scripted) ask(o operation) (string, error) {
	words := o.words
	switch o.name {
	case "get":
		value, err := of(words[0], proxywasm.GetHttpRequestHeader, proxywasm.GetHttpResponseHeader)(words[1])
		return orNone(value, err)
	case "pairs":
		get := of(words[0], proxywasm.GetHttpRequestHeaders, proxywasm.GetHttpResponseHeaders)
		if words[0] == "call" {
			get = proxywasm.GetHttpCallResponseHeaders
		}
		pairs, err := get()
		var texts []string
		for _, pair := range pairs {
			texts = append(texts, pair[0]+"="+pair[1])
		}
		return strings.Join(texts, " "), err
	case "read":
		get := of(words[0], proxywasm.GetHttpRequestBody, proxywasm.GetHttpResponseBody)
		if words[0] == "call" {
			get = proxywasm.GetHttpCallResponseBody
		}
		value, err := get(o.number(1), o.number(2))
		return orNone(string(value), err)
	case "property":
		value, err := proxywasm.GetProperty(strings.Split(words[0], "."))
		return orNone(string(value), err)
	case "sharedget":
		value, cas, err := proxywasm.GetSharedData(words[0])
		s.cas = cas
		return orNone(string(value), err)
	case "sharedset":
		cas := map[string]uint32{"any": 0, "last": s.cas, "stale": s.cas + 1000}[words[2]]
		return "0", proxywasm.SetSharedData(words[0], []byte(words[1]), cas)
	default: // httpcall
		headers := [][2]string{{":method", "POST"}, {":path", words[1]}, {":authority", "upstream"}}
		_, err := proxywasm.DispatchHttpCall(words[0], headers, []byte(words[2]), nil, 5000,
			func(headers, size, trailers int) { s.run("call", fmt.Sprint(headers, size, trailers)) })
		return "0", err
	}
}

func (s *scripted) do(o operation) error {
	words := o.words
	switch o.name {
	case "add":
		return of(words[0], proxywasm.AddHttpRequestHeader, proxywasm.AddHttpResponseHeader)(words[1], words[2])
	case "replace":
		return of(words[0], proxywasm.ReplaceHttpRequestHeader, proxywasm.ReplaceHttpResponseHeader)(words[1], words[2])
	case "remove":
		return of(words[0], proxywasm.RemoveHttpRequestHeader, proxywasm.RemoveHttpResponseHeader)(words[1])
	case "setpairs":
		return of(words[0], proxywasm.ReplaceHttpRequestHeaders, proxywasm.ReplaceHttpResponseHeaders)(o.pairs(1))
	case "write":
		write := of(words[0], proxywasm.ReplaceHttpRequestBody, proxywasm.ReplaceHttpResponseBody)
		if o.number(1) > 0 {
			write = of(words[0], proxywasm.AppendHttpRequestBody, proxywasm.AppendHttpResponseBody)
		} else if o.number(2) == 0 {
			write = of(words[0], proxywasm.PrependHttpRequestBody, proxywasm.PrependHttpResponseBody)
		}
		return write([]byte(words[3]))
	case "keep":
		get := of(words[0], proxywasm.GetHttpRequestBody, proxywasm.GetHttpResponseBody)
		kept, err := get(0, o.number(1))
		write := of(words[0], proxywasm.ReplaceHttpRequestBody, proxywasm.ReplaceHttpResponseBody)
		return errors.Join(err, write(kept))
	case "reply":
		return proxywasm.SendHttpResponse(uint32(o.number(0)), o.pairs(2), []byte(words[1]), -1)
	case "resume":
		return of(words[0], proxywasm.ResumeHttpRequest, proxywasm.ResumeHttpResponse)()
	case "setproperty":
		return proxywasm.SetProperty(strings.Split(words[0], "."), []byte(words[1]))
	case "log":
		map[string]func(string){
			"trace": proxywasm.LogTrace, "debug": proxywasm.LogDebug, "info": proxywasm.LogInfo,
			"warn": proxywasm.LogWarn, "error": proxywasm.LogError, "critical": proxywasm.LogCritical,
		}[words[0]](words[1])
		return nil
	case "trap":
		// Not a panic: its trace names addresses, which are others in each build.
		os.Exit(1)
		return nil
	default:
		return fmt.Errorf("no operation %s", o.name)
	}
}

// of chooses the function of the request or that of the response.
func of[F any](side string, request, response F) F {
	if side == "request" {
		return request
	}
	return response
}

func orNone(value string, err error) (string, error) {
	if errors.Is(err, types.ErrorStatusNotFound) {
		return "(none)", nil
	}
	return value, err
}
