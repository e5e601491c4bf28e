// How old the samples are that gates are evaluated by, and when they are too old.
#include "healthgate.h"

static _Atomic int64_t sampled_at, lowest_limit;

void hg_sampled(int64_t at) { atomic_store_explicit(&sampled_at, at, memory_order_release); }
int64_t hg_sampled_at(void) { return atomic_load_explicit(&sampled_at, memory_order_acquire); }
void hg_set_age_limit(int64_t limit) { atomic_store(&lowest_limit, limit); }

// Too old a sample was seen first at suspected_at. A process that was stopped goes on with its workers first, and they see an
// old sample before the main thread can take another one: what counts is that the same sample is still the last a little later.
static _Atomic int64_t suspect, suspected_at;
static const int64_t confirmed_after = INT64_C(100000000);

void hg_suspect(int64_t limit) {
  int64_t at = hg_sampled_at(), now = hg_now();
  if (at != 0 && now - at > limit && atomic_load(&suspect) != at) {
    atomic_store(&suspected_at, now);
    atomic_store(&suspect, at);
  }
}

// log_age writes a line once for a sample: one per hang of the main thread, not one per probe.
static void log_age(int64_t at) {
  static _Atomic int64_t logged;
  if (atomic_exchange(&logged, at) != at)
    hg_log(HG_LOG_WARN, HG_BUFFER("healthgate: Envoy's main thread has not sampled the clusters for too long: it hangs, or is very busy. "
                                  "Probes are answered with healthgate_stale until it goes on"));
}

bool hg_is_stale(const hg_gate *gate) {
  int64_t at = hg_sampled_at(), now = hg_now();
  if (now - at <= gate->oldest || now - at <= atomic_load_explicit(&lowest_limit, memory_order_relaxed)) return false;
  if (atomic_load(&suspect) != at) {
    hg_suspect(0);
    return false;
  }
  if (now - atomic_load(&suspected_at) < confirmed_after) return false;
  log_age(at);
  return true;
}
