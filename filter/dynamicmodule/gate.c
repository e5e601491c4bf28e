#include "gate.h"

#include <stdlib.h>

hg_reply *hg_reply_create(uint32_t status, bool passing, hg_buffer body, hg_buffer details) {
  hg_reply *reply = hg_alloc(sizeof *reply);
  reply->status = status;
  reply->passing = passing;
  reply->body = hg_copy(body);
  reply->details = hg_copy(details);
  // Envoy adds gRPC status 0 to a reply that has none.
  reply->headers[0] = passing ? (hg_header)HG_HEADER("grpc-status", "0") : (hg_header)HG_HEADER("grpc-status", "14");
  return reply;
}

void hg_reply_add_header(hg_reply *reply, hg_buffer key, hg_buffer value) {
  if (reply->header_count == HG_HEADERS_MAX) abort();
  reply->headers[reply->header_count + 1] = reply->headers[reply->header_count];
  key = hg_copy(key);
  value = hg_copy(value);
  reply->headers[reply->header_count++] = (hg_header){key.ptr, key.length, value.ptr, value.length};
}

void hg_reply_destroy(hg_reply *reply) {
  for (size_t i = 0; i < reply->header_count; i++) {
    free((void *)reply->headers[i].key_ptr);
    free((void *)reply->headers[i].value_ptr);
  }
  free((void *)reply->body.ptr);
  free((void *)reply->details.ptr);
  free(reply);
}

hg_gate *hg_gate_create(void) {
  hg_gate *gate = hg_alloc(sizeof *gate);
  atomic_init(&gate->refs, 1);
  gate->age_limit = INT64_MAX;
  return gate;
}

void hg_gate_ref(hg_gate *gate) { atomic_fetch_add(&gate->refs, 1); }

void hg_gate_unref(hg_gate *gate) {
  if (atomic_fetch_sub(&gate->refs, 1) > 1) return;
  for (hg_reply *reply = gate->replies, *next; reply != NULL; reply = next) {
    next = reply->next;
    hg_reply_destroy(reply);
  }
  hg_list_free(&gate->paths);
  hg_list_free(&gate->services);
  for (size_t i = 0; i < 2; i++) free((void *)gate->list_responses[i].ptr);
  free(gate);
}

void hg_gate_add_reply(hg_gate *gate, hg_reply *reply) {
  reply->next = gate->replies;
  gate->replies = reply;
}

void hg_gate_publish(hg_gate *gate, const hg_reply *reply) { atomic_store_explicit(&gate->published, reply, memory_order_release); }

const hg_reply *hg_gate_reply(hg_gate *gate) {
  const hg_reply *reply = atomic_load_explicit(&gate->published, memory_order_acquire);
  if (reply == NULL) {
    healthgateFirstProbe(gate->handle);
    reply = atomic_load_explicit(&gate->published, memory_order_acquire);
    if (reply == NULL) reply = gate->error; // Go has logged why
  }
  return hg_age_is_stale(gate->age_limit, gate->strict_age) ? gate->stale : reply;
}
