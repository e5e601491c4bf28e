// Part of harness.c: grpc.health.v1.Health.

static const char one_message[] = {0, 0, 0, 0, 11, 1 << 3 | 2, 9, 'a', '.', 'S', 'e', 'r', 'v', 'i', 'c', 'e'};

static fe_stream *call(const char *method) {
  static const char *paths[] = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List",
                                "/grpc.health.v1.Health/Other"};
  for (size_t i = 0; i < 4; i++)
    if (strcmp(paths[i] + 23, method) == 0) {
      fe_stream *stream = fe_stream_new(filter, NULL, "POST", paths[i], "application/grpc", NULL);
      CHECK(fe_headers(stream, false) == HG_HEADERS_STOP);
      return stream;
    }
  abort();
}

// send_split sends a request in pieces of a size each, and each as several chunks.
static fe_stream *send_split(const char *method, const char *bytes, size_t length, size_t piece, size_t chunks) {
  fe_stream *stream = call(method);
  stream->chunks = chunks;
  for (size_t at = 0; at < length; at += piece) fe_body(stream, bytes + at, piece < length - at ? piece : length - at, false);
  fe_body(stream, "", 0, true);
  return stream;
}

static void check(const char *bytes, size_t length, const char *want) {
  for (size_t piece = 1; piece <= length + 1; piece++)
    for (size_t chunks = 1; chunks < 4; chunks++) {
      fe_stream *stream = send_split("Check", bytes, length, piece, chunks);
      if (strcmp(stream->trailers[0] != 0 ? stream->trailers : stream->headers, want) != 0) {
        fprintf(stderr, "in pieces of %zu, each in %zu: got %s%s, want %s", piece, chunks, stream->headers, stream->trailers, want);
        exit(1);
      }
      CHECK(stream->replies == 1);
      fe_stream_free(stream);
    }
}
#define CHECK_OF(want, ...)                   \
  do {                                        \
    const char bytes[] = {__VA_ARGS__};       \
    check(bytes, sizeof bytes, "grpc-status: " want "\n"); \
  } while (0)

