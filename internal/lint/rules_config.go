package lint

import (
	"errors"
	"strings"

	"healthgate/filter/config"
)

// checkConfig decodes the gate's configuration, and each merged one, as the filter does.
func (s *scope) checkConfig(f *findings, g *gate) {
	layers := []*layer{g.layer}
	known := map[*layer]bool{g.layer: true}
	for _, p := range g.probes {
		for _, l := range p.layers {
			if !known[l] {
				known[l] = true
				layers = append(layers, l)
			}
		}
	}
	wrong := false
	for i, l := range layers {
		if l.late && !s.dumped {
			f.add(l.at, Warning, "config", "a module's configuration may be a TypedStruct from Envoy 1.40 on, and Envoy before that hands "+
				"over bytes that the filter refuses: write google.protobuf.Struct")
		}
		err := l.err
		if err == nil && i == 0 {
			_, err = g.variant.read(l.value.structure())
		} else if err == nil {
			err = g.variant.readOverride(l.value.structure())
		}
		wrong = reportErrors(f, []*layer{l}, err) || wrong
	}
	if !wrong { // errors of a merged configuration alone
		for _, p := range g.probes {
			reportErrors(f, p.layers, g.decode(p.layers).err)
		}
	}
	if g.variant == module {
		s.checkStartup(f, g)
	}
}

// reportErrors reports the decoder's errors of layers, and says whether there are any.
func reportErrors(f *findings, layers []*layer, err error) bool {
	follows := "the filter refuses its whole configuration"
	if layers[0].over || len(layers) > 1 {
		follows = "its probes are answered with 503 healthgate_error, if Envoy can't refuse the update"
	}
	return report(f, layers, err, follows)
}

// report puts the decoder's errors at their keys, with the consequence.
func report(f *findings, layers []*layer, err error, follows string) bool {
	if err == nil {
		return false
	}
	const rule = "config"
	all := config.Errors{}
	if !errors.As(err, &all) {
		f.add(layers[0].at, Error, rule, "%s; %s", err, follows)
		return true
	}
	for _, one := range all {
		if wrong := (*config.KeyError)(nil); errors.As(one, &wrong) {
			f.add(find(layers, wrong.Path), Error, rule, "%s; %s", wrong, follows)
		}
	}
	return true
}

// isStartup says whether a bootstrap extension is Healthgate's.
func isStartup(contents *Node) bool {
	return isModule(contents) || isNear(contents.text("extension_name"), pluginName)
}

// checkStartup finds a dynamic module without the bootstrap extension, which reads the gauges for it.
func (s *scope) checkStartup(f *findings, g *gate) {
	if s.bootstrap == nil {
		return
	}
	extensions := 0
	for _, extension := range s.bootstrap.list("bootstrap_extensions") {
		contents, typeName := typed(extension.get("typed_config"))
		if typeName == typeModuleStartup && isStartup(contents) {
			checkModuleName(f, contents)
			if extensions++; extensions > 1 {
				f.add(extension, Error, "config", "the bootstrap extension of healthgate is there twice, and the second is refused: leave it out")
			}
		}
	}
	if extensions == 0 {
		f.add(g.filter, Error, "config", "a dynamic module reads Envoy's gauges by a bootstrap extension, which is not there, so the "+
			"filter refuses its configuration: "+
			"add to the bootstrap: bootstrap_extensions: [{name: healthgate, typed_config: {\"@type\": type.googleapis.com/%s, "+
			"dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}, extension_name: healthgate}}]", typeModuleStartup)
	}
}

// library is where Envoy loads Healthgate from.
type library struct {
	at       *Node
	id, path string // of the plugin
	file     string // of the module: its path, or the name by which it is searched for
	byPath   bool
}

