// A contrib host: a dynamic module of stock Envoy that plays contrib's golang extension for the tests.
//
// It loads an unmodified plugin and does for it what contrib/golang/filters/http/source of Envoy v1.39.1 does: it offers the C functions
// that the plugin imports, and calls those that it exports, in the same order and from the same threads. It covers what a health filter
// needs; anything else ends Envoy with a message (unused.c, and `die`). The files, each of which uses only those before it:
//
//   contribhost.h  names, text, log
//   wire.h         a reader of serialized protocol buffers
//   plugin.cc      loads plugins
//   matcher.cc     Envoy's stats matcher
//   stats.cc       the stats that a plugin reads and writes
//   config.cc      the configurations of filters and routes
//   stream.cc      the requests, and the calls that a plugin makes about them
//   bootstrap.cc   the bootstrap extension, and the admin handler for tests
//   unused.c       all other functions that Envoy or a plugin looks up
//
// How it differs from the golang extension:
//  - A stat of Envoy ("cluster.…", "server.…") is a copy that the main thread refreshes every few milliseconds, because the ABI cannot
//    keep a pointer to one. A test that has seen a stat in admin refreshes the copies before it continues (package testbed does), and the
//    first stream of a process waits for a refresh.
//  - The plugin's own stats are atomics, which the main thread hands to Envoy at each refresh.
//  - Envoy lets a module define stats only while a filter's configuration is created. So a stat that only a route's Merge names is not
//    defined. A stat of Envoy reads 0 if Envoy does not have it, and is not in admin; if its cluster is removed, it keeps its last value;
//    if that cluster is added again, its counters continue, and its gauges begin at 0 until the cluster sets them. A stat of the plugin
//    gets its name as the value of a tag, as Prometheus shows; if another configuration defines it directly, admin shows it twice.
//  - The ABI does not show which stats the scope of a listener rejects, by its own stats matcher or by the one in the bootstrap. testbed
//    passes both to the contrib host, which applies them: prefixes, suffixes and whole names.
//  - The ABI shows only the most specific of a request's route configurations. So package testbed adds all wider ones to each, and
//    equal ones are one object here. Two that are equal in everything around them, up to the filter chain or the resource, are one object
//    here and two in the golang extension: a resource of two sources, or a listener that is replaced by one with the same filter chain
//    while the old one drains.
//  - The encode callbacks of the plugin's own reply run before the reply is encoded, not during it: its headers are not available, and
//    length and end_stream do not reflect a local_reply_config that changes its body.
//  - The log of a stream's end runs after the OnStreamComplete of this filter, not of all filters; over HTTP/3 it also runs if the
//    client has not reset the stream. The log of its beginning runs when the filter is created, not when all are. The log of
//    access_log_flush_interval never runs.
//  - Headers are counted, but not their bytes, and only the length of a body is passed: using either in Go ends Envoy.
//  - The plugin's log lines belong to the logger dynamic_modules, not golang, and its level applies. Envoy reports a refused configuration
//    as "Failed to initialize dynamic module". There is no golang.panic_error: the reply to a panic ends Envoy.
//  - An override in a virtual host that VHDS delivers, or in a matcher's tree of routes, is not converted, and Envoy refuses it.

#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "abi.h" // Envoy's dynamic module ABI, from the Go module cache
#include "api.h" // the golang extension's C functions, likewise

namespace contribhost {

// The ABI's types by shorter names.
using Buffer = envoy_dynamic_module_type_envoy_buffer;
using ModuleBuffer = envoy_dynamic_module_type_module_buffer;
using ModuleHeader = envoy_dynamic_module_type_module_http_header;
using HeaderType = envoy_dynamic_module_type_http_header_type;
using BodyType = envoy_dynamic_module_type_http_body_type;
using EnvoyFilterConfig = envoy_dynamic_module_type_http_filter_config_envoy_ptr;
using ModuleFilterConfig = envoy_dynamic_module_type_http_filter_config_module_ptr;
using ModuleRouteConfig = envoy_dynamic_module_type_http_filter_per_route_config_module_ptr;
using EnvoyFilter = envoy_dynamic_module_type_http_filter_envoy_ptr;
using ModuleFilter = envoy_dynamic_module_type_http_filter_module_ptr;
using EnvoyExtensionConfig = envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr;
using ModuleExtensionConfig = envoy_dynamic_module_type_bootstrap_extension_config_module_ptr;
using EnvoyExtension = envoy_dynamic_module_type_bootstrap_extension_envoy_ptr;
using ModuleExtension = envoy_dynamic_module_type_bootstrap_extension_module_ptr;
using LogLevel = envoy_dynamic_module_type_log_level;

[[noreturn]] inline void die(const std::string& what) {
  fprintf(stderr, "contrib host: %s\n", what.c_str());
  abort();
}

inline std::string_view view(Buffer b) { return {b.ptr, b.length}; }

inline ModuleBuffer buffer(std::string_view s) { return {s.data(), s.size()}; }

inline std::string copy(const void* data, int length) {
  return length > 0 ? std::string(static_cast<const char*>(data), length) : std::string();
}

inline void log_error(const std::string& line) {
  envoy_dynamic_module_callback_log(envoy_dynamic_module_type_log_level_Error, buffer(line));
}

// Whether this is Envoy's main thread, and whether it is that or a worker. Go's threads are neither, and a goroutine of a plugin runs on
// these only during a call from here.
inline thread_local bool on_main_thread = false;
inline thread_local bool on_envoy_thread = false;

} // namespace contribhost
