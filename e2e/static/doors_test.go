package static

import (
	"os/exec"
	"strings"
	"testing"
)

// make refuses a variant that is none.
func TestMakeRefusesAnUnknownVariant(t *testing.T) {
	t.Parallel()
	make := exec.CommandContext(t.Context(), "make", "--dry-run", "run", "VARIANT=stock")
	make.Dir = inRoot()
	if out, err := make.CombinedOutput(); err == nil || !strings.Contains(string(out), `VARIANT is plugin or module, and not "stock"`) {
		t.Errorf("%v: %s", err, out)
	}
}

// The variant of make run, by default and by VARIANT.
func TestMakeTakesTheVariantThatItsHelpSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ target, door, want string }{
		{"run", "", "contrib"}, {"run", "VARIANT=module", "stock"},
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
