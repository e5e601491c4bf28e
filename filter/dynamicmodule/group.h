// Groups of open calls of Watch: how many there are, and whether calls are still answered by their configuration.
#pragma once

#include "route.h"

// hg_origin has a call's filter and :authority, and the configuration that answers it.
typedef struct {
  const hg_filter *filter;
  uint64_t authority;   // a hash of :authority
  uint64_t config_hash; // of the gate; 0 if it does not answer the call
  uint64_t serial;      // of the route that has an override; 0 if it has none
} hg_origin;

typedef struct hg_group hg_group;
extern atomic_size_t hg_group_count;
typedef struct {
  hg_group *limited, *addressed; // of one configuration, of one :authority
} hg_groups;

// hg_groups_join returns false if there are max watchers already.
bool hg_groups_join(hg_groups *groups, const hg_origin *origin, size_t max);
void hg_groups_leave(hg_groups *groups);
// hg_groups_observe records a call, and returns whether it shows that watchers are outdated.
bool hg_groups_observe(const hg_origin *origin);
// hg_groups_outdated returns whether the observed calls show that config_hash no longer answers.
bool hg_groups_outdated(const hg_groups *groups, uint64_t config_hash);
