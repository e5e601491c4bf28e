package lint

import (
	"regexp"
	"strings"
)

// The errors of go-control-plane's generated checks: one error for each field, and all of them together.
type (
	fieldError interface {
		Field() string // as Go has it: LoadAssignment, or Filters[0]
		Reason() string
		Cause() error
	}
	fieldErrors interface{ AllErrors() []error }
)

// rules holds a message to the API's rules for its fields.
func (a *api) rules(read readMessage) {
	checked, ok := read.message.(interface{ ValidateAll() error })
	if !ok {
		return
	}
	if err := checked.ValidateAll(); err != nil {
		a.broken(err, read.node, "")
	}
}

// broken puts an error of the generated checks where its field stands.
func (a *api) broken(err error, n *Node, path string) {
	if all, ok := err.(fieldErrors); ok {
		for _, one := range all.AllErrors() {
			a.broken(one, n, path)
		}
		return
	}
	wrong, ok := err.(fieldError)
	if !ok {
		a.fail(n, "%s, and Envoy refuses the whole configuration", err)
		return
	}
	below, name, whole := n.goField(wrong.Field())
	if path != "" {
		name = path + "." + name
	}
	if a.patch && istioFills.MatchString(name) {
		return
	}
	if cause := wrong.Cause(); cause != nil && whole {
		a.broken(cause, below, name)
		return
	}
	a.fail(below, "%s: %s, and Envoy refuses the whole configuration", name, wrong.Reason())
}

// istioFills are fields that Istio's agent fills in, because it fetches Wasm modules itself: the hash, the cluster, the timeout.
var istioFills = regexp.MustCompile(`\bcode\.remote\.(sha256|http_uri(\.(cluster|http_upstream_type|timeout))?)$`)

// goField finds the field that Go calls LoadAssignment or Filters[0], with the API's name. If it is not there, it is the
// nearest above it.
func (n *Node) goField(field string) (below *Node, name string, whole bool) {
	goName, index, indexed := strings.Cut(strings.TrimSuffix(field, "]"), "[")
	for _, e := range n.entries {
		if !strings.EqualFold(strings.ReplaceAll(e.key, "_", ""), strings.ReplaceAll(goName, "_", "")) {
			continue
		}
		if !indexed {
			return e.value, e.key, true
		}
		name = e.key + "[" + index + "]"
		if e.value.kind == mapping {
			for _, of := range e.value.entries {
				if of.key == index {
					return of.value, name, true
				}
			}
			return e.value, name, false
		}
		below, _ = e.value.step("[" + index + "]")
		if below == nil {
			return e.value, name, false
		}
		return below, name, true
	}
	return n, snake(goName), false
}

// snake writes LoadAssignment as load_assignment.
func snake(goName string) string {
	var b strings.Builder
	for i, r := range goName {
		if upper := r >= 'A' && r <= 'Z'; upper && i > 0 {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToLower(string(r)))
	}
	return b.String()
}
