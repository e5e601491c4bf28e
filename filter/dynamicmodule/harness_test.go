package dynamicmodule

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	// Envoy's header of the ABI comes with this module.
	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/abi"
)

// compiler returns cgo's C compiler.
func compiler(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func cFiles(t *testing.T, patterns ...string) []string {
	t.Helper()
	var files []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	return files
}

// testdata/harness.c tests the C without Go.
func TestCUnderSanitizers(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 15 s")
	}
	const memory, threads = "-fsanitize=address,undefined", "-fsanitize=thread"
	for name, flags := range map[string][]string{
		"memory":                        {memory},
		"memory, Envoy 1.38":            {memory, "-DFE_OF_1_38"},
		"memory, Envoy 1.40":            {memory, "-DFE_OF_1_40"},
		"threads":                       {threads},
		"threads, Envoy 1.38":           {threads, "-DFE_OF_1_38"},
		"an Envoy without a function":   {memory, "-DFE_WITHOUT_LIFECYCLE"},
		"as built, without a sanitizer": {"-O2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "harness")
			args := append([]string{"-g", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter",
				"-fno-sanitize-recover=all", "-o", program}, flags...)
			args = append(args, cFiles(t, "*.c", "fakeenvoy/*.c", "testdata/harness.c")...)
			if out, err := exec.Command(compiler(t), append(args, "-lpthread")...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if out, err := exec.Command(program).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func abiHeader(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/envoy/source/extensions/dynamic_modules").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "abi")
}

// abi.h and the hooks have the types of Envoy's header.
func TestDeclarationsAgreeWithEnvoys(t *testing.T) {
	args := []string{"-D_GNU_SOURCE", "-Wall", "-Werror", "-fsyntax-only", "-isystem", abiHeader(t), "testdata/abi_check.c"}
	if out, err := exec.Command(compiler(t), args...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Envoy does not need these hooks: newDynamicModuleHttpFilterConfig in filter_config.cc of
// source/extensions/filters/http/dynamic_modules, v1.39.1.
var optional = regexp.MustCompile(`_on_http_filter_config_(scheduled|http_)`)

// Envoy refuses a module that lacks one of the hooks.
func TestEachHookExists(t *testing.T) {
	header, err := os.ReadFile(filepath.Join(abiHeader(t), "abi.h"))
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	for _, file := range cFiles(t, "*.c") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`EXPORT.* \*?(envoy_dynamic_module_on_\w+)\(`).FindAllSubmatch(text, -1) {
			defined[string(found[1])] = true
		}
		for _, found := range regexp.MustCompile(`(?m)^(?:NOTHING|CONTINUE)\((\w+)\)`).FindAllSubmatch(text, -1) {
			defined["envoy_dynamic_module_on_"+string(found[1])] = true
		}
	}
	hooks := regexp.MustCompile(`(?m)^(?:[a-z].*?\b)?(envoy_dynamic_module_on_(?:program|http_filter|bootstrap_extension)_\w+)\(`)
	seen := 0
	for _, hook := range hooks.FindAllSubmatch(header, -1) {
		seen++
		if name := string(hook[1]); !defined[name] && !optional.MatchString(name) {
			t.Errorf("%s is missing", name)
		}
	}
	if seen < 30 {
		t.Errorf("only %d hooks were found in Envoy's header", seen)
	}
}

// doc.go has the order.
func TestFilesIncludeOnlyFilesBeforeThem(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	position := map[string]int{}
	for _, name := range regexp.MustCompile(`\b\w+(\.[ch]\b)`).FindAllString(string(doc), -1) {
		position[strings.TrimSuffix(name, ".c")] = len(position) + 1
	}
	for _, file := range cFiles(t, "*.[ch]") {
		name := strings.TrimSuffix(strings.TrimSuffix(file, ".c"), ".h")
		at := max(position[name], position[file])
		if file == "healthgate.h" { // all of them, for Go
			at = len(position) + 1
		}
		if at == 0 {
			t.Errorf("doc.go does not have %s", file)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, include := range regexp.MustCompile(`(?m)^#include "(\w+)\.h"`).FindAllSubmatch(text, -1) {
			if other := string(include[1]); other != name && max(position[other], position[other+".h"]) >= at {
				t.Errorf("%s includes %s.h, which comes after it", file, other)
			}
		}
	}
}

func TestFilesOfCAreShort(t *testing.T) {
	for _, file := range cFiles(t, "*.[ch]", "fakeenvoy/*.[ch]") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(text), "\n"); lines > 250 {
			t.Errorf("%s has %d lines", file, lines)
		}
	}
}
