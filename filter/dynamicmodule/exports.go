package dynamicmodule

/*
#cgo CFLAGS: -O2 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter
#cgo LDFLAGS: -lpthread
#include "stream.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime/cgo"
	"sync"
	"unsafe"

	"healthgate/filter/lifecycle"
	"healthgate/filter/version"
)

// The functions that C calls: gate.h says on which thread. None may panic, because that would end Envoy.

var shared = newModule()

// logVersion writes the version once per process, even if Envoy loads the module again.
var logVersion = sync.OnceFunc(func() { logInfo("healthgate: " + version.String() + ", dynamic module") })

//export healthgateLoad
func healthgateLoad() { logVersion() }

//export healthgateDefineShared
func healthgateDefineShared() {
	defineShared()
	shared.hasBootstrap = true
}

//export healthgateStart
func healthgateStart() {
	defer shared.recovered("at the start")
	// From now on Envoy reports which clusters it adds. This pass finds those that it already has, before it adds another one, which would
	// still be warming.
	shared.sampler.makePass(true)
	startSampling()
}

// startSampling is replaced by tests that call tick themselves.
var startSampling = func() {
	go shared.run()
	go shared.everySecond()
}

//export healthgateStop
func healthgateStop() { stopLogging() }

//export healthgateCluster
func healthgateCluster(name *C.char, length C.size_t, removed C.bool) {
	defer shared.recovered("at a cluster's change")
	shared.clusterChanged(C.GoStringN(name, C.int(length)), bool(removed))
}

var errNoBootstrap = errors.New(`the bootstrap extension is missing, without which the module can't see the clusters; add to the ` +
	`bootstrap: bootstrap_extensions: [{name: healthgate, typed_config: {"@type": type.googleapis.com/envoy.extensions.bootstrap.` +
	`dynamic_modules.v3.DynamicModuleBootstrapExtension, dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}, ` +
	`extension_name: healthgate}}]`)

//export healthgateFilterCreate
func healthgateFilterCreate(f *C.hg_filter, configured *C.char, length C.size_t) (usable C.bool) {
	defer refuseAfterPanic("a filter's configuration", &usable)
	c, err := shared.createFilter(f, bytesOf(configured, length))
	f.handle = handleOf(c, err)
	return err == nil
}

//export healthgateRouteCreate
func healthgateRouteCreate(r *C.hg_route, configured *C.char, length C.size_t) (usable C.bool) {
	defer refuseAfterPanic("a route's configuration", &usable)
	o, err := shared.createOverride(bytesOf(configured, length))
	r.handle = handleOf(o, err)
	r.overrides = C.bool(err == nil && !o.config.Empty())
	return err == nil
}

// handleOf returns a handle for C, or logs the error.
func handleOf(value any, err error) C.uintptr_t {
	if err != nil {
		logError("healthgate: " + err.Error())
		return 0
	}
	return C.uintptr_t(cgo.NewHandle(value))
}

// refuseAfterPanic makes Envoy refuse the configuration if the caller panics, and logs why.
func refuseAfterPanic(where string, usable *C.bool) {
	if cause := recover(); cause != nil {
		logError(fmt.Sprintf("healthgate: panic in %s: %v", where, cause))
		*usable = false
	}
}

//export healthgateFilterDestroy
func healthgateFilterDestroy(filter C.uintptr_t) {
	defer shared.recovered("at the end of a filter's configuration")
	shared.destroyFilter(valueOf[*configuration](filter))
	cgo.Handle(filter).Delete()
}

//export healthgateRouteDestroy
func healthgateRouteDestroy(route C.uintptr_t) {
	defer shared.recovered("at the end of a route's configuration")
	shared.destroyOverride(valueOf[*override](route))
	cgo.Handle(route).Delete()
}

//export healthgateFilterGate
func healthgateFilterGate(filter C.uintptr_t) (gate *C.hg_gate) {
	defer func() {
		if gate == nil { // after a panic
			gate = newFailingGate([]string{"/"}, nil)
		}
	}()
	defer shared.recovered("in a filter's first stream, answered with 503")
	return shared.gateOf(valueOf[*configuration](filter), nil)
}

//export healthgateMergedGate
func healthgateMergedGate(filter, route C.uintptr_t) (gate *C.hg_gate) {
	defer shared.recovered("in a route's configuration, answered with 503")
	return shared.gateOf(valueOf[*configuration](filter), valueOf[*override](route))
}

//export healthgateFirstProbe
func healthgateFirstProbe(of C.uintptr_t) {
	defer shared.recovered("in a gate's first probe")
	shared.firstProbe(valueOf[*gate](of))
}

//export healthgateReport
func healthgateReport(of C.uintptr_t, accept *C.char, length C.size_t) (report *C.hg_reply) {
	defer shared.recovered("in a report, answered without one")
	if !lifecycle.AcceptsJSON(C.GoStringN(accept, C.int(length))) {
		return nil
	}
	return valueOf[*gate](of).report()
}

func valueOf[T any](handle C.uintptr_t) T { return cgo.Handle(handle).Value().(T) }

// bytesOf lends bytes of C for the duration of a call.
func bytesOf(p *C.char, length C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), int(length))
}
