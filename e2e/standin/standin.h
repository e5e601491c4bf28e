// A stand-in for Envoy's contrib golang filter, as a dynamic module of stock Envoy.
//
// It loads an unmodified plugin and does for it what contrib/golang/filters/http/source of Envoy v1.39.1 does: it offers
// the C functions that the plugin imports and calls those that it exports, in the same order and from the same threads.
// It covers what a health filter needs. Everything else ends Envoy with a message (see unused.c and `die`).
//
//   plugin.cc  loads plugins
//   stats.cc   the stats that a plugin reads and writes
//   config.cc  the configurations of filters and of routes
//   stream.cc  the requests, and what a plugin asks of them
//   module.cc  the module itself, and its part that is there once an Envoy: the bootstrap extension
//
// Where it differs from the contrib host:
//  - A stat of another's ("cluster.…", "server.…") is a copy that the main thread makes every few milliseconds, since the
//    module ABI has no way to keep a pointer to one; the contrib host does. A test that has seen a stat in admin has it
//    copied before it goes on (bed.Envoy does that), and the first stream of a process waits for a copy.
//  - The plugin's own stats are the stand-in's bootstrap extension's. What is written to them is kept in atomics, which the
//    main thread hands to Envoy at the same times.
//  - A cluster's stat that a route's configuration names, and the filter's does not, goes with its cluster.
//  - The ABI tells of the most specific of a request's route configurations alone. So bed.Config gives each of them all that
//    are above it, and what stands for one there is one object here. Two that are equal in all that surrounds them, up to
//    the filter chain or the resource, are one here and two there: a resource of two sources, or a listener that is replaced
//    by one with the same filter chain, while the old one drains.
//  - The encode callbacks of the plugin's own reply come before the reply is encoded, not while.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "abi.h" // Envoy's dynamic module ABI, from the Go module cache
#include "api.h" // the contrib host's C functions, likewise

namespace standin {

[[noreturn]] inline void die(const std::string& what) {
  fprintf(stderr, "stand-in: %s\n", what.c_str());
  abort();
}

inline std::string_view view(envoy_dynamic_module_type_envoy_buffer b) { return {b.ptr, b.length}; }

inline envoy_dynamic_module_type_module_buffer buffer(std::string_view s) { return {s.data(), s.size()}; }

inline std::string copy(const void* data, int length) {
  return length > 0 ? std::string(static_cast<const char*>(data), length) : std::string();
}

inline void log_line(envoy_dynamic_module_type_log_level level, const std::string& line) {
  envoy_dynamic_module_callback_log(level, buffer(line));
}

// What was made and not yet freed, for a test to see that nothing piles up.
inline std::atomic<int64_t> live_configurations{0};
inline std::atomic<int64_t> live_requests{0};

// How often a plugin has merged, for a test to see that it does where the contrib host has it merge.
inline std::atomic<int64_t> merges{0};

// Faults that a test can ask for; see on_bootstrap_extension_admin_request.
inline std::atomic<bool> metrics_gone{false};

// ---------------------------------------------------------------------------------------------------------------------
// plugin.cc
// ---------------------------------------------------------------------------------------------------------------------

// The functions that a plugin exports.
struct Plugin {
  uint64_t (*new_config)(httpConfig*);
  void (*destroy_config)(uint64_t id, int need_delay);
  uint64_t (*merge_config)(uint64_t name, uint64_t name_length, uint64_t parent, uint64_t child);
  uint64_t (*on_header)(processState*, uint64_t end_stream, uint64_t header_num, uint64_t header_bytes);
  uint64_t (*on_data)(processState*, uint64_t end_stream, uint64_t buffer, uint64_t length);
  void (*on_log)(httpRequest*, uint64_t type, processState* decoding, processState* encoding, uint64_t, uint64_t,
                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
  void (*on_stream_complete)(httpRequest*);
  void (*on_destroy)(httpRequest*, uint64_t reason);
};

// Returns a plugin name that lives for ever, since requests of any age point at it.
const std::string* intern(const std::string& name);

// Finds the plugin of a name that was loaded last, or returns null.
Plugin* find_plugin(const std::string& name);

// Loads a library that was not yet, by its id whatever the path then is; its plugin is from now on the one of that name. It
// returns null where it can't be loaded, which is logged.
Plugin* load_plugin(const std::string& name, const std::string& library_id, const std::string& path);

// ---------------------------------------------------------------------------------------------------------------------
// stats.cc
// ---------------------------------------------------------------------------------------------------------------------

// The one bootstrap extension. Its configuration and itself live as long as Envoy serves; both are used on the main thread
// alone.
struct Bootstrap {
  envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config = nullptr;
  envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension = nullptr;
  size_t counters = 0, gauges = 0; // the templates from which the plugin's own stats are made
};
inline Bootstrap bootstrap;

struct Stat;
struct OwnStat;

struct Metric {
  uint32_t type;
  Stat* stat;   // of another's
  OwnStat* own; // one of the two is null
};

// Hands on the plugin's own stats, and copies all others that were asked for. On the main thread alone.
void refresh_stats();

// Waits, on a worker and for a second at most, until the main thread has copied once more. Envoy's clusters have been checked
// before its workers start; copies may be from before that.
void await_refresh();

// How often the main thread does the above. A benchmark sets it higher, since it goes through all of Envoy's stats.
uint64_t refresh_milliseconds();

// ---------------------------------------------------------------------------------------------------------------------
// config.cc
// ---------------------------------------------------------------------------------------------------------------------

// FilterConfig is the contrib host's class of that name.
struct FilterConfig {
  const std::string* plugin_name = nullptr;
  Plugin* plugin = nullptr;
  uint64_t id = 0;
  // Set while the configuration is made: the time when Envoy lets a module define stats.
  envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy = nullptr;

  std::mutex lock;
  std::vector<Metric> metrics;

  ~FilterConfig();
};

// FilterConfigHolder is what Envoy holds of a FilterConfig.
struct FilterConfigHolder {
  std::shared_ptr<FilterConfig> config;
};

// The filter configuration of a call from Go, or null where it has gone.
std::shared_ptr<FilterConfig> lock_config(void* c);

// The id of the configuration that a stream of the filter has by its route.
uint64_t route_config_id(const FilterConfig& config, envoy_dynamic_module_type_http_filter_envoy_ptr stream);

} // namespace standin
