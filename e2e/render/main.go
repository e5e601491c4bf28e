// Command render writes the manifests and examples as users get them: base, each overlay and each component as kustomize renders
// them, and each example applied to both variants' reference configurations.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

func main() {
	log.SetFlags(0)
	manifests := flag.String("manifests", "", "the folder for the manifests")
	whole := flag.String("examples", "", "the folder for the examples, which get a folder for each variant")
	flag.Parse()
	if *manifests != "" {
		for _, variant := range must(kustomize.Variants()) {
			write(must(must(variant.Build()).AsYaml()), *manifests, variant.String()+".yaml")
		}
	}
	if *whole != "" {
		for _, name := range must(testbed.Examples()) {
			for variant := range testbed.References {
				write(must(yaml.JSONToYAML(must(testbed.ReadExample(name, variant)).JSON())), *whole, variant, name+".yaml")
			}
		}
	}
}

// must returns a result, or ends the program with an error.
func must[T any](result T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return result
}

func write(text []byte, path ...string) {
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		log.Fatal(err)
	}
}
