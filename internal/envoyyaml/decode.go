// Package envoyyaml decodes YAML with the library's parser, and accepts the texts that Envoy's parser accepts.
package envoyyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"

	"go.yaml.in/yaml/v3"
)

var (
	// yaml12 matches the directive of YAML 1.2. The library reads YAML 1.2, and refuses the directive.
	yaml12 = regexp.MustCompile(`(?m)^%YAML 1\.2`)
	// tabbedLine matches a line with a tab before its comment, or with only a tab. Envoy accepts it, and the library does not.
	tabbedLine = regexp.MustCompile(`(?m)^[ ]*\t[ \t]*(#|\r?$)`)
)

// Decode returns the documents of a text, without empty ones. Nodes have the lines and columns of the text.
func Decode(content []byte) ([]*yaml.Node, error) {
	content = yaml12.ReplaceAll(content, []byte("%YAML 1.1"))
	documents, err := decode(content)
	if err != nil {
		spaces := func(line []byte) []byte { return bytes.ReplaceAll(line, []byte("\t"), []byte(" ")) }
		if again, failed := decode(tabbedLine.ReplaceAllFunc(content, spaces)); failed == nil {
			return again, nil
		}
	}
	return documents, err
}

func decode(content []byte) (documents []*yaml.Node, err error) {
	defer func() { // the library panics on some inputs that are not YAML
		if cause := recover(); cause != nil {
			documents, err = nil, fmt.Errorf("%v", cause)
		}
	}()
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var document yaml.Node
		if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
			return documents, nil
		} else if err != nil {
			return nil, err
		}
		if len(document.Content) > 0 {
			documents = append(documents, document.Content[0])
		}
	}
}
