package configure

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"healthgate/filter/config"
	"healthgate/internal/lint"
)

// Place selects the place of the gate in a file. Empty fields select nothing.
type Place struct {
	Listener    string // a listener's name, or its host:port
	RouteConfig string // the name of the route configuration
	VirtualHost string // the name of the virtual host; default: the one for the domain "*"
}

// Result is a file with the gate in it.
type Result struct {
	Content []byte
	Diff    string   // in the form of diff -u
	Notes   []string // for the operator
}

// Into returns a file in YAML or JSON with the gate added. The result reads back as the file with exactly the additions; if no such
// result is possible, it returns an error.
func (g Gate) Into(name string, content []byte, place Place) (Result, error) {
	w := &writer{facts: facts{Gate: g}, place: place}
	result, err := w.write(content)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", name, err)
	}
	_, shown, _ := strings.Cut(string(diff.Diff(name, content, name, result)), "\n") // without the line of the command
	return Result{Content: result, Diff: shown, Notes: w.notes}, nil
}

// writer adds one gate to one file.
type writer struct {
	facts
	place Place
	texts []*text // the file, then the values of its ConfigMaps
	notes []string

	// The cluster that gets a health check.
	unchecked *text // nil if none gets one
	path      []int
	speaks    protocol
}

func (w *writer) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

func (w *writer) write(content []byte) ([]byte, error) {
	d, err := parse(content)
	if err != nil {
		return nil, err
	}
	if len(d.root.Content) == 0 {
		return nil, errors.New("it is empty")
	}
	w.texts = []*text{{document: d, original: d}}
	d.at(nil).each(func(v value) {
		if v.text("kind") == "ConfigMap" {
			w.texts = append(w.texts, textsOf(v)...)
		}
	})
	m, err := w.findManager()
	if err != nil {
		return nil, err
	}
	for _, filter := range m.items("http_filters") {
		if isGate(filter) {
			return nil, fmt.Errorf("the gate is already in this file, in line %d", m.in.line(filter.Line))
		}
	}
	if err := w.findCluster(); err != nil {
		return nil, err
	}
	if err := w.addRouteAndFilter(m); err != nil {
		return nil, err
	}
	if err := w.addHealthCheck(); err != nil {
		return nil, err
	}
	if err := w.addExtension(m.in); err != nil {
		return nil, err
	}
	for _, t := range w.texts[1:] {
		if d, err = w.texts[0].withBlock(t); err != nil {
			return nil, err
		}
		w.texts[0].document = d
	}
	return w.texts[0].with(replacement{from: 1, before: 1}), nil
}

// findManager returns the connection manager for the gate.
func (w *writer) findManager() (m manager, err error) {
	var fit []manager
	all, fits := "", ""
	for _, t := range w.texts {
		for _, m := range t.managers() {
			all += "\n  " + m.String()
			if (w.place.Listener == "" || slices.Contains(m.listenerNames(), w.place.Listener)) &&
				(w.place.RouteConfig == "" || m.routeConfigName() == w.place.RouteConfig) {
				fit = append(fit, m)
				fits += "\n  " + m.String()
			}
		}
	}
	switch {
	case all == "":
		return m, errors.New("it has no HTTP connection manager, to whose http_filters the gate could be added")
	case len(fit) == 0:
		return m, fmt.Errorf("no HTTP connection manager matches%s; there are:%s", w.place.managerFlags(), all)
	case len(fit) > 1:
		return m, fmt.Errorf("%d HTTP connection managers match; select one by --listener (a name or host:port) and --route-config:%s",
			len(fit), fits)
	}
	return fit[0], nil
}

// managerFlags returns the given flags that select a connection manager.
func (p Place) managerFlags() (flags string) {
	if p.Listener != "" {
		flags += fmt.Sprintf(" --listener %q", p.Listener)
	}
	if p.RouteConfig != "" {
		flags += fmt.Sprintf(" --route-config %q", p.RouteConfig)
	}
	return flags
}

