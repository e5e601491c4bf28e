package main

import (
	"os"
	"strings"
	"testing"
)

// A change of the overlay needs a new egctl.json, which the suite starts in Envoy: make e2e-envoy-gateway UPDATE=1.
func TestCommittedOutputIsOfThisOverlay(t *testing.T) {
	sum, err := overlaySum()
	if err != nil {
		t.Fatal(err)
	}
	was, err := os.ReadFile(committed("overlay.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(was)) != sum {
		t.Errorf("%s is of another overlay: make e2e-envoy-gateway UPDATE=1", committed("egctl.json"))
	}
}

// The variants of the overlay that are run differ from it, and leave it as it is.
func TestVariantsLeaveTheOverlayAsItIs(t *testing.T) {
	objects, err := renderOverlay()
	if err != nil {
		t.Fatal(err)
	}
	host := objects.forHost("1.39.1", "/build/libhealthgate.so", "127.0.0.1:1", "127.0.0.1:2")
	before := host.yaml()
	for name, changed := range map[string]overlay{
		"translated":     objects.forTranslation(),
		"a first rule":   host.withFirstRule("127.0.0.1:3"),
		"a key":          host.misspelt(),
		"without a kind": host.without("Backend"),
	} {
		if got := changed.yaml(); got == before {
			t.Errorf("%s: nothing is changed", name)
		}
		if host.yaml() != before {
			t.Fatalf("%s has changed the overlay", name)
		}
	}
}
