// Command notice prints the licences of all that is compiled into the plugin, the module and the command, for the file NOTICE.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"healthgate/e2e/testbed"
)

const head = `Healthgate
Copyright the Healthgate authors

Licensed under the Apache License, Version 2.0; see LICENSE.

The Go plugin, the dynamic module and the command contain the software below. Made by ` + "`make notice`" + `.
`

func main() {
	log.SetFlags(0)
	if err := notice(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// section is a licence and the modules that have it.
type section struct {
	text    string
	modules []string
}

// notice prints each licence once, below the modules that have it.
func notice(w io.Writer) error {
	folders, err := modules()
	if err != nil {
		return err
	}
	var sections []*section
	byTerms := map[string]*section{}
	for _, module := range slices.Sorted(maps.Keys(folders)) {
		texts, err := licences(folders[module])
		if err != nil {
			return fmt.Errorf("%s: %w", module, err)
		}
		for _, text := range texts {
			// Copies of the Apache licence differ in white space and in the appendix.
			terms, _, _ := strings.Cut(text, "END OF TERMS AND CONDITIONS")
			terms = strings.Join(strings.Fields(terms), " ")
			if byTerms[terms] == nil {
				byTerms[terms] = &section{text: text}
				sections = append(sections, byTerms[terms])
			}
			byTerms[terms].modules = append(byTerms[terms].modules, module)
		}
	}
	fmt.Fprint(w, head)
	for _, s := range sections {
		fmt.Fprintf(w, "\n%s\n%s\n\n%s\n", strings.Repeat("-", 80), strings.Join(s.modules, "\n"), s.text)
	}
	return nil
}

// modules returns the folder of each module, with its version, that is compiled in on Linux or macOS, and of Go's standard library.
func modules() (folders map[string]string, err error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	folders = map[string]string{"the Go standard library": strings.TrimSpace(string(goroot))}
	for _, system := range []string{"linux", "darwin"} {
		list := exec.Command("go", "list", "-deps", "-json=Module", "./...")
		list.Dir, list.Env = testbed.Root(), append(os.Environ(), "GOOS="+system, "CGO_ENABLED=1")
		out, err := list.Output()
		if err != nil {
			return nil, err
		}
		for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
			var pkg struct {
				Module *struct {
					Path, Version, Dir string
					Main               bool
				}
			}
			err := decoder.Decode(&pkg)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			if pkg.Module != nil && !pkg.Module.Main {
				folders[pkg.Module.Path+" "+pkg.Module.Version] = pkg.Module.Dir
			}
		}
	}
	return folders, nil
}

// licences returns the texts of a module's licence and notice files.
func licences(folder string) (texts []string, err error) {
	for _, pattern := range []string{"LICEN[CS]E*", "NOTICE*"} {
		files, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			texts = append(texts, strings.Trim(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"))
		}
	}
	if len(texts) == 0 {
		return nil, errors.New("no licence file")
	}
	return texts, nil
}
