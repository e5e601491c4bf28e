package config

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/types/known/structpb"
)

// beyondTheSchema matches the errors that a JSON Schema can't express.
var beyondTheSchema = regexp.MustCompile(strings.Join([]string{
	`is repeated; clusters\[0\] has it`, `to \d, the number of clusters$`, `127.0.0.1:65536`, `is not between 0s and 86400s$`,
	`is not between 0.1s and 60s$`, `is shorter than admin.interval`, `not supported by the Go plugin; use the dynamic module`,
}, "|"))

func TestSchemaAndDecoderAgree(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for file, accepted := range map[string]bool{
		"accepted.txt": true, "accepted-by-plugin.txt": true, "accepted-by-module.txt": true, "refused-by-plugin.txt": false,
	} {
		for _, test := range examples(t, file) {
			if !accepted && !slices.ContainsFunc(test.want, func(e string) bool { return !beyondTheSchema.MatchString(e) }) {
				continue
			}
			var value any
			if err := json.Unmarshal([]byte(test.text), &value); err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); (err == nil) != accepted {
				t.Errorf("%s: the decoder accepts it: %v, the schema: %v", test.text, accepted, err)
			}
		}
	}
}

// keys returns the defaults of all keys of the schema, by path.
func keys(t *testing.T) map[string]any {
	t.Helper()
	text, err := os.ReadFile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	var walk func(path string, node map[string]any)
	walk = func(path string, node map[string]any) {
		for key, value := range node["properties"].(map[string]any) {
			child, at := value.(map[string]any), key
			if path != "" {
				at = path + "." + key
			}
			if child["properties"] == nil {
				found[at] = child["default"]
			} else {
				walk(at, child)
			}
		}
	}
	walk("", schema)
	walk("clusters[]", schema["$defs"].(map[string]any)["cluster"].(map[string]any))
	return found
}

func TestDocumentationHasEachKeyAndItsDefault(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Keys\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = strings.Trim(row[2], "`\" ")
	}
	for key, value := range keys(t) {
		row, there := rows[key]
		if !there {
			t.Errorf("docs/configuration.md lacks %s", key)
			continue
		}
		delete(rows, key)
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"null": "required", `""`: "the name"}[string(text)]
		if want == "" {
			want = strings.Trim(string(text), `"`)
		}
		if row != want {
			t.Errorf("docs/configuration.md says that %s is %q by default, the schema %q", key, row, want)
		}
	}
	for key := range rows {
		t.Errorf("docs/configuration.md has %s, the schema does not", key)
	}
}

// withKey returns a configuration of the dynamic module in which a key of keys has a value, or is left out if value is "".
func withKey(t *testing.T, key, value string) *structpb.Struct {
	t.Helper()
	whole := map[string]any{"clusters": []any{map[string]any{"name": "service"}}, "grpc_services": []any{"b"}}
	object := whole
	if rest, ok := strings.CutPrefix(key, "clusters[]."); ok {
		object, key = whole["clusters"].([]any)[0].(map[string]any), rest
	}
	if strings.HasPrefix(key, "admin.") {
		whole["source"], whole["admin"] = "admin", map[string]any{"address": "unix:///a"}
	}
	parents := strings.Split(key, ".")
	for _, parent := range parents[:len(parents)-1] {
		if object[parent] == nil {
			object[parent] = map[string]any{}
		}
		object = object[parent].(map[string]any)
	}
	last := parents[len(parents)-1]
	delete(object, last)
	if value != "" {
		var decoded any
		if err := json.Unmarshal([]byte(value), &decoded); err != nil {
			t.Fatal(err)
		}
		object[last] = decoded
	}
	s, err := structpb.NewStruct(whole)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What follows from a wrong type is not reported too.
func TestWrongTypeIsOneError(t *testing.T) {
	for key := range keys(t) {
		for _, value := range []string{"5", "true", "null", `"?"`, "[]", "{}", "[5]"} {
			_, err := Decode(withKey(t, key, value), Module)
			if err != nil && len(err.(Errors)) != 1 {
				t.Errorf("%s: %s: %v", key, value, err)
			}
		}
	}
}

func TestSchemaHasTheDecodersDefaults(t *testing.T) {
	for key, value := range keys(t) {
		if value == nil { // it is required, or has no default
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		with, err := Decode(withKey(t, key, string(text)), Module)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		without, err := Decode(withKey(t, key, ""), Module)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := lines(t, with), lines(t, without); !slices.Equal(got, want) {
			t.Errorf("%s: %s is not the default: got %q, want %q", key, text, got, want)
		}
	}
}
