// Package configure is the command config: it adds a gate to an Envoy configuration. The result is used only if it reads back as the file
// with exactly the additions.
//
//	gate.go       the gate to add, and its lines from gate.tmpl
//	document.go   a text in YAML or JSON, by its lines and its values
//	find.go       the connection manager, routes and cluster in a file
//	edit.go       one addition: which lines go where
//	configmap.go  a configuration inside a ConfigMap
//	into.go       all additions to one file, and notes about their effects
package configure
