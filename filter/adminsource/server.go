package adminsource

import (
	"fmt"
	"io"
)

// readDraining reads the answer to /server_info, an envoy.admin.v3.ServerInfo, and says whether Envoy fails its health checks:
// after /healthcheck/fail, or when it was started so. A state that this version does not know is an error.
func readDraining(answer io.Reader) (draining bool, err error) {
	state := "" // left out where it is the default, LIVE
	s := newStream(answer)
	err = s.object(func(field string) (err error) {
		if field != "state" {
			return s.skip()
		}
		state, err = s.text()
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return false, err
	}
	switch state {
	case "DRAINING":
		return true, nil
	case "", "LIVE", "PRE_INITIALIZING", "INITIALIZING":
		return false, nil
	}
	return false, fmt.Errorf("its state %.40q is not one of LIVE, DRAINING, PRE_INITIALIZING and INITIALIZING", state)
}
