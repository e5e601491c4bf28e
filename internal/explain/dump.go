package explain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"healthgate/internal/lint"
)

// dump has the parts of admin's /config_dump that lint does not read: the state of updates, and facts about clusters.
type dump struct {
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
		StaticClusters         []dumpedCluster `json:"static_clusters"`
		DynamicActiveClusters  []dumpedCluster `json:"dynamic_active_clusters"`
		DynamicWarmingClusters []dumpedCluster `json:"dynamic_warming_clusters"`
	} `json:"configs"`
}

type dumpedCluster struct {
	Cluster json.RawMessage `json:"cluster"`
}

// config reads a cluster. An unexpected form is not an error, and has no facts.
func (d dumpedCluster) config() (c clusterConfig) {
	_ = json.Unmarshal(d.Cluster, &c)
	return c
}

func readDump(text []byte) (*dump, error) {
	var all dumped
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&all); err != nil {
		return nil, err
	}
	d := &dump{clusters: map[string]clusterConfig{}}
	active := map[string]bool{}
	for _, config := range all.Configs {
		for _, listener := range config.DynamicListeners {
			active[listener.Name] = active[listener.Name] || len(listener.ActiveState) > 0
			if len(listener.WarmingState) > 0 {
				d.warming = append(d.warming, warming{"listener", listener.Name, active[listener.Name]})
			}
			if failed := listener.ErrorState; failed != nil {
				d.refuse(refusal{name: cmp.Or(listener.Name, nameOf(failed.FailedConfiguration)), at: failed.LastUpdateAttempt,
					details: lastLine(failed.Details), errors: gateErrors(failed.FailedConfiguration)})
			}
		}
		for _, cluster := range append(config.StaticClusters, config.DynamicActiveClusters...) {
			c := cluster.config()
			d.clusters[c.Name] = c
		}
		for _, cluster := range config.DynamicWarmingClusters {
			c := cluster.config()
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

// nameOf returns the name in a listener's configuration.
func nameOf(listener json.RawMessage) string {
	var named struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(listener, &named)
	return named.Name
}

// lastLine returns the end of Envoy's message, which begins with the configuration as text.
func lastLine(message string) string {
	lines := strings.Split(strings.TrimSpace(message), "\n")
	last := strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), ": ")
	if len(last) > 500 {
		last = last[:500] + "…"
	}
	return last
}

// gateErrors returns the errors of the gates in a refused listener. It reads the listener as if it were active.
func gateErrors(listener json.RawMessage) (all []string) {
	if len(listener) == 0 {
		return nil
	}
	as := fmt.Sprintf(`{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
		"dynamic_listeners": [{"active_state": {"listener": %s}}]}]}`, listener)
	served, _, err := lint.Live("config_dump", []byte(as))
	if err != nil {
		return nil
	}
	for _, gate := range served {
		if gate.Err != nil {
			all = append(all, gate.Err.Error())
		}
	}
	return all
}

// problem describes a refusal.
func (r refusal) problem() Problem {
	name := "a listener"
	if r.name != "" {
		name = fmt.Sprintf("listener %q", r.name)
	}
	what := fmt.Sprintf("Envoy refused the newest configuration of %s", name)
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
	idle := time.Minute // Envoy's default
	if check.NoTrafficInterval != "" {
		idle, _ = time.ParseDuration(check.NoTrafficInterval)
	}
	if err != nil || idle <= interval {
		return ""
	}
	return fmt.Sprintf("; Envoy checks cluster %q only once in %v until it has traffic, and %d checks must pass, so "+
		"recovery takes up to %v (no_traffic_interval)",
		c.Name, idle, max(1, check.HealthyThreshold), time.Duration(max(1, check.HealthyThreshold))*idle)
}
