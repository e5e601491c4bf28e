package testbed

import (
	"strings"
	"testing"
)

// Without python3 no thread can be stopped; the tests that need it are skipped with the reason.
func TestHangMainThreadReportsWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := dynamicModule{}.Can(HangMainThread)
	if err == nil || !strings.Contains(err.Error(), "a main thread that hangs: the dynamic module cannot: it needs python3") {
		t.Errorf("without python3: got %v", err)
	}
}
