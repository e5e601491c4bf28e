package config

import (
	"strings"
	"testing"
)

func TestShowIsShort(t *testing.T) {
	for _, test := range []struct{ name, got, want string }{
		{"64 bytes are whole", clipText(strings.Repeat("x", 64)), strings.Repeat("x", 64)},
		{"65 are cut", clipText(strings.Repeat("x", 65)), strings.Repeat("x", 64) + "…"},
		{"not within a letter", clipText(strings.Repeat("x", 63) + "ß"), strings.Repeat("x", 63) + "…"},
		{"two edits are near", Nearest("pahts", []string{"clusters", "path"}), "path"},
		{"three are another word", Nearest("pahtss", []string{"clusters", "path"}), ""},
		{"a short key is not near to any", Nearest("ab", []string{"cd"}), ""},
		{"the nearest is taken", Nearest("dran", []string{"drains", "drain"}), "drain"},
		{"the first of two that are as near", Nearest("a_b_cx", []string{"a_b_cy", "a_b_cz"}), "a_b_cy"},
		{"a key of 64 bytes", Nearest(strings.Repeat("x", 64), []string{strings.Repeat("x", 63)}), strings.Repeat("x", 63)},
		{"a key of 65 bytes", Nearest(strings.Repeat("x", 65), []string{strings.Repeat("x", 64)}), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.got != test.want {
				t.Errorf("got %q, want %q", test.got, test.want)
			}
		})
	}
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"path", "path", 0}, {"paht", "path", 2}, {"pat", "path", 1}, {"xath", "path", 1}, {"kitten",
		"sitting", 3}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("%q and %q: got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
