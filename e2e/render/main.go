// Command render writes what kustomize makes of base, of each overlay and of each with components, a file each, for `make lint`.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"healthgate/e2e/kustomize"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "", "the folder to write to")
	flag.Parse()
	if err := render(*dir); err != nil {
		log.Fatal(err)
	}
}

func render(dir string) error {
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
		if err := os.WriteFile(filepath.Join(dir, variant.String()+".yaml"), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
