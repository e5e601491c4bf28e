package adminsource

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
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

// speaking makes a client to an admin that answers a connection by hand, over a pipe.
func speaking(answer func(net.Conn)) *client {
	return &client{dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go answer(theirs)
		return ours, nil
	}}
}

// asked reads a request.
func asked(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }

func TestLookThatTakesTooLongEnds(t *testing.T) {
	for name, slow := range map[string]func(net.Conn){
		"no answer": asked,
		"an answer that never ends": func(c net.Conn) {
			asked(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"x\": [")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				seen, err := look(t.Context(), speaking(slow), wanted{"a": true})
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
	seen, err := look(t.Context(), &client{dial: func(context.Context) (net.Conn, error) {
		panic(errors.New("broken"))
	}}, wanted{"a": true})
	if seen != nil || err == nil || err.Error() != "panic: broken" {
		t.Errorf("got %v, %v", seen, err)
	}
}
