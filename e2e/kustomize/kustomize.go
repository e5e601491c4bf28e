// Package kustomize builds the folders below manifests, like `kubectl apply -k`.
package kustomize

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"healthgate/e2e/testbed"
)

// Build returns the objects of a folder below manifests, such as overlays/local, with components, such as module.
func Build(folder string, components ...string) (resmap.ResMap, error) {
	dir, err := os.MkdirTemp("", "kustomize")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// kustomize accepts no absolute path.
	if err := os.Symlink(filepath.Join(testbed.Root(), "manifests"), filepath.Join(dir, "manifests")); err != nil {
		return nil, err
	}
	text := "resources: [manifests/" + folder + "]\ncomponents:\n"
	for _, component := range components {
		text += "- manifests/components/" + component + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("%s with %v: %w", folder, components, err)
	}
	return built, nil
}

// EnvoyGateway is the overlay for Envoy Gateway, which configures its Envoys itself: no component applies to it.
const EnvoyGateway = "overlays/envoy-gateway"

// Variant is a folder with components.
type Variant struct {
	Folder     string
	Components []string
}

func (v Variant) String() string {
	return strings.ReplaceAll(strings.Join(append([]string{strings.TrimPrefix(v.Folder, "overlays/")}, v.Components...), "+"), "/", "-")
}

// Build returns the objects of the variant.
func (v Variant) Build() (resmap.ResMap, error) { return Build(v.Folder, v.Components...) }

// Variants returns base and each overlay, each without components and with each set of components.
func Variants() ([]Variant, error) {
	overlays, err := filepath.Glob(filepath.Join(testbed.Root(), "manifests", "overlays", "*"))
	if err != nil {
		return nil, err
	}
	folders := []string{"base"}
	for _, overlay := range overlays {
		folders = append(folders, "overlays/"+filepath.Base(overlay))
	}
	var all []Variant
	for _, folder := range folders {
		for _, components := range sets {
			if len(components) == 0 || folder != EnvoyGateway {
				all = append(all, Variant{folder, components})
			}
		}
	}
	return all, nil
}

// sets are the sets of components that Variants uses. pod-monitor and pod-monitoring are alternatives.
var sets = [][]string{
	nil,
	{"module"},
	{"metrics/pod-monitor"},
	{"module", "metrics/pod-monitoring", "own-service"},
}
