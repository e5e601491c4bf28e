package configure

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"healthgate/internal/lint"
)

func checkLint(t *testing.T, text string) {
	t.Helper()
	found, err := lint.Run([]lint.Input{{Name: "f", Content: []byte(text)}})
	if err != nil || len(found) > 0 {
		t.Errorf("%v, and lint found %v in\n%s", err, found, text)
	}
}

// Lint finds nothing in a printed configuration, whatever the names are.
func TestPrintedConfigurationIsFine(t *testing.T) {
	for _, cluster := range []string{"service", "outbound|8080||a.b.svc.cluster.local", "yes", "1", "a: b # c", "ü"} {
		for _, path := range []string{"/", "/healthz", "/a%20b", "/ü:", "/x'y"} {
			for _, module := range []bool{false, true} {
				for _, check := range []Check{{}, {GRPC: true}, {GRPC: true, Service: "shop.v1.Checkout"}, {GRPC: true, Service: "{a}"},
					{Path: "/healthz?a=b"}} {
					g := Gate{Cluster: cluster, Path: path, Module: module, Check: check}
					if err := g.Validate(); err != nil {
						t.Errorf("%+v: %v", g, err)
					}
					checkLint(t, g.Print())
				}
			}
		}
	}
	for _, wrong := range []Gate{
		{Path: "/"}, {Cluster: "a", Path: "healthz"}, {Cluster: "a", Path: "/?x"},
		{Cluster: "a", Path: "/", Check: Check{Path: "x"}}, {Cluster: "a", Path: "/", Check: Check{GRPC: true, Path: "/x"}},
	} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
}

// bootstrap is a file like many. Tests change it by replacing a part.
const bootstrap = `# The shop's Envoy.
# Changes go through review.
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            name: shop
            virtual_hosts:
            - name: web # of all
              domains: ["*"]
              routes:
              # Everything.
              - match: {prefix: /}
                route: {cluster: checkout}
          http_filters:
          # The end.
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: checkout
    # By DNS.
    type: STRICT_DNS
    load_assignment:
      cluster_name: checkout
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: checkout, port_value: 8080}}}}]}]
`

const listener = `  - name: ingress
    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
`

func changed(t testing.TB, text string, oldNew ...string) string {
	t.Helper()
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(text, oldNew[i]) {
			t.Fatalf("the file has no %q", oldNew[i])
		}
		text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
	}
	return text
}

// asJSON writes the bootstrap as JSON on lines.
func asJSON(t testing.TB) string {
	t.Helper()
	var d yaml.Node
	if err := yaml.Unmarshal([]byte(bootstrap), &d); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(inFlow(d.Content[0]), "}, {", "},\n  {") + "\n"
}

// inConfigMap is the bootstrap in a ConfigMap, beside another object.
func inConfigMap(indicator string) string {
	block := "    " + strings.ReplaceAll(strings.TrimSuffix(bootstrap, "\n"), "\n", "\n    ")
	return "# Of the shop.\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: envoy}\ndata:\n  other: \"a: b\"\n  envoy.yaml: " + indicator +
		"\n" + block +
		"\n  last: x\n---\napiVersion: v1\nkind: Service\nmetadata: {name: envoy}\n"
}

