package adminsource

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// got reads all of a body.
func got(c *client, path string) (string, error) {
	var text string
	err := c.get(context.Background(), path, func(body io.Reader) error {
		all, err := io.ReadAll(body)
		text = string(all)
		return err
	})
	return text, err
}

func TestAnswersAreReadHoweverTheyAreFramed(t *testing.T) {
	for name, test := range map[string]struct {
		answer, body, err string
		keeps             bool
	}{
		"a length":                 {answer: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", body: "abc", keeps: true},
		"no body":                  {answer: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", keeps: true},
		"chunks":                   {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", body: "abc0123456789", keeps: true},
		"chunks and trailers":      {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n", body: "a", keeps: true},
		"no reason":                {answer: "HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", body: "a", keeps: true},
		"a connection that closes": {answer: "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\na", body: "a"},
		"neither":                  {answer: "HTTP/1.1 200 OK\r\n\r\nabc", body: "abc"},
		"HTTP/1.0":                 {answer: "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", body: "a"},
		"another status":           {answer: "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", err: "it answered with 404 Not Found"},
		"a redirect":               {answer: "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n", err: "it answered with 302 Found"},
		"a body cut off":           {answer: "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", err: "its answer can't be read: unexpected EOF"},
		"a chunk cut off":          {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc", err: "its answer can't be read: unexpected EOF"},
		"no last chunk":            {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", err: "its answer can't be read: unexpected EOF"},
		"a chunk of no length":     {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", err: `its answer can't be read: "x" is no chunk's length`},
		"a chunk of less":          {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", err: `its answer can't be read: "-1" is no chunk's length`},
		"a chunk without an end":   {answer: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n", err: "its answer can't be read: a chunk has no end"},
		"a length below 0":         {answer: "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n", err: `its length is "-3"`},
		"another protocol":         {answer: "SSH-2.0-OpenSSH_9.2\r\n", err: `"SSH-2.0-OpenSSH_9.2" is not HTTP/1.1`},
		"nothing":                  {err: "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			c := speaking(func(conn net.Conn) {
				asked(conn)
				for i := range len(test.answer) { // a byte at a time
					io.WriteString(conn, test.answer[i:i+1])
				}
				conn.Close()
			})
			body, err := got(c, "/")
			if test.err == "" && (err != nil || body != test.body) || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("got %q, %v", body, err)
			}
			if (c.conn != nil) != test.keeps {
				t.Errorf("the connection is kept: %v", c.conn != nil)
			}
		})
	}
}

func TestConnectionIsKeptAndMadeAnewOnceAdminHasClosedIt(t *testing.T) {
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
	c := target{"tcp", server.Listener.Addr().String()}.client()
	defer c.close()
	for i := range 6 {
		body, err := got(c, "/a?b=c")
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
	// What was not read to its end is not read on by the next.
	if err := c.get(t.Context(), "/", func(io.Reader) error { return errors.New("enough") }); err == nil || c.conn != nil {
		t.Errorf("the connection is kept after %v", err)
	}
}

func TestQuestionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := speaking(func(conn net.Conn) { asked(conn); cancel(errors.New("enough")) })
	done := make(chan error)
	go func() { done <- c.get(ctx, "/", func(io.Reader) error { return nil }) }()
	select {
	case err := <-done:
		if err == nil || err.Error() != "enough" {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits on")
	}
}

// Whatever comes, a body is read as net/http reads it, or is an error there too.
func FuzzAnswer(f *testing.F) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nabc", "HTTP/1.1 404 no\r\n\r\n", "", "\r\n",
	} {
		f.Add([]byte(answer))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := speaking(func(conn net.Conn) { asked(conn); conn.Write(answer); conn.Close() })
		body, err := got(c, "/")
		c.close()
		if err != nil {
			return
		}
		reply, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil {
			return // net/http is stricter about headers
		}
		defer reply.Body.Close()
		if want, err := io.ReadAll(reply.Body); err == nil && string(want) != body {
			t.Errorf("%q: got %q, want %q", answer, body, want)
		}
	})
}
