// A stand-in for Envoy's contrib golang filter, as a dynamic module of stock Envoy.
//
// It loads an unmodified plugin and does for it what contrib/golang/filters/http/source of Envoy v1.39.1 does: it offers
// the C functions that the plugin imports and calls those that it exports, in the same order and from the same threads.
// It covers what a health filter needs. Everything else ends Envoy with a message (see unused.c and `die`).
//
// Where it differs from the contrib host:
//  - A stat of another's ("cluster.…", "server.…") is a copy that the main thread makes every few milliseconds, since the
//    module ABI has no way to keep a pointer to one; the contrib host does. A test that has seen a stat in admin has it
//    copied before it goes on (bed.Envoy does that), and the first stream of a process waits for a copy.
//  - The plugin's own stats are the stand-in's bootstrap extension's. What is written to them is kept in atomics, which the
//    main thread hands to Envoy at the same times.
//  - A cluster's stat that a route's configuration names, and the filter's does not, goes with its cluster.
//  - Of a request's route configurations it knows the most specific alone.
//  - The encode callbacks of the plugin's own reply come before the reply is encoded, not while.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <unistd.h>

#include "abi.h" // Envoy's dynamic module ABI, from the Go module cache
#include "api.h" // the contrib host's C functions, likewise

namespace {

[[noreturn]] void die(const std::string& what) {
  fprintf(stderr, "stand-in: %s\n", what.c_str());
  abort();
}

std::string_view view(envoy_dynamic_module_type_envoy_buffer b) { return {b.ptr, b.length}; }

envoy_dynamic_module_type_module_buffer buffer(std::string_view s) { return {s.data(), s.size()}; }

std::string copy(const void* data, int length) {
  return length > 0 ? std::string(static_cast<const char*>(data), length) : std::string();
}

// What was made and not yet freed, for a test to see that nothing piles up.
std::atomic<int64_t> live_configurations{0};
std::atomic<int64_t> live_requests{0};

// Faults that a test can ask for; see on_bootstrap_extension_admin_request.
std::atomic<bool> metrics_gone{false};

// ---------------------------------------------------------------------------------------------------------------------
// The plugin
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

// Plugins by name, loaded once and never unloaded: a Go runtime can't be. Used on the main thread to load, and under the
// lock elsewhere, as in the contrib host's DsoManager.
std::mutex plugins_lock;
std::map<std::string, std::unique_ptr<Plugin>> plugins;

// Returns a plugin name that lives for ever, since requests of any age point at it.
const std::string* intern(const std::string& name) {
  static std::mutex lock;
  static std::map<std::string, std::unique_ptr<std::string>> names;
  std::lock_guard<std::mutex> guard(lock);
  auto& slot = names[name];
  if (slot == nullptr) {
    slot = std::make_unique<std::string>(name);
  }
  return slot.get();
}

void log_line(envoy_dynamic_module_type_log_level level, const std::string& line) {
  envoy_dynamic_module_callback_log(level, buffer(line));
}

template <class F> bool symbol(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

Plugin* find_plugin(const std::string& name) {
  std::lock_guard<std::mutex> guard(plugins_lock);
  auto it = plugins.find(name);
  return it == plugins.end() ? nullptr : it->second.get();
}

Plugin* load_plugin(const std::string& name, const std::string& path) {
  if (Plugin* loaded = find_plugin(name)) {
    return loaded;
  }
  void* library = dlopen(path.c_str(), RTLD_LAZY);
  if (library == nullptr) {
    log_line(envoy_dynamic_module_type_log_level_Error, std::string("stand-in: can't load the plugin: ") + dlerror());
    return nullptr;
  }
  auto plugin = std::make_unique<Plugin>();
  if (!symbol(library, "envoyGoFilterNewHttpPluginConfig", plugin->new_config) ||
      !symbol(library, "envoyGoFilterDestroyHttpPluginConfig", plugin->destroy_config) ||
      !symbol(library, "envoyGoFilterMergeHttpPluginConfig", plugin->merge_config) ||
      !symbol(library, "envoyGoFilterOnHttpHeader", plugin->on_header) ||
      !symbol(library, "envoyGoFilterOnHttpData", plugin->on_data) ||
      !symbol(library, "envoyGoFilterOnHttpLog", plugin->on_log) ||
      !symbol(library, "envoyGoFilterOnHttpStreamComplete", plugin->on_stream_complete) ||
      !symbol(library, "envoyGoFilterOnHttpDestroy", plugin->on_destroy)) {
    log_line(envoy_dynamic_module_type_log_level_Error, "stand-in: " + path + " is not a golang filter plugin");
    return nullptr;
  }
  std::lock_guard<std::mutex> guard(plugins_lock);
  return (plugins[name] = std::move(plugin)).get();
}

// ---------------------------------------------------------------------------------------------------------------------
// Stats: the bootstrap extension
// ---------------------------------------------------------------------------------------------------------------------

// The one bootstrap extension. Its configuration and itself live as long as Envoy serves; both are used on the main thread
// alone.
struct Bootstrap {
  envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config = nullptr;
  envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension = nullptr;
  size_t counters = 0, gauges = 0; // the templates from which the plugin's own stats are made
};
Bootstrap bootstrap;

// The plugin's own stats begin with this, which is the bootstrap extension's metrics_namespace too.
constexpr std::string_view own_prefix = "healthgate.";

// The stats of clusters begin with this, which is the HTTP filter's metrics_namespace too.
constexpr std::string_view cluster_prefix = "cluster.";

bool has_prefix(const std::string& name, std::string_view prefix) {
  return name.compare(0, prefix.size(), prefix) == 0;
}

// Stat is a copy of a stat of Envoy's. Envoy finds one by its name only by going through all of them, which takes a lock
// that a worker must not hold: if it is left with the last reference to a scope that the main thread has just dropped, it
// waits for itself. So the main thread goes through them, every few milliseconds, and whenever admin is asked to.
struct Stat {
  std::atomic<uint64_t> value{0}; // what a stat reads that is not there, in the contrib host too
  uint64_t seen = 0;              // the round in which the main thread has last met it
};

// OwnStat is a stat of the plugin's own. Any thread writes it, and the main thread hands it on.
struct OwnStat {
  std::atomic<uint64_t> value{0};    // of a gauge, or what has been added to a counter since it was handed on
  std::atomic<bool> changed{true};   // so that it is in Envoy from the start, as in the contrib host
};

// Stats are by name, counters and gauges apart; once asked for, one is kept for ever.
struct Stats {
  std::mutex lock;
  std::map<std::string, std::unique_ptr<Stat>, std::less<>> by_name[2];
  std::map<std::string, std::unique_ptr<OwnStat>> own[2];
  std::atomic<uint64_t> round{0};
};
Stats stats;

template <int type>
envoy_dynamic_module_type_stats_iteration_action visit(envoy_dynamic_module_type_envoy_buffer name, uint64_t value,
                                                       void*) {
  auto it = stats.by_name[type].find(view(name));
  if (it != stats.by_name[type].end()) {
    it->second->value = value;
    it->second->seen = stats.round;
  }
  return envoy_dynamic_module_type_stats_iteration_action_Continue;
}

// Hands on the plugin's own stats, and copies all others that were asked for. On the main thread alone.
void refresh_stats() {
  if (bootstrap.extension == nullptr) {
    return;
  }
  std::lock_guard<std::mutex> guard(stats.lock);
  for (auto& [name, stat] : stats.own[0]) {
    if (stat->changed.exchange(false)) {
      auto label = buffer(name);
      envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(bootstrap.config, bootstrap.counters,
                                                                                 &label, 1, stat->value.exchange(0));
    }
  }
  for (auto& [name, stat] : stats.own[1]) {
    if (stat->changed.exchange(false)) {
      auto label = buffer(name);
      envoy_dynamic_module_callback_bootstrap_extension_config_set_gauge(bootstrap.config, bootstrap.gauges, &label, 1,
                                                                         stat->value);
    }
  }
  stats.round++;
  if (!stats.by_name[0].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_counters(bootstrap.extension, visit<0>, nullptr);
  }
  if (!stats.by_name[1].empty()) {
    envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(bootstrap.extension, visit<1>, nullptr);
  }
  for (auto& names : stats.by_name) {
    for (auto& [name, stat] : names) {
      if (stat->seen != stats.round) {
        stat->value = 0;
      }
    }
  }
}

template <class T, class M> T* find_stat(M& by_name, const std::string& name) {
  std::lock_guard<std::mutex> guard(stats.lock);
  auto& slot = by_name[name];
  if (slot == nullptr) {
    slot = std::make_unique<T>();
  }
  return slot.get();
}

// Waits, on a worker and for a second at most, until the main thread has copied once more. Envoy's clusters have been checked
// before its workers start; copies may be from before that.
void await_refresh() {
  uint64_t before = stats.round;
  for (int i = 0; i < 1000 && stats.round == before; i++) {
    usleep(1000);
  }
}

// How often the main thread does the above. A benchmark sets it higher, since it goes through all of Envoy's stats.
uint64_t refresh_milliseconds() {
  static const char* set = getenv("STAND_IN_REFRESH_MILLISECONDS");
  static const uint64_t milliseconds = set != nullptr && atoi(set) > 0 ? atoi(set) : 5;
  return milliseconds;
}

struct Metric {
  uint32_t type;
  Stat* stat;   // of another's
  OwnStat* own; // one of the two is null
};

// ---------------------------------------------------------------------------------------------------------------------
// Configurations
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

  ~FilterConfig() {
    if (id > 0) {
      plugin->destroy_config(id, 0);
    }
  }
};

// GoConfig is what Go holds of a FilterConfig: httpConfigInternal there. Go's garbage collector frees it.
struct GoConfig : httpConfig {
  std::weak_ptr<FilterConfig> filter_config;

