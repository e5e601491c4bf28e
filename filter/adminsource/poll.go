package adminsource

import (
	"context"
	"fmt"
	"io"
	"maps"
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

// pollAdmin asks admin once. If one of the two responses fails, the other is not used either. A panic is an error: on this goroutine it
// would end Envoy.
func pollAdmin(ctx context.Context, admin http.RoundTripper, wanted wanted) (s *snapshot, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s, err = nil, fmt.Errorf("panic: %v", cause)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, maxPollTime, fmt.Errorf("no complete response within %v", maxPollTime))
	defer cancel()
	at := time.Now()
	draining, err := getFromAdmin(ctx, admin, "/server_info", readDraining)
	if err != nil {
		return nil, err
	}
	clusters, err := getFromAdmin(ctx, admin, wanted.path(), wanted.readClusters)
	if err != nil {
		return nil, err
	}
	return &snapshot{at, draining, wanted, clusters}, nil
}

// getFromAdmin sends GET, and reads the body of a response of status 200. It follows no redirect.
func getFromAdmin[T any](ctx context.Context, admin http.RoundTripper, path string, read func(io.Reader) (T, error)) (result T, err error) {
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
		return result, err
	}
	response, err := admin.RoundTrip(request)
	if err != nil {
		return result, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return result, fmt.Errorf("the response has status %.80s", response.Status)
	}
	if result, err = read(response.Body); err != nil {
		return result, fmt.Errorf("can't read the response: %w", err)
	}
	return result, nil
}

// path asks for the wanted clusters only, unless the path would be too long: Envoy's main thread would write the others, and their hosts,
// for nothing. An Envoy that does not know the parameter filter writes all clusters.
func (w wanted) path() string {
	const all = "/clusters?format=json"
	names := slices.Sorted(maps.Keys(w))
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
	var state string // left out if it is LIVE
	err := readObject(response, maxServerInfoValue, func(s stream, field string) error {
		if field != "state" {
			return s.skip()
		}
		return s.Decode(&state)
	})
	if err != nil {
		return false, err
	}
	switch state {
	case "DRAINING":
		return true, nil
	case "", "LIVE", "PRE_INITIALIZING", "INITIALIZING":
		return false, nil
	}
	return false, fmt.Errorf("state %.40q is not LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING", state)
}
