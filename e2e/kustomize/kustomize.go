// Package kustomize builds the folders below manifests, like `kubectl apply -k`.
package kustomize

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"healthgate/e2e/testbed"
)

// Build returns the objects of a folder below manifests, such as overlays/local, with components, such as module.
func Build(folder string, components ...string) (resmap.ResMap, error) {
	built, err := build(folder, components)
	if err != nil {
		return nil, fmt.Errorf("%s with %v: %w", folder, components, err)
	}
	return built, nil
}

// build writes a kustomization, as a user would, and builds it.
func build(folder string, components []string) (resmap.ResMap, error) {
	dir, err := os.MkdirTemp("", "kustomize")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	own := map[string]any{"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
	if own["resources"], err = relative(dir, []string{folder}); err != nil {
		return nil, err
	}
	var below []string
	for _, component := range components {
		below = append(below, filepath.Join("components", component))
	}
	if own["components"], err = relative(dir, below); err != nil {
		return nil, err
	}
	text, err := yaml.Marshal(own)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600); err != nil {
		return nil, err
	}
	return krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
}

// relative returns the paths of folders below manifests relative to dir: kustomize accepts no absolute path.
func relative(dir string, folders []string) (paths []string, err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	manifests, err := filepath.EvalSymlinks(filepath.Join(testbed.Root(), "manifests"))
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		path, err := filepath.Rel(dir, filepath.Join(manifests, folder))
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
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
				all = append(all, Variant{folder, slices.Clone(components)})
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
