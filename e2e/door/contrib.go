package door

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"

	"healthgate/e2e/bed"
)

// contrib is the golang extension of Envoy's contrib build, or the stand-in in its place.
type contrib struct {
	// The Envoy lacks the extension, and any Envoy can load the stand-in. It has faults that a test can ask for.
	standIn bool
}

func newContrib() (Door, error) {
	path, err := bed.EnvoyPath()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// A function that the extension offers to plugins, by its name.
	return contrib{standIn: !bytes.Contains(program, []byte("envoyGoFilterHttpSendLocalReply"))}, nil
}

func (contrib) Name() string   { return "contrib" }
func (contrib) Object() string { return built("healthgate.so") }

// HasStandIn says whether the stand-in takes the place of the golang extension in the Envoy that is run.
func HasStandIn(d Door) bool { c, ok := d.(contrib); return ok && c.standIn }

func (c contrib) Rewrite(part *bed.Config) {
	if c.standIn {
		part.Change(place{}.swap)
		return
	}
	part.Change(load)
}

func (c contrib) Prepare(bootstrap *bed.Config) {
	c.Rewrite(bootstrap)
	if c.standIn {
		addStandIn(bootstrap)
	}
}

// load has each golang filter load the plugin that was built: in the file it is the one in the image.
func load(node any) any {
	switch n := node.(type) {
	case []any:
		for i := range n {
			n[i] = load(n[i])
		}
	case map[string]any:
		if n["@type"] == golangType {
			n["library_path"] = contrib{}.Object()
		}
		for key := range n {
			n[key] = load(n[key])
		}
	}
	return node
}

func (c contrib) Options(o bed.Options) bed.Options {
	o.Needs = append(o.Needs, c.Object())
	if c.standIn {
		o.Needs = append(o.Needs, standInObject())
		o.Env = append(o.Env, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+built(""))
		o.Sync = copyStats
	}
	return o
}

// copyStats has the stand-in copy Envoy's stats and hand on the plugin's, so that what admin shows is what the plugin reads
// and writes. In the contrib host the two are one.
func copyStats(envoy *bed.Envoy) error {
	_, err := envoy.Ask(http.MethodPost, standInPath)
	if err != nil && strings.Contains(err.Error(), "404") {
		return nil // an Envoy without the stand-in, which somebody else has started
	}
	return err
}

func (c contrib) Can(a Ability) error {
	switch a {
	case Levels, Ghosts, Aging, Defining, LateStats, Pipelining, BadRoutes:
		return nil
	case GRPC, Liveness:
		return &Cannot{c.Name(), a, "it needs the stock door"}
	}
	if c.standIn {
		return nil
	}
	return &Cannot{c.Name(), a, "only the stand-in can be asked for it"}
}

func (c contrib) Held(envoy *bed.Envoy) (held Held, err error) {
	if !c.standIn {
		return held, nil
	}
	text, err := envoy.Ask(http.MethodPost, standInPath)
	if err != nil {
		return held, err
	}
	return held, json.Unmarshal([]byte(text), &held)
}

// Merges is how often the stand-in's host has had the plugin merge two configurations.
func Merges(envoy *bed.Envoy) (int, error) {
	text, err := envoy.Ask(http.MethodPost, standInPath)
	if err != nil {
		return 0, err
	}
	var reply struct{ Merges int }
	return reply.Merges, json.Unmarshal([]byte(text), &reply)
}

func (c contrib) Hang(envoy *bed.Envoy, seconds int) <-chan error {
	hung := make(chan error, 1)
	go func() {
		_, err := envoy.Post(fmt.Sprint(standInPath, "?hang=", seconds))
		hung <- err
	}()
	return hung
}

func (c contrib) LoseMetrics(envoy *bed.Envoy, lost bool) error {
	word := map[bool]string{true: "gone", false: "back"}[lost]
	_, err := envoy.Post(standInPath + "?metrics=" + word)
	return err
}
