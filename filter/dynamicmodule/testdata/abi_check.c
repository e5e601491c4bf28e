// Compiled but not run: abi_types.h and abi.h beside Envoy's own header. A function that both declare must have the same type, or this does
// not compile.
#include <abi.h> // Envoy's

// Healthgate's types, under other names.
#define hg_buffer own_buffer
#define hg_envoy_buffer own_envoy_buffer
#define hg_header own_header
#define hg_visitor own_visitor
#include "../abi_types.h"
#undef hg_buffer
#undef hg_envoy_buffer
#undef hg_header
#undef hg_visitor

// Each field before these is a pointer.
#define SAME(type, own, last)                                                                                    \
  _Static_assert(sizeof(envoy_dynamic_module_type_##type) == sizeof(own), #own);                                 \
  _Static_assert(offsetof(envoy_dynamic_module_type_##type, last) == offsetof(own, last), #own "." #last);       \
  _Static_assert(sizeof(((envoy_dynamic_module_type_##type *)0)->last) == sizeof(((own *)0)->last), #own "." #last)
SAME(module_buffer, own_buffer, length);
SAME(envoy_buffer, own_envoy_buffer, length);
SAME(module_http_header, own_header, key_length);
SAME(module_http_header, own_header, value_length);

#define EQUAL(own, envoys) _Static_assert((int)own == (int)envoy_dynamic_module_type_##envoys, #own)
EQUAL(HG_REQUEST_HEADER, http_header_type_RequestHeader);
EQUAL(HG_RECEIVED_REQUEST_BODY, http_body_type_ReceivedRequestBody);
EQUAL(HG_LOG_INFO, log_level_Info);
EQUAL(HG_LOG_WARN, log_level_Warn);
EQUAL(HG_LOG_ERROR, log_level_Error);
EQUAL(HG_METRIC_SUCCESS, metrics_result_Success);
EQUAL(HG_ITERATION_CONTINUE, stats_iteration_action_Continue);
EQUAL(HG_HEADERS_CONTINUE, on_http_filter_request_headers_status_Continue);
EQUAL(HG_HEADERS_STOP, on_http_filter_request_headers_status_StopIteration);
EQUAL(HG_BODY_CONTINUE, on_http_filter_request_body_status_Continue);
EQUAL(HG_BODY_STOP_NO_BUFFER, on_http_filter_request_body_status_StopIterationNoBuffer);
EQUAL(HG_TRAILERS_CONTINUE, on_http_filter_request_trailers_status_Continue);
EQUAL(HG_TRAILERS_STOP, on_http_filter_request_trailers_status_StopIteration);

// Healthgate's declarations and hooks, with Envoy's types.
typedef envoy_dynamic_module_type_module_buffer hg_buffer;
typedef envoy_dynamic_module_type_envoy_buffer hg_envoy_buffer;
typedef envoy_dynamic_module_type_module_http_header hg_header;
typedef envoy_dynamic_module_type_gauge_iterator_fn hg_visitor; // the counters' type is the same
#include "../http.c"
#undef EXPORT
#include "../bootstrap.c"
