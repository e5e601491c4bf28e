package config

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/policy"
)

func parse(t testing.TB, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

var byDefault = Config{
	Path: "/",
	Policy: policy.Policy{Clusters: []policy.Cluster{{Name: "service", StatName: "service", Rule: policy.Rule{MinHealthy: 1}}},
		Require: 1},
	Healthy:    Response{Status: 200, Body: "ok\n"},
	Unhealthy:  Response{Status: 503, Body: "unavailable\n"},
	StatPrefix: "default",
}

// good are valid configurations, and how each differs from byDefault.
var good = []struct {
	text   string
	change func(*Config)
}{
	{`{"clusters": ["service"]}`, func(*Config) {}},
	{`{"clusters": [{"name": "service"}]}`, func(*Config) {}},
	{`{"clusters": [{"name": "service", "stat_name": ""}]}`, func(*Config) {}},
	{`{"clusters": [{"name": "service", "stat_name": "other"}]}`, func(c *Config) { c.Clusters[0].StatName = "other" }},
	{`{"clusters": [{"name": "service", "min_healthy": 0}]}`, func(c *Config) { c.Clusters[0].Rule.MinHealthy = 0 }},
	{`{"clusters": [{"name": "service", "min_healthy": 1000000}]}`, func(c *Config) { c.Clusters[0].Rule.MinHealthy = 1_000_000 }},
	{`{"clusters": [{"name": "service", "min_healthy_percent": 100}]}`, func(c *Config) { c.Clusters[0].Rule.MinHealthyPercent = 100 }},
	{`{"clusters": [{"name": "service", "degraded": "ignore"}]}`, func(c *Config) { c.Clusters[0].Rule.IgnoreDegraded = true }},
	{`{"clusters": [{"name": "service", "degraded": "count"}]}`, func(*Config) {}},
	{`{"clusters": [{"name": "service", "excluded": "ignore"}]}`, func(c *Config) { c.Clusters[0].Rule.IgnoreExcluded = true }},
	{`{"clusters": [{"name": "service", "excluded": "count"}]}`, func(*Config) {}},
	{`{"clusters": ["service"], "require": "all"}`, func(*Config) {}},
	{`{"clusters": ["service"], "require": 1}`, func(*Config) {}},
	{`{"clusters": ["service", {"name": "b"}]}`, func(c *Config) {
		c.Clusters = append(c.Clusters, policy.Cluster{Name: "b", StatName: "b", Rule: policy.Rule{MinHealthy: 1}})
		c.Require = 2
	}},
	{`{"clusters": ["service", "b"], "require": "any"}`, func(c *Config) {
		c.Clusters = append(c.Clusters, policy.Cluster{Name: "b", StatName: "b", Rule: policy.Rule{MinHealthy: 1}})
	}},
	{`{"clusters": ["service"], "path": "/healthz"}`, func(c *Config) { c.Path = "/healthz" }},
	{`{"clusters": ["service"], "drain": "ignore"}`, func(c *Config) { c.IgnoreDrain = true }},
	{`{"clusters": ["service"], "drain": "fail"}`, func(*Config) {}},
	{`{"clusters": ["service"], "stat_prefix": "-._"}`, func(c *Config) { c.StatPrefix = "-._" }},
	{`{"clusters": ["service"], "stat_prefix": "edge.eu-1_A"}`, func(c *Config) { c.StatPrefix = "edge.eu-1_A" }},
	{`{"clusters": ["service"], "response": {}}`, func(*Config) {}},
	{`{"clusters": ["service"], "response": {"healthy": {"status": 299, "body": ""}, "unhealthy": {"status": 400}}}`, func(c *Config) {
		c.Healthy = Response{Status: 299}
		c.Unhealthy.Status = 400
	}},
	{`{"clusters": ["service"], "response": {"healthy": {"status": 204}}}`, func(c *Config) { c.Healthy = Response{Status: 204} }},
	{`{"clusters": ["service"], "response": {"healthy": {"status": 205, "body": ""}}}`, func(c *Config) { c.Healthy = Response{Status: 205} }},
	{`{"clusters": ["service"], "response": {"details": true}}`, func(c *Config) { c.Details = true }},
	{`{"clusters": ["service"], "response": {"details": false}}`, func(*Config) {}},
	{`{"clusters": ["service"], "hold": {}}`, func(*Config) {}},
	{`{"clusters": ["service"], "hold": {"unhealthy_after": "1.5s"}}`, func(c *Config) { c.Hold.UnhealthyAfter = 1500 * time.Millisecond }},
	{`{"clusters": ["service"], "hold": {"healthy_after": "86400s", "unhealthy_after": "0s"}}`,
		func(c *Config) { c.Hold.HealthyAfter = 24 * time.Hour }},
	{`{"clusters": ["service"], "stale_after": "0.000000001s"}`, func(c *Config) { c.StaleAfter = 1 }},
	{`{"clusters": ["service"], "stale_after": "1s"}`, func(c *Config) { c.StaleAfter = time.Second }},
	{`{"clusters": ["service"], "source": "stats"}`, func(*Config) {}},
	{`{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///run/envoy/admin.sock"}}`, func(c *Config) {
		c.Admin = &Admin{"unix", "/run/envoy/admin.sock", time.Second}
		c.StaleAfter = 5 * time.Second
	}},
	{`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901", "interval": "0.1s"}, "stale_after": "0.5s"}`,
		func(c *Config) {
			c.Admin = &Admin{"tcp", "127.0.0.1:9901", 100 * time.Millisecond}
			c.StaleAfter = 500 * time.Millisecond
		}},
	{`{"clusters": ["service"], "source": "admin", "admin": {"address": "127.0.0.1:9901", "interval": "10s"}}`, func(c *Config) {
		c.Admin = &Admin{"tcp", "127.0.0.1:9901", 10 * time.Second}
		c.StaleAfter = 30 * time.Second
	}},
	{`{"clusters": ["service"], "source": "admin", "stale_after": "10s", "admin": {"address": "127.0.0.1:9901", "interval": "10s"}}`,
		func(c *Config) {
			c.Admin = &Admin{"tcp", "127.0.0.1:9901", 10 * time.Second}
			c.StaleAfter = 10 * time.Second
		}},
	{`{"clusters": ["service"], "source": "admin", "admin": {"address": "[::1]:9901"}}`, func(c *Config) {
		c.Admin = &Admin{"tcp", "[::1]:9901", time.Second}
		c.StaleAfter = 5 * time.Second
	}},
}

func TestDecode(t *testing.T) {
	for _, test := range good {
		t.Run(test.text, func(t *testing.T) {
			want := byDefault
			want.Clusters = slices.Clone(want.Clusters)
			test.change(&want)
			got, err := Decode(parse(t, test.text), Plugin)
			if err != nil {
				t.Fatal(err)
			}
			if got.written = (written{}); !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

// refusal is a broken configuration, and all its errors.
type refusal struct {
	text   string
	errors []string
}

// refusals reads a file of broken configurations, one a line, each followed by its errors on indented lines.
func refusals(t testing.TB, file string) (all []refusal) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if message, indented := strings.CutPrefix(line, "\t"); indented {
			last := &all[len(all)-1]
			last.errors = append(last.errors, message)
		} else {
			all = append(all, refusal{text: line})
		}
	}
	return all
}

func TestDecodeReturnsAllErrors(t *testing.T) {
	x, many := strings.Repeat("x", 5000), `["`+strings.Repeat(`x", "`, MaxClusters)+`x"]`
	for variant, tests := range map[Variant][]refusal{
		Plugin: append(refusals(t, "refused-by-plugin.txt"),
			refusal{`{"clusters": ["a"], "path": "/` + x[:1024] + `"}`, []string{`path: has 1025 bytes; at most 1024 are allowed`}},
			refusal{`{"clusters": ` + many + `}`, []string{`clusters: has 65 entries; at most 64 are allowed`}}),
		Module: append(refusals(t, "refused-by-module.txt"),
			refusal{`{"clusters": ["a"], "grpc_services": ["` + x[:1025] + `"]}`,
				[]string{`grpc_services[0]: has 1025 bytes; at most 1024 are allowed`}},
			refusal{`{"clusters": ["a"], "grpc_services": ` + many + `}`, []string{`grpc_services: has 65 entries; at most 64 are allowed`}}),
	} {
		for _, test := range tests {
			t.Run(clip(test.text), func(t *testing.T) {
				c, err := Decode(parse(t, test.text), variant)
				if c != nil || err == nil {
					t.Fatalf("got %+v, %v, want an error", c, err)
				}
				if got, want := err.Error(), strings.Join(test.errors, "; "); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
}

func TestNumberOfErrorsIsBounded(t *testing.T) {
	var keys []string
	for i := range 100_000 {
		keys = append(keys, fmt.Sprintf(`"key%d": 1`, i))
	}
	_, err := Decode(parse(t, "{"+strings.Join(keys, ",")+"}"), Plugin)
	if n := len(err.(Errors)); n != maxErrors {
		t.Errorf("got %d errors, want %d", n, maxErrors)
	}
	if n := len(err.Error()); n > 10_000 {
		t.Errorf("got a line of %d bytes", n)
	}
}

func TestDecodeRefusesNumbersThatJSONDoesNotHave(t *testing.T) {
	for _, number := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		s := parse(t, `{"clusters": [{"name": "a"}]}`)
		s.Fields["clusters"].GetListValue().Values[0].GetStructValue().Fields["min_healthy"] = structpb.NewNumberValue(number)
		s.Fields["require"] = structpb.NewNumberValue(number)
		if _, err := Decode(s, Plugin); err == nil || !strings.Contains(err.Error(), "min_healthy") || !strings.Contains(err.Error(), "require") {
			t.Errorf("%v: got %v, want two errors", number, err)
		}
	}
}

func TestMergeRawIsFieldByFieldAndReplacesLists(t *testing.T) {
	filter := `{"clusters": ["a", "b"], "path": "/", "response": {"healthy": {"status": 201, "body": "x"}, "unhealthy": {"status": 500}}}`
	for _, test := range []struct{ route, want string }{
		{`{}`, filter},
		{`{"path": "/readyz"}`, strings.Replace(filter, `"path": "/"`, `"path": "/readyz"`, 1)},
		{`{"clusters": ["c"]}`, strings.Replace(filter, `["a", "b"]`, `["c"]`, 1)},
		{`{"response": {"healthy": {"status": 202}}}`, strings.Replace(filter, "201", "202", 1)},
		{`{"source": "stats"}`, strings.Replace(filter, `"path"`, `"source": "stats", "path"`, 1)},
		{`{"drain": "ignore"}`, strings.Replace(filter, `"path"`, `"drain": "ignore", "path"`, 1)},
	} {
		t.Run(test.route, func(t *testing.T) {
			base := parse(t, filter)
			got := MergeRaw(base, parse(t, test.route))
			if want := parse(t, test.want); !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !proto.Equal(base, parse(t, filter)) {
				t.Error("it changed its argument")
			}
		})
	}
	if got := MergeRaw(nil, parse(t, `{"path": "/x"}`)); !proto.Equal(got, parse(t, `{"path": "/x"}`)) {
		t.Errorf("without a filter's: got %v", got)
	}
}

func TestOverrideIsCheckedOnItsOwn(t *testing.T) {
	for _, text := range []string{`{}`, `{"path": "/readyz"}`, `{"require": 2}`, `{"clusters": ["a"], "require": "any"}`} {
		if _, err := DecodeOverride(parse(t, text), Plugin); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		`{"paht": "/"}`:      "paht: unknown key, did you mean path?",
		`{"clusters": []}`:   "clusters: is empty; name at least one cluster",
		`{"require": 65}`:    "require: 65 is not a whole number from 1 to 64, the number of clusters",
		`{"clusters": null}`: "clusters: null is not a list",
	} {
		t.Run(text, func(t *testing.T) {
			if _, err := DecodeOverride(parse(t, text), Plugin); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// For any Struct, Decode returns a configuration within its bounds, or errors of one short line each.
func FuzzDecode(f *testing.F) {
	for _, test := range good {
		f.Add(marshal(f, test.text))
	}
	for _, test := range refusals(f, "refused-by-plugin.txt") {
		f.Add(marshal(f, test.text))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		s := &structpb.Struct{}
		if proto.Unmarshal(wire, s) != nil {
			return
		}
		c, err := Decode(s, Plugin)
		if err != nil {
			for _, e := range err.(Errors) {
				if text := e.Error(); len(text) > 2500 || strings.ContainsAny(text, "\n\r") {
					t.Errorf("an error of %d bytes: %q", len(text), text)
				}
			}
			return
		}
		switch {
		case len(c.Clusters) < 1, len(c.Clusters) > MaxClusters, c.Require < 1, c.Require > len(c.Clusters),
			c.Healthy.Status < 200, c.Healthy.Status > 299, c.Unhealthy.Status < 400, c.Unhealthy.Status > 599,
			!strings.HasPrefix(c.Path, "/"), c.StatPrefix == "":
			t.Errorf("out of bounds: %+v", c)
		}
		for _, cluster := range c.Clusters {
			if cluster.Name == "" || cluster.StatName == "" || cluster.Rule.MinHealthyPercent > 100 || cluster.Rule.MinHealthy > MaxMinHealthy {
				t.Errorf("out of bounds: %+v", cluster)
			}
		}
	})
}

func marshal(t testing.TB, text string) []byte {
	t.Helper()
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(parse(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestBounds(t *testing.T) {
	of := func(n int) string { return strings.Repeat("x", n) }
	names := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"c%d"`, i))
		}
		return strings.Join(all, ",")
	}
	for _, test := range []struct{ name, within, beyond string }{
		{"clusters", `{"clusters": [` + names(64) + `]}`, `{"clusters": [` + names(65) + `]}`},
		{"a cluster's name", `{"clusters": ["` + of(1024) + `"]}`, `{"clusters": ["` + of(1025) + `"]}`},
		{"a stat name", `{"clusters": [{"name": "a", "stat_name": "` + of(1024) + `"}]}`,
			`{"clusters": [{"name": "a", "stat_name": "` + of(1025) + `"}]}`},
		{"a path", `{"clusters": ["a"], "path": "/` + of(1023) + `"}`, `{"clusters": ["a"], "path": "/` + of(1024) + `"}`},
		{"a stat prefix", `{"clusters": ["a"], "stat_prefix": "` + of(1024) + `"}`, `{"clusters": ["a"], "stat_prefix": "` + of(1025) + `"}`},
		{"a body", `{"clusters": ["a"], "response": {"healthy": {"body": "` + of(4096) + `"}}}`,
			`{"clusters": ["a"], "response": {"healthy": {"body": "` + of(4097) + `"}}}`},
		{"hosts", `{"clusters": [{"name": "a", "min_healthy": 1000000}]}`, `{"clusters": [{"name": "a", "min_healthy": 1000001}]}`},
		{"no hosts", `{"clusters": [{"name": "a", "min_healthy": 0}]}`, `{"clusters": [{"name": "a", "min_healthy": -1}]}`},
		{"per cent", `{"clusters": [{"name": "a", "min_healthy_percent": 100}]}`, `{"clusters": [{"name": "a", "min_healthy_percent": 101}]}`},
		{"clusters required", `{"clusters": ["a", "b"], "require": 2}`, `{"clusters": ["a", "b"], "require": 3}`},
		{"one required", `{"clusters": ["a", "b"], "require": 1}`, `{"clusters": ["a", "b"], "require": 0}`},
		{"the lowest status", `{"clusters": ["a"], "response": {"healthy": {"status": 200}}}`,
			`{"clusters": ["a"], "response": {"healthy": {"status": 199}}}`},
		{"the highest status", `{"clusters": ["a"], "response": {"healthy": {"status": 299}}}`,
			`{"clusters": ["a"], "response": {"healthy": {"status": 300}}}`},
		{"the lowest failing status", `{"clusters": ["a"], "response": {"unhealthy": {"status": 400}}}`,
			`{"clusters": ["a"], "response": {"unhealthy": {"status": 399}}}`},
		{"the highest failing status", `{"clusters": ["a"], "response": {"unhealthy": {"status": 599}}}`,
			`{"clusters": ["a"], "response": {"unhealthy": {"status": 600}}}`},
		{"a duration", `{"clusters": ["a"], "stale_after": "86400s"}`, `{"clusters": ["a"], "stale_after": "86400.000000001s"}`},
		{"the shortest interval", `{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///a", "interval": "0.1s"}}`,
			`{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///a", "interval": "0.099999999s"}}`},
		{"the longest interval", `{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///a", "interval": "60s"}}`,
			`{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///a", "interval": "60.000000001s"}}`},
		{"a socket's path", `{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///` + of(106) + `"}}`,
			`{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///` + of(107) + `"}}`},
		{"a port", `{"clusters": ["a"], "source": "admin", "admin": {"address": "127.0.0.1:65535"}}`,
			`{"clusters": ["a"], "source": "admin", "admin": {"address": "127.0.0.1:65536"}}`},
		{"the characters of a stat prefix", `{"clusters": ["a"], "stat_prefix": "azAZ09_-.a"}`, `{"clusters": ["a"], "stat_prefix": "az AZ"}`},
		{"the characters of a path", `{"clusters": ["a"], "path": "/!~"}`, `{"clusters": ["a"], "path": "/ "}`},
		{"the last character of a path", `{"clusters": ["a"], "path": "/~"}`, `{"clusters": ["a"], "path": "/\u007f"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := Decode(parse(t, test.within), Plugin); err != nil {
				t.Errorf("within: %v", err)
			}
			if _, err := Decode(parse(t, test.beyond), Plugin); err == nil {
				t.Error("beyond: no error")
			}
		})
	}
	for _, character := range "`{@[/:^,*" { // next to the allowed ones
		if _, err := Decode(parse(t, fmt.Sprintf(`{"clusters": ["a"], "stat_prefix": "a%c"}`, character)), Plugin); err == nil {
			t.Errorf("no error for a stat prefix with %q", character)
		}
	}
}

// What follows from a wrong type is not reported too.
func TestWrongTypeIsOneError(t *testing.T) {
	for key := range keys(t) {
		for _, value := range []string{"5", "true", "null", `"?"`, "[]", "{}", "[5]"} {
			whole := `{"clusters": ["service"], ` + nest(strings.Split(key, "."), value) + `}`
			if rest, ok := strings.CutPrefix(key, "clusters[]."); ok {
				whole = `{"clusters": [{"name": "service", "` + rest + `": ` + value + `}]}`
			}
			if key == "clusters" {
				whole = `{"clusters": ` + value + `}`
			}
			if strings.HasPrefix(key, "admin.") {
				whole = `{"clusters": ["service"], "source": "admin", "admin": {"address": "unix:///a", "` + strings.TrimPrefix(key,
					"admin.") + `": ` + value + `}}`
			}
			_, err := Decode(parseLast(t, whole), Plugin)
			if err != nil && len(err.(Errors)) != 1 {
				t.Errorf("%s: %v", whole, err)
			}
		}
	}
}

// parseLast reads JSON with repeated keys: the last one counts.
func parseLast(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	var value map[string]any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	s, err := structpb.NewStruct(value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMergeRawDropsAdminWithItsSource(t *testing.T) {
	const filter = `{"clusters": ["a"], "source": "admin", "admin": {"address": "unix:///a"}}`
	for _, test := range []struct {
		route string
		kept  bool
	}{
		{`{"source": "stats"}`, false},
		{`{"source": "stats", "admin": {"interval": "2s"}}`, true}, // an error, which Decode reports
		{`{"source": "admin"}`, true},
		{`{"drain": "ignore"}`, true},
	} {
		t.Run(test.route, func(t *testing.T) {
			if kept := MergeRaw(parse(t, filter), parse(t, test.route)).GetFields()["admin"] != nil; kept != test.kept {
				t.Errorf("admin is kept: %v", kept)
			}
		})
	}
}

func TestOverrideWithoutClustersMayRequireAsManyAsAllowed(t *testing.T) {
	for text, good := range map[string]bool{`{"require": 64}`: true, `{"require": 65}`: false, `{"clusters": ["a"], "require": 2}`: false} {
		if _, err := DecodeOverride(parse(t, text), Plugin); (err == nil) != good {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
