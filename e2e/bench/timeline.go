package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Timeline is what happened when, in seconds from its beginning.
type Timeline struct {
	Says   string   `json:"says"` // what was run
	Series []Series `json:"series"`
	Marks  []Mark   `json:"marks"`
}

// Series is one value over time: each point is where it changed.
type Series struct {
	Name   string       `json:"name"`
	Points [][2]float64 `json:"points"` // seconds, and the value from then on
}

// Mark is something that was done.
type Mark struct {
	At   float64 `json:"at"`
	Text string  `json:"text"`
}

// recorder writes a timeline.
type recorder struct {
	began time.Time
	pace  float64

	mutex sync.Mutex
	Timeline
}

func newRecorder(pace float64, says string, series ...string) *recorder {
	r := &recorder{began: time.Now(), pace: pace, Timeline: Timeline{Says: says}}
	for _, name := range series {
		r.Series = append(r.Series, Series{Name: name})
	}
	return r
}

// now is the time as it is told.
func (r *recorder) now() float64 { return time.Since(r.began).Seconds() * r.pace }

// short is a duration as it is run.
func (r *recorder) short(d time.Duration) time.Duration { return time.Duration(float64(d) / r.pace) }

// see notes a value, where it is another than before.
func (r *recorder) see(series int, value float64) {
	at := r.now()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	s := &r.Series[series]
	if n := len(s.Points); n == 0 || s.Points[n-1][1] != value {
		s.Points = append(s.Points, [2]float64{at, value})
	}
}

func (r *recorder) mark(text string) {
	at := r.now()
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.Marks = append(r.Marks, Mark{at, text})
}

// end closes each series, and returns the timeline. Nobody sees anything any more.
func (r *recorder) end() Timeline {
	at := r.now()
	for i := range r.Series {
		if s := &r.Series[i]; len(s.Points) > 0 {
			s.Points = append(s.Points, [2]float64{at, s.Points[len(s.Points)-1][1]})
		}
	}
	return r.Timeline
}

