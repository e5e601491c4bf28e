// What is sampled: the stats of Envoy's that gates read, taken out of a pass over all of them. Only the main thread comes here,
// except for the time of the last sample.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "healthgate.h"

enum { BUCKETS = 1024, LENGTHS = 512 };

static hg_stat *buckets[BUCKETS];
static unsigned by_length[LENGTHS]; // how many names of a length are wanted: most of Envoy's are passed over by theirs
static void *from;
static _Atomic int64_t sampled_at;

static unsigned bucket_of(const char *name, size_t length) {
  uint32_t hash = 2166136261u; // FNV-1a
  for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)name[i]) * 16777619u;
  return hash % BUCKETS;
}

static hg_stat *find(const char *name, size_t length, bool counter) {
  for (hg_stat *stat = buckets[bucket_of(name, length)]; stat != NULL; stat = stat->next)
    if (stat->counter == counter && stat->name.length == length && memcmp(stat->name.ptr, name, length) == 0) return stat;
  return NULL;
}

hg_stat *hg_stat_want(hg_buffer name, bool counter) {
  hg_stat *stat = hg_new(sizeof *stat), **bucket = &buckets[bucket_of(name.ptr, name.length)];
  stat->name = hg_copy(name);
  stat->counter = counter;
  stat->next = *bucket;
  *bucket = stat;
  by_length[name.length % LENGTHS]++;
  return stat;
}

void hg_stat_drop(hg_stat *stat) {
  hg_stat **at = &buckets[bucket_of(stat->name.ptr, stat->name.length)];
  while (*at != stat) at = &(*at)->next;
  *at = stat->next;
  by_length[stat->name.length % LENGTHS]--;
  free((void *)stat->name.ptr);
  free(stat);
}

static unsigned visit(hg_envoy_buffer name, uint64_t value, void *counters) {
  if (by_length[name.length % LENGTHS] == 0) return HG_ITERATION_CONTINUE;
  hg_stat *stat = find(name.ptr, name.length, counters != NULL);
  if (stat != NULL) {
    stat->value = value;
    stat->found = true;
  }
  return HG_ITERATION_CONTINUE;
}

static int64_t precisely(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t hg_stats_pass(bool counters) {
  if (from == NULL) return 0;
  int64_t began = precisely();
  for (unsigned i = 0; i < BUCKETS; i++)
    for (hg_stat *stat = buckets[i]; stat != NULL; stat = stat->next)
      if (stat->counter == counters) {
        stat->value = 0;
        stat->found = false;
      }
  // Envoy holds the lock of its store meanwhile: the visitor defines no stat and frees none.
  if (counters)
    envoy_dynamic_module_callback_bootstrap_extension_iterate_counters(from, visit, &from);
  else
    envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(from, visit, NULL);
  return precisely() - began;
}

void hg_stats_from(void *extension) { from = extension; }
bool hg_stats_possible(void) { return from != NULL; }

int64_t hg_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now); // a probe reads it
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

void hg_sampled(int64_t at) { atomic_store_explicit(&sampled_at, at, memory_order_release); }
int64_t hg_sampled_at(void) { return atomic_load_explicit(&sampled_at, memory_order_acquire); }
