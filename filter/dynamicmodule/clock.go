package dynamicmodule

/*
#include "healthgate.h"
*/
import "C"

import "time"

// setSampledAt sets when the last pass began by which all gates were evaluated.
func setSampledAt(at time.Duration) { C.hg_age_sampled(C.int64_t(at)) }

// sinceBoot is the time of the same clock.
func sinceBoot() time.Duration { return time.Duration(C.hg_now()) }

// cpuTime is the CPU time of the calling thread.
func cpuTime() time.Duration { return time.Duration(C.hg_cpu_time()) }

func notifyWatchers() { C.hg_watch_notify() }
