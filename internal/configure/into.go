package configure

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"go.yaml.in/yaml/v3"

	"healthgate/filter/config"
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

// text is a configuration of Envoy: a file, or a value of a ConfigMap in it.
type text struct {
	*document
	original *document
	path     []int // to the value of a ConfigMap in the file; nil for the file itself
	first    int   // the line of the file before its first line
}

// line returns the line in the file.
func (t *text) line(line int) int { return t.first + line }

// apply applies an edit to a text. Values that were found before are then invalid.
func (t *text) apply(e edit) error {
	after, err := t.applied(e)
	if err == nil {
		t.document = after
	}
	return err
}

// file is a file with its texts.
type file struct {
	*document
	texts []*text
}

func read(content []byte) (*file, error) {
	d, err := parse(content)
	if err != nil {
		return nil, err
	}
	if len(d.root.Content) == 0 {
		return nil, errors.New("it is empty")
	}
	f := &file{document: d, texts: []*text{{document: d, original: d}}}
	for _, document := range d.top().items() {
		document.each(func(v value) {
			if v.text("kind") == "ConfigMap" {
				f.configMap(v)
			}
		})
	}
	return f, nil
}

// configMap adds the texts of a ConfigMap.
func (f *file) configMap(object value) {
	data := object.get("data")
	if data.Node == nil {
		return
	}
	for i := 1; i < len(data.Content); i += 2 {
		one := data.step(i)
		if one.Kind != yaml.ScalarNode || !strings.Contains(one.Value, "HttpConnectionManager") && !strings.Contains(one.Value, "clusters") {
			continue
		}
		if inner, err := parse([]byte(one.Value)); err == nil {
			f.texts = append(f.texts, &text{document: inner, original: inner, path: one.path, first: one.Line})
		}
	}
}

// Into returns a file in YAML or JSON with the gate added. The result reads back as the file with exactly the additions; if no such
// result is possible, it returns an error.
func (g Gate) Into(name string, content []byte, place Place) (Result, error) {
	f, err := read(content)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", name, err)
	}
	w := &writer{gate: g, file: f, place: place}
	result, err := w.write()
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", name, err)
	}
	_, shown, _ := strings.Cut(string(diff.Diff(name, content, name, result)), "\n") // without the line of the command
	return Result{Content: result, Diff: shown, Notes: w.notes}, nil
}

// writer adds one gate to one file.
type writer struct {
	gate  Gate
	file  *file
	place Place
	notes []string

	unchecked checked // the cluster that gets a health check
}

func (w *writer) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

func (w *writer) write() ([]byte, error) {
	m, err := w.manager()
	if err != nil {
		return nil, err
	}
	for _, filter := range m.get("http_filters").items() {
		if isGate(filter) {
			return nil, fmt.Errorf("the gate is already in this file, in line %d", m.text.line(filter.Line))
		}
	}
	if err := w.cluster(); err != nil {
		return nil, err
	}
	if err := w.routeAndFilter(m); err != nil {
		return nil, err
	}
	if err := w.healthCheck(); err != nil {
		return nil, err
	}
	if w.gate.Module {
		if err := w.extension(m.text); err != nil {
			return nil, err
		}
	}
	return w.file.assembled()
}

// manager returns the connection manager for the gate.
func (w *writer) manager() (manager, error) {
	var all, fit []manager
	for _, t := range w.file.texts {
		all = append(all, t.managers()...)
	}
	for _, m := range all {
		if (w.place.Listener == "" || slices.Contains(m.listenerNames(), w.place.Listener)) &&
			(w.place.RouteConfig == "" || m.routeConfigName() == w.place.RouteConfig) {
			fit = append(fit, m)
		}
	}
	describe := func(managers []manager) string {
		var b strings.Builder
		for _, m := range managers {
			b.WriteString("\n  " + m.String())
		}
		return b.String()
	}
	switch {
	case len(all) == 0:
		return manager{}, errors.New("it has no HTTP connection manager, to whose http_filters the gate could be added")
	case len(fit) == 0:
		return manager{}, fmt.Errorf("no HTTP connection manager matches --listener %q --route-config %q; there are:%s",
			w.place.Listener, w.place.RouteConfig, describe(all))
	case len(fit) > 1:
		return manager{}, fmt.Errorf("%d HTTP connection managers match; select one by --listener (a name or host:port) and --route-config:%s",
			len(fit), describe(fit))
	}
	return fit[0], nil
}

