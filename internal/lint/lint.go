package lint

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Input is a text to check.
type Input struct {
	Name    string // in findings
	Content []byte
}

// linter is one run.
type linter struct {
	files     []*file
	found     findings
	scopes    []*scope // one for each bootstrap and dump
	parts     []*scope // resources without a bootstrap, one for each file and ConfigMap
	objects   []*Node  // of Kubernetes
	gates     int      // how many were found
	gatePlace *Node    // the first place that could have a gate; nil if there is none
	checked   bool     // an input has something that a rule checks
}

// Run checks the inputs together: a listener, its routes and the clusters may be in separate files. The error names each input
// that could not be read, with the reason; the findings are about the others.
func Run(inputs []Input) ([]Finding, error) {
	l := &linter{found: findings{}}
	var unread []error
	for _, input := range inputs {
		if err := l.read(input); err != nil {
			unread = append(unread, fmt.Errorf("%s: %w", input.Name, err))
		}
	}
	for _, s := range l.joined() {
		l.gates += len(s.check(l.found)) + s.elsewhere
	}
	l.gates += l.checkGateway()
	l.timers()
	l.checkGateIsThere()
	l.found.silence(l.files)
	return l.found.sorted(l.files), errors.Join(unread...)
}

func (l *linter) read(input Input) error {
	f := newFile(input.Name, input.Content)
	l.files = append(l.files, f)
	known, err := l.documents(input.Content, place{position: position{file: f}}, func(*Node) bool { return true })
	if wrong := (*syntaxError)(nil); errors.As(err, &wrong) {
		l.notRead(wrong, input.Content, "this file")
		return nil
	}
	if err == nil && !known {
		l.found.add(f.at(1, 1), Warning, "unread", "this file is no configuration of Envoy or Kubernetes, so nothing in it is "+
			"checked: %s", readable)
	}
	return err
}

// documents reads the documents of a text that are wanted, and reports whether it knows one of them.
func (l *linter) documents(content []byte, at place, wanted func(*Node) bool) (known bool, err error) {
	all, err := parse(content, at)
	if err != nil {
		return false, err
	}
	s := newScope()
	l.parts = append(l.parts, s)
	for _, document := range all {
		known = wanted(document) && l.document(document, s) || known
	}
	return known, nil
}

// readable ends a finding about a file that lint does not know.
const readable = "lint reads a bootstrap, a listener, a route configuration, a cluster, admin's /config_dump, and a ConfigMap with one " +
	"of these"

// templated matches a line of a template.
var templated = regexp.MustCompile(`\{\{|\{%|<%|\$\{|\$\(|@[A-Z_]+@|\(\(`)

// notRead reports a text that is neither YAML nor JSON.
func (l *linter) notRead(wrong *syntaxError, content []byte, whole string) {
	l.checked = true
	switch {
	case bytes.HasPrefix(content, []byte("\x1f\x8b")):
		l.found.add(wrong, Error, "api", "%s is compressed by gzip: check gunzip -c FILE | healthgate lint -", whole)
	case templated.Match(content):
		l.found.add(wrong, Warning, "unread", "%s, so nothing in %s is checked; it is a template: check the rendered text, as in helm "+
			"template … | healthgate lint -", wrong.message, whole)
	default:
		l.found.add(wrong, Error, "api", "%s, so nothing in %s is checked: fix this first", wrong.message, whole)
	}
}

// checkGateIsThere reports files without a gate, or without anything that a rule checks.
func (l *linter) checkGateIsThere() {
	if l.gatePlace != nil && l.gates == 0 {
		message := "these files have no Healthgate filter, so no gate is checked: healthgate config prints the lines of one"
		if slices.ContainsFunc(l.scopes, func(s *scope) bool { return !s.dumped && s.discovers("lds") }) {
			message += "; if LDS has it, check admin's /config_dump"
		}
		l.found.add(l.gatePlace, Warning, "no-gate", "%s", message)
	}
	if !l.checked && len(l.found) == 0 {
		for _, f := range l.files {
			l.found.add(f.at(1, 1), Warning, "unread", "nothing in this file is about Envoy, so nothing in it is checked: %s", readable)
		}
	}
}

// joined returns the scopes to check. If there is one bootstrap, the parts belong to it.
func (l *linter) joined() []*scope {
	all := l.scopes
	if len(all) != 1 || all[0].dumped {
		all = append(all, newScope())
	}
	together := all[len(all)-1]
	for _, part := range l.parts {
		for _, r := range part.resources {
			together.add(r.Node, r.typeName)
		}
		together.patches = append(together.patches, part.patches...)
	}
	return all
}
