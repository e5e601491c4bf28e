// The replies of a gate, and the reply that its probes are sent now.
#pragma once

#include "metric.h"

enum { HG_HEADERS_MAX = 7, HG_PATHS_MAX = 2 };

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

// hg_gate answers the probes of one configuration.
typedef struct hg_gate {
  atomic_int refs;
  uintptr_t handle; // Go's
  hg_buffer paths[HG_PATHS_MAX];
  size_t path_count;
  bool details;      // send a report to a client that accepts JSON
  int64_t age_limit; // of a sample, and of the main thread's last sign of life, in nanoseconds
  hg_reply *replies; // all of them
  const hg_reply *stale, *error;
  _Atomic(const hg_reply *) published; // the result of the last evaluation; NULL before the first probe

  // grpc.health.v1.Health; all zero if the gate does not answer it.
  hg_buffer *services;
  size_t service_count;
  hg_buffer list_responses[2]; // not serving, serving
  const hg_metric *checks, *watches, *watchers;
  uint64_t config_hash;          // gates with the same one answer alike
  size_t watchers_max;           // open calls of Watch, for all gates of one filter with the same config_hash
  _Atomic int64_t superseded_at; // 0 for never
} hg_gate;

hg_gate *hg_gate_create(void); // with one reference
void hg_gate_ref(hg_gate *gate);
void hg_gate_unref(hg_gate *gate);

// Before the gate is used by other threads.
void hg_gate_add_path(hg_gate *gate, hg_buffer path);
void hg_gate_set_services(hg_gate *gate, size_t count, hg_buffer not_serving, hg_buffer serving);
void hg_gate_set_service(hg_gate *gate, size_t i, hg_buffer name);

void hg_gate_add_reply(hg_gate *gate, hg_reply *reply); // the gate owns it from now on
void hg_gate_publish(hg_gate *gate, const hg_reply *reply);
// hg_gate_reply returns the published reply, or the stale one if the samples are too old. The first call calls Go.
const hg_reply *hg_gate_reply(hg_gate *gate);
