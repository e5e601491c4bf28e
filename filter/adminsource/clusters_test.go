package adminsource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// tally shows clusters: each one's name, its healthy hosts of how many, and how many hosts are kept.
func tally(clusters map[string]*cluster) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		c := clusters[name]
		all = append(all, fmt.Sprintf("%s %d/%d kept %d", name, c.counts.Healthy, c.counts.Total, len(c.hosts)))
	}
	return strings.Join(all, ", ")
}

const refused = "refused"

func TestReadClusters(t *testing.T) {
	const up, down = `{}`, `{"health_status": {"failed_active_health_check": true}}`
	for _, test := range []struct{ name, text, want string }{
		{"the usual", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `,` + down + `]}]}`, "a 1/2 kept 2"},
		{"none", `{}`, ""},
		{"no hosts", `{"cluster_statuses": [{"name": "a"}]}`, "a 0/0 kept 0"},
		{"the name last", `{"cluster_statuses": [{"host_statuses": [` + up + `], "name": "a"}]}`, "a 1/1 kept 1"},
		{"hosts that no report needs", `{"cluster_statuses": [{"name": "b", "host_statuses": [` + up + `]}]}`, "b 1/1 kept 0"},
		{"an unwanted cluster", `{"cluster_statuses": [{"name": "c", "host_statuses": [` + up + `]}, {"name": "a"}]}`, "a 0/0 kept 0"},
		{"a cluster without a name", `{"cluster_statuses": [{"host_statuses": [` + up + `]}]}`, ""},
		{"fields of a later Envoy", `{"x": [[{"y": [1e999, null, true]}]], "cluster_statuses": [{"x": {"name": "b"}, "name": "a",
			"host_statuses": [{"x": [{}], "weight": 1}], "z": []}], "y": "{"}`, "a 1/1 kept 1"},
		{"a health status of a later Envoy", `{"cluster_statuses": [{"name": "a", "host_statuses":
			[{"health_status": {"eds_health_status": "LATER"}}]}]}`, "a 0/1 kept 1"},
		{"a repeated cluster", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `]}, {"name": "a"}]}`, "a 0/0 kept 0"},
		{"a repeated name", `{"cluster_statuses": [{"name": "c", "host_statuses": [` + up + `], "name": "a"}]}`, "a 1/1 kept 1"},
		{"repeated hosts", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `,` + up + `], "host_statuses": [` + down + `]}]}`,
			"a 0/1 kept 1"},
		{"a repeated list", `{"cluster_statuses": [{"name": "a"}], "cluster_statuses": [{"name": "b"}]}`, "b 0/0 kept 0"},
		{"escapes", `{"cluster\u005fstatuses": [{"na\u006de": "\u0061"}]}` + " \n", "a 0/0 kept 0"},
		{"nothing", ``, refused},
		{"text", `default_priority::max_connections::1024`, refused},
		{"null", `null`, refused},
		{"a list", `[]`, refused},
		{"a list in a list", `{"cluster_statuses": [[]]}`, refused},
		{"no list", `{"cluster_statuses": "a"}`, refused},
		{"an object for a list", `{"cluster_statuses": {}}`, refused},
		{"a null cluster", `{"cluster_statuses": [null]}`, refused},
		{"a name that is a number", `{"cluster_statuses": [{"name": 1}]}`, refused},
		{"a null host", `{"cluster_statuses": [{"name": "a", "host_statuses": [null]}]}`, refused},
		{"a host that is a list", `{"cluster_statuses": [{"name": "a", "host_statuses": [[]]}]}`, refused},
		{"a flag that is a string", `{"cluster_statuses": [{"host_statuses": [{"health_status": {"failed_outlier_check": "no"}}]}]}`, refused},
		{"something behind", `{"cluster_statuses": [{"name": "a"}]} {}`, refused},
		{"something bad behind", `{"cluster_statuses": [{"name": "a"}]} x`, refused},
		{"a comma too many", `{"cluster_statuses": [{"name": "a"},]}`, refused},
		{"a comma too few", `{"cluster_statuses": [{"name": "a"} {"name": "b"}]}`, refused},
		{"a field without a value", `{"cluster_statuses": [{"name": }]}`, refused},
		{"a field that is a number", `{1: []}`, refused},
		{"brackets that don't match", `{"cluster_statuses": [{"name": "a"}}`, refused},
		{"bad JSON in an unknown field", `{"x": [1, 2`, refused},
		{"null for a list", `{"cluster_statuses": null}`, refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := wanted{"a": true, "b": false}.readClusters(strings.NewReader(test.text))
			if (err != nil) != (test.want == refused) || (got == nil) != (test.want == refused) {
				t.Fatalf("got %v, %v, want %q", got, err, test.want)
			}
			if err == nil && tally(got) != test.want {
				t.Errorf("got %q, want %q", tally(got), test.want)
			}
		})
	}
	t.Run("cut short anywhere", func(t *testing.T) {
		const text = `{"x": [{}, 1], "cluster_statuses": [{"name": "a", "y": "z", "host_statuses": [{"health_status": {}}, {}]}, {"name": "b"}]}`
		for i := range len(text) {
			got, err := wanted{"a": true}.readClusters(strings.NewReader(text[:i]))
			if err == nil || got != nil || errors.Is(err, io.EOF) {
				t.Errorf("%s: got %v, %v, want an error alone", text[:i], got, err)
			}
		}
	})
}

