package lint

import (
	"encoding/base64"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"healthgate/filter/config"
	_ "healthgate/internal/envoyapi" // fills protobuf's registry
)

// api checks documents against Envoy's API: first each key and value by its type, then each message by the API's validation rules.
// It renames keys to their names in the API, which the other rules expect.
type api struct {
	found      findings
	validation []func() // of the document and each message in an Any, which have their own
	errors     int      // in keys and values
	patch      bool     // a patch of Istio's EnvoyFilter
	part       bool     // merged into a message that may have the missing keys
}

func (a *api) check(n *Node, typeName string) {
	a.document(n, typeName)
	if a.part || a.errors > 0 { // missing keys may be elsewhere, or could not be read
		return
	}
	for _, validate := range a.validation {
		validate()
	}
}

// refuses is the consequence of each error.
const refuses = ", and Envoy refuses the whole configuration"

func (a *api) fail(at *Node, format string, args ...any) {
	a.errors++
	if at.kind == text && isPlaceholder(at.scalar) {
		return
	}
	if a.patch {
		format = strings.ReplaceAll(format, refuses, ", so Istio leaves it out, or Envoy refuses the result")
	}
	a.found.add(at, Error, "api", format, args...)
}

func (a *api) document(n *Node, typeName string) {
	kind := messageType(typeName)
	if kind == nil {
		known := func(prefix string) bool { return strings.HasPrefix(typeName, prefix) }
		if strings.HasPrefix(typeName, "envoy.") && !slices.ContainsFunc(withoutGo, known) {
			a.fail(n.at("@type"), "%s is no type of Envoy's API%s: check the name and its version (v3, v3alpha)", typeName, refuses)
		}
		return // an extension of another vendor
	}
	m := kind.New()
	a.message(n, m)
	if validated, ok := m.Interface().(interface{ ValidateAll() error }); ok {
		a.validation = append(a.validation, func() { a.invalid(validated.ValidateAll(), n, "") })
	}
}

// withoutGo are packages of Envoy's contrib build, up to v1.40, that go-control-plane/contrib v1.36.0 does not have.
var withoutGo = []string{
	"envoy.extensions.filters.http.peak_ewma.", "envoy.extensions.filters.listener.postgres_inspector.",
	"envoy.extensions.load_balancing_policies.peak_ewma.",
	"envoy.extensions.network_filters.peer_metadata.", "envoy.extensions.private_key_providers.kae.",
	"envoy.extensions.reverse_tunnel_reporters.",
	"envoy.extensions.stat_sinks.kafka.", "envoy.extensions.stat_sinks.wasm_filter.", "envoy.tcp.metadataexchange.",
}

// messageType finds a message of Envoy's API, or nil.
func messageType(typeName string) protoreflect.MessageType {
	kind, _ := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(typeName))
	return kind
}

// fieldOf returns the field of a key, in the form of the API or of JSON, or nil.
func fieldOf(kind protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if field := kind.Fields().ByName(protoreflect.Name(key)); field != nil {
		return field
	}
	return kind.Fields().ByJSONName(key)
}

func (a *api) message(n *Node, m protoreflect.Message) {
	if a.wellKnown(n, m) {
		return
	}
	if n.kind != mapping {
		a.fail(n, "%s where Envoy's API has an object (%s)", n.kind, m.Descriptor().FullName())
		return
	}
	given := map[protoreflect.FullName]string{} // a field, or a choice of fields, to the key that gave it
	for i := range n.entries {
		e := &n.entries[i]
		field := fieldOf(m.Descriptor(), e.key)
		switch {
		case e.key == "@type":
			continue
		case field == nil && isPlaceholder(e.key):
			a.errors++
			continue
		case field == nil:
			a.unknown(e, m.Descriptor())
			continue
		}
		e.key = string(field.Name())
		if e.value.kind == null {
			continue
		}
		if choice := field.ContainingOneof(); choice != nil {
			if other := given[choice.FullName()]; other != "" && other != e.key {
				a.fail(e.value, "%s and %s exclude each other: leave one of them out", other, e.key)
			} else {
				given[choice.FullName()] = e.key
			}
		}
		if given[field.FullName()] != "" {
			a.twice(e)
			m.Clear(field)
		}
		given[field.FullName()] = e.key
		a.field(e.value, m, field)
	}
	a.refusals(n, m.Descriptor())
}

