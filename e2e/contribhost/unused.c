// The functions that a plugin or Envoy looks up, and that no test needs. Without one, the plugin or the module would not load.
//
// This file does not include api.h and abi.h: these functions ignore their arguments.

#include <stdio.h>
#include <stdlib.h>

// If something calls one of these, it ends Envoy, so that no test passes by a function that does nothing.
#define FATAL(function)                                                                      \
  void function(void) {                                                                      \
    fprintf(stderr, "contrib host: %s was called, which it does not support\n", #function); \
    abort();                                                                                 \
  }
#define FATAL_HOOK(hook) FATAL(envoy_dynamic_module_on_##hook)
#define EMPTY_HOOK(hook) \
  void envoy_dynamic_module_on_##hook(void) {}

FATAL(envoyGoFilterHttpAddData)
FATAL(envoyGoFilterHttpClearRouteCache)
FATAL(envoyGoFilterHttpContinue)
FATAL(envoyGoFilterHttpCopyHeaders)
FATAL(envoyGoFilterHttpCopyTrailers)
FATAL(envoyGoFilterHttpDrainBuffer)
FATAL(envoyGoFilterHttpGetBuffer)
FATAL(envoyGoFilterHttpGetDynamicMetadata)
FATAL(envoyGoFilterHttpGetIntegerValue)
FATAL(envoyGoFilterHttpGetStringFilterState)
FATAL(envoyGoFilterHttpGetStringProperty)
FATAL(envoyGoFilterHttpGetStringSecret)
FATAL(envoyGoFilterHttpGetStringValue)
FATAL(envoyGoFilterHttpInjectData)
FATAL(envoyGoFilterHttpRemoveHeader)
FATAL(envoyGoFilterHttpRemoveTrailer)
FATAL(envoyGoFilterHttpSendPanicReply)
FATAL(envoyGoFilterHttpSetBufferHelper)
FATAL(envoyGoFilterHttpSetDrainConnectionUponCompletion)
FATAL(envoyGoFilterHttpSetDynamicMetadata)
FATAL(envoyGoFilterHttpSetHeaderHelper)
FATAL(envoyGoFilterHttpSetStringFilterState)
FATAL(envoyGoFilterHttpSetTrailer)
FATAL(envoyGoFilterHttpSetUpstreamOverrideHost)

FATAL_HOOK(http_filter_http_callout_done)
FATAL_HOOK(http_filter_http_stream_headers)
FATAL_HOOK(http_filter_http_stream_data)
FATAL_HOOK(http_filter_http_stream_trailers)
FATAL_HOOK(http_filter_http_stream_complete)
FATAL_HOOK(http_filter_http_stream_reset)
FATAL_HOOK(http_filter_config_scheduled)
FATAL_HOOK(http_filter_config_http_callout_done)
FATAL_HOOK(http_filter_config_http_stream_headers)
FATAL_HOOK(http_filter_config_http_stream_data)
FATAL_HOOK(http_filter_config_http_stream_trailers)
FATAL_HOOK(http_filter_config_http_stream_complete)
FATAL_HOOK(http_filter_config_http_stream_reset)
FATAL_HOOK(bootstrap_extension_config_scheduled)

EMPTY_HOOK(http_filter_downstream_above_write_buffer_high_watermark)
EMPTY_HOOK(http_filter_downstream_below_write_buffer_low_watermark)
EMPTY_HOOK(bootstrap_extension_config_destroy)
EMPTY_HOOK(bootstrap_extension_worker_thread_initialized)
EMPTY_HOOK(bootstrap_extension_drain_started)
EMPTY_HOOK(bootstrap_extension_http_callout_done)
EMPTY_HOOK(bootstrap_extension_file_changed)
EMPTY_HOOK(bootstrap_extension_cluster_add_or_update)
EMPTY_HOOK(bootstrap_extension_cluster_removal)
EMPTY_HOOK(bootstrap_extension_listener_add_or_update)
EMPTY_HOOK(bootstrap_extension_listener_removal)
