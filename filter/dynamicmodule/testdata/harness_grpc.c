// Part of harness.c: grpc.health.v1.Health.

static const char one_message[] = {0, 0, 0, 0, 11, 1 << 3 | 2, 9, 'a', '.', 'S', 'e', 'r', 'v', 'i', 'c', 'e'};

// call_of begins a call; route, authority and timeout may be NULL.
static fe_stream *call_of(fe_filter *of, const void *route, const char *authority, const char *timeout, const char *method) {
  static const char *paths[] = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List",
                                "/grpc.health.v1.Health/Other"};
  for (size_t i = 0; i < 4; i++)
    if (strcmp(paths[i] + 23, method) == 0) {
      fe_stream *stream = fe_stream_new(of, route, "POST", paths[i], "application/grpc", NULL);
      stream->authority = authority;
      stream->timeout = timeout;
      fe_headers(stream, false);
      return stream;
    }
  abort();
}

static fe_stream *call(const char *method) { return call_of(filter, NULL, "localhost", NULL, method); }

static hg_gate *gate_of(fe_filter *of) { return hg_filter_gate((hg_filter *)of->module); }

// send_split sends a request in pieces of a size, each in a number of chunks.
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
      const char *got = strstr(stream->trailers[0] != 0 ? stream->trailers : stream->headers, "grpc-status: ");
      if (got == NULL || strcmp(got, want) != 0) {
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

enum { VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 };
#define TAG(number, type) ((number) << 3 | (type))
#define NAME(length) TAG(1, BYTES), length
#define BYTE(value) ((char)(value))

static void requests(void) {
  check(one_message, sizeof one_message, "grpc-status: 0\n");
  CHECK_OF("0", 0, 0, 0, 0, 0);                           // all services
  CHECK_OF("5", 0, 0, 0, 0, 3, NAME(1), 'b');             // NOT_FOUND
  CHECK_OF("0", 0, 0, 0, 0, 5, NAME(1), 'b', NAME(0));    // the last name counts
  CHECK_OF("5", 0, 0, 0, 0, 5, NAME(0), NAME(1), 'b');
  CHECK_OF("0", 0, 0, 0, 0, 2, TAG(2, VARINT), 1);        // unknown fields of each type
  CHECK_OF("0", 0, 0, 0, 0, 5, TAG(2, FIXED32), 1, 2, 3, 4);
  CHECK_OF("0", 0, 0, 0, 0, 9, TAG(2, FIXED64), 1, 2, 3, 4, 5, 6, 7, 8);
  CHECK_OF("5", 0, 0, 0, 0, 7, TAG(2, BYTES), 2, 8, 8, NAME(1), 'b');
  CHECK_OF("0", 0, 0, 0, 0, 2, TAG(1, VARINT), 1);        // the name's number, and another type
  CHECK_OF("0", 0, 0, 0, 0, 2, TAG(2, GROUP), TAG(2, GROUP_END));
  CHECK_OF("0", 0, 0, 0, 0, 5, TAG(2, GROUP), NAME(1), 'b', TAG(2, GROUP_END)); // no name: it is the group's field
  CHECK_OF("0", 0, 0, 0, 0, 6, TAG(2, GROUP), TAG(3, GROUP), TAG(1, VARINT), 7, TAG(3, GROUP_END), TAG(2, GROUP_END));
  CHECK_OF("0", 0, 0, 0, 0, 2, TAG(1, GROUP), TAG(1, GROUP_END));
  CHECK_OF("0", 0, 0, 0, 0, 3, BYTE(0x8a), 0, 0);         // a tag in more bytes than it needs
  CHECK_OF("5", 0, 0, 0, 0, 4, NAME(2), BYTE(0xc3), BYTE(0xbc)); // a letter of two bytes
  CHECK_OF("5", 0, 0, 0, 0, 6, NAME(4), BYTE(0xf4), BYTE(0x8f), BYTE(0xbf), BYTE(0xbf));
  CHECK_OF("12", 1, 0, 0, 0, 0);                          // UNIMPLEMENTED: compressed
  CHECK_OF("12", 1, 0, 0, 0, 9);
  CHECK_OF("3", 2, 0, 0, 0, 0);                           // INVALID_ARGUMENT: no such compression
  CHECK_OF("3", 0, 0, 0, 0);                              // the prefix is cut off
  CHECK_OF("3", 0, 0, 0, 0, 1);                           // the message is cut off
  CHECK_OF("3", 0, 0, 0, 0, 0, 0);                        // more than one message
  CHECK_OF("3", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  CHECK_OF("3", 0, BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff)); // 4 GiB
  CHECK_OF("3", 0, BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), 1, 2, 3);
  CHECK_OF("3", 0, 0, 1, 0, 1, TAG(2, VARINT));           // one byte more than a message may have
  CHECK_OF("3", 0, 0, 0, 0, 2, NAME(9));                  // a string that ends beyond the message
  CHECK_OF("3", 0, 0, 0, 0, 2, NAME(1));                  // by one
  CHECK_OF("3", 0, 0, 0, 0, 7, TAG(2, BYTES), BYTE(0x81), BYTE(0x80), BYTE(0x80), BYTE(0x80), 0x10, 0); // by 4 GiB
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(1, BYTES));            // no length
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(2, GROUP));            // a group without an end
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(2, GROUP_END));        // an end without a group
  CHECK_OF("3", 0, 0, 0, 0, 2, TAG(2, GROUP), TAG(3, GROUP_END));
  CHECK_OF("3", 0, 0, 0, 0, 4, TAG(2, GROUP), TAG(3, GROUP), TAG(2, GROUP_END), TAG(3, GROUP_END));
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(0, VARINT));           // field 0
  CHECK_OF("0", 0, 0, 0, 0, 6, BYTE(0xf8), BYTE(0xff), BYTE(0xff), BYTE(0xff), 0x0f, 1); // the largest number, and one more
  CHECK_OF("3", 0, 0, 0, 0, 6, BYTE(0x80), BYTE(0x80), BYTE(0x80), BYTE(0x80), 0x10, 1);
  CHECK_OF("0", 0, 0, 0, 0, 8, TAG(2, GROUP), BYTE(0xf8), BYTE(0xff), BYTE(0xff), BYTE(0xff), 0x3f, 1, TAG(2, GROUP_END)); // in a group
  CHECK_OF("3", 0, 0, 0, 0, 8, TAG(2, GROUP), BYTE(0x80), BYTE(0x80), BYTE(0x80), BYTE(0x80), 0x40, 1, TAG(2, GROUP_END));
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(2, 6));                // a wire type that does not exist
  CHECK_OF("3", 0, 0, 0, 0, 1, TAG(2, 7));
  CHECK_OF("3", 0, 0, 0, 0, 3, TAG(2, FIXED64), 1, 2);    // two of eight bytes
  CHECK_OF("3", 0, 0, 0, 0, 4, TAG(2, FIXED32), 1, 2, 3);
  CHECK_OF("3", 0, 0, 0, 0, 2, BYTE(0x80), BYTE(0x80));   // a varint without an end
