package adminsource

import (
	"encoding/json"
	"testing"

	"healthgate/filter/policy"
)

func TestHostsAreCountedAsEnvoyCountsThem(t *testing.T) {
	for text, test := range map[string]struct {
		status   string
		excluded bool
	}{
		`{"eds_health_status": "HEALTHY"}`: {"healthy", false},
		`{}`:                               {"healthy", false},
		`{"pending_dynamic_removal": true, "eds_health_status": "HEALTHY"}`: {"healthy", false},
		`{"eds_health_status": "UNHEALTHY"}`:                                {"unhealthy by discovery", false},
		`{"eds_health_status": "DRAINING"}`:                                 {"draining by discovery", true},
		`{"eds_health_status": "TIMEOUT"}`:                                  {"timeout by discovery", false},
		`{"eds_health_status": "DEGRADED"}`:                                 {"degraded", false},
		`{"eds_health_status": "LATER"}`:                                    {"later by discovery", false},
		`{"failed_active_degraded_check": true}`:                            {"degraded", false},
		`{"failed_degraded_outlier_detection": true}`:                       {"degraded", false},
		`{"failed_active_health_check": true, "pending_active_hc": true}`: {"failed active health check",
			true},
		`{"failed_active_health_check": true, "excluded_via_immediate_hc_fail": true}`: {"failed active health check",
			true},
		`{"pending_active_hc": true}`: {"healthy", true},
		`{"excluded_via_immediate_hc_fail": true, "failed_active_degraded_check": true}`:                       {"degraded", true},
		`{"pending_active_hc": true, "excluded_via_immediate_hc_fail": true, "eds_health_status": "DRAINING"}`: {"draining by discovery", true},
		`{"failed_outlier_check": true}`: {"ejected by outlier detection",
			false},
		`{"failed_active_health_check": true, "eds_health_status": "DEGRADED"}`: {"failed active health check",
			false},
		`{"failed_active_degraded_check": true, "eds_health_status": "UNHEALTHY"}`: {"unhealthy by discovery", false},
		`{"a_field_later": true}`: {"healthy", false},
	} {
		t.Run(text, func(t *testing.T) {
			want := policy.Counts{Total: 1}
			switch test.status {
			case "healthy":
				want.Healthy = 1
			case "degraded":
				want.Degraded = 1
			}
			if test.excluded {
				want.Excluded = 1
			}
			var c cluster
			h := &host{}
			if err := json.Unmarshal([]byte(text), &h.Health); err != nil {
				t.Fatal(err)
			}
			if c.addHost(h); c.counts != want || c.hosts[0].Status != test.status {
				t.Errorf("got %+v and %q, want %+v and %q", c.counts, c.hosts[0].Status, want, test.status)
			}
		})
	}
}

func TestAddressIsShown(t *testing.T) {
	for text, want := range map[string]string{
		`{"socket_address": {"address": "::1", "port_value": 80}}`:                    "[::1]:80",
		`{"pipe": {"path": "/run/a.sock"}}`:                                           "/run/a.sock",
		`{"envoy_internal_address": {"server_listener_name": "internal"}}`:            "internal",
		`{"socket_address": {"address": "10.0.0.1", "port_value": 1, "later": true}}`: "10.0.0.1:1",
	} {
		t.Run(want, func(t *testing.T) {
			var a address
			if err := json.Unmarshal([]byte(text), &a); err != nil || a.String() != want {
				t.Errorf("got %s, %v", a, err)
			}
		})
	}
}
