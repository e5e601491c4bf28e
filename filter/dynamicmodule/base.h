// Envoy's log, memory, text, the clock: what all other files use.
#pragma once

#include <stdatomic.h>
#include <string.h>

#include "abi.h"

#define HG_TEXT(text) {text, sizeof(text) - 1}
#define HG_BUFFER(text) ((hg_buffer)HG_TEXT(text))
#define HG_HEADER(key, value) {key, sizeof(key) - 1, value, sizeof(value) - 1}

static inline bool hg_equal(hg_buffer a, hg_envoy_buffer b) {
  return a.length == b.length && (a.length == 0 || memcmp(a.ptr, b.ptr, a.length) == 0);
}
uint64_t hg_hash(hg_envoy_buffer text); // FNV-1a

void hg_log(unsigned level, hg_buffer line);

// hg_alloc returns zeroed memory. If there is none, it ends the process, as Envoy does.
void *hg_alloc(size_t size);
hg_buffer hg_copy(hg_buffer text); // the caller frees it

int64_t hg_now(void);      // nanoseconds, monotonic; up to a few milliseconds behind
int64_t hg_cpu_time(void); // nanoseconds of this thread