// endless is a text that is repeated for ever.
type endless struct {
	text  string
	given int // bytes
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		copied := copy(p[n:], e.text[e.given%len(e.text):])
		n += copied
		e.given += copied
	}
	return n, nil
}

func TestReadClustersKeepsOnlyWantedClustersOfALongResponse(t *testing.T) {
	host := `{"address": {"socket_address": {"address": "10.0.0.1", "port_value": 8080}}, "hostname": "` +
		strings.Repeat("a", 600) + `", "health_status": {"eds_health_status": "HEALTHY"}},` // as long as Envoy writes it
	for _, test := range []struct {
		name   string
		wanted wanted
		want   string
	}{
		{"hosts of another cluster", wanted{"a": true}, "a 1/1 kept 1"},
		{"counted hosts", wanted{"a": true, "big": false}, "a 1/1 kept 1, big 8001/8001 kept 0"},
		{"reported hosts", wanted{"a": false, "big": true}, "a 1/1 kept 0, big 8001/8001 kept 1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			response := io.MultiReader(strings.NewReader(`{"cluster_statuses": [{"name": "big", "host_statuses": [`),
				io.LimitReader(&endless{text: host}, int64(8_000*len(host))), strings.NewReader(`{}]}, {"name": "a", "host_statuses": [{}]}]}`))
			before := heap()
			got, err := test.wanted.readClusters(response)
			if err != nil {
				t.Fatal(err)
			}
			if got := tally(got); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if kept := int64(heap()) - int64(before); kept > 256<<10 {
				t.Errorf("%d bytes are kept", kept)
			}
			runtime.KeepAlive(got)
		})
	}
}

// heap is the bytes in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestReadClustersHoldsNothingWithoutABound(t *testing.T) {
	letters := strings.Repeat("a", 1<<10)
	for _, test := range []struct {
		name, before, part string
		want               error // nil for one of encoding/json
	}{
		{"a name", `{"cluster_statuses": [{"name": "`, letters, errTooLong},
		{"a field", `{"`, letters, errTooLong},
		{"a string that is skipped", `{"x": "`, letters, errTooLong},
		{"a number that is skipped", `{"x": 1`, "0", errTooLong},
		{"an address", `{"cluster_statuses": [{"host_statuses": [{"address": {"pipe": {"path": "`, letters, errTooLong},
		{"a host", `{"cluster_statuses": [{"host_statuses": [{"x": [1`, ",1", errTooLong},
		{"lists in lists", `{"x": `, "[", nil},
		{"objects in objects", `{"x": `, `{"x":`, nil},
		{"an unknown field", `{"x": [1`, ",1", errTooLong},
		{"space", `{"x": `, strings.Repeat(" ", 1<<10), errTooLong},
		{"space at the end", `{}`, strings.Repeat("\n", 1<<10), errTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			rest := &endless{text: test.part}
			got, err := wanted{"a": true}.readClusters(io.MultiReader(strings.NewReader(test.before), rest))
			if err == nil || test.want != nil && !errors.Is(err, test.want) || got != nil {
				t.Errorf("got %v, %v, want the error %v", got, err, test.want)
			}
			if rest.given > 2*maxClusterValue {
				t.Errorf("%d bytes were read before the error", rest.given)
			}
		})
	}
}

func FuzzReadClusters(f *testing.F) {
	for _, text := range []string{
		`{"cluster_statuses": [{"name": "a", "host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}]}]}`,
		`{"cluster_statuses": [{"name": "a", "host_statuses": [{"address": {"pipe": {"path": "/a"}}}, {}]}, {}]}`,
		`{"cluster_statuses": [{"host_statuses": [{}], "name": "b", "x": [1e999]}], "x": {"y": [null, "\ud800"]}}`,
		`{"cluster_statuses": [{"name": "b", "host_statuses": [{"health_status": {"pending_active_hc": true}}]}]}`,
		`[]`,
		`{"cluster_statuses": null}`,
		`{"cluster_statuses": [{"name": "a"}], "cluster_statuses": [{"name": "b", "name": null}]} `,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		clusters, err := wanted{"a": true, "b": false, "": true}.readClusters(bytes.NewReader(text))
		if err != nil {
			if line := err.Error(); clusters != nil || len(line) > 500 || errors.Is(err, io.EOF) {
				t.Errorf("got %v and %q", clusters, line)
			}
			return
		}
		if !json.Valid(text) {
			t.Error("no error, though it is not JSON")
		}
		for name, c := range clusters {
			if c.counts.Healthy+c.counts.Degraded > c.counts.Total || c.counts.Excluded > c.counts.Total ||
				len(c.hosts) != map[bool]int{true: int(min(c.counts.Total, maxHosts))}[name != "b"] {
				t.Errorf("%q: got %s", name, tally(clusters))
			}
		}
	})
}