func (w *writer) routeAndFilter(m manager) error {
	routes, t, err := w.file.routeConfiguration(m)
	if err != nil {
		return fmt.Errorf("%w; add to its routes:\n%s", err, strings.Join(w.gate.route(), "\n"))
	}
	host, err := virtualHost(routes, w.place.VirtualHost)
	if err != nil {
		return err
	}
	if host.get("matcher").there() {
		return fmt.Errorf("virtual host %q in line %d selects its routes by a matcher: add the probe's route to it by hand:\n%s",
			host.text("name"), t.line(host.Line), strings.Join(w.gate.route(), "\n"))
	}
	if w.gate.disabled = toDisable(m, routes, host); len(w.gate.disabled) > 0 {
		w.note("disabled on the probe's route, because they could answer or change its reply: %s", strings.Join(w.gate.disabled, ", "))
	}
	path := m.path
	var e edit
	if host.Node != nil {
		w.note("%s", traffic(t, host, w.gate.Path))
		e = put(host, "routes", w.gate.route())
	} else {
		name := "probe"
		for _, one := range routes.get("virtual_hosts").items() {
			if one.text("name") == name {
				name = "healthgate-probe"
			}
		}
		w.note("the new route takes requests for %s to hosts that no other virtual host has; before, they got 404", w.gate.Path)
		e = put(routes, "virtual_hosts", w.gate.virtualHost(name))
	}
	if err := t.apply(e); err != nil {
		return err
	}
	// The path of the connection manager is still valid: the edit before added to another list.
	return m.text.apply(put(m.text.at(path), "http_filters", w.gate.filter()))
}

// at returns the value at a path.
func (t *text) at(path []int) value {
	v := t.top()
	for _, i := range path {
		v = v.step(i)
	}
	return v
}

// cluster finds the cluster, if the file has it, and decides whether it needs a health check.
func (w *writer) cluster() error {
	var names []string
	discovers, bootstrap := false, false
	for _, t := range w.file.texts {
		for _, cluster := range t.listed("clusters", "Cluster") {
			if name := cluster.text("name"); name != w.gate.Cluster {
				names = append(names, name)
				continue
			}
			return w.clusterIn(t, cluster)
		}
		if root, there := t.bootstrap(); there {
			bootstrap = true
			dynamic := root.get("dynamic_resources")
			discovers = discovers || dynamic.get("cds_config").there() || dynamic.get("cds_resources_locator").there()
		}
	}
	if discovers || !bootstrap {
		w.note("cluster %q is not in this file: add health_checks where it is defined, "+
			"and stat_name to the gate if it has an alt_stat_name%s",
			w.gate.Cluster, suggestion(w.gate.Cluster, names))
		return nil
	}
	return fmt.Errorf("there is no cluster %q%s", w.gate.Cluster, suggestion(w.gate.Cluster, names))
}

