package adminsource

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// maxTime is from the first request of a look to the end of its last answer: enough for Envoy's main thread to write
	// some hundred thousand hosts. An answer that took longer than stale_after is stale when it comes.
	maxTime = 15 * time.Second
	// maxPath is in bytes. Envoy refuses requests whose headers have more than 60 KiB.
	maxPath = 16 << 10
)

// snapshot is what was seen at a look.
type snapshot struct {
	at       time.Time           // when it was asked for
	draining bool                // Envoy fails its health checks
	asked    wanted              // what clusters are of
	clusters map[string]*cluster // those that Envoy has
}

// client makes a client that reaches admin alone.
func (t target) client() *client {
	dialer := &net.Dialer{}
	return &client{dial: func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, t.network, t.address) }}
}

// look asks admin once. Where one of the two answers can't be had, the other is not used either. A panic on the way is an
// error: this runs on a goroutine, where it would end Envoy.
func look(ctx context.Context, client *client, wanted wanted) (seen *snapshot, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			seen, err = nil, fmt.Errorf("panic: %v", cause)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, maxTime, fmt.Errorf("it took longer than %v", maxTime))
	defer cancel()
	s := &snapshot{at: time.Now(), asked: wanted}
	err = get(ctx, client, "/server_info", func(answer io.Reader) (err error) {
		s.draining, err = readDraining(answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = get(ctx, client, clustersPath(wanted), func(answer io.Reader) (err error) {
		s.clusters, err = readClusters(answer, wanted)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// get asks admin for a path, and has read read the answer.
func get(ctx context.Context, client *client, path string, read func(answer io.Reader) error) error {
	if err := client.get(ctx, path, read); err != nil {
		name, _, _ := strings.Cut(path, "?") // the rest can be long
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// clustersPath is what to ask for: the wanted clusters alone, where a path can name them. Envoy's main thread would write the
// others, and the hosts of each, for nothing. An Envoy that does not know the filter writes all clusters.
func clustersPath(wanted wanted) string {
	const all = "/clusters?format=json"
	names := slices.Sorted(maps.Keys(wanted))
	for i, name := range names {
		names[i] = regexp.QuoteMeta(name) // of the syntax that Envoy reads it with, RE2
	}
	filter := url.QueryEscape("^(" + strings.Join(names, "|") + ")$")
	path := all + "&filter=" + strings.ReplaceAll(filter, "+", "%20") // Envoy takes + for itself
	if len(path) > maxPath {
		return all
	}
	return path
}
