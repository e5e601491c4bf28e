package adminsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// maxPollTime limits a poll, from its first request to the end of its last response. It is enough for Envoy's main thread to write some
	// hundred thousand hosts. A response that took longer than stale_after is stale when it arrives.
	maxPollTime = 15 * time.Second
	// maxServerInfo bounds the response to /server_info, in bytes. The response has Envoy's command line, and with --config-yaml a whole
	// configuration in it.
	maxServerInfo = 4 << 20
	// maxPath bounds the path of a request, in bytes. Envoy refuses requests whose headers have more than 60 KiB.
	maxPath = 16 << 10
)

// snapshot is the result of a poll.
type snapshot struct {
	at       time.Time // when the poll started
	draining bool      // Envoy fails its health checks
	wanted   wanted
	clusters map[string]*cluster // the wanted ones that Envoy has
}

// newClient returns a client that connects only to one address, and follows no redirect.
func newClient(dial func(ctx context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// poll asks admin once. If one of the two responses fails, the other is not used either. A panic is an error: on this goroutine it
// would end Envoy.
func poll(ctx context.Context, client *http.Client, wanted wanted) (s *snapshot, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s, err = nil, fmt.Errorf("panic: %v", cause)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, maxPollTime, fmt.Errorf("no complete response within %v", maxPollTime))
	defer cancel()
	s = &snapshot{at: time.Now(), wanted: wanted}
	err = get(ctx, client, "/server_info", func(response io.Reader) (err error) {
		s.draining, err = readDraining(response)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = get(ctx, client, clustersPath(wanted), func(response io.Reader) (err error) {
		s.clusters, err = readClusters(response, wanted)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// get calls read with the body of a response of status 200.
func get(ctx context.Context, client *http.Client, path string, read func(response io.Reader) error) (err error) {
	defer func() {
		if err != nil && ctx.Err() != nil { // the cause says more, for example that the poll took too long
			err = context.Cause(ctx)
		}
		if err != nil {
			name, _, _ := strings.Cut(path, "?") // the query can be long
			err = fmt.Errorf("%s: %w", name, err)
		}
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return errors.Unwrap(err) // of a url.Error, which repeats the path
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the response has status %.80s", response.Status)
	}
	if err := read(response.Body); err != nil {
		return fmt.Errorf("can't read the response: %w", err)
	}
	return nil
}

// clustersPath asks for the wanted clusters only, unless the path would be too long: Envoy's main thread would write the others, and
// their hosts, for nothing. An Envoy that does not know the parameter filter writes all clusters.
func clustersPath(wanted wanted) string {
	const all = "/clusters?format=json"
	names := slices.Sorted(maps.Keys(wanted))
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name) // RE2's syntax, as in Envoy
	}
	filter := url.QueryEscape("^(" + strings.Join(names, "|") + ")$")
	path := all + "&filter=" + strings.ReplaceAll(filter, "+", "%20") // Envoy does not decode +
	if len(path) > maxPath {
		return all
	}
	return path
}

// readDraining reads an envoy.admin.v3.ServerInfo, and reports whether Envoy fails its health checks: after /healthcheck/fail, or because
// Envoy was started in drain mode. An unknown state is an error.
func readDraining(response io.Reader) (bool, error) {
	body, err := io.ReadAll(io.LimitReader(response, maxServerInfo+1))
	switch {
	case err != nil:
		return false, err
	case len(body) > maxServerInfo:
		return false, fmt.Errorf("the response has more than %d bytes", maxServerInfo)
	}
	// Not a struct: encoding/json would also accept STATE as state.
	var fields map[string]json.RawMessage
	state := "" // left out if it is LIVE
	err = json.Unmarshal(body, &fields)
	switch {
	case err != nil:
		return false, err
	case fields == nil:
		return false, unexpected(nil, "an object")
	case fields["state"] != nil:
		if err := json.Unmarshal(fields["state"], &state); err != nil {
			return false, fmt.Errorf("state: %w", err)
		}
	}
	switch state {
	case "DRAINING":
		return true, nil
	case "", "LIVE", "PRE_INITIALIZING", "INITIALIZING":
		return false, nil
	}
	return false, fmt.Errorf("state %.40q is not LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING", state)
}