// files are those that a gate can be written into.
func files(t testing.TB) map[string]string {
	second := strings.Replace(bootstrap[strings.Index(bootstrap, listener):strings.Index(bootstrap, "  clusters:\n")], "name: ingress\n",
		"name: other\n", 1)
	return map[string]string{
		"plain":             bootstrap,
		"CRLF":              strings.ReplaceAll(bootstrap, "\n", "\r\n"),
		"no newline at end": strings.TrimSuffix(bootstrap, "\n"),
		"comment at end":    bootstrap + "# the end\n",
		"a document marker": "---\n" + bootstrap + "...\n",
		"JSON":              asJSON(t),
		"ConfigMap":         inConfigMap("|"),
		"ConfigMap, strip":  inConfigMap("|-"),
		"list of objects": "apiVersion: v1\nkind: List\nitems:\n- " +
			strings.ReplaceAll(strings.Split(inConfigMap("|"), "---")[0], "\n", "\n  ") + "\n",
		"two listeners": changed(t, bootstrap, "  clusters:\n", second+"  clusters:\n"),
		"aliases": changed(t, bootstrap, "route: {cluster: checkout}", "route: {cluster: &c checkout}", "- name: checkout\n    #",
			"- name: *c\n    #",
			"cluster_name: checkout", "cluster_name: *c"),
		"a folded name": changed(t, bootstrap, "- name: checkout\n", "- name: >-\n      checkout\n"),
		"a folded name, last": changed(t, bootstrap, "  - name: checkout\n    # By DNS.\n", "  - # By DNS.\n", "cluster_name: checkout",
			"cluster_name: x", "port_value: 8080}}}}]}]\n", "port_value: 8080}}}}]}]\n    name: >-\n      checkout\n\n"),
		"name alone":       changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "    # By DNS."):], ""),
		"dashes alone":     regexp.MustCompile(`(?m)^( +)- (name|match|filters)`).ReplaceAllString(bootstrap, "$1-\n$1  $2"),
		"anchors at lists": changed(t, bootstrap, "routes:\n", "routes: &r\n", "http_filters:\n", "http_filters: &f\n"),
		"routes in brackets": changed(t, bootstrap, "\n              # Everything.\n              - match: {prefix: /}\n"+
			"                route: {cluster: checkout}", " [{match: {prefix: /}, route: {cluster: checkout}}]"),
		"filters in brackets": changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "\n          # The end"):strings.Index(bootstrap,
			"  clusters:\n")], ` [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]`+"\n"),
		"the cluster in braces": changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "  - name: checkout"):],
			"  - {name: checkout, type: STATIC, load_assignment: {cluster_name: checkout}}\n"),
		"all in braces": changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "  clusters:\n"):],
			"  clusters: [{name: checkout, type: STATIC, load_assignment: {cluster_name: checkout}}]\n"),
		"health_checks: []":   changed(t, bootstrap, "    # By DNS.\n", "    health_checks: [] # none\n"),
		"health_checks: [ ]":  changed(t, bootstrap, "    # By DNS.\n", "    health_checks: [ ]\n"),
		"health_checks: null": changed(t, bootstrap, "    # By DNS.\n", "    health_checks:\n"),
		"healthChecks: []":    changed(t, bootstrap, "    # By DNS.\n", "    healthChecks: []\n"),
		"health_checks in braces": changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "  - name: checkout"):],
			"  - {name: checkout, health_checks: [], type: STATIC, load_assignment: {cluster_name: checkout}}\n"),
		"no routes": changed(t, bootstrap, "              routes:\n              # Everything.\n"+
			"              - match: {prefix: /}\n                route: {cluster: checkout}\n", ""),
		"routes: []": changed(t, bootstrap, "routes:\n              # Everything.\n              - match: {prefix: /}\n"+
			"                route: {cluster: checkout}\n", "routes: []\n"),
		"hosts by domain":    changed(t, bootstrap, `["*"]`, "[www.example.com]"),
		"one domain":         changed(t, bootstrap, `["*"]`, `"*"`),
		"a host named probe": changed(t, bootstrap, `["*"]`, "[www.example.com]", "name: web", "name: probe"),
		"lowerCamelCase": strings.NewReplacer("static_resources", "staticResources", "http_filters", "httpFilters", "virtual_hosts",
			"virtualHosts", "route_config", "routeConfig").Replace(bootstrap),
		"extensions are there": "bootstrap_extensions:\n- name: other\n  typed_config: {\"@type\": type.googleapis.com/yours.Extension}\n" +
			bootstrap,
		"alt_stat_name": changed(t, bootstrap, "type: STRICT_DNS", "type: STRICT_DNS\n    alt_stat_name: till"),
		"HTTP/2 already": changed(t, bootstrap, "type: STRICT_DNS",
			"type: STRICT_DNS\n    typed_extension_protocol_options:\n      "+strings.Join(facts{}.part("protocol"), "\n      ")),
		"other options": changed(t, bootstrap, "type: STRICT_DNS",
			"type: STRICT_DNS\n    typed_extension_protocol_options:\n      yours: {\"@type\": type.googleapis.com/yours.Options}"),
		"a tabbed comment": changed(t, bootstrap, "    # By DNS.\n", "\t# By DNS.\n"),
		"YAML 1.2":         "%YAML 1.2\n---\n" + bootstrap,
		"text that looks like it": changed(t, bootstrap, "admin:\n",
			"node:\n  id: |\n    http_filters:\n    # not a comment\n    - name: x\nadmin:\n"),
		"RDS in the file": changed(t, bootstrap, bootstrap[strings.Index(bootstrap, "          route_config:"):strings.Index(bootstrap,
			"          http_filters:")], "          rds: {route_config_name: shop, config_source: {ads: {}}}\n") +
			"---\nresources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: shop\n  virtual_hosts:\n" +
			"  - name: web\n    domains: [\"*\"]\n    routes:\n    - match: {prefix: /}\n      route: {cluster: checkout}\n",
	}
}

