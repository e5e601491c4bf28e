// Command render writes the manifests and examples as users get them: base, each overlay and each component as kustomize renders
// them, and each example applied to both variants' reference configurations.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/examples"
	"healthgate/e2e/kustomize"
	"healthgate/e2e/testbed"
)

func main() {
	log.SetFlags(0)
	manifests := flag.String("manifests", "", "the folder for the manifests")
	whole := flag.String("examples", "", "the folder for the examples, which get a folder for each variant")
	flag.Parse()
	for dir, render := range map[string]func(string) error{*manifests: renderManifests, *whole: renderExamples} {
		if dir == "" {
			continue
		}
		if err := render(dir); err != nil {
			log.Fatal(err)
		}
	}
}

func renderManifests(dir string) error {
	variants, err := kustomize.Variants()
	if err != nil {
		return err
	}
	for _, variant := range variants {
		objects, err := variant.Build()
		if err != nil {
			return err
		}
		text, err := objects.AsYaml()
		if err != nil {
			return err
		}
		if err := write(text, dir, variant.String()+".yaml"); err != nil {
			return err
		}
	}
	return nil
}

func renderExamples(dir string) error {
	envoy := filepath.Join(testbed.Root(), "envoy")
	names, err := examples.Names(envoy)
	if err != nil {
		return err
	}
	for variant := range examples.References {
		for _, name := range names {
			bootstrap, err := examples.Read(envoy, name, variant)
			if err != nil {
				return err
			}
			text, err := yaml.Marshal(bootstrap)
			if err != nil {
				return err
			}
			if err := write(text, dir, variant, name+".yaml"); err != nil {
				return err
			}
		}
	}
	return nil
}

func write(text []byte, path ...string) error {
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