  GoConfig() { live_configurations++; }
  ~GoConfig() { live_configurations--; }
};

// FilterConfigHolder is what Envoy holds of a FilterConfig.
struct FilterConfigHolder {
  std::shared_ptr<FilterConfig> config;
};

void fill(httpConfig& c, const std::string* plugin_name, std::string_view any, int is_route_config) {
  c.plugin_name_ptr = reinterpret_cast<uint64_t>(plugin_name->data());
  c.plugin_name_len = plugin_name->size();
  c.config_ptr = reinterpret_cast<uint64_t>(any.data());
  c.config_len = any.size();
  c.is_route_config = is_route_config;
}

// RouteConfig is RoutePluginConfig there: parsed at once where the plugin is loaded, else at the first request.
struct RouteConfig {
  const std::string* plugin_name;
  std::string any;
  httpConfig c{};
  Plugin* plugin = nullptr;
  uint64_t id = 0;

  std::mutex lock;
  uint64_t merged = 0, parent = 0;

  uint64_t parse() {
    if (plugin == nullptr && (plugin = find_plugin(*plugin_name)) == nullptr) {
      die("a route's configuration was used before its plugin was loaded");
    }
    fill(c, plugin_name, any, 1);
    return plugin->new_config(&c);
  }

  uint64_t merge(uint64_t parent_id) {
    std::lock_guard<std::mutex> guard(lock);
    if (merged > 0 && parent == parent_id) {
      return merged;
    }
    if (merged > 0) {
      plugin->destroy_config(merged, 1);
    }
    if (id == 0 && (id = parse()) == 0) {
      die("RELEASE_ASSERT: a route's configuration was refused at a request"); // as the contrib host does
    }
    merged = plugin->merge_config(reinterpret_cast<uint64_t>(plugin_name->data()), plugin_name->size(), parent_id, id);
    parent = parent_id;
    return merged;
  }

