// How old what probes are answered by may be: two times, of the main thread and of the last sample, and when one is too old.
#include "healthgate.h"

// The main thread checks the hosts, so gauges are old while it hangs, however often they are read.
static _Atomic int64_t main_thread_at, sampled_at, sample_limit;

void hg_main_thread_runs(void) { atomic_store_explicit(&main_thread_at, hg_now(), memory_order_release); }
void hg_sampled(int64_t at) { atomic_store_explicit(&sampled_at, at, memory_order_release); }
void hg_set_sample_limit(int64_t limit) { atomic_store_explicit(&sample_limit, limit, memory_order_relaxed); }
int64_t hg_sampled_at(void) { return atomic_load_explicit(&sampled_at, memory_order_acquire); }

// too_old returns the time that is too old for a limit, 0 if none is.
static int64_t too_old(int64_t limit, int64_t now) {
  int64_t at = atomic_load_explicit(&main_thread_at, memory_order_acquire);
  if (at != 0 && now - at > limit) return at;
  at = hg_sampled_at();
  int64_t longest = atomic_load_explicit(&sample_limit, memory_order_relaxed);
  return now - at > (limit > longest ? limit : longest) ? at : 0;
}

// A time that is too old was seen first at suspected_at. A process that was stopped goes on with its workers first, and they see old
// times before other threads can renew them: what counts is that the same time is still the last a little later.
static _Atomic int64_t suspect, suspected_at;
static const int64_t confirmed_after = INT64_C(100000000);

void hg_suspect(int64_t limit) {
  int64_t now = hg_now(), at = too_old(limit, now);
  if (at != 0 && atomic_load(&suspect) != at) {
    atomic_store(&suspected_at, now);
    atomic_store(&suspect, at);
  }
}

// log_age writes a line once for a time: one per hang, not one per probe.
static void log_age(int64_t at) {
  static _Atomic int64_t logged;
  if (atomic_exchange(&logged, at) == at) return;
  if (at == atomic_load(&main_thread_at))
    hg_log(HG_LOG_WARN, HG_BUFFER("healthgate: Envoy's main thread hangs, or is very busy, so the hosts may not have been checked. "
                                  "Probes are answered with healthgate_stale until it goes on"));
  else
    hg_log(HG_LOG_WARN, HG_BUFFER("healthgate: the clusters have not been sampled for too long: the machine is very busy. "
                                  "Probes are answered with healthgate_stale until they are"));
}

bool hg_is_stale(const hg_gate *gate) {
  int64_t now = hg_now(), at = too_old(gate->oldest, now);
  if (at == 0) return false;
  if (atomic_load(&suspect) != at) {
    hg_suspect(gate->oldest);
    return false;
  }
  int64_t confirm = confirmed_after;
  if (at == hg_sampled_at()) { // the limit is 60 times the cost of a pass at least, and a pass has to end before it counts
    int64_t twice_a_pass = atomic_load_explicit(&sample_limit, memory_order_relaxed) / 30;
    if (twice_a_pass > confirm) confirm = twice_a_pass;
  }
  if (now - atomic_load(&suspected_at) < confirm) return false;
  log_age(at);
  return true;
}