func (w *writer) addRouteAndFilter(m manager) error {
	routes, t, err := w.routeConfiguration(m)
	if err != nil {
		return fmt.Errorf("%w; add to its routes:\n%s", err, strings.Join(w.part("route"), "\n"))
	}
	host, err := virtualHost(routes, w.place.VirtualHost)
	if err != nil {
		return err
	}
	if host.get("matcher").there() {
		return fmt.Errorf("virtual host %q in line %d selects its routes by a matcher: add the probe's route to it by hand:\n%s",
			host.text("name"), t.line(host.Line), strings.Join(w.part("route"), "\n"))
	}
	if w.Disabled = toDisable(m, routes, host); len(w.Disabled) > 0 {
		w.note("disabled on the probe's route, because they could answer or change its reply: %s", strings.Join(w.Disabled, ", "))
	}
	path := m.path
	if host.Node != nil {
		w.noteTraffic(t, host)
		err = t.apply(addItem(host, "routes", w.part("route")))
	} else {
		w.HostName = "probe"
		if slices.ContainsFunc(routes.items("virtual_hosts"), func(v value) bool { return v.text("name") == w.HostName }) {
			w.HostName = "healthgate-probe"
		}
		w.note("the new route takes requests for %s to hosts that no other virtual host has; before, they got 404", w.Path)
		err = t.apply(addItem(routes, "virtual_hosts", w.part("virtual host")))
	}
	if err != nil {
		return err
	}
	// The path of the connection manager is still valid: the edit before added to another list.
	return m.in.apply(addItem(m.in.at(path), "http_filters", w.part("filter")))
}

// noteTraffic describes the requests that the gate's route takes, and the routes that took them before.
func (w *writer) noteTraffic(t *text, virtualHost value) {
	var before []string
	for _, taker := range lint.Takers(virtualHost.Node, w.Path) {
		text := fmt.Sprintf("line %d (%s), which %s", t.line(taker.Line), taker.Match, taker.Action)
		if !taker.Always {
			text += " if its other conditions match"
		}
		before = append(before, text)
	}
	took := "no route took them before"
	if len(before) > 0 {
		took = "before, these took them: " + strings.Join(before, ", then ") + "; --path chooses another path"
	}
	w.note("the new route takes every request for %s of virtual host %q: the gate answers GET, HEAD and gRPC POST, other requests get 503; %s",
		w.Path, virtualHost.text("name"), took)
}

// findCluster finds the cluster, if the file has it, and decides whether it needs a health check.
func (w *writer) findCluster() error {
	var names []string
	discovers, bootstrap := false, false
	for _, t := range w.texts {
		for _, cluster := range t.listed("clusters", "Cluster") {
			name := cluster.text("name")
			if name == w.Cluster {
				return w.checkCluster(t, cluster)
			}
			names = append(names, name)
		}
		root, there := t.bootstrap()
		bootstrap = bootstrap || there
		discovers = discovers || root.get("dynamic_resources", "cds_config").there() ||
			root.get("dynamic_resources", "cds_resources_locator").there()
	}
	if bootstrap && !discovers {
		return fmt.Errorf("there is no cluster %q%s", w.Cluster, suggestion(w.Cluster, names))
	}
	w.note("cluster %q is not in this file: add health_checks where it is defined, "+
		"and stat_name to the gate if it has an alt_stat_name%s", w.Cluster, suggestion(w.Cluster, names))
	return nil
}