// every calls something until the context ends.
func every(ctx context.Context, d time.Duration, call func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for ctx.Err() == nil {
		call()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// status is that of a probe's answer, 0 where there is none.
func status(client *http.Client, url string) float64 {
	reply, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer reply.Body.Close()
	return float64(reply.StatusCode)
}

// sampling is how often a probe is sent for a timeline.
const sampling = 20 * time.Millisecond

func (b *bench) timelines(results *Results) (err error) {
	say("timelines: hosts that go and come, and a drain; some %.0f s", 32/b.Pace)
	if results.Hosts, err = b.hosts(); err != nil {
		return err
	}
	results.Drain, err = b.drain()
	return err
}

// stockConfig is the reference configuration in the clear, by the stock door.
func stockConfig() (*bed.Config, error) {
	config, err := bed.LoadConfig("envoy/envoy.yaml")
	if err != nil {
		return nil, err
	}
	config.Listen(0, 0)
	config.Delete("static_resources.listeners.0.filter_chains.0.transport_socket")
	config.Delete(bed.HCM + ".access_log")
	config.Set(bed.Cluster+".type", "STATIC")
	config.Delete(bed.Cluster + ".dns_lookup_family")
	return config, nil
}

// hosts records what two gates answer while hosts go and come: one answers at once, the other holds.
func (b *bench) hosts() (Timeline, error) {
	const unhealthyAfter, healthyAfter = 2.0, 1.0
	r := newRecorder(b.Pace, fmt.Sprintf("three hosts, min_healthy 1, checked every 0.1 s, the stock door; one gate without hold, and one with unhealthy_after %.0fs and healthy_after %.0fs",
		unhealthyAfter, healthyAfter), "healthy hosts", "answer without hold", "answer with hold")
	config, err := stockConfig()
	if err != nil {
		return r.Timeline, err
	}
	config.CheckEvery("0.1s")
	config.Set(bed.HealthCheck+".healthy_threshold", 1)
	held := config.Part(bed.Routes + ".0")
	held.Set("match", map[string]any{"path": "/held"})
	seconds := func(s float64) string { return fmt.Sprintf("%.3fs", s/b.Pace) }
	held.Set("typed_per_filter_config.healthgate", map[string]any{
		"@type": "type.googleapis.com/envoy.extensions.filters.http.golang.v3alpha.ConfigsPerRoute",
		"plugins_config": map[string]any{"healthgate": map[string]any{"config": map[string]any{"@type": "type.googleapis.com/xds.type.v3.TypedStruct",
			"value": map[string]any{"path": "/held", "stat_prefix": "held",
				"hold": map[string]any{"unhealthy_after": seconds(unhealthyAfter), "healthy_after": seconds(healthyAfter)}}}}},
	})
	config.Set(bed.Routes+".2", held.Get(""))
	var backends []*bed.Backend
	var addresses []string
	for range 3 {
		backend, err := bed.StartBackend(b.ctx, "127.0.0.1:0")
		if err != nil {
			return r.Timeline, err
		}
		defer backend.Kill()
		backends, addresses = append(backends, backend), append(addresses, backend.Address)
	}
	config.SetEndpoints(addresses...)
	envoy, err := b.startStock(config)
	if err != nil {
		return r.Timeline, err
	}
	defer envoy.Kill()
	return b.watchHosts(r, envoy, backends)
}

func (b *bench) startStock(config *bed.Config) (*bed.Envoy, error) {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return nil, err
	}
	return door.Start(b.ctx, b.doors[1], dir, config, bed.Options{Workers: 1})
}

// watchHosts has hosts go and come, and records.
func (b *bench) watchHosts(r *recorder, envoy *bed.Envoy, backends []*bed.Backend) (Timeline, error) {
	client := &http.Client{Timeout: time.Second}
	gauge := "cluster.service.membership_healthy"
	healthy := func() (n float64) {
		text, err := envoy.Get("/stats?filter=^" + gauge + "$")
		if err == nil {
			_, _ = fmt.Sscanf(text, gauge+": %g", &n) // 0 where it does not say
		}
		return n
	}
	err := bed.WaitFor(b.ctx, 20*time.Second, func() error {
		if healthy() != 3 || status(client, "http://"+envoy.Ingress+"/held") != 200 {
			return fmt.Errorf("the gate with hold is not open yet")
		}
		return nil
	})
	if err != nil {
		return r.Timeline, err
	}
	ctx, stop := context.WithCancel(b.ctx)
	var looking sync.WaitGroup
	r.began = time.Now()
	looking.Go(func() { every(ctx, sampling, func() { r.see(0, healthy()) }) })
	for i, path := range []string{"/", "/held"} {
		looking.Go(func() { every(ctx, sampling, func() { r.see(1+i, status(client, "http://"+envoy.Ingress+path)) }) })
	}
	steps := []struct {
		at      float64
		text    string
		serving int // of the three
	}{
		{1, "one host fails", 2}, {2, "another", 1}, {3, "all fail, for 1 s", 0}, {4, "one is back", 1}, {6, "all fail, for 4 s", 0},
		{10, "one is back", 1}, {12, "all are back", 3}, {14, "", 3},
	}
	for _, step := range steps {
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(r.began.Add(r.short(time.Duration(step.at * float64(time.Second)))))):
		}
		if step.text != "" {
			r.mark(step.text)
		}
		for i, backend := range backends {
			if err := backend.SetServing(i < step.serving); err != nil {
				stop()
				looking.Wait()
				return r.Timeline, err
			}
		}
	}
	stop()
	looking.Wait()
	return r.end(), nil
}

