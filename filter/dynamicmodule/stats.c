// What is sampled: the gauges that gates read, taken out of a pass over all of Envoy's.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "healthgate.h"

enum { LENGTHS = 512 };

typedef struct {
  uint64_t hash;
  hg_buffer name;
  size_t place; // in the samples
} slot;

// hg_index is not changed once a pass has used it, so that several threads can make passes with one.
struct hg_index {
  size_t mask, count;
  bool lengths[LENGTHS]; // of the names: most gauges of Envoy's are passed over by theirs
  slot *slots;           // open addressing; a name of NULL is free
  char *names;
};

uint64_t hg_hash(hg_buffer text) {
  uint64_t hash = UINT64_C(14695981039346656037); // FNV-1a
  for (size_t i = 0; i < text.length; i++) hash = (hash ^ (unsigned char)text.ptr[i]) * UINT64_C(1099511628211);
  return hash;
}

hg_index *hg_index_new(size_t names, size_t bytes) {
  hg_index *index = hg_new(sizeof *index);
  size_t size = 16;
  while (size < 2 * names) size *= 2;
  index->mask = size - 1;
  index->slots = hg_new(size * sizeof *index->slots);
  index->names = hg_new(bytes + 1);
  return index;
}

void hg_index_add(hg_index *index, hg_buffer name, size_t offset) {
  char *copy = index->names + offset;
  memcpy(copy, name.ptr, name.length);
  uint64_t hash = hg_hash(name);
  size_t i = hash & index->mask;
  while (index->slots[i].name.ptr != NULL) i = (i + 1) & index->mask;
  index->slots[i] = (slot){hash, {copy, name.length}, index->count++};
  index->lengths[name.length % LENGTHS] = true;
}

void hg_index_free(hg_index *index) {
  free(index->slots);
  free(index->names);
  free(index);
}

// pass is what a visitor is given.
typedef struct {
  const hg_index *index;
  hg_sample *samples;
  hg_hashes *clusters;
} pass;

// note_cluster keeps the hash of a cluster's stat name, if a gauge is the total of a cluster.
static void note_cluster(hg_hashes *clusters, hg_envoy_buffer name) {
  static const char before[] = "cluster.", after[] = ".membership_total";
  const size_t front = sizeof before - 1, back = sizeof after - 1;
  if (name.length <= front + back || memcmp(name.ptr, before, front) != 0 || memcmp(name.ptr + name.length - back, after, back) != 0) return;
  if (clusters->count == clusters->capacity) {
    clusters->capacity = clusters->capacity == 0 ? 64 : 2 * clusters->capacity;
    clusters->hashes = realloc(clusters->hashes, clusters->capacity * sizeof *clusters->hashes);
    if (clusters->hashes == NULL) abort();
  }
  clusters->hashes[clusters->count++] = hg_hash((hg_buffer){name.ptr + front, name.length - front - back});
}

static unsigned visit(hg_envoy_buffer name, uint64_t value, void *context) {
  pass *p = context;
  if (p->clusters != NULL) note_cluster(p->clusters, name);
  if (!p->index->lengths[name.length % LENGTHS]) return HG_ITERATION_CONTINUE;
  hg_buffer text = {name.ptr, name.length};
  uint64_t hash = hg_hash(text);
  for (size_t i = hash & p->index->mask; p->index->slots[i].name.ptr != NULL; i = (i + 1) & p->index->mask) {
    const slot *s = &p->index->slots[i];
    if (s->hash == hash && hg_equal(s->name, name)) {
      p->samples[s->place] = (hg_sample){value, true};
      break;
    }
  }
  return HG_ITERATION_CONTINUE;
}

static void *envoys; // Envoy's side of the bootstrap extension, NULL if there is none
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; // of envoys, which has to stay while a pass is under way

bool hg_pass(const hg_index *index, hg_sample *samples, hg_hashes *clusters) {
  pthread_rwlock_rdlock(&lock);
  bool available = envoys != NULL;
  // Envoy holds the lock of its stats meanwhile: the visitor defines no stat and frees none.
  pass p = {index, samples, clusters};
  if (available) envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(envoys, visit, &p);
  pthread_rwlock_unlock(&lock);
  return available;
}

void hg_count_sample(void) {
  pthread_rwlock_rdlock(&lock);
  if (envoys != NULL) hg_bootstrap_count_sample();
  pthread_rwlock_unlock(&lock);
}

void hg_hashes_free(hg_hashes *hashes) { free(hashes->hashes); }

void hg_stats_set_extension(void *extension) {
  pthread_rwlock_wrlock(&lock);
  envoys = extension;
  pthread_rwlock_unlock(&lock);
}

bool hg_stats_available(void) {
  pthread_rwlock_rdlock(&lock);
  bool available = envoys != NULL;
  pthread_rwlock_unlock(&lock);
  return available;
}

static int64_t nanoseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t hg_now(void) { return nanoseconds(CLOCK_MONOTONIC_COARSE); } // a probe reads it
int64_t hg_cpu_time(void) { return nanoseconds(CLOCK_THREAD_CPUTIME_ID); }
