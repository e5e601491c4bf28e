package lint

import (
	"encoding/base64"
	"fmt"
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
	found  *findings
	read   []readMessage // the document and each message in an Any, which have their own validation
	errors int           // in keys and values
	patch  bool          // a patch of Istio's EnvoyFilter
	part   bool          // merged into a message that may have the missing keys
}

type readMessage struct {
	message protoreflect.ProtoMessage
	node    *Node
}

// check checks a document against a type of the API.
func (a *api) check(n *Node, typeName string) {
	a.document(n, typeName)
	if a.part || a.errors > 0 { // missing keys may be elsewhere, or could not be read
		return
	}
	for _, read := range a.read {
		if validated, ok := read.message.(interface{ ValidateAll() error }); ok {
			a.validation(validated.ValidateAll(), read.node, "")
		}
	}
}

func (f *findings) check(n *Node, typeName string) { (&api{found: f}).check(n, typeName) }

// checkPart checks a part of a message, whose missing keys may be elsewhere.
func (f *findings) checkPart(n *Node, typeName string) {
	(&api{found: f, part: true}).check(n, typeName)
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
	a.read = append(a.read, readMessage{m.Interface(), n})
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
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(typeName))
	if err != nil {
		return nil
	}
	return kind
}

// message reads a mapping.
func (a *api) message(n *Node, m protoreflect.Message) {
	if a.wellKnown(n, m) {
		return
	}
	if n.kind != mapping {
		a.fail(n, "%s where Envoy's API has an object (%s)", n.kind, m.Descriptor().FullName())
		return
	}
	fields := m.Descriptor().Fields()
	given := map[protoreflect.FullName]string{} // a field, or a choice of fields, to the key that gave it
	for i := range n.entries {
		e := &n.entries[i]
		if e.key == "@type" {
			continue
		}
		field := fields.ByName(protoreflect.Name(e.key))
		if field == nil {
			field = fields.ByJSONName(e.key)
		}
		if field == nil {
			if isPlaceholder(e.key) {
				a.errors++
			} else {
				a.unknown(e, m.Descriptor())
			}
			continue
		}
		e.key = string(field.Name())
		if e.value.kind == null && (field.Message() == nil || field.Message().FullName() != "google.protobuf.Value") {
			continue
		}
		if choice := field.ContainingOneof(); choice != nil && given[choice.FullName()] != "" && given[choice.FullName()] != e.key {
			a.fail(e.value, "%s and %s exclude each other: leave one of them out", given[choice.FullName()], e.key)
		} else if choice != nil {
			given[choice.FullName()] = e.key
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

// twice reports a repeated key.
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

// field reads the value of a field.
func (a *api) field(n *Node, m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch {
	case n.kind == null && field.FullName() != "google.protobuf.Value":
	case field.IsMap():
		if n.kind != mapping {
			a.fail(n, "%s is %s, and Envoy's API has an object here", field.Name(), n.kind)
			return
		}
		values := m.Mutable(field).Map()
		seen := map[string]bool{}
		for i := range n.entries {
			e := &n.entries[i]
			if seen[e.key] {
				a.twice(e)
			}
			seen[e.key] = true
			key, ok := a.mapKey(e, field.MapKey())
			if !ok {
				continue
			}
			if field.MapValue().Message() != nil {
				value := values.NewValue()
				if e.value.kind != null {
					a.message(e.value, value.Message())
				}
				values.Set(key, value)
			} else if value, ok := a.scalar(e.value, field.MapValue()); ok {
				values.Set(key, value)
			}
		}
	case field.IsList():
		a.list(n, m, field)
	case field.Message() != nil:
		a.message(n, m.Mutable(field).Message())
	default:
		if value, ok := a.scalar(n, field); ok {
			m.Set(field, value)
		}
	}
}

func (a *api) mapKey(e *entry, field protoreflect.FieldDescriptor) (protoreflect.MapKey, bool) {
	if field.Kind() == protoreflect.StringKind {
		return protoreflect.ValueOfString(e.key).MapKey(), true
	}
	value, ok := a.scalar(&Node{file: e.value.file, line: e.value.line, column: e.value.column, kind: text, scalar: e.key}, field)
	if !ok {
		return protoreflect.MapKey{}, false
	}
	return value.MapKey(), true
}

// list reads a repeated field. As Envoy's parser does, it takes a value without a dash as the only item.
func (a *api) list(n *Node, m protoreflect.Message, field protoreflect.FieldDescriptor) {
	if n.kind != list {
		item := *n
		*n = Node{file: n.file, line: n.line, column: n.column, kind: list, items: []*Node{&item}}
	}
	values := m.Mutable(field).List()
	for _, item := range n.items {
		if field.Message() != nil {
			value := values.NewElement()
			a.message(item, value.Message())
			values.Append(value)
		} else if value, ok := a.scalar(item, field); ok {
			values.Append(value)
		}
	}
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
	short := name.Name()
	// BoolValue and so on, written as the messages that they are
	if n.kind == mapping && strings.HasSuffix(string(short), "Value") && fields.Len() == 1 {
		for i := range n.entries {
			if e := &n.entries[i]; e.key == "value" && len(n.entries) == 1 {
				a.unwrap(n, e.value)
			}
		}
	}
	switch short {
	case "Any":
		a.any(n, m)
	case "Duration":
		if n.kind == mapping {
			a.durationOfParts(n)
		}
		if a.patch && goDuration.MatchString(n.scalar) { // Istio takes it
			d, _ := time.ParseDuration(n.scalar)
			n.scalar = seconds(d)
		}
		if placeholderWord.MatchString(n.scalar) {
			a.errors++
			return true
		}
		if n.kind != text || !apiDuration.MatchString(n.scalar) {
			a.fail(n, "%s is not a duration: write seconds with an s, as in 1.5s", show(n))
			return true
		}
		d := n.duration(0)
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(int64(d.Seconds())))
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(int32(d%1e9)))
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

// unwrap replaces a node by its only value.
func (a *api) unwrap(n, value *Node) {
	line, column := n.line, n.column
	*n = *value
	n.line, n.column = line, column
}

// durationOfParts writes {seconds: 1, nanos: 5} as a duration is written elsewhere.
func (a *api) durationOfParts(n *Node) {
	for _, e := range n.entries {
		if _, ok := integer(e.value, protoreflect.Int64Kind); !ok || e.key != "seconds" && e.key != "nanos" {
			return
		}
	}
	d := time.Duration(n.number(0, "seconds"))*time.Second + time.Duration(n.number(0, "nanos"))
	*n = Node{file: n.file, line: n.line, column: n.column, kind: text, scalar: seconds(d)}
}

// any reads an Any by the type that it names.
func (a *api) any(n *Node, m protoreflect.Message) {
	if n.kind != mapping {
		a.fail(n, "%s where Envoy's API has an object with an @type", n.kind)
		return
	}
	url := n.text("@type")
	if url == "" {
		if len(n.entries) > 0 {
			a.fail(n, "@type is missing, so Envoy does not know the type: write \"@type\": type.googleapis.com/<name of the message>")
		}
		return
	}
	m.Set(m.Descriptor().Fields().ByName("type_url"), protoreflect.ValueOfString(url))
	name := typeOf(url)
	switch {
	case name == url:
		a.fail(n.at("@type"), "@type is %q, which is no type URL: write type.googleapis.com/%s", clip(url), clip(url))
	case strings.HasPrefix(name, "google.protobuf."): // in `value`, which is free
	case strings.HasSuffix(name, ".TypedStruct") && n.text("type_url") != "" && n.get("value") != nil:
		a.document(n.get("value"), typeOf(n.text("type_url")))
	default:
		a.document(n, name)
	}
}

// typeOf is the name of a message in a type URL.
func typeOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// quotedBoolean has the words that protobuf's parser takes as booleans in quotes, in any case (SimpleAtob of Abseil).
var quotedBoolean = map[string]bool{
	"true": true, "t": true, "yes": true, "y": true, "1": true,
	"false": false, "f": false, "no": false, "n": false, "0": false,
}

// standardBase64 maps the URL alphabet to the standard one. Protobuf's parser takes both, padded or not.
var standardBase64 = strings.NewReplacer("-", "+", "_", "/")

// scalar reads a value that is no message, as leniently as protobuf's parser: with quotes or without, names of an enum in any case.
func (a *api) scalar(n *Node, field protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	wrong := func(right, remedy string) (protoreflect.Value, bool) {
		if field.Kind() != protoreflect.StringKind && placeholderWord.MatchString(n.scalar) {
			a.errors++
			return none, false
		}
		name := field.Name()
		if field.ContainingMessage().FullName().Parent() == "google.protobuf" {
			name = "this"
		}
		a.fail(n, "%s is %s, and Envoy's API has %s here%s", name, show(n), right, remedy)
		return none, false
	}
	switch field.Kind() {
	case protoreflect.BoolKind:
		if value, ok := quotedBoolean[strings.ToLower(n.scalar)]; ok && n.kind == text {
			n.kind, n.scalar = boolean, strconv.FormatBool(value)
		}
		if n.kind != boolean {
			return wrong("true or false", "")
		}
		return protoreflect.ValueOfBool(n.scalar == "true"), true
	case protoreflect.StringKind:
		if n.kind == number && n.isText {
			n.kind = text
		}
		if n.kind != text {
			return wrong("a string", ": put it into quotes")
		}
		return protoreflect.ValueOfString(n.scalar), true
	case protoreflect.BytesKind:
		decoded, err := base64.RawStdEncoding.DecodeString(standardBase64.Replace(strings.TrimRight(n.scalar, "=")))
		if n.kind != text || err != nil {
			return wrong("bytes in base64", "")
		}
		return protoreflect.ValueOfBytes(decoded), true
	case protoreflect.EnumKind:
		return a.enum(n, field)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		v, err := decimal(n.scalar)
		if n.kind != number && n.kind != text || err != nil {
			return wrong("a number", "")
		}
		if field.Kind() == protoreflect.FloatKind {
			return protoreflect.ValueOfFloat32(float32(v)), true
		}
		return protoreflect.ValueOfFloat64(v), true
	}
	value, ok := integer(n, field.Kind())
	if !ok {
		return wrong("a whole number", " ("+field.Kind().String()+")")
	}
	return value, true
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

// show renders a value for a message.
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
	return fmt.Sprintf("%q", clip(key))
}
