// One pass over all of Envoy's gauges, on any thread.
#pragma once

#include "base.h"

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
bool hg_sample_available(void);
