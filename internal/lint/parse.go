package lint

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

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
	line, column int
	message      string
}

func (e *syntaxError) Error() string { return e.message }

// place is the position of a text in its file: a document in a ConfigMap is below its key.
type place struct {
	file         *file
	line, column int  // of the text in the file: added to lines and columns of the text
	fixed        bool // line and column are the position of each node: the text was quoted
}

// put sets the position of a node.
func (p place) put(n *Node, line, column int) {
	n.file = p.file
	if p.fixed {
		n.line, n.column = p.line, p.column
		return
	}
	n.line, n.column = p.line+line, p.column+column
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

var byteOrderMark = []byte("\uFEFF")

func mayBeJSON(content []byte) bool {
	trimmed := bytes.TrimLeft(content, " \t\r\n\uFEFF")
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[')
}

// parse reads the documents of a text.
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
		return nil, at.syntax(err)
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

// syntax returns the library's error with its position.
func (p place) syntax(err error) error {
	said := yamlLine.FindStringSubmatch(err.Error())
	line := 1
	if said != nil && said[1] != "" {
		line, _ = strconv.Atoi(said[1])
	}
	if strings.Contains(err.Error(), "did not find expected") { // the parser's lines count from 0
		line++
	}
	n := &Node{}
	p.put(n, line, 1)
	return &syntaxError{n.line, n.column, "not YAML: " + oneLine(yamlLine.ReplaceAllString(err.Error(), ""))}
}

func (r *yamlReader) node(y *yaml.Node, depth int) (*Node, error) {
	n := &Node{}
	r.put(n, y.Line, y.Column)
	if depth > maxDepth {
		return nil, &syntaxError{n.line, n.column, fmt.Sprintf("values are nested more than %d deep", maxDepth)}
	}
	if r.within > 0 {
		if r.aliased++; r.aliased > maxAliased {
			return nil, &syntaxError{n.line, n.column, fmt.Sprintf("the aliases expand to more than %d values", maxAliased)}
		}
	}
	switch y.Kind {
	case yaml.AliasNode:
		r.within++
		defer func() { r.within-- }()
		return r.node(y.Alias, depth+1)
	case yaml.ScalarNode:
		r.scalar(n, y)
		return n, nil
	case yaml.MappingNode:
		if isTemplates(y) {
			n.kind, n.scalar = text, "{{ … }}"
			return n, nil
		}
	case yaml.SequenceNode:
		n.kind = list
		for _, item := range y.Content {
			below, err := r.node(item, depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, below)
		}
		return n, nil
	}
	return n, r.mapping(n, y, depth)
}

// isTemplates reports whether a mapping is {{ a placeholder }} of a template, which is a mapping as a key of a mapping in YAML.
func isTemplates(y *yaml.Node) bool {
	return y.Style&yaml.FlowStyle != 0 && len(y.Content) == 2 && y.Content[0].Kind == yaml.MappingNode
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
		r.put(below, key.Line, key.Column)
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

// oldBoolean has the other booleans of YAML 1.1, which Envoy (yaml-cpp's convert<bool>) and Kubernetes accept.
var oldBoolean = map[string]bool{}

func init() {
	for word, value := range map[string]bool{"y": true, "yes": true, "on": true, "n": false, "no": false, "off": false} {
		oldBoolean[word], oldBoolean[strings.ToUpper(word)], oldBoolean[strings.ToUpper(word[:1])+word[1:]] = value, value, value
	}
}

// notEnvoys matches numbers of this library that are strings in Envoy's.
var notEnvoys = regexp.MustCompile(`_|^[-+]?0[ob]`)

// scalar resolves a scalar as Envoy does: by YAML's core schema, with the other booleans.
func (r *yamlReader) scalar(n *Node, y *yaml.Node) {
	n.kind, n.scalar = text, y.Value
	if value, isBool := oldBoolean[y.Value]; isBool && y.Style == 0 {
		n.kind, n.scalar = boolean, strconv.FormatBool(value)
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

// oneLine returns a message without line breaks.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
