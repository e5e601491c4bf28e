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
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"healthgate/internal/envoyyaml"
	"healthgate/internal/lint"
)

// Lint finds nothing in a printed configuration, whatever the names are.
func TestPrintedConfigurationIsFine(t *testing.T) {
	paths := []string{"/", "/healthz", "/a%20b", "/ü:", "/x'y"}
	checks := []Check{{}, {GRPC: true}, {GRPC: true, Service: "shop.v1.Checkout"}, {GRPC: true, Service: "{a}"}, {Path: "/healthz?a=b"}}
	for i, cluster := range []string{"service", "outbound|8080||a.b.svc.cluster.local", "yes", "on", "1", "123", "a: b # c", "ü", "a\nb", `a"b`,
		"a: b", "*a", "#x", " ", "%s"} {
		for j, check := range checks {
			for _, module := range []bool{false, true} {
				g := Gate{Cluster: cluster, Path: paths[(i+j)%len(paths)], Module: module, Check: check}
				if err := g.Validate(); err != nil {
					t.Errorf("%+v: %v", g, err)
				}
				found, err := lint.Run([]lint.Input{{Name: "f", Content: []byte(g.Print())}})
				if err != nil || len(found) > 0 {
					t.Errorf("%v, and lint found %v in\n%s", err, found, g.Print())
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

// edited returns a text with each odd one of edits replaced by the next.
func edited(t testing.TB, text string, edits []string) string {
	t.Helper()
	for pair := range slices.Chunk(edits, 2) {
		if !strings.Contains(text, pair[0]) {
			t.Fatalf("the file has no %q", pair[0])
		}
		text = strings.Replace(text, pair[0], pair[1], 1)
	}
	return text
}

func readTestdata(t testing.TB, name string, into any) (bootstrap string) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	content, failed := os.ReadFile("testdata/envoy.yaml")
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return string(content)
}

// The places and texts of the additions, the notes about them, and the reasons why a file can't get them.
func TestCases(t *testing.T) {
	var cases []struct {
		Case, Has, Lacks, Note, Error string
		File                          *string
		Edit                          []string
		Cluster, Path, HTTP           string
		GRPC                          *string
		Module                        bool
		Listener, Host                string
	}
	bootstrap := readTestdata(t, "cases.yaml", &cases)
	for _, c := range cases {
		t.Run(c.Case, func(t *testing.T) {
			g := Gate{Cluster: "checkout", Path: "/healthz", Module: c.Module, Check: Check{Path: c.HTTP}}
			if c.Cluster != "" {
				g.Cluster = c.Cluster
			}
			if c.Path != "" {
				g.Path = c.Path
			}
			if c.GRPC != nil {
				g.Check = Check{GRPC: true, Service: *c.GRPC}
			}
			text := edited(t, bootstrap, c.Edit)
			if c.File != nil {
				text = *c.File
			}
			result, err := g.Into("f", []byte(text), Place{Listener: c.Listener, VirtualHost: c.Host})
			if c.Error != "" {
				if err == nil || !strings.HasPrefix(err.Error(), "f: "+c.Error) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			content, notes := string(result.Content), strings.Join(result.Notes, "\n")
			if !strings.Contains(content, c.Has) || c.Lacks != "" && strings.Contains(content, c.Lacks) || !strings.Contains(notes, c.Note) {
				t.Errorf("notes %q, and\n%s", notes, content)
			}
		})
	}
}

// files are those that a gate can be written into.
func files(t testing.TB) map[string]string {
	edits := map[string][]string{}
	bootstrap := readTestdata(t, "files.yaml", &edits)
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(bootstrap), &root); err != nil {
		t.Fatal(err)
	}
	inConfigMap := func(indicator string) string {
		return "# Of the shop.\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: envoy}\ndata:\n  other: \"a: b\"\n  envoy.yaml: " + indicator +
			"\n    " + strings.ReplaceAll(strings.TrimSuffix(bootstrap, "\n"), "\n", "\n    ") + "\n  last: x\n"
	}
	all := map[string]string{
		"CRLF":              strings.ReplaceAll(bootstrap, "\n", "\r\n"),
		"no newline at end": strings.TrimSuffix(bootstrap, "\n"),
		"dashes alone":      regexp.MustCompile(`(?m)^( +)- (name|match|filters)`).ReplaceAllString(bootstrap, "$1-\n$1  $2"),
		"JSON":              strings.ReplaceAll(inFlow(root.Content[0]), "}, {", "},\n  {") + "\n",
		"ConfigMap":         inConfigMap("|") + "---\napiVersion: v1\nkind: Service\nmetadata: {name: envoy}\n",
		"ConfigMap, strip":  inConfigMap("|-"),
		"list of objects":   "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(inConfigMap("|"), "\n", "\n  ") + "\n",
	}
	for name, edits := range edits {
		all[name] = edited(t, bootstrap, edits)
	}
	return all
}

// decoded is all that a program reads of a file.
func decoded(content string) (all []any, err error) {
	documents, err := envoyyaml.Decode([]byte(content))
	for _, document := range documents {
		var one any
		if err := document.Decode(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, err
}

// without removes all parts of the gate from a tree and the texts in it, and records them in removed.
func without(v any, removed *[]string) any {
	switch v := v.(type) {
	case []any:
		var kept []any
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
		if kept != nil { // else it was [] or nothing before
			return kept
		}
	case map[string]any:
		kept := map[string]any{}
		for key, value := range v {
			if key == httpOptions {
				*removed = append(*removed, "protocol")
			} else if value = without(value, removed); value != nil {
				kept[key] = value
			}
		}
		if len(kept) > 0 || len(v) == 0 {
			return kept
		}
	case string:
		if !strings.Contains(v, "\n") {
			return v
		}
		if inner, err := decoded(v); err == nil { // else a key is there twice, which only Envoy accepts
			return without(inner, removed)
		}
	default:
		return v
	}
	return nil
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
					want := []string{"check", "filter or extension", "route"}
					if module {
						want = append(want, "filter or extension")
					}
					if kind == "gRPC" || name == "HTTP/2 already" {
						want = append(want, "protocol")
					}
					added, problem := compared(content, string(result.Content))
					slices.Sort(want)
					if slices.Sort(added); problem != "" || !slices.Equal(added, want) {
						t.Errorf("it has %v, want %v; %s\n%s", added, want, problem, result.Content)
					}
					checkDiff(t, content, result)
					if !strings.Contains(name, "brac") && name != "JSON" {
						keepsLines(t, content, string(result.Content))
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

// compared returns the parts of a gate in a result, and what else differs from the file before.
func compared(before, after string) (added []string, problem string) {
	own, err := decoded(before)
	if err != nil {
		return nil, "" // a key is there twice, which only Envoy accepts
	}
	theirs, err := decoded(after)
	var there []string
	want, got := without(own, &there), without(theirs, &added)
	if err != nil || !reflect.DeepEqual(got, want) {
		return added, fmt.Sprintf("%v: it reads back as\n%v\nnot as\n%v", err, got, want)
	}
	return added, ""
}

// keepsLines checks that the lines of a file are all there, in their order, but for an empty list that is filled.
func keepsLines(t *testing.T, before, after string) {
	t.Helper()
	rest := strings.Split(strings.ReplaceAll(after, "\r", ""), "\n")
	filled := regexp.MustCompile(`: \[ ?\]`).ReplaceAllString(strings.ReplaceAll(before, "\r", ""), ":")
	for line := range strings.SplitSeq(strings.TrimSuffix(filled, "\n"), "\n") {
		at := slices.Index(rest, line)
		if at < 0 {
			t.Fatalf("the line %q is gone, or moved, in\n%s", line, after)
		}
		rest = rest[at+1:]
	}
}

// checkDiff checks that patch makes the result by the diff.
func checkDiff(t *testing.T, content string, result Result) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	patch := exec.CommandContext(t.Context(), "patch", "--binary", "--silent", file)
	patch.Stdin = strings.NewReader(result.Diff)
	out, err := patch.CombinedOutput()
	got, _ := os.ReadFile(file)
	if err != nil || strings.TrimSuffix(string(got), "\n") != strings.TrimSuffix(string(result.Content), "\n") {
		t.Errorf("%v: %s, and the diff\n%s\nmakes\n%s\nnot\n%s", err, out, result.Diff, got, result.Content)
	}
}

// Of any changed file the result reads back with only the additions, or there is an error.
func TestNoFileIsDamaged(t *testing.T) { rapid.Check(t, noDamage(t)) }

func FuzzNoFileIsDamaged(f *testing.F) { f.Fuzz(rapid.MakeFuzz(noDamage(f))) }

func noDamage(t testing.TB) func(*rapid.T) {
	all := files(t)
	names := slices.Sorted(maps.Keys(all))
	ends := []string{" # x", " |", " >-", " []", ": &a", " *a", "'", "\"", " {", "\r\r", "\u2028"}
	return func(r *rapid.T) {
		lines := strings.Split(all[rapid.SampledFrom(names).Draw(r, "file")], "\n")
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
				lines[at] += rapid.SampledFrom(ends).Draw(r, "end")
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
		if _, problem := compared(before, string(result.Content)); problem != "" {
			r.Fatal(problem, "\n", result.Diff)
		}
	}
}
