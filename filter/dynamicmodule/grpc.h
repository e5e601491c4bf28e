// Calls of grpc.health.v1.Health.
#pragma once

#include "group.h"
#include "message.h"
#include "stream.h"

enum hg_method { HG_CHECK, HG_LIST, HG_WATCH, HG_UNKNOWN_METHOD };

// hg_call is a call whose request is still arriving.
typedef struct hg_call {
  enum hg_method method;
  int64_t deadline; // a time of hg_now
  hg_origin origin;
  hg_message message;
} hg_call;

// hg_call_create returns NULL if the request is no call of grpc.health.v1.Health, or the gate does not answer it.
hg_call *hg_call_create(const hg_stream *stream, const hg_gate *gate, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_call_answer(hg_stream *stream); // once the request is complete
