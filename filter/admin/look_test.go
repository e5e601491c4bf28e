package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAdminIsAskedForTheWantedClustersAlone(t *testing.T) {
	for _, test := range []struct {
		name            string
		wanted          wanted
		matches, others []string
	}{
		{"one", wanted{"a": true}, []string{"a"}, []string{"", "b", "aa", "a\n"}},
		{"some", wanted{"b": true, "a": false}, []string{"a", "b"}, []string{"ab", "a|b", "c"}},
		{"names that a regular expression or a URL reads otherwise", wanted{"a.b|c": true, "x+y z&w=%41#?": true, "^[k8s]$(é)\\": true},
			[]string{"a.b|c", "x+y z&w=%41#?", "^[k8s]$(é)\\"}, []string{"axb|c", "a.b", "c", "x+y z", "k"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := clustersPath(test.wanted)
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
					t.Errorf("%s leaves out %q", filter, name)
				}
			}
			for _, name := range test.others {
				if filter.MatchString(name) {
					t.Errorf("%s asks for %q", filter, name)
				}
			}
		})
	}
	t.Run("too many for a path", func(t *testing.T) {
		if got := clustersPath(wanted{strings.Repeat("a", maxPath): true}); got != "/clusters?format=json" {
			t.Errorf("got %.80s", got)
		}
	})
}

// transport answers without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestLookThatTakesTooLongEnds(t *testing.T) {
	for name, slow := range map[string]transport{
		"no answer": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		},
		"an answer that never ends": func(r *http.Request) (*http.Response, error) {
			body, w := io.Pipe()
			go func() {
				<-r.Context().Done()
				w.CloseWithError(context.Cause(r.Context()))
			}()
			go io.WriteString(w, `{"x": [`)
			return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				seen, err := look(t.Context(), &http.Client{Transport: slow}, wanted{"a": true})
				if seen != nil || err == nil || !strings.HasPrefix(err.Error(), "/server_info: ") || !strings.HasSuffix(err.Error(), "it took longer than 15s") {
					t.Errorf("got %v, %v", seen, err)
				}
				if took := time.Since(began); took != maxTime {
					t.Errorf("it ended after %v", took)
				}
			})
		})
	}
}

func TestPanicOnTheWayIsAnError(t *testing.T) {
	seen, err := look(t.Context(), &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
		panic(errors.New("broken"))
	})}, wanted{"a": true})
	if seen != nil || err == nil || err.Error() != "panic: broken" {
		t.Errorf("got %v, %v", seen, err)
	}
}
