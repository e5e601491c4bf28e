// The replies of a gate, and which of them is sent now.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "go.h"

void hg_log(unsigned level, hg_buffer line) {
  if (envoy_dynamic_module_callback_log != NULL)
    envoy_dynamic_module_callback_log(level, line);
  else
    fprintf(stderr, "%.*s\n", (int)line.length, line.ptr);
}

void *hg_new(size_t size) {
  void *memory = calloc(1, size);
  if (memory == NULL) abort();
  return memory;
}

hg_buffer hg_copy(hg_buffer text) {
  char *copy = hg_new(text.length + 1);
  if (text.length > 0) memcpy(copy, text.ptr, text.length);
  return (hg_buffer){copy, text.length};
}

hg_reply *hg_reply_new(uint32_t status, bool passing, hg_buffer body, hg_buffer details) {
  hg_reply *reply = hg_new(sizeof *reply);
  reply->status = status;
  reply->passing = passing;
  reply->body = hg_copy(body);
  reply->details = hg_copy(details);
  // Envoy says gRPC status 0 of any reply that names none.
  reply->headers[0] = passing ? (hg_header)HG_HEADER("grpc-status", "0") : (hg_header)HG_HEADER("grpc-status", "14");
  return reply;
}

void hg_reply_header(hg_reply *reply, hg_buffer key, hg_buffer value) {
  if (reply->count == HG_HEADERS_MOST) abort();
  reply->headers[reply->count + 1] = reply->headers[reply->count];
  key = hg_copy(key);
  value = hg_copy(value);
  reply->headers[reply->count++] = (hg_header){key.ptr, key.length, value.ptr, value.length};
}

void hg_reply_free(hg_reply *reply) {
  for (size_t i = 0; i < reply->count; i++) {
    free((void *)reply->headers[i].key_ptr);
    free((void *)reply->headers[i].value_ptr);
  }
  free((void *)reply->body.ptr);
  free((void *)reply->details.ptr);
  free(reply);
}

hg_gate *hg_gate_new(void) {
  hg_gate *gate = hg_new(sizeof *gate);
  atomic_init(&gate->holders, 1);
  gate->oldest = INT64_MAX;
  return gate;
}

void hg_gate_hold(hg_gate *gate) { atomic_fetch_add(&gate->holders, 1); }

void hg_gate_release(hg_gate *gate) {
  if (atomic_fetch_sub(&gate->holders, 1) > 1) return;
  for (hg_reply *reply = gate->replies, *next; reply != NULL; reply = next) {
    next = reply->next;
    hg_reply_free(reply);
  }
  for (size_t i = 0; i < gate->path_count; i++) free((void *)gate->paths[i].ptr);
  for (size_t i = 0; i < gate->service_count; i++) free((void *)gate->services[i].ptr);
  free(gate->services);
  for (size_t i = 0; i < 2; i++) free((void *)gate->listed[i].ptr);
  free(gate);
}

void hg_gate_path(hg_gate *gate, hg_buffer path) {
  if (gate->path_count == HG_PATHS_MOST) abort();
  gate->paths[gate->path_count++] = hg_copy(path);
}

void hg_gate_services(hg_gate *gate, size_t count, hg_buffer not_serving, hg_buffer serving) {
  gate->services = hg_new(count * sizeof *gate->services);
  gate->service_count = count;
  gate->listed[false] = hg_copy(not_serving);
  gate->listed[true] = hg_copy(serving);
}

void hg_gate_service(hg_gate *gate, size_t i, hg_buffer name) { gate->services[i] = hg_copy(name); }

void hg_gate_keep(hg_gate *gate, hg_reply *reply) {
  reply->next = gate->replies;
  gate->replies = reply;
}

void hg_gate_publish(hg_gate *gate, const hg_reply *reply) { atomic_store_explicit(&gate->now, reply, memory_order_release); }

// first_reply is NULL in Go only for a gate that has ended meanwhile: it has published its last reply then.
static const hg_reply *first_reply(hg_gate *gate) {
  const hg_reply *reply = healthgateFirstProbe(gate->handle);
  if (reply == NULL) reply = atomic_load_explicit(&gate->now, memory_order_acquire);
  return reply != NULL ? reply : gate->error;
}

const hg_reply *hg_gate_now(hg_gate *gate) {
  const hg_reply *reply = atomic_load_explicit(&gate->now, memory_order_acquire);
  if (reply == NULL) reply = first_reply(gate);
  return hg_is_stale(gate) ? gate->stale : reply;
}
