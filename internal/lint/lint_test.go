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

// The bounds of the rules that have one, each with a value on either side of it.
func TestBoundsOfRules(t *testing.T) {
	reference, err := os.ReadFile("../../envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// A check every 5 s, and up to 1 s later, takes up to 1 s.
	for name, test := range map[string]struct{ old, new, rule string }{
		"a route that answers 399": {"direct_response: {status: 503}", "direct_response: {status: 399}", "leaks"},
		"a route that answers 400": {"direct_response: {status: 503}", "direct_response: {status: 400}", ""},
		"stale_after is the time of a check": {"path: \"/\"\n                  clusters:",
			"path: \"/\"\n                  stale_after: 7s\n                  clusters:", ""},
		"stale_after is less than that": {"path: \"/\"\n                  clusters:",
			"path: \"/\"\n                  stale_after: 6.9s\n                  clusters:", "idle"},
		"a check in a minute where idle":      {"no_traffic_interval: 5s", "no_traffic_interval: 60s", "idle"},
		"a check in a bit less":               {"no_traffic_interval: 5s", "no_traffic_interval: 59s", ""},
		"the same where idle and healthy":     {"no_traffic_healthy_interval: 5s", "no_traffic_healthy_interval: 60s", "idle"},
		"a percentage at the panic threshold": {"min_healthy_percent: 0", "min_healthy_percent: 50\n                    excluded: ignore", ""},
		"a percentage below it": {"min_healthy_percent: 0",
			"min_healthy_percent: 49\n                    excluded: ignore", "panic"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(string(reference), test.old, test.new, 1)
			if text == string(reference) {
				t.Fatalf("the reference configuration has no %q", test.old)
			}
			found, err := Run([]Input{{"f", []byte(text)}})
			if err != nil || (len(found) > 0) != (test.rule != "") || len(found) > 0 && found[0].Rule != test.rule {
				t.Errorf("%v, and found:\n%s", err, render(found))
			}
		})
	}
}

