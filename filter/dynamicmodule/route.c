// Which gate a stream has: its filter's, or that of its route's configuration laid over the filter's. Envoy tells a module of the
// most specific level of a route alone.
#include <pthread.h>
#include <stdlib.h>

#include "go.h"

// hg_laid is a route's configuration laid over one filter's.
typedef struct hg_laid {
  const hg_filter *filter;
  hg_gate *gate; // NULL where none could be made
  struct hg_laid *next;
} hg_laid;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of routes, and of what each has laid
static hg_route *routes;
static atomic_int overriding; // how many routes override anything

void hg_route_add(hg_route *route) {
  if (route->overrides) atomic_fetch_add(&overriding, 1);
  pthread_mutex_lock(&lock);
  route->next = routes;
  routes = route;
  pthread_mutex_unlock(&lock);
}

// drop frees one link of a list that was laid, and moves on to the next.
static void drop(hg_laid **at) {
  hg_laid *laid = *at;
  *at = laid->next;
  if (laid->gate != NULL) hg_gate_release(laid->gate);
  free(laid);
}

void hg_route_remove(hg_route *route) {
  pthread_mutex_lock(&lock);
  hg_route **at = &routes;
  while (*at != route) at = &(*at)->next;
  *at = route->next;
  while (route->laid != NULL) drop(&route->laid);
  pthread_mutex_unlock(&lock);
  if (route->overrides) atomic_fetch_sub(&overriding, 1);
}

void hg_filter_remove(hg_filter *filter) {
  pthread_mutex_lock(&lock);
  for (hg_route *route = routes; route != NULL; route = route->next)
    for (hg_laid **at = &route->laid; *at != NULL;) {
      if ((*at)->filter == filter)
        drop(at);
      else
        at = &(*at)->next;
    }
  pthread_mutex_unlock(&lock);
}

static hg_laid *find(const hg_route *route, const hg_filter *filter) {
  for (hg_laid *laid = route->laid; laid != NULL; laid = laid->next)
    if (laid->filter == filter) return laid;
  return NULL;
}

// add keeps what was laid, unless another worker has been faster.
static hg_laid *add(hg_route *route, const hg_filter *filter, hg_gate *gate) {
  hg_laid *laid = find(route, filter);
  if (laid != NULL) {
    if (gate != NULL) hg_gate_release(gate);
    return laid;
  }
  laid = hg_new(sizeof *laid);
  *laid = (hg_laid){filter, gate, route->laid};
  route->laid = laid;
  return laid;
}

hg_gate *hg_filter_gate(hg_filter *filter) {
  hg_gate *gate = atomic_load_explicit(&filter->gate, memory_order_acquire);
  if (gate != NULL) return gate;
  hg_gate *made = healthgateOwnGate(filter->handle);
  if (atomic_compare_exchange_strong(&filter->gate, &gate, made)) return made;
  hg_gate_release(made); // another worker was faster
  return gate;
}

hg_gate *hg_gate_of(hg_filter *filter, void *stream, bool *held) {
  *held = false;
  if (atomic_load_explicit(&overriding, memory_order_relaxed) == 0) return hg_filter_gate(filter);
  // Envoy hands out as const what this module gave it.
  hg_route *route = (hg_route *)envoy_dynamic_module_callback_get_most_specific_route_config(stream);
  if (route == NULL || !route->overrides) return hg_filter_gate(filter);

  pthread_mutex_lock(&lock);
  hg_laid *laid = find(route, filter);
  if (laid == NULL) {
    // Go may end other configurations meanwhile, which come back here.
    pthread_mutex_unlock(&lock);
    hg_gate *gate = healthgateLay(filter->handle, route->handle);
    pthread_mutex_lock(&lock);
    laid = add(route, filter, gate);
  }
  hg_gate *gate = laid->gate;
  if (gate != NULL) {
    hg_gate_hold(gate);
    *held = true;
  }
  pthread_mutex_unlock(&lock);
  return gate;
}