  ~RouteConfig() {
    if (id > 0) {
      plugin->destroy_config(id, 0);
    }
    if (merged > 0 && merged != id) {
      plugin->destroy_config(merged, 0);
    }
  }
};

std::shared_ptr<FilterConfig> lock_config(void* c) { return static_cast<GoConfig*>(c)->filter_config.lock(); }

// ---------------------------------------------------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------------------------------------------------

// The contrib host's FilterState; Go knows three of them by their numbers.
enum State { WaitingHeader = 0, ProcessingHeader = 1, WaitingData = 2, ProcessingData = 4, ProcessingTrailer = 6, Done = 7 };

// The contrib host's GolangStatus.
enum Status : uint64_t { Running, LocalReply, Continue, StopAndBuffer, StopAndBufferWatermark, StopNoBuffer };

struct Reply {
  int code;
  std::string body, details;
  std::vector<std::pair<std::string, std::string>> headers;
  int64_t grpc_status;
};

struct Stream;

// Request is what Go holds of a stream, HttpRequestInternal there. It outlives the stream, until Go's garbage collector
// finalizes it. The processStates are part of it, so that no late call of Go's touches freed memory.
struct Request : httpRequest {
  Stream* stream; // null once the stream is destroyed; set and read on the stream's worker alone
  processState decoding{}, encoding{};

  explicit Request(Stream* s) : httpRequest{}, stream(s) {
    decoding.req = encoding.req = this;
    encoding.is_encoding = 1;
    live_requests++;
  }
  ~Request() { live_requests--; }
};

// Stream is the contrib host's Filter.
struct Stream {
  std::shared_ptr<FilterConfig> config;
  envoy_dynamic_module_type_http_filter_envoy_ptr envoy = nullptr;
  Request* request = nullptr; // Go's, once it has been shown to Go
  bool shown = false;
  bool replying = false; // while the plugin's own reply is sent
  std::unique_ptr<Reply> reply;

  Plugin& plugin() { return *config->plugin; }

  void show() {
    if (shown) {
      return;
    }
    uint64_t id = config->id;
    auto* route =
        const_cast<RouteConfig*>(static_cast<const RouteConfig*>(envoy_dynamic_module_callback_get_most_specific_route_config(envoy)));
    if (route != nullptr && route->plugin_name == config->plugin_name) {
      id = route->merge(id);
    }
    request->plugin_name = {config->plugin_name->data(), config->plugin_name->size()};
    request->configId = id;
    request->worker_id = envoy_dynamic_module_callback_http_filter_get_worker_index(envoy);
    shown = true;
  }

  uint64_t header_count(envoy_dynamic_module_type_http_header_type type) {
    return envoy_dynamic_module_callback_http_get_headers_size(envoy, type);
  }