func (a *api) twice(e *entry) {
	a.found.add(e.value, Warning, "api", "%s is given twice, and Envoy uses the last: remove the other one", quoteKey(e.key))
}

func (a *api) unknown(e *entry, message protoreflect.MessageDescriptor) {
	if e.key == "<<" {
		a.fail(e.value, "Envoy does not support the merge key <<%s: write out the merged keys, or use an alias as the value", refuses)
		return
	}
	known := make([]string, message.Fields().Len())
	for i := range known {
		known[i] = string(message.Fields().Get(i).Name())
	}
	right := "it belongs elsewhere, or to another version of the API"
	if near := config.Nearest(e.key, known); near != "" {
		right = "did you mean " + near + "?"
	}
	a.fail(e.value, "%s is not a field of %s%s: %s", quoteKey(e.key), message.FullName(), refuses, right)
}

// field reads the value of a field. As Envoy's parser does, it takes a value without a dash as the only item of a list.
func (a *api) field(n *Node, m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch {
	case field.IsMap() && n.kind != mapping:
		a.fail(n, "%s is %s, and Envoy's API has an object here", field.Name(), n.kind)
	case field.IsMap():
		values := m.Mutable(field).Map()
		seen := map[string]bool{}
		for i := range n.entries {
			e := &n.entries[i]
			if seen[e.key] {
				a.twice(e)
			}
			seen[e.key] = true
			key, ok := a.scalar(&Node{position: e.value.position, kind: text, scalar: e.key}, field.MapKey())
			if !ok {
				continue
			}
			if e.value.kind == null && field.MapValue().Message() != nil {
				values.Set(key.MapKey(), values.NewValue())
			} else if value, ok := a.value(e.value, field.MapValue(), values.NewValue); ok {
				values.Set(key.MapKey(), value)
			}
		}
	case field.IsList():
		if n.kind != list {
			item := *n
			*n = Node{position: n.position, kind: list, items: []*Node{&item}}
		}
		values := m.Mutable(field).List()
		for _, item := range n.items {
			if value, ok := a.value(item, field, values.NewElement); ok {
				values.Append(value)
			}
		}
	default:
		if value, ok := a.value(n, field, func() protoreflect.Value { return m.NewField(field) }); ok {
			m.Set(field, value)
		}
	}
}

func (a *api) value(n *Node, field protoreflect.FieldDescriptor, empty func() protoreflect.Value) (protoreflect.Value, bool) {
	if field.Message() == nil {
		return a.scalar(n, field)
	}
	value := empty()
	a.message(n, value.Message())
	return value, true
}

var apiDuration = regexp.MustCompile(`^-?[0-9]{1,12}(\.[0-9]{1,9})?s$`)

// goDuration is how Go writes durations.
var goDuration = regexp.MustCompile(`^([0-9]{1,9}(\.[0-9]{1,9})?(h|m|ms|us|ns|s))+$`)

// wellKnown reads protobuf's well-known types, which have another form in JSON, and reports whether the message is one.
func (a *api) wellKnown(n *Node, m protoreflect.Message) bool {
	name := m.Descriptor().FullName()
	if name.Parent() != "google.protobuf" {
		return false
	}
	fields := m.Descriptor().Fields()
	// BoolValue and so on, written as the messages that they are
	if isWrapper := strings.HasSuffix(string(name), "Value") && fields.Len() == 1; isWrapper && n.kind == mapping && len(n.entries) == 1 &&
		n.entries[0].key == "value" {
		at := n.position
		*n = *n.entries[0].value
		n.position = at
	}
	switch name.Name() {
	case "Any":
		a.any(n, m)
	case "Duration":
		a.duration(n, m)
	case "Struct":
		if n.kind != mapping {
			a.fail(n, "%s where Envoy's API has an object", n.kind)
		}
	case "Value", "ListValue", "Timestamp", "FieldMask", "Empty":
	case "BoolValue", "StringValue", "BytesValue", "Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue":
		field := fields.ByName("value")
		if value, ok := a.scalar(n, field); ok {
			m.Set(field, value)
		}
	default:
		return false
	}
	return true
}

