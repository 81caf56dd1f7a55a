package main

import (
	"math"
	"os"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

// The environment may name a phase: then every call is made there that may be refused, in all the
// ways that the SDK knows (tests/proxy_wasm/test_accepted_statuses.py).
var probe = os.Getenv("PROBE")

func reached(phase string) {
	if probe != phase {
		return
	}
	probe = "made"
	for _, key := range []string{"", "x", "a b", "a\r\nb", strings.Repeat("x", 70_000)} {
		probeMetrics(key)
		probeHeaders(key)
		probeShared(key)
		probeCalls(key)
	}
	probeStreams()
	proxywasm.LogInfo(phase + " is done")
}

// Whatever the answer is here, the SDK panics if it is not OK.
func probeMetrics(name string) {
	counter := proxywasm.DefineCounterMetric(name)
	for _, offset := range []uint64{0, 1, math.MaxInt64, math.MaxUint64} {
		counter.Increment(offset)
		counter.Value()
	}
	gauge := proxywasm.DefineGaugeMetric(name)
	for _, offset := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		gauge.Add(offset)
		gauge.Value()
	}
	histogram := proxywasm.DefineHistogramMetric(name)
	for _, value := range []uint64{0, 1, math.MaxUint64} {
		histogram.Record(value)
		histogram.Value()
	}
}

func probeHeaders(key string) {
	for _, value := range []string{"", "y", "a\r\nb: c", strings.Repeat("y", 70_000)} {
		pairs := [][2]string{{key, value}}
		for _, call := range []func(string, string) error{
			proxywasm.AddHttpRequestHeader, proxywasm.AddHttpResponseHeader,
			proxywasm.AddHttpRequestTrailer, proxywasm.AddHttpResponseTrailer,
			proxywasm.ReplaceHttpRequestHeader, proxywasm.ReplaceHttpResponseHeader,
			proxywasm.ReplaceHttpRequestTrailer, proxywasm.ReplaceHttpResponseTrailer,
		} {
			call(key, value)
		}
		for _, call := range []func([][2]string) error{
			proxywasm.ReplaceHttpRequestHeaders, proxywasm.ReplaceHttpResponseHeaders,
			proxywasm.ReplaceHttpRequestTrailers, proxywasm.ReplaceHttpResponseTrailers,
		} {
			call(pairs)
		}
	}
	proxywasm.GetHttpRequestHeader(key)
	proxywasm.GetHttpResponseHeader(key)
	proxywasm.GetHttpRequestTrailer(key)
	proxywasm.GetHttpResponseTrailer(key)
	proxywasm.RemoveHttpRequestHeader(key)
	proxywasm.RemoveHttpResponseHeader(key)
}

func probeShared(key string) {
	for _, cas := range []uint32{0, 1, math.MaxUint32} {
		proxywasm.GetSharedData(key)
		proxywasm.SetSharedData(key, []byte(key), cas)
	}
	queue, _ := proxywasm.RegisterSharedQueue(key)
	proxywasm.ResolveSharedQueue("", key)
	for _, id := range []uint32{queue, 0, 4_000_000} {
		proxywasm.EnqueueSharedQueue(id, []byte("x"))
		proxywasm.DequeueSharedQueue(id)
		proxywasm.DequeueSharedQueue(id)
	}
	// The SDK itself panics on an empty path.
	proxywasm.GetProperty([]string{"p", key})
	proxywasm.SetProperty([]string{"p", key}, []byte("y"))
}

func probeCalls(key string) {
	headers := [][2]string{{":method", "GET"}, {":path", "/"}, {":authority", "auth"}}
	for _, pairs := range [][][2]string{headers, headers[1:], nil, {{key, "a\nb"}}} {
		proxywasm.DispatchHttpCall("auth", pairs, nil, nil, 1000, func(int, int, int) {})
		proxywasm.DispatchHttpCall(key, pairs, []byte(key), pairs, math.MaxUint32, func(int, int, int) {})
	}
	proxywasm.CallForeignFunction(key, []byte(key))
	for _, name := range []string{"echo", "error", "EMPTY", "NOT_FOUND", "UNIMPLEMENTED"} {
		proxywasm.CallForeignFunction(name, nil)
	}
}

func probeStreams() {
	proxywasm.SetTickPeriodMilliSeconds(0)
	proxywasm.SetEffectiveContext(4_000_000)
	proxywasm.GetVMConfiguration()
	proxywasm.GetPluginConfiguration()
	for _, get := range []func(int, int) ([]byte, error){
		proxywasm.GetHttpRequestBody, proxywasm.GetHttpResponseBody, proxywasm.GetDownstreamData,
		proxywasm.GetUpstreamData, proxywasm.GetHttpCallResponseBody,
	} {
		get(0, math.MaxInt32)
		get(math.MaxInt32, 1)
	}
	for _, set := range []func([]byte) error{
		proxywasm.ReplaceHttpRequestBody, proxywasm.AppendHttpRequestBody,
		proxywasm.ReplaceHttpResponseBody, proxywasm.PrependHttpResponseBody,
		proxywasm.ReplaceDownstreamData, proxywasm.ReplaceUpstreamData,
	} {
		set([]byte("x"))
	}
	for _, call := range []func() error{
		proxywasm.ResumeHttpRequest, proxywasm.ResumeHttpResponse, proxywasm.ContinueTcpStream,
		proxywasm.CloseDownstream, proxywasm.CloseUpstream,
	} {
		call()
	}
	proxywasm.SendHttpResponse(1000, [][2]string{{"a b", "c"}}, nil, -1)
	proxywasm.PluginDone()
}

func (*plugin) OnTick() { reached("tick") }

func (*plugin) OnQueueReady(uint32) { reached("queue_ready") }

func (*plugin) OnPluginDone() bool {
	reached("root_done")
	return true
}

// probed is a request of a plugin that is to be probed.
type probed struct{ types.DefaultHttpContext }

func (*probed) OnHttpRequestHeaders(int, bool) types.Action {
	reached("request_headers")
	if probe != "http_call_response" {
		return types.ActionContinue
	}
	headers := [][2]string{{":method", "GET"}, {":path", "/"}, {":authority", "auth"}}
	answered := func(int, int, int) { reached("http_call_response") }
	if _, err := proxywasm.DispatchHttpCall("auth", headers, nil, nil, 0, answered); err != nil {
		panic(err)
	}
	return types.ActionPause
}

func (*probed) OnHttpRequestBody(int, bool) types.Action {
	reached("request_body")
	return types.ActionContinue
}

func (*probed) OnHttpResponseHeaders(int, bool) types.Action {
	reached("response_headers")
	return types.ActionContinue
}

func (*probed) OnHttpResponseBody(int, bool) types.Action {
	reached("response_body")
	return types.ActionContinue
}

func (*probed) OnHttpResponseTrailers(int) types.Action {
	reached("response_trailers")
	return types.ActionContinue
}

func (*probed) OnHttpStreamDone() { reached("log") }