#define NINE BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff), BYTE(0xff)
  CHECK_OF("0", 0, 0, 0, 0, 11, TAG(2, VARINT), NINE, 1); // 64 bits
  CHECK_OF("3", 0, 0, 0, 0, 11, TAG(2, VARINT), NINE, 2); // more
  CHECK_OF("3", 0, 0, 0, 0, 12, TAG(2, VARINT), NINE, BYTE(0x81), 1);
  CHECK_OF("3", 0, 0, 0, 0, 3, NAME(1), BYTE(0x80));      // names that are not UTF-8: a continuation byte alone
  CHECK_OF("3", 0, 0, 0, 0, 4, NAME(2), BYTE(0xbe), BYTE(0xbe));
  CHECK_OF("3", 0, 0, 0, 0, 3, NAME(1), BYTE(0xc3));      // cut off
  CHECK_OF("3", 0, 0, 0, 0, 7, NAME(2), BYTE(0xc3), BYTE(0xbc), NAME(1), BYTE(0xc3));
  CHECK_OF("3", 0, 0, 0, 0, 4, NAME(2), BYTE(0xc3), 'b');
  CHECK_OF("3", 0, 0, 0, 0, 4, NAME(2), BYTE(0xc1), BYTE(0xbf)); // longer than necessary
  CHECK_OF("3", 0, 0, 0, 0, 5, NAME(3), BYTE(0xed), BYTE(0xa0), BYTE(0x80)); // a surrogate
  CHECK_OF("3", 0, 0, 0, 0, 6, NAME(4), BYTE(0xf4), BYTE(0x90), BYTE(0x80), BYTE(0x80)); // beyond Unicode
  CHECK_OF("3", 0, 0, 0, 0, 6, NAME(4), BYTE(0xfc), BYTE(0x80), BYTE(0x80), BYTE(0x80));
  CHECK_OF("3", 0, 0, 0, 0, 5, NAME(1), BYTE(0xff), NAME(0)); // each name is checked
  check("", 0, "grpc-status: 3\n");                       // an empty request
}

