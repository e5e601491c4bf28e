package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestModuleDecodesLikeThePlugin(t *testing.T) {
	for _, test := range good {
		if strings.Contains(test.text, `"0.000000001s"`) { // TestModuleRefusesAShortStaleAfter
			continue
		}
		plugin, err := Decode(parse(t, test.text), Plugin)
		if err != nil {
			t.Fatal(err)
		}
		module, err := Decode(parse(t, test.text), Module)
		if err != nil {
			t.Fatal(err)
		}
		if plugin.written, module.written = (written{}), (written{}); !reflect.DeepEqual(plugin, module) {
			t.Errorf("%s: the Go plugin reads %+v, the dynamic module %+v", test.text, plugin, module)
		}
	}
}

func TestModuleRefusesAShortStaleAfter(t *testing.T) {
	for text, refused := range map[string]bool{
		`{"clusters": ["a"], "stale_after": "0.5s"}`:                                                                           true,
		`{"clusters": ["a"], "stale_after": "0.999999999s"}`:                                                                   true,
		`{"clusters": ["a"], "stale_after": "1s"}`:                                                                             false,
		`{"clusters": ["a"], "stale_after": "0s"}`:                                                                             false,
		`{"clusters": [], "drain": "ignore", "stale_after": "0.1s"}`:                                                           true,
		`{"clusters": ["a"], "stale_after": "0.5s", "source": "admin", "admin": {"address": "unix:///a", "interval": "0.1s"}}`: false,
	} {
		if _, err := Decode(parse(t, text), Module); (err != nil) != refused || refused && !strings.HasPrefix(err.Error(), "stale_after: ") {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if _, err := Decode(parse(t, `{"clusters": ["a"], "stale_after": "0.5s"}`), Plugin); err != nil {
		t.Errorf("the Go plugin reads the counter often enough: %v", err)
	}
}

var moduleOnly = []struct {
	text     string
	services []string
	clusters int
	watchers int
}{
	{`{"clusters": ["a"], "grpc_services": ["b.B", "c.C"]}`, []string{"b.B", "c.C", ""}, 1, 10_000},
	{`{"clusters": ["a"], "grpc_services": [""]}`, []string{""}, 1, 10_000},
	{`{"clusters": ["a"], "grpc_services": [""], "grpc_max_watchers": 1}`, []string{""}, 1, 1},
	{`{"clusters": ["a"], "grpc_services": [""], "grpc_max_watchers": 1000000}`, []string{""}, 1, 1_000_000},
	{`{"clusters": [], "drain": "ignore"}`, nil, 0, 0},
	{`{"clusters": [], "drain": "ignore", "stale_after": "2s"}`, nil, 0, 0},
}

func TestKeysOfTheModuleOnly(t *testing.T) {
	schema := compileSchema(t)
	for _, test := range moduleOnly {
		t.Run(test.text, func(t *testing.T) {
			c, err := Decode(parse(t, test.text), Module)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.GRPCServices, test.services) || len(c.Clusters) != test.clusters || c.Require != test.clusters || c.GRPCMaxWatchers != test.watchers {
				t.Errorf("got %+v", c)
			}
			if _, err := Decode(parse(t, test.text), Plugin); err == nil || !strings.Contains(err.Error(), "not supported by the Go plugin; use the dynamic module") {
				t.Errorf("the Go plugin says %v", err)
			}
			var value any
			if err := json.Unmarshal([]byte(test.text), &value); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
		})
	}
}

func TestModuleRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"clusters": []}`:                                                            `clusters: is empty; name at least one cluster, or set drain: ignore for a gate that fails only if Envoy's main thread hangs`,
		`{"clusters": [], "drain": "fail"}`:                                           `clusters: is empty; name at least one cluster, or set drain: ignore for a gate that fails only if Envoy's main thread hangs`,
		`{"clusters": null, "drain": "ignore"}`:                                       `clusters: null is not a list`,
		`{"clusters": [], "drain": "ignore", "require": "any"}`:                       `require: is given, but there are no clusters; leave it out`,
		`{"clusters": ["a"], "grpc_services": [1, "b", "b"]}`:                         `grpc_services[0]: 1 is not a string; grpc_services[2]: "b" is repeated`,
		`{"clusters": ["a"], "grpc_services": ["` + strings.Repeat("x", 1025) + `"]}`: `grpc_services[0]: has 1025 bytes; at most 1024 are allowed`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 0}`:         `grpc_max_watchers: 0 is not between 1 and 1000000`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 1000001}`:   `grpc_max_watchers: 1.000001e+06 is not between 1 and 1000000`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": 1.5}`:       `grpc_max_watchers: 1.5 is not a whole number`,
		`{"clusters": ["a"], "grpc_services": ["b"], "grpc_max_watchers": "5"}`:       `grpc_max_watchers: "5" is not a whole number`,
		`{"clusters": ["a"], "grpc_services": ` + many + `}`:                          `grpc_services: has 65 entries; at most 64 are allowed`,
	} {
		if _, err := Decode(parse(t, text), Module); err == nil || err.Error() != want {
			t.Errorf("%.80s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}

// A route may remove the clusters if the filter ignores drains.
func TestOverrideWithAnEmptyListOfClusters(t *testing.T) {
	route := parse(t, `{"clusters": []}`)
	if _, err := DecodeOverride(route, Module); err != nil {
		t.Fatal(err)
	}
	if c, err := Decode(MergeRaw(parse(t, `{"clusters": ["a"], "drain": "ignore"}`), route), Module); err != nil || len(c.Clusters) != 0 {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := Decode(MergeRaw(parse(t, `{"clusters": ["a"]}`), route), Module); err == nil {
		t.Error("a gate that drains may have no clusters")
	}
}
