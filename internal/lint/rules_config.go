package lint

import (
	"errors"

	"healthgate/filter"
)

// checkConfig holds the gate's own configuration, and each that is laid over it, to the plugin's decoder.
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
		err := l.err
		if err == nil && i == 0 {
			_, err = g.variant.read(l.value.structure())
		} else if err == nil {
			err = g.variant.readOverride(l.value.structure())
		}
		wrong = tellErrors(f, []*layer{l}, err) || wrong
	}
	if !wrong { // what is wrong with two only together
		for _, p := range g.probes {
			tellErrors(f, p.layers, g.decode(p.layers).err)
		}
	}
	if g.variant == module {
		s.checkStartup(f, g)
	}
}

// tellErrors puts what the decoder says at its keys, and says whether it said anything.
func tellErrors(f *findings, layers []*layer, err error) bool {
	if err == nil {
		return false
	}
	const rule = "config"
	follows := "the filter refuses its whole configuration"
	if layers[0].over || len(layers) > 1 {
		follows = "its probes are answered with 503 healthgate_error, where Envoy can't refuse the update"
	}
	all := filter.Errors{}
	if !errors.As(err, &all) {
		f.add(layers[0].at, Error, rule, "%s; %s", err, follows)
		return true
	}
	for _, one := range all {
		if wrong := (*filter.KeyError)(nil); errors.As(one, &wrong) {
			f.add(find(layers, wrong.Path), Error, rule, "%s; %s", wrong, follows)
		}
	}
	return true
}

// checkStartup finds a stock door without the bootstrap extension, which reads the gauges for it.
func (s *scope) checkStartup(f *findings, g *gate) {
	if s.bootstrap == nil {
		return
	}
	extensions := 0
	for _, extension := range s.bootstrap.list("bootstrap_extensions") {
		contents, typeName := typed(extension.get("typed_config"))
		if typeName == typeModuleStartup && (contents.text("extension_name") == pluginName || isModule(contents)) {
			if extensions++; extensions > 1 {
				f.add(extension, Error, "config", "the bootstrap extension of healthgate is there twice, and the second is refused: leave it out")
			}
		}
	}
	if extensions == 0 {
		f.add(g.filter, Error, "config", "a dynamic module reads Envoy's gauges by a bootstrap extension, which is not there, so the filter refuses its configuration: "+
			"add to the bootstrap: bootstrap_extensions: [{name: healthgate, typed_config: {\"@type\": type.googleapis.com/%s, "+
			"dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}, extension_name: healthgate}}]", typeModuleStartup)
	}
}

// checkLibraries finds a plugin that comes from two files.
func (s *scope) checkLibraries(f *findings) {
	type library struct{ id, path string }
	var first *Node
	var known library
	for _, m := range s.connectionManagers() {
		for _, entry := range m.list("http_filters") {
			contents, typeName := s.httpFilter(entry)
			if typeName != typeGolang || contents.text("plugin_name") != pluginName {
				continue
			}
			l := library{contents.text("library_id"), contents.text("library_path")}
			if first == nil {
				first, known = contents, l
			} else if l != known {
				key := "library_path"
				if l.path == known.path {
					key = "library_id"
				}
				f.add(contents.at(key), Error, "two-libraries", "the plugin healthgate has the id %q and the path %q here, and %q and %q in line %d: Envoy loads both, "+
					"and routes get the one that was loaded last, which can end Envoy: one library_id, one library_path",
					l.id, l.path, known.id, known.path, first.line)
			}
		}
	}
}