// check_large checks a request of a size with unknown fields and, at its end, a name.
static void check_large(size_t size, const char *name, const char *want) {
  static char bytes[5 + 2 * HG_MESSAGE_MAX];
  memset(bytes, 0, sizeof bytes);
  size_t end = 5 + size - strlen(name) - 2;
  for (int i = 0; i < 4; i++) bytes[1 + i] = (char)(size >> (24 - 8 * i));
  // One long field, then small ones.
  size_t at = 5, first = (end - at) / 2 & ~(size_t)1;
  char head[] = {TAG(2, BYTES), BYTE(first | 0x80), BYTE(first >> 7 | 0x80), BYTE(first >> 14)};
  memcpy(bytes + at, head, sizeof head);
  at += sizeof head + first;
  if ((end - at) % 2 == 1) bytes[at] = BYTE(TAG(3, VARINT) | 0x80), at += 2, bytes[at++] = 1;
  for (; at < end; at += 2) bytes[at] = TAG(3, VARINT);
  bytes[end] = TAG(1, BYTES);
  bytes[end + 1] = (char)strlen(name);
  memcpy(bytes + end + 2, name, strlen(name));
  for (size_t piece = 999; piece < 2 * size; piece *= 7) {
    fe_stream *stream = send_split("Check", bytes, 5 + size, piece, 3);
    CHECK(strstr(stream->trailers[0] != 0 ? stream->trailers : stream->headers, want) != NULL);
    fe_stream_free(stream);
  }
}

static void sizes(void) {
  for (size_t size = 2048; size <= HG_MESSAGE_MAX; size *= 2)
    for (size_t less = 0; less < 4; less++) {
      check_large(size - less, "a.Service", "grpc-status: 0\n");
      check_large(size - less, "b", "grpc-status: 5\n");
    }
  check_large(HG_MESSAGE_MAX + 1, "a.Service", "grpc-status: 3\n");
  check_large(2 * HG_MESSAGE_MAX, "a.Service", "grpc-status: 3\n");

  // A name has its own limit.
  static char name[5 + 3 + HG_NAME_MAX + 1];
  for (int more = -1; more <= 1; more++) {
    size_t length = (size_t)(HG_NAME_MAX + more);
    memset(name, 'n', sizeof name);
    const char head[] = {0, 0, 0, BYTE((length + 3) >> 8), BYTE(length + 3), TAG(1, BYTES), BYTE(length | 0x80), BYTE(length >> 7)};
    memcpy(name, head, sizeof head);
    fe_stream *stream = send_split("Check", name, sizeof head + length, 700, 2);
    CHECK(strstr(stream->headers, more == 1 ? "grpc-status: 3\n" : "grpc-status: 5\n") != NULL);
    fe_stream_free(stream);
  }

  // Nested groups have a limit, too.
  for (int more = 0; more <= 1; more++) {
    char groups[5 + 2 * (HG_GROUPS_MAX + 1)] = {0, 0, 0, 0, BYTE(2 * (HG_GROUPS_MAX + more))};
    memset(groups + 5, TAG(4, GROUP), (size_t)(HG_GROUPS_MAX + more));
    memset(groups + 5 + HG_GROUPS_MAX + more, TAG(4, GROUP_END), (size_t)(HG_GROUPS_MAX + more));
    fe_stream *stream = send_split("Check", groups, (size_t)(5 + 2 * (HG_GROUPS_MAX + more)), 99, 1);
    CHECK(strstr(more == 1 ? stream->headers : stream->trailers, more == 1 ? "grpc-status: 3\n" : "grpc-status: 0\n") != NULL);
    fe_stream_free(stream);
  }
}

static void methods(void) {
  fe_stream *stream = send_split("Check", one_message, sizeof one_message, 99, 1);
  CHECK(stream->data_length == 7 && memcmp(stream->data, "\0\0\0\0\2\10\1", 7) == 0);
  CHECK(strcmp(stream->headers, ":status: 200\ncontent-type: application/grpc\n") == 0);
  fe_stream_free(stream);
  hg_gate_publish(module_filter()->gate, kept[FAILS]);
  stream = send_split("Check", one_message, sizeof one_message, 99, 1);
  CHECK(stream->data_length == 7 && memcmp(stream->data, "\0\0\0\0\2\10\2", 7) == 0);
  fe_stream_free(stream);
  stream = send_split("List", "\0\0\0\0\0", 5, 99, 1);
  CHECK(stream->data_length == 3 && memcmp(stream->data, "not", 3) == 0);
  fe_stream_free(stream);
  hg_gate_publish(module_filter()->gate, kept[OK]);
  stream = send_split("List", "\0\0\0\0\3\12\1\377", 8, 99, 1); // a HealthListRequest has no fields, so none is a name
  CHECK(stream->data_length == 7 && memcmp(stream->data, "serving", 7) == 0);
  fe_stream_free(stream);
  // An error is a local reply, so that it has details, and has no body, so that it is gRPC for filters before the gate.
  stream = send_split("Other", one_message, sizeof one_message, 99, 1);
  CHECK(strcmp(stream->headers, "grpc-message: unknown method of grpc.health.v1.Health\ngrpc-status: 12\n") == 0);
  CHECK(stream->status == 200 && stream->body[0] == 0 && strcmp(stream->details, "healthgate_grpc_unimplemented") == 0);
  fe_stream_free(stream);
  stream = fe_stream_new(filter, NULL, "POST", "/grpc.health.v1.Health/Check", "text/plain", NULL);
  CHECK(fe_headers(stream, false) == HG_HEADERS_CONTINUE);
  fe_stream_free(stream);
}