  // Each returns whether the host is to go on with what it has passed to Go.

  bool headers(processState& state, envoy_dynamic_module_type_http_header_type type, bool end_stream) {
    show();
    state.state = ProcessingHeader;
    // The number of bytes serves Go's CopyHeaders alone, which the stand-in does not have.
    switch (plugin().on_header(&state, end_stream, header_count(type), 0)) {
    case Continue:
      state.state = end_stream ? Done : WaitingData;
      return true;
    case LocalReply:
      return false;
    case StopAndBufferWatermark:
      state.state = WaitingData;
      return false;
    }
    die("an unexpected status of headers");
  }

  bool data(processState& state, bool end_stream) {
    if (state.state != WaitingData) {
      return false; // the reply is on its way
    }
    state.state = ProcessingData;
    switch (plugin().on_data(&state, end_stream, 0, 0)) {
    case Continue:
      state.state = end_stream ? Done : WaitingData;
      return true;
    case LocalReply:
      return false;
    case StopNoBuffer:
      state.state = WaitingData;
      return false;
    }
    die("an unexpected status of data");
  }

  bool trailers(processState& state, envoy_dynamic_module_type_http_header_type type) {
    if (state.state != WaitingData) {
      return false;
    }
    state.state = ProcessingTrailer;
    switch (plugin().on_header(&state, 1, header_count(type), 0)) {
    case Continue:
      state.state = Done;
      return true;
    case LocalReply:
      return false;
    }
    die("an unexpected status of trailers");
  }

  bool is_grpc() {
    envoy_dynamic_module_type_envoy_buffer value{};
    envoy_dynamic_module_callback_http_get_header(envoy, envoy_dynamic_module_type_http_header_type_RequestHeader,
                                                  buffer("content-type"), &value, 0, nullptr);
    std::string_view type = view(value), grpc = "application/grpc";
    return type.substr(0, grpc.size()) == grpc && (type.size() == grpc.size() || type[grpc.size()] == '+');
  }

  void send_reply() {
    std::unique_ptr<Reply> r = std::move(reply);
    if (is_grpc()) { // the ABI takes no gRPC status; Envoy keeps one that is there
      r->headers.emplace_back("grpc-status", std::to_string(r->grpc_status));
    }
    std::vector<envoy_dynamic_module_type_module_http_header> headers;
    for (auto& [key, value] : r->headers) {
      if (!value.empty()) { // as the contrib host does
        headers.push_back({key.data(), key.size(), value.data(), value.size()});
      }
    }
    request->decoding.state = Done;
    replying = true;
    // The stream may be destroyed when this returns.
    envoy_dynamic_module_callback_http_send_response(envoy, r->code, headers.data(), headers.size(), buffer(r->body),
                                                     buffer(r->details));
  }
};

bool in_go(const processState& state) {
  return state.state == ProcessingHeader || state.state == ProcessingData || state.state == ProcessingTrailer;
}

// The stream of a call from Go, or why there is none. Healthgate calls on the stream's worker alone, inside a callback.
CAPIStatus stream_of(void* s, Stream*& stream) {
  auto* state = static_cast<processState*>(s);
  if (!in_go(*state)) {
    return CAPINotInGo;
  }
  stream = static_cast<Request*>(state->req)->stream;
  return stream == nullptr ? CAPIFilterIsGone : CAPIOK;
}

} // namespace

// ---------------------------------------------------------------------------------------------------------------------
// What the plugin imports
// ---------------------------------------------------------------------------------------------------------------------

extern "C" {

CAPIStatus envoyGoFilterHttpSendLocalReply(void* s, int response_code, void* body_text_data, int body_text_len,
                                           void* headers, int headers_num, long long int grpc_status,
                                           void* details_data, int details_len) {
  Stream* stream;
  if (CAPIStatus status = stream_of(s, stream); status != CAPIOK) {
    return status;
  }
  auto reply = std::make_unique<Reply>();
  reply->code = response_code;
  reply->body = copy(body_text_data, body_text_len);
  reply->details = copy(details_data, details_len);
  reply->grpc_status = grpc_status;
  struct GoString {
    const char* data;
    ptrdiff_t length;
  };
  auto* strings = static_cast<GoString*>(headers);
  for (int i = 0; i + 1 < headers_num; i += 2) {
    reply->headers.emplace_back(copy(strings[i].data, strings[i].length), copy(strings[i + 1].data, strings[i + 1].length));
  }
  stream->reply = std::move(reply);
  // Posted, never sent from here: the callback that is under way has not returned its status yet.
  auto scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(stream->envoy);
  envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler, 0);
  envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler);
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpGetHeader(void* s, void* key_data, int key_len, uint64_t* value_data, int* value_len) {
  Stream* stream;
  if (CAPIStatus status = stream_of(s, stream); status != CAPIOK) {
    return status;
  }
  auto* state = static_cast<processState*>(s);
  if (state->is_encoding || state->state != ProcessingHeader) {
    die("a header other than the request's was asked for");
  }
  envoy_dynamic_module_type_envoy_buffer value{};
  envoy_dynamic_module_callback_http_get_header(stream->envoy, envoy_dynamic_module_type_http_header_type_RequestHeader,
                                                {static_cast<const char*>(key_data), static_cast<size_t>(key_len)},
                                                &value, 0, nullptr);
  if (value.ptr != nullptr) {
    *value_data = reinterpret_cast<uint64_t>(value.ptr);
    *value_len = static_cast<int>(value.length);
  }
  return CAPIOK;
}

