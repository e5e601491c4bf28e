// One request, as the filter sees it on its worker.
#pragma once

#include "route.h"

typedef struct hg_stream {
  hg_filter *filter;
  void *envoy;
  hg_gate *gate;           // NULL if the filter passes the request on
  bool gate_referenced;    // by this stream
  bool override_unusable;  // the route's; the gate is the filter's own
  bool sending, destroyed; // Envoy may destroy a stream while it sends something
  unsigned blocked;        // the number of full buffers between the stream and its client
  struct hg_call *call;    // NULL for a probe, and once a Watch has begun
  struct hg_watcher *watcher;
} hg_stream;

hg_envoy_buffer hg_request_header(void *stream, hg_buffer key);
bool hg_request_is_grpc(void *stream);