// The reply to a gRPC probe has details and no body.
static void grpc_probes(void) {
  hg_gate *gate = gate_of(filter);
  hg_reply *reply = hg_reply_create(503, false, HG_BUFFER("50 % \x1f~\x7f\xc3\xbc\n"), HG_BUFFER("why"));
  hg_reply_add_header(reply, HG_BUFFER("cache-control"), HG_BUFFER("no-store"));
  hg_reply *empty = hg_reply_create(204, true, HG_BUFFER(""), HG_BUFFER("fine"));
  hg_gate_add_reply(gate, reply);
  hg_gate_add_reply(gate, empty);
  hg_gate_publish(gate, reply);
  fe_stream *stream = ask("POST", "/", "application/grpc");
  CHECK(strcmp(stream->headers, "cache-control: no-store\ngrpc-status: 14\ngrpc-message: 50 %25 %1F~%7F%C3%BC%0A\n") == 0);
  CHECK(stream->status == 200 && stream->body[0] == 0 && strcmp(stream->details, "why") == 0);
  fe_stream_free(stream);
  stream = ask("GET", "/", NULL);
  CHECK(stream->status == 503 && stream->body[0] == '5' && strcmp(stream->headers, "cache-control: no-store\n") == 0);
  fe_stream_free(stream);
  hg_gate_publish(gate, empty);
  stream = ask("POST", "/", "application/grpc");
  CHECK(stream->status == 200 && strcmp(stream->headers, "grpc-status: 0\n") == 0 && strcmp(stream->details, "fine") == 0);
  fe_stream_free(stream);
  hg_gate_publish(gate, kept[OK]);
}

static void watches(void) {
  hg_gate *gate = module_filter()->gate;
  fe_stream *stream = send_split("Watch", one_message, sizeof one_message, 99, 1);
  fe_stream *unknown = send_split("Watch", "\0\0\0\0\3\12\1b", 8, 99, 1);
  CHECK(stream->data_length == 7 && stream->data[6] == HG_SERVING && unknown->data[6] == HG_SERVICE_UNKNOWN);
  CHECK(fe_metric(filter, "watchers") == 2 && hg_watch_notify() == 2);
  CHECK(fe_run(stream) == 0); // no update
  hg_gate_publish(gate, kept[FAILS]);
  hg_watch_notify();
  CHECK(fe_run(stream) == 1 && fe_run(unknown) == 0 && stream->data_length == 14 && stream->data[13] == HG_NOT_SERVING);
  hg_gate_publish(gate, kept[OK]);
  hg_watch_notify();
  hg_watch_notify(); // twice before the worker runs
  CHECK(fe_run(stream) == 2 && stream->data_length == 21 && stream->data[20] == HG_SERVING);

  fe_watermark(stream, true); // the client does not read
  hg_gate_publish(gate, kept[FAILS]);
  hg_watch_notify();
  fe_run(stream);
  CHECK(stream->data_length == 21);
  fe_watermark(stream, false);
  CHECK(stream->data_length == 21); // not while Envoy iterates its streams
  CHECK(fe_run(stream) == 1 && stream->data_length == 28 && stream->data[27] == HG_NOT_SERVING);

  for (int i = 0; i < 2; i++) { // without a change for half a minute, the last update is sent again, once
    ahead += 29;
    refresh();
    hg_watch_notify();
    CHECK(fe_run(stream) == 0);
    ahead += 2;
    refresh();
    hg_watch_notify();
    CHECK(fe_run(stream) == 1 && stream->data_length == 35 + 7 * (size_t)i && stream->data[stream->data_length - 1] == HG_NOT_SERVING);
    hg_watch_notify();
    fe_run(unknown);
    CHECK(fe_run(stream) == 0 && unknown->data_length == 14 + 7 * (size_t)i);
  }

  hg_gate_publish(gate, kept[OK]);
  hg_watch_notify();
  fe_stream_free(stream); // while an event is scheduled for it
  fe_stream_free(unknown);
  CHECK(fe_metric(filter, "watchers") == 0 && hg_watch_notify() == 0 && fe_schedulers == 0);
}

// watch_of opens a Watch of a known service.
static fe_stream *watch_of(fe_filter *of, const void *route, const char *authority, const char *timeout) {
  fe_stream *stream = call_of(of, route, authority, timeout, "Watch");
  fe_body(stream, one_message, sizeof one_message, true);
  return stream;
}
static fe_stream *watch(const char *authority) { return watch_of(filter, NULL, authority, NULL); }

