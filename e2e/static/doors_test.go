package static

import (
	"os/exec"
	"strings"
	"testing"
)

// Which way into Envoy make takes, where nobody says one and where somebody does: make diff compares them all.
func TestMakeTakesTheDoorThatItsHelpSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ target, door, want string }{
		{"diff", "", "both"}, {"diff", "DOOR=stock", "stock"},
		{"soak", "", "contrib"}, {"soak", "DOOR=stock", "stock"},
		{"run", "", "contrib"}, {"run", "DOOR=stock", "stock"},
	} {
		t.Run(test.target+" "+test.door, func(t *testing.T) {
			t.Parallel()
			make := exec.CommandContext(t.Context(), "make", append([]string{"--dry-run", test.target}, strings.Fields(test.door)...)...)
			make.Dir = inRoot()
			out, err := make.Output()
			if err != nil || !strings.Contains(string(out), " -door "+test.want) {
				t.Errorf("%v: it is not run with -door %s:\n%s", err, test.want, out)
			}
		})
	}
}
