package walk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os/exec"
	"path/filepath"

	"healthgate/e2e/bed"
	"healthgate/e2e/door"
)

// Command is whom a Disagreement is with that begins so.
const Command = "the command's explain"

// explained is what the command says of a gate.
type explained struct {
	Listener, Path string
	Answer         struct {
		Status      int
		Details, By string
	}
}

// compareExplained compares what the command says of each gate, by the numbers and by asking it, to what the gate has answered.
func (r *Run) compareExplained(ctx context.Context) (*Disagreement, error) {
	admin := httptest.NewServer(r.admin())
	defer admin.Close()
	for by, args := range map[string][]string{"numbers": {"--probe=false"}, "probe": nil} {
		var found *Disagreement
		same, err := r.agree(ctx, "explain by "+by, func() (bool, error) {
			gates, err := explain(ctx, admin.Listener.Addr().String(), args...)
			if err == nil {
				found, err = r.differing(gates, by)
			}
			return found == nil, err
		})
		if err != nil {
			return nil, err
		}
		if !same {
			return found, nil
		}
		r.Compared["explain by "+by+" and the gate"] += len(r.answers)
	}
	return nil, nil
}

// differing finds a gate of which the command says other than the gate itself.
func (r *Run) differing(gates []explained, by string) (*Disagreement, error) {
	said := map[place]explained{}
	for _, g := range gates {
		said[place{g.Listener, g.Path}] = g
	}
	for at, answer := range r.answers {
		g, there := said[at]
		if !there {
			return nil, fmt.Errorf("explain does not know of %+v", at)
		}
		if g.Answer.Status != answer.Status || g.Answer.Details != answer.Details || g.Answer.By != by {
			return &Disagreement{Command + " by " + by, fmt.Sprintf("%+v", at), fmt.Sprintf("%d %s", answer.Status, answer.Details),
				fmt.Sprintf("%d %q by %s", g.Answer.Status, g.Answer.Details, g.Answer.By)}, nil
		}
	}
	return nil, nil
}

// explain runs the command as users have it.
func explain(ctx context.Context, admin string, args ...string) ([]explained, error) {
	command := exec.CommandContext(ctx, filepath.Join(bed.Root(), "build", "healthgate"), append([]string{"explain", "--admin", admin, "--output", "json"}, args...)...)
	text, err := command.Output()
	const found = 1 // it has something to say
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != found) {
		return nil, fmt.Errorf("healthgate explain: %w (make command builds it)", err)
	}
	var report struct{ Gates []explained }
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("healthgate explain: %w: %s", err, text)
	}
	return report.Gates, nil
}

// admin is Envoy's admin interface. Where something takes the place of the contrib door's host, the configuration that it shows is as
// it is written for the contrib build, which has it so.
func (r *Run) admin() http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(request *httputil.ProxyRequest) {
		request.Out.URL.Scheme, request.Out.URL.Host = "http", r.Envoy.Admin
	}}
	standIn := false
	for _, d := range r.options.Doors {
		standIn = standIn || door.HasStandIn(d)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if standIn && request.URL.Path == "/config_dump" {
			_ = json.NewEncoder(w).Encode(r.control.written.dump()) // to the command, which says what it misses
			return
		}
		proxy.ServeHTTP(w, request)
	})
}

// dump is what admin would show of what was pushed last.
func (w written) dump() any {
	const admin = "type.googleapis.com/envoy.admin.v3."
	listeners := []any{}
	for _, listener := range w.listeners {
		listeners = append(listeners, map[string]any{"listener": listener})
	}
	return map[string]any{"configs": []any{
		map[string]any{"@type": admin + "ListenersConfigDump", "static_listeners": listeners},
		map[string]any{"@type": admin + "RoutesConfigDump", "static_route_configs": []any{map[string]any{"route_config": w.routes}}},
	}}
}
