package adminsource

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"healthgate/filter/policy"
)

const (
	// maxHosts is how many hosts of a cluster are kept for a report. All are counted.
	maxHosts = 1000
	// maxValue bounds one string, number, host or unknown field of the response, in bytes. Envoy writes some 750 for a host.
	maxValue = 256 << 10
)

var errTooLong = fmt.Errorf("a value has more than %d bytes", maxValue)

// wanted has the names of the clusters to read; the value is whether a report needs their hosts.
type wanted map[string]bool

// cluster is what admin reports of one cluster.
type cluster struct {
	counts policy.Counts
	hosts  []policy.Host // at most maxHosts
}

func (c *cluster) add(h *host) {
	status := h.Health.status()
	c.counts.Total++
	switch status {
	case healthy:
		c.counts.Healthy++
	case degraded:
		c.counts.Degraded++
	}
	if h.Health.isExcluded() {
		c.counts.Excluded++
	}
	if len(c.hosts) < maxHosts {
		c.hosts = append(c.hosts, policy.Host{Address: h.Address.String(), Status: status})
	}
}

// readClusters reads an envoy.admin.v3.Clusters, and returns the wanted clusters in it. The response may be of any length: only one host of
// it is in memory at a time. A response that is cut short is an error. If a field or a cluster is repeated, the last one counts.
func readClusters(response io.Reader, wanted wanted) (map[string]*cluster, error) {
	found := make(map[string]*cluster, len(wanted))
	s := newStream(response)
	err := s.object(func(field string) error {
		if field != "cluster_statuses" {
			return s.skip()
		}
		clear(found)
		return s.list(func() error {
			name, c, err := readCluster(s)
			reportsHosts, isWanted := wanted[name]
			if err != nil || !isWanted {
				return err
			}
			if !reportsHosts {
				c.hosts = nil
			}
			found[name] = c
			return nil
		})
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// readCluster reads an envoy.admin.v3.ClusterStatus. The name may come last, so the hosts of every cluster are read.
func readCluster(s stream) (name string, c *cluster, err error) {
	c = &cluster{}
	err = s.object(func(field string) error {
		switch field {
		case "name":
			name = "" // null is the default, as in all JSON of protobuf
			return s.value(&name)
		case "host_statuses":
			*c = cluster{}
			return s.list(func() error {
				var h *host
				if err := s.value(&h); err != nil {
					return err
				}
				if h == nil {
					return unexpected(nil, "a host")
				}
				c.add(h)
				return nil
			})
		}
		return s.skip()
	})
	return name, c, err
}

// stream reads one JSON value in parts. It must not be used after an error.
type stream struct{ *json.Decoder }

func newStream(from io.Reader) stream {
	bounded := &boundedReader{from: from}
	s := stream{json.NewDecoder(bounded)}
	bounded.used = s.InputOffset
	return s
}

// boundedReader reads at most maxValue bytes more than its decoder has decoded, because a decoder buffers a value until its end.
type boundedReader struct {
	from io.Reader
	read int64
	used func() int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	left := b.used() + maxValue - b.read
	if left <= 0 {
		return 0, errTooLong
	}
	n, err := b.from.Read(p[:min(int64(len(p)), left)])
	b.read += int64(n)
	return n, err
}

// object calls value after the name of each field.
func (s stream) object(value func(field string) error) error {
	if err := s.delimiter('{'); err != nil {
		return err
	}
	for s.More() {
		field, err := s.Token()
		if err == nil {
			err = value(field.(string))
		}
		if err != nil {
			return beforeEnd(err)
		}
	}
	return s.delimiter('}')
}

// list calls element before each element. null is an empty list.
func (s stream) list(element func() error) error {
	switch start, err := s.Token(); {
	case err != nil:
		return beforeEnd(err)
	case start == nil:
		return nil
	case start != json.Delim('['):
		return unexpected(start, "a list")
	}
	for s.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return s.delimiter(']')
}

func (s stream) value(into any) error { return beforeEnd(s.Decode(into)) }

func (s stream) skip() error { return s.value(&ignored{}) }

// ignored is any JSON value.
type ignored struct{}

func (*ignored) UnmarshalJSON([]byte) error { return nil }

func (s stream) delimiter(want json.Delim) error {
	token, err := s.Token()
	if err == nil && token != want {
		err = unexpected(token, want.String())
	}
	return beforeEnd(err)
}

// end returns an error if anything follows the value.
func (s stream) end() error {
	switch token, err := s.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return unexpected(token, "the end")
	}
}

func unexpected(token json.Token, want string) error {
	if token == nil {
		token = "null"
	}
	return fmt.Errorf("found %.40q instead of %s", fmt.Sprint(token), want)
}

// beforeEnd turns io.EOF into io.ErrUnexpectedEOF: before the end of the value, the end of the response is an error.
func beforeEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
