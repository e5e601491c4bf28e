// Package envoyadmin reads Envoy's admin interface for the command, with Envoy's own types.
package envoyadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
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
		return nil, fmt.Errorf("%q is neither host:port, as in %s, nor unix:///path: %w", address, DefaultAddress, err)
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
	if scheme, rest, found := strings.Cut(address, "://"); found && (scheme == "http" || scheme == "https") {
		hostPort, _, _ := strings.Cut(rest, "/")
		return fmt.Errorf("write it without http:// and path, %s", hostPort)
	}
	if path, found := strings.CutPrefix(address, "unix:"); found || strings.HasPrefix(address, "/") {
		path = strings.TrimLeft(path, "/")
		if !strings.HasPrefix(path, "@") {
			path = "/" + path
		}
		return fmt.Errorf("write a socket's absolute path after unix://, as in unix://%s", path)
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
	_, err := c.ask(ctx, Timeout, http.MethodPost, path)
	return err
}

// ask sends a request, and returns the body of the answer.
func (c *Client) ask(ctx context.Context, timeout time.Duration, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	reply, err := c.http.Do(request)
	if err != nil {
		return nil, c.errorf("%w", unanswered(err, timeout))
	}
	defer reply.Body.Close()
	switch {
	case reply.StatusCode == http.StatusOK:
	case path == serverInfo && reply.StatusCode < http.StatusInternalServerError:
		return nil, c.errorf("%s is answered with %s"+notAdmin, path, reply.Status)
	default:
		return nil, c.errorf("%s is answered with %s", request.URL.Path, reply.Status)
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxAnswer))
	if err != nil {
		return nil, c.errorf(unread, request.URL.Path, unanswered(err, timeout))
	}
	return body, nil
}

func (c *Client) errorf(format string, args ...any) error {
	return fmt.Errorf("admin at %s: %w", c.address, fmt.Errorf(format, args...))
}

const (
	serverInfo = "/server_info"
	unread     = "the answer to %s can't be read: %w"
	notAdmin   = ", so this is not Envoy's admin interface; " + elsewhere
	// elsewhere is the next step if admin does not answer at an address.
	elsewhere = "set --admin or ADMIN_ADDRESS to the address of admin"
)

// sentUnasked is in net/http's error if a server sends something before net/http has sent the request.
const sentUnasked = "readLoopPeekFailLocked"

// unanswered describes why a request got no answer, or not all of it.
func unanswered(err error, timeout time.Duration) error {
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
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), sentUnasked):
		return fmt.Errorf("the server does not speak HTTP/1.1 without TLS, so it is not Envoy's admin interface; %s", elsewhere)
	}
	return err
}

// inJSON ignores the fields of a later Envoy.
var inJSON = protojson.UnmarshalOptions{DiscardUnknown: true}

// message reads an answer in JSON.
func (c *Client) message(ctx context.Context, path, query string, into proto.Message) error {
	text, err := c.ask(ctx, Timeout, http.MethodGet, path+"?format=json"+query)
	if err != nil {
		return err
	}
	if err := inJSON.Unmarshal(text, into); err != nil {
		return c.errorf(unread, path, err)
	}
	return nil
}

// ServerInfo returns the version and state of this Envoy. It is an error if another server answers.
func (c *Client) ServerInfo(ctx context.Context) (*adminv3.ServerInfo, error) {
	text, err := c.ask(ctx, Timeout, http.MethodGet, serverInfo)
	if err != nil {
		return nil, err
	}
	info := &adminv3.ServerInfo{}
	if err := inJSON.Unmarshal(text, info); err != nil || info.GetVersion() == "" {
		return nil, c.errorf("the answer to %s has no version of Envoy"+notAdmin, serverInfo)
	}
	return info, nil
}

// Clusters returns the named clusters with their hosts, or all, by name. An Envoy that does not know the filter returns all.
func (c *Client) Clusters(ctx context.Context, names ...string) (map[string]*adminv3.ClusterStatus, error) {
	filter := ""
	if len(names) > 0 {
		filter = "&filter=" + escapeQuery("^("+Alternatives(names)+")$")
	}
	clusters := &adminv3.Clusters{}
	err := c.message(ctx, "/clusters", filter, clusters)
	byName := map[string]*adminv3.ClusterStatus{}
	for _, cluster := range clusters.GetClusterStatuses() {
		byName[cluster.GetName()] = cluster
	}
	return byName, err
}

// Alternatives returns a regular expression that matches each of some names, for Clusters and Stats.
func Alternatives(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	slices.Sort(quoted)
	return strings.Join(slices.Compact(quoted), "|")
}

// escapeQuery returns a text as a query value. Envoy does not read + as a space.
func escapeQuery(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// Listeners returns the addresses of the listeners, by name.
func (c *Client) Listeners(ctx context.Context) (map[string]string, error) {
	listeners := &adminv3.Listeners{}
	err := c.message(ctx, "/listeners", "", listeners)
	addresses := map[string]string{}
	for _, listener := range listeners.GetListenerStatuses() {
		addresses[listener.GetName()] = Endpoint(listener.GetLocalAddress())
	}
	return addresses, err
}

// Stats returns the counters and gauges whose names match a regular expression (RE2).
func (c *Client) Stats(ctx context.Context, pattern string) (map[string]uint64, error) {
	text, err := c.ask(ctx, Timeout, http.MethodGet, "/stats?filter="+escapeQuery(pattern))
	stats := map[string]uint64{}
	for _, line := range stat.FindAllSubmatch(text, -1) {
		if value, err := strconv.ParseUint(string(line[2]), 10, 64); err == nil {
			stats[string(line[1])] = value
		}
	}
	return stats, err
}

var stat = regexp.MustCompile(`(?m)^(.*): (\d+)$`)

// Requests returns the sum of a stat over all connection managers but admin's, and whether any has it.
func Requests(stats map[string]uint64, stat string) (sum uint64, known bool) {
	for name, value := range stats {
		if strings.HasPrefix(name, "http.") && !strings.HasPrefix(name, "http.admin.") && strings.HasSuffix(name, "."+stat) {
			sum, known = sum+value, true
		}
	}
	return sum, known
}

// ConfigDump returns Envoy's configuration in JSON.
func (c *Client) ConfigDump(ctx context.Context) ([]byte, error) {
	return c.ask(ctx, dumpTimeout, http.MethodGet, "/config_dump")
}

// Wait waits between two polls, and reports whether the whole time has passed.
func Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
