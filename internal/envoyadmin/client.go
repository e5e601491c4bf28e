// Package envoyadmin reads Envoy's admin interface for the command, with Envoy's own types.
package envoyadmin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// DefaultAddress is where admin usually listens.
	DefaultAddress = "127.0.0.1:9901"
	// Timeout is the time limit of one answer, in which Envoy writes some hundred thousand hosts.
	Timeout = 5 * time.Second
	// dumpTimeout is the time limit of a config_dump, which can have hundreds of megabytes.
	dumpTimeout = time.Minute
	maxAnswer   = 1 << 30 // bytes
)

// Client reads one admin interface. It is safe for concurrent use.
type Client struct {
	address string
	http    *http.Client
}

// New returns a client of admin at host:port, unix:///path, or unix://@name. The error says how to write the address.
func New(address string) (*Client, error) {
	network, target := "tcp", address
	if path, unix := strings.CutPrefix(address, "unix://"); unix && (strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@")) {
		network, target = "unix", path
	} else if err := checkHostPort(address); err != nil {
		return nil, fmt.Errorf("--admin: %q is neither host:port, as in %s, nor unix:///path: %w", address, DefaultAddress, err)
	}
	dialer := &net.Dialer{}
	return &Client{address: address, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, target)
			},
			DisableKeepAlives: true, // so that a drain does not wait for this connection
		},
		// Admin does not redirect, and another server is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// checkHostPort returns an error that says how to write an address that is not host:port.
func checkHostPort(address string) error {
	rest, isURL := strings.CutPrefix(strings.TrimPrefix(address, "https://"), "http://")
	if isURL = isURL || rest != address; isURL {
		rest, _, _ = strings.Cut(rest, "/")
		return fmt.Errorf("write it without http:// and path, %s", rest)
	}
	for _, prefix := range []string{"unix:", "/"} {
		if path, found := strings.CutPrefix(address, prefix); found {
			path = strings.TrimLeft(path, "/")
			if !strings.HasPrefix(path, "@") {
				path = "/" + path
			}
			return fmt.Errorf("write a socket's absolute path after unix://, as in unix://%s", path)
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "address "+address+": "))
	}
	if number, path, hasPath := strings.Cut(port, "/"); hasPath {
		return fmt.Errorf("write it without the path /%s, %s", path, net.JoinHostPort(host, number))
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	return nil
}

// Address returns the address of admin.
func (c *Client) Address() string { return c.address }

// Post sends a POST to admin. An answer other than 200 is an error.
func (c *Client) Post(ctx context.Context, path string) error {
	return c.do(ctx, Timeout, http.MethodPost, path, func(io.Reader) error { return nil })
}

// do sends a request, and calls read with the body of the answer.
func (c *Client) do(ctx context.Context, timeout time.Duration, method, path string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return err
	}
	reply, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("admin at %s: %w", c.address, c.unanswered(err, timeout))
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		err := fmt.Errorf("admin at %s: %s is answered with %s", c.address, request.URL.Path, reply.Status)
		if strings.HasPrefix(path, "/server_info") && reply.StatusCode < http.StatusInternalServerError {
			err = fmt.Errorf("%w, so this is not Envoy's admin interface; %s", err, elsewhere)
		}
		return err
	}
	if err := read(io.LimitReader(reply.Body, maxAnswer)); err != nil {
		return fmt.Errorf("admin at %s: the answer to %s can't be read: %w", c.address, request.URL.Path, c.unanswered(err, timeout))
	}
	return nil
}

// elsewhere is the next step if admin does not answer at an address.
const elsewhere = "set --admin or ADMIN_ADDRESS to the address of admin"

// unanswered describes why a request got no answer, or not all of it.
func (c *Client) unanswered(err error, timeout time.Duration) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err // without the URL
	}
	dialed := (*net.OpError)(nil)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v: Envoy's main thread hangs, or the connection is blocked", timeout)
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &dialed) && dialed.Op == "dial":
		return fmt.Errorf("%w; %s", dialed.Err, elsewhere)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the connection was closed without an answer: this is not Envoy's admin interface, or Envoy is at its "+
			"connection limit (admin.ignore_global_conn_limit); %s", elsewhere)
	case strings.Contains(err.Error(), "malformed HTTP"):
		return fmt.Errorf("the server does not speak HTTP/1.1 without TLS, so it is not Envoy's admin interface; %s", elsewhere)
	}
	return err
}

// message reads an answer in JSON. It ignores the fields of a later Envoy.
func (c *Client) message(ctx context.Context, path string, into proto.Message) error {
	return c.do(ctx, Timeout, http.MethodGet, path, func(answer io.Reader) error {
		text, err := io.ReadAll(answer)
		if err != nil {
			return err
		}
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, into)
	})
}

// ServerInfo returns the version and state of this Envoy. It is an error if another server answers.
func (c *Client) ServerInfo(ctx context.Context) (*adminv3.ServerInfo, error) {
	var text []byte
	err := c.do(ctx, Timeout, http.MethodGet, "/server_info", func(answer io.Reader) (err error) {
		text, err = io.ReadAll(answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	info := &adminv3.ServerInfo{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, info); err != nil || info.GetVersion() == "" {
		return nil, fmt.Errorf("admin at %s: the answer to /server_info has no version of Envoy, so this is not Envoy's admin interface; %s",
			c.address, elsewhere)
	}
	return info, nil
}

// Clusters returns the named clusters with their hosts, or all. An Envoy that does not know the filter returns all.
func (c *Client) Clusters(ctx context.Context, names ...string) (*adminv3.Clusters, error) {
	path := "/clusters?format=json"
	if len(names) > 0 {
		quoted := make([]string, len(names))
		for i, name := range names {
			quoted[i] = regexp.QuoteMeta(name)
		}
		path += "&filter=" + escape("^("+strings.Join(quoted, "|")+")$")
	}
	clusters := &adminv3.Clusters{}
	return clusters, c.message(ctx, path, clusters)
}

// escape returns a text as a query value. Envoy does not read + as a space.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// Listeners returns the addresses of the listeners.
func (c *Client) Listeners(ctx context.Context) (*adminv3.Listeners, error) {
	listeners := &adminv3.Listeners{}
	return listeners, c.message(ctx, "/listeners?format=json", listeners)
}

// Stats returns the counters and gauges whose names match a regular expression (RE2).
func (c *Client) Stats(ctx context.Context, pattern string) (map[string]uint64, error) {
	stats := map[string]uint64{}
	return stats, c.do(ctx, Timeout, http.MethodGet, "/stats?filter="+escape(pattern), func(answer io.Reader) error {
		lines := bufio.NewScanner(answer)
		for lines.Scan() {
			at := strings.LastIndex(lines.Text(), ": ")
			if at < 0 {
				continue
			}
			if value, err := strconv.ParseUint(lines.Text()[at+2:], 10, 64); err == nil {
				stats[lines.Text()[:at]] = value
			}
		}
		return lines.Err()
	})
}

// ConfigDump returns Envoy's configuration in JSON.
func (c *Client) ConfigDump(ctx context.Context) (dump []byte, err error) {
	return dump, c.do(ctx, dumpTimeout, http.MethodGet, "/config_dump", func(answer io.Reader) (err error) {
		dump, err = io.ReadAll(answer)
		return err
	})
}
