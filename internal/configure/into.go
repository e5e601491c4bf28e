package configure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// insertion is lines that go in before a line of the file.
type insertion struct {
	before int // from 1; one more than the file has is its end
	lines  []string
}

// into collects what goes into a file. The file's own lines stay as they are, and with them comments, blank lines and style.
type into struct {
	wanted     Wanted
	lines      []string
	insertions []insertion
}

// Into returns a YAML file with the gate in it, and the difference in the form of `diff -u`. It only ever adds lines.
func (w Wanted) Into(name string, content []byte) (result []byte, diff string, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, another yaml.Node
	if err := decoder.Decode(&document); err != nil {
		return nil, "", fmt.Errorf("%s is not YAML: %w", name, err)
	}
	if err := decoder.Decode(&another); !errors.Is(err, io.EOF) {
		return nil, "", fmt.Errorf("%s has several documents: write the gate into one of its own", name)
	}
	if len(document.Content) == 0 {
		return nil, "", fmt.Errorf("%s is empty", name)
	}
	text := strings.TrimSuffix(string(content), "\n")
	i := &into{wanted: w, lines: strings.Split(text, "\n")}
	if err := i.bootstrap(document.Content[0]); err != nil {
		return nil, "", fmt.Errorf("%s: %w", name, err)
	}
	slices.SortStableFunc(i.insertions, func(a, b insertion) int { return a.before - b.before })
	return i.result(), i.diff(name), nil
}

// get follows keys, either as protobuf or as JSON has them.
func get(n *yaml.Node, keys ...string) *yaml.Node {
	for _, key := range keys {
		if n = child(n, key); n == nil {
			return nil
		}
	}
	return n
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if strings.EqualFold(strings.ReplaceAll(n.Content[i].Value, "_", ""), strings.ReplaceAll(key, "_", "")) {
			value := n.Content[i+1]
			if value.Kind == yaml.AliasNode {
				value = value.Alias
			}
			return value
		}
	}
	return nil
}

func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

func text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}

func (i *into) bootstrap(root *yaml.Node) error {
	managers := managers(root)
	switch {
	case len(managers) == 0:
		return errors.New("no HTTP connection manager stands in static_resources.listeners: the gate goes into its http_filters")
	case len(managers) > 1:
		return fmt.Errorf("it has %d HTTP connection managers (lines %s): print the lines without --into, and choose", len(managers), whereAll(managers))
	}
	if err := i.manager(managers[0]); err != nil {
		return err
	}
	if err := i.cluster(root); err != nil {
		return err
	}
	if i.wanted.Stock {
		return i.extension(root)
	}
	return nil
}

func managers(root *yaml.Node) []*yaml.Node {
	var all []*yaml.Node
	for _, listener := range items(get(root, "static_resources", "listeners")) {
		chains := items(get(listener, "filter_chains"))
		if byDefault := get(listener, "default_filter_chain"); byDefault != nil {
			chains = append(slices.Clone(chains), byDefault)
		}
		for _, chain := range chains {
			for _, filter := range items(get(chain, "filters")) {
				if config := get(filter, "typed_config"); strings.HasSuffix(text(get(config, "@type")), ".HttpConnectionManager") {
					all = append(all, config)
				}
			}
		}
	}
	return all
}

func whereAll(nodes []*yaml.Node) string {
	places := make([]string, len(nodes))
	for i, n := range nodes {
		places[i] = fmt.Sprint(n.Line)
	}
	return strings.Join(places, ", ")
}

func (i *into) manager(manager *yaml.Node) error {
	filters := get(manager, "http_filters")
	for _, filter := range items(filters) {
		if text(get(filter, "name")) == "healthgate" || text(get(filter, "typed_config", "plugin_name")) == "healthgate" {
			return fmt.Errorf("the gate is there already, in line %d", filter.Line)
		}
	}
	if err := i.first(filters, "http_filters", i.wanted.filter()); err != nil {
		return err
	}
	virtualHosts := get(manager, "route_config", "virtual_hosts")
	if virtualHosts == nil {
		return fmt.Errorf("the connection manager in line %d has no route_config.virtual_hosts; where its routes come by RDS, add there:\n%s",
			manager.Line, strings.Join(i.wanted.route(), "\n"))
	}
	for _, virtualHost := range items(virtualHosts) {
		domains := get(virtualHost, "domains") // one alone may stand without its dash
		if text(domains) == "*" || slices.ContainsFunc(items(domains), func(domain *yaml.Node) bool { return domain.Value == "*" }) {
			return i.first(get(virtualHost, "routes"), "routes", i.wanted.route())
		}
	}
	return i.first(virtualHosts, "virtual_hosts", i.wanted.virtualHost())
}