// A text that can't be read is reported at its position, and a text that is no configuration at all is a finding too.
func TestUnreadableFilesAreReported(t *testing.T) {
	for name, test := range map[string]struct{ content, finding, err string }{
		"a compressed file": {"\x1f\x8b\x08\x00", "f:1:1: error: this file is compressed by gzip: check gunzip -c FILE | healthgate lint " +
			"- [api]", ""},
		"YAML that ends early": {"admin: {address: ", "f:2:1: error: not YAML: did not find expected node content, so nothing in this file " +
			"is checked: fix this first [api]", ""},
		"a tab": {"admin:\n\taddress: x\n", "f:2:1: error: not YAML: found character that cannot start any token, so nothing " +
			"in this file is checked: fix this first [api]", ""},
		"a list of words": {"[a, b]", "f:1:1: warning: this file is no configuration of Envoy or Kubernetes, so nothing in it is " +
			"checked: lint reads a bootstrap, ", ""},
		"nothing": {"", "f:1:1: warning: this file is no configuration of Envoy or Kubernetes, so nothing in it is checked: " +
			"lint reads a bootstrap, ", ""},
		"a comment": {"# nothing\n", "f:1:1: warning: this file is no configuration of Envoy or Kubernetes, so nothing in it is " +
			"checked: lint reads a bootstrap, ", ""},
		"another program's file": {"services:\n  web: {image: nginx}\n",
			"f:1:1: warning: this file is no configuration of Envoy or Kubernetes, so nothing in it is checked: lint reads a bootstrap, ", ""},
		"a ConfigMap of others": {"apiVersion: v1\nkind: ConfigMap\ndata: {a: \"b: [\", c: '{\"d\": 1}'}\n",
			"f:1:1: warning: nothing in this file is about Envoy, so nothing in it is checked: lint reads a bootstrap, ", ""},
		"an anchor in itself": {"admin: &a [*a]\n", "f:1:8: error: values are nested more than 500 deep", ""},
		"anchors of anchors": {"a: &a [0,0,0,0,0,0,0,0,0,0]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nadmin: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
			"error: the aliases expand to more than", ""},
		"YAML 1.1's booleans": {"admin: {profile_path: no, ignore_global_conn_limit: On, access_log_path: \"on\"}\n",
			"f:1:9: error: profile_path is false, and Envoy's API has a string here: put it into quotes [api]", ""},
		"Envoy's own tag": {"!ignore anchors:\n- &a {socket_address: {address: 0.0.0.0, port_value: 1}}\nadmin: {address: *a}\n",
			"f:2:24: error: admin listens on 0.0.0.0", ""},
		"YAML 1.2 by its name": {"%YAML 1.2\n---\nadmin: {profile_path: 5}\n",
			"f:3:9: error: profile_path is 5, and Envoy's API has a string here: put it into quotes [api]", ""},
		"a merge key": {"a: &a {profile_path: x}\nadmin: {<<: *a}\n", "f:2:9: error: Envoy does not support the merge key <<", ""},
		"a key twice": {"admin: {}\nadmin: {}\n", "f:2:1: warning: admin is given twice, and Envoy uses the last: remove the other " +
			"one [api]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Run([]Input{{"f", []byte(test.content)}})
			if got := render(found); !strings.Contains(got, test.finding) || (got == "") != (test.finding == "") {
				t.Errorf("found %s, want %s", got, test.finding)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.HasPrefix(err.Error(), test.err) {
				t.Errorf("got the error %v, want %s", err, test.err)
			}
		})
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

// A comment silences its own line, or the next one that is more than a comment, and its own rule alone.
func TestCommentSilencesItsLineAndRule(t *testing.T) {
	const open = "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 1}}}"
	for name, test := range map[string]struct {
		text string
		want string // rules
	}{
		"none":             {open, "admin-open"},
		"behind":           {open + " # healthgate: ignore admin-open, because it is a lab", ""},
		"before":           {"# healthgate: ignore admin-open, because it is a lab\n\n# more\n" + open, ""},
		"another rule":     {open + " # healthgate: ignore alpn, because it is a lab", "admin-open"},
		"two rules":        {open + " # healthgate: ignore alpn, admin-open because it is a lab", ""},
		"another line":     {"# healthgate: ignore admin-open, because it is a lab\nnode: {id: a}\n" + open, "admin-open"},
		"no reason":        {open + " # healthgate: ignore admin-open", "admin-open ignore"},
		"an empty reason":  {open + " # healthgate: ignore admin-open, because …", "admin-open ignore"},
		"no rule":          {open + " # healthgate: ignore, because it is a lab", "admin-open ignore"},
		"in a string":      {`node: {id: "a# healthgate: ignore admin-open"}` + "\n" + open, "admin-open"},
		"of another tool":  {open + " # healthgate: ignored", "admin-open"},
		"with CRLF":        {open + " # healthgate: ignore admin-open, because it is a lab\r\n", ""},
		"itself, silenced": {open + " # healthgate: ignore ignore", "admin-open ignore"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := Run([]Input{{"f", []byte(test.text)}})
			if err != nil {
				t.Fatal(err)
			}
			var rules []string
			for _, f := range found {
				rules = append(rules, f.Rule)
			}
			if got := strings.Join(rules, " "); got != test.want {
				t.Errorf("found %q, want %q:\n%s", got, test.want, render(found))
			}
		})
	}
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
		"a gate without a value": `{"listeners": [{"filter_chains": [{"filters": [{"typed_config": {"@type": "x/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"http_filters": [{"name": "h", "typed_config": {"@type": "x/envoy.extensions.filters.http.golang.v3alpha.Config", "plugin_name": "healthgate",
			"plugin_config": {"@type": "x/google.protobuf.Struct"}}}]}}]}]}]}`,
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
