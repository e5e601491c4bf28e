#include <pthread.h>
#include <stdlib.h>

#include "gate.h"

// hg_merged is the gate of one filter with the override of a route. Envoy shows a module only the most specific level of a route.
typedef struct hg_merged {
  const hg_filter *filter;
  hg_gate *gate; // NULL if the override can't be used
  LIST_ENTRY(hg_merged) link;
} hg_merged;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // guards routes, and merged of each
static LIST_HEAD(, hg_route) routes = LIST_HEAD_INITIALIZER(routes);
static atomic_int override_count;

void hg_route_register(hg_route *route) {
  if (route->overrides) atomic_fetch_add(&override_count, 1);
  pthread_mutex_lock(&lock);
  LIST_INSERT_HEAD(&routes, route, link);
  pthread_mutex_unlock(&lock);
}

static void destroy_merged(hg_merged *merged) {
  LIST_REMOVE(merged, link);
  if (merged->gate != NULL) hg_gate_unref(merged->gate);
  free(merged);
}

void hg_route_unregister(hg_route *route) {
  pthread_mutex_lock(&lock);
  LIST_REMOVE(route, link);
  while (!LIST_EMPTY(&route->merged)) destroy_merged(LIST_FIRST(&route->merged));
  pthread_mutex_unlock(&lock);
  if (route->overrides) atomic_fetch_sub(&override_count, 1);
}

static hg_merged *find_merged(const hg_route *route, const hg_filter *filter) {
  hg_merged *merged;
  LIST_FOREACH(merged, &route->merged, link) if (merged->filter == filter) return merged;
  return NULL;
}

void hg_filter_unregister(hg_filter *filter) {
  pthread_mutex_lock(&lock);
  hg_route *route;
  LIST_FOREACH(route, &routes, link) {
    hg_merged *merged = find_merged(route, filter);
    if (merged != NULL) destroy_merged(merged);
  }
  pthread_mutex_unlock(&lock);
}

// add_merged adds a gate, unless another worker has added one first.
static hg_merged *add_merged(hg_route *route, const hg_filter *filter, hg_gate *gate) {
  hg_merged *merged = find_merged(route, filter);
  if (merged != NULL) {
    if (gate != NULL) hg_gate_unref(gate);
    return merged;
  }
  merged = hg_alloc(sizeof *merged);
  merged->filter = filter;
  merged->gate = gate;
  LIST_INSERT_HEAD(&route->merged, merged, link);
  return merged;
}

hg_gate *hg_filter_gate(hg_filter *filter) {
  hg_gate *gate = atomic_load_explicit(&filter->gate, memory_order_acquire);
  if (gate != NULL) return gate;
  hg_gate *created = healthgateFilterGate(filter->handle);
  if (atomic_compare_exchange_strong(&filter->gate, &gate, created)) return created;
  hg_gate_unref(created); // another worker was faster
  return gate;
}

hg_gate *hg_stream_gate(hg_filter *filter, void *stream, bool *referenced) {
  *referenced = false;
  if (atomic_load_explicit(&override_count, memory_order_relaxed) == 0) return hg_filter_gate(filter);
  // Envoy returns the pointer that it was given, as const.
  hg_route *route = (hg_route *)envoy_dynamic_module_callback_get_most_specific_route_config(stream);
  if (route == NULL || !route->overrides) return hg_filter_gate(filter);

  pthread_mutex_lock(&lock);
  hg_merged *merged = find_merged(route, filter);
  if (merged == NULL) {
    // Without the lock, because Go may end other configurations, which takes it.
    pthread_mutex_unlock(&lock);
    hg_gate *gate = healthgateMergedGate(filter->handle, route->handle);
    pthread_mutex_lock(&lock);
    merged = add_merged(route, filter, gate);
  }
  hg_gate *gate = merged->gate;
  if (gate != NULL) {
    hg_gate_ref(gate);
    *referenced = true;
  }
  pthread_mutex_unlock(&lock);
  return gate;
}