// duration reads a duration, which may also be written as the message that it is, {seconds: 1, nanos: 5}, or as Istio takes it.
func (a *api) duration(n *Node, m protoreflect.Message) {
	isPart := func(e entry) bool {
		_, ok := integer(e.value, protoreflect.Int64Kind)
		return ok && (e.key == "seconds" || e.key == "nanos")
	}
	if n.kind == mapping && !slices.ContainsFunc(n.entries, func(e entry) bool { return !isPart(e) }) {
		d := time.Duration(n.number(0, "seconds"))*time.Second + time.Duration(n.number(0, "nanos"))
		*n = Node{position: n.position, kind: text, scalar: config.ShowSeconds(d)}
	}
	if a.patch && goDuration.MatchString(n.scalar) {
		d, _ := time.ParseDuration(n.scalar)
		n.scalar = config.ShowSeconds(d)
	}
	switch {
	case placeholderWord.MatchString(n.scalar):
		a.errors++
	case n.kind != text || !apiDuration.MatchString(n.scalar):
		a.fail(n, "%s is not a duration: write seconds with an s, as in 1.5s", show(n))
	default:
		d, fields := n.duration(0), m.Descriptor().Fields()
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(int64(d.Seconds())))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(int32(d%1e9)))
	}
}

// any reads an Any by the type that it names.
func (a *api) any(n *Node, m protoreflect.Message) {
	url := n.text("@type")
	name := typeOf(url)
	switch {
	case n.kind != mapping:
		a.fail(n, "%s where Envoy's API has an object with an @type", n.kind)
		return
	case url == "" && len(n.entries) > 0:
		a.fail(n, "@type is missing, so Envoy does not know the type: write \"@type\": type.googleapis.com/<name of the message>")
		return
	case url == "":
		return
	case name == url:
		a.fail(n.at("@type"), "@type is %q, which is no type URL: write type.googleapis.com/%s", clip(url), clip(url))
	case strings.HasPrefix(name, "google.protobuf."): // in `value`, which is free
	case strings.HasSuffix(name, ".TypedStruct") && n.text("type_url") != "" && n.get("value") != nil:
		a.document(n.get("value"), typeOf(n.text("type_url")))
	default:
		a.document(n, name)
	}
	m.Set(m.Descriptor().Fields().ByName("type_url"), protoreflect.ValueOfString(url))
}

// typeOf is the name of a message in a type URL.
func typeOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// quotedBoolean matches the words that protobuf's parser takes as booleans in quotes (SimpleAtob of Abseil): true, then false.
var quotedBoolean = regexp.MustCompile(`^(?i)(?:(true|t|yes|y|1)|false|f|no|n|0)$`)

// standardBase64 maps the URL alphabet to the standard one. Protobuf's parser takes both, padded or not.
var standardBase64 = strings.NewReplacer("-", "+", "_", "/")

// scalar reads a value that is no message, as leniently as protobuf's parser: with quotes or without, names of an enum in any case.
func (a *api) scalar(n *Node, field protoreflect.FieldDescriptor) (value protoreflect.Value, ok bool) {
	right, remedy := "", ""
	isText, isNumber := n.kind == text, n.kind == text || n.kind == number
	switch field.Kind() {
	case protoreflect.BoolKind:
		if quoted := quotedBoolean.FindStringSubmatch(n.scalar); quoted != nil && isText {
			n.kind, n.scalar = boolean, strconv.FormatBool(quoted[1] != "")
		}
		right = "true or false"
		value, ok = protoreflect.ValueOfBool(n.scalar == "true"), n.kind == boolean
	case protoreflect.StringKind:
		if n.kind == number && n.isText {
			n.kind = text
		}
		right, remedy = "a string", ": put it into quotes"
		value, ok = protoreflect.ValueOfString(n.scalar), n.kind == text
	case protoreflect.BytesKind:
		decoded, err := base64.RawStdEncoding.DecodeString(standardBase64.Replace(strings.TrimRight(n.scalar, "=")))
		right = "bytes in base64"
		value, ok = protoreflect.ValueOfBytes(decoded), isText && err == nil
	case protoreflect.EnumKind:
		return a.enum(n, field)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		v, err := decimal(n.scalar)
		right = "a number"
		if value, ok = protoreflect.ValueOfFloat64(v), isNumber && err == nil; field.Kind() == protoreflect.FloatKind {
			value = protoreflect.ValueOfFloat32(float32(v))
		}
	default:
		right, remedy = "a whole number", " ("+field.Kind().String()+")"
		value, ok = integer(n, field.Kind())
	}
	if !ok && field.Kind() != protoreflect.StringKind && placeholderWord.MatchString(n.scalar) {
		a.errors++
	} else if !ok {
		name := field.Name()
		if field.ContainingMessage().FullName().Parent() == "google.protobuf" {
			name = "this"
		}
		a.fail(n, "%s is %s, and Envoy's API has %s here%s", name, show(n), right, remedy)
	}
	return value, ok
}

