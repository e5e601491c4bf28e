package envoyadmin

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

func TestAddressIsAPortOrASocket(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9901": "", "localhost:9901": "", "[::1]:9901": "", "unix:///run/admin.sock": "",
		"9901": "neither host:port", ":9901": "neither host:port", "127.0.0.1": "neither host:port", "": "neither host:port",
		"unix://run/admin.sock": "an absolute path", "http://127.0.0.1:9901": "neither host:port",
	} {
		client, err := New(address)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && client.Address() != address {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestAnswersAreRead(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.RequestURI()
		switch r.URL.Path {
		case "/stats":
			fmt.Fprint(w, "a.b: 7\ncluster.a: b.total: 3\ntext: \"LIVE\"\nhistogram: P0(1,1)\nnegative: -1\nno value\n")
		case "/clusters":
			fmt.Fprint(w, `{"cluster_statuses": [{"name": "a", "a_field_of_tomorrow": {}}]}`)
		case "/redirects":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	t.Cleanup(server.Close)
	client, err := New(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	stats, err := client.Stats(t.Context(), `^a\+b c$`)
	if want := (map[string]uint64{"a.b": 7, "cluster.a: b.total": 3}); err != nil || !maps.Equal(stats, want) {
		t.Errorf("%v: the stats are %v", err, stats)
	}
	if asked != `GET /stats?filter=%5Ea%5C%2Bb%20c%24` {
		t.Errorf("asked %s", asked)
	}
	clusters, err := client.Clusters(t.Context(), "a.b", "c")
	if err != nil || clusters.GetClusterStatuses()[0].GetName() != "a" || asked != `GET /clusters?format=json&filter=%5E%28a%5C.b%7Cc%29%24` {
		t.Errorf("%v: %v, asked %s", err, clusters, asked)
	}
	if err := client.Post(t.Context(), "/redirects"); err == nil || !strings.HasSuffix(err.Error(), "/redirects is answered with 302 Found") {
		t.Errorf("a redirect is followed: %v", err)
	}
}

func TestStateOfAHost(t *testing.T) {
	for want, health := range map[string]*adminv3.HostHealthStatus{
		"healthy":                             {EdsHealthStatus: corev3.HealthStatus_HEALTHY},
		"degraded":                            {FailedActiveDegradedCheck: true},
		"/failed_active_hc":                   {FailedActiveHealthCheck: true, FailedOutlierCheck: true, EdsHealthStatus: corev3.HealthStatus_DEGRADED},
		"/failed_active_hc/active_hc_timeout": {FailedActiveHealthCheck: true, ActiveHcTimeout: true},
		"/failed_active_hc/pending_active_hc": {FailedActiveHealthCheck: true, PendingActiveHc: true},
		"/failed_outlier_check":               {FailedOutlierCheck: true, FailedActiveDegradedCheck: true},
		"/eds_status_unhealthy":               {EdsHealthStatus: corev3.HealthStatus_TIMEOUT},
	} {
		if got, _, _ := strings.Cut(State(health), ":"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
