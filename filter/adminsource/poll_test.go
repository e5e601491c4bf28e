package adminsource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestClustersPathAsksForTheWantedClustersOnly(t *testing.T) {
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
		if got := clustersPath(wanted{strings.Repeat("a", maxPath): true}); got != "/clusters?format=json" {
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
		{"before its first clusters", `{"state": "PRE_INITIALIZING"}`, false, ""},
		{"before its first routes", `{"state": "INITIALIZING"}`, false, ""},
		{"repeated", `{"state": "LIVE", "state": "DRAINING"}`, true, ""},
		{"repeated, null", `{"state": "DRAINING", "state": null}`, false, ""},
		{"an unknown field in capitals", `{"state": "LIVE", "STATE": "DRAINING"}`, false, ""},
		{"an unknown field with a capital", `{"state": "DRAINING", "State": {}}`, true, ""},
		{"an unknown state", `{"state": "ASLEEP"}`, false, `"ASLEEP" is not LIVE`},
		{"a number", `{"state": 1}`, false, "cannot unmarshal number"},
		{"text", `LIVE`, false, "invalid character"},
		{"a list", `[]`, false, "cannot unmarshal array"},
		{"null", `null`, false, `"null" instead of an object`},
		{"cut short", `{"state": "DRAINING"`, false, "unexpected end"},
		{"cut short behind it", `{"state": "LIVE", "node": {`, false, "unexpected end"},
		{"something behind", `{"state": "LIVE"} 1`, false, "after top-level value"},
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
		response := &longResponse{before: `{"state": "`, part: "LIVE", parts: 1 << 30}
		if _, err := readDraining(response); err == nil || response.given > 2*maxServerInfo {
			t.Errorf("got %v after %d bytes", err, response.given)
		}
	})
}

// scripted returns a client whose connections serve handles.
func scripted(serve func(net.Conn)) *http.Client {
	return newClient(func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go serve(theirs)
		return ours, nil
	})
}

func readRequest(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }

func readAll(client *http.Client) (text string, err error) {
	err = get(context.Background(), client, "/a?b=c", func(body io.Reader) error {
		all, err := io.ReadAll(body)
		text = string(all)
		return err
	})
	return text, err
}

func TestGetRefusesIncompleteAndOtherResponses(t *testing.T) {
	for name, test := range map[string]struct{ response, body, err string }{
		"complete":       {response: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", body: "abc"},
		"in chunks":      {response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", body: "abc"},
		"another status": {response: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", err: "/a: the response has status 404 Not Found"},
		"a redirect": {response: "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n",
			err: "/a: the response has status 302 Found"},
		"a body cut off": {response: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", err: "/a: can't read the response: unexpected EOF"},
		"a chunk cut off": {response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
			err: "/a: can't read the response: unexpected EOF"},
		"no last chunk": {response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
			err: "/a: can't read the response: unexpected EOF"},
		"another protocol": {response: "SSH-2.0-OpenSSH_9.2\r\n", err: "/a: net/http: HTTP/1.x transport connection broken: malformed HTTP"},
		"nothing":          {err: "/a: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			client := scripted(func(c net.Conn) {
				readRequest(c)
				io.WriteString(c, test.response)
				c.Close()
			})
			body, err := readAll(client)
			if test.err == "" && (err != nil || body != test.body) || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
}

func TestConnectionIsReusedAndReplacedOnceAdminHasClosedIt(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Host, r.URL, strings.Repeat(".", 100_000)) // in chunks
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	client := newClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	defer client.CloseIdleConnections()
	for i := range 6 {
		body, err := readAll(client)
		if err != nil || !strings.HasPrefix(body, "admin/a?b=c...") || len(body) != 100_011 {
			t.Fatalf("got %d bytes, %.20q, %v", len(body), body, err)
		}
		if want := int64(1 + i/3); connections.Load() != want {
			t.Errorf("%d connections, want %d", connections.Load(), want)
		}
		if i == 2 {
			server.CloseClientConnections()
		}
	}
}

func TestPollThatTakesTooLongEnds(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"no response": readRequest,
		"a response without end": func(c net.Conn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"x\": [")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				s, err := poll(t.Context(), scripted(serve), wanted{"a": true})
				if s != nil || err == nil || err.Error() != "/server_info: no complete response within 15s" {
					t.Errorf("got %v, %v", s, err)
				}
				if took := time.Since(began); took != maxPollTime {
					t.Errorf("it ended after %v", took)
				}
			})
		})
	}
}

type panicking struct{}

func (panicking) RoundTrip(*http.Request) (*http.Response, error) { panic(errors.New("broken")) }

func TestPanicOfAPollIsAnError(t *testing.T) {
	s, err := poll(t.Context(), &http.Client{Transport: panicking{}}, wanted{"a": true})
	if s != nil || err == nil || err.Error() != "panic: broken" {
		t.Errorf("got %v, %v", s, err)
	}
}
