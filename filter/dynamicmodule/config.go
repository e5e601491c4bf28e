package dynamicmodule

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"healthgate/filter/config"
)

// documents keeps the filter_configs that were decoded last, for filters or for route overrides: an update of a thousand filter chains
// or of a hundred routes brings most of them again.
type documents[T any] struct {
	decode func(*structpb.Struct, config.Variant) (T, error)

	mutex  sync.Mutex
	byText map[string]T
}

// documentsMost bounds what is kept; beyond it all are decoded again.
const documentsMost = 2_000

func (d *documents[T]) read(configured []byte) (decoded T, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if found, ok := d.byText[string(configured)]; ok {
		return found, nil
	}
	raw, err := unpack(configured)
	if err != nil {
		return decoded, err
	}
	if decoded, err = d.decode(raw, config.Module); err != nil {
		return decoded, err
	}
	if len(d.byText) >= documentsMost || d.byText == nil {
		d.byText = make(map[string]T)
	}
	d.byText[string(configured)] = decoded
	return decoded, nil
}

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
