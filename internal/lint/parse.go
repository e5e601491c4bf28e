package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unique"

	"go.yaml.in/yaml/v3"

	"healthgate/internal/envoyyaml"
)

const (
	maxYAML  = 8 << 20 // bytes; a longer file must be JSON, which is read five times as fast
	maxJSON  = 1 << 30 // bytes
	maxDepth = 500     // of nested values
	maxNodes = 20_000_000
	// maxAliased is the limit of nodes that aliases expand to: a few lines of YAML can expand to billions.
	maxAliased = 200_000
)

// syntaxError is the reason why a text is neither YAML nor JSON.
type syntaxError struct {
	position
	message string
}

func (e *syntaxError) Error() string { return e.message }

// place is the position of a text in its file: a document in a ConfigMap is below its key.
type place struct {
	position      // of the text in the file: added to lines and columns of the text
	fixed    bool // each node has this position: the text was quoted
}

// of returns the position of a line and a column of the text.
func (p place) of(line, column int) position {
	if !p.fixed {
		p.line, p.column = p.line+line, p.column+column
	}
	return p.position
}

// ReadAll reads an input up to the size that Run checks: a device or a pipe may never end.
func ReadAll(in io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(in, maxYAML+1))
	if err != nil || len(content) <= maxYAML || !mayBeJSON(content) {
		return content, err
	}
	rest, err := io.ReadAll(io.LimitReader(in, maxJSON-maxYAML))
	return append(content, rest...), err
}

