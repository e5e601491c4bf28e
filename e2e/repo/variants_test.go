package repo

import (
	"os/exec"
	"strings"
	"testing"
)

// make refuses a variant that is none.
func TestMakeRefusesAnUnknownVariant(t *testing.T) {
	t.Parallel()
	make := exec.CommandContext(t.Context(), "make", "--dry-run", "run", "VARIANT=contrib")
	make.Dir = inRoot()
	if out, err := make.CombinedOutput(); err == nil || !strings.Contains(string(out), `VARIANT is plugin or module, and not "contrib"`) {
		t.Errorf("%v: %s", err, out)
	}
}

// The variant of make run, by default and by VARIANT.
func TestMakeTakesTheVariantThatItsHelpSays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ target, variant, want string }{
		{"run", "", "plugin"}, {"run", "VARIANT=module", "module"},
	} {
		t.Run(test.target+" "+test.variant, func(t *testing.T) {
			t.Parallel()
			make := exec.CommandContext(t.Context(), "make", append([]string{"--dry-run", test.target}, strings.Fields(test.variant)...)...)
			make.Dir = inRoot()
			out, err := make.Output()
			if err != nil || !strings.Contains(string(out), " -variant "+test.want) {
				t.Errorf("%v: it is not run with -variant %s:\n%s", err, test.want, out)
			}
		})
	}
}
