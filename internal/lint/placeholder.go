package lint

import "regexp"

// placeholder is a value that a template's engine puts in: envsubst and the shell, Go and Jinja, Ansible, Consul, sed.
var placeholder = regexp.MustCompile(`\$\{?\{?[A-Za-z_(]|\{\{|\{%|<[A-Za-z_ .-]+>|<%|@[A-Z_]+@|%[A-Z_]{3,}%|__[A-Z_]+__|#\{`)

func isPlaceholder(s string) bool { return placeholder.MatchString(s) }