static void check_of(fe_filter *of, const void *route, const char *authority) {
  fe_stream *stream = call_of(of, route, authority, NULL, "Check");
  fe_body(stream, one_message, sizeof one_message, true);
  fe_stream_free(stream);
}

// advance advances the clock, and then runs hg_watch_notify.
static void advance(int seconds) {
  ahead += seconds;
  refresh();
  hg_watch_notify();
}

static bool is_open(fe_stream *stream) {
  fe_run(stream);
  return !stream->destroyed;
}

static bool ends_with(fe_stream *stream, const char *status) {
  return !is_open(stream) && strcmp(stream->trailers, status) == 0;
}
static const char unavailable[] = "grpc-status: 14\n", deadline_exceeded[] = "grpc-status: 4\n";

// A Watch does not keep its request.
static void requests_are_freed(void) {
  fe_stream *stream = watch("localhost");
  CHECK(((hg_stream *)stream->module)->call == NULL);
  fe_stream_free(stream);
}

static void full_buffers(void) {
  hg_gate *gate = gate_of(filter);
  fe_stream *stream = call("Watch");
  fe_watermark(stream, true); // the connection's buffer is full when the filter is created
  fe_watermark(stream, true); // and the stream's, too
  fe_body(stream, one_message, sizeof one_message, true);
  CHECK(strstr(stream->headers, ":status: 200") != NULL && stream->data_length == 0);
  advance(0);
  CHECK(is_open(stream) && stream->data_length == 0);
  fe_watermark(stream, false); // one of the two
  advance(0);
  CHECK(is_open(stream) && stream->data_length == 0);
  fe_watermark(stream, false);
  CHECK(stream->data_length == 0); // not while Envoy iterates its streams
  CHECK(is_open(stream) && stream->data_length == 7 && stream->data[6] == HG_SERVING);
  fe_watermark(stream, true); // both again
  fe_watermark(stream, true);
  fe_watermark(stream, false);
  hg_gate_publish(gate, kept[FAILS]);
  advance(0);
  CHECK(is_open(stream) && stream->data_length == 7);
  fe_watermark(stream, false);
  CHECK(is_open(stream) && stream->data_length == 14 && stream->data[13] == HG_NOT_SERVING);
  hg_gate_publish(gate, kept[OK]);
  fe_stream_free(stream);
}

static void deadlines(void) {
  const struct {
    const char *timeout;
    int seconds; // until it ends; 0 for never
  } all[] = {{"3S", 3},      {"3000m", 3},      {"3000000u", 3}, {"00000003S", 3}, {"1M", 60},       {"1H", 3600}, {"99999999n", 1},
             {"99999999H", 0}, {"99999999M", 0},  {NULL, 0},       {"", 0},          {"S", 0},         {"3", 0},     {"3s", 0},
             {"-3S", 0},       {"000000003S", 0}, {"3 S", 0},      {"3S ", 0},       {"3.5S", 0},      {"3SS", 0},   {" 3S", 0}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    fe_stream *stream = watch_of(filter, NULL, "localhost", all[i].timeout);
    CHECK(is_open(stream));
    if (all[i].seconds > 1) {
      advance(all[i].seconds - 1);
      CHECK(is_open(stream));
    }
    advance(all[i].seconds == 0 ? 86400 : 2);
    CHECK(all[i].seconds == 0 ? is_open(stream) : ends_with(stream, deadline_exceeded));
    fe_stream_free(stream);
  }
  fe_stream *stream = watch_of(filter, NULL, "localhost", "0S");
  advance(1);
  CHECK(ends_with(stream, deadline_exceeded));
  fe_stream_free(stream);
}

static void limits(void) {
  hg_gate *gate = gate_of(filter);
  fe_filter *other = fe_filter_new("", 0);
  gate->watchers_max = gate_of(other)->watchers_max = 3;
  gate_of(other)->config_hash = gate->config_hash;
  fe_stream *streams[3], *late, *elsewhere;
  for (int i = 0; i < 3; i++) streams[i] = watch(i == 0 ? "a" : "b");
  for (int i = 0; i < 2; i++) { // refused and not counted
    late = watch("c");
    CHECK(strcmp(late->headers, "grpc-message: too many calls of Watch\ngrpc-status: 8\n") == 0 && late->data_length == 0);
    CHECK(strcmp(late->details, "healthgate_grpc_resource_exhausted") == 0 && fe_metric(filter, "watchers") == 3);
    fe_stream_free(late);
  }
  elsewhere = watch_of(other, NULL, "a", NULL); // another filter has another limit
  CHECK(elsewhere->data_length == 7);
  check_of(filter, NULL, "a"); // only Watch is limited
  fe_stream_free(streams[1]);
  streams[1] = watch("c");
  CHECK(streams[1]->data_length == 7 && hg_watch_notify() == 4);
  // An ended watcher does not count.
  hg_watch_supersede(gate);
  advance(0);
  for (int i = 0; i < 3; i++) CHECK(ends_with(streams[i], unavailable));
  CHECK(is_open(elsewhere) && fe_metric(filter, "watchers") == 0);
  gate->superseded_at = 0;
  for (int i = 0; i < 3; i++) {
    fe_stream_free(streams[i]);
    streams[i] = watch("a");
    CHECK(streams[i]->data_length == 7);
  }
  for (int i = 0; i < 3; i++) fe_stream_free(streams[i]);
  fe_stream_free(elsewhere);
  fe_filter_free(other);
  // A configuration and an :authority with the same hash.
  gate->config_hash = UINT64_C(14695981039346656037); // the hash of no :authority
  for (int i = 0; i < 3; i++) {
    streams[i] = watch(NULL);
    CHECK(streams[i]->data_length == 7);
  }
  for (int i = 0; i < 3; i++) fe_stream_free(streams[i]);
  gate->config_hash = 1;
  gate->watchers_max = 1000;
}

