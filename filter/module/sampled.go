package module

/*
#include "healthgate.h"
*/
import "C"

import "time"

// sampledAt is when what the gates answer was sampled, since some beginning.
func sampledAt() time.Duration { return time.Duration(C.hg_sampled_at()) }

func setSampledAt(at time.Duration) { C.hg_sampled(C.int64_t(at)) }

// sinceBoot is the time by the same clock.
func sinceBoot() time.Duration { return time.Duration(C.hg_now()) }