// checkLibraries finds Healthgate loaded from two files. Each has its own memory.
func (s *scope) checkLibraries(f *findings, gates []*gate) {
	var first *library
	for _, m := range s.connectionManagers() {
		for _, entry := range m.list("http_filters") {
			contents, typeName := s.httpFilter(entry)
			if typeName != typeGolang || !isOwn(contents, typeName) {
				continue
			}
			l := library{at: contents, id: contents.text("library_id"), path: contents.text("library_path")}
			if first == nil {
				first = &l
			} else if l.id != first.id || l.path != first.path {
				key := "library_path"
				if l.path == first.path {
					key = "library_id"
				}
				f.add(contents.at(key), Error, "two-libraries", "the plugin healthgate has the id %q and the path %q here, and %q and %q in line "+
					"%d: Envoy loads both, and routes get the one that was loaded last, which can end Envoy: one library_id, one library_path",
					l.id, l.path, first.id, first.path, first.at.line)
			}
		}
	}
	s.checkModules(f, gates)
}

// checkModules holds each use of the module to the bootstrap extension's, which reads the gauges for the filters of the same copy.
func (s *scope) checkModules(f *findings, gates []*gate) {
	if s.dumped { // it runs
		return
	}
	var first *library
	one := func(contents *Node) {
		l := moduleLibrary(contents.get("dynamic_module_config"))
		switch {
		case l == nil || l.isMisspelt():
		case first == nil:
			first = l
		case l.byPath == first.byPath && l.file != first.file:
			f.add(l.at, Error, "two-libraries", "the module is %s here, and %s in line %d: two copies of it know nothing of each other, so "+
				"this one is refused: write the same in both places", l, first, first.at.line)
		case l.byPath != first.byPath:
			severity, follows := Error, "two copies of it know nothing of each other, so this one is refused"
			if strings.HasSuffix(l.file, "/lib"+first.file+".so") || strings.HasSuffix(first.file, "/lib"+l.file+".so") {
				severity, follows = Warning, "unless both are one file, the two copies know nothing of each other, and Envoy refuses this one"
			}
			f.add(l.at, severity, "two-libraries", "the module is loaded by %s here, and by %s in line %d: %s: write the same in both places", l,
				first, first.at.line, follows)
		}
	}
	for _, extension := range s.bootstrap.list("bootstrap_extensions") {
		if contents, typeName := typed(extension.get("typed_config")); typeName == typeModuleStartup && isStartup(contents) {
			one(contents)
		}
	}
	for _, g := range gates {
		if g.variant != module {
			continue
		}
		one(g.contents)
		for _, at := range g.overrideContents() {
			one(at)
		}
	}
}

// isMisspelt says whether a module's name is one slip from the right one, which is reported by itself.
func (l *library) isMisspelt() bool {
	return !l.byPath && l.file != pluginName && isNear(l.file, pluginName)
}

// String is how a library is named in a finding.
func (l *library) String() string {
	if l.byPath {
		return "the path " + l.file
	}
	return "the name " + l.file
}

// moduleLibrary reads a DynamicModuleConfig, of which module counts if both are given.
func moduleLibrary(n *Node) *library {
	if path := n.get("module", "local", "filename"); path != nil {
		return &library{at: path, file: path.scalar, byPath: true}
	}
	if name := n.get("name"); name != nil && n.get("module") == nil {
		return &library{at: name, file: name.scalar}
	}
	return nil
}

// overrideContents are the messages by which routes configure the filter.
func (g *gate) overrideContents() []*Node {
	var all []*Node
	known := map[*Node]bool{}
	for _, routes := range g.routing.configurations {
		for _, virtualHost := range routes.list("virtual_hosts") {
			for _, level := range append([]*Node{routes, virtualHost}, routesOf(virtualHost)...) {
				contents, typeName := typed(level.get("typed_per_filter_config", g.filter.text("name")))
				if typeName == typeFilterConfig {
					contents, typeName = typed(contents.get("config"))
				}
				if typeName == typeModuleRoute && !known[contents] {
					known[contents] = true
					all = append(all, contents)
				}
			}
		}
	}
	return all
}
