package adminsource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// client asks admin by HTTP/1.1, one question at a time over one connection. It follows no redirect: admin gives none. It is not
// net/http, which with its TLS and HTTP/2 would be a third of what is loaded into Envoy.
type client struct {
	dial func(ctx context.Context) (net.Conn, error)
	conn *conn // the one that is open, nil where there is none
}

type conn struct {
	net.Conn
	reader *textproto.Reader
}

// close ends the connection that is open.
func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// get asks for a path, and has read read the body of the answer, which is one of status 200. The connection is kept where all of
// the answer was read.
func (c *client) get(ctx context.Context, path string, read func(body io.Reader) error) (err error) {
	defer func() {
		if err == nil {
			return
		}
		c.close()
		if ctx.Err() != nil { // then that is why
			err = context.Cause(ctx)
		}
	}()
	body, err := c.ask(ctx, path)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, c.conn.interrupt)()
	if err := read(body); err != nil {
		return fmt.Errorf("its answer can't be read: %w", err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil || !body.keeps {
		c.close()
	}
	return nil
}

// interrupt ends whatever waits for the connection.
func (c *conn) interrupt() { c.SetDeadline(time.Unix(1, 0)) }

// ask sends the question, and reads the answer up to its body. Admin may have closed a connection that was kept: then there is
// one more.
func (c *client) ask(ctx context.Context, path string) (*body, error) {
	kept := c.conn != nil
	answer, err := c.askOnce(ctx, path)
	if err != nil && kept && ctx.Err() == nil && !errors.As(err, new(refusal)) {
		c.close()
		answer, err = c.askOnce(ctx, path)
	}
	return answer, err
}

func (c *client) askOnce(ctx context.Context, path string) (*body, error) {
	if c.conn == nil {
		dialled, err := c.dial(ctx)
		if err != nil {
			return nil, err
		}
		c.conn = &conn{dialled, textproto.NewReader(bufio.NewReader(dialled))}
	}
	defer context.AfterFunc(ctx, c.conn.interrupt)()
	if _, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nhost: admin\r\n\r\n"); err != nil {
		return nil, err
	}
	return c.conn.answer()
}

// refusal is an answer of another status than 200.
type refusal string

func (r refusal) Error() string { return "it answered with " + string(r) }

// answer reads the head of an answer.
func (c *conn) answer() (*body, error) {
	line, err := c.reader.ReadLine()
	if err != nil {
		return nil, err
	}
	version, status, _ := strings.Cut(line, " ")
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return nil, fmt.Errorf("%.40q is not HTTP/1.1", line)
	}
	if status != "200" && !strings.HasPrefix(status, "200 ") {
		return nil, refusal(fmt.Sprintf("%.80s", status))
	}
	header, err := c.reader.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	keeps := version == "HTTP/1.1" && !strings.EqualFold(header.Get("Connection"), "close")
	if strings.EqualFold(header.Get("Transfer-Encoding"), "chunked") {
		return &body{&chunks{from: c.reader}, keeps}, nil
	}
	if given := header.Get("Content-Length"); given != "" {
		length, err := strconv.ParseInt(given, 10, 64)
		if err != nil || length < 0 {
			return nil, fmt.Errorf("its length is %.40q", given)
		}
		return &body{&whole{c.reader.R, length}, keeps}, nil
	}
	return &body{c.reader.R, false}, nil // it ends with the connection
}

// body is that of an answer.
type body struct {
	io.Reader
	keeps bool // the connection, for one more question
}

// whole reads a body whose length is known. One that is cut off is an error.
type whole struct {
	from io.Reader
	left int64
}

func (w *whole) Read(into []byte) (int, error) {
	if w.left == 0 {
		return 0, io.EOF
	}
	n, err := w.from.Read(into[:min(int64(len(into)), w.left)])
	w.left -= int64(n)
	if err == io.EOF && w.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunks reads a body in chunks, by RFC 9112, section 7.1.
type chunks struct {
	from  *textproto.Reader
	left  int64 // of the chunk
	begun bool  // there was a chunk, whose end has to be read
	ended bool
}

func (c *chunks) Read(into []byte) (int, error) {
	if c.left == 0 && !c.ended {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if c.ended {
		return 0, io.EOF
	}
	n, err := c.from.R.Read(into[:min(int64(len(into)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next comes to the next chunk, or to the end.
func (c *chunks) next() error {
	if c.begun {
		if line, err := c.from.ReadLine(); err != nil || line != "" {
			return errors.Join(errors.New("a chunk has no end"), err)
		}
	}
	line, err := c.from.ReadLine()
	if err != nil {
		return noEnd(err)
	}
	size, _, _ := strings.Cut(line, ";")
	length, err := strconv.ParseUint(strings.TrimSpace(size), 16, 62)
	if err != nil {
		return fmt.Errorf("%.40q is no chunk's length", size)
	}
	c.begun, c.left = true, int64(length)
	if c.left > 0 {
		return nil
	}
	c.ended = true
	for { // what may follow the last chunk
		if line, err := c.from.ReadLine(); err != nil || line == "" {
			return noEnd(err)
		}
	}
}

// noEnd is an end where there should be more.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
