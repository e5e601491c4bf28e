package explain

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"healthgate/internal/envoyadmin"
	"healthgate/internal/lint"
)

// dump is admin's /config_dump: the gates in it, lint's findings, the state of updates, and facts about clusters.
type dump struct {
	served   []lint.Served
	findings []lint.Finding
	refused  []refusal
	warming  []warming
	clusters map[string]clusterConfig // by name
}

// refusal is an update that Envoy has refused. Envoy keeps the configuration before, if any.
type refusal struct {
	name     string // of the listener; "" if Envoy does not know
	at       string
	details  string
	errors   []string // of the gates in it, from the gate's own decoder
	replaces bool     // an older configuration is active
}

// warming is a listener or cluster that does not serve yet.
type warming struct {
	kind, name string
	replaces   bool // an older configuration is active
}

// clusterConfig has the configuration that explains a cluster's counts.
type clusterConfig struct {
	Name        string `json:"name"`
	Type        string `json:"type"`
	ClusterType struct {
		Name string `json:"name"`
	} `json:"cluster_type"`
	HealthChecks []struct {
		Interval          string `json:"interval"`
		NoTrafficInterval string `json:"no_traffic_interval"`
		HealthyThreshold  int    `json:"healthy_threshold"`
	} `json:"health_checks"`
}

// clusters is a part of a dump.
type clusters []struct {
	Cluster json.RawMessage `json:"cluster"`
}

// read reads the clusters. One of an unexpected form is not an error, and has no facts.
func (all clusters) read() []clusterConfig {
	read := make([]clusterConfig, len(all))
	for i, one := range all {
		_ = json.Unmarshal(one.Cluster, &read[i])
	}
	return read
}

// dumped is the JSON of a dump, as far as it is read here.
type dumped struct {
	Configs []struct {
		DynamicListeners []struct {
			Name         string          `json:"name"`
			ActiveState  json.RawMessage `json:"active_state"`
			WarmingState json.RawMessage `json:"warming_state"`
			ErrorState   *struct {
				FailedConfiguration json.RawMessage `json:"failed_configuration"`
				LastUpdateAttempt   string          `json:"last_update_attempt"`
				Details             string          `json:"details"`
			} `json:"error_state"`
		} `json:"dynamic_listeners"`
		StaticClusters         clusters `json:"static_clusters"`
		DynamicActiveClusters  clusters `json:"dynamic_active_clusters"`
		DynamicWarmingClusters clusters `json:"dynamic_warming_clusters"`
	} `json:"configs"`
}

// readDump reads the configuration of an Envoy.
func readDump(ctx context.Context, admin *envoyadmin.Client) (*dump, error) {
	text, err := admin.ConfigDump(ctx)
	if err != nil {
		return nil, err
	}
	d := &dump{clusters: map[string]clusterConfig{}}
	var all dumped
	if d.served, d.findings, err = lint.Live("config_dump", text); err == nil {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(&all)
	}
	if err != nil {
		return nil, fmt.Errorf("admin at %s: the answer to /config_dump is not Envoy's: %w", admin.Address(), err)
	}
	active := map[string]bool{}
	for _, config := range all.Configs {
		for _, listener := range config.DynamicListeners {
			active[listener.Name] = active[listener.Name] || len(listener.ActiveState) > 0
			if len(listener.WarmingState) > 0 {
				d.warming = append(d.warming, warming{"listener", listener.Name, active[listener.Name]})
			}
			if failed := listener.ErrorState; failed != nil {
				r := refusal{name: listener.Name, at: failed.LastUpdateAttempt, details: lastLine(failed.Details)}
				r.readListener(failed.FailedConfiguration)
				d.refuse(r)
			}
		}
		for _, c := range append(config.StaticClusters, config.DynamicActiveClusters...).read() {
			d.clusters[c.Name] = c
		}
		for _, c := range config.DynamicWarmingClusters.read() {
			_, active := d.clusters[c.Name]
			d.warming = append(d.warming, warming{"cluster", c.Name, active})
		}
	}
	for i := range d.refused {
		d.refused[i].replaces = active[d.refused[i].name]
	}
	return d, nil
}

// refuse adds a refusal. Envoy's dump may have it twice: for the listener, and for the update, without a time.
func (d *dump) refuse(r refusal) {
	for i, known := range d.refused {
		if known.name == r.name && known.details == r.details {
			d.refused[i].at = cmp.Or(known.at, r.at)
			return
		}
	}
	d.refused = append(d.refused, r)
}

// lastLine returns the end of Envoy's message, which begins with the configuration as text.
func lastLine(message string) string {
	message = strings.TrimSpace(message)
	last := strings.TrimPrefix(strings.TrimSpace(message[strings.LastIndexByte(message, '\n')+1:]), ": ")
	if len(last) > 500 {
		last = last[:500] + "…"
	}
	return last
}

// readListener reads the name and the gates' errors in the refused listener, as if it were active.
func (r *refusal) readListener(listener json.RawMessage) {
	if len(listener) == 0 {
		return
	}
	var named struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(listener, &named) // else it has no name
	r.name = cmp.Or(r.name, named.Name)
	served, _, _ := lint.Live("config_dump", fmt.Appendf(nil, `{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
		"dynamic_listeners": [{"active_state": {"listener": %s}}]}]}`, listener))
	for _, gate := range served {
		if gate.Err != nil {
			r.errors = append(r.errors, gate.Err.Error())
		}
	}
}

// problem describes a refusal.
func (r refusal) problem() Problem {
	what := "Envoy refused the newest configuration of a listener"
	if r.name != "" {
		what = fmt.Sprintf("Envoy refused the newest configuration of listener %q", r.name)
	}
	if r.at != "" {
		what += " at " + r.at
	}
	if r.replaces {
		what += ", and keeps the one before"
	} else {
		what += ", and has no other, so it does not listen there"
	}
	what += ": " + r.details
	next := "fix the configuration: Envoy's log has the reason"
	if len(r.errors) > 0 {
		what += fmt.Sprintf(" (the gate in it: %s)", strings.Join(r.errors, "; "))
		next = "fix the gate's configuration; an Envoy that starts with this one has no such listener"
	}
	return Problem{what, next}
}

// recovery describes how long a host of a cluster without traffic takes to become healthy again, or returns "".
func (c clusterConfig) recovery() string {
	if len(c.HealthChecks) == 0 {
		return ""
	}
	check := c.HealthChecks[0]
	interval, err := time.ParseDuration(check.Interval)
	idle, _ := time.ParseDuration(cmp.Or(check.NoTrafficInterval, "60s")) // Envoy's default
	if err != nil || idle <= interval {
		return ""
	}
	passes := max(1, check.HealthyThreshold)
	return fmt.Sprintf("; Envoy checks cluster %q only once in %v until it has traffic, and %d checks must pass, so "+
		"recovery takes up to %v (no_traffic_interval)", c.Name, idle, passes, time.Duration(passes)*idle)
}
