// Envoy's functions that Healthgate calls. Each is weak, so that an Envoy that lacks one can still load the module. The module then logs
// which one is missing, and Envoy refuses it.
#pragma once

#include "abi_types.h"

// A stat is defined while the configuration of a filter, or of the bootstrap extension, is created.
#define HG_DEFINE void *config, hg_buffer name, hg_buffer *labels, size_t count, size_t *id
#define HG_WRITE void *of, size_t id, hg_buffer *labels, size_t count, uint64_t value

// Calls function(result, name, parameters) for each function that the module can't run without. The log, the scheduler's commit, the
// iteration of the gauges, and writing a stat without a stream may run on any thread, all others on the main thread or a stream's worker.
#define HG_NEEDED(function)                                                                                                        \
  function(void, log, unsigned level, hg_buffer message)                                                                           \
  function(bool, http_get_header, void *stream, unsigned type, hg_buffer key, hg_envoy_buffer *value, size_t index, size_t *count) \
  function(size_t, http_get_body_chunks_size, void *stream, unsigned type)                                                         \
  function(bool, http_get_body_chunks, void *stream, unsigned type, hg_envoy_buffer *chunks)                                       \
  function(const void *, get_most_specific_route_config, void *stream)                                                             \
  function(void, http_send_response, void *stream, uint32_t status, hg_header *headers, size_t count, hg_buffer body,              \
           hg_buffer details)                                                                                                      \
  function(void, http_send_response_headers, void *stream, hg_header *headers, size_t count, bool end)                             \
  function(void, http_send_response_data, void *stream, hg_buffer data, bool end)                                                  \
  function(void, http_send_response_trailers, void *stream, hg_header *trailers, size_t count)                                     \
  function(void *, http_filter_scheduler_new, void *stream)                                                                        \
  function(void, http_filter_scheduler_delete, void *scheduler)                                                                    \
  function(void, http_filter_scheduler_commit, void *scheduler, uint64_t event)                                                    \
  function(unsigned, http_filter_config_define_counter, HG_DEFINE)                                                                 \
  function(unsigned, http_filter_config_define_gauge, HG_DEFINE)                                                                   \
  function(unsigned, http_filter_increment_counter, HG_WRITE)                                                                      \
  function(unsigned, http_filter_set_gauge, HG_WRITE)                                                                              \
  function(unsigned, http_filter_increment_gauge, HG_WRITE)                                                                        \
  function(unsigned, http_filter_decrement_gauge, HG_WRITE)                                                                        \
  function(void, bootstrap_extension_config_signal_init_complete, void *config)                                                    \
  function(unsigned, bootstrap_extension_config_define_counter, HG_DEFINE)                                                         \
  function(unsigned, bootstrap_extension_config_define_gauge, HG_DEFINE)                                                           \
  function(unsigned, bootstrap_extension_config_increment_counter, HG_WRITE)                                                       \
  function(unsigned, bootstrap_extension_config_set_gauge, HG_WRITE)                                                               \
  function(unsigned, bootstrap_extension_config_increment_gauge, HG_WRITE)                                                         \
  function(unsigned, bootstrap_extension_config_decrement_gauge, HG_WRITE)                                                         \
  function(void *, bootstrap_extension_timer_new, void *config)                                                                    \
  function(void, bootstrap_extension_timer_enable, void *timer, uint64_t milliseconds)                                             \
  function(void, bootstrap_extension_timer_delete, void *timer)                                                                    \
  function(bool, bootstrap_extension_enable_cluster_lifecycle, void *config)                                                       \
  function(void, bootstrap_extension_iterate_gauges, void *extension, hg_visitor visit, void *context)

#define HG_DECLARE(result, name, ...) __attribute__((weak)) result envoy_dynamic_module_callback_##name(__VA_ARGS__);
HG_NEEDED(HG_DECLARE)
// From Envoy 1.39 on: written without a stream.
HG_DECLARE(unsigned, http_filter_config_increment_counter, HG_WRITE)
HG_DECLARE(unsigned, http_filter_config_set_gauge, HG_WRITE)
// From Envoy 1.40 on. It is not called: it shows which version of the ABI Envoy has.
HG_DECLARE(void, bootstrap_extension_get_active_resource_names, void)
