// The module itself, and the bootstrap extension.

#include "contribhost.h"

#include <unistd.h>

using namespace contribhost;

extern "C" {

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

envoy_dynamic_module_type_abi_version_module_ptr envoy_dynamic_module_on_program_init(void) {
  on_main_thread = on_envoys_thread = true;
  return ENVOY_DYNAMIC_MODULES_ABI_VERSION;
}

// stats_matcher is that of the bootstrap's stats_config, or nothing.
envoy_dynamic_module_type_bootstrap_extension_config_module_ptr envoy_dynamic_module_on_bootstrap_extension_config_new(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config, envoy_dynamic_module_type_envoy_buffer,
    envoy_dynamic_module_type_envoy_buffer stats_matcher) {
  if (!can_have_stats()) {
    log_line(envoy_dynamic_module_type_log_level_Error, "contrib host: it needs Envoy 1.39");
    return nullptr;
  }
  bootstrap.config = config;
  bootstrap.matcher = StatsMatcher(view(stats_matcher));
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
      bootstrap.config, buffer("/contrib_host"), buffer("what the contrib host holds, and faults that it can have"), false, true);
  auto timer = envoy_dynamic_module_callback_bootstrap_extension_timer_new(bootstrap.config); // for as long as Envoy is
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, refresh_milliseconds());
}

void envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr, envoy_dynamic_module_type_bootstrap_extension_module_ptr) {}

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

// POST /contrib_host copies Envoy's stats, and answers with the counts of what is alive. With ?metrics=gone every metric call fails from then on as if
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
                     ", \"requests\": " + std::to_string(live_requests) + ", \"merges\": " +
                     std::to_string(merges) + "}\n";
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

// Hooks of what the contrib host never starts. Every one must exist, or Envoy does not load the module.
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
