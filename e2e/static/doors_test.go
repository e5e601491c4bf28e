package static

import (
	"os/exec"
	"strings"
	"testing"
)

// The variant that make run takes by itself, and by its variable.
func TestMakeTakesTheDoorThatItsHelpSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ target, door, want string }{
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