func (w *writer) checkCluster(t *text, cluster value) error {
	name, line := w.Cluster, t.line(cluster.Line)
	w.StatName = cluster.text("alt_stat_name")
	speaks := protocolOf(cluster)
	asked := w.Check.GRPC || w.Check.Path != ""
	checks := cluster.get("health_checks")
	switch {
	case cluster.text("cluster_type", "name") == "envoy.clusters.aggregate":
		return fmt.Errorf("cluster %q in line %d is an aggregate, which has no hosts itself: name one of its parts by --cluster, "+
			"then add the others to the gate's clusters, with require: any", name, line)
	case len(checks.items()) > 0 && asked:
		w.note("cluster %q has health_checks (line %d), which do not change", name, t.line(checks.key.Line))
	case len(checks.items()) > 0:
	case !asked && cluster.text("type") == "EDS":
		w.note("cluster %q (line %d) has no health_checks: its hosts are healthy unless EDS reports otherwise; "+
			"--grpc-service or --http-check adds one", name, line)
	case !asked:
		return fmt.Errorf("cluster %q in line %d has no health checks, so the gate would always pass: "+
			"add --grpc-service NAME if it implements grpc.health.v1 (\"\" is the server as a whole), or --http-check PATH", name, line)
	case w.Check.GRPC && speaks == other:
		return fmt.Errorf("cluster %q in line %d does not speak HTTP/2, so Envoy can't check it by gRPC: write explicit_http_config: "+
			"{http2_protocol_options: {}} into its typed_extension_protocol_options if its hosts speak it, or use --http-check PATH", name, line)
	default:
		w.unchecked, w.path, w.speaks = t, cluster.path, speaks
	}
	return nil
}

// suggestion is the end of an error about an unknown name: the likely one, or all.
func suggestion(name string, names []string) string {
	if near := config.Nearest(name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	if len(names) == 0 {
		return ""
	}
	if more := len(names) - 10; more > 0 {
		names = append(slices.Clone(names[:10]), fmt.Sprintf("and %d more", more))
	}
	return "; there are " + strings.Join(names, ", ")
}

// addHealthCheck adds the health check, and HTTP/2 if a gRPC check needs it.
func (w *writer) addHealthCheck() error {
	t := w.unchecked
	if t == nil {
		return nil
	}
	if w.Check.GRPC && w.speaks == unset {
		const key = "typed_extension_protocol_options"
		e := edit{at: t.at(w.path), key: key, name: key, lines: w.part("options")}
		if options := e.at.get(key); options.Node != nil {
			e = edit{at: options, key: httpOptions, name: key, lines: w.part("protocol")}
		}
		if err := t.apply(e); err != nil {
			return err
		}
		w.note("Envoy now speaks HTTP/2 to cluster %q, for requests too; before, it spoke HTTP/1.1", w.Cluster)
	}
	w.HTTP2 = w.speaks == http2Only
	return t.apply(addItem(t.at(w.path), "health_checks", w.part("health check")))
}

// protocol is the HTTP version that Envoy speaks to a cluster.
type protocol uint8

const (
	unset protocol = iota // HTTP/1.1, the default
	other                 // explicitly HTTP/1.1, or another without HTTP/2
	http2Only
	both // HTTP/1.1 or HTTP/2
)

const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func protocolOf(cluster value) protocol {
	options := cluster.get("typed_extension_protocol_options").exactly(httpOptions)
	switch {
	case cluster.get("http2_protocol_options").Node != nil, options.get("explicit_http_config", "http2_protocol_options").Node != nil:
		return http2Only
	case options.Node == nil:
		return unset
	case options.get("auto_config").Node != nil, options.get("use_downstream_protocol_config", "http2_protocol_options").Node != nil:
		return both
	}
	return other
}

// addExtension adds the bootstrap extension that the dynamic module needs.
func (w *writer) addExtension(near *text) error {
	if !w.Module {
		return nil
	}
	for _, t := range append([]*text{near}, w.texts...) {
		root, there := t.bootstrap()
		if !there {
			continue
		}
		for _, one := range root.items("bootstrap_extensions") {
			if one.text("typed_config", "extension_name") == "healthgate" {
				return nil
			}
		}
		return t.apply(addItem(root, "bootstrap_extensions", w.part("extension")))
	}
	w.note("the bootstrap is not in this file; the dynamic module needs there:\nbootstrap_extensions:\n%s",
		strings.Join(w.part("extension"), "\n"))
	return nil
}
