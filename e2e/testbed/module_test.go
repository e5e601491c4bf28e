package testbed

import (
	"strings"
	"testing"
)

// Where a thread can't be stopped, the tests that need it are skipped, and say why.
func TestHangingSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := dynamicModule{}.Can(Hanging)
	if err == nil || !strings.Contains(err.Error(), "a main thread that hangs: the dynamic module cannot: python3 stops the thread, and is not there") {
		t.Errorf("without python3: got %v", err)
	}
}
