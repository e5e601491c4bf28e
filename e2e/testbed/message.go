package testbed

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"
)

// Parse returns a message that is given in YAML, as in an Envoy configuration. It panics on an unknown field.
func Parse[M proto.Message](text string) M {
	var zero M
	message := zero.ProtoReflect().New().Interface().(M)
	if err := unmarshalYAML([]byte(text), message); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
	return message
}

// Any returns an Any that holds the message.
func Any(message proto.Message) *anypb.Any {
	any := &anypb.Any{}
	if err := anypb.MarshalFrom(any, message, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err)
	}
	return any
}

// Patch changes fields of a message. The patch is a JSON merge patch (RFC 7396) in YAML, with the fields' names as in an Envoy
// configuration: messages are merged, lists and scalars replaced, null removes. Fields that it does not name are not touched.
func Patch(message proto.Message, patch string) {
	fail := func(err error) {
		if err != nil {
			panic(fmt.Sprintf("patch of %s: %v in %s", message.ProtoReflect().Descriptor().FullName(), err, patch))
		}
	}
	text, err := yaml.YAMLToJSON([]byte(patch))
	fail(err)
	var named map[string]json.RawMessage
	fail(json.Unmarshal(text, &named))
	m := message.ProtoReflect()
	patched := m.New()
	for name := range named {
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil {
			fail(fmt.Errorf("no field %s", name))
		}
		if m.Has(field) {
			patched.Set(field, m.Get(field))
		}
	}
	text, err = jsonpatch.MergePatch(JSON(patched.Interface()), text)
	fail(err)
	patched = m.New()
	fail(protojson.Unmarshal(text, patched.Interface()))
	for name := range named {
		field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		if patched.Has(field) {
			m.Set(field, patched.Get(field))
		} else {
			m.Clear(field)
		}
	}
}

func unmarshalYAML(text []byte, message proto.Message) error {
	text, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	return protojson.Unmarshal(text, message)
}

// JSON returns a message as indented JSON, with the fields' names as in an Envoy configuration.
func JSON(message proto.Message) []byte {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		panic(err)
	}
	var indented bytes.Buffer // protojson varies its spaces from build to build
	if err := json.Indent(&indented, text, "", " "); err != nil {
		panic(err)
	}
	return indented.Bytes()
}
