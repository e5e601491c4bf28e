package lint

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
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
	l := &linter{}
	var unread []error
	for _, input := range inputs {
		if err := l.read(input); err != nil {
			unread = append(unread, fmt.Errorf("%s: %w", input.Name, err))
		}
	}
	for _, s := range l.joined() {
		l.gates += len(s.check(&l.found)) + s.unseenFilters()
	}
	l.gates += l.checkGateway()
	l.timers()
	l.checkGateIsThere()
	l.found.silence(l.files)
	return l.found.sorted(l.files), errors.Join(unread...)
}

// read reads one input.
func (l *linter) read(input Input) error {
	f := newFile(input.Name, input.Content)
	l.files = append(l.files, f)
	documents, err := parse(input.Content, place{file: f})
	if wrong := (*syntaxError)(nil); errors.As(err, &wrong) {
		l.notRead(&Node{file: f, line: wrong.line, column: wrong.column}, wrong, input.Content, "this file")
		return nil
	}
	if err != nil {
		return err
	}
	known := false
	s := newScope()
	for _, document := range documents {
		known = l.document(document, s) || known
	}
	l.parts = append(l.parts, s)
	if !known {
		l.found.add(&Node{file: f, line: 1, column: 1}, Warning, "unread", "this file is no configuration of Envoy or Kubernetes, so nothing "+
			"in it is checked: %s", readable)
	}
	return nil
}

// readable ends a finding about a file that lint does not know.
const readable = "lint reads a bootstrap, a listener, a route configuration, a cluster, admin's /config_dump, and a ConfigMap with one " +
	"of these"

// notRead reports a text that is neither YAML nor JSON.
func (l *linter) notRead(at *Node, wrong *syntaxError, content []byte, whole string) {
	l.checked = true
	if bytes.HasPrefix(content, []byte("\x1f\x8b")) {
		l.found.add(at, Error, "api", "%s is compressed by gzip: check gunzip -c FILE | healthgate lint -", whole)
		return
	}
	if templated.Match(content) {
		l.found.add(at, Warning, "unread", "%s, so nothing in %s is checked; it is a template: check the rendered text, as in helm "+
			"template … | healthgate lint -", wrong.message, whole)
		return
	}
	l.found.add(at, Error, "api", "%s, so nothing in %s is checked: fix this first", wrong.message, whole)
}

// templated matches a line of a template.
var templated = regexp.MustCompile(`\{\{|\{%|<%|\$\{|\$\(|@[A-Z_]+@|\(\(`)

// checkGateIsThere reports files without a gate, or without anything that a rule checks.
func (l *linter) checkGateIsThere() {
	if l.gatePlace != nil && l.gates == 0 {
		message := "these files have no Healthgate filter, so no gate is checked: healthgate config prints the lines of one"
		if l.byLDS() {
			message += "; if LDS has it, check admin's /config_dump"
		}
		l.found.add(l.gatePlace, Warning, "no-gate", "%s", message)
	}
	if l.checked || len(l.found.all) > 0 {
		return
	}
	for _, f := range l.files {
		l.found.add(&Node{file: f, line: 1, column: 1}, Warning, "unread", "nothing in this file is about Envoy, so nothing in it is "+
			"checked: %s", readable)
	}
}

// unseenFilters counts the filters that get their configuration by ECDS, without the files having it: each may be a gate.
func (s *scope) unseenFilters() (unseen int) {
	for _, m := range s.connectionManagers() {
		for _, entry := range m.list("http_filters") {
			if contents, _ := s.httpFilter(entry); contents == nil && entry.get("config_discovery") != nil {
				unseen++
			}
		}
	}
	return unseen
}

// byLDS reports whether listeners come by LDS.
func (l *linter) byLDS() bool {
	for _, s := range l.scopes {
		if !s.dumped && s.discovers("lds") {
			return true
		}
	}
	return false
}

// noteGatePlace notes the first place that could have a gate.
func (l *linter) noteGatePlace(n *Node) {
	if l.gatePlace == nil {
		l.gatePlace = n
	}
}

// joined returns the scopes to check. If there is one bootstrap, the parts belong to it.
func (l *linter) joined() []*scope {
	together := newScope()
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
