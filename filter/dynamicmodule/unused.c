// The hooks that a health gate does not need. Envoy refuses a module that lacks one. Each ignores its arguments and lets the request
// continue.
#define NOTHING(hook) \
  __attribute__((visibility("default"))) void envoy_dynamic_module_on_##hook(void) {}
#define CONTINUE(hook) \
  __attribute__((visibility("default"))) unsigned envoy_dynamic_module_on_##hook(void) { return 0; }

CONTINUE(http_filter_response_headers)
CONTINUE(http_filter_response_body)
CONTINUE(http_filter_response_trailers)
CONTINUE(http_filter_local_reply)
NOTHING(http_filter_stream_complete)
NOTHING(http_filter_http_callout_done)
NOTHING(http_filter_http_stream_headers)
NOTHING(http_filter_http_stream_data)
NOTHING(http_filter_http_stream_trailers)
NOTHING(http_filter_http_stream_complete)
NOTHING(http_filter_http_stream_reset)
NOTHING(bootstrap_extension_worker_thread_initialized)
NOTHING(bootstrap_extension_drain_started)
NOTHING(bootstrap_extension_config_scheduled)
NOTHING(bootstrap_extension_http_callout_done)
NOTHING(bootstrap_extension_file_changed)
CONTINUE(bootstrap_extension_admin_request)
NOTHING(bootstrap_extension_listener_add_or_update)
NOTHING(bootstrap_extension_listener_removal)
