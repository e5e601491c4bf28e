#include "base.h"

// The main thread checks the hosts, so the gauges are old while it hangs, however often they are sampled. It does not hang while it works
// on a large update, but it checks no host either.
static _Atomic int64_t main_thread_at, update_at, sampled_at, sample_limit;

void hg_age_main_thread_runs(void) { atomic_store_explicit(&main_thread_at, hg_now(), memory_order_release); }
void hg_age_main_thread_updates(void) { atomic_store_explicit(&update_at, hg_now(), memory_order_release); }
void hg_age_sampled(int64_t at) { atomic_store_explicit(&sampled_at, at, memory_order_release); }
void hg_age_set_sample_limit(int64_t limit) { atomic_store_explicit(&sample_limit, limit, memory_order_relaxed); }

// expired_time returns which of the times is older than limit, 0 if none is.
static int64_t expired_time(int64_t limit, bool strict, int64_t now) {
  int64_t at = atomic_load_explicit(&main_thread_at, memory_order_acquire);
  int64_t updated = strict ? 0 : atomic_load_explicit(&update_at, memory_order_acquire);
  if (at != 0 && updated > at) at = updated; // 0: Envoy is not ready yet
  if (at != 0 && now - at > limit) return at;
  at = atomic_load_explicit(&sampled_at, memory_order_acquire);
  int64_t least = atomic_load_explicit(&sample_limit, memory_order_relaxed);
  return now - at > (limit > least ? limit : least) ? at : 0;
}

// The expired time that was seen last, and when it was first seen, for gates that are strict and gates that are not. After a SIGSTOP the
// workers may run first, and see old times before other threads can renew them. So a time counts as expired only if it is still the same
// a little later.
static struct {
  _Atomic int64_t suspect, suspected_at;
} seen[2];
static const int64_t confirmed_after = INT64_C(100000000);

void hg_age_check(int64_t limit, bool strict) {
  int64_t now = hg_now(), at = expired_time(limit, strict, now);
  if (at != 0 && atomic_load(&seen[strict].suspect) != at) {
    atomic_store(&seen[strict].suspected_at, now);
    atomic_store(&seen[strict].suspect, at);
  }
}

// log_stale writes one line per hang, not one per probe.
static void log_stale(int64_t at) {
  static _Atomic int64_t logged;
  if (atomic_exchange(&logged, at) == at) return;
  if (at != atomic_load(&sampled_at))
    hg_log(HG_LOG_WARN, HG_BUFFER("healthgate: Envoy's main thread hangs or is very busy, so the hosts may not have been checked. "
                                  "Probes are answered with healthgate_stale until it runs again"));
  else
    hg_log(HG_LOG_WARN, HG_BUFFER("healthgate: the clusters have not been sampled for too long: the machine is very busy. "
                                  "Probes are answered with healthgate_stale until they are"));
}

bool hg_age_is_stale(int64_t limit, bool strict) {
  int64_t now = hg_now(), at = expired_time(limit, strict, now);
  if (at == 0) return false;
  if (atomic_load(&seen[strict].suspect) != at) {
    hg_age_check(limit, strict);
    return false;
  }
  int64_t confirm = confirmed_after;
  if (at == atomic_load(&sampled_at)) { // the limit is at least 60 times the cost of a pass, and a pass counts once it has ended
    int64_t twice_a_pass = atomic_load_explicit(&sample_limit, memory_order_relaxed) / 30;
    if (twice_a_pass > confirm) confirm = twice_a_pass;
  }
  if (now - atomic_load(&seen[strict].suspected_at) < confirm) return false;
  log_stale(at);
  return true;
}
