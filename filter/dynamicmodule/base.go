package dynamicmodule

/*
#include "stream.h"
*/
import "C"

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// stopped is set when Envoy shuts down: nothing may write to its log afterwards. logging guards it while a line is written.
var (
	stopped atomic.Bool
	logging sync.RWMutex
)

func logLine(level C.unsigned, line string) {
	logging.RLock()
	defer logging.RUnlock()
	if !stopped.Load() {
		C.hg_log(level, text(line))
	}
}

func logInfo(line string)  { logLine(C.HG_LOG_INFO, line) }
func logWarn(line string)  { logLine(C.HG_LOG_WARN, line) }
func logError(line string) { logLine(C.HG_LOG_ERROR, line) }

// stopLogging returns once no thread is writing a line.
func stopLogging() {
	logging.Lock()
	defer logging.Unlock()
	stopped.Store(true)
}

// text lends a string to C for the duration of a call.
func text(s string) C.hg_buffer {
	return C.hg_buffer{(*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s))}
}

// sinceBoot returns the time of C's clock.
func sinceBoot() time.Duration { return time.Duration(C.hg_now()) }

// cpuTime returns the CPU time of the calling thread.
func cpuTime() time.Duration { return time.Duration(C.hg_cpu_time()) }

// setSampledAt records that all gates were evaluated with the samples of a pass that began at this time.
func setSampledAt(at time.Duration) { C.hg_age_sampled(C.int64_t(at)) }

func notifyWatchers() { C.hg_watch_notify() }
