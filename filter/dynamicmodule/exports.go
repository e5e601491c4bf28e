package dynamicmodule

/*
#cgo CFLAGS: -O2 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter
#cgo LDFLAGS: -lpthread
#include "healthgate.h"
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"strings"
	"sync"
	"unsafe"

	"healthgate/filter/lifecycle"
	"healthgate/filter/version"
)

// What C calls. Nothing may panic out of here: that would end Envoy.

// missing is what to do where Envoy has a filter of this module and no bootstrap extension.
const missing = `healthgate: the bootstrap extension is missing, without which the module can't see the clusters; add to the bootstrap: ` +
	`bootstrap_extensions: [{name: healthgate, typed_config: {"@type": type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules.v3.` +
	`DynamicModuleBootstrapExtension, dynamic_module_config: {name: healthgate, metrics_namespace: healthgate}, extension_name: healthgate}}]`

//export healthgateFilterCreate
func healthgateFilterCreate(f *C.hg_filter, configured *C.char, length C.size_t) (usable C.bool) {
	defer refuse("a filter's configuration", &usable)
	if !bool(C.hg_sample_available()) {
		log(C.HG_LOG_ERROR, missing)
		return false
	}
	c, err := envoy.newConfiguration(f, bytesOf(configured, length))
	if err != nil {
		log(C.HG_LOG_ERROR, "healthgate: "+err.Error())
		return false
	}
	f.handle = C.uintptr_t(cgo.NewHandle(c))
	return true
}

//export healthgateFilterDestroy
func healthgateFilterDestroy(handle C.uintptr_t) {
	defer recovered("at the end of a filter's configuration")
	envoy.end(handleOf[*configuration](handle))
	cgo.Handle(handle).Delete()
}

//export healthgateRouteCreate
func healthgateRouteCreate(r *C.hg_route, configured *C.char, length C.size_t) (usable C.bool) {
	defer refuse("a route's configuration", &usable)
	o, err := envoy.newOverride(bytesOf(configured, length))
	if err != nil {
		log(C.HG_LOG_ERROR, "healthgate: "+err.Error())
		return false
	}
	r.handle = C.uintptr_t(cgo.NewHandle(o))
	r.overrides = C.bool(!o.config.Empty())
	return true
}

//export healthgateRouteDestroy
func healthgateRouteDestroy(handle C.uintptr_t) {
	defer recovered("at the end of a route's configuration")
	envoy.endOverride(handleOf[*override](handle))
	cgo.Handle(handle).Delete()
}

//export healthgateFilterGate
func healthgateFilterGate(filter C.uintptr_t) (gate *C.hg_gate) {
	defer func() {
		if gate == nil { // after a panic
			gate = errorGate([]string{"/"}).c
		}
	}()
	defer recovered("in a filter's first stream, answered with 503")
	return envoy.ownGate(handleOf[*configuration](filter))
}

//export healthgateMergedGate
func healthgateMergedGate(filter, route C.uintptr_t) (gate *C.hg_gate) {
	defer recovered("in a route's configuration, answered with 503")
	return envoy.merge(handleOf[*configuration](filter), handleOf[*override](route))
}

//export healthgateReport
func healthgateReport(of C.uintptr_t, accept *C.char, length C.size_t) (report *C.hg_reply) {
	defer recovered("in a report, answered without one")
	if !lifecycle.AcceptsJSON(C.GoStringN(accept, C.int(length))) {
		return nil
	}
	return handleOf[*gate](of).report()
}

//export healthgateFirstProbe
func healthgateFirstProbe(of C.uintptr_t) (reply *C.hg_reply) {
	defer recovered("in a gate's first probe")
	return envoy.firstProbe(handleOf[*gate](of))
}

// logVersion writes the version once per process, even if Envoy loads the module again.
var logVersion = sync.OnceFunc(func() { log(C.HG_LOG_INFO, "healthgate: "+version.String()+", dynamic module") })

//export healthgateLoad
func healthgateLoad() { logVersion() }

//export healthgateDefineShared
func healthgateDefineShared() {
	counters, gauges := allMetrics(sharedPrefix, true)
	for _, name := range counters {
		C.hg_metric_share(text(strings.TrimPrefix(name, scope)), false)
	}
	for _, name := range gauges {
		C.hg_metric_share(text(strings.TrimPrefix(name, scope)), true)
	}
}

//export healthgateStart
func healthgateStart() {
	defer recovered("at the start")
	// From now on Envoy reports which clusters it adds. Those that it has are seen before it can add another, which would still warm.
	envoy.sampler.pass(true)
	startSampling()
}

// startSampling is replaced by tests that sample when they say so.
var startSampling = func() {
	go envoy.run()
	go envoy.everySecond()
}

//export healthgateWithoutLifecycle
func healthgateWithoutLifecycle() {
	envoy.sampler.clusters.unawareOfChanges()
	log(C.HG_LOG_WARN, "healthgate: Envoy does not report which clusters it adds and removes: a removed cluster is noticed only when its stats go")
}

//export healthgateCluster
func healthgateCluster(name *C.char, length C.size_t, removed C.bool) {
	defer recovered("at a cluster's change")
	envoy.cluster(C.GoStringN(name, C.int(length)), bool(removed))
}

//export healthgateStop
func healthgateStop() {
	logging.Lock() // until no other thread is writing a line
	defer logging.Unlock()
	stopped.Store(true)
}

// refuse turns a panic into a refusal.
func refuse(where string, usable *C.bool) {
	if cause := recover(); cause != nil {
		log(C.HG_LOG_ERROR, fmt.Sprintf("healthgate: panic in %s: %v", where, cause))
		*usable = false
	}
}

func recovered(where string) {
	if cause := recover(); cause != nil {
		envoy.process.LogPanic(&host{module: envoy}, where, cause)
	}
}

func bytesOf(p *C.char, length C.size_t) []byte { return C.GoBytes(unsafe.Pointer(p), C.int(length)) }