static void superseded(void) {
  hg_gate *gate = gate_of(filter);
  fe_filter *other = fe_filter_new("", 0);
  gate_of(other)->watchers_max = 9;
  fe_stream *old = watch("a"), *elsewhere = watch_of(other, NULL, "a", NULL), *back[2];
  hg_watch_supersede(gate);
  CHECK(is_open(old)); // until hg_watch_notify
  advance(0);
  CHECK(ends_with(old, unavailable) && is_open(elsewhere));
  fe_stream_free(old);
  for (int i = 0; i < 2; i++) { // a call that is made again too soon is ended again, but not at once
    back[i] = watch("a");
    CHECK(back[i]->data_length == 7 && is_open(back[i]));
    advance(1);
    CHECK(ends_with(back[i], unavailable));
    fe_stream_free(back[i]);
  }
  advance(3);
  back[0] = watch("a"); // the gate still answers
  advance(5);
  CHECK(is_open(back[0]) && is_open(elsewhere));
  hg_watch_supersede(gate); // now it is replaced
  advance(0);
  CHECK(ends_with(back[0], unavailable) && is_open(elsewhere));
  fe_stream_free(back[0]);
  fe_stream_free(elsewhere);
  fe_filter_free(other);
  gate->superseded_at = 0;
}

// new_override creates a route with an override. Its gate has a config_hash, 0 if it does not answer calls.
static const void *new_override(fe_filter *of, uint64_t config_hash) {
  const void *route = fe_route_new("x", 1);
  fe_stream *stream = fe_stream_new(of, route, "GET", "/route", NULL, NULL);
  fe_headers(stream, true);
  fe_stream_free(stream);
  if (config_hash == 0) return route;
  hg_list_add(&last_merged->services, HG_BUFFER("a.Service"));
  last_merged->config_hash = config_hash;
  last_merged->watchers_max = 100;
  return route;
}

// Calls show whether the configuration of the watchers still answers.
static void overrides(void) {
  const void *routes[10];
  fe_stream *own = watch("a"), *own_elsewhere = watch("b");
  advance(2);
  routes[0] = new_override(filter, 10); // an update of the routes adds an override
  CHECK(is_open(own));
  check_of(filter, routes[0], "a");
  CHECK(ends_with(own, unavailable)); // at once, because of the call
  CHECK(is_open(own_elsewhere));      // there was no call from b
  fe_stream_free(own);

  fe_stream *first = watch_of(filter, routes[0], "a", NULL);
  advance(2);
  routes[1] = new_override(filter, 10); // an update that changes something else recreates it
  check_of(filter, routes[1], "a");
  advance(2);
  CHECK(is_open(first));
  routes[2] = new_override(filter, 12); // an update that changes it
  fe_stream *second = watch_of(filter, routes[2], "a", NULL); // a Watch shows it, like a Check
  CHECK(ends_with(first, unavailable));
  fe_stream_free(first);
  advance(2);
  CHECK(is_open(second));

  check_of(filter, NULL, "a"); // an update that removes it
  CHECK(ends_with(second, unavailable));
  fe_stream_free(second);
  own = watch("a");
  advance(2);
  routes[3] = new_override(filter, 12); // an update that adds it again
  check_of(filter, routes[3], "a");
  CHECK(ends_with(own, unavailable));
  fe_stream_free(own);

  second = watch_of(filter, routes[3], "a", NULL);
  routes[4] = new_override(filter, 0); // an update: it does not answer calls any more
  advance(2);
  fe_stream *check = call_of(filter, routes[4], "a", NULL, "Check");
  CHECK(check->replies == 0 && ends_with(second, unavailable));
  fe_stream_free(check);
  fe_stream_free(second);

  routes[5] = new_override(filter, 15);
  fe_stream *young = watch_of(filter, routes[5], "a", NULL);
  check_of(filter, NULL, "a"); // young may have begun on a worker that got the update late
  advance(0);
  CHECK(is_open(young));
  advance(2);
  CHECK(ends_with(young, unavailable));
  fe_stream_free(young);

  own = watch("a");
  advance(2);
  routes[6] = fe_route_new("x", 1);
  refuses = true; // an override that can't be used
  check = call_of(filter, routes[6], "a", NULL, "Check");
  CHECK(check->replies == 0 && ends_with(own, unavailable));
  refuses = false;
  fe_stream_free(check);
  fe_stream_free(own);

  // A route that only enables the filter has no override.
  const void *plain = fe_route_new("", 0), *newer = new_override(filter, 16);
  fe_stream *overridden = watch_of(filter, newer, "a", NULL);
  advance(2);
  check_of(filter, plain, "a");
  fe_stream *plainly = watch_of(filter, plain, "a", NULL);
  CHECK(ends_with(overridden, unavailable));
  fe_stream_free(overridden);
  advance(2);
  check_of(filter, NULL, "a"); // without a route configuration it is the same
  advance(2);
  CHECK(is_open(plainly));
  fe_stream_free(plainly);
  fe_route_free(plain);
  fe_route_free(newer);

  CHECK(is_open(own_elsewhere));
  fe_stream_free(own_elsewhere);
  for (int i = 0; i < 7; i++) fe_route_free(routes[i]);
}

