// Command emptygo is the smallest golang plugin in Go: it sends 200 at the request's headers. It costs more than the empty plugin in C by
// the cost of Go and of Envoy's SDK.
package main

import (
	"github.com/envoyproxy/envoy/contrib/golang/common/go/api"
	"github.com/envoyproxy/envoy/contrib/golang/filters/http/source/go/pkg/http"
	"google.golang.org/protobuf/types/known/anypb"
)

func init() { http.RegisterHttpFilterFactoryAndConfigParser("emptygo", newFilter, parser{}) }

func main() {}

type filter struct {
	api.PassThroughStreamFilter
	callbacks api.FilterCallbackHandler
}

func newFilter(_ any, callbacks api.FilterCallbackHandler) api.StreamFilter {
	return &filter{callbacks: callbacks}
}

var headers = map[string][]string{"content-type": {"text/plain"}, "cache-control": {"no-store"}}

func (f *filter) DecodeHeaders(api.RequestHeaderMap, bool) api.StatusType {
	f.callbacks.DecoderFilterCallbacks().SendLocalReply(200, "ok\n", headers, 0, "empty")
	return api.LocalReply
}

type parser struct{}

func (parser) Parse(*anypb.Any, api.ConfigCallbackHandler) (any, error) { return nil, nil }
func (parser) Merge(parent, _ any) any                                  { return parent }
