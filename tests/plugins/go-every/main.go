// Sets a response header, appends to the request's body and counts requests in shared data; with a
// configuration, does what that says instead: tests/e2e/envoy/cases.py describes the language.
package main

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

const counterKey = "go-every"

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type plugin struct {
	types.DefaultPluginContext
	script []operation
}

func (p *plugin) OnPluginStart(size int) types.OnPluginStartStatus {
	reached("configure")
	if size > 0 {
		configuration, err := proxywasm.GetPluginConfiguration()
		if err != nil {
			panic(err)
		}
		p.script = parse(string(configuration))
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	if probe != "" {
		return &probed{}
	}
	if p.script != nil {
		return &scripted{script: p.script}
	}
	return &request{}
}

type request struct {
	types.DefaultHttpContext
	count uint64
}

func (r *request) OnHttpRequestHeaders(int, bool) types.Action {
	count, err := increment()
	if err != nil {
		panic(err)
	}
	r.count = count
	return types.ActionContinue
}

func (r *request) OnHttpRequestBody(size int, endOfStream bool) types.Action {
	if !endOfStream {
		return types.ActionPause
	}
	// An empty buffer reads as "not found".
	body, err := proxywasm.GetHttpRequestBody(0, size)
	if err != nil && !errors.Is(err, types.ErrorStatusNotFound) {
		panic(err)
	}
	if err := proxywasm.ReplaceHttpRequestBody(append(body, '!')); err != nil {
		panic(err)
	}
	return types.ActionContinue
}

func (r *request) OnHttpResponseHeaders(int, bool) types.Action {
	if err := errors.Join(
		proxywasm.ReplaceHttpResponseHeader("x-go", "ok"),
		proxywasm.ReplaceHttpResponseHeader("x-go-count", strconv.FormatUint(r.count, 10)),
	); err != nil {
		panic(err)
	}
	return types.ActionContinue
}

// increment adds one to the shared counter, eight bytes in little endian, and returns the sum.
func increment() (uint64, error) {
	for {
		data, cas, err := proxywasm.GetSharedData(counterKey)
		if errors.Is(err, types.ErrorStatusNotFound) {
			data = make([]byte, 8)
		} else if err != nil {
			return 0, err
		}
		count := binary.LittleEndian.Uint64(data) + 1
		err = proxywasm.SetSharedData(counterKey, binary.LittleEndian.AppendUint64(nil, count), cas)
		if !errors.Is(err, types.ErrorStatusCasMismatch) {
			return count, err
		}
	}
}
