package lint

import (
	"cmp"
	"errors"
	"path"

	"healthgate/filter/config"
)

// checkConfig decodes the gate's configuration, and each merged one, as the filter does.
func (s *scope) checkConfig(f findings, g *gate) {
	known := map[*layer]bool{}
	wrong := false
	for _, p := range append([]probe{{layers: []*layer{g.layer}}}, g.probes...) {
		for _, l := range p.layers {
			if known[l] {
				continue
			}
			known[l] = true
			if l.isLate && !s.dumped {
				f.add(l.at, Warning, "config", "before Envoy 1.40 the filter refuses a TypedStruct as a module's configuration: write "+
					"google.protobuf.Struct")
			}
			wrong = reportErrors(f, []*layer{l}, g.errorOf(l)) || wrong
		}
	}
	for _, p := range g.probes {
		if !wrong {
			reportErrors(f, p.layers, g.decode(p.layers).err)
		}
	}
	if g.variant == module && s.bootstrap != nil {
		s.checkStartup(f, g)
	}
}

// reportErrors reports the decoder's errors of layers, and whether there are any.
func reportErrors(f findings, layers []*layer, err error) bool {
	follows := "the filter refuses its whole configuration"
	if layers[0].isOverride || len(layers) > 1 {
		follows = "its probes get 503 healthgate_error, unless Envoy refuses the update"
	}
	return report(f, layers, err, follows)
}

// report reports the decoder's errors at their keys, with the consequence, and whether there are any.
func report(f findings, layers []*layer, err error, follows string) bool {
	if err == nil {
		return false
	}
	all := config.Errors{}
	if !errors.As(err, &all) {
		f.add(layers[0].at, Error, "config", "%s; %s", err, follows)
	}
	for _, one := range all {
		f.add(nodeAt(layers, one.Path), Error, "config", "%s; %s", one, follows)
	}
	return true
}

// checkMisplaced reports a gate that is no filter of a connection manager: in another filter, or in a cluster's filter chain.
func (s *scope) checkMisplaced(f findings, gates []*gate) {
	placed := map[*Node]bool{}
	for _, g := range gates {
		placed[g.contents] = true
	}
	for _, extension := range s.extensions { // a listener that is not in the files may use it
		contents, _ := typed(extension.get("typed_config"))
		placed[contents] = true
	}
	for _, resource := range s.resources {
		resource.each(func(n *Node) {
			for _, e := range n.pairs("typed_per_filter_config") { // the rule api reports the filter's message there
				placed[e.value] = true
			}
			if contents, typeName := typed(n); isGate(contents, typeName) && !placed[contents] {
				f.add(n, Warning, "unread", "this Healthgate filter is not in the http_filters of a connection manager, so lint does not check it: "+
					"add it there, with disabled: true, and enable it on the probe's route")
				s.elsewhere++
			}
		})
	}
}

// startups returns Healthgate's bootstrap extensions in a bootstrap.
func startups(bootstrap *Node) (all []*Node) {
	for _, extension := range bootstrap.list("bootstrap_extensions") {
		if contents, typeName := typed(extension.get("typed_config")); typeName == typeModuleStartup && isModule(contents) {
			all = append(all, contents)
		}
	}
	return all
}

// needsStartup is the finding about a dynamic module without its bootstrap extension.
const needsStartup = "the dynamic module needs a bootstrap extension that samples Envoy's gauges, and without it refuses the filter's " +
	"configuration: add to %s: bootstrap_extensions: [{name: healthgate, typed_config: {\"@type\": type.googleapis.com/" +
	typeModuleStartup + ", dynamic_module_config: %s, extension_name: healthgate}}]"

// checkStartup reports a dynamic module without its bootstrap extension, or with two.
func (s *scope) checkStartup(f findings, g *gate) {
	extensions := startups(s.bootstrap)
	if len(extensions) == 0 {
		f.add(g.filter, Error, "config", needsStartup, "the bootstrap", "{name: healthgate, metrics_namespace: healthgate}")
	}
	for i, contents := range extensions {
		checkModuleName(f, contents)
		if i > 0 {
			f.add(contents, Error, "config", "a second bootstrap extension of healthgate is refused: remove it")
		}
	}
}

// library is the file from which Envoy loads the module.
type library struct {
	at     *Node
	file   string // its path, or the name by which Envoy looks for it
	byPath bool
}

func (l *library) String() string {
	if l.byPath {
		return "the path " + l.file
	}
	return "the name " + l.file
}

// isMisspelt reports whether a module's name is a misspelt healthgate, which another finding reports.
func (l *library) isMisspelt() bool {
	return !l.byPath && l.file != gateName && isNear(l.file)
}

// isNamed reports whether a path is a file that Envoy finds by the name of another library.
func (l *library) isNamed(name *library) bool {
	return l.byPath && !name.byPath && path.Base(l.file) == "lib"+name.file+".so"
}

// moduleLibrary reads a message's DynamicModuleConfig, in which module replaces name; nil if it has neither.
func moduleLibrary(contents *Node) *library {
	n := contents.get("dynamic_module_config")
	if path := n.get("module", "local", "filename"); path != nil {
		return &library{at: path, file: path.scalar, byPath: true}
	}
	if name := n.get("name"); name != nil && n.get("module") == nil {
		return &library{at: name, file: name.scalar}
	}
	return nil
}

// checkLibraries reports Healthgate loaded from two files, each of which has its own memory.
func (s *scope) checkLibraries(f findings, gates []*gate) {
	var firstPlugin *Node
	modules := startups(s.bootstrap)
	for _, g := range gates {
		if g.variant == module {
			modules = append(append(modules, g.contents), g.routeModules...)
			continue
		}
		firstPlugin = cmp.Or(firstPlugin, g.contents)
		id, file := g.contents.text("library_id"), g.contents.text("library_path")
		firstID, firstFile := firstPlugin.text("library_id"), firstPlugin.text("library_path")
		if id == firstID && file == firstFile {
			continue
		}
		key := "library_path"
		if file == firstFile {
			key = "library_id"
		}
		f.add(g.contents.at(key), Error, "two-libraries", "the plugin healthgate has the id %q and the path %q here, and %q and %q in line "+
			"%d: Envoy loads both, and routes use the one that was loaded last, which can crash Envoy: use one library_id and one library_path",
			id, file, firstID, firstFile, firstPlugin.line)
	}
	var first *library // the bootstrap extension's, which samples for filters of the same file
	for _, contents := range modules {
		switch l := moduleLibrary(contents); {
		case l == nil || l.isMisspelt() || s.dumped:
		case first == nil:
			first = l
		case l.byPath != first.byPath || l.file != first.file:
			severity, follows := Error, "two copies share no memory, so Envoy refuses this one"
			if l.isNamed(first) || first.isNamed(l) {
				severity, follows = Warning, "unless both are one file, Envoy loads two copies, which share no memory, and refuses this one"
			}
			f.add(l.at, severity, "two-libraries", "the module is loaded by %s here, and by %s in line %d: %s: write the same in both places", l,
				first, first.at.line, follows)
		}
	}
}
