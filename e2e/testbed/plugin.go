package testbed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// goPlugin is the variant for the golang extension of Envoy's contrib build, or for the contrib host in its place.
type goPlugin struct {
	// Whether the Envoy to run lacks the extension, so that it loads the contrib host, which can also cause faults on request.
	contribHost bool
}

func newPlugin() (Variant, error) {
	path, err := EnvoyPath()
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// The name of a function that the extension exports for plugins.
	return goPlugin{contribHost: !bytes.Contains(program, []byte("envoyGoFilterHttpSendLocalReply"))}, nil
}

func (goPlugin) Name() string   { return "plugin" }
func (goPlugin) Object() string { return built("healthgate.so") }

// HasContribHost reports whether the contrib host takes the place of the golang extension.
func HasContribHost(v Variant) bool { c, ok := v.(goPlugin); return ok && c.contribHost }

func (c goPlugin) Options(o Options) Options {
	o.Needs = append(o.Needs, c.Object())
	if c.contribHost {
		o.Needs = append(o.Needs, contribHostObject())
		o.Env = append(o.Env, "ENVOY_DYNAMIC_MODULES_SEARCH_PATH="+built(""))
		o.Sync = copyStats
	}
	return o
}

// copyStats makes the contrib host copy Envoy's stats for the plugin and the plugin's to Envoy. In the golang extension both are the same
// stats.
func copyStats(envoy *Envoy) error {
	_, err := envoy.Ask(http.MethodPost, contribHostPath)
	if err != nil && strings.Contains(err.Error(), "404") {
		return nil // a running Envoy without the contrib host
	}
	return err
}

func (c goPlugin) Can(a Ability) error {
	why := ""
	switch a {
	case GRPC, Liveness:
		why = "use the dynamic module"
	case HangMainThread, LoseMetrics, CountLiveObjects, CountMerges:
		if !c.contribHost {
			why = "only the contrib host can do this"
		}
	}
	return cannot("Go plugin", a, why)
}

func (c goPlugin) LiveObjects(envoy *Envoy) (held LiveObjects, err error) {
	if !c.contribHost {
		return held, nil
	}
	text, err := envoy.Ask(http.MethodPost, contribHostPath)
	if err != nil {
		return held, err
	}
	return held, json.Unmarshal([]byte(text), &held)
}

func (c goPlugin) Hang(envoy *Envoy, seconds int) error {
	_, err := envoy.Post(fmt.Sprint(contribHostPath, "?hang=", seconds))
	return err
}

func (c goPlugin) LoseMetrics(envoy *Envoy, lost bool) error {
	word := map[bool]string{true: "gone", false: "back"}[lost]
	_, err := envoy.Post(contribHostPath + "?metrics=" + word)
	return err
}
