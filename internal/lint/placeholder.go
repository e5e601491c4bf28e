package lint

import "regexp"

// placeholder is a value that a template's engine puts in: envsubst and the shell, Go and Jinja, Ansible, Consul, sed.
var placeholder = regexp.MustCompile(`\$\{?\{?[A-Za-z_(]|\{\{|\{%|<[A-Za-z_ .-]+>|<%|@[A-Z_]+@|%[A-Z_]{3,}%|__[A-Z_]+__|#\{`)

func isPlaceholder(s string) bool { return placeholder.MatchString(s) }

// placeholderWord is a word in the place of a number that only a script puts in: ADMIN_PORT.
var placeholderWord = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
