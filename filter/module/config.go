package module

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// unpack reads a filter_config: Envoy hands a google.protobuf.Struct over as JSON and the text of a google.protobuf.StringValue as
// it is; 1.38 hands the Struct of a route over as it is on the wire.
func unpack(configured []byte) (*structpb.Struct, error) {
	if len(configured) == 0 {
		return nil, errors.New("filter_config: is required, with at least clusters: [service]")
	}
	raw := &structpb.Struct{}
	err := protojson.Unmarshal(configured, raw)
	if err == nil {
		return raw, nil
	}
	if proto.Unmarshal(configured, raw) == nil && len(raw.ProtoReflect().GetUnknown()) == 0 { // else it is another message
		return raw, nil
	}
	// The library's own message has a space of either kind.
	reason := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return nil, fmt.Errorf("filter_config: can't be read (%.200s); write it as google.protobuf.Struct", reason)
}