// decimal reads a number, without the underscores that Go allows.
func decimal(s string) (float64, error) {
	if strings.Contains(s, "_") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(s, 64)
}

// integer reads a whole number, which may be in quotes.
func integer(n *Node, k protoreflect.Kind) (protoreflect.Value, bool) {
	v, err := decimal(n.scalar)
	if hexadecimal, isInt := strconv.ParseInt(n.scalar, 0, 64); isInt == nil && strings.HasPrefix(n.scalar, "0x") {
		v, err = float64(hexadecimal), nil
	}
	if n.kind != number && n.kind != text || err != nil || v != math.Trunc(v) {
		return protoreflect.Value{}, false
	}
	switch k {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(v)), v >= math.MinInt32 && v <= math.MaxInt32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(v)), v >= 0 && v <= math.MaxUint32
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(v)), v >= 0 && v < 1<<64
	}
	return protoreflect.ValueOfInt64(int64(v)), v >= -1<<63 && v < 1<<63
}

// enum reads the name of an enum value or its number. The node gets the name.
func (a *api) enum(n *Node, field protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	values := field.Enum().Values()
	value := values.ByName(protoreflect.Name(n.scalar))
	if value == nil {
		value = values.ByName(protoreflect.Name(strings.ToUpper(n.scalar)))
	}
	if v, ok := integer(n, protoreflect.Int32Kind); ok && !strings.Contains(n.scalar, ".") {
		value = values.ByNumber(protoreflect.EnumNumber(v.Int()))
	}
	if value == nil {
		names := make([]string, values.Len())
		for i := range names {
			names[i] = string(values.Get(i).Name())
		}
		if near := config.Nearest(strings.ToUpper(n.scalar), names); near != "" {
			names = []string{near}
		}
		a.fail(n, "%s is %s, which Envoy's API does not have here: write %s", field.Name(), show(n), strings.Join(names, ", "))
		return protoreflect.Value{}, false
	}
	n.kind, n.scalar = text, string(value.Name())
	return protoreflect.ValueOfEnum(value.Number()), true
}

func show(n *Node) string {
	switch n.kind {
	case text:
		return strconv.Quote(clip(n.scalar))
	case number, boolean:
		return clip(n.scalar)
	}
	return n.kind.String()
}

func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.@-]{1,64}$`)

func quoteKey(key string) string {
	if plainKey.MatchString(key) {
		return key
	}
	return strconv.Quote(clip(key))
}

// The errors of go-control-plane's generated validation: of a whole message, and of one field.
type (
	messageError interface{ AllErrors() []error }
	fieldError   interface {
		Field() string // its name in Go: LoadAssignment, or Filters[0]
		Reason() string
		Cause() error
	}
)

// invalid reports an error of the generated validation at its field.
func (a *api) invalid(err error, n *Node, path string) {
	switch wrong := err.(type) {
	case nil:
	case messageError:
		for _, one := range wrong.AllErrors() {
			a.invalid(one, n, path)
		}
	case fieldError:
		below, name, whole := n.goField(wrong.Field())
		if path != "" {
			name = path + "." + name
		}
		switch cause := wrong.Cause(); {
		case a.patch && istioFills.MatchString(name):
		case cause != nil && whole:
			a.invalid(cause, below, name)
		default:
			a.fail(below, "%s: %s%s", name, wrong.Reason(), refuses)
		}
	default:
		a.fail(n, "%s%s", err, refuses)
	}
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
		for _, of := range e.value.entries {
			if of.key == index {
				return of.value, name, true
			}
		}
		if below, _ = e.value.step("[" + index + "]"); below != nil && e.value.kind == list {
			return below, name, true
		}
		return e.value, name, false
	}
	return n, snake(goName), false
}

var innerCapital = regexp.MustCompile(`\B[A-Z]`)

// snake writes LoadAssignment or loadAssignment as load_assignment.
func snake(name string) string { return strings.ToLower(innerCapital.ReplaceAllString(name, "_$0")) }
