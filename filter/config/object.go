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

// Errors is all that is wrong with a configuration, each with the path of its key; of very many, the first.
type Errors []error

// maxErrors is how many errors are told: they end in one line of a log.
const maxErrors = 32

// Error is one line, since it ends in a log.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// Unwrap lets errors.Is and errors.As see each of them.
func (e Errors) Unwrap() []error { return e }

// KeyError is what is wrong with one key. Each of Errors is one.
type KeyError struct {
	Path    string // of the key, as in clusters[0].min_healthy; a key that needs quotes is quoted
	Message string // what is wrong, and what would be right
}

func (e *KeyError) Error() string { return e.Path + ": " + e.Message }

// object is a message of the configuration while it is read. Each read marks its key as known, so that what is left over
// can be refused. The zero object, for a message that was left out, has every default.
type object struct {
	path   string // of this object, "" at the top
	fields map[string]*structpb.Value
	known  []string
	errs   *Errors
}

// at returns the path of a key of this object.
func (o *object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

func (o *object) fail(key, format string, args ...any) {
	o.errs.add(o.at(key), fmt.Sprintf(format, args...))
}

func (e *Errors) add(path, message string) {
	if len(*e) < maxErrors {
		*e = append(*e, &KeyError{path, message})
	}
}

// failed says whether something was wrong with a key already, or with what is in it: what follows of that is not told too.
func (o *object) failed(key string) bool {
	at := o.at(key)
	return slices.ContainsFunc(*o.errs, func(err error) bool {
		rest, ok := strings.CutPrefix(err.(*KeyError).Path, at)
		return ok && (rest == "" || rest[0] == '.')
	})
}

func (o *object) get(key string) *structpb.Value {
	if !slices.Contains(o.known, key) {
		o.known = append(o.known, key)
	}
	return o.fields[key]
}

// text reads a string of at most maxBytes.
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

// required reads a string that must be there, and says whether one was.
func (o *object) required(key string, maxBytes int) (string, bool) {
	if o.get(key) == nil {
		o.fail(key, "is required")
		return "", false
	}
	s := o.text(key, "", maxBytes)
	_, isText := o.fields[key].GetKind().(*structpb.Value_StringValue)
	return s, isText
}

// oneOf reads one of some words, the first of which is the default.
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

// integer reads a whole number from least to most.
func (o *object) integer(key string, byDefault, least, most int64) int64 {
	value := o.get(key)
	if value == nil {
		return byDefault
	}
	number, ok := value.GetKind().(*structpb.Value_NumberValue)
	switch {
	case !ok || number.NumberValue != math.Trunc(number.NumberValue): // NaN is unequal to itself
		o.fail(key, "%s is not a whole number", show(value))
	case number.NumberValue < float64(least) || number.NumberValue > float64(most):
		o.fail(key, "%s is not between %d and %d", show(value), least, most)
	default:
		return int64(number.NumberValue)
	}
	return byDefault
}

// boolean reads true or false.
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

// seconds is a duration as protobuf's JSON has it, and so Envoy.
var seconds = regexp.MustCompile(`^[0-9]{1,12}(\.[0-9]{1,9})?s$`)

// duration reads a duration from least to most.
func (o *object) duration(key string, byDefault, least, most time.Duration) time.Duration {
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
	if err != nil || d < least || d > most { // an error is one of range: the form is known
		o.fail(key, "%s is not between %s and %s", show(value), ShowSeconds(least), ShowSeconds(most))
		return byDefault
	}
	return d
}

// ShowSeconds renders a duration as a configuration has it.
func ShowSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// object reads a message.
func (o *object) object(key string) *object {
	child := &object{path: o.at(key), errs: o.errs}
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

// list reads a list, and says whether one was given: not where it is left out, nor where it is something else.
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

// entry reads the i-th entry of the list at key, for which a string stands in short form for its key shortKey. It returns nil
// for what is neither.
func (o *object) entry(key string, i int, value *structpb.Value, shortKey string) *object {
	child := &object{path: o.at(key) + "[" + strconv.Itoa(i) + "]", errs: o.errs}
	switch kind := value.GetKind().(type) {
	case *structpb.Value_StructValue:
		child.fields = kind.StructValue.GetFields()
	case *structpb.Value_StringValue:
		child.fields = map[string]*structpb.Value{shortKey: value}
	default:
		o.errs.add(child.path, show(value)+" is not a name or an object")
		return nil
	}
	return child
}

// refuseUnknown reports each key that nothing has read.
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

// show renders a value for an error: short, and on one line.
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

// plainKey is a key that needs no quotes in an error.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// showKey renders a key that a user wrote, whatever is in it: it ends in a log.
func showKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return strconv.Quote(clip(key))
}

// clip shortens what a user wrote to what an error can carry.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Nearest returns the known key that key was probably meant to be, or "".
func Nearest(key string, known []string) string {
	if len(key) > 64 {
		return ""
	}
	best, bestDistance := "", 3 // more than two edits is another word
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
