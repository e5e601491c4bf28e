#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t hg_hash(hg_envoy_buffer text) {
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < text.length; i++) hash = (hash ^ (unsigned char)text.ptr[i]) * UINT64_C(1099511628211);
  return hash;
}

void hg_log(unsigned level, hg_buffer line) {
  if (envoy_dynamic_module_callback_log != NULL)
    envoy_dynamic_module_callback_log(level, line);
  else
    fprintf(stderr, "%.*s\n", (int)line.length, line.ptr);
}

void *hg_realloc(void *memory, size_t size) {
  memory = realloc(memory, size);
  if (memory == NULL) abort();
  return memory;
}

void *hg_alloc(size_t size) {
  void *memory = calloc(1, size);
  if (memory == NULL) abort();
  return memory;
}

hg_buffer hg_copy(hg_buffer text) {
  char *copy = hg_alloc(text.length + 1);
  if (text.length > 0) memcpy(copy, text.ptr, text.length);
  return (hg_buffer){copy, text.length};
}

void hg_list_add(hg_list *list, hg_buffer text) {
  list->texts = hg_realloc(list->texts, (list->count + 1) * sizeof *list->texts);
  list->texts[list->count++] = hg_copy(text);
}

bool hg_list_has(const hg_list *list, hg_envoy_buffer text) {
  for (size_t i = 0; i < list->count; i++)
    if (hg_equal(list->texts[i], text)) return true;
  return false;
}

void hg_list_free(hg_list *list) {
  for (size_t i = 0; i < list->count; i++) free((void *)list->texts[i].ptr);
  free(list->texts);
}

static int64_t nanoseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t hg_exact_now(void) { return nanoseconds(CLOCK_MONOTONIC); }
int64_t hg_now(void) { return nanoseconds(CLOCK_MONOTONIC_COARSE); } // coarse, because each probe reads it
int64_t hg_cpu_time(void) { return nanoseconds(CLOCK_THREAD_CPUTIME_ID); }