// decoded is all that a program reads of a file, and of the ConfigMaps in it.
func decoded(t *testing.T, content string) []any {
	t.Helper()
	var all []any
	content = strings.ReplaceAll(strings.ReplaceAll(content, "\t#", " #"), "%YAML 1.2", "%YAML 1.1")
	for decoder := yaml.NewDecoder(strings.NewReader(content)); ; {
		var one any
		if err := decoder.Decode(&one); err != nil {
			if err.Error() != "EOF" {
				t.Fatalf("%v in\n%s", err, content)
			}
			return all
		}
		all = append(all, unpacked(t, one))
	}
}

func unpacked(t *testing.T, v any) any {
	object, _ := v.(map[string]any)
	for _, item := range asList(object["items"]) {
		unpacked(t, item)
	}
	if object["kind"] == "ConfigMap" {
		data := object["data"].(map[string]any)
		data["envoy.yaml"] = decoded(t, data["envoy.yaml"].(string))
	}
	return v
}

func asList(v any) []any { all, _ := v.([]any); return all }

// without removes all parts of the gate from a tree, and records them in removed.
func without(v any, removed *[]string) any {
	switch v := v.(type) {
	case []any:
		kept := []any{}
		for _, item := range v {
			object, _ := item.(map[string]any)
			match, _ := object["match"].(map[string]any)
			switch {
			case object["name"] == "healthgate" && object["typed_config"] != nil:
				*removed = append(*removed, "filter or extension")
			case match["path"] == "/healthz" && object["direct_response"] != nil:
				*removed = append(*removed, "route")
			case object["grpc_health_check"] != nil || object["http_health_check"] != nil:
				*removed = append(*removed, "check")
			case (object["name"] == "probe" || object["name"] == "healthgate-probe") && fmt.Sprint(object["domains"]) == "[*]":
				*removed = append(*removed, "route")
			default:
				kept = append(kept, without(item, removed))
			}
		}
		if len(kept) == 0 && len(v) > 0 {
			return nil // it was [] or nothing before
		}
		if len(kept) == 0 {
			return nil
		}
		return kept
	case map[string]any:
		kept := map[string]any{}
		for key, value := range v {
			if key == httpOptions {
				*removed = append(*removed, "protocol")
				continue
			}
			if value = without(value, removed); value != nil {
				kept[key] = value
			}
		}
		if len(kept) == 0 && len(v) > 0 {
			return nil
		}
		return kept
	}
	return v
}

