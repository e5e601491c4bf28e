// What the files of grpc.health.v1.Health share with each other.
#ifndef HEALTHGATE_GRPC_H
#define HEALTHGATE_GRPC_H

#include "healthgate.h"

// ---- message.c

enum { HG_MESSAGE_MAX = 65536, HG_NAME_MAX = 2048, HG_GROUPS_MAX = 100 }; // bytes, bytes, groups in each other

// hg_message is a HealthCheckRequest with gRPC's prefix. It is read as it comes in, and only the service's name is kept.
typedef struct {
  unsigned char prefix[5]; // one byte that says whether the message is compressed, four of its length
  uint32_t prefix_count, length, count;
  bool too_much;  // more than one message, or one that is too long
  bool malformed;
  bool nameless;  // it is a message without fields: a HealthListRequest
  enum { HG_TAG, HG_VARINT, HG_LENGTH, HG_SKIPPED, HG_NAME } expects;
  uint64_t varint, tag;
  unsigned shift;
  uint32_t left; // bytes of the field
  size_t depth;  // how many groups have not ended
  uint32_t groups[HG_GROUPS_MAX];
  size_t name_length;
  char name[HG_NAME_MAX];
} hg_message;

void hg_message_take(hg_message *message, const char *bytes, size_t length);
// hg_message_error returns NULL if the request, which has ended, is one well-formed message; else it returns the error.
const char *hg_message_error(const hg_message *message);

// ---- group.c

// hg_origin is the origin of a call, and the configuration that answers it.
typedef struct {
  const hg_filter *filter;
  uint64_t authority; // a hash of :authority
  uint64_t content;   // of the gate; 0 if it does not answer the call
  uint64_t serial;    // of the route that has an override; 0 if it has none
} hg_origin;

typedef struct hg_group hg_group;
extern atomic_size_t hg_groups_count; // how many there are
typedef struct {
  hg_group *limited, *addressed; // of one configuration, of one :authority
} hg_groups;

// hg_groups_join returns false if there are max watchers already.
bool hg_groups_join(hg_groups *groups, const hg_origin *origin, size_t max);
void hg_groups_leave(hg_groups *groups);
// hg_groups_observe records a call, and returns whether it shows that watchers are outdated.
bool hg_groups_observe(const hg_origin *origin);
// hg_groups_outdated returns whether the calls show that another configuration answers in the place of a watcher's, which has a content.
bool hg_groups_outdated(const hg_groups *groups, uint64_t content);

// ---- grpc.c

enum hg_method { HG_CHECK, HG_LIST, HG_WATCH, HG_UNKNOWN_METHOD };

// hg_call is a call of grpc.health.v1.Health while its request comes in.
struct hg_call {
  enum hg_method method;
  int64_t deadline; // by hg_now
  hg_origin origin;
  hg_message message;
};

enum { HG_SERVING = 1, HG_NOT_SERVING = 2, HG_SERVICE_UNKNOWN = 3 }; // HealthCheckResponse.ServingStatus

// hg_call_new returns NULL if the request is no call of grpc.health.v1.Health, or the gate does not answer it.
hg_call *hg_call_new(const hg_stream *stream, const hg_gate *gate, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_call_answer(hg_stream *stream); // at the end of its request
// Parts of a response. Sending one may destroy the stream.
void hg_send_headers(hg_stream *stream);
void hg_send_status(hg_stream *stream, int status);
void hg_send_trailers(hg_stream *stream, hg_buffer grpc_status);

// ---- watch.c

// hg_watch_begin returns false, and sends nothing, if the gate has watchers_max watchers already.
bool hg_watch_begin(hg_stream *stream, bool known);

#endif
