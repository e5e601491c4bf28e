// How old the data is that replies are based on. All functions may be called on any thread.
#pragma once

#include "base.h"

void hg_age_main_thread_runs(void); // records that it runs now
// hg_age_sampled records that all gates were evaluated with the samples of a pass that began at this time.
void hg_age_sampled(int64_t at);
// hg_age_set_sample_limit sets how old a sample may be even if a gate's own limit is lower, because there is more time between costly
// passes.
void hg_age_set_sample_limit(int64_t limit);
// hg_age_is_stale reports whether the main thread has not run, or the clusters were not sampled, for longer than limit. That has to be
// confirmed a little later, so the first call returns false.
bool hg_age_is_stale(int64_t limit);
// hg_age_check begins the time to confirm, as hg_age_is_stale does.
void hg_age_check(int64_t limit);