// Each resulting file has the original content and the gate, and nothing else. The printed diff produces this file, which still has all
// original lines.
func TestGateIsAddedToAFile(t *testing.T) {
	for name, content := range files(t) {
		for _, module := range []bool{false, true} {
			for kind, check := range map[string]Check{"gRPC": {GRPC: true, Service: "shop.v1.Checkout"}, "HTTP": {Path: "/up"}} {
				t.Run(fmt.Sprintf("%s, %s, module %v", name, kind, module), func(t *testing.T) {
					g := Gate{Cluster: "checkout", Path: "/healthz", Module: module, Check: check}
					place := Place{}
					if name == "two listeners" {
						place.Listener = "other"
					}
					result, err := g.Into("envoy.yaml", []byte(content), place)
					if err != nil {
						t.Fatal(err)
					}
					after := string(result.Content)
					var removed, protocol []string
					before := without(decoded(t, content), &protocol)
					if got := without(decoded(t, after), &removed); !reflect.DeepEqual(got, before) {
						t.Errorf("it reads back as\n%v\nnot as\n%v\nin\n%s", got, before, after)
					}
					want := []string{"check", "filter or extension", "route"}
					if module {
						want = append(want, "filter or extension")
					}
					if kind == "gRPC" || name == "HTTP/2 already" {
						want = append(want, "protocol")
					}
					slices.Sort(want)
					if slices.Sort(removed); !slices.Equal(removed, want) {
						t.Errorf("it has %v, want %v, in\n%s", removed, want, after)
					}
					if got := patched(t, content, result.Diff); got != strings.TrimSuffix(after, "\n") {
						t.Errorf("the diff\n%s\nmakes\n%s\nnot\n%s", result.Diff, got, after)
					}
					if !strings.Contains(name, "brac") && name != "JSON" {
						keepsLines(t, content, after)
					}
					if _, err := g.Into("envoy.yaml", result.Content, place); err == nil ||
						!strings.Contains(err.Error(), "the gate is already in this file, in line ") {
						t.Errorf("written again: %v", err)
					}
				})
			}
		}
	}
}

// keepsLines checks that the lines of a file are all there, in their order, but for an empty list that is filled.
func keepsLines(t *testing.T, before, after string) {
	t.Helper()
	rest := strings.Split(after, "\n")
	empty := regexp.MustCompile(`: \[ ?\]`)
	for line := range strings.SplitSeq(strings.TrimSuffix(before, "\n"), "\n") {
		if empty.MatchString(line) {
			line = empty.ReplaceAllString(line, ":")
		}
		at := slices.IndexFunc(rest, func(l string) bool { return strings.TrimSuffix(l, "\r") == strings.TrimSuffix(line, "\r") })
		if at < 0 {
			t.Fatalf("the line %q is gone, or moved, in\n%s", line, after)
		}
		rest = rest[at+1:]
	}
}

// patched is a file after patch has made a diff's change.
func patched(t *testing.T, content, shown string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	patch := exec.CommandContext(t.Context(), "patch", "--binary", "--silent", file)
	patch.Stdin = strings.NewReader(shown)
	if out, err := patch.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, shown)
	}
	result, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(result), "\n")
}

// The places of the additions, and their text.
func TestGateIsAddedInTheRightPlace(t *testing.T) {
	grpc := Check{GRPC: true}
	for name, test := range map[string]struct {
		old, new string
		gate     Gate
		has, no  string
	}{
		"over the first filter's comment": {"", "", Gate{Check: grpc}, "http_filters:\n          - name: healthgate\n",
			"# The end.\n          - name: healthgate"},
		"below the file's own comment": {"", "", Gate{Module: true, Check: grpc}, "# Changes go through review.\nadmin:\n",
			"extensions:\n# The shop"},
		"the cluster's stat_name": {"type: STRICT_DNS", "type: STRICT_DNS\n    alt_stat_name: till", Gate{Check: grpc},
			"- name: checkout\n                    stat_name: till", ""},
		"no stat_name":     {"", "", Gate{Check: grpc}, "", "stat_name:"},
		"a service":        {"", "", Gate{Check: Check{GRPC: true, Service: "a.B"}}, `grpc_health_check: {service_name: a.B}`, ""},
		"the whole server": {"", "", Gate{Check: grpc}, `grpc_health_check: {}`, ""},
		"HTTP/1.1 by HTTP": {"", "", Gate{Check: Check{Path: "/up"}}, `http_health_check: {path: /up}`, "http2_protocol_options"},
		"HTTP/2 by HTTP": {"type: STRICT_DNS", "type: STRICT_DNS\n    http2_protocol_options: {}",
			Gate{Check: Check{Path: "/up"}}, `codec_client_type: HTTP2}`, "HttpProtocolOptions"},
		"HTTP/2 for gRPC": {"", "", Gate{Check: grpc}, "explicit_http_config: {http2_protocol_options: {}}", ""},
		"a check that is there": {"# By DNS.", "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, " +
			"healthy_threshold: 1, tcp_health_check: {}}]", Gate{}, "tcp_health_check", "explicit_http_config"},
		"a check that is there stays": {"# By DNS.", "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, " +
			"healthy_threshold: 1, tcp_health_check: {}}]", Gate{Check: grpc}, "tcp_health_check", "grpc_health_check"},
		"EDS says":                    {"type: STRICT_DNS", "type: EDS", Gate{}, "name: healthgate", "health_checks:"},
		"EDS, with a check asked for": {"type: STRICT_DNS", "type: EDS", Gate{Check: grpc}, "health_checks:", ""},
		"another filter is disabled": {"          # The end.\n",
			"          - name: envoy.filters.http.lua\n            typed_config: {\"@type\": " +
				"type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}\n", Gate{Check: grpc},
			"                  envoy.filters.http.lua: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}\n",
			"envoy.filters.http.router: {"},
	} {
		t.Run(name, func(t *testing.T) {
			test.gate.Cluster, test.gate.Path = "checkout", "/healthz"
			result, err := test.gate.Into("f", []byte(changed(t, bootstrap, test.old, test.new)), Place{})
			if err != nil {
				t.Fatal(err)
			}
			if text := string(result.Content); !strings.Contains(text, test.has) || test.no != "" && strings.Contains(text, test.no) {
				t.Errorf("want %q and not %q in\n%s", test.has, test.no, text)
			}
		})
	}
}