static void requests(void) {
  check(one_message, sizeof one_message, "grpc-status: 0\n");
  CHECK_OF("0", 0, 0, 0, 0, 0);                                  // the whole
  CHECK_OF("5", 0, 0, 0, 0, 3, 1 << 3 | 2, 1, 'b');              // NOT_FOUND
  CHECK_OF("0", 0, 0, 0, 0, 5, 1 << 3 | 2, 1, 'b', 1 << 3 | 2, 0); // the last counts
  CHECK_OF("0", 0, 0, 0, 0, 2, 2 << 3, 1);                       // fields that are not known: a varint
  CHECK_OF("0", 0, 0, 0, 0, 5, 2 << 3 | 5, 1, 2, 3, 4);
  CHECK_OF("0", 0, 0, 0, 0, 9, 2 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8);
  CHECK_OF("0", 0, 0, 0, 0, 2, 1 << 3, 1);                       // of the known number, and another type
  CHECK_OF("12", 1, 0, 0, 0, 0);                                 // compressed
  CHECK_OF("12", 1, 0, 0, 0, 9);
  CHECK_OF("3", 2, 0, 0, 0, 0);                                  // INVALID_ARGUMENT: neither
  CHECK_OF("3", 0, 0, 0, 0);                                     // no whole prefix
  CHECK_OF("3", 0, 0, 0, 0, 1);                                  // no whole message
  CHECK_OF("3", 0, 0, 0, 0, 0, 0);                               // more than one
  CHECK_OF("3", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  CHECK_OF("3", 0, (char)0xff, (char)0xff, (char)0xff, (char)0xff); // of 4 GiB
  CHECK_OF("3", 0, (char)0xff, (char)0xff, (char)0xff, (char)0xff, 1, 2, 3);
  CHECK_OF("3", 0, 0, 0, 8, 1, 1);                               // longer than any that is answered
  CHECK_OF("3", 0, 0, 0, 0, 2, 1 << 3 | 2, 9);                   // a string that ends beyond the message
  CHECK_OF("3", 0, 0, 0, 0, 2, 1 << 3 | 2, 1);                   // by one
  CHECK_OF("3", 0, 0, 0, 0, 1, 1 << 3 | 2);                      // no length
  CHECK_OF("3", 0, 0, 0, 0, 1, 1 << 3 | 3);                      // a group
  CHECK_OF("3", 0, 0, 0, 0, 1, 0);                               // field 0
  CHECK_OF("3", 0, 0, 0, 0, 3, 2 << 3 | 1, 1, 2);                // eight bytes that are not there
  CHECK_OF("3", 0, 0, 0, 0, 2, (char)0x80, (char)0x80);          // a varint without an end
  check("", 0, "grpc-status: 3\n");                              // nothing
  static char much[5 + 3 * HG_MESSAGE_MOST] = {0, 0, 0, 3 * HG_MESSAGE_MOST >> 8, 0};
  for (size_t piece = 1000; piece < 9000; piece += 4000) {
    fe_stream *stream = send_split("Check", much, sizeof much, piece, 1);
    CHECK(strcmp(stream->headers, "grpc-status: 3\n") == 0);
    fe_stream_free(stream);
  }
}

static void methods(void) {
  fe_stream *stream = send_split("Check", one_message, sizeof one_message, 99, 1);
  CHECK(stream->data_length == 7 && memcmp(stream->data, "\0\0\0\0\2\10\1", 7) == 0);
  CHECK(strcmp(stream->headers, ":status: 200\ncontent-type: application/grpc\n") == 0);
  fe_stream_free(stream);
  hg_gate_publish(((hg_filter *)filter->module)->gate, kept[FAILS]);
  stream = send_split("Check", one_message, sizeof one_message, 99, 1);
  CHECK(stream->data_length == 7 && memcmp(stream->data, "\0\0\0\0\2\10\2", 7) == 0);
  fe_stream_free(stream);
  stream = send_split("List", "\0\0\0\0\0", 5, 99, 1);
  CHECK(stream->data_length == 3 && memcmp(stream->data, "not", 3) == 0);
  fe_stream_free(stream);
  hg_gate_publish(((hg_filter *)filter->module)->gate, kept[OK]);
  stream = send_split("Other", one_message, sizeof one_message, 99, 1);
  CHECK(strcmp(stream->headers, "grpc-status: 12\n") == 0);
  fe_stream_free(stream);
  stream = fe_stream_new(filter, NULL, "POST", "/grpc.health.v1.Health/Check", "text/plain", NULL);
  CHECK(fe_headers(stream, false) == HG_HEADERS_CONTINUE);
  fe_stream_free(stream);
}

static void watches(void) {
  hg_gate *gate = ((hg_filter *)filter->module)->gate;
  fe_stream *stream = send_split("Watch", one_message, sizeof one_message, 99, 1);
  fe_stream *unknown = send_split("Watch", "\0\0\0\0\3\12\1b", 8, 99, 1);
  CHECK(stream->data_length == 7 && stream->data[6] == HG_SERVING && unknown->data[6] == HG_SERVICE_UNKNOWN);
  CHECK(fe_metric(filter, "watchers") == 2 && hg_watch_tell() == 2);
  CHECK(fe_run(stream) == 0); // nothing is due
  hg_gate_publish(gate, kept[FAILS]);
  hg_watch_tell();
  CHECK(fe_run(stream) == 1 && fe_run(unknown) == 0 && stream->data_length == 14 && stream->data[13] == HG_NOT_SERVING);
  hg_gate_publish(gate, kept[OK]);
  hg_watch_tell();
  hg_watch_tell(); // twice before the worker comes round
  CHECK(fe_run(stream) == 2 && stream->data_length == 21 && stream->data[20] == HG_SERVING);

  fe_watermark(stream, true); // its client does not read
  hg_gate_publish(gate, kept[FAILS]);
  hg_watch_tell();
  fe_run(stream);
  CHECK(stream->data_length == 21);
  fe_watermark(stream, false);
  CHECK(stream->data_length == 21); // not while Envoy goes through its streams
  CHECK(fe_run(stream) == 1 && stream->data_length == 28 && stream->data[27] == HG_NOT_SERVING);

  for (int i = 0; i < 2; i++) { // nothing changes for half a minute: it is sent again what it knows, once
    ahead += 29;
    hg_sampled(hg_now());
    hg_watch_tell();
    CHECK(fe_run(stream) == 0);
    ahead += 2;
    hg_sampled(hg_now());
    hg_watch_tell();
    CHECK(fe_run(stream) == 1 && stream->data_length == 35 + 7 * (size_t)i && stream->data[stream->data_length - 1] == HG_NOT_SERVING);
    hg_watch_tell();
    fe_run(unknown);
    CHECK(fe_run(stream) == 0 && unknown->data_length == 14 + 7 * (size_t)i);
  }

  hg_gate_publish(gate, kept[OK]);
  hg_watch_tell();
  fe_stream_free(stream); // while it is told
  fe_stream_free(unknown);
  CHECK(fe_metric(filter, "watchers") == 0 && hg_watch_tell() == 0 && fe_schedulers == 0);
}

// Envoy destroys a stream while it is sent any of the parts.
static void deaths(void) {
  for (int dies_at = 1; dies_at < 5; dies_at++)
    for (int i = 0; i < 4; i++) {
      const char *methods[] = {"Check", "List", "Watch", "Other"};
      fe_stream *stream = call(methods[i]);
      stream->dies_at = dies_at;
      fe_body(stream, one_message, sizeof one_message, true);
      hg_gate_publish(((hg_filter *)filter->module)->gate, kept[dies_at % 2]);
      hg_watch_tell();
      if (!stream->destroyed) fe_run(stream);
      fe_stream_free(stream);
    }
  hg_gate_publish(((hg_filter *)filter->module)->gate, kept[OK]);
  fe_stream *stream = fe_stream_new(filter, NULL, "GET", "/", NULL, NULL);
  stream->dies_at = 1;
  fe_headers(stream, true);
  CHECK(stream->replies == 0);
  fe_stream_free(stream);
}

// Whatever bytes come, in whatever pieces, there is one answer.
static void garbage(void) {
  const char *methods[] = {"Check", "List"};
  uint32_t seed = 1;
  for (int i = 0; i < 20000; i++) {
    char bytes[40];
    seed = seed * 1664525u + 1013904223u;
    size_t length = (seed >> 8) % sizeof bytes, piece = 1 + (seed >> 16) % 9;
    for (size_t j = 0; j < length; j++) {
      seed = seed * 1664525u + 1013904223u;
      bytes[j] = (char)((seed >> 28) < 10 ? 0 : seed >> 20); // zeros make prefixes that go on
    }
    if (length > 5 && i % 2 == 0) bytes[4] = (char)(length - 5);
    fe_stream *stream = send_split(methods[i % 2], bytes, length, piece, 1 + i % 3);
    CHECK(stream->replies == 1);
    fe_stream_free(stream);
  }
}

static void grpc(void) {
  requests();
  methods();
  watches();
  deaths();
  garbage();
}

// Envoy 1.38 writes a stat for a stream alone: what was to be written before is written with the next answer.
static void owed(void) {
  hg_filter *of = (hg_filter *)filter->module;
  hg_metric *healthy = of->metrics->next->next;
  hg_metric_set(of, healthy, 0);
  fe_stream_free(ask("GET", "/", NULL));
  hg_metric_set(of, healthy, 1);
  hg_metric_add(of, of->metrics, 5);
  uint64_t before = fe_metric(filter, "answers");
#ifdef FE_OF_1_38
  CHECK(fe_metric(filter, "healthy") == 0);
  fe_stream_free(ask("GET", "/", NULL));
  CHECK(fe_metric(filter, "answers") == before + 6);
  fe_stream_free(ask("GET", "/", NULL));
  CHECK(fe_metric(filter, "answers") == before + 7);
#else
  CHECK(before >= 5);
#endif
  CHECK(fe_metric(filter, "healthy") == 1);
}
