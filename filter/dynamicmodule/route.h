// Which gate a stream has, depending on its filter and its route.
#pragma once

#include "gate.h"

// hg_filter is a filter's configuration. Its streams keep it alive.
typedef struct hg_filter {
  uintptr_t handle;        // Go's
  _Atomic(hg_gate *) gate; // its own, with a reference; NULL before its first stream
  hg_metrics metrics;
} hg_filter;

// hg_route is a route's configuration: an override, or an empty one that only enables the filter.
typedef struct hg_route {
  uintptr_t handle; // Go's
  bool overrides;
  uint64_t serial; // grows with each route
  struct hg_merged *merged;
  struct hg_route *next, **link; // link points here
} hg_route;

void hg_route_register(hg_route *route);
void hg_route_unregister(hg_route *route);
void hg_filter_unregister(hg_filter *filter); // drops its gates with route overrides

hg_gate *hg_filter_gate(hg_filter *filter); // its own gate, created at its first stream
// hg_stream_gate returns the gate of a stream, or NULL if the route's override can't be used. If referenced is set, the caller has to unref
// the gate.
hg_gate *hg_stream_gate(hg_filter *filter, void *stream, bool *referenced);
