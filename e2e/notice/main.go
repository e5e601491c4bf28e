// Command notice prints the licences of all that is compiled into the plugin, the module and the command, for the file NOTICE.
package main

import (
	"errors"
	"fmt"
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
	folders, err := modules()
	if err != nil {
		log.Fatal(err)
	}
	// Each licence is printed once, below the modules that have it.
	var all []*licence
	byTerms := map[string]*licence{}
	for _, module := range slices.Sorted(maps.Keys(folders)) {
		texts, err := licences(folders[module])
		if err != nil {
			log.Fatalf("%s: %v", module, err)
		}
		for _, text := range texts {
			// Copies of the Apache licence differ in white space and in the appendix.
			terms, _, _ := strings.Cut(text, "END OF TERMS AND CONDITIONS")
			terms = strings.Join(strings.Fields(terms), " ")
			if byTerms[terms] == nil {
				byTerms[terms] = &licence{text: text}
				all = append(all, byTerms[terms])
			}
			byTerms[terms].modules = append(byTerms[terms].modules, module)
		}
	}
	fmt.Print(head)
	for _, l := range all {
		fmt.Printf("\n%s\n%s\n\n%s\n", strings.Repeat("-", 80), strings.Join(l.modules, "\n"), l.text)
	}
}

// licence is a text and the modules that have it.
type licence struct {
	text    string
	modules []string
}

// modules returns the folder of each module, with its version, that is compiled in on Linux or macOS, and of Go's standard library.
func modules() (folders map[string]string, err error) {
	const format = `{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}={{.Dir}}{{end}}{{end}}` +
		`{{if .Standard}}the Go standard library={{.Root}}{{end}}`
	folders = map[string]string{}
	for _, system := range []string{"linux", "darwin"} {
		list := exec.Command("go", "list", "-deps", "-f", format, "./...")
		list.Dir, list.Env = testbed.Root(), append(os.Environ(), "GOOS="+system, "CGO_ENABLED=1")
		out, err := list.Output()
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(out)) {
			if module, folder, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				folders[module] = folder
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
