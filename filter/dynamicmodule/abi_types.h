// The types of Envoy's ABI for dynamic modules, v0.1.0, as far as Healthgate uses them. A test compiles them beside Envoy's own.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// hg_buffer points to the module's memory, hg_envoy_buffer to Envoy's.
typedef struct {
  const char *ptr;
  size_t length;
} hg_buffer;

typedef struct {
  const char *ptr;
  size_t length;
} hg_envoy_buffer;

typedef struct {
  const char *key_ptr;
  size_t key_length;
  const char *value_ptr;
  size_t value_length;
} hg_header;

typedef unsigned (*hg_visitor)(hg_envoy_buffer name, uint64_t value, void *context);

// In C, Envoy's enums have the type unsigned.
enum { HG_REQUEST_HEADER = 0 };
enum { HG_RECEIVED_REQUEST_BODY = 0 };
enum { HG_LOG_INFO = 2, HG_LOG_WARN = 3, HG_LOG_ERROR = 4 };
enum { HG_METRIC_SUCCESS = 0 };
enum { HG_ITERATION_CONTINUE = 0 };
enum { HG_HEADERS_CONTINUE = 0, HG_HEADERS_STOP = 1 };
enum { HG_BODY_CONTINUE = 0, HG_BODY_STOP_NO_BUFFER = 3 };
enum { HG_TRAILERS_CONTINUE = 0, HG_TRAILERS_STOP = 1 };

