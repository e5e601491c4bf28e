package testbed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"
)

// References are the reference configurations, by variant.
var References = map[string]string{"plugin": "envoy/envoy.yaml", "module": "envoy/module.yaml"}

// example has the keys of a file in envoy/examples. envoy/examples/README.md says where each goes.
type example struct {
	Healthgate      map[string]any    `json:"healthgate"`
	Routes          []json.RawMessage `json:"routes"`
	Clusters        []json.RawMessage `json:"clusters"`
	HTTPFilters     []json.RawMessage `json:"http_filters"`
	AccessLogFilter json.RawMessage   `json:"access_log_filter"`
	Admin           json.RawMessage   `json:"admin"`
}

// Examples returns the names of the files in envoy/examples, without ".yaml".
func Examples() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(Root(), "envoy", "examples", "*.yaml"))
	for i := range files {
		files[i] = strings.TrimSuffix(filepath.Base(files[i]), ".yaml")
	}
	return files, err
}

// ReadExample returns a variant's reference configuration with an example applied; without one if name is "".
func ReadExample(name, variant string) (*Bootstrap, error) {
	b, err := ReadBootstrap(References[variant])
	if err != nil || name == "" {
		return b, err
	}
	text, err := os.ReadFile(filepath.Join(Root(), "envoy", "examples", name+".yaml"))
	if err != nil {
		return nil, err
	}
	var e example
	if err := yaml.UnmarshalStrict(text, &e); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for key, value := range e.Healthgate {
		b.SetGateKey(key, value)
	}
	if e.Admin != nil {
		replaceFields(b.GetAdmin(), Parse[*bootstrapv3.Admin](string(e.Admin)))
	}
	if e.AccessLogFilter != nil {
		b.HCM().GetAccessLog()[0].Filter = Parse[*accesslogv3.AccessLogFilter](string(e.AccessLogFilter))
	}
	for _, filter := range slices.Backward(e.HTTPFilters) {
		b.PrependFilter(Parse[*hcmv3.HttpFilter](string(filter)))
	}
	for _, text := range slices.Backward(e.Routes) {
		route := Parse[*routev3.Route](string(text))
		if variant == "module" {
			dynamicModule{}.Convert(route)
		}
		PrependRoute(b.VirtualHost(), route)
	}
	for _, text := range e.Clusters {
		fields := Parse[*clusterv3.Cluster](string(text))
		cluster := b.Cluster()
		if fields.GetName() != cluster.GetName() {
			cluster = b.CopyCluster(fields.GetName())
			b.AddCluster(cluster)
		}
		replaceFields(cluster, fields)
	}
	return b, nil
}

// replaceFields sets each field of a message that is set in another.
func replaceFields(message, by proto.Message) {
	by.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		message.ProtoReflect().Set(field, value)
		return true
	})
}
