package lint

import (
	"regexp"
	"strings"
)

// The errors of go-control-plane's generated validation: of one field, and of a whole message.
type (
	fieldError interface {
		Field() string // its name in Go: LoadAssignment, or Filters[0]
		Reason() string
		Cause() error
	}
	fieldErrors interface{ AllErrors() []error }
)

// validation reports an error of the generated validation at its field.
func (a *api) validation(err error, n *Node, path string) {
	if err == nil {
		return
	}
	if all, ok := err.(fieldErrors); ok {
		for _, one := range all.AllErrors() {
			a.validation(one, n, path)
		}
		return
	}
	wrong, ok := err.(fieldError)
	if !ok {
		a.fail(n, "%s%s", err, refuses)
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
		a.validation(cause, below, name)
		return
	}
	a.fail(below, "%s: %s%s", name, wrong.Reason(), refuses)
}

// istioFills matches fields of remote Wasm modules that Istio's agent sets, because it fetches the modules itself.
var istioFills = regexp.MustCompile(`\bcode\.remote\.(sha256|http_uri(\.(cluster|http_upstream_type|timeout))?)$`)

// goField returns the field that Go calls LoadAssignment or Filters[0], and its name in the API; if it is missing, the nearest node above.
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
