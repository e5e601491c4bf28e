// The watchers of one configuration are counted, because their number is limited. The watchers of one filter and :authority are ended once
// another configuration answers calls of this filter and :authority. A stream keeps the configuration alive with which it began, so nothing
// else shows that a route's override was changed or removed.
#include <pthread.h>
#include <search.h>
#include <stdlib.h>

#include "stream.h"

// Workers get an update one after the other. For this long after it, some of them may still answer with the old configuration.
static const int64_t settled_after = INT64_C(1000000000);

enum { HASHES_MAX = 4 };

struct hg_group {
  const hg_filter *filter; // its watchers keep it alive
  bool limited;
  uint64_t key; // config_hash if limited, else the :authority
  size_t watchers;

  // Only if not limited: the configurations that answer for the :authority. There are several if routes differ by more than the :authority.
  uint64_t config_hashes[HASHES_MAX];
  size_t hash_count;
  uint64_t newest;    // the greatest serial of an override that has answered
  int64_t changed_at; // when config_hashes changed last, 0 for never
  hg_origin last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // guards all groups
static void *groups;                                     // a search tree
atomic_size_t hg_group_count;

static int compare_groups(const void *a, const void *b) {
  const hg_group *x = a, *y = b;
  if (x->filter != y->filter) return (uintptr_t)x->filter < (uintptr_t)y->filter ? -1 : 1;
  if (x->limited != y->limited) return x->limited ? -1 : 1;
  return x->key == y->key ? 0 : x->key < y->key ? -1 : 1;
}

static hg_group *find_group(const hg_filter *filter, bool limited, uint64_t key) {
  hg_group wanted = {.filter = filter, .limited = limited, .key = key};
  hg_group **found = tfind(&wanted, &groups, compare_groups);
  return found == NULL ? NULL : *found;
}

static hg_group *find_or_create_group(const hg_filter *filter, bool limited, uint64_t key) {
  hg_group *group = find_group(filter, limited, key);
  if (group != NULL) return group;
  group = hg_alloc(sizeof *group);
  group->filter = filter;
  group->limited = limited;
  group->key = key;
  if (tsearch(group, &groups, compare_groups) == NULL) abort(); // out of memory
  atomic_fetch_add(&hg_group_count, 1);
  return group;
}

static void leave_group(hg_group *group) {
  if (--group->watchers > 0) return;
  tdelete(group, &groups, compare_groups);
  free(group);
  atomic_fetch_sub(&hg_group_count, 1);
}

bool hg_groups_join(hg_groups *joined, const hg_origin *origin, size_t max) {
  pthread_mutex_lock(&lock);
  hg_group *limited = find_or_create_group(origin->filter, true, origin->config_hash);
  bool full = limited->watchers >= max;
  if (!full) {
    limited->watchers++;
    hg_group *addressed = find_or_create_group(origin->filter, false, origin->authority);
    if (addressed->watchers++ == 0) {
      addressed->config_hashes[addressed->hash_count++] = origin->config_hash;
      addressed->newest = origin->serial;
      addressed->last = *origin;
    }
    *joined = (hg_groups){limited, addressed};
  }
  pthread_mutex_unlock(&lock);
  return !full;
}

void hg_groups_leave(hg_groups *joined) {
  pthread_mutex_lock(&lock);
  leave_group(joined->limited);
  leave_group(joined->addressed);
  pthread_mutex_unlock(&lock);
}

static bool group_answers(const hg_group *group, uint64_t config_hash) {
  for (size_t i = 0; i < group->hash_count; i++)
    if (group->config_hashes[i] == config_hash) return true;
  return false;
}

// update_group adds the last call's configuration to the group if it is new, and returns whether the group's configurations have changed.
static bool update_group(hg_group *group) {
  const hg_origin *last = &group->last;
  bool is_newer = last->serial > group->newest, is_new = !group_answers(group, last->config_hash);
  if (is_new && !is_newer && hg_now() - group->changed_at < settled_after) return false;
  if (is_newer) group->newest = last->serial;
  if (!is_new) return false;
  // Envoy recreates all overrides of a route configuration with each update. So an override that answers after a newer one has answered is
  // in use beside it. The filter's own configuration may also answer because the override was removed.
  if (is_newer || last->serial == 0 || group->hash_count == HASHES_MAX) group->hash_count = 0;
  group->config_hashes[group->hash_count++] = last->config_hash;
  group->changed_at = hg_now();
  return true;
}

bool hg_groups_observe(const hg_origin *origin) {
  if (atomic_load(&hg_group_count) == 0) return false;
  pthread_mutex_lock(&lock);
  hg_group *group = find_group(origin->filter, false, origin->authority);
  if (group != NULL) group->last = *origin;
  bool changed = group != NULL && update_group(group);
  pthread_mutex_unlock(&lock);
  return changed;
}

bool hg_groups_outdated(const hg_groups *joined, uint64_t config_hash) {
  pthread_mutex_lock(&lock);
  update_group(joined->addressed);
  bool outdated = !group_answers(joined->addressed, config_hash);
  pthread_mutex_unlock(&lock);
  return outdated;
}
