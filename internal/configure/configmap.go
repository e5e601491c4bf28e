package configure

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// textsOf returns the texts in a ConfigMap.
func textsOf(object value) (texts []*text) {
	data := object.get("data")
	if data.Node == nil {
		return nil
	}
	for i := 1; i < len(data.Content); i += 2 {
		one := data.step(i)
		if one.Kind != yaml.ScalarNode || !strings.Contains(one.Value, "HttpConnectionManager") && !strings.Contains(one.Value, "clusters") {
			continue
		}
		if inner, err := parse([]byte(one.Value)); err == nil {
			texts = append(texts, &text{document: inner, original: inner, path: one.path, first: one.Line})
		}
	}
	return texts
}

// withBlock returns the file with a text as the value in a ConfigMap.
func (d *document) withBlock(t *text) (*document, error) {
	if t.document == t.original {
		return d, nil
	}
	at := d.at(t.path)
	want := changedAt(d.root, t.path, func(value *yaml.Node) {
		// A block without a newline at its end (|-) keeps that form.
		value.Value = strings.Join(t.lines, "\n")
		if strings.HasSuffix(at.Value, "\n") {
			value.Value += "\n"
		}
	})
	if at.Style&yaml.LiteralStyle == 0 || at.Line+1 > len(d.lines) {
		return nil, fmt.Errorf("the value in line %d is quoted or folded: write it as a block (|), so that lines can be added", at.Line)
	}
	first := d.lines[at.Line] // after the indicator
	indent := len(first) - len(strings.TrimLeft(first, " "))
	if end := at.Line + len(t.original.lines); end <= len(d.lines) {
		result, err := parse(d.with(replacement{at.Line + 1, end + 1, indented(indent, t.lines)}))
		if err == nil && equal(result.root, want) {
			return result, nil
		}
	}
	return nil, fmt.Errorf("the value in line %d can't be written back as it was read", at.Line)
}
