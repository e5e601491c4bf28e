package adminsource

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestPathAsksForTheWantedClustersOnly(t *testing.T) {
	for _, test := range []struct {
		name            string
		wanted          wanted
		matches, others []string
	}{
		{"one", wanted{"a": true}, []string{"a"}, []string{"", "b", "aa", "a\n"}},
		{"some", wanted{"b": true, "a": false}, []string{"a", "b"}, []string{"ab", "a|b", "c"}},
		{"special characters of regular expressions and URLs", wanted{"a.b|c": true, "x+y z&w=%41#?": true, "^[k8s]$(é)\\": true},
			[]string{"a.b|c", "x+y z&w=%41#?", "^[k8s]$(é)\\"}, []string{"axb|c", "a.b", "c", "x+y z", "k"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := test.wanted.path()
			asked, err := url.Parse("http://admin" + path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(path, "+") || asked.Path != "/clusters" || asked.Query().Get("format") != "json" {
				t.Errorf("got %s", path)
			}
			filter := regexp.MustCompile(asked.Query().Get("filter"))
			for _, name := range test.matches {
				if !filter.MatchString(name) {
					t.Errorf("%s does not match %q", filter, name)
				}
			}
			for _, name := range test.others {
				if filter.MatchString(name) {
					t.Errorf("%s matches %q", filter, name)
				}
			}
		})
	}
	t.Run("too many for a path", func(t *testing.T) {
		if got := (wanted{strings.Repeat("a", maxPath): true}).path(); got != "/clusters?format=json" {
			t.Errorf("got %.80s", got)
		}
	})
}

func TestReadDraining(t *testing.T) {
	for _, test := range []struct {
		name, text string
		draining   bool
		err        string // in the error
	}{
		{"draining", `{"version": "1", "state": "DRAINING", "node": {"state": "LIVE"}}`, true, ""},
		{"live", `{"state": "LIVE"}`, false, ""},
		{"live, left out", `{"version": "1", "command_line_options": {"state": "DRAINING"}}`, false, ""},
		{"live, null", `{"state": null}`, false, ""},
		{"repeated", `{"state": "LIVE", "state": "DRAINING"}`, true, ""},
		{"an unknown field in capitals", `{"state": "LIVE", "STATE": "DRAINING"}`, false, ""},
		{"an unknown field with a capital", `{"state": "DRAINING", "State": {}}`, true, ""},
		{"an unknown state", `{"state": "ASLEEP"}`, false, `"ASLEEP" is not LIVE`},
		{"a number", `{"state": 1}`, false, "cannot unmarshal number"},
		{"text", `LIVE`, false, "invalid character"},
		{"a list", `[]`, false, `found "[" instead of {`},
		{"null", `null`, false, `found "<nil>" instead of {`},
		{"a command line of 2 MiB", `{"command_line_options": {"stats_tag": ["` + strings.Repeat(`\"`, 1<<20) + `"]}, "state": "DRAINING"}`,
			true, ""},
		{"cut short", `{"state": "DRAINING"`, false, "unexpected EOF"},
		{"cut short behind it", `{"state": "LIVE", "node": {`, false, "unexpected EOF"},
		{"something behind", `{"state": "LIVE"} 1`, false, `found "1" instead of the end`},
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
		rest := &endless{text: "LIVE"}
		_, err := readDraining(io.MultiReader(strings.NewReader(`{"state": "`), rest))
		if !errors.Is(err, errTooLong) || rest.given > 2*maxServerInfoValue {
			t.Errorf("got %v after %d bytes", err, rest.given)
		}
	})
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic(errors.New("broken")) }

func TestPanicOfAPollIsAnError(t *testing.T) {
	s, err := pollAdmin(t.Context(), panicking{}, wanted{"a": true})
	if s != nil || err == nil || err.Error() != "panic: broken" {
		t.Errorf("got %v, %v", s, err)
	}
}
