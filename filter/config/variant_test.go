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
		if strings.Contains(test.text, `"0.000000001s"`) { // refused-by-module.txt
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
			if !slices.Equal(c.GRPCServices, test.services) || len(c.Clusters) != test.clusters || c.Require != test.clusters ||
				c.GRPCMaxWatchers != test.watchers {
				t.Errorf("got %+v", c)
			}
			if _, err := Decode(parse(t, test.text), Plugin); err == nil ||
				!strings.Contains(err.Error(), "not supported by the Go plugin; use the dynamic module") {
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
