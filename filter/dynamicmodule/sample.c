#include "base.h"

#include <pthread.h>
#include <stdlib.h>

enum { LENGTHS = 512 };

typedef struct {
  uint64_t hash;
  hg_buffer name;
  size_t position; // in the samples
} slot;

struct hg_index {
  size_t mask, count;
  bool lengths[LENGTHS]; // of the names: the length alone rules out most gauges
  slot *slots;           // open addressing; a free slot has no name
};

hg_index *hg_index_create(size_t names) {
  hg_index *index = hg_alloc(sizeof *index);
  size_t size = 16;
  while (size < 2 * names) size *= 2;
  index->mask = size - 1;
  index->slots = hg_alloc(size * sizeof *index->slots);
  return index;
}

void hg_index_add(hg_index *index, hg_buffer name) {
  uint64_t hash = hg_hash((hg_envoy_buffer){name.ptr, name.length});
  size_t i = hash & index->mask;
  while (index->slots[i].name.ptr != NULL) i = (i + 1) & index->mask;
  index->slots[i] = (slot){hash, hg_copy(name), index->count++};
  index->lengths[name.length % LENGTHS] = true;
}

void hg_index_destroy(hg_index *index) {
  for (size_t i = 0; i <= index->mask; i++) free((void *)index->slots[i].name.ptr);
  free(index->slots);
  free(index);
}

typedef struct {
  const hg_index *index;
  hg_sample *samples;
  hg_hashes *clusters;
} pass;

// add_cluster adds a cluster if a gauge is its membership_total.
static void add_cluster(hg_hashes *clusters, hg_envoy_buffer gauge) {
  static const char prefix[] = "cluster.", suffix[] = ".membership_total";
  const size_t front = sizeof prefix - 1, back = sizeof suffix - 1;
  if (gauge.length <= front + back || memcmp(gauge.ptr, prefix, front) != 0 ||
      memcmp(gauge.ptr + gauge.length - back, suffix, back) != 0)
    return;
  if (clusters->count == clusters->capacity) {
    clusters->capacity = clusters->capacity == 0 ? 64 : 2 * clusters->capacity;
    clusters->hashes = hg_realloc(clusters->hashes, clusters->capacity * sizeof *clusters->hashes);
  }
  clusters->hashes[clusters->count++] = hg_hash((hg_envoy_buffer){gauge.ptr + front, gauge.length - front - back});
}

void hg_hashes_free(hg_hashes *hashes) { free(hashes->hashes); }

static unsigned visit_gauge(hg_envoy_buffer name, uint64_t value, void *context) {
  pass *p = context;
  if (p->clusters != NULL) add_cluster(p->clusters, name);
  if (!p->index->lengths[name.length % LENGTHS]) return HG_ITERATION_CONTINUE;
  uint64_t hash = hg_hash(name);
  for (size_t i = hash & p->index->mask; p->index->slots[i].name.ptr != NULL; i = (i + 1) & p->index->mask) {
    const slot *s = &p->index->slots[i];
    if (s->hash == hash && hg_equal(s->name, name)) {
      p->samples[s->position] = (hg_sample){value, true};
      break;
    }
  }
  return HG_ITERATION_CONTINUE;
}

static void *extension;                                    // Envoy's, NULL if there is none
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; // keeps the extension alive during a pass

bool hg_sample_gauges(const hg_index *index, hg_sample *samples, hg_hashes *clusters) {
  pthread_rwlock_rdlock(&lock);
  bool available = extension != NULL;
  // Envoy holds the lock of its stats during the iteration: the visitor must neither define nor free a stat.
  pass p = {index, samples, clusters};
  if (available) envoy_dynamic_module_callback_bootstrap_extension_iterate_gauges(extension, visit_gauge, &p);
  pthread_rwlock_unlock(&lock);
  return available;
}

void hg_sample_set_extension(void *new_extension) {
  pthread_rwlock_wrlock(&lock);
  extension = new_extension;
  pthread_rwlock_unlock(&lock);
}
