// The bootstrap extension: it refreshes the stats, and has an admin handler for tests.

#include "config.h"

#include <unistd.h>

using namespace contribhost;

extern "C" {

void envoyGoFilterLog(uint32_t level, void* message_data, int message_len) {
  envoy_dynamic_module_callback_log(static_cast<LogLevel>(level), buffer(copy(message_data, message_len)));
}

uint32_t envoyGoFilterLogLevel() { return envoy_dynamic_module_type_log_level_Trace; } // Envoy drops lines below its own level

envoy_dynamic_module_type_abi_version_module_ptr envoy_dynamic_module_on_program_init(void) {
  on_main_thread = on_envoy_thread = true;
  return ENVOY_DYNAMIC_MODULES_ABI_VERSION;
}

// stats_matcher is the one in stats_config of Envoy's bootstrap, or empty.
ModuleExtensionConfig envoy_dynamic_module_on_bootstrap_extension_config_new(EnvoyExtensionConfig config, Buffer, Buffer stats_matcher) {
  bootstrap.config = config;
  bootstrap.matcher = StatsMatcher(view(stats_matcher));
  envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(config);
  return &bootstrap;
}

ModuleExtension envoy_dynamic_module_on_bootstrap_extension_new(ModuleExtensionConfig, EnvoyExtension extension) {
  bootstrap.extension = extension;
  return &bootstrap;
}

void envoy_dynamic_module_on_bootstrap_extension_destroy(ModuleExtension) { bootstrap.extension = nullptr; }

void envoy_dynamic_module_on_bootstrap_extension_server_initialized(EnvoyExtension, ModuleExtension) {
  envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
      bootstrap.config, buffer("/contrib_host"), buffer("counts and faults of the contrib host"), false, true);
  auto timer = envoy_dynamic_module_callback_bootstrap_extension_timer_new(bootstrap.config); // never deleted
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, refresh_milliseconds());
}

void envoy_dynamic_module_on_bootstrap_extension_timer_fired(EnvoyExtensionConfig, ModuleExtensionConfig,
                                                             envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer) {
  refresh_stats();
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, refresh_milliseconds());
}

void envoy_dynamic_module_on_bootstrap_extension_shutdown(EnvoyExtension, ModuleExtension, envoy_dynamic_module_type_event_cb completed,
                                                          void* context) {
  completed(context);
}

// POST /contrib_host refreshes the stats, and returns the counts of live objects. ?metrics=gone makes every call about metrics fail,
// as if its configuration were destroyed, until ?metrics=back. ?hang=<seconds> first blocks the main thread.
uint32_t envoy_dynamic_module_on_bootstrap_extension_admin_request(EnvoyExtensionConfig config, ModuleExtensionConfig, Buffer, Buffer path,
                                                                   Buffer) {
  if (view(path).find("metrics=") != std::string_view::npos) {
    metrics_gone = view(path).find("metrics=gone") != std::string_view::npos;
  }
  constexpr std::string_view hang = "hang=";
  if (size_t at = view(path).find(hang); at != std::string_view::npos) {
    sleep(atoi(std::string(view(path).substr(at + hang.size())).c_str()));
  }
  refresh_stats();
  std::string json = "{\"configurations\": " + std::to_string(live_configurations) + ", \"requests\": " + std::to_string(live_requests) +
                     ", \"merges\": " + std::to_string(merges) + "}\n";
  envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(config, buffer(json));
  return 200;
}

} // extern "C"
