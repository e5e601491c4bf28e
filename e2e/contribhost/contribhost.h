// A contrib host for Envoy's contrib golang filter, as a dynamic module of stock Envoy.
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
// Where it differs from the golang extension:
//  - A stat of another's ("cluster.…", "server.…") is a copy that the main thread makes every few milliseconds, since the
//    module ABI has no way to keep a pointer to one; the golang extension does. A test that has seen a stat in admin has it
//    copied before it goes on (bed.Envoy does that), and the first stream of a process waits for a copy.
//  - What is written to the plugin's own stats is kept in atomics, which the main thread hands to Envoy at the same times.
//  - Envoy lets a module define stats only while a filter's configuration is made. A stat that only a route's configuration
//    names, in Merge, is therefore not made where it is not there: of another's, it reads 0 as one that was made would, is
//    not in admin, and when its cluster goes its last value is kept here; when that cluster comes again, its counters go on
//    from there, and its gauges begin at 0 until it has set them. One of the plugin's own is made, but its name is a tag's
//    value, as Prometheus shows; and where another configuration has it by itself, admin shows it twice.
//  - Which stats the scope of a listener leaves out, by its own stats matcher or by the bootstrap's, the ABI does not tell. The
//    bed gives the contrib host both, and it works it out: a regular expression as ECMAScript has it, and no custom matcher. The
//    main thread looks whether Envoy has what it should by that.
//  - The ABI tells of the most specific of a request's route configurations alone. So bed.Config gives each of them all that
//    are above it, and what stands for one there is one object here. Two that are equal in all that surrounds them, up to
//    the filter chain or the resource, are one here and two there: a resource of two sources, or a listener that is replaced
//    by one with the same filter chain, while the old one drains.
//  - The encode callbacks of the plugin's own reply come before the reply is encoded, not while: its headers are not to be had,
//    and what a local_reply_config then makes of its body is not in the length and in end_stream.
//  - The log of a stream's end comes after the filter's own OnStreamComplete, not after that of all filters; and over HTTP/3 it
//    comes too, where the golang extension has none unless the client has reset the stream. That of its beginning comes when
//    the filter is made, not when all are. That of access_log_flush_interval never comes.
//  - Headers are counted, but not their bytes, and of a body there is the length alone: what Go would do with them dies.
//  - Lines of the plugin's are those of the logger dynamic_modules, not golang, and its level is asked. A configuration that is
//    refused is "Failed to initialize dynamic module" to Envoy. There is no golang.panic_error: the reply to a panic dies.
//  - The bed panics at a configuration in a virtual host of a resource of its own (VHDS), and in a matcher's tree of routes.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "abi.h" // Envoy's dynamic module ABI, from the Go module cache
#include "api.h" // the golang extension's C functions, likewise

namespace contribhost {

[[noreturn]] inline void die(const std::string& what) {
  fprintf(stderr, "contrib host: %s\n", what.c_str());
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

// How often a plugin has merged, for a test to see that it does where the golang extension has it merge.
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

// Whether this thread is Envoy's main thread, and whether it is that or one of its workers. Go's threads are neither, and no
// goroutine of a plugin's runs on these but in a call from here.
inline thread_local bool on_main_thread = false;
inline thread_local bool on_envoys_thread = false;

// StatsMatcher is the class in source/common/stats/stats_matcher_impl.cc, made of the same message.
class StatsMatcher {
public:
  StatsMatcher() = default; // rejects nothing
  explicit StatsMatcher(std::string_view serialized);

  bool rejects(const std::string& name) const;

private:
  std::vector<std::function<bool(const std::string& name)>> patterns_;
  bool rejects_others_ = false; // what matches no pattern
};

// The one bootstrap extension. Its configuration and itself live as long as Envoy serves; both are used on the main thread
// alone.
struct Bootstrap {
  envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config = nullptr;
  envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension = nullptr;
  StatsMatcher matcher; // of stats_config
};
inline Bootstrap bootstrap;

// Stat is a copy of a stat of Envoy's. Envoy finds one by its name only by going through all of them, which takes a lock
// that a worker must not hold: if it is left with the last reference to a scope that the main thread has just dropped, it
// waits for itself. So the main thread goes through them, every few milliseconds, and whenever admin is asked to.
//
// In the golang extension whoever has defined a stat holds it. So one that Envoy no longer has keeps its last value here, for as
// long as a configuration that has defined it lives.
struct Stat {
  std::atomic<uint64_t> value{0};   // what a stat reads that is not there, in the golang extension too
  std::atomic<bool> copied{false};  // whether the main thread has looked for it
  uint64_t round = 0;               // in which the main thread has last met it
  bool there = false;               // whether it was met in the last one
  uint64_t before = 0;              // of a counter: what counters of the name came to that Envoy no longer has
  int defined = 0;                  // the living configurations that have it defined in Envoy too
};

// OwnStat is a stat of the plugin's own. Any thread writes it, and the main thread hands it on.
struct OwnStat {
  size_t id = 0;
  bool named = false;              // made of a template, by its name
  bool left_out = false;           // by a stats matcher
  std::atomic<uint64_t> value{0};  // of a gauge, or what has been added to a counter since it was handed on
  std::atomic<bool> changed{true}; // so that it is in Envoy from the start, as in the golang extension
};

struct Metric {
  uint32_t type = 0;
  std::shared_ptr<Stat> stat; // of another's
  OwnStat* own = nullptr;     // of the plugin's; where both are null, the stat is left out by a stats matcher
};

// Metrics are the stats that one filter configuration has defined: the golang extension's MetricStore.
class Metrics {
public:
  Metrics(envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, StatsMatcher matcher);
  ~Metrics();
  Metrics(const Metrics&) = delete;

  void made() { making_ = false; } // the configuration is made, and Envoy lets it define no more stats
  void gone();                     // Envoy's configuration goes
  void hand_on();                  // hands what has changed to Envoy; for refresh_stats

  uint32_t define(uint32_t type, const std::string& name);
  void increment(uint32_t id, int64_t offset);
  uint64_t get(uint32_t id);
  void record(uint32_t id, uint64_t value);

private:
  envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy_; // null when it has gone
  const StatsMatcher matcher_;
  bool making_ = true;
  size_t named_[2]; // the templates of stats that are made by their names
  std::map<std::string, std::unique_ptr<OwnStat>> own_[2];
  std::vector<std::shared_ptr<Stat>> defined_;

  std::mutex lock_;
  std::deque<Metric> metrics_; // each stays where it is

  const Metric& at(uint32_t id);
};

// Whether Envoy offers what Metrics need: from 1.39 on.
bool can_have_stats();

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

// FilterConfig is the golang extension's class of that name.
struct FilterConfig {
  const std::string* plugin_name = nullptr;
  Plugin* plugin = nullptr;
  uint64_t id = 0;
  bool logs_start = false; // whether the log is called for a stream that begins
  Metrics metrics;

  FilterConfig(envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, StatsMatcher matcher)
      : metrics(envoy, std::move(matcher)) {}
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

} // namespace contribhost
