package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// Errors are the errors of a configuration, each a KeyError: all of them, or the first maxErrors.
type Errors []error

// maxErrors bounds the length of the log line that reports them.
const maxErrors = 32

// Error returns one line, for the log.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// Unwrap returns the errors, for errors.Is and errors.As.
func (e Errors) Unwrap() []error { return e }

// KeyError is an error of one key.
type KeyError struct {
	Path    string // the key's path, as in clusters[0].min_healthy; a key that needs quotes is quoted
	Message string // what is wrong, and how to fix it
}

func (e *KeyError) Error() string { return e.Path + ": " + e.Message }

// object reads one object of the configuration. Each method marks its key as known, so that refuseUnknown can report the others.
// The zero object is one that was left out: every key has its default.
type object struct {
	at     string // the object's own path, "" at the top
	fields map[string]*structpb.Value
	known  []string
	errs   *Errors
}

func (o *object) pathOf(key string) string {
	if o.at == "" {
		return key
	}
	return o.at + "." + key
}

func (o *object) fail(key, format string, args ...any) {
	o.errs.add(o.pathOf(key), fmt.Sprintf(format, args...))
}

func (e *Errors) add(path, message string) {
	if len(*e) < maxErrors {
		*e = append(*e, &KeyError{path, message})
	}
}

// failed reports whether a key, or a key inside it, already has an error. Errors that follow from it are not reported.
func (o *object) failed(key string) bool {
	path := o.pathOf(key)
	return slices.ContainsFunc(*o.errs, func(err error) bool {
		rest, ok := strings.CutPrefix(err.(*KeyError).Path, path)
		return ok && (rest == "" || rest[0] == '.')
	})
}

func (o *object) get(key string) *structpb.Value {
	if o.known == nil {
		o.known = make([]string, 0, 16) // an update of routes decodes many objects
	}
	if !slices.Contains(o.known, key) {
		o.known = append(o.known, key)
	}
	return o.fields[key]
}

func (o *object) text(key, byDefault string, maxBytes int) string {
	value := o.get(key)
	if value == nil {
		return byDefault
	}
	s, ok := value.GetKind().(*structpb.Value_StringValue)
	if !ok {
		o.fail(key, "%s is not a string", show(value))
		return byDefault
	}
	if len(s.StringValue) > maxBytes {
		o.fail(key, "has %d bytes; at most %d are allowed", len(s.StringValue), maxBytes)
		return byDefault
	}
	return s.StringValue
}

// requiredText is like text, for a required key. It also reports whether the key has a string.
func (o *object) requiredText(key string, maxBytes int) (string, bool) {
	if o.get(key) == nil {
		o.fail(key, "is required")
		return "", false
	}
	s := o.text(key, "", maxBytes)
	_, isText := o.fields[key].GetKind().(*structpb.Value_StringValue)
	return s, isText
}

// oneOf reads one of several words. The first is the default.
func (o *object) oneOf(key string, words ...string) string {
	value := o.get(key)
	if value == nil {
		return words[0]
	}
	if s, ok := value.GetKind().(*structpb.Value_StringValue); ok && slices.Contains(words, s.StringValue) {
		return s.StringValue
	}
	o.fail(key, "%s is not %s", show(value), strings.Join(words, " or "))
	return words[0]
}

func (o *object) integer(key string, byDefault, lowest, highest int64) int64 {
	value := o.get(key)
	if value == nil {
		return byDefault
	}
	number, ok := value.GetKind().(*structpb.Value_NumberValue)
	switch {
	case !ok || number.NumberValue != math.Trunc(number.NumberValue): // NaN is unequal to itself
		o.fail(key, "%s is not a whole number", show(value))
	case number.NumberValue < float64(lowest) || number.NumberValue > float64(highest):
		o.fail(key, "%s is not between %d and %d", show(value), lowest, highest)
	default:
		return int64(number.NumberValue)
	}
	return byDefault
}

func (o *object) boolean(key string, byDefault bool) bool {
	value := o.get(key)
	if value == nil {
		return byDefault
	}
	b, ok := value.GetKind().(*structpb.Value_BoolValue)
	if !ok {
		o.fail(key, "%s is not true or false", show(value))
		return byDefault
	}
	return b.BoolValue
}