// drain records an Envoy that is ended under calls: `healthgate drain`, and SIGTERM after it.
func (b *bench) drain() (Timeline, error) {
	const notice, interval, threshold = 4 * time.Second, 500 * time.Millisecond, 2
	r := newRecorder(b.Pace, "", "answer to a probe", "the balancer sends", "calls under way")
	config, err := stockConfig()
	if err != nil {
		return r.Timeline, err
	}
	config.Delete(bed.Cluster + ".health_checks") // the server that echoes has no health service
	config.SetEndpoints(b.backend)
	envoy, err := b.startStock(config)
	if err != nil {
		return r.Timeline, err
	}
	defer envoy.Kill()
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	var running sync.WaitGroup
	client := &http.Client{Timeout: time.Second}
	var in atomic.Bool
	r.began = time.Now()
	failures := threshold
	running.Go(func() {
		every(ctx, r.short(interval), func() {
			if failures++; status(client, "http://"+envoy.Ingress+"/") == 200 {
				failures = 0
			}
			in.Store(failures < threshold)
			r.see(1, map[bool]float64{true: 1}[in.Load()])
		})
	})
	running.Go(func() { every(ctx, sampling, func() { r.see(0, status(client, "http://"+envoy.Ingress+"/")) }) })
	load := &callers{in: &in, r: r}
	for i := range 12 {
		running.Go(func() { load.call(ctx, envoy.Ingress, i) })
	}
	time.Sleep(r.short(2 * time.Second)) // what it is like before
	err = r.command(b.ctx, envoy, r.short(notice))
	if err == nil {
		r.mark("SIGTERM")
		err = envoy.Stop()
		r.mark("Envoy has ended")
	}
	time.Sleep(r.short(time.Second))
	stop()
	running.Wait()
	t := r.end()
	t.Says = fmt.Sprintf("a balancer that checks every %v and stops after %d failures, notice %v, streams of 0.5 to 3 s, the stock door; %d of %d calls were lost",
		interval, threshold, notice, load.lost.Load(), load.begun.Load())
	return t, err
}

// told are the lines of a drain, by how they begin, as a picture has them.
var told = map[string]string{
	"failing the gate": "healthgate drain: the gate fails", "the delay is over": "the delay is over: connections are closed", "no request is left": "no request is left",
}

// command runs `healthgate drain`, and marks each of its lines.
func (r *recorder) command(ctx context.Context, envoy *bed.Envoy, notice time.Duration) error {
	drain := exec.CommandContext(ctx, filepath.Join(bed.Root(), "build", "healthgate"), "drain", "--admin", envoy.Admin, "--delay", notice.String(), "--timeout", "20s")
	drain.Env = append(os.Environ(), "CONTAINER_LOG="+os.DevNull)
	out, err := drain.StdoutPipe()
	if err != nil {
		return err
	}
	if err := drain.Start(); err != nil {
		return fmt.Errorf("%w (make command builds it)", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := strings.TrimPrefix(lines.Text(), "healthgate: drain: ")
		text := line
		for begins, short := range told {
			if strings.HasPrefix(line, begins) {
				text = short
			}
		}
		r.mark(text)
	}
	return drain.Wait()
}

// callers make calls while the balancer sends them here.
type callers struct {
	in          *atomic.Bool
	r           *recorder
	under       atomic.Int64
	begun, lost atomic.Int64
}

// call makes one stream after the other, each of some length.
func (c *callers) call(ctx context.Context, address string, number int) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		panic(err) // of the options, which are made here
	}
	defer conn.Close()
	for turn := number; ctx.Err() == nil; turn++ {
		if !c.in.Load() {
			time.Sleep(sampling)
			continue
		}
		c.begun.Add(1)
		c.r.see(2, float64(c.under.Add(1)))
		if err := c.stream(conn, 500*time.Millisecond*time.Duration(1+turn%6)); err != nil {
			c.lost.Add(1)
		}
		c.r.see(2, float64(c.under.Add(-1)))
	}
}

// stream sends and awaits a message each 100 ms, and ends after some time.
func (c *callers) stream(conn *grpc.ClientConn, lasts time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), lasts+10*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		return err
	}
	message := []byte("x")
	for until := time.Now().Add(c.r.short(lasts)); time.Now().Before(until); time.Sleep(c.r.short(100 * time.Millisecond)) {
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		var reply []byte
		if err := stream.RecvMsg(&reply); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var reply []byte
	if err := stream.RecvMsg(&reply); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ends with %w", err)
	}
	return nil
}
