package main

import (
	"os"
	"strings"
	"testing"
)

func TestAliveNeedsOnlyAnAnswer(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			admin := &fakeAdmin{}
			address, log := admin.serve(t, network)
			if code, stdout, stderr := execute(t.Context(), "", "alive"); code != exitFine || stdout+stderr != "" {
				t.Errorf("it ended with %d and said %q, %q", code, stdout, stderr)
			}
			admin.refuses = "/server_info"
			code, _, stderr := execute(t.Context(), "", "alive")
			if code != exitFailed || !strings.HasPrefix(stderr, "healthgate: alive: admin at "+address) {
				t.Errorf("refused, it ended with %d and said %q", code, stderr)
			}
			if logged, err := os.ReadFile(log); err != nil || string(logged) != stderr {
				t.Errorf("the container's log has %q, %v", logged, err)
			}
		})
	}
}
