// Groups of watchers. Those of one configuration are counted, since their number is limited. Those of one filter and :authority are
// ended once calls from there are answered by another configuration: a stream keeps the configuration alive that it began with, so
// nothing else shows that a route's override was changed or removed.
#include <pthread.h>
#include <search.h>
#include <stdlib.h>

#include "grpc.h"

// A worker that is behind the others may answer by the old configuration for so long.
static const int64_t settled_after = INT64_C(1000000000);

enum { CONTENTS_MAX = 4 };

struct hg_group {
  const hg_filter *filter; // which its watchers keep alive
  bool limited;
  uint64_t key; // the content, or the :authority
  size_t watchers;

  // Of an :authority: the configurations that answer there. There are several where routes differ by more than the :authority.
  uint64_t contents[CONTENTS_MAX];
  size_t content_count;
  uint64_t newest;    // the greatest serial of an override that has answered
  int64_t changed_at; // when contents changed last, 0 for never
  hg_origin last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all groups
static void *groups;                                     // a tree
atomic_size_t hg_groups_count;

static int compare(const void *a, const void *b) {
  const hg_group *x = a, *y = b;
  if (x->filter != y->filter) return (uintptr_t)x->filter < (uintptr_t)y->filter ? -1 : 1;
  if (x->limited != y->limited) return x->limited ? -1 : 1;
  return x->key == y->key ? 0 : x->key < y->key ? -1 : 1;
}

static hg_group *find(const hg_filter *filter, bool limited, uint64_t key) {
  hg_group wanted = {.filter = filter, .limited = limited, .key = key};
  hg_group **found = tfind(&wanted, &groups, compare);
  return found == NULL ? NULL : *found;
}

static hg_group *find_or_create(const hg_filter *filter, bool limited, uint64_t key) {
  hg_group *group = find(filter, limited, key);
  if (group != NULL) return group;
  group = hg_new(sizeof *group);
  group->filter = filter;
  group->limited = limited;
  group->key = key;
  if (tsearch(group, &groups, compare) == NULL) abort(); // memory is out
  atomic_fetch_add(&hg_groups_count, 1);
  return group;
}

static void leave(hg_group *group) {
  if (--group->watchers > 0) return;
  tdelete(group, &groups, compare);
  free(group);
  atomic_fetch_sub(&hg_groups_count, 1);
}

bool hg_groups_join(hg_groups *joined, const hg_origin *origin, size_t max) {
  pthread_mutex_lock(&lock);
  hg_group *limited = find_or_create(origin->filter, true, origin->content);
  bool full = limited->watchers >= max;
  if (!full) {
    limited->watchers++;
    hg_group *addressed = find_or_create(origin->filter, false, origin->authority);
    if (addressed->watchers++ == 0) {
      addressed->contents[addressed->content_count++] = origin->content;
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
  leave(joined->limited);
  leave(joined->addressed);
  pthread_mutex_unlock(&lock);
}

static bool has(const hg_group *group, uint64_t content) {
  for (size_t i = 0; i < group->content_count; i++)
    if (group->contents[i] == content) return true;
  return false;
}

// settle draws the conclusion from the last call, and returns whether the configurations of the group are others since.
static bool settle(hg_group *group) {
  const hg_origin *last = &group->last;
  bool is_newer = last->serial > group->newest, is_new = !has(group, last->content);
  if (is_new && !is_newer && hg_now() - group->changed_at < settled_after) return false;
  if (is_newer) group->newest = last->serial;
  if (!is_new) return false;
  // Envoy makes the overrides of a route configuration anew with each update, so one that answers after a newer one has answered is
  // in use beside it. The filter's own configuration proves nothing by that: it answers again once an override is removed.
  if (is_newer || last->serial == 0 || group->content_count == CONTENTS_MAX) group->content_count = 0;
  group->contents[group->content_count++] = last->content;
  group->changed_at = hg_now();
  return true;
}

bool hg_groups_observe(const hg_origin *origin) {
  if (atomic_load(&hg_groups_count) == 0) return false;
  pthread_mutex_lock(&lock);
  hg_group *group = find(origin->filter, false, origin->authority);
  if (group != NULL) group->last = *origin;
  bool changed = group != NULL && settle(group);
  pthread_mutex_unlock(&lock);
  return changed;
}

bool hg_groups_outdated(const hg_groups *joined, uint64_t content) {
  pthread_mutex_lock(&lock);
  settle(joined->addressed);
  bool outdated = !has(joined->addressed, content);
  pthread_mutex_unlock(&lock);
  return outdated;
}