func mayBeJSON(content []byte) bool {
	trimmed := bytes.TrimLeft(content, " \t\r\n\uFEFF")
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

func parse(content []byte, at place) ([]*Node, error) {
	if mayBeJSON(content) {
		document, err := parseJSON(content, at)
		if err == nil {
			return []*Node{document}, nil
		}
		if len(content) > maxYAML {
			return nil, err
		}
	}
	if len(content) > maxYAML {
		return nil, fmt.Errorf("it has more than %d MiB, up to which YAML is read; JSON is up to %d MiB", maxYAML>>20, maxJSON>>20)
	}
	return parseYAML(content, at)
}

// yamlReader converts the library's nodes.
type yamlReader struct {
	place
	aliased int // nodes of aliases so far
	within  int // depth of aliases
}

func parseYAML(content []byte, at place) (documents []*Node, err error) {
	decoded, err := envoyyaml.Decode(content)
	if err != nil {
		line, what := 1, err.Error()
		if said := yamlLine.FindStringSubmatch(what); said != nil && said[1] != "" {
			line, _ = strconv.Atoi(said[1])
		}
		if strings.Contains(what, "did not find expected") { // the parser's lines count from 0
			line++
		}
		return nil, &syntaxError{at.of(line, 1), "not YAML: " + oneLine(yamlLine.ReplaceAllString(what, ""))}
	}
	reader := &yamlReader{place: at}
	for _, document := range decoded {
		n, err := reader.node(document, 0)
		if err != nil {
			return nil, err
		}
		if n.kind != null {
			documents = append(documents, n)
		}
	}
	return documents, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func (r *yamlReader) node(y *yaml.Node, depth int) (*Node, error) {
	n := &Node{position: r.of(y.Line, y.Column)}
	if depth > maxDepth {
		return nil, &syntaxError{n.position, fmt.Sprintf("values are nested more than %d deep", maxDepth)}
	}
	if r.within > 0 {
		if r.aliased++; r.aliased > maxAliased {
			return nil, &syntaxError{n.position, fmt.Sprintf("the aliases expand to more than %d values", maxAliased)}
		}
	}
	switch {
	case y.Kind == yaml.AliasNode:
		r.within++
		defer func() { r.within-- }()
		return r.node(y.Alias, depth+1)
	case y.Kind == yaml.ScalarNode:
		r.scalar(n, y)
	case y.Kind == yaml.SequenceNode:
		n.kind = list
		for _, item := range y.Content {
			below, err := r.node(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, below)
		}
	// {{ a placeholder }} of a template is a mapping as a key of a mapping in YAML
	case y.Style&yaml.FlowStyle != 0 && len(y.Content) == 2 && y.Content[0].Kind == yaml.MappingNode:
		n.kind, n.scalar = text, "{{ … }}"
	default:
		return n, r.mapping(n, y, depth)
	}
	return n, nil
}

func (r *yamlReader) mapping(n *Node, y *yaml.Node, depth int) error {
	n.kind = mapping
	for i := 0; i+1 < len(y.Content); i += 2 {
		key := y.Content[i]
		if key.Tag == "!ignore" { // Envoy's own tag: the value is there for its anchors only
			continue
		}
		below, err := r.node(y.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		below.position = r.of(key.Line, key.Column)
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		name := key.Value
		if key.Kind == yaml.MappingNode {
			name = "{{ … }}"
		}
		n.entries = append(n.entries, entry{name, below})
	}
	return nil
}

// oldBoolean matches the other booleans of YAML 1.1, which Envoy (yaml-cpp's convert<bool>) and Kubernetes accept: true, then false.
var oldBoolean = regexp.MustCompile(`^(?:(y|Y|yes|Yes|YES|on|On|ON)|n|N|no|No|NO|off|Off|OFF)$`)

// notEnvoys matches numbers of this library that are strings in Envoy's.
var notEnvoys = regexp.MustCompile(`_|^[-+]?0[ob]`)

// scalar resolves a scalar as Envoy does: by YAML's core schema, with the other booleans.
func (r *yamlReader) scalar(n *Node, y *yaml.Node) {
	n.kind, n.scalar = text, y.Value
	if old := oldBoolean.FindStringSubmatch(y.Value); old != nil && y.Style == 0 {
		n.kind, n.scalar = boolean, strconv.FormatBool(old[1] != "")
		return
	}
	switch y.ShortTag() {
	case "!!null":
		n.kind, n.scalar = null, ""
	case "!!bool":
		n.kind, n.scalar = boolean, strings.ToLower(y.Value)
	case "!!int", "!!float":
		if notEnvoys.MatchString(y.Value) {
			break
		}
		n.kind = number
		// parseYamlNode in source/common/protobuf/yaml_utility.cc of v1.39.1: whole numbers of 32 bits are numbers.
		var v int64
		if y.ShortTag() == "!!int" && y.Decode(&v) == nil {
			n.scalar = strconv.FormatInt(v, 10)
		}
		_, err := strconv.ParseInt(n.scalar, 10, 32)
		n.isText = err != nil
	}
	if y.Style&(yaml.LiteralStyle) != 0 && !r.fixed {
		n.valueLine = r.line + y.Line + 1
	}
}

// jsonReader makes nodes of JSON. A config_dump has tens of megabytes, for which the YAML reader takes five times as long.
type jsonReader struct {
	place
	*file  // the text
	tokens *json.Decoder
	nodes  int
}

func parseJSON(content []byte, at place) (*Node, error) {
	if len(content) > maxJSON {
		return nil, fmt.Errorf("it has more than %d MiB, up to which JSON is read", maxJSON>>20)
	}
	whole := newFile("", bytes.TrimPrefix(content, []byte("\uFEFF")))
	r := &jsonReader{place: at, file: whole, tokens: json.NewDecoder(bytes.NewReader(whole.content))}
	r.tokens.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.tokens.Token(); !errors.Is(err, io.EOF) {
		return nil, r.fail("something follows the document")
	}
	return n, nil
}

// next returns the position of the next token.
func (r *jsonReader) next() position {
	read := int(r.tokens.InputOffset())
	at := len(r.content) - len(bytes.TrimLeft(r.content[read:], " \t\r\n,:"))
	line, first := slices.BinarySearch(r.starts, at)
	if first {
		line++
	}
	return r.of(line, at-r.starts[line-1]+1)
}

func (r *jsonReader) fail(format string, args ...any) error {
	return &syntaxError{r.next(), "not JSON: " + fmt.Sprintf(format, args...)}
}

func (r *jsonReader) token() (json.Token, error) {
	token, err := r.tokens.Token()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, r.fail("the document does not end")
	} else if err != nil {
		return nil, r.fail("%s", err)
	}
	return token, nil
}

func (r *jsonReader) value(depth int) (*Node, error) {
	if r.nodes++; depth > maxDepth || r.nodes > maxNodes {
		return nil, r.fail("more than %d values, or nested more than %d deep", maxNodes, maxDepth)
	}
	n := &Node{position: r.next()}
	token, err := r.token()
	switch v := token.(type) {
	case json.Delim:
		n.kind = list
		if v == '{' {
			n.kind = mapping
		}
		for err == nil && r.tokens.More() {
			err = r.below(n, depth+1)
		}
		if err == nil {
			_, err = r.token()
		}
	case string:
		n.kind, n.scalar = text, v
	case json.Number:
		n.kind, n.scalar = number, v.String()
	case bool:
		n.kind, n.scalar = boolean, strconv.FormatBool(v)
	}
	return n, err
}

// below reads an item of a list, or a key of a mapping and its value.
func (r *jsonReader) below(n *Node, depth int) (err error) {
	at, key := r.next(), json.Token(nil)
	if n.kind == mapping {
		if key, err = r.token(); err != nil {
			return err
		}
	}
	value, err := r.value(depth)
	if err != nil {
		return err
	}
	value.position = at
	if n.kind == list {
		n.items = append(n.items, value)
	} else {
		n.entries = append(n.entries, entry{unique.Make(key.(string)).Value(), value}) // a key may be there a million times
	}
	return nil
}

// placeholder matches a variable of a template: envsubst and the shell, Go and Jinja, Ansible, Consul, sed.
var placeholder = regexp.MustCompile(`\$\{?\{?[A-Za-z_(]|\{\{|\{%|<[A-Za-z_ .-]+>|<%|@[A-Z_]+@|%[A-Z_]{3,}%|__[A-Z_]+__|#\{`)

func isPlaceholder(s string) bool { return placeholder.MatchString(s) }

// placeholderWord matches a word that a script replaces by a number: ADMIN_PORT.
var placeholderWord = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