void envoyGoFilterHttpFinalize(void* r, int) { delete static_cast<Request*>(static_cast<httpRequest*>(r)); }

void envoyGoConfigHttpFinalize(void* c) { delete static_cast<GoConfig*>(static_cast<httpConfig*>(c)); }

void envoyGoFilterLog(uint32_t level, void* message_data, int message_len) {
  log_line(static_cast<envoy_dynamic_module_type_log_level>(level), copy(message_data, message_len));
}

uint32_t envoyGoFilterLogLevel() {
  for (uint32_t level = envoy_dynamic_module_type_log_level_Trace; level < envoy_dynamic_module_type_log_level_Off; level++) {
    if (envoy_dynamic_module_callback_log_enabled(static_cast<envoy_dynamic_module_type_log_level>(level))) {
      return level;
    }
  }
  return envoy_dynamic_module_type_log_level_Off;
}

CAPIStatus envoyGoFilterHttpDefineMetric(void* c, uint32_t metric_type, void* name_data, int name_len,
                                         uint32_t* metric_id) {
  auto config = lock_config(c);
  if (config == nullptr) {
    return CAPIFilterIsGone;
  }
  if (metric_type > 1) {
    die("a histogram was defined");
  }
  std::string name = copy(name_data, name_len);
  Metric metric{metric_type, nullptr, nullptr};
  if (has_prefix(name, own_prefix)) {
    metric.own = find_stat<OwnStat>(stats.own[metric_type], name.substr(own_prefix.size()));
  } else {
    metric.stat = find_stat<Stat>(stats.by_name[metric_type], name);
  }
  if (metric.stat != nullptr && has_prefix(name, cluster_prefix) && config->envoy != nullptr) {
    // As in the contrib host, the stat is there from now on, and stays when its cluster goes.
    std::string_view in_cluster = std::string_view(name).substr(cluster_prefix.size());
    size_t id;
    if (metric_type == 0 ? envoy_dynamic_module_callback_http_filter_config_define_counter(
                               config->envoy, buffer(in_cluster), nullptr, 0, &id)
                         : envoy_dynamic_module_callback_http_filter_config_define_gauge(
                               config->envoy, buffer(in_cluster), nullptr, 0, &id)) {
      die("can't define " + name);
    }
  }
  if (metric.stat != nullptr && config->envoy != nullptr) {
    refresh_stats(); // this is the main thread
  }
  std::lock_guard<std::mutex> guard(config->lock);
  *metric_id = config->metrics.size();
  config->metrics.push_back(metric);
  return CAPIOK;
}

// Finds a metric, or says that its configuration has gone.
static CAPIStatus find_metric(void* c, uint32_t metric_id, Metric& metric) {
  auto config = lock_config(c);
  if (config == nullptr || metrics_gone) {
    return CAPIFilterIsGone;
  }
  std::lock_guard<std::mutex> guard(config->lock);
  metric = config->metrics.at(metric_id);
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpIncrementMetric(void* c, uint32_t metric_id, int64_t offset) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.own == nullptr || metric.type != 0) {
    die("a stat that is not a counter of the plugin's own was incremented");
  }
  metric.own->value += offset;
  if (!metric.own->changed) { // a store a probe would bounce the cache line between workers
    metric.own->changed = true;
  }
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpGetMetric(void* c, uint32_t metric_id, uint64_t* value) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.stat == nullptr) {
    die("a stat of the plugin's own was read");
  }
  *value = metric.stat->value;
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpRecordMetric(void* c, uint32_t metric_id, uint64_t value) {
  Metric metric;
  if (CAPIStatus status = find_metric(c, metric_id, metric); status != CAPIOK) {
    return status;
  }
  if (metric.own == nullptr || metric.type != 1) {
    die("a stat that is not a gauge of the plugin's own was set");
  }
  metric.own->value = value;
  metric.own->changed = true;
  return CAPIOK;
}

// ---------------------------------------------------------------------------------------------------------------------
// What Envoy calls: the module
// ---------------------------------------------------------------------------------------------------------------------

