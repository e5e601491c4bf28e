// The hooks of the bootstrap extension, all on the main thread: load, start, signs of life, cluster changes, shutdown.
#include <stdio.h>

#include "stream.h"

#define EXPORT __attribute__((visibility("default")))

static void *extension_config, *timer;

enum { SIGN_OF_LIFE_EVERY_MS = 100, SHUTDOWN_EVERY_MS = 10, SHUTDOWN_TURNS_MAX = 50 }; // half a second at most

// shutdown is set while Envoy waits for the watchers to end, until done is called.
static struct {
  void (*done)(void *);
  void *context;
  int turns;
} shutdown;

// first_missing returns the name of a function that Envoy lacks, or NULL.
static const char *first_missing(void) {
#define RETURN_IF_MISSING(result, name, ...) \
  if (envoy_dynamic_module_callback_##name == NULL) return #name;
  HG_NEEDED(RETURN_IF_MISSING)
  return NULL;
}

EXPORT const char *envoy_dynamic_module_on_program_init(void) {
  const char *missing = first_missing();
  // Envoy logs a warning if the module's ABI version is not its own. Each function has kept its types since v0.1.0.
  if (missing == NULL) {
    healthgateLoad();
    return envoy_dynamic_module_callback_bootstrap_extension_get_active_resource_names != NULL ? "v0.2.0" : "v0.1.0";
  }
  char line[256];
  int length = snprintf(line, sizeof line,
                        "healthgate: this Envoy has no envoy_dynamic_module_callback_%s; the module needs Envoy 1.38 or later", missing);
  hg_log(HG_LOG_ERROR, (hg_buffer){line, (size_t)length});
  return NULL;
}

EXPORT const void *envoy_dynamic_module_on_bootstrap_extension_config_new(void *envoy, hg_envoy_buffer name, hg_envoy_buffer config) {
  if (extension_config != NULL) {
    hg_log(HG_LOG_ERROR, HG_BUFFER("healthgate: bootstrap_extensions has this module twice; leave one of them out"));
    return NULL;
  }
  if (config.length > 0 && !hg_equal(HG_BUFFER("{}"), config)) {
    hg_log(HG_LOG_ERROR, HG_BUFFER("healthgate: bootstrap_extensions: extension_config is given, but there is nothing to configure; "
                                   "leave it out, and configure the filter"));
    return NULL;
  }
  extension_config = envoy;
  hg_metrics_share(envoy);
  healthgateDefineShared();
  // Envoy waits for this before it accepts traffic.
  envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(envoy);
  return &extension_config;
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_config_destroy(const void *config) {
  hg_metrics_unshare();
  extension_config = NULL;
}

EXPORT const void *envoy_dynamic_module_on_bootstrap_extension_new(const void *config, void *envoy) {
  hg_sample_set_extension(envoy);
  return &extension_config;
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_destroy(const void *extension) {
  hg_sample_set_extension(NULL);
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_server_initialized(void *envoy, const void *extension) {
  if (!envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(extension_config))
    hg_log(HG_LOG_ERROR, HG_BUFFER("healthgate: Envoy does not report which clusters it adds and removes, so a cluster that CDS adds is "
                                   "unknown to each gate"));
  timer = envoy_dynamic_module_callback_bootstrap_extension_timer_new(extension_config);
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, SIGN_OF_LIFE_EVERY_MS);
  hg_age_main_thread_runs();
  healthgateStart();
}

static void end_shutdown(void) {
  envoy_dynamic_module_callback_bootstrap_extension_timer_delete(timer);
  timer = NULL;
  healthgateStop();
  shutdown.done(shutdown.context);
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_timer_fired(void *envoy, const void *config, void *fired) {
  uint64_t next = SIGN_OF_LIFE_EVERY_MS;
  hg_age_main_thread_runs();
  if (shutdown.done != NULL) {
    if (hg_watch_notify() == 0 || ++shutdown.turns == SHUTDOWN_TURNS_MAX) {
      end_shutdown();
      return;
    }
    next = SHUTDOWN_EVERY_MS;
  }
  envoy_dynamic_module_callback_bootstrap_extension_timer_enable(fired, next);
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_shutdown(void *envoy, const void *extension, void (*done)(void *), void *context) {
  shutdown.done = done;
  shutdown.context = context;
  hg_watch_stop_all();
  if (timer == NULL) { // Envoy shuts down before it was ready
    done(context);
  } else if (hg_watch_notify() == 0) {
    end_shutdown();
  } else {
    envoy_dynamic_module_callback_bootstrap_extension_timer_enable(timer, SHUTDOWN_EVERY_MS);
  }
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(void *envoy, const void *config, hg_envoy_buffer name) {
  hg_age_main_thread_updates();
  healthgateCluster((char *)name.ptr, name.length, false);
}

EXPORT void envoy_dynamic_module_on_bootstrap_extension_cluster_removal(void *envoy, const void *config, hg_envoy_buffer name) {
  hg_age_main_thread_updates();
  healthgateCluster((char *)name.ptr, name.length, true);
}
