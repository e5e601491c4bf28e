package lint

import "go.yaml.in/yaml/v3"

// Taker is a route that takes requests for a path.
type Taker struct {
	Line   int
	Match  string // the condition on the path, as in prefix: /
	Action string // as in: sends it to cluster a
	Always bool   // the route has no other condition
}

// Takers returns the routes of a virtual host that take a path, in order, up to the first that always does.
func Takers(virtualHost *yaml.Node, path string) (all []Taker) {
	n, err := (&yamlReader{place: place{position: newFile("", nil).at(0, 0)}}).node(virtualHost, 0)
	if err != nil {
		return nil
	}
	rename(n, typeVirtualHost)
	for _, route := range n.list("routes") {
		match := route.get("match")
		if matchesPath(match, path) != yes {
			continue
		}
		t := Taker{Line: route.line, Action: action(route), Always: true}
		for _, e := range match.pairs() {
			switch e.key {
			case "path", "prefix", "path_separated_prefix":
				t.Match = e.key + ": " + e.value.text()
			case "safe_regex":
				t.Match = e.key + ": " + e.value.text("regex")
			case "case_sensitive":
			default:
				t.Always = t.Always && e.value.kind == null
			}
		}
		if all = append(all, t); t.Always {
			break
		}
	}
	return all
}
