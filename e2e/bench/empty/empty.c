// The smallest golang plugin, without Go: it sends 200 at the request's headers. It shows the cost of the golang extension.

#include "api.h"

uint64_t envoyGoFilterNewHttpPluginConfig(httpConfig* c) {
  envoyGoConfigHttpFinalize(c);
  return 1;
}

void envoyGoFilterDestroyHttpPluginConfig(uint64_t id, int need_delay) { (void)id, (void)need_delay; }

uint64_t envoyGoFilterMergeHttpPluginConfig(uint64_t name, uint64_t length, uint64_t parent, uint64_t child) {
  (void)name, (void)length, (void)parent;
  return child;
}

uint64_t envoyGoFilterOnHttpHeader(processState* s, uint64_t end_stream, uint64_t count, uint64_t bytes) {
  enum { LocalReply = 1, Continue = 2 };
  struct { // a Go string
    const char* data;
    long length;
  } headers[] = {{"content-type", 12}, {"text/plain", 10}, {"cache-control", 13}, {"no-store", 8}};
  (void)end_stream, (void)count, (void)bytes;
  if (s->is_encoding) {
    return Continue;
  }
  envoyGoFilterHttpSendLocalReply(s, 200, "ok\n", 3, headers, 4, 0, "empty", 5);
  return LocalReply;
}

uint64_t envoyGoFilterOnHttpData(processState* s, uint64_t end_stream, uint64_t buffer, uint64_t length) {
  enum { Continue = 2 };
  (void)s, (void)end_stream, (void)buffer, (void)length;
  return Continue;
}

void envoyGoFilterOnHttpLog(httpRequest* r, uint64_t type, processState* d, processState* e, uint64_t a, uint64_t b,
                            uint64_t c, uint64_t f, uint64_t g, uint64_t h, uint64_t i, uint64_t j) {
  (void)r, (void)type, (void)d, (void)e, (void)a, (void)b, (void)c, (void)f, (void)g, (void)h, (void)i, (void)j;
}

void envoyGoFilterOnHttpStreamComplete(httpRequest* r) { (void)r; }

void envoyGoFilterOnHttpDestroy(httpRequest* r, uint64_t reason) {
  (void)reason;
  envoyGoFilterHttpFinalize(r, 0);
}

// The golang extension refuses a plugin that lacks these two. It calls the first for a request that waits in Go, and the second in its own
// tests.
void envoyGoRequestSemaDec(httpRequest* r) { (void)r; }
void envoyGoFilterCleanUp(void) {}