// Some workers answer with the old configuration for a moment.
static void late_workers(void) {
  const void *old = new_override(filter, 20), *new = new_override(filter, 21);
  fe_stream *watcher = watch_of(filter, old, "a", NULL);
  advance(2);
  check_of(filter, new, "a");
  CHECK(ends_with(watcher, unavailable));
  fe_stream_free(watcher);
  watcher = watch_of(filter, new, "a", NULL);
  check_of(filter, old, "a");
  check_of(filter, new, "a");
  advance(2);
  CHECK(is_open(watcher));
  fe_stream_free(watcher);
  // A young watcher is outdated all the same.
  fe_stream *young = watch("a");
  const void *next = new_override(filter, 23);
  check_of(filter, next, "a");
  check_of(filter, NULL, "a");
  check_of(filter, next, "a");
  advance(2);
  CHECK(ends_with(young, unavailable));
  fe_stream_free(young);
  fe_route_free(next);
  // Two updates within a second, and no call after them: after a second, the last call was not answered by a late worker.
  fe_stream *own = watch("a");
  advance(2);
  const void *newer = new_override(filter, 22);
  watcher = watch_of(filter, newer, "a", NULL);
  CHECK(ends_with(own, unavailable));
  fe_stream_free(own);
  check_of(filter, NULL, "a");
  advance(0);
  CHECK(is_open(watcher));
  advance(2);
  CHECK(ends_with(watcher, unavailable));
  fe_stream_free(watcher);
  fe_route_free(newer);
  fe_route_free(old);
  fe_route_free(new);
}

// Several routes have different overrides: each call is answered by another one, and nothing has changed. Watchers that were ended at first
// are opened again, and last.
static void overrides_beside_each_other(void) {
  const void *routes[] = {NULL, new_override(filter, 30), new_override(filter, 31)};
  fe_stream *clients[3];
  int ends = 0, ends_late = 0;
  for (int i = 0; i < 3; i++) clients[i] = watch_of(filter, routes[i], "a", NULL);
  for (int round = 0; round < 20; round++) {
    check_of(filter, routes[round % 3], "a");
    advance(2);
    for (int i = 0; i < 3; i++) {
      if (is_open(clients[i])) continue;
      ends++;
      if (round >= 6) ends_late++;
      fe_stream_free(clients[i]);
      clients[i] = watch_of(filter, routes[i], "a", NULL);
    }
  }
  CHECK(ends_late == 0 && ends <= 6);
  for (int i = 1; i < 3; i++) fe_stream_free(clients[i]);
  fe_stream_free(clients[0]);
  // No group is left. The older one of two overrides answers beside the newer one, which answered the first Watch.
  CHECK(hg_group_count == 0);
  clients[2] = watch_of(filter, routes[2], "a", NULL);
  clients[1] = watch_of(filter, routes[1], "a", NULL);
  advance(2);
  CHECK(is_open(clients[2]) && is_open(clients[1]));
  clients[0] = watch_of(filter, routes[1], "a", NULL);
  // An update that changes all of them ends all watchers.
  advance(2);
  const void *changed = new_override(filter, 32);
  check_of(filter, changed, "a");
  for (int i = 0; i < 3; i++) {
    CHECK(ends_with(clients[i], unavailable));
    fe_stream_free(clients[i]);
    if (i > 0) fe_route_free(routes[i]);
  }
  fe_route_free(changed);
}