func (w *writer) clusterIn(t *text, cluster value) error {
	name, line := w.gate.Cluster, t.line(cluster.Line)
	w.gate.statName = cluster.text("alt_stat_name")
	w.unchecked = checked{text: t, path: cluster.path, speaks: protocolOf(cluster)}
	asked := w.gate.Check.asked()
	switch {
	case cluster.get("cluster_type").text("name") == "envoy.clusters.aggregate":
		return fmt.Errorf("cluster %q in line %d is an aggregate, which has no hosts itself: name one of its parts by --cluster, "+
			"then add the others to the gate's clusters, with require: any", name, line)
	case len(cluster.get("health_checks").items()) > 0:
		if asked {
			w.note("cluster %q has health_checks (line %d), which do not change", name, t.line(cluster.get("health_checks").key.Line))
		}
		w.unchecked = checked{}
	case !asked && cluster.text("type") == "EDS":
		w.note("cluster %q (line %d) has no health_checks: its hosts are healthy unless EDS reports otherwise; "+
			"--grpc-service or --http-check adds one", name, line)
		w.unchecked = checked{}
	case !asked:
		return fmt.Errorf("cluster %q in line %d has no health checks, so the gate would always pass: "+
			"add --grpc-service NAME if it implements grpc.health.v1 (\"\" is the server as a whole), or --http-check PATH", name, line)
	case w.gate.Check.GRPC && w.unchecked.speaks == other:
		return fmt.Errorf("cluster %q in line %d does not speak HTTP/2, so Envoy can't check it by gRPC: write explicit_http_config: "+
			"{http2_protocol_options: {}} into its typed_extension_protocol_options if its hosts speak it, or use --http-check PATH", name, line)
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

// checked is a cluster that gets a health check.
type checked struct {
	text   *text // nil if there is none
	path   []int
	speaks protocol
}

// healthCheck adds the health check, and HTTP/2 if a gRPC check needs it.
func (w *writer) healthCheck() error {
	t := w.unchecked.text
	if t == nil {
		return nil
	}
	if w.gate.Check.GRPC && w.unchecked.speaks == unset {
		cluster := t.at(w.unchecked.path)
		const key = "typed_extension_protocol_options"
		e := edit{at: cluster, key: key, name: key,
			lines: append(lines("# gRPC needs HTTP/2, for requests and for health checks.\n"+key+":"), indented(2, http2())...)}
		if options := cluster.get(key); options.there() {
			e = edit{at: options, key: httpOptions, name: key, lines: http2()}
		}
		if err := t.apply(e); err != nil {
			return err
		}
		w.note("Envoy now speaks HTTP/2 to cluster %q, for requests too; before, it spoke HTTP/1.1", w.gate.Cluster)
	}
	return t.apply(put(t.at(w.unchecked.path), "health_checks", w.gate.Check.healthCheck(w.unchecked.speaks == http2Only)))
}

// protocol is the HTTP version that Envoy speaks to a cluster.
type protocol uint8

const (
	unset protocol = iota // HTTP/1.1, the default
	other                 // explicitly HTTP/1.1, or another without HTTP/2
	http2Only
	both // HTTP/1.1 or HTTP/2
)

func protocolOf(cluster value) protocol {
	if cluster.get("http2_protocol_options").Node != nil {
		return http2Only
	}
	options := cluster.get("typed_extension_protocol_options").exactly(httpOptions)
	switch {
	case options.Node == nil:
		return unset
	case options.get("explicit_http_config", "http2_protocol_options").Node != nil:
		return http2Only
	case options.get("auto_config").Node != nil, options.get("use_downstream_protocol_config", "http2_protocol_options").Node != nil:
		return both
	}
	return other
}

// extension adds the bootstrap extension that the dynamic module needs.
func (w *writer) extension(near *text) error {
	texts := append([]*text{near}, w.file.texts...)
	for _, t := range texts {
		root, there := t.bootstrap()
		if !there {
			continue
		}
		for _, one := range root.get("bootstrap_extensions").items() {
			if one.get("typed_config").text("extension_name") == "healthgate" {
				return nil
			}
		}
		return t.apply(put(root, "bootstrap_extensions", w.gate.extension()))
	}
	w.note("the bootstrap is not in this file; the dynamic module needs there:\nbootstrap_extensions:\n%s",
		strings.Join(w.gate.extension(), "\n"))
	return nil
}

// assembled returns the file with its texts.
func (f *file) assembled() ([]byte, error) {
	whole := f.texts[0].document
	for _, t := range f.texts[1:] {
		next, err := whole.withBlock(t)
		if err != nil {
			return nil, err
		}
		whole = next
	}
	return whole.text(), nil
}

// withBlock returns the file with a text as the value in a ConfigMap.
func (d *document) withBlock(t *text) (*document, error) {
	at := (&text{document: d}).at(t.path)
	before, err := parse([]byte(at.Value))
	if err != nil || slices.Equal(before.lines, t.lines) {
		return d, err
	}
	want := d.tree.with(t.path, func(value *tree) {
		// A block without a newline at its end (|-) keeps that form.
		value.value = strings.Join(t.lines, "\n")
		if strings.HasSuffix(at.Value, "\n") {
			value.value += "\n"
		}
	})
	if at.Style&yaml.LiteralStyle == 0 || at.Line+1 > len(d.lines) {
		return nil, fmt.Errorf("the value in line %d is quoted or folded: write it as a block (|), so that lines can be added", at.Line)
	}
	first := d.lines[at.Line] // after the indicator
	indent := len(first) - len(strings.TrimLeft(first, " "))
	content := indented(indent, t.lines)
	result, err := parse(d.edited(at.Line+1, at.Line+1+len(before.lines), content))
	if err != nil || !result.tree.equal(want) {
		return nil, fmt.Errorf("the value in line %d can't be written back as it was read", at.Line)
	}
	return result, nil
}