envoy_dynamic_module_type_abi_version_module_ptr envoy_dynamic_module_on_program_init(void) {
  return ENVOY_DYNAMIC_MODULES_ABI_VERSION;
}

envoy_dynamic_module_type_bootstrap_extension_config_module_ptr envoy_dynamic_module_on_bootstrap_extension_config_new(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config, envoy_dynamic_module_type_envoy_buffer,
    envoy_dynamic_module_type_envoy_buffer) {
  bootstrap.config = config;
  // A stat of two parts of which one is the label: with all else empty, its name is the label's value.
  auto nothing = buffer("");
  if (envoy_dynamic_module_callback_bootstrap_extension_config_define_counter(config, nothing, &nothing, 1,
                                                                              &bootstrap.counters) ||
      envoy_dynamic_module_callback_bootstrap_extension_config_define_gauge(config, nothing, &nothing, 1,
                                                                            &bootstrap.gauges)) {
    return nullptr;
  }
  envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(config);
  return &bootstrap;
}

void envoy_dynamic_module_on_bootstrap_extension_config_destroy(
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr) {}

envoy_dynamic_module_type_bootstrap_extension_module_ptr envoy_dynamic_module_on_bootstrap_extension_new(
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr,
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension) {
  bootstrap.extension = extension;
  return &bootstrap;
}

void envoy_dynamic_module_on_bootstrap_extension_server_initialized(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr, envoy_dynamic_module_type_bootstrap_extension_module_ptr) {
  envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
      bootstrap.config, buffer("/stand_in"), buffer("what the stand-in holds, and faults that it can have"), false, true);
  auto timer = envoy_dynamic_module_callback_bootstrap_extension_timer_new(bootstrap.config); // for as long as Envoy is
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, refresh_milliseconds());
}

void envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr, envoy_dynamic_module_type_bootstrap_extension_module_ptr) {
}

void envoy_dynamic_module_on_bootstrap_extension_drain_started(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr, envoy_dynamic_module_type_bootstrap_extension_module_ptr) {}

void envoy_dynamic_module_on_bootstrap_extension_shutdown(envoy_dynamic_module_type_bootstrap_extension_envoy_ptr,
                                                          envoy_dynamic_module_type_bootstrap_extension_module_ptr,
                                                          envoy_dynamic_module_type_event_cb completed, void* context) {
  completed(context);
}

void envoy_dynamic_module_on_bootstrap_extension_destroy(envoy_dynamic_module_type_bootstrap_extension_module_ptr) {
  bootstrap.extension = nullptr;
}

void envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, uint64_t,
    envoy_dynamic_module_type_http_callout_result, envoy_dynamic_module_type_envoy_http_header*, size_t,
    envoy_dynamic_module_type_envoy_buffer*, size_t) {}

void envoy_dynamic_module_on_bootstrap_extension_timer_fired(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr,
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer) {
  refresh_stats();
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, refresh_milliseconds());
}

void envoy_dynamic_module_on_bootstrap_extension_file_changed(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer, uint32_t) {}

// POST /stand_in copies Envoy's stats, and answers with the counts of what is alive. With ?metrics=gone every metric call fails from then on as if
// its configuration had gone, and ?metrics=back ends that. With ?hang=<seconds> the main thread hangs for that long, after
// which it answers.
uint32_t envoy_dynamic_module_on_bootstrap_extension_admin_request(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer,
    envoy_dynamic_module_type_envoy_buffer path, envoy_dynamic_module_type_envoy_buffer) {
  if (view(path).find("metrics=gone") != std::string_view::npos) {
    metrics_gone = true;
  } else if (view(path).find("metrics=back") != std::string_view::npos) {
    metrics_gone = false;
  }
  constexpr std::string_view hang = "hang=";
  if (size_t at = view(path).find(hang); at != std::string_view::npos) {
    sleep(atoi(std::string(view(path).substr(at + hang.size())).c_str()));
  }
  refresh_stats();
  std::string json = "{\"configurations\": " + std::to_string(live_configurations) +
                     ", \"requests\": " + std::to_string(live_requests) + "}\n";
  envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(config, buffer(json));
  return 200;
}

void envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer) {}

void envoy_dynamic_module_on_bootstrap_extension_cluster_removal(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer) {}

void envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer) {}

void envoy_dynamic_module_on_bootstrap_extension_listener_removal(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, envoy_dynamic_module_type_envoy_buffer) {}

// ---------------------------------------------------------------------------------------------------------------------
// What Envoy calls: the HTTP filter
// ---------------------------------------------------------------------------------------------------------------------