// Each filter that can answer or change a reply is disabled on the probe's route, on whichever side of the gate; others are not.
func TestOtherFiltersAreDisabledOnTheRoute(t *testing.T) {
	filterOf := func(name, kind string, more ...string) string {
		typed := "\n            typed_config: {\"@type\": type.googleapis.com/" + kind + "}"
		if kind == "" {
			typed = ""
		}
		return "          - name: " + name + typed + strings.Join(more, "") + "\n"
	}
	const extensions = "envoy.extensions.filters.http."
	chain := map[string]struct {
		lines    string
		disabled bool
	}{
		"lua":       {filterOf("a", extensions+"lua.v3.Lua"), true},
		"wasm":      {filterOf("a", extensions+"wasm.v3.Wasm"), true},
		"ext_proc":  {filterOf("a", extensions+"ext_proc.v3.ExternalProcessor"), true},
		"ext_authz": {filterOf("a", extensions+"ext_authz.v3.ExtAuthz"), true},
		"custom":    {filterOf("a", extensions+"custom_response.v3.CustomResponse"), true},
		"admission": {filterOf("a", extensions+"admission_control.v3.AdmissionControl"), true},
		"fault":     {filterOf("a", extensions+"fault.v3.HTTPFault"), true},
		"golang":    {filterOf("a", extensions+"golang.v3alpha.Config"), true},
		"module":    {filterOf("a", extensions+"dynamic_modules.v3.DynamicModuleFilter"), true},
		"jwt":       {filterOf("a", extensions+"jwt_authn.v3.JwtAuthentication"), true},
		"rbac":      {filterOf("a", extensions+"rbac.v3.RBAC"), true},
		"ratelimit": {filterOf("a", extensions+"ratelimit.v3.RateLimit"), true},
		"grpc_web":  {filterOf("a", extensions+"grpc_web.v3.GrpcWeb"), true},
		"health":    {filterOf("a", extensions+"health_check.v3.HealthCheck"), true},
		"composite": {filterOf("a", "envoy.extensions.common.matching.v3.ExtensionWithMatcher"), true},
		"struct":    {filterOf("a", "xds.type.v3.TypedStruct, type_url: type.googleapis.com/"+extensions+"lua.v3.Lua"), true},
		"unknown":   {filterOf("a", "yours.Filter"), true},
		"ECDS": {filterOf("a", "", "\n            config_discovery: {config_source: {ads: {}}, type_urls: "+
			"[type.googleapis.com/"+extensions+"lua.v3.Lua]}"), true},
		"off, and on for the host": {filterOf("a", extensions+"lua.v3.Lua", "\n            disabled: true"), true},
		"off":                      {filterOf("a", extensions+"lua.v3.Lua", "\n            disabled: true"), false},
		"stats":                    {filterOf("a", extensions+"grpc_stats.v3.FilterConfig"), false},
		"metadata":                 {filterOf("a", extensions+"set_metadata.v3.Config"), false},
	}
	for name, test := range chain {
		t.Run(name, func(t *testing.T) {
			text := changed(t, bootstrap, "          # The end.\n", test.lines)
			if name == "off, and on for the host" {
				text = changed(t, text, `domains: ["*"]`, `domains: ["*"]`+"\n"+
					"              typed_per_filter_config: {a: {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}")
			}
			result, err := Gate{Cluster: "checkout", Path: "/", Check: Check{GRPC: true}}.Into("f", []byte(text), Place{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(string(result.Content), `    a: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}`); got != test.disabled {
				t.Errorf("disabled: %v, in\n%s", got, result.Content)
			}
			if strings.Contains(string(result.Content), `router: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig`) {
				t.Error("the router is disabled")
			}
		})
	}
}

// The notes list the requests that the new route takes.
func TestNotesListTheRequestsThatTheRouteTakes(t *testing.T) {
	for name, test := range map[string]struct{ match, path, want string }{
		"a prefix":         {"{prefix: /}", "/", `before, these took them: line 22 (prefix: /), which sends it to cluster checkout; --path chooses another`},
		"the path":         {"{path: /x}", "/x", `line 22 (path: /x), which sends it to cluster checkout`},
		"any case":         {"{path: /X, case_sensitive: false}", "/x", `line 22 (path: /X), `},
		"a regex":          {"{safe_regex: {regex: '/[a-z]'}}", "/x", `line 22 (safe_regex: /[a-z]), `},
		"a part of it":     {"{path_separated_prefix: /x}", "/x/y", `line 22 (path_separated_prefix: /x), `},
		"under conditions": {"{prefix: /, headers: [{name: a, present_match: true}]}", "/", `to cluster checkout if its other conditions match`},
		"nothing":          {"{prefix: /shop}", "/", `no route took them before`},
		"not by a part":    {"{path_separated_prefix: /x}", "/xy", `no route took them before`},
		"not by a regex":   {"{safe_regex: {regex: '/[a-z]'}}", "/xy", `no route took them before`},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := Gate{Cluster: "checkout", Path: test.path, Check: Check{GRPC: true}}.Into("f",
				[]byte(changed(t, bootstrap, "{prefix: /}", test.match)), Place{})
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(result.Notes, "\n"); !strings.Contains(notes, test.want) || !strings.Contains(notes, `virtual host "web"`) {
				t.Errorf("it says %q, want %q", notes, test.want)
			}
		})
	}
}

