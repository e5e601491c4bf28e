package repo

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"healthgate/e2e/kustomize"
)

// place is "{Kind/name path}" in a text.
var place = regexp.MustCompile(`\{(\w+/\w+) ([^}]+)\}`)

// fill replaces each place in a text by its value, or by "nothing".
func (o objects) fill(text string) string {
	return place.ReplaceAllStringFunc(text, func(text string) string {
		at := place.FindStringSubmatch(text)
		if o[at[1]] == nil {
			return "no object " + at[1]
		}
		value, err := o[at[1]].GetFieldValue(at[2])
		if err != nil {
			return "nothing"
		}
		return fmt.Sprint(value)
	})
}

// Objects refer to each other by the right names and ports, and are what load balancers need. Readiness depends on the gate, and liveness
// does not: Kubernetes would restart Envoy while the backends are down. The page has the timers that the objects have; `healthgate lint`
// checks them against each other.
func TestObjectsAgreeWithEachOtherAndTheirPage(t *testing.T) {
	var tests []struct {
		Folder     string
		Components []string
		Fields     map[string]map[string]string
		Timers     map[string]string
	}
	if err := yaml.UnmarshalStrict([]byte(readFile(t, "testdata/manifests.yaml")), &tests); err != nil {
		t.Fatal(err)
	}
	page := readFile(t, inRoot("manifests", "README.md"))
	for _, test := range tests {
		all := render(t, test.Folder, test.Components...)
		for object, fields := range test.Fields {
			for field, text := range fields {
				if got, want := all.fill("{"+object+" "+field+"}"), all.fill(text); got != want {
					t.Errorf("%s with %v: %s of %s is %q, want %q", test.Folder, test.Components, field, object, got, want)
				}
			}
		}
		for name, text := range test.Timers {
			value := strings.TrimPrefix(all.fill(text), "deregistration_delay.timeout_seconds=")
			if strings.Contains(name, ", Envoy Gateway") {
				value = strings.TrimSuffix(value, "s")
			}
			var interval, threshold, timeout int
			if _, err := fmt.Sscanf(value, "%d × %d + %d", &interval, &threshold, &timeout); err == nil && name != "readiness" {
				value += fmt.Sprintf(" + 10 = %d", interval*threshold+timeout+10) // 10 for the balancer to act
			}
			if _, row, _ := strings.Cut(page, "\n| "+name+" |"); !strings.Contains(strings.SplitN(row, "\n", 2)[0], " "+value+" |") {
				t.Errorf("manifests/README.md has no row for %s with %q", name, value)
			}
		}
	}
}

// Users apply patches.yaml beside the overlay; each of its patches is for the gate's cluster.
func TestPatchesOfEnvoyGatewayAreForTheGatesCluster(t *testing.T) {
	const cluster = "grpcroute/default/service/rule/0" // as Envoy Gateway names it
	text := readFile(t, inRoot("manifests", kustomize.EnvoyGateway, "patches.yaml"))
	if patches := strings.Count(text, "\n  - type: "); patches == 0 || strings.Count(text, "\n    name: "+cluster) != patches {
		t.Errorf("it has %d patches for other clusters, too:\n%s", patches, text)
	}
	var policy any
	if err := yaml.UnmarshalStrict([]byte(text), &policy); err != nil {
		t.Fatal(err)
	}
	if schema, err := schemaOf("EnvoyPatchPolicy"); err != nil || schema.Validate(policy) != nil {
		t.Errorf("%v; it does not fit its CRD: %v", err, schema.Validate(policy))
	}
}
