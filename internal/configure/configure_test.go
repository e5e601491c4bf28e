package configure

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"healthgate/internal/lint"
)

func checkLint(t *testing.T, text string) {
	t.Helper()
	found, err := lint.Run([]lint.Input{{Name: "f", Content: []byte(text)}})
	if err != nil || len(found) > 0 {
		t.Errorf("%v, and lint found %v in\n%s", err, found, text)
	}
}

// What is printed is a configuration in which lint finds nothing, whatever the names are.
func TestWhatIsPrintedIsFine(t *testing.T) {
	for _, cluster := range []string{"service", "outbound|8080||a.b.svc.cluster.local", "yes", "1", "a: b # c", "ü"} {
		for _, path := range []string{"/", "/healthz", "/a%20b", "/ü:", "/x'y"} {
			for _, stock := range []bool{false, true} {
				for _, service := range []string{"", "shop.v1.Checkout", "{a}"} {
					w := Wanted{Cluster: cluster, Path: path, Stock: stock, GRPCService: service}
					if err := w.Check(); err != nil {
						t.Errorf("%+v: %v", w, err)
					}
					checkLint(t, w.Print())
				}
			}
		}
	}
	for _, wrong := range []Wanted{{Path: "/"}, {Cluster: "a", Path: "healthz"}, {Cluster: "a", Path: "/?x"}} {
		if wrong.Check() == nil {
			t.Errorf("%+v is found right", wrong)
		}
	}
}

// protocol is where a cluster says which it speaks.
var protocol = regexp.MustCompile(`(?m)^    typed_extension_protocol_options:\n(?: {6}.*\n)+`)

// checks is where a cluster has its health checked.
var checks = regexp.MustCompile(`(?m)^    health_checks:\n(?:    - .*\n(?: {6}.*\n)*)+`)

// Files into which a gate can be written.
func written(t *testing.T) map[string]string {
	t.Helper()
	lua, err := os.ReadFile("../../envoy/lua.yaml")
	if err != nil {
		t.Fatal(err)
	}
	noGate, err := os.ReadFile("../lint/testdata/good-no-gate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	byDomain := strings.NewReplacer("- {name: web, domains: [www.example.com], require_tls: ALL, routes: [{match: {prefix: /}, route: {cluster: web}}]}",
		"# The web.\n            - name: web\n              domains: [www.example.com]\n              require_tls: ALL\n              routes:\n              - {match: {prefix: /}, route: {cluster: service}}",
		"common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}", "codec_type: AUTO",
		"- {name: web, type: STRICT_DNS, load_assignment: {cluster_name: web, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: web, port_value: 80}}}}]}]}}",
		"- name: service\n    type: STRICT_DNS\n    load_assignment: {\n      cluster_name: service\n    }").Replace(string(noGate))
	unchecked := checks.ReplaceAllString(string(lua), "")
	noHTTP2 := protocol.ReplaceAllString(unchecked, "")
	if unchecked == string(lua) || noHTTP2 == unchecked {
		t.Fatal("the cluster of the Lua configuration has no health checks, or no HTTP/2, to leave out")
	}
	return map[string]string{
		"one virtual host":        string(lua),
		"an unchecked cluster":    unchecked,
		"a cluster of HTTP/1.1":   noHTTP2,
		"virtual hosts by domain": byDomain,
		"comments at the end":     string(lua) + "# the end\n",
		"no newline at the end":   strings.TrimSuffix(string(lua), "\n"),
		"JSON's names":            strings.NewReplacer("static_resources", "staticResources", "http_filters", "httpFilters", "virtual_hosts", "virtualHosts").Replace(string(lua)),
		"extensions are there":    "bootstrap_extensions:\n  - name: other\n    typed_config: {\"@type\": type.googleapis.com/yours.Extension}\n" + string(lua),
	}
}

func TestGateIsWrittenIntoAFile(t *testing.T) {
	for name, text := range written(t) {
		for _, stock := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", contrib", true: ", stock"}[stock], func(t *testing.T) {
				w := Wanted{Cluster: "service", Path: "/", Stock: stock}
				result, diff, err := w.Into("envoy.yaml", []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				checkLint(t, string(result))
				if got := applied(t, text, diff); got != string(result) {
					t.Errorf("the diff\n%s\nmakes\n%s\nnot\n%s", diff, got, result)
				}
				for _, filter := range []string{"plugin_name: healthgate", "filter_name: healthgate"} {
					if strings.Contains(string(result), filter) != (stock == strings.HasPrefix(filter, "filter")) {
						t.Errorf("%s: it has\n%s", filter, result)
					}
				}
				rest := strings.Split(string(result), "\n")
				for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
					at := slices.Index(rest, line)
					if at < 0 {
						t.Fatalf("the line %q is gone, or moved", line)
					}
					rest = rest[at+1:]
				}
				if _, _, err := w.Into("envoy.yaml", result); err == nil || !strings.Contains(err.Error(), "the gate is there already, in line ") {
					t.Errorf("written again: %v", err)
				}
			})
		}
	}
}

