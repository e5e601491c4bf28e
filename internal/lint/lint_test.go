package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// Lint finds nothing in the configurations that users copy.
func TestExamplesHaveNoFindings(t *testing.T) {
	for _, file := range []string{"envoy.yaml", "module.yaml", "lua.yaml"} {
		content, err := os.ReadFile(filepath.Join("../../envoy", file))
		if err != nil {
			t.Fatal(err)
		}
		found, err := Run([]Input{{file, content}})
		if err != nil || len(found) > 0 {
			t.Errorf("%v, and found:\n%s", err, render(found))
		}
	}
}

// JSON is read as YAML is: the same values, at the same places.
func TestJSONHasThePositionsOfYAML(t *testing.T) {
	text := "{\n \"admin\": {\"ü\": [1, -2.5e3, true,\n  null, \"a\\u00e4\\n\"], \"address\": {}}, \"b\": []}"
	byJSON, err := parseJSON([]byte(text), place{})
	if err != nil {
		t.Fatal(err)
	}
	byYAML, err := parseYAML([]byte(text), place{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outline(byJSON), outline(byYAML[0]); got != want {
		t.Errorf("JSON is read as\n%s\nYAML as\n%s", got, want)
	}
}

// outline renders a node without its columns, which JSON counts in bytes.
func outline(n *Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%s", n.line, n.kind)
	if n.kind == text || n.kind == boolean {
		b.WriteString(n.scalar)
	}
	for _, e := range n.entries {
		fmt.Fprintf(&b, " %s={%s}", e.key, outline(e.value))
	}
	for _, item := range n.items {
		fmt.Fprintf(&b, " [%s]", outline(item))
	}
	return b.String()
}

// The fuzzer runs a hundred times slower than this: it instruments all of Envoy's API.
func TestMutatedConfigurationsDoNotPanic(t *testing.T) {
	times := 3000
	if set := os.Getenv("MUTATIONS"); set != "" {
		fmt.Sscan(set, &times)
	}
	var all [][]byte
	for _, w := range corpus(t) {
		for _, input := range w.inputs {
			all = append(all, input.Content)
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(times)))
	for range times {
		content := all[random.IntN(len(all))]
		for range 1 + random.IntN(4) {
			content = mutated(random, content, all[random.IntN(len(all))])
		}
		survive(t, content)
	}
}

// mutated changes a line or a piece, or takes them from another text.
func mutated(random *rand.Rand, content, other []byte) []byte {
	lines, others := bytes.SplitAfter(content, []byte("\n")), bytes.SplitAfter(other, []byte("\n"))
	at := random.IntN(len(lines))
	switch random.IntN(6) {
	case 0:
		lines = slices.Delete(slices.Clone(lines), at, min(at+1+random.IntN(5), len(lines)))
	case 1:
		lines = slices.Insert(slices.Clone(lines), at, others[random.IntN(len(others))])
	case 2: // a value becomes another
		key, _, found := bytes.Cut(lines[at], []byte(": "))
		_, value, _ := bytes.Cut(others[random.IntN(len(others))], []byte(": "))
		if found {
			lines = slices.Clone(lines)
			lines[at] = slices.Concat(key, []byte(": "), value, []byte("\n"))
		}
	case 3: // the lines below a key move
		lines = slices.Clone(lines)
		lines[at] = append([]byte("  "), lines[at]...)
	case 4:
		words := [][]byte{[]byte("null"), []byte("[]"), []byte("{}"), []byte("-1"), []byte(`""`), []byte("*a"), []byte("&a"),
			[]byte("!!binary x"), []byte("1e999"), []byte("\x00"), []byte("\xff")}
		cut := random.IntN(len(content) + 1)
		return slices.Concat(content[:cut], words[random.IntN(len(words))], content[cut:])
	case 5:
		return content[:random.IntN(len(content)+1)]
	}
	return bytes.Join(lines, nil)
}

func survive(t *testing.T, content []byte) {
	t.Helper()
	defer func() {
		if cause := recover(); cause != nil {
			t.Errorf("%v\n%s\nof\n%s", cause, debug.Stack(), content)
		}
	}()
	found, _ := Run([]Input{{"f", content}}) // one that took minutes would be ended by go test
	for _, one := range found {
		if one.Line < 1 || one.Column < 1 || strings.ContainsAny(one.Message, "\n\r") || len(one.Message) > 20_000 {
			t.Errorf("found %s", one)
		}
	}
}

// For any input it neither panics nor takes long, and each finding is one line at a place that exists.
func FuzzRun(f *testing.F) {
	for _, w := range corpus(f) {
		for _, input := range w.inputs {
			f.Add(input.Content)
		}
	}
	f.Fuzz(survive)
}

// largeDump is what admin gives of an Envoy with many clusters and routes.
func largeDump(t testing.TB, size int) []byte {
	t.Helper()
	small, err := os.ReadFile("testdata/good-dump-envoy-gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var dump struct {
		Configs []map[string]any `json:"configs"`
	}
	if err := json.Unmarshal(small, &dump); err != nil {
		t.Fatal(err)
	}
	for key, part := range map[string]int{"dynamic_active_clusters": 1, "dynamic_route_configs": 4, "dynamic_listeners": 2} {
		all := dump.Configs[part][key].([]any)
		one, err := json.MarshalIndent(all[0], "", " ")
		if err != nil {
			t.Fatal(err)
		}
		for i := range size / 3 / len(one) {
			another := strings.NewReplacer("grpcroute/shop", fmt.Sprint("grpcroute/shop", i), `"shop/eg`,
				fmt.Sprint(`"shop`, i, "/eg")).Replace(string(one))
			all = append(all, json.RawMessage(another))
		}
		dump.Configs[part][key] = all
	}
	large, err := json.MarshalIndent(dump, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return large
}

// Routes that a virtual host enables, none of which takes a probe for certain: no rule may compare each with each other. That would need
// more than the minutes that go test gives.
func TestManyRoutesAreRead(t *testing.T) {
	whole, err := os.ReadFile("testdata/good-levels.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const one = "              - name: cart\n"
	const another = "              - {match: {prefix: /, headers: [{name: x, present_match: true}]}, direct_response: {status: 503}}\n"
	text := strings.Replace(string(whole), one, strings.Repeat(another, 20_000)+one, 1)
	found, err := Run([]Input{{"f", []byte(text)}})
	if err != nil || len(found) > 0 {
		t.Errorf("%v, and found:\n%.2000s", err, render(found))
	}
}

// What is quadratic would need hours, which go test ends.
func TestLargeDumpIsRead(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes 50 MiB")
	}
	dump := largeDump(t, 50<<20)
	if len(dump) < 50<<20 {
		t.Fatalf("the dump has %d bytes", len(dump))
	}
	start := time.Now()
	found, err := Run([]Input{{"dump", dump}})
	if err != nil || len(found) > 0 {
		t.Errorf("%v, and found %d, the first:\n%.2000s", err, len(found), render(found))
	}
	t.Logf("%d MiB in %v", len(dump)>>20, time.Since(start))
}

// What the mutations above have found once.
func TestConfigurationsThatOncePanicked(t *testing.T) {
	for name, content := range map[string]string{
		"a gate without a value": `{"listeners": [{"filter_chains": [{"filters": [{"typed_config": {
			"@type": "x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"http_filters": [{"name": "h", "typed_config": {"@type": "x/envoy.extensions.filters.http.golang.v3alpha.Config",
			"plugin_name": "healthgate", "plugin_config": {"@type": "x/google.protobuf.Struct"}}}]}}]}]}]}`,
		"an Ingress without annotations": `{"apiVersion": "v1", "kind": "List", "items": [
			{"kind": "Ingress", "spec": {"ingressClassName": "alb"}},
			{"kind": "Pod", "spec": {"containers": [{"lifecycle": {"preStop": {"exec": {"command": ["healthgate", "drain"]}}}}]}}]}`,
	} {
		t.Run(name, func(t *testing.T) { survive(t, []byte(content)) })
	}
}

// endless is an input that never ends, as /dev/zero is.
type endless struct{ read int }

func (e *endless) Read(into []byte) (int, error) {
	clear(into)
	e.read += len(into)
	return len(into), nil
}

func TestReadAllStopsAtTheLimit(t *testing.T) {
	in := &endless{}
	content, err := ReadAll(in)
	if err != nil || len(content) != maxYAML+1 || in.read > 2*maxYAML {
		t.Errorf("%v: %d bytes were read, %d are there", err, in.read, len(content))
	}
	if _, err := Run([]Input{{"f", content}}); err == nil ||
		err.Error() != "f: it has more than 8 MiB, up to which YAML is read; JSON is up to 1024 MiB" {
		t.Errorf("it says %v", err)
	}
	// JSON may be longer.
	content, err = ReadAll(strings.NewReader("{" + strings.Repeat(" ", maxYAML+5) + "}"))
	if err != nil || len(content) != maxYAML+7 {
		t.Errorf("%v: %d bytes of JSON are there", err, len(content))
	}
}