// name is "<plugin_name>@<library_path>"; config is the serialized google.protobuf.Any of plugin_config.
envoy_dynamic_module_type_http_filter_config_module_ptr envoy_dynamic_module_on_http_filter_config_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer any) {
  std::string_view both = view(name);
  size_t at = both.find('@');
  if (at == std::string_view::npos) {
    log_line(envoy_dynamic_module_type_log_level_Error, "stand-in: filter_name is not <plugin_name>@<library_path>");
    return nullptr;
  }
  auto config = std::make_shared<FilterConfig>();
  config->plugin_name = intern(std::string(both.substr(0, at)));
  config->plugin = load_plugin(*config->plugin_name, std::string(both.substr(at + 1)));
  if (config->plugin == nullptr) {
    return nullptr;
  }
  auto* go = new GoConfig(); // freed by Go
  go->filter_config = config;
  fill(*go, config->plugin_name, view(any), 0);
  go->concurrency = envoy_dynamic_module_callback_get_concurrency();
  config->envoy = envoy;
  config->id = config->plugin->new_config(go);
  config->envoy = nullptr;
  if (config->id == 0) {
    return nullptr;
  }
  return new FilterConfigHolder{config};
}

void envoy_dynamic_module_on_http_filter_config_destroy(
    envoy_dynamic_module_type_http_filter_config_module_ptr config) {
  delete static_cast<const FilterConfigHolder*>(config);
}

// name is "<plugin_name>".
envoy_dynamic_module_type_http_filter_per_route_config_module_ptr
envoy_dynamic_module_on_http_filter_per_route_config_new(envoy_dynamic_module_type_envoy_buffer name,
                                                         envoy_dynamic_module_type_envoy_buffer any) {
  auto route = std::make_unique<RouteConfig>();
  route->plugin_name = intern(std::string(view(name)));
  route->any = std::string(view(any));
  route->plugin = find_plugin(*route->plugin_name);
  if (route->plugin != nullptr && (route->id = route->parse()) == 0) {
    return nullptr;
  }
  return route.release();
}

void envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    envoy_dynamic_module_type_http_filter_per_route_config_module_ptr config) {
  delete static_cast<const RouteConfig*>(config);
}

envoy_dynamic_module_type_http_filter_module_ptr
envoy_dynamic_module_on_http_filter_new(envoy_dynamic_module_type_http_filter_config_module_ptr config,
                                        envoy_dynamic_module_type_http_filter_envoy_ptr envoy) {
  static std::once_flag first;
  std::call_once(first, await_refresh);
  auto* stream = new Stream();
  stream->config = static_cast<const FilterConfigHolder*>(config)->config;
  stream->envoy = envoy;
  stream->request = new Request(stream);
  return stream;
}

static Stream& stream_at(envoy_dynamic_module_type_http_filter_module_ptr filter) {
  return *const_cast<Stream*>(static_cast<const Stream*>(filter));
}

envoy_dynamic_module_type_on_http_filter_request_headers_status envoy_dynamic_module_on_http_filter_request_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.headers(s.request->decoding, envoy_dynamic_module_type_http_header_type_RequestHeader, end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_headers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_headers_status_StopIteration;
}

envoy_dynamic_module_type_on_http_filter_request_body_status envoy_dynamic_module_on_http_filter_request_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.data(s.request->decoding, end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_body_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_body_status_StopIterationNoBuffer;
}

envoy_dynamic_module_type_on_http_filter_request_trailers_status envoy_dynamic_module_on_http_filter_request_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  return s.trailers(s.request->decoding, envoy_dynamic_module_type_http_header_type_RequestTrailer)
             ? envoy_dynamic_module_type_on_http_filter_request_trailers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_trailers_status_StopIteration;
}

