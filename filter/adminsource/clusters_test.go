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

func TestReadClusters(t *testing.T) {
	const up, down = `{}`, `{"health_status": {"failed_active_health_check": true}}`
	for _, test := range []struct{ name, text, want string }{
		{"the usual", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `,` + down + `]}]}`, "a 1/2 kept 2"},
		{"none", `{}`, ""},
		{"null", `{"cluster_statuses": null}`, ""},
		{"no hosts", `{"cluster_statuses": [{"name": "a"}]}`, "a 0/0 kept 0"},
		{"null hosts", `{"cluster_statuses": [{"name": "a", "host_statuses": null}]}`, "a 0/0 kept 0"},
		{"the name last", `{"cluster_statuses": [{"host_statuses": [` + up + `], "name": "a"}]}`, "a 1/1 kept 1"},
		{"hosts that no report needs", `{"cluster_statuses": [{"name": "b", "host_statuses": [` + up + `]}]}`, "b 1/1 kept 0"},
		{"an unwanted cluster", `{"cluster_statuses": [{"name": "c", "host_statuses": [` + up + `]}, {"name": "a"}]}`, "a 0/0 kept 0"},
		{"a cluster without a name", `{"cluster_statuses": [{"host_statuses": [` + up + `]}]}`, ""},
		{"fields of a later Envoy", `{"x": [[{"y": [1e999, null, true]}]], "cluster_statuses": [{"x": {"name": "b"}, "name": "a",
			"host_statuses": [{"x": [{}], "weight": 1}], "z": []}], "y": "{"}`, "a 1/1 kept 1"},
		{"a repeated cluster", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `]}, {"name": "a"}]}`, "a 0/0 kept 0"},
		{"a repeated name", `{"cluster_statuses": [{"name": "c", "host_statuses": [` + up + `], "name": "a"}]}`, "a 1/1 kept 1"},
		{"repeated hosts", `{"cluster_statuses": [{"name": "a", "host_statuses": [` + up + `,` + up + `], "host_statuses": [` + down + `]}]}`,
			"a 0/1 kept 1"},
		{"a repeated list", `{"cluster_statuses": [{"name": "a"}], "cluster_statuses": [{"name": "b"}]}`, "b 0/0 kept 0"},
		{"a repeated list, null", `{"cluster_statuses": [{"name": "a"}], "cluster_statuses": null}`, ""},
		{"escapes", `{"cluster\u005fstatuses": [{"na\u006de": "\u0061"}]}` + " \n", "a 0/0 kept 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := readClusters(strings.NewReader(test.text), wanted{"a": true, "b": false})
			if err != nil {
				t.Fatal(err)
			}
			if got := tally(got); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestReadClustersRefusesAnythingElse(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                      ``,
		"text":                         `default_priority::max_connections::1024`,
		"null":                         `null`,
		"a list":                       `[]`,
		"a list in a list":             `{"cluster_statuses": [[]]}`,
		"no list":                      `{"cluster_statuses": "a"}`,
		"an object for a list":         `{"cluster_statuses": {}}`,
		"a null cluster":               `{"cluster_statuses": [null]}`,
		"a name that is a number":      `{"cluster_statuses": [{"name": 1}]}`,
		"a null host":                  `{"cluster_statuses": [{"name": "a", "host_statuses": [null]}]}`,
		"a host that is a list":        `{"cluster_statuses": [{"name": "a", "host_statuses": [[]]}]}`,
		"a flag that is a string":      `{"cluster_statuses": [{"host_statuses": [{"health_status": {"failed_outlier_check": "no"}}]}]}`,
		"something behind":             `{"cluster_statuses": [{"name": "a"}]} {}`,
		"something bad behind":         `{"cluster_statuses": [{"name": "a"}]} x`,
		"a comma too many":             `{"cluster_statuses": [{"name": "a"},]}`,
		"a comma too few":              `{"cluster_statuses": [{"name": "a"} {"name": "b"}]}`,
		"a field without a value":      `{"cluster_statuses": [{"name": }]}`,
		"a field that is a number":     `{1: []}`,
		"brackets that don't match":    `{"cluster_statuses": [{"name": "a"}}`,
		"bad JSON in an unknown field": `{"x": [1, 2`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := readClusters(strings.NewReader(text), wanted{"a": true}); err == nil || got != nil {
				t.Errorf("got %v, %v, want an error alone", got, err)
			}
		})
	}
	t.Run("cut short anywhere", func(t *testing.T) {
		const text = `{"x": [{}, 1], "cluster_statuses": [{"name": "a", "y": "z", "host_statuses": [{"health_status": {}}, {}]}, {"name": "b"}]}`
		for i := range len(text) {
			got, err := readClusters(strings.NewReader(text[:i]), wanted{"a": true})
			if err == nil || got != nil || errors.Is(err, io.EOF) {
				t.Errorf("%s: got %v, %v, want an error alone", text[:i], got, err)
			}
		}
	})
}

// longResponse is read in parts: before, part as often as parts says, after.
type longResponse struct {
	before, part, after string
	parts               int
	given               int // bytes
	rest                bytes.Buffer
}

func (l *longResponse) Read(p []byte) (int, error) {
	for l.rest.Len() == 0 {
		switch {
		case l.before != "":
			l.rest.WriteString(l.before)
			l.before = ""
		case l.parts > 0:
			l.rest.WriteString(l.part)
			l.parts--
		case l.after != "":
			l.rest.WriteString(l.after)
			l.after = ""
		default:
			return 0, io.EOF
		}
	}
	n, err := l.rest.Read(p)
	l.given += n
	return n, err
}

// longHost has as many bytes as Envoy writes for a host.
var longHost = `{"address": {"socket_address": {"address": "10.0.0.1", "port_value": 8080}}, "hostname": "` +
	strings.Repeat("a", 600) + `", "health_status": {"eds_health_status": "HEALTHY"}},`

func TestReadClustersKeepsOnlyWantedClustersOfALongResponse(t *testing.T) {
	const foreign = 8_000
	long := func(name string) *longResponse {
		return &longResponse{
			before: `{"cluster_statuses": [{"name": "` + name + `", "host_statuses": [`,
			part:   longHost,
			parts:  foreign,
			after:  `{}]}, {"name": "a", "host_statuses": [{}]}]}`,
		}
	}
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
			answer := long("big")
			before := heap()
			got, err := readClusters(answer, test.wanted)
			if err != nil {
				t.Fatal(err)
			}
			if got := tally(got); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if answer.given < 4<<20 {
				t.Fatalf("the answer has %d bytes, too few for this test", answer.given)
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
	const gib = 1 << 30
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
			answer := &longResponse{before: test.before, part: test.part, parts: gib}
			if got, err := readClusters(answer, wanted{"a": true}); err == nil || test.want != nil && !errors.Is(err, test.want) || got != nil {
				t.Errorf("got %v, %v, want the error %v", got, err, test.want)
			}
			if answer.given > 2*maxValue {
				t.Errorf("%d bytes were read before the error", answer.given)
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
		clusters, err := readClusters(bytes.NewReader(text), wanted{"a": true, "b": false, "": true})
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
