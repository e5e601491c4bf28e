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

// document is a filter_config that has been read. Many filters and overrides share one: treat it as immutable.
type document struct {
	raw    *structpb.Struct
	digest string
}

// documents keeps those that were read last: an update of a thousand filter chains or of a hundred routes brings most of them again.
type documents struct {
	mutex  sync.Mutex
	byText map[string]*document
}

// documentsMost bounds what is kept; beyond it all are read again.
const documentsMost = 2_000

func (d *documents) read(configured []byte) (*document, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if found := d.byText[string(configured)]; found != nil {
		return found, nil
	}
	raw, err := unpack(configured)
	if err != nil {
		return nil, err
	}
	read := &document{raw, config.Digest(raw)}
	if len(d.byText) >= documentsMost || d.byText == nil {
		d.byText = make(map[string]*document)
	}
	d.byText[string(configured)] = read
	return read, nil
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