envoy_dynamic_module_type_on_http_filter_response_headers_status envoy_dynamic_module_on_http_filter_response_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  if (!s.headers(s.request->encoding, envoy_dynamic_module_type_http_header_type_ResponseHeader, end_of_stream)) {
    die("the plugin stopped a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_headers_status_Continue;
}

envoy_dynamic_module_type_on_http_filter_response_body_status envoy_dynamic_module_on_http_filter_response_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  if (!s.data(s.request->encoding, end_of_stream)) {
    die("the plugin stopped the body of a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_body_status_Continue;
}

envoy_dynamic_module_type_on_http_filter_response_trailers_status envoy_dynamic_module_on_http_filter_response_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  if (!s.trailers(s.request->encoding, envoy_dynamic_module_type_http_header_type_ResponseTrailer)) {
    die("the plugin stopped the trailers of a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_trailers_status_Continue;
}

// Envoy does not call a module's encode hooks for its own reply; the contrib host's filter gets them.
envoy_dynamic_module_type_on_http_filter_local_reply_status envoy_dynamic_module_on_http_filter_local_reply(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter, uint32_t,
    envoy_dynamic_module_type_envoy_buffer, bool reset_imminent) {
  Stream& s = stream_at(filter);
  if (s.replying && !reset_imminent) {
    processState& state = s.request->encoding;
    if (!s.headers(state, envoy_dynamic_module_type_http_header_type_ResponseHeader, false) || !s.data(state, true)) {
      die("the plugin stopped its own reply");
    }
  }
  return envoy_dynamic_module_type_on_http_filter_local_reply_status_Continue;
}

void envoy_dynamic_module_on_http_filter_scheduled(envoy_dynamic_module_type_http_filter_envoy_ptr,
                                                   envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t) {
  Stream& s = stream_at(filter);
  if (s.reply != nullptr) {
    s.send_reply();
  }
}

void envoy_dynamic_module_on_http_filter_stream_complete(envoy_dynamic_module_type_http_filter_envoy_ptr,
                                                         envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  s.show(); // the log is called for every stream, even one that never came as far as this filter
  constexpr uint64_t downstream_end = 6;
  s.request->is_golang_processing_log = 1;
  s.plugin().on_stream_complete(s.request);
  s.plugin().on_log(s.request, downstream_end, &s.request->decoding, &s.request->encoding,
                    s.header_count(envoy_dynamic_module_type_http_header_type_RequestHeader), 0, 0, 0,
                    s.header_count(envoy_dynamic_module_type_http_header_type_ResponseHeader), 0, 0, 0);
  s.request->is_golang_processing_log = 0;
}

void envoy_dynamic_module_on_http_filter_destroy(envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream* s = &stream_at(filter);
  Request* request = s->request;
  if (s->shown) {
    bool terminated = in_go(request->decoding) || in_go(request->encoding);
    request->stream = nullptr;
    s->plugin().on_destroy(request, terminated ? 1 : 0);
  } else {
    delete request; // Go never saw it
  }
  delete s;
}

// Hooks of what the stand-in never starts. Every one must exist, or Envoy does not load the module.
#define NEVER(hook, ...)                                                                                               \
  void hook(__VA_ARGS__) { die(#hook " without a call that asked for it"); }

using FilterEnvoy = envoy_dynamic_module_type_http_filter_envoy_ptr;
using Filter = envoy_dynamic_module_type_http_filter_module_ptr;
using ConfigEnvoy = envoy_dynamic_module_type_http_filter_config_envoy_ptr;
using Config = envoy_dynamic_module_type_http_filter_config_module_ptr;
using Header = envoy_dynamic_module_type_envoy_http_header;
using Buffer = envoy_dynamic_module_type_envoy_buffer;
using CalloutResult = envoy_dynamic_module_type_http_callout_result;
using ResetReason = envoy_dynamic_module_type_http_stream_reset_reason;

NEVER(envoy_dynamic_module_on_http_filter_http_callout_done, FilterEnvoy, Filter, uint64_t, CalloutResult, Header*, size_t,
      Buffer*, size_t)
NEVER(envoy_dynamic_module_on_http_filter_http_stream_headers, FilterEnvoy, Filter, uint64_t, Header*, size_t, bool)
NEVER(envoy_dynamic_module_on_http_filter_http_stream_data, FilterEnvoy, Filter, uint64_t, const Buffer*, size_t, bool)
NEVER(envoy_dynamic_module_on_http_filter_http_stream_trailers, FilterEnvoy, Filter, uint64_t, Header*, size_t)
NEVER(envoy_dynamic_module_on_http_filter_http_stream_complete, FilterEnvoy, Filter, uint64_t)
NEVER(envoy_dynamic_module_on_http_filter_http_stream_reset, FilterEnvoy, Filter, uint64_t, ResetReason)
NEVER(envoy_dynamic_module_on_bootstrap_extension_config_scheduled,
      envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr,
      envoy_dynamic_module_type_bootstrap_extension_config_module_ptr, uint64_t)
NEVER(envoy_dynamic_module_on_http_filter_config_scheduled, ConfigEnvoy, Config, uint64_t)
NEVER(envoy_dynamic_module_on_http_filter_config_http_callout_done, ConfigEnvoy, Config, uint64_t, CalloutResult, Header*,
      size_t, Buffer*, size_t)
NEVER(envoy_dynamic_module_on_http_filter_config_http_stream_headers, ConfigEnvoy, Config, uint64_t, Header*, size_t, bool)
NEVER(envoy_dynamic_module_on_http_filter_config_http_stream_data, ConfigEnvoy, Config, uint64_t, const Buffer*, size_t,
      bool)
NEVER(envoy_dynamic_module_on_http_filter_config_http_stream_trailers, ConfigEnvoy, Config, uint64_t, Header*, size_t)
NEVER(envoy_dynamic_module_on_http_filter_config_http_stream_complete, ConfigEnvoy, Config, uint64_t)
NEVER(envoy_dynamic_module_on_http_filter_config_http_stream_reset, ConfigEnvoy, Config, uint64_t, ResetReason)

void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(FilterEnvoy, Filter) {}
void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(FilterEnvoy, Filter) {}

} // extern "C"
