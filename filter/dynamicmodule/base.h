// Envoy's log, memory, text, the clock; samples of Envoy's gauges, and their age.
#pragma once

#include <stdatomic.h>
#include <string.h>

#include "abi.h"

#define HG_BUFFER(text) ((hg_buffer){text, sizeof(text) - 1})
#define HG_HEADER(key, value) {key, sizeof(key) - 1, value, sizeof(value) - 1}

static inline hg_buffer hg_buffer_of(const char *text) { return (hg_buffer){text, strlen(text)}; }
static inline bool hg_equal(hg_buffer a, hg_envoy_buffer b) {
  return a.length == b.length && (a.length == 0 || memcmp(a.ptr, b.ptr, a.length) == 0);
}
uint64_t hg_hash(hg_envoy_buffer text); // FNV-1a

void hg_log(unsigned level, hg_buffer line);

// hg_alloc returns zeroed memory, and hg_realloc memory that is not. If there is none, both end the process, as Envoy does.
void *hg_alloc(size_t size);
void *hg_realloc(void *memory, size_t size);
hg_buffer hg_copy(hg_buffer text); // the caller frees it

typedef struct {
  hg_buffer *texts;
  size_t count;
} hg_list;
void hg_list_add(hg_list *list, hg_buffer text); // adds a copy
bool hg_list_has(const hg_list *list, hg_envoy_buffer text);
void hg_list_free(hg_list *list);

int64_t hg_now(void);      // nanoseconds, monotonic; up to a few milliseconds behind
int64_t hg_exact_now(void);
int64_t hg_cpu_time(void); // nanoseconds of this thread

// ---- sample.c: one pass over all of Envoy's gauges, on any thread

// hg_index holds the names of the gauges to sample. It does not change once a pass has used it, so several threads can use it at once.
typedef struct hg_index hg_index;
hg_index *hg_index_create(size_t names); // names: their number at most
void hg_index_add(hg_index *index, hg_buffer name);
void hg_index_destroy(hg_index *index);

// hg_sample is the value of one gauge; all zero if Envoy does not have it.
typedef struct {
  uint64_t value;
  bool found;
} hg_sample;

// hg_hashes are the hashes of the stat names of all clusters.
typedef struct {
  uint64_t *hashes;
  size_t count, capacity;
} hg_hashes;
void hg_hashes_free(hg_hashes *hashes);

// hg_sample_gauges fills samples in the order of the names in the index. It adds all clusters that have stats to clusters, unless that is
// NULL. It returns false if Envoy has no bootstrap extension, or has ended it.
bool hg_sample_gauges(const hg_index *index, hg_sample *samples, hg_hashes *clusters);

// hg_sample_set_extension sets Envoy's bootstrap extension, or NULL at its end, and waits for passes under way.
void hg_sample_set_extension(void *extension);

// ---- age.c: how old the data is that replies are based on; on any thread

void hg_age_main_thread_runs(void);    // records that it handles events now, as it does between two updates
void hg_age_main_thread_updates(void); // records that it works on an update now
// hg_age_sampled records that all gates were evaluated with the samples of a pass that began at this time.
void hg_age_sampled(int64_t at);
// hg_age_set_sample_limit sets how old a sample may be even if a gate's own limit is lower, because there is more time between costly
// passes.
void hg_age_set_sample_limit(int64_t limit);
// hg_age_is_stale reports whether the main thread has not run, or the clusters were not sampled, for longer than limit. That has to be
// confirmed a little later, so the first call returns false.
// If strict is set, work on an update is no sign of life, because Envoy checks no host meanwhile.
bool hg_age_is_stale(int64_t limit, bool strict);
// hg_age_check begins the time to confirm, as hg_age_is_stale does.
void hg_age_check(int64_t limit, bool strict);
