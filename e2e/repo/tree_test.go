package repo

import (
	"strconv"
	"strings"
)

// tree is a Kubernetes object as YAML has it.
type tree struct{ node any }

func treeOf(node any) tree { return tree{node} }

// Get returns the node at a path of keys and indices, such as "spec.targetRefs.0.name", or nil.
func (t tree) Get(path string) any {
	at := t.node
	for step := range strings.SplitSeq(path, ".") {
		switch node := at.(type) {
		case map[string]any:
			at = node[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(node) {
				return nil
			}
			at = node[i]
		default:
			return nil
		}
	}
	return at
}

// Part returns the part at a path.
func (t tree) Part(path string) tree { return tree{t.Get(path)} }
