package lint

import (
	"errors"
	"fmt"
)

// Input is a text to look at.
type Input struct {
	Name    string // as it is told in findings
	Content []byte
}

// linter is one run.
type linter struct {
	files   []*file
	found   findings
	scopes  []*scope // one for each bootstrap and dump
	parts   []*scope // what stands beside a bootstrap or without one, one for each file and ConfigMap
	objects []*Node  // of Kubernetes
}

// Run looks at the inputs together: a listener, its routes and the clusters may come in files of their own. The error says
// which could not be looked at, and why; the findings are of the others.
func Run(inputs []Input) ([]Finding, error) {
	l := &linter{}
	var unseen []error
	for _, input := range inputs {
		if err := l.read(input); err != nil {
			unseen = append(unseen, fmt.Errorf("%s: %w", input.Name, err))
		}
	}
	for _, s := range l.joined() {
		s.look(&l.found)
	}
	l.timers()
	l.found.silence(l.files)
	return l.found.sorted(l.files), errors.Join(unseen...)
}

// read takes one input.
func (l *linter) read(input Input) error {
	f := newFile(input.Name, input.Content)
	l.files = append(l.files, f)
	documents, err := parse(input.Content, place{file: f})
	if wrong := (*syntaxError)(nil); errors.As(err, &wrong) {
		l.found.add(&Node{file: f, line: wrong.line, column: wrong.column}, Error, "api", "%s, so nothing in this file is read: mend it first", wrong.message)
		return nil
	}
	if err != nil {
		return err
	}
	known := false
	s := &scope{}
	for _, document := range documents {
		known = l.document(document, s) || known
	}
	l.parts = append(l.parts, s)
	if !known {
		return errors.New("nothing of Envoy's or Kubernetes' is in it: it takes a bootstrap, a listener, a route configuration, a cluster, " +
			"what admin's /config_dump gives, a ConfigMap")
	}
	return nil
}

// joined returns what is to be looked at together: parts go with the bootstrap, where there is one and no other.
func (l *linter) joined() []*scope {
	together := &scope{}
	if len(l.scopes) == 1 && !l.scopes[0].dumped {
		together = l.scopes[0]
	}
	for _, part := range l.parts {
		together.join(part)
	}
	for _, s := range l.scopes {
		if s == together {
			return l.scopes
		}
	}
	return append(l.scopes, together)
}