// Several workers open and end streams at once: never more than the limit, and none is refused below it.
enum { WORKERS = 4, ROUNDS = 500 };
static atomic_int open_streams, refused;
static const void *racing_routes[2];
static void *race(void *number) {
  size_t worker = (size_t)number;
  for (int i = 0; i < ROUNDS; i++) {
    fe_stream *stream = call_of(filter, racing_routes[0], "a", NULL, "Watch");
    fe_body(stream, one_message, sizeof one_message, true);
    if (strstr(stream->headers, "grpc-status: 8") != NULL) {
      refused++;
    } else {
      CHECK(++open_streams <= WORKERS);
      check_of(filter, (i + worker) % 3 == 0 ? NULL : racing_routes[i % 2], i % 5 == 0 ? "b" : "a");
      fe_run(stream);
      open_streams--;
    }
    fe_stream_free(stream);
  }
  return NULL;
}
static void races(void) {
  for (int i = 0; i < 2; i++) {
    racing_routes[i] = new_override(filter, 40);
    last_merged->watchers_max = WORKERS;
  }
  for (int extra = 0; extra <= 1; extra++) { // the second time with one worker more than the limit
    pthread_t workers[WORKERS + 1];
    for (size_t i = 0; i < WORKERS + (size_t)extra; i++) pthread_create(&workers[i], NULL, race, (void *)i);
    for (int i = 0; i < ROUNDS; i++) hg_watch_notify();
    for (size_t i = 0; i < WORKERS + (size_t)extra; i++) pthread_join(workers[i], NULL);
    CHECK(extra == 1 || refused == 0);
  }
  CHECK(hg_watch_notify() == 0 && fe_metric(filter, "watchers") == 0 && fe_schedulers == 0);
  for (int i = 0; i < 2; i++) fe_route_free(racing_routes[i]);
}

// Envoy destroys a stream while it sends one of the parts.
static void destroyed_streams(void) {
  for (int destroyed_at = 1; destroyed_at < 5; destroyed_at++)
    for (int i = 0; i < 4; i++) {
      const char *methods[] = {"Check", "List", "Watch", "Other"};
      fe_stream *stream = call(methods[i]);
      stream->destroyed_at = destroyed_at;
      fe_body(stream, one_message, sizeof one_message, true);
      hg_gate_publish(module_filter()->gate, kept[destroyed_at % 2]);
      hg_watch_notify();
      if (!stream->destroyed) fe_run(stream);
      fe_stream_free(stream);
    }
  hg_gate_publish(module_filter()->gate, kept[OK]);
  fe_stream *stream = fe_stream_new(filter, NULL, "GET", "/", NULL, NULL);
  stream->destroyed_at = 1;
  fe_headers(stream, true);
  CHECK(stream->replies == 0);
  fe_stream_free(stream);
}

// Any bytes in any pieces get one reply.
static void garbage(void) {
  const char *methods[] = {"Check", "List"};
  uint32_t seed = 1;
  for (int i = 0; i < 20000; i++) {
    char bytes[40];
    seed = seed * 1664525u + 1013904223u;
    size_t length = (seed >> 8) % sizeof bytes, piece = 1 + (seed >> 16) % 9;
    for (size_t j = 0; j < length; j++) {
      seed = seed * 1664525u + 1013904223u;
      bytes[j] = (char)((seed >> 28) < 10 ? 0 : seed >> 20); // zeros, for plausible prefixes
    }
    if (length > 5 && i % 2 == 0) bytes[4] = (char)(length - 5);
    fe_stream *stream = send_split(methods[i % 2], bytes, length, piece, 1 + i % 3);
    CHECK(stream->replies == 1);
    fe_stream_free(stream);
  }
}

static void grpc(void) {
  gate_of(filter)->config_hash = 1;
  gate_of(filter)->watchers_max = 1000;
  requests();
  sizes();
  methods();
  grpc_probes();
  watches();
  requests_are_freed();
  full_buffers();
  deadlines();
  limits();
  superseded();
  int before = merges;
  overrides();
  late_workers();
  overrides_beside_each_other();
  races();
  CHECK(hg_group_count == 0);
  go_calls -= merges - before; // the first call with an override calls Go
  destroyed_streams();
  garbage();
}

// Envoy 1.38 lets only a stream write a stat: a value that was written without one is pending until the next reply.
static void pending_metrics(void) {
  hg_metrics *metrics = &module_filter()->metrics;
  hg_metric *healthy = metrics->first->next->next;
  hg_metric_write(metrics, healthy, 0);
  fe_stream_free(ask("GET", "/", NULL));
  hg_metric_write(metrics, healthy, 1);
  hg_metric_write(metrics, metrics->first, 5);
  int64_t before = fe_metric(filter, "answers");
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
