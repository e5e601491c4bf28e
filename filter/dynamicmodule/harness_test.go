package dynamicmodule

import (
	"os/exec"
	"path/filepath"
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
