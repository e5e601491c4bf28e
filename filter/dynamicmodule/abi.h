// Envoy's functions that Healthgate calls. Each is weak, so that an Envoy that lacks one can still load the module. The module then logs
// which one is missing, and Envoy refuses it.
#pragma once

#include "abi_types.h"

#define HG_WEAK __attribute__((weak))

HG_WEAK void envoy_dynamic_module_callback_log(unsigned level, hg_buffer message);

// A stream, on its worker.
HG_WEAK bool envoy_dynamic_module_callback_http_get_header(void *stream, unsigned type, hg_buffer key, hg_envoy_buffer *value,
                                                           size_t index, size_t *count);
HG_WEAK size_t envoy_dynamic_module_callback_http_get_body_chunks_size(void *stream, unsigned type);
HG_WEAK bool envoy_dynamic_module_callback_http_get_body_chunks(void *stream, unsigned type, hg_envoy_buffer *chunks);
HG_WEAK const void *envoy_dynamic_module_callback_get_most_specific_route_config(void *stream);
HG_WEAK void envoy_dynamic_module_callback_http_send_response(void *stream, uint32_t status, hg_header *headers, size_t count,
                                                              hg_buffer body, hg_buffer details);
HG_WEAK void envoy_dynamic_module_callback_http_send_response_headers(void *stream, hg_header *headers, size_t count, bool end);
HG_WEAK void envoy_dynamic_module_callback_http_send_response_data(void *stream, hg_buffer data, bool end);
HG_WEAK void envoy_dynamic_module_callback_http_send_response_trailers(void *stream, hg_header *trailers, size_t count);
HG_WEAK void *envoy_dynamic_module_callback_http_filter_scheduler_new(void *stream);
HG_WEAK void envoy_dynamic_module_callback_http_filter_scheduler_delete(void *scheduler);

// From any thread.
HG_WEAK void envoy_dynamic_module_callback_http_filter_scheduler_commit(void *scheduler, uint64_t event);

// Stats: defined while a filter's configuration is created, and written through one of its streams.
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_config_define_counter(void *config, hg_buffer name, hg_buffer *labels,
                                                                                 size_t count, size_t *id);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_config_define_gauge(void *config, hg_buffer name, hg_buffer *labels,
                                                                               size_t count, size_t *id);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_increment_counter(void *stream, size_t id, hg_buffer *labels, size_t count,
                                                                             uint64_t by);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_set_gauge(void *stream, size_t id, hg_buffer *labels, size_t count,
                                                                     uint64_t value);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_increment_gauge(void *stream, size_t id, hg_buffer *labels, size_t count,
                                                                           uint64_t by);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_decrement_gauge(void *stream, size_t id, hg_buffer *labels, size_t count,
                                                                           uint64_t by);
// From Envoy 1.39 on: written without a stream.
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_config_increment_counter(void *config, size_t id, hg_buffer *labels,
                                                                                    size_t count, uint64_t by);
HG_WEAK unsigned envoy_dynamic_module_callback_http_filter_config_set_gauge(void *config, size_t id, hg_buffer *labels, size_t count,
                                                                            uint64_t value);

// The bootstrap extension, on the main thread.
HG_WEAK void envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(void *config);
HG_WEAK void *envoy_dynamic_module_callback_bootstrap_extension_timer_new(void *config);
HG_WEAK void envoy_dynamic_module_callback_bootstrap_extension_timer_enable(void *timer, uint64_t milliseconds);
HG_WEAK void envoy_dynamic_module_callback_bootstrap_extension_timer_delete(void *timer);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_define_counter(void *config, hg_buffer name,
                                                                                         hg_buffer *labels, size_t count, size_t *id);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(void *config, size_t id, hg_buffer *labels,
                                                                                            size_t count, uint64_t by);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_define_gauge(void *config, hg_buffer name, hg_buffer *labels,
                                                                                       size_t count, size_t *id);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_set_gauge(void *config, size_t id, hg_buffer *labels,
                                                                                    size_t count, uint64_t value);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_increment_gauge(void *config, size_t id, hg_buffer *labels,
                                                                                          size_t count, uint64_t by);
HG_WEAK unsigned envoy_dynamic_module_callback_bootstrap_extension_config_decrement_gauge(void *config, size_t id, hg_buffer *labels,
                                                                                          size_t count, uint64_t by);
HG_WEAK bool envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(void *config);

HG_WEAK void envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(void *extension, hg_visitor visit, void *context);
// From Envoy 1.40 on. It is not called: it shows which version of the ABI Envoy has.
HG_WEAK void envoy_dynamic_module_callback_bootstrap_extension_get_active_resource_names(void);