// What is added, and after which line of the file.
func TestGateIsWrittenWhereItBelongs(t *testing.T) {
	text := written(t)["an unchecked cluster"]
	for name, test := range map[string]struct{ old, new, has, no string }{
		"over the comment of the first filter": {"http_filters:\n", "http_filters:\n          # The old way.\n",
			"http_filters:\n          - name: healthgate\n", "# The old way.\n          - name: healthgate"},
		"where the one domain has no brackets": {`domains: ["*"]`, `domains: "*"`, "match: {path: \"/\"}", `domains: ["*"]`},
		"not into a cluster that EDS tells of": {"type: STRICT_DNS\n", "type: EDS\n    eds_cluster_config: {eds_config: {ads: {}}}\n",
			"name: healthgate", "health_checks:"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(text, test.old, test.new, 1)
			if changed == text {
				t.Fatalf("the file has no %q", test.old)
			}
			result, _, err := Wanted{Cluster: "service", Path: "/"}.Into("f", []byte(changed))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(result), test.has) || strings.Contains(string(result), test.no) {
				t.Errorf("want %q and not %q in\n%s", test.has, test.no, result)
			}
		})
	}
}

var hunk = regexp.MustCompile(`^@@ -(\d+),(\d+) \+(\d+),(\d+) @@$`)

// applied makes a change as patch would.
func applied(t *testing.T, text, diff string) string {
	t.Helper()
	own := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var all []string
	at, wantOwn, wantNew := 0, 0, 0
	for line := range strings.SplitSeq(strings.TrimSuffix(diff, "\n"), "\n") {
		if said := hunk.FindStringSubmatch(line); said != nil {
			start, _ := strconv.Atoi(said[1])
			if wantOwn != 0 || wantNew != 0 {
				t.Errorf("a hunk before %s lacks %d, %d lines", line, wantOwn, wantNew)
			}
			wantOwn, _ = strconv.Atoi(said[2])
			wantNew, _ = strconv.Atoi(said[4])
			all = append(all, own[at:start-1]...)
			at = start - 1
			if to, _ := strconv.Atoi(said[3]); to != len(all)+1 {
				t.Errorf("%s, but %d lines stand before", line, len(all))
			}
			continue
		}
		switch {
		case strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			continue
		case line[0] == ' ' && own[at] == line[1:]:
			at++
			wantOwn--
		case line[0] != '+':
			t.Fatalf("%q is not line %d", line, at+1)
		}
		wantNew--
		all = append(all, line[1:])
	}
	return strings.Join(append(all, own[at:]...), "\n") + "\n"
}

// Where a line can't be added without touching others, it says what to do.
func TestWhatCantBeWrittenIntoIsSaid(t *testing.T) {
	lua := written(t)["one virtual host"]
	for name, test := range map[string]struct{ text, want string }{
		"not YAML":              {"a: [", "f is not YAML: "},
		"several documents":     {lua + "---\n" + lua, "f has several documents"},
		"no connection manager": {"admin: {}\n", "f: no HTTP connection manager"},
		"no such cluster":       {strings.ReplaceAll(lua, "- name: service", "- name: other"), `f: there is no cluster "service"; there are: other`},
		"another protocol":      {strings.ReplaceAll(written(t)["an unchecked cluster"], "http2_protocol_options: {}", "http_protocol_options: {}"), "f: the cluster in line "},
		"routes in brackets":    {regexp.MustCompile(`routes:\n +- match.*\n.*\n`).ReplaceAllString(lua, "routes: [{match: {prefix: /}, route: {cluster: service}}]\n"), "f: routes in line "},
		"routes by RDS":         {regexp.MustCompile(`(?s)route_config:.*?http_filters:`).ReplaceAllString(lua, "rds: {route_config_name: a}\n          http_filters:"), "f: the connection manager in line "},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Wanted{Cluster: "service", Path: "/"}.Into("f", []byte(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	start, end := strings.Index(lua, "  - name: ingress"), strings.Index(lua, "  clusters:")
	_, _, err := Wanted{Cluster: "service", Path: "/"}.Into("f", []byte(lua[:end]+lua[start:end]+lua[end:]))
	if err == nil || !strings.Contains(err.Error(), "it has 2 HTTP connection managers (lines ") {
		t.Errorf("with two connection managers: %v", err)
	}
}
