// The smallest dynamic module: it sends 200 at the request's headers, with no state and no stats. It shows the cost of the ABI; the cost of
// Healthgate is the difference between its module and this one.

#include "abi.h"

// Envoy refuses a module that lacks one of these hooks. They are all aliases of one function, which returns 0: continue. Its type differs
// from theirs, so the warning is off.
#pragma GCC diagnostic ignored "-Wattribute-alias"
static int nothing(void) { return 0; }
#define NOTHING(hook) \
  __typeof__(envoy_dynamic_module_on_http_filter_##hook) envoy_dynamic_module_on_http_filter_##hook __attribute__((alias("nothing")));

NOTHING(config_destroy)
NOTHING(per_route_config_destroy)
NOTHING(request_body)
NOTHING(request_trailers)
NOTHING(response_headers)
NOTHING(response_body)
NOTHING(response_trailers)
NOTHING(stream_complete)
NOTHING(destroy)
NOTHING(http_callout_done)
NOTHING(http_stream_headers)
NOTHING(http_stream_data)
NOTHING(http_stream_trailers)
NOTHING(http_stream_complete)
NOTHING(http_stream_reset)
NOTHING(scheduled)
NOTHING(downstream_above_write_buffer_high_watermark)
NOTHING(downstream_below_write_buffer_low_watermark)
NOTHING(local_reply)

envoy_dynamic_module_type_abi_version_module_ptr envoy_dynamic_module_on_program_init(void) {
  return envoy_dynamic_modules_abi_version;
}

// Stands for each configuration and stream: Envoy only needs a pointer that is not NULL.
static const char something;

envoy_dynamic_module_type_http_filter_config_module_ptr envoy_dynamic_module_on_http_filter_config_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer config) {
  (void)envoy, (void)name, (void)config;
  return &something;
}

envoy_dynamic_module_type_http_filter_per_route_config_module_ptr envoy_dynamic_module_on_http_filter_per_route_config_new(
    envoy_dynamic_module_type_envoy_buffer name, envoy_dynamic_module_type_envoy_buffer config) {
  (void)name, (void)config;
  return &something;
}

envoy_dynamic_module_type_http_filter_module_ptr envoy_dynamic_module_on_http_filter_new(
    envoy_dynamic_module_type_http_filter_config_module_ptr config, envoy_dynamic_module_type_http_filter_envoy_ptr envoy) {
  (void)config, (void)envoy;
  return &something;
}

#define TEXT(text) text, sizeof(text) - 1

envoy_dynamic_module_type_on_http_filter_request_headers_status envoy_dynamic_module_on_http_filter_request_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr envoy, envoy_dynamic_module_type_http_filter_module_ptr module, bool end) {
  (void)module, (void)end;
  // The reply is as long as Healthgate's.
  static envoy_dynamic_module_type_module_http_header headers[] = {{TEXT("content-type"), TEXT("text/plain")},
                                                                   {TEXT("cache-control"), TEXT("no-store")}};
  envoy_dynamic_module_callback_http_send_response(envoy, 200, headers, 2, (envoy_dynamic_module_type_module_buffer){TEXT("ok\n")},
                                                   (envoy_dynamic_module_type_module_buffer){TEXT("smallest_ok")});
  return envoy_dynamic_module_type_on_http_filter_request_headers_status_StopIteration;
}
