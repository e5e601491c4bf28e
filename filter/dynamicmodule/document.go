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

// documents caches decoded filter_configs, of filters or of route overrides: most of those in an update of a thousand filter chains, or of
// a hundred routes, are the same as before.
type documents[T any] struct {
	decode func(*structpb.Struct, config.Variant) (T, error)

	mutex  sync.Mutex
	byText map[string]T
}

// maxDocuments bounds the cache. If it is full, it is emptied.
const maxDocuments = 2_000

// read decodes a filter_config. It does not keep the bytes.
func (d *documents[T]) read(configured []byte) (decoded T, err error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if found, ok := d.byText[string(configured)]; ok {
		return found, nil
	}
	raw, err := unpackConfig(configured)
	if err != nil {
		return decoded, err
	}
	if decoded, err = d.decode(raw, config.Module); err != nil {
		return decoded, err
	}
	if len(d.byText) >= maxDocuments || d.byText == nil {
		d.byText = make(map[string]T)
	}
	d.byText[string(configured)] = decoded
	return decoded, nil
}

// unpackConfig parses a filter_config. Envoy passes a google.protobuf.Struct as JSON, and the text of a google.protobuf.StringValue as it
// is; 1.38 passes the Struct of a route in wire format.
func unpackConfig(configured []byte) (*structpb.Struct, error) {
	if len(configured) == 0 {
		return nil, errors.New("filter_config: is required, with at least clusters: [service]")
	}
	raw := &structpb.Struct{}
	err := protojson.Unmarshal(configured, raw)
	if err == nil {
		return raw, nil
	}
	if proto.Unmarshal(configured, raw) == nil && len(raw.ProtoReflect().GetUnknown()) == 0 { // unknown fields: a message of another type
		return raw, nil
	}
	// The protobuf library puts no-break spaces into its errors at random.
	reason := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return nil, fmt.Errorf("filter_config: can't be read (%.200s); write it as google.protobuf.Struct", reason)
}
