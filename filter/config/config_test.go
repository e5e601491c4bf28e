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

// example is a configuration in testdata, one a line, and what follows from it, on indented lines.
type example struct {
	text string
	want []string
}

// examples reads a file of testdata. What follows from an accepted configuration is how it differs from the one with clusters: [service]
// alone, and from a refused one all its errors.
func examples(t testing.TB, file string) (all []example) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if want, indented := strings.CutPrefix(line, "\t"); indented {
			all[len(all)-1].want = append(all[len(all)-1].want, want)
		} else {
			all = append(all, example{text: line})
		}
	}
	return all
}

// lines returns the fields of a configuration, one a line.
func lines(t *testing.T, c *Config) (all []string) {
	t.Helper()
	text, err := json.MarshalIndent(c, "", "")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		all = append(all, strings.Trim(line, " ,{[]}\n"))
	}
	return all
}

func TestDecode(t *testing.T) {
	for file, variants := range map[string][]Variant{
		"accepted.txt": {Plugin, Module}, "accepted-by-plugin.txt": {Plugin}, "accepted-by-module.txt": {Module},
	} {
		for _, test := range examples(t, file) {
			for _, variant := range variants {
				t.Run(fmt.Sprint(test.text, " variant ", variant), func(t *testing.T) {
					byDefault, err := Decode(parse(t, `{"clusters": ["service"]}`), variant)
					if err != nil {
						t.Fatal(err)
					}
					c, err := Decode(parse(t, test.text), variant)
					if err != nil {
						t.Fatal(err)
					}
					known := lines(t, byDefault)
					got := slices.DeleteFunc(lines(t, c), func(line string) bool { return slices.Contains(known, line) })
					if !slices.Equal(got, test.want) {
						t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
					}
				})
			}
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := Decode(parse(t, `{"clusters": ["service"]}`), Plugin)
	if err != nil {
		t.Fatal(err)
	}
	got.written = written{}
	want := Config{
		Path: "/",
		Policy: policy.Policy{Clusters: []policy.Cluster{{Name: "service", StatName: "service", Rule: policy.Rule{MinHealthy: 1}}},
			Require: 1},
		Healthy:    Response{Status: 200, Body: "ok\n"},
		Unhealthy:  Response{Status: 503, Body: "unavailable\n"},
		StatPrefix: "default",
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestDecodeReturnsAllErrors(t *testing.T) {
	for file, variant := range map[string]Variant{"refused-by-plugin.txt": Plugin, "refused-by-module.txt": Module} {
		for _, test := range examples(t, file) {
			t.Run(clipText(test.text), func(t *testing.T) {
				expectErrors(t, variant, test.text, strings.Join(test.want, "; "))
			})
		}
	}
	for _, test := range examples(t, "accepted-by-module.txt") {
		_, err := Decode(parse(t, test.text), Plugin)
		if err == nil || !strings.Contains(err.Error(), "not supported by the Go plugin; use the dynamic module") {
			t.Errorf("%s: the Go plugin says %v", test.text, err)
		}
	}
}

func expectErrors(t *testing.T, variant Variant, text, want string) {
	t.Helper()
	if c, err := Decode(parse(t, text), variant); c != nil || err == nil || err.Error() != want {
		t.Errorf("got  %+v, %v\nwant %s", c, err, want)
	}
}

func TestLengthsAreBounded(t *testing.T) {
	const tooLong = ": has %d bytes; at most %d are allowed"
	x := func(n int) string { return strings.Repeat("x", n) }
	names := func(n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint("c", i))
		}
		return strings.Join(all, `", "`)
	}
	for _, test := range []struct {
		text    string
		fill    func(n int) string
		longest int
		err     string
	}{
		{`{"clusters": ["%s"]}`, x, 1024, "clusters[0].name" + tooLong},
		{`{"clusters": [{"name": "a", "stat_name": "%s"}]}`, x, 1024, "clusters[0].stat_name" + tooLong},
		{`{"clusters": ["a"], "path": "%s"}`, func(n int) string { return "/" + x(n-1) }, 1024, "path" + tooLong},
		{`{"clusters": ["a"], "stat_prefix": "%s"}`, x, 1024, "stat_prefix" + tooLong},
		{`{"clusters": ["a"], "response": {"healthy": {"body": "%s"}}}`, x, 4096, "response.healthy.body" + tooLong},
		{`{"clusters": ["a"], "grpc_services": ["%s"]}`, x, 1024, "grpc_services[0]" + tooLong},
		{`{"clusters": ["%s"]}`, names, 64, "clusters: has %d entries; at most %d are allowed"},
		{`{"clusters": ["a"], "grpc_services": ["%s"]}`, names, 64, "grpc_services: has %d entries; at most %d are allowed"},
	} {
		t.Run(test.err, func(t *testing.T) {
			if _, err := Decode(parse(t, fmt.Sprintf(test.text, test.fill(test.longest))), Module); err != nil {
				t.Error(err)
			}
			expectErrors(t, Module, fmt.Sprintf(test.text, test.fill(test.longest+1)), fmt.Sprintf(test.err, test.longest+1, test.longest))
		})
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
	const filter = `{"clusters": ["a", "b"], "path": "/", "response": {"healthy": {"status": 201, "body": "x"}, "unhealthy": {"status": 500}}}`
	const polled = `{"source": "admin", "admin": {"address": "unix:///a"}}`
	for _, test := range []struct{ filter, route, want string }{
		{filter, `{}`, filter},
		{filter, `{"path": "/readyz"}`, strings.Replace(filter, `"path": "/"`, `"path": "/readyz"`, 1)},
		{filter, `{"clusters": ["c"]}`, strings.Replace(filter, `["a", "b"]`, `["c"]`, 1)},
		{filter, `{"response": {"healthy": {"status": 202}}}`, strings.Replace(filter, "201", "202", 1)},
		{filter, `{"drain": "ignore"}`, strings.Replace(filter, `"path"`, `"drain": "ignore", "path"`, 1)},
		{`{}`, `{"path": "/x"}`, `{"path": "/x"}`},
		{polled, `{"source": "stats"}`, `{"source": "stats"}`}, // its admin goes too
		{polled, `{"source": "stats", "admin": {"interval": "2s"}}`, // an error, which Decode reports
			`{"source": "stats", "admin": {"address": "unix:///a", "interval": "2s"}}`},
		{polled, `{"source": "admin"}`, polled},
	} {
		t.Run(test.route, func(t *testing.T) {
			filter := parse(t, test.filter)
			if got, want := MergeRaw(filter, parse(t, test.route)), parse(t, test.want); !proto.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !proto.Equal(filter, parse(t, test.filter)) {
				t.Error("it changed its argument")
			}
		})
	}
	if got := MergeRaw(nil, parse(t, `{"path": "/x"}`)); !proto.Equal(got, parse(t, `{"path": "/x"}`)) {
		t.Errorf("without a filter's: got %v", got)
	}
}

func TestOverrideIsCheckedOnItsOwn(t *testing.T) {
	for _, test := range []struct {
		text    string
		variant Variant
		want    string
	}{
		{`{}`, Plugin, ""},
		{`{"path": "/readyz"}`, Plugin, ""},
		{`{"require": 64}`, Plugin, ""}, // the filter may have as many clusters
		{`{"require": 65}`, Plugin, "require: 65 is not a whole number from 1 to 64, the number of clusters"},
		{`{"clusters": ["a"], "require": 2}`, Plugin, "require: 2 is not a whole number from 1 to 1, the number of clusters"},
		{`{"clusters": ["a"], "require": "any"}`, Plugin, ""},
		{`{"paht": "/"}`, Plugin, "paht: unknown key, did you mean path?"},
		{`{"clusters": null}`, Plugin, "clusters: null is not a list"},
		{`{"clusters": []}`, Plugin, "clusters: is empty; name at least one cluster"},
		{`{"clusters": []}`, Module, ""}, // the filter may ignore drains
	} {
		t.Run(test.text, func(t *testing.T) {
			_, err := DecodeOverride(parse(t, test.text), test.variant)
			if (err != nil) != (test.want != "") || err != nil && err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// For any Struct, Decode returns a configuration within its bounds, or errors of one short line each.
func FuzzDecode(f *testing.F) {
	for _, test := range append(examples(f, "accepted.txt"), examples(f, "refused-by-plugin.txt")...) {
		wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(parse(f, test.text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
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
