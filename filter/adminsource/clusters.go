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
	// maxClusterValue bounds one string, number, host or unknown field of /clusters, in bytes. Envoy writes some 750 for a host.
	maxClusterValue = 256 << 10
	// maxServerInfoValue does so for /server_info: a command line has up to 2 MiB, with --config-yaml a whole configuration, and JSON
	// escapes some of it.
	maxServerInfoValue = 4 << 20
)

var errTooLong = errors.New("a value is too long")

// wanted has the names of the clusters to read; the value is whether a report needs their hosts.
type wanted map[string]bool

// cluster is what admin reports of one cluster.
type cluster struct {
	counts policy.Counts
	hosts  []policy.Host // at most maxHosts
}

func (c *cluster) addHost(h *host) {
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
// it is in memory at a time. If a list or a cluster is repeated, the last one counts.
func (w wanted) readClusters(response io.Reader) (map[string]*cluster, error) {
	found := make(map[string]*cluster, len(w))
	err := readObject(response, maxClusterValue, func(s stream, field string) error {
		if field != "cluster_statuses" {
			return s.skip()
		}
		clear(found)
		return s.each('[', func() error {
			name, c, err := s.readCluster()
			if reportsHosts, isWanted := w[name]; isWanted {
				if !reportsHosts {
					c.hosts = nil
				}
				found[name] = c
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// readCluster reads an envoy.admin.v3.ClusterStatus. The name may come last, so the hosts of every cluster are read.
func (s stream) readCluster() (name string, c *cluster, err error) {
	c = &cluster{}
	err = s.object(func(field string) error {
		switch field {
		case "name":
			return s.Decode(&name)
		case "host_statuses":
			*c = cluster{}
			return s.each('[', func() error {
				var h *host
				err := s.Decode(&h)
				switch {
				case err != nil:
					return err
				case h == nil:
					return errors.New("found null instead of a host")
				}
				c.addHost(h)
				return nil
			})
		}
		return s.skip()
	})
	return name, c, err
}

// stream reads one JSON value in parts. It must not be used after an error.
type stream struct{ *json.Decoder }

// readObject reads a response, which must be one JSON object and nothing else, and calls value after the name of each field. maxValue
// bounds what is decoded at once, in bytes.
func readObject(response io.Reader, maxValue int64, value func(s stream, field string) error) error {
	bounded := &boundedReader{from: response, maxValue: maxValue}
	s := stream{json.NewDecoder(bounded)}
	bounded.used = s.InputOffset
	err := s.object(func(field string) error { return value(s, field) })
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	switch token, err := s.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("found %.40q instead of the end", fmt.Sprint(token))
	}
}

// object calls value after the name of each field.
func (s stream) object(value func(field string) error) error {
	return s.each('{', func() error {
		field, err := s.Token()
		if err != nil {
			return err
		}
		return value(field.(string))
	})
}

// each calls element before each element of a list, or before each field of an object.
func (s stream) each(start json.Delim, element func() error) error {
	token, err := s.Token()
	if err == nil && token != start {
		err = fmt.Errorf("found %.40q instead of %v", fmt.Sprint(token), start)
	}
	for err == nil && s.More() {
		err = element()
	}
	if err == nil {
		_, err = s.Token() // the end
	}
	return err
}

func (s stream) skip() error { return s.Decode(new(json.RawMessage)) }

// boundedReader reads at most maxValue bytes more than its decoder has decoded, because a decoder buffers a value until its end.
type boundedReader struct {
	from     io.Reader
	maxValue int64
	read     int64
	used     func() int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	left := b.used() + b.maxValue - b.read
	if left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errTooLong, b.maxValue)
	}
	n, err := b.from.Read(p[:min(int64(len(p)), left)])
	b.read += int64(n)
	return n, err
}