// cluster has somebody check the hosts.
func (i *into) cluster(root *yaml.Node) error {
	var names []string
	for _, cluster := range items(get(root, "static_resources", "clusters")) {
		name := text(get(cluster, "name"))
		if names = append(names, name); name != i.wanted.Cluster {
			continue
		}
		if get(cluster, "health_checks") != nil || text(get(cluster, "type")) == "EDS" {
			return nil
		}
		if cluster.Style&yaml.FlowStyle != 0 {
			return fmt.Errorf("the cluster in line %d is in braces: write it in lines of its own, so that health_checks can be added", cluster.Line)
		}
		speaks, err := speaksHTTP2(cluster)
		if err != nil {
			return err
		}
		block := i.wanted.healthChecks()
		if !speaks {
			block = append(block, http2()...)
		}
		after := get(cluster, "name").Line
		i.insertions = append(i.insertions, insertion{after + 1, indented(cluster.Column-1, block)})
		return nil
	}
	if get(root, "dynamic_resources", "cds_config") != nil {
		return nil // CDS may bring it
	}
	return fmt.Errorf("there is no cluster %q; there are: %s", i.wanted.Cluster, strings.Join(names, ", "))
}

// speaksHTTP2 says whether a cluster does, without which Envoy refuses to check it by gRPC. Where it says that it speaks something
// else, that is an error: whoever calls it may rely on that.
func speaksHTTP2(cluster *yaml.Node) (bool, error) {
	if get(cluster, "http2_protocol_options") != nil {
		return true, nil
	}
	all := get(cluster, "typed_extension_protocol_options")
	if all == nil {
		return false, nil
	}
	options := get(all, httpOptions)
	if get(options, "explicit_http_config", "http2_protocol_options") != nil || get(options, "auto_config") != nil ||
		get(options, "use_downstream_protocol_config", "http2_protocol_options") != nil {
		return true, nil
	}
	return false, fmt.Errorf("the cluster in line %d does not speak HTTP/2, and Envoy can't check it by gRPC: write explicit_http_config: "+
		"{http2_protocol_options: {}} into its typed_extension_protocol_options, or health_checks of another kind into it", cluster.Line)
}

func (i *into) extension(root *yaml.Node) error {
	if extensions := get(root, "bootstrap_extensions"); extensions != nil {
		return i.first(extensions, "bootstrap_extensions", i.wanted.extension())
	}
	if root.Style&yaml.FlowStyle != 0 || len(root.Content) == 0 {
		return errors.New("the file is in braces: bootstrap_extensions can't be added")
	}
	block := append([]string{"bootstrap_extensions:"}, i.wanted.extension()...)
	i.insertions = append(i.insertions, insertion{i.comments(root.Content[0].Line), append(indented(root.Content[0].Column-1, block), "")})
	return nil
}

// first puts an item before the first of a list.
func (i *into) first(list *yaml.Node, name string, item []string) error {
	if len(items(list)) == 0 {
		return fmt.Errorf("%s is empty or not there: write one entry in lines of its own, before which the gate's goes", name)
	}
	head := list.Content[0]
	if head.Line > len(i.lines) {
		return fmt.Errorf("%s can't be found again in the file", name)
	}
	line := i.lines[head.Line-1]
	dash := len(line) - len(strings.TrimLeft(line, " "))
	if list.Style&yaml.FlowStyle != 0 || dash >= len(line) || line[dash] != '-' || strings.TrimLeft(line[dash+1:min(head.Column-1, len(line))], " ") != "" {
		return fmt.Errorf("%s in line %d is in brackets: write its entries in lines of their own, behind dashes", name, list.Line)
	}
	i.insertions = append(i.insertions, insertion{i.comments(head.Line), indented(dash, item)})
	return nil
}

// comments is the first line of the comments over a line, which belong to it.
func (i *into) comments(line int) int {
	for line > 1 && strings.HasPrefix(strings.TrimLeft(i.lines[line-2], " "), "#") {
		line--
	}
	return line
}

// line is one of the result's: the file's own, or one that is added.
type line struct {
	text  string
	added bool
}

func (i *into) all() []line {
	var all []line
	at := 1
	own := func(to int) {
		for ; at < to; at++ {
			all = append(all, line{text: i.lines[at-1]})
		}
	}
	for _, insertion := range i.insertions {
		own(insertion.before)
		for _, text := range insertion.lines {
			if strings.HasSuffix(i.lines[0], "\r") { // as the file's own end
				text += "\r"
			}
			all = append(all, line{text, true})
		}
	}
	own(len(i.lines) + 1)
	return all
}

func (i *into) result() []byte {
	var b bytes.Buffer
	for _, line := range i.all() {
		b.WriteString(line.text + "\n")
	}
	return b.Bytes()
}

// around is how many lines a diff shows before and after what is added.
const around = 3

// diff is what `diff -u` would say.
func (i *into) diff(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, name)
	all := i.all()
	shown := func(at int) bool {
		return slices.ContainsFunc(all[max(0, at-around):min(len(all), at+around+1)], func(l line) bool { return l.added })
	}
	before := 0 // lines of the file before the hunk
	for at := 0; at < len(all); at++ {
		if !shown(at) {
			before++
			continue
		}
		own, start := 0, at
		var hunk strings.Builder
		for ; at < len(all) && shown(at); at++ {
			mark := "+"
			if !all[at].added {
				mark = " "
				own++
			}
			hunk.WriteString(mark + all[at].text + "\n")
		}
		fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n%s", before+1, own, start+1, at-start, hunk.String())
		before += own
		at--
	}
	return b.String()
}
