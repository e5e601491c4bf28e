package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// execute runs the command as main does.
func execute(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	command := newCommand()
	var out, err bytes.Buffer
	command.SetIn(strings.NewReader(stdin))
	command.SetOut(&out)
	command.SetErr(&err)
	code = run(t.Context(), command, args)
	return code, out.String(), err.String()
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const openAdmin = "admin:\n  address: {socket_address: {address: 0.0.0.0, port_value: 9901}}\n"

func TestLintEndsWithWhatItFound(t *testing.T) {
	fine := filepath.Join("..", "..", "envoy", "envoy.yaml")
	open := write(t, "open.yaml", openAdmin)
	other := write(t, "other.yaml", "a: b\n")
	const found = ":2:30: error: admin listens on 0.0.0.0,"
	for name, test := range map[string]struct {
		args   []string
		stdin  string
		code   int
		stdout string // part of it; "" is nothing at all
		stderr string
	}{
		"fine":               {[]string{fine}, "", 0, "", ""},
		"found":              {[]string{open}, "", 1, open + found, ""},
		"on stdin":           {[]string{"-"}, openAdmin, 1, "<stdin>" + found, ""},
		"not there":          {[]string{"nowhere.yaml"}, "", 2, "", "healthgate: open nowhere.yaml: no such file"},
		"not Envoy's":        {[]string{other}, "", 1, other + ":1:1: warning: nothing in this file", ""},
		"found, and unread":  {[]string{open, "nowhere.yaml"}, "", 2, open + found, "healthgate: open nowhere.yaml"},
		"no file":            {nil, "", 2, "", "healthgate: lint looks at files: name one or more, or - for standard input"},
		"an unknown output":  {[]string{"--output", "xml", fine}, "", 2, "", `healthgate: --output: "xml" is neither text nor json`},
		"fine, as JSON":      {[]string{"--output=json", fine}, "", 0, "[]\n", ""},
		"JSON though unread": {[]string{"-o", "json", "nowhere.yaml"}, "", 2, "[]\n", "healthgate: open nowhere.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(t, test.stdin, append([]string{"lint"}, test.args...)...)
			if code != test.code || !strings.HasPrefix(stdout, test.stdout) || (stdout == "") != (test.stdout == "") ||
				!strings.HasPrefix(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
				t.Errorf("it ended with %d, printed %q and said %q", code, stdout, stderr)
			}
		})
	}
}

func TestLintPrintsFindingsForPrograms(t *testing.T) {
	_, stdout, _ := execute(t, openAdmin, "lint", "--output", "json", "-")
	var found []map[string]any
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found) != 1 {
		t.Fatalf("%v: %s", err, stdout)
	}
	for key, want := range map[string]any{"file": "<stdin>", "line": 2.0, "column": 30.0, "severity": "error", "rule": "admin-open"} {
		if found[0][key] != want {
			t.Errorf("%s is %v, want %v", key, found[0][key], want)
		}
	}
	if message, _ := found[0]["message"].(string); !strings.HasPrefix(message, "admin listens on 0.0.0.0") || len(found[0]) != 6 {
		t.Errorf("got %v", found[0])
	}
}

// A mistake in a word of the command is told, with what was meant.
func TestUnknownCommandIsTold(t *testing.T) {
	code, _, stderr := execute(t, "", "lnit", "x")
	if code != exitBlind || !strings.Contains(stderr, `unknown command "lnit"`) || !strings.Contains(stderr, "lint") {
		t.Errorf("it ended with %d and said %q", code, stderr)
	}
}
