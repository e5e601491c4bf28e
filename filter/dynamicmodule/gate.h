// Gates, with their replies and stats, and which gate a filter and a route have. At the end, the functions of Go that C calls.
#pragma once

#include <sys/queue.h>

#include "base.h"

// ---- metric.c: Healthgate's own stats in Envoy

typedef struct hg_metric {
  size_t id; // Envoy's
  bool gauge;
  bool shared;          // defined by the bootstrap extension, for all filters
  atomic_bool pending;  // value was written without a stream, and is not in Envoy yet
  _Atomic uint64_t value;
  struct hg_metric *next;
} hg_metric;

// hg_metrics are the stats that one filter has defined.
typedef struct {
  void *envoy; // the filter's configuration
  hg_metric *first;
  atomic_bool pending; // at least one of them is pending
} hg_metrics;

// The stats of the bootstrap extension: hg_metrics_share begins to define them, hg_metric_share defines one, hg_metrics_unshare ends them.
void hg_metrics_share(void *extension_config);
void hg_metric_share(hg_buffer name, bool gauge);
void hg_metrics_unshare(void);

// hg_metric_define returns a shared stat, or a new one of the filter. It returns NULL if there is none and Envoy defines no more, because
// the filter's configuration is complete.
hg_metric *hg_metric_define(hg_metrics *metrics, hg_buffer name, bool gauge);
void hg_metrics_free(hg_metrics *metrics);

// On any thread, without a stream.
void hg_metric_write(hg_metrics *metrics, hg_metric *metric, uint64_t value); // adds to a counter, or sets a gauge
void hg_metrics_count_sample(void);
// With a stream of the filter. A metric that is NULL is ignored.
void hg_metric_increment(void *stream, const hg_metric *metric);
void hg_metric_decrement(void *stream, const hg_metric *metric); // a gauge
void hg_metrics_flush(hg_metrics *metrics, void *stream);        // hands pending values to Envoy

// ---- gate.c: the replies of a gate, and the reply that its probes are sent now

enum { HG_HEADERS_MAX = 7 };

typedef struct hg_reply {
  uint32_t status;
  bool passing;
  bool single_use; // made for one probe, which destroys it
  size_t header_count;
  hg_header headers[HG_HEADERS_MAX + 1]; // headers[header_count] is grpc-status
  hg_buffer body, details;
  const hg_metric *counters[2]; // each may be NULL
  struct hg_reply *next;        // of its gate
} hg_reply;

hg_reply *hg_reply_create(uint32_t status, bool passing, hg_buffer body, hg_buffer details);
void hg_reply_add_header(hg_reply *reply, hg_buffer key, hg_buffer value);
void hg_reply_destroy(hg_reply *reply);

// hg_gate answers the probes of one configuration. Only refs, replies, published and superseded_at change once other threads use the gate.
typedef struct hg_gate {
  atomic_int refs;
  uintptr_t handle;  // Go's
  hg_list paths;     // one; two if its configuration is broken
  bool details;      // send a report to a client that accepts JSON
  int64_t age_limit; // of a sample, and of the main thread's last sign of life, in nanoseconds
  bool strict_age;   // stale_after is set: an update that keeps the main thread busy for longer is no excuse
  hg_reply *replies; // all of them
  const hg_reply *stale, *error;
  _Atomic(const hg_reply *) published; // the result of the last evaluation; NULL before the first probe

  // grpc.health.v1.Health; all zero if the gate does not answer it.
  hg_list services;
  hg_buffer list_responses[2]; // not serving, serving; the gate owns them
  const hg_metric *checks, *watches, *watchers;
  uint64_t config_hash;          // not 0; gates with the same one answer alike
  size_t watchers_max;           // open calls of Watch, for all gates of one filter with the same config_hash
  _Atomic int64_t superseded_at; // 0 for never
} hg_gate;

hg_gate *hg_gate_create(void); // with one reference
void hg_gate_ref(hg_gate *gate);
void hg_gate_unref(hg_gate *gate);
void hg_gate_add_reply(hg_gate *gate, hg_reply *reply); // the gate owns it from now on
void hg_gate_publish(hg_gate *gate, const hg_reply *reply);
// hg_gate_reply returns the published reply, or the stale one if the samples are too old. The first call calls Go.
const hg_reply *hg_gate_reply(hg_gate *gate);

// ---- route.c: which gate a stream has, depending on its filter and its route

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
  LIST_HEAD(, hg_merged) merged;
  LIST_ENTRY(hg_route) link;
} hg_route;

void hg_route_register(hg_route *route);
void hg_route_unregister(hg_route *route);
void hg_filter_unregister(hg_filter *filter); // drops its gates with route overrides

hg_gate *hg_filter_gate(hg_filter *filter); // its own gate, created at its first stream
// hg_stream_gate returns the gate of a stream, or NULL if the route's override can't be used. If referenced is set, the caller has to unref
// the gate.
hg_gate *hg_stream_gate(hg_filter *filter, void *stream, bool *referenced);

// ---- exports.go: the functions of Go. Only a gate's first probe, and probes that get a report, call Go.

// On the main thread.
extern void healthgateLoad(void);         // logs the version
extern void healthgateDefineShared(void); // defines the stats that all filters share
// healthgateStart starts the thread that samples the clusters and evaluates the gates; healthgateStop ends it.
extern void healthgateStart(void);
extern void healthgateStop(void);
extern void healthgateCluster(char *name, size_t length, bool removed);
// The next two return false if the configuration can't be used, after logging why.
extern bool healthgateFilterCreate(hg_filter *filter, char *config, size_t length);
extern bool healthgateRouteCreate(hg_route *route, char *config, size_t length);

// On any thread.
extern void healthgateFilterDestroy(uintptr_t filter);
extern void healthgateRouteDestroy(uintptr_t route);

// On a worker.
// healthgateFilterGate returns a filter's own gate, with a reference for the caller; never NULL.
extern hg_gate *healthgateFilterGate(uintptr_t filter);
// healthgateMergedGate returns the gate of a filter with a route override, with a reference for the caller; NULL if there is none.
extern hg_gate *healthgateMergedGate(uintptr_t filter, uintptr_t route);
// healthgateFirstProbe publishes the reply to a gate's first probe. It samples the clusters if no pass has covered them yet.
extern void healthgateFirstProbe(uintptr_t gate);
// healthgateReport returns a reply with a report, or NULL if the client does not accept JSON.
extern hg_reply *healthgateReport(uintptr_t gate, char *accept, size_t length);