// seconds matches a duration as in protobuf's JSON, and so in Envoy's configuration.
var seconds = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,9})?s$`)

func (o *object) duration(key string, byDefault, shortest, longest time.Duration) time.Duration {
	value := o.get(key)
	if value == nil {
		return byDefault
	}
	s, ok := value.GetKind().(*structpb.Value_StringValue)
	if !ok || !seconds.MatchString(s.StringValue) {
		o.fail(key, "%s is not a duration in seconds, as in \"1.5s\"", show(value))
		return byDefault
	}
	d, err := time.ParseDuration(s.StringValue)
	if err != nil || d < shortest || d > longest { // the format is right, so an error means that d is out of range
		o.fail(key, "%s is not between %s and %s", show(value), ShowSeconds(shortest), ShowSeconds(longest))
		return byDefault
	}
	return d
}

// ShowSeconds renders a duration as a configuration does, as in 1.5s.
func ShowSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// child reads the object at key. It returns one without keys if there is none.
func (o *object) child(key string) *object {
	child := &object{at: o.pathOf(key), errs: o.errs}
	value := o.get(key)
	if value == nil {
		return child
	}
	s, ok := value.GetKind().(*structpb.Value_StructValue)
	if !ok {
		o.fail(key, "%s is not an object", show(value))
		return child
	}
	child.fields = s.StructValue.GetFields()
	return child
}

// list reads the list at key, and reports whether there is one.
func (o *object) list(key string) ([]*structpb.Value, bool) {
	value := o.get(key)
	if value == nil {
		return nil, false
	}
	l, ok := value.GetKind().(*structpb.Value_ListValue)
	if !ok {
		o.fail(key, "%s is not a list", show(value))
		return nil, false
	}
	return l.ListValue.GetValues(), true
}

// entry reads the i-th entry of the list at key. A string is short for an object with only the key shortKey. entry returns nil for
// anything else.
func (o *object) entry(key string, i int, value *structpb.Value, shortKey string) *object {
	entry := &object{at: o.pathOf(key) + "[" + strconv.Itoa(i) + "]", errs: o.errs}
	switch kind := value.GetKind().(type) {
	case *structpb.Value_StructValue:
		entry.fields = kind.StructValue.GetFields()
	case *structpb.Value_StringValue:
		entry.fields = map[string]*structpb.Value{shortKey: value}
	default:
		o.errs.add(entry.at, show(value)+" is not a name or an object")
		return nil
	}
	return entry
}

// refuseUnknown reports each key that no method has read.
func (o *object) refuseUnknown() {
	unknown := make([]string, 0, len(o.fields))
	for key := range o.fields {
		if !slices.Contains(o.known, key) {
			unknown = append(unknown, key)
		}
	}
	slices.Sort(unknown)
	for _, key := range unknown[:min(len(unknown), maxErrors)] {
		if near := Nearest(key, o.known); near != "" {
			o.fail(showKey(key), "unknown key, did you mean %s?", near)
		} else {
			o.fail(showKey(key), "unknown key, known are %s", strings.Join(o.known, ", "))
		}
	}
}

// show renders a value for an error, short and on one line.
func show(value *structpb.Value) string {
	switch v := value.GetKind().(type) {
	case *structpb.Value_NullValue:
		return "null"
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(v.NumberValue, 'g', -1, 64)
	case *structpb.Value_StringValue:
		return strconv.Quote(clip(v.StringValue))
	case *structpb.Value_ListValue:
		return "a list"
	case *structpb.Value_StructValue:
		return "an object"
	}
	return "nothing"
}

// plainKey matches a key that needs no quotes in an error.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// showKey renders a key for the log, quoted if it has unusual characters.
func showKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return strconv.Quote(clip(key))
}

// clip shortens text for an error.
func clip(s string) string {
	const maxBytes = 64
	if len(s) <= maxBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxBytes], "") + "…"
}

// Nearest returns the known key that key was probably meant to be, or "" if none is near.
func Nearest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, bestDistance := "", 3 // with more than two edits it is another word
	for _, k := range known {
		if d := distance(key, k); d < bestDistance && d < len(k) {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short keys.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, substituted)
		}
	}
	return row[len(b)]
}