// If a file can't take the gate, the error says why and what to do.
func TestFileThatCannotGetTheGateIsAnError(t *testing.T) {
	check := Check{GRPC: true}
	second := strings.Replace(bootstrap[strings.Index(bootstrap, listener):strings.Index(bootstrap, "  clusters:\n")], "name: ingress\n",
		"name: other\n", 1)
	for name, test := range map[string]struct {
		text  string
		gate  Gate
		place Place
		want  string
	}{
		"not YAML":              {"a: [", Gate{Check: check}, Place{}, "f: not YAML: "},
		"empty":                 {"", Gate{Check: check}, Place{}, "f: it is empty"},
		"no connection manager": {"admin: {}\n", Gate{Check: check}, Place{}, "f: it has no HTTP connection manager"},
		"several": {changed(t, bootstrap, "  clusters:\n", second+"  clusters:\n"), Gate{Check: check}, Place{},
			"f: 2 HTTP connection managers match; select one by --listener (a name or host:port) and --route-config:\n" +
				"  line 13, listener ingress, route configuration shop\n  line 34, listener other"},
		"none of that name": {bootstrap, Gate{Check: check}, Place{Listener: "x"},
			`f: no HTTP connection manager matches --listener "x" --route-config "";`},
		"no such virtual host": {bootstrap, Gate{Check: check}, Place{VirtualHost: "wep"},
			`f: --virtual-host: there is no "wep"; did you mean "web"?`},
		"no such cluster": {bootstrap, Gate{Cluster: "chekout", Check: check}, Place{},
			`f: there is no cluster "chekout"; did you mean "checkout"?`},
		"another cluster": {bootstrap, Gate{Cluster: "payments", Check: check}, Place{},
			`f: there is no cluster "payments"; there are checkout`},
		"no check asked for":    {bootstrap, Gate{}, Place{}, `f: cluster "checkout" in line 29 has no health checks, so the gate would always pass: add --grpc-service NAME`},
		"an empty list of them": {changed(t, bootstrap, "# By DNS.", "health_checks: []"), Gate{}, Place{}, `f: cluster "checkout"`},
		"HTTP/1.1, by gRPC": {changed(t, bootstrap, "# By DNS.",
			"typed_extension_protocol_options: {"+httpOptions+": {\"@type\": type.googleapis.com/"+httpOptions+", explicit_http_config: "+
				"{http_protocol_options: {}}}}"),
			Gate{Check: check}, Place{}, `f: cluster "checkout" in line 29 does not speak HTTP/2`},
		"an aggregate": {changed(t, bootstrap, "type: STRICT_DNS", "cluster_type: {name: envoy.clusters.aggregate}"), Gate{Check: check},
			Place{}, `f: cluster "checkout" in line 29 is an aggregate`},
		"routes by RDS": {regexp.MustCompile(`(?s)route_config:.*?http_filters:`).ReplaceAllString(bootstrap,
			"rds: {route_config_name: a}\n          http_filters:"), Gate{Check: check}, Place{},
			"f: the connection manager in line 13 gets its routes by RDS (a), and this file does not have them; add to its routes:"},
		"routes by matcher": {changed(t, bootstrap, "routes:", "matcher: {}\n              routes:"), Gate{Check: check}, Place{},
			`f: virtual host "web" in line 18 selects its routes by a matcher`},
		"a shared list": {changed(t, bootstrap, "http_filters:\n", "http_filters: &f\n", "  clusters:\n",
			"  - name: other\n    filter_chains: [{filters: [{typed_config: {\"@type\": x.HttpConnectionManager, http_filters: *f}}]}]\n"+
				"  clusters:\n"),
			Gate{Check: check}, Place{Listener: "ingress"}, "f: http_filters in line 24 can't be added to without changing something else: an " +
				"anchor (&)"},
		"a quoted ConfigMap": {"apiVersion: v1\nkind: ConfigMap\ndata:\n  envoy.yaml: " + strconv.Quote(bootstrap) + "\n", Gate{Check: check},
			Place{}, "f: the value in line 4 is quoted"},
		"a ConfigMap with other line breaks": {strings.ReplaceAll(inConfigMap("|"), "\n", "\r\r\n"), Gate{Check: check}, Place{},
			"f: the value in line 13 can't be written back as it was read"},
		"the gate is there": {changed(t, bootstrap, "# The end.\n", "- {name: healthgate}\n"), Gate{Check: check}, Place{},
			"f: the gate is already in this file, in line 25"},
	} {
		t.Run(name, func(t *testing.T) {
			test.gate.Path = "/healthz"
			if test.gate.Cluster == "" {
				test.gate.Cluster = "checkout"
			}
			if result, err := test.gate.Into("f", []byte(test.text), test.place); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s\n%s", err, test.want, result.Content)
			}
		})
	}
}

