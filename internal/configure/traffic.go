package configure

import (
	"fmt"
	"strings"

	"healthgate/internal/lint"
)

// traffic describes the requests that the gate's route takes, and the routes that took them before.
func traffic(t *text, virtualHost value, path string) string {
	description := fmt.Sprintf("the new route takes every request for %s of virtual host %q: the gate answers GET and HEAD, "+
		"other methods get 503",
		path, virtualHost.text("name"))
	var before []string
	for _, taker := range lint.Takers(virtualHost.Node, path) {
		text := fmt.Sprintf("line %d (%s), which %s", t.line(taker.Line), taker.Match, taker.Action)
		if !taker.Always {
			text += " if its other conditions match"
		}
		before = append(before, text)
	}
	if len(before) == 0 {
		return description + "; no route took them before"
	}
	return description + "; before, these took them: " + strings.Join(before, ", then ") + "; --path chooses another path"
}
