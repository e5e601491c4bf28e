package config

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

// Errors are the errors of a configuration: all of them, or the first maxErrors.
type Errors []*KeyError

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

// KeyError is an error of one key.
type KeyError struct {
	Path    string // the key's path, as in clusters[0].min_healthy; a key that needs quotes is quoted
	Message string // the mistake, and how to fix it
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
	if len(*o.errs) < maxErrors {
		*o.errs = append(*o.errs, &KeyError{o.pathOf(key), fmt.Sprintf(format, args...)})
	}
}

// refuse reports that the value at key is not as the format says.
func (o *object) refuse(key, format string, args ...any) {
	o.fail(key, "%s is not %s", showValue(o.fields[key]), fmt.Sprintf(format, args...))
}

// failed reports whether a key, or a key inside it, already has an error. Errors that follow from it are not reported.
func (o *object) failed(key string) bool {
	path := o.pathOf(key)
	return slices.ContainsFunc(*o.errs, func(err *KeyError) bool {
		return err.Path == path || strings.HasPrefix(err.Path, path+".")
	})
}

// Kinds of values.
type (
	text    = *structpb.Value_StringValue
	number  = *structpb.Value_NumberValue
	boolean = *structpb.Value_BoolValue
	list    = *structpb.Value_ListValue
	fields  = *structpb.Value_StructValue
)

// readValue returns the value at key, and whether there is one of that kind. A value of another kind is an error.
func readValue[kind any](o *object, key, name string) (value kind, ok bool) {
	o.known = append(o.known, key)
	if o.fields[key] == nil {
		return value, false
	}
	if value, ok = o.fields[key].GetKind().(kind); !ok {
		o.refuse(key, "%s", name)
	}
	return value, ok
}

func (o *object) text(key, byDefault string, maxBytes int) string {
	value, ok := readValue[text](o, key, "a string")
	switch {
	case !ok:
		return byDefault
	case len(value.StringValue) > maxBytes:
		o.fail(key, "has %d bytes; at most %d are allowed", len(value.StringValue), maxBytes)
		return byDefault
	}
	return value.StringValue
}

// oneOf reads one of several words. The first is the default.
func (o *object) oneOf(key string, words ...string) string {
	expected := strings.Join(words, " or ")
	value, ok := readValue[text](o, key, expected)
	switch {
	case !ok:
		return words[0]
	case !slices.Contains(words, value.StringValue):
		o.refuse(key, "%s", expected)
		return words[0]
	}
	return value.StringValue
}

func (o *object) integer(key string, byDefault, lowest, highest int64) int64 {
	value, ok := readValue[number](o, key, "a whole number")
	switch {
	case !ok:
	case value.NumberValue != math.Trunc(value.NumberValue): // NaN is unequal to itself
		o.refuse(key, "a whole number")
	case value.NumberValue < float64(lowest) || value.NumberValue > float64(highest):
		o.refuse(key, "between %d and %d", lowest, highest)
	default:
		return int64(value.NumberValue)
	}
	return byDefault
}

// seconds matches a duration as in protobuf's JSON, and so in Envoy's configuration.
var seconds = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,9})?s$`)

func (o *object) duration(key string, byDefault, shortest, longest time.Duration) time.Duration {
	const expected = `a duration in seconds, as in "1.5s"`
	value, ok := readValue[text](o, key, expected)
	if !ok {
		return byDefault
	}
	d, err := time.ParseDuration(value.StringValue)
	switch {
	case !seconds.MatchString(value.StringValue):
		o.refuse(key, expected)
	case err != nil || d < shortest || d > longest: // the format is right, so an error means that d is out of range
		o.refuse(key, "between %s and %s", ShowSeconds(shortest), ShowSeconds(longest))
	default:
		return d
	}
	return byDefault
}

// ShowSeconds renders a duration as a configuration does, as in 1.5s.
func ShowSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// child reads the object at key. It returns one without keys if there is none.
func (o *object) child(key string) *object {
	value, ok := readValue[fields](o, key, "an object")
	if !ok {
		return &object{at: o.pathOf(key), errs: o.errs}
	}
	return &object{at: o.pathOf(key), errs: o.errs, fields: value.StructValue.GetFields()}
}

// list reads the list at key, and reports whether there is one.
func (o *object) list(key string) ([]*structpb.Value, bool) {
	value, ok := readValue[list](o, key, "a list")
	if !ok {
		return nil, false
	}
	return value.ListValue.GetValues(), true
}

// refuseUnknown reports each key that no method has read.
func (o *object) refuseUnknown() {
	unknown := slices.DeleteFunc(slices.Sorted(maps.Keys(o.fields)), func(key string) bool { return slices.Contains(o.known, key) })
	for _, key := range unknown[:min(len(unknown), maxErrors)] {
		if near := Nearest(key, o.known); near != "" {
			o.fail(showKey(key), "unknown key, did you mean %s?", near)
		} else {
			o.fail(showKey(key), "unknown key, known are %s", strings.Join(o.known, ", "))
		}
	}
}

// showValue renders a value for an error, short and on one line.
func showValue(value *structpb.Value) string {
	switch v := value.GetKind().(type) {
	case boolean:
		return strconv.FormatBool(v.BoolValue)
	case number:
		return strconv.FormatFloat(v.NumberValue, 'g', -1, 64)
	case text:
		return strconv.Quote(clipText(v.StringValue))
	case list:
		return "a list"
	case fields:
		return "an object"
	}
	return "null"
}

// plainKey matches a key that needs no quotes in an error.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// showKey renders a key for the log, quoted if it has unusual characters.
func showKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return strconv.Quote(clipText(key))
}

// clipText shortens text for an error.
func clipText(s string) string {
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