// Envoy skips keys with the tag !ignore. If an anchor there is used in one place only, its list can be extended.
func TestGateIsAddedToAListWithAnAnchor(t *testing.T) {
	const router = `{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
	at := strings.Index(bootstrap, "          http_filters:\n")
	text := bootstrap[:at] + "          http_filters: *filters\n" + bootstrap[strings.Index(bootstrap, "  clusters:\n"):]
	text = changed(t, text, "admin:\n", "!ignore filters: &filters\n- "+router+"\nadmin:\n")
	result, err := Gate{Cluster: "checkout", Path: "/", Check: Check{GRPC: true}}.Into("f", []byte(text), Place{})
	if err != nil || !strings.Contains(string(result.Content), "&filters\n- name: healthgate\n") {
		t.Errorf("%v in\n%s", err, result.Content)
	}
}

// A cluster that CDS brings is not in the file, which is no error.
func TestClusterFromCDSIsNotRequired(t *testing.T) {
	text := changed(t, bootstrap, "static_resources:\n", "dynamic_resources: {cds_config: {ads: {}}}\nstatic_resources:\n")
	result, err := Gate{Cluster: "payments", Path: "/"}.Into("f", []byte(text), Place{})
	if err != nil || !strings.Contains(strings.Join(result.Notes, "\n"), `cluster "payments" is not in this file`) {
		t.Errorf("%v: %q", err, result.Notes)
	}
}

// Of any changed file the result reads back with only the additions, or there is an error.
func TestNoFileIsDamaged(t *testing.T) { rapid.Check(t, noDamage(t)) }

func FuzzNoFileIsDamaged(f *testing.F) { f.Fuzz(rapid.MakeFuzz(noDamage(f))) }

func noDamage(t testing.TB) func(*rapid.T) {
	all := files(t)
	names := slices.Sorted(maps.Keys(all))
	return func(r *rapid.T) {
		content := all[rapid.SampledFrom(names).Draw(r, "file")]
		lines := strings.Split(content, "\n")
		for range rapid.IntRange(1, 4).Draw(r, "changes") {
			at := rapid.IntRange(0, len(lines)-1).Draw(r, "line")
			switch rapid.IntRange(0, 5).Draw(r, "change") {
			case 0:
				lines = slices.Delete(lines, at, at+1)
			case 1:
				lines = slices.Insert(lines, at, lines[rapid.IntRange(0, len(lines)-1).Draw(r, "of")])
			case 2:
				lines[at] = rapid.SampledFrom([]string{" ", "  ", "\t"}).Draw(r, "indent") + lines[at]
			case 3:
				lines[at] = strings.TrimPrefix(lines[at], "  ")
			case 4:
				lines[at] += rapid.SampledFrom([]string{" # x", " |", " >-", " []", ": &a", " *a", "'", "\"", " {", "\r\r", "\u2028"}).Draw(r, "end")
			case 5:
				lines = slices.Insert(lines, at, rapid.SampledFrom([]string{"", "---", "# x", "  # x", "\t# x", "..."}).Draw(r, "line of"))
			}
			if len(lines) == 0 {
				return
			}
		}
		before := strings.Join(lines, "\n")
		result, err := Gate{Cluster: "checkout", Path: "/healthz", Module: true, Check: Check{GRPC: true}}.Into("f", []byte(before), Place{})
		if err != nil {
			return
		}
		own, err := parse([]byte(before))
		if err != nil {
			r.Fatal(err)
		}
		after, err := parse(result.Content)
		if err != nil {
			r.Fatalf("%v in\n%s", err, result.Content)
		}
		var lost []string
		missing(own.root, after.root, "", &lost)
		if len(lost) > 0 {
			r.Fatalf("lost: %v\n%s", lost, result.Diff)
		}
	}
}

// missing lists the paths that one value has and another has not. List items may have moved down, and keys may have been added.
func missing(before, after *yaml.Node, path string, lost *[]string) {
	before, after = resolved(before), resolved(after)
	if before.Kind == yaml.ScalarNode && (before.ShortTag() == "!!null" || strings.Contains(before.Value, "HttpConnectionManager")) {
		return // filled, or a text in a ConfigMap
	}
	if before.Kind != after.Kind || before.Kind == yaml.ScalarNode && !equal(before, after) {
		*lost = append(*lost, path)
		return
	}
	switch before.Kind {
	case yaml.SequenceNode:
		more := len(after.Content) - len(before.Content)
		if more < 0 || more > 1 {
			*lost = append(*lost, path)
			return
		}
		for i, child := range before.Content {
			missing(child, after.Content[i+more], fmt.Sprint(path, ".", i), lost)
		}
	case yaml.MappingNode:
		for i := 0; i < len(before.Content); i += 2 {
			key := resolved(before.Content[i]).Value
			own, theirs := valuesOf(before, key), valuesOf(after, key)
			if len(own) != len(theirs) {
				*lost = append(*lost, path+"."+key)
				continue
			}
			for j := range own {
				missing(own[j], theirs[j], path+"."+key, lost)
			}
		}
	}
}

// valuesOf are the values of a key, which a mapping may repeat.
func valuesOf(mapping *yaml.Node, key string) (all []*yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if resolved(mapping.Content[i]).Value == key {
			all = append(all, mapping.Content[i+1])
		}
	}
	return all
}
