package main

import (
	"healthgate/e2e/door"
	"testing"
	"time"
)

// Everything at once, for as long as a test may take; `make soak` goes on for longer.
func TestSoakShowsNoDisagreementAndNoGrowth(t *testing.T) {
	for _, name := range []string{"contrib", "stock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := door.Named(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := soak(t.Context(), d, uint64(time.Now().UnixNano()), 30*time.Second, 5*time.Second, func(line string) { t.Log(line) }); err != nil {
				t.Error(err)
			}
		})
	}
}
