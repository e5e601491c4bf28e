package adminsource

import (
	"errors"
	"strings"
	"testing"
)

func TestDrainingIsWhatServerInfoSays(t *testing.T) {
	for _, test := range []struct {
		name, text string
		draining   bool
		err        string // in the error
	}{
		{"draining", `{"version": "1", "state": "DRAINING", "node": {"state": "LIVE"}}`, true, ""},
		{"live", `{"state": "LIVE"}`, false, ""},
		{"live, left out", `{"version": "1", "command_line_options": {"state": "DRAINING"}}`, false, ""},
		{"live, null", `{"state": null}`, false, ""},
		{"before its first clusters", `{"state": "PRE_INITIALIZING"}`, false, ""},
		{"before its first routes", `{"state": "INITIALIZING"}`, false, ""},
		{"repeated", `{"state": "LIVE", "state": "DRAINING"}`, true, ""},
		{"a state of a later Envoy", `{"state": "ASLEEP"}`, false, `"ASLEEP" is not one of`},
		{"a number", `{"state": 1}`, false, "in the place of a string"},
		{"text", `LIVE`, false, "invalid character"},
		{"a list", `[]`, false, `in the place of {`},
		{"cut short", `{"state": "DRAINING"`, false, "unexpected EOF"},
		{"cut short behind it", `{"state": "LIVE", "node": {`, false, "unexpected EOF"},
		{"something behind", `{"state": "LIVE"} 1`, false, "in the place of its end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			draining, err := readDraining(strings.NewReader(test.text))
			if draining != test.draining {
				t.Errorf("got %v", draining)
			}
			if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
	t.Run("without end", func(t *testing.T) {
		answer := &answerOf{before: `{"state": "`, bit: "LIVE", bits: 1 << 30}
		if _, err := readDraining(answer); !errors.Is(err, errTooLong) || answer.given > 2*maxValue {
			t.Errorf("got %v after %d bytes", err, answer.given)
		}
	})
}
