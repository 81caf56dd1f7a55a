// Lets a request pass when it bears a JWT signed with HS256, and tells the application who sent it.
//
// Configuration: {"secret": "…"}
package main

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

const userHeader = "x-user-id"

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type plugin struct {
	types.DefaultPluginContext
	secret []byte
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	// Without a configuration there is an error and no bytes, which are not JSON either.
	configuration, _ := proxywasm.GetPluginConfiguration()
	var config struct {
		Secret string `json:"secret"`
	}
	// The error is not logged: it could quote the secret.
	if json.Unmarshal(configuration, &config) != nil || config.Secret == "" {
		proxywasm.LogCritical(`the configuration must be {"secret": "…"} with a secret that is not empty`)
		return types.OnPluginStartStatusFailed
	}
	p.secret = []byte(config.Secret)
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &request{secret: p.secret}
}

type request struct {
	types.DefaultHttpContext
	secret []byte
}

func (r *request) OnHttpRequestHeaders(int, bool) types.Action {
	user, err := r.user()
	if err != nil {
		return reject(401, err.Error())
	}
	// Replaced, never added: a client must not choose who it is.
	if err := proxywasm.ReplaceHttpRequestHeader(userHeader, user); err != nil {
		proxywasm.LogCriticalf("%s was not set: %v", userHeader, err)
		return reject(500, "internal error")
	}
	return types.ActionContinue
}

func (r *request) user() (string, error) {
	authorization, err := proxywasm.GetHttpRequestHeader("authorization")
	if err != nil {
		return "", errMissing
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", errMissing
	}
	return verify(strings.Trim(token, " "), r.secret, time.Now())
}

func reject(status uint32, reason string) types.Action {
	headers := [][2]string{{"content-type", "application/json"}, {"www-authenticate", "Bearer"}}
	body := []byte(`{"error": "` + reason + `"}`)
	if err := proxywasm.SendHttpResponse(status, headers, body, -1); err != nil {
		proxywasm.LogCriticalf("the request was refused, but no response could be sent: %v", err)
	}
	return types.ActionPause
}
