#include "config.h"

#include <algorithm>

namespace contribhost {

namespace {

constexpr HeaderType request_headers = envoy_dynamic_module_type_http_header_type_RequestHeader;
constexpr HeaderType request_trailers = envoy_dynamic_module_type_http_header_type_RequestTrailer;
constexpr HeaderType response_headers = envoy_dynamic_module_type_http_header_type_ResponseHeader;
constexpr HeaderType response_trailers = envoy_dynamic_module_type_http_header_type_ResponseTrailer;

// The golang extension's FilterState; Go knows some of them by their numbers.
enum State { WaitingHeader = 0, ProcessingHeader = 1, WaitingData = 2, ProcessingData = 4, ProcessingTrailer = 6, Done = 7 };

// The golang extension's GolangStatus.
enum Status : uint64_t { Running, LocalReply, Continue, StopAndBuffer, StopAndBufferWatermark, StopNoBuffer };

struct Reply {
  int code;
  std::string body, details;
  std::vector<std::pair<std::string, std::string>> headers;
  int64_t grpc_status;
};

// Those of Envoy's AccessLogType that the golang extension's filter handles.
enum LogType : uint64_t { DownstreamStart = 4, DownstreamEnd = 6 };

struct Stream;

// Direction is decoding or encoding: the golang extension's ProcessorState.
struct Direction : processState {
  bool has_headers = false; // Go may ask for them, until they are passed on
};

// Request is the golang extension's HttpRequestInternal, which Go holds. It outlives the stream, until Go's garbage collector finalizes it.
// The processStates are part of it, so that a late call from Go does not touch freed memory.
struct Request : httpRequest {
  Stream* stream; // null once the stream is destroyed; used only on the stream's worker
  Direction decoding{}, encoding{};

  explicit Request(Stream* s) : httpRequest{}, stream(s) {
    decoding.req = encoding.req = this;
    encoding.is_encoding = 1;
    live_requests++;
  }
  ~Request() { live_requests--; }
};

// Stream is the golang extension's Filter.
struct Stream {
  SharedFilterConfig config;
  EnvoyFilter envoy;
  Request* request;      // Go owns it once it has been shown
  bool replying = false; // while the plugin's own reply is sent
  bool reply_has_body = false;
  uint64_t reply_length = 0;
  std::unique_ptr<Reply> reply;

  Stream(SharedFilterConfig c, EnvoyFilter e)
      : config(std::move(c)), envoy(e), request(new Request(this)) {
    request->plugin_name = {config->plugin_name->data(), config->plugin_name->size()};
    request->worker_id = envoy_dynamic_module_callback_http_filter_get_worker_index(envoy);
  }

  Plugin& plugin() { return *config->plugin; }

  bool shown() const { return request->configId != 0; }

  void show() {
    if (!shown()) {
      request->configId = route_config_id(*config, envoy);
    }
  }

  uint64_t header_count(HeaderType type) { return envoy_dynamic_module_callback_http_get_headers_size(envoy, type); }

  uint64_t received(BodyType type) {
    return envoy_dynamic_module_callback_http_get_body_size(envoy, type);
  }

  // Runs for every stream, even if no hook of this filter was called.
  void log(LogType type) {
    show();
    uint64_t requested = header_count(request_headers), responded = header_count(response_headers);
    request->decoding.has_headers |= requested > 0;
    request->encoding.has_headers |= responded > 0;
    request->is_golang_processing_log = 1;
    plugin().on_log(request, type, &request->decoding, &request->encoding, requested, 0, header_count(request_trailers), 0,
                    responded, 0, header_count(response_trailers), 0);
    request->is_golang_processing_log = 0;
  }

  // headers, data and trailers return whether Envoy may pass them on.

  bool headers(Direction& state, HeaderType type, bool end_stream) {
    show();
    state.state = ProcessingHeader;
    state.has_headers = true;
    // Only Go's CopyHeaders needs the number of bytes.
    bool passes = passes_on(state, plugin().on_header(&state, end_stream, header_count(type), 0), end_stream);
    state.has_headers = !passes;
    return passes;
  }

  bool data(Direction& state, uint64_t length, bool end_stream) {
    if (state.state != WaitingData) {
      return false; // a reply was sent
    }
    state.state = ProcessingData;
    // Without a buffer: its functions are fatal.
    return passes_on(state, plugin().on_data(&state, end_stream, 0, length), end_stream);
  }

  bool trailers(Direction& state, HeaderType type) {
    if (state.state != WaitingData) {
      return false;
    }
    state.state = ProcessingTrailer;
    return passes_on(state, plugin().on_header(&state, 1, header_count(type), 0), true);
  }

  bool passes_on(Direction& state, uint64_t status, bool end_stream) {
    switch (status) {
    case Continue:
      state.state = end_stream ? Done : WaitingData;
      return true;
    case StopAndBufferWatermark:
    case StopNoBuffer:
      state.state = WaitingData;
      return false;
    case LocalReply:
      return false;
    }
    die("an unexpected status");
  }

  std::string_view request_header(std::string_view name) {
    Buffer value{};
    envoy_dynamic_module_callback_http_get_header(envoy, request_headers, buffer(name), &value, 0, nullptr);
    return view(value);
  }

  bool is_grpc() {
    std::string_view type = request_header("content-type"), grpc = "application/grpc";
    return type.substr(0, grpc.size()) == grpc && (type.size() == grpc.size() || type[grpc.size()] == '+');
  }

  void send_reply() {
    std::unique_ptr<Reply> r = std::move(reply);
    // The ABI has no gRPC status; Envoy keeps the header.
    if (is_grpc() && std::none_of(r->headers.begin(), r->headers.end(), [](auto& h) { return h.first == "grpc-status"; })) {
      r->headers.emplace_back("grpc-status", std::to_string(r->grpc_status));
    }
    std::vector<ModuleHeader> headers;
    for (auto& [key, value] : r->headers) {
      if (!value.empty()) { // as in the golang extension
        headers.push_back({key.data(), key.size(), value.data(), value.size()});
      }
    }
    request->decoding.state = WaitingHeader;
    replying = true;
    reply_length = r->body.size();
    reply_has_body = !r->body.empty() && !is_grpc() && request_header(":method") != "HEAD";
    // The stream may be destroyed when this returns.
    envoy_dynamic_module_callback_http_send_response(envoy, r->code, headers.data(), headers.size(), buffer(r->body),
                                                     buffer(r->details));
  }
};

bool in_go(const processState& state) {
  return state.state == ProcessingHeader || state.state == ProcessingData || state.state == ProcessingTrailer ||
         state.req->is_golang_processing_log;
}

// stream_of finds the stream of a call from Go. Healthgate calls only on the stream's worker, during a callback.
CAPIStatus stream_of(void* s, Stream*& stream) {
  if (!on_envoy_thread) {
    die("a request was used off its worker");
  }
  auto* state = static_cast<processState*>(s);
  if (!in_go(*state)) {
    return CAPINotInGo;
  }
  stream = static_cast<Request*>(state->req)->stream;
  return stream == nullptr ? CAPIFilterIsGone : CAPIOK;
}

} // namespace

} // namespace contribhost

using namespace contribhost;

extern "C" {

CAPIStatus envoyGoFilterHttpSendLocalReply(void* s, int response_code, void* body_text_data, int body_text_len,
                                           void* headers, int headers_num, long long int grpc_status,
                                           void* details_data, int details_len) {
  Stream* stream;
  if (CAPIStatus status = stream_of(s, stream); status != CAPIOK) {
    return status;
  }
  if (static_cast<processState*>(s)->is_encoding) {
    die("a reply was sent instead of a response");
  }
  if (details_len == 0) {
    die("a reply without details, for which the ABI would use its own");
  }
  auto reply = std::make_unique<Reply>();
  reply->code = response_code;
  reply->body = copy(body_text_data, body_text_len);
  reply->details = copy(details_data, details_len);
  reply->grpc_status = grpc_status;
  struct GoString {
    const char* data;
    ptrdiff_t length;
  };
  auto* strings = static_cast<GoString*>(headers);
  for (int i = 0; i + 1 < headers_num; i += 2) {
    reply->headers.emplace_back(copy(strings[i].data, strings[i].length), copy(strings[i + 1].data, strings[i + 1].length));
  }
  stream->reply = std::move(reply);
  // It is sent later, because the current callback has not returned its status yet.
  auto scheduler = envoy_dynamic_module_callback_http_filter_scheduler_new(stream->envoy);
  envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler, 0);
  envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler);
  return CAPIOK;
}

CAPIStatus envoyGoFilterHttpGetHeader(void* s, void* key_data, int key_len, uint64_t* value_data, int* value_len) {
  Stream* stream;
  if (CAPIStatus status = stream_of(s, stream); status != CAPIOK) {
    return status;
  }
  auto* state = static_cast<Direction*>(static_cast<processState*>(s));
  if (!state->has_headers) {
    return CAPIInvalidPhase;
  }
  if (stream->replying && state->is_encoding && !state->req->is_golang_processing_log) {
    die("a header of a reply was read before the reply is encoded");
  }
  Buffer value{};
  envoy_dynamic_module_callback_http_get_header(stream->envoy, state->is_encoding ? response_headers : request_headers,
                                                {static_cast<const char*>(key_data), static_cast<size_t>(key_len)},
                                                &value, 0, nullptr);
  if (value.ptr != nullptr) {
    *value_data = reinterpret_cast<uint64_t>(value.ptr);
    *value_len = static_cast<int>(value.length);
  }
  return CAPIOK;
}

void envoyGoFilterHttpFinalize(void* r, int) { delete static_cast<Request*>(static_cast<httpRequest*>(r)); }

ModuleFilter envoy_dynamic_module_on_http_filter_new(ModuleFilterConfig config, EnvoyFilter envoy) {
  on_envoy_thread = true; // a worker
  static std::once_flag first;
  std::call_once(first, await_refresh);
  auto& c = *static_cast<const SharedFilterConfig*>(config);
  auto* stream = new Stream(c, envoy);
  if (c->logs_start) { // before the first filter has the headers
    stream->log(DownstreamStart);
  }
  return stream;
}

static Stream& stream_at(ModuleFilter filter) { return *const_cast<Stream*>(static_cast<const Stream*>(filter)); }

#define STATUS_HOOK(hook) \
  envoy_dynamic_module_type_on_http_filter_##hook##_status envoy_dynamic_module_on_http_filter_##hook

STATUS_HOOK(request_headers)(EnvoyFilter, ModuleFilter filter, bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.headers(s.request->decoding, request_headers, end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_headers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_headers_status_StopIteration;
}

STATUS_HOOK(request_body)(EnvoyFilter, ModuleFilter filter, bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.data(s.request->decoding, s.received(envoy_dynamic_module_type_http_body_type_ReceivedRequestBody), end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_body_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_body_status_StopIterationNoBuffer;
}

STATUS_HOOK(request_trailers)(EnvoyFilter, ModuleFilter filter) {
  Stream& s = stream_at(filter);
  return s.trailers(s.request->decoding, request_trailers)
             ? envoy_dynamic_module_type_on_http_filter_request_trailers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_trailers_status_StopIteration;
}

// must_pass ends Envoy if the plugin has stopped a response.
static void must_pass(bool passes) {
  if (!passes) {
    die("the plugin stopped a response");
  }
}

STATUS_HOOK(response_headers)(EnvoyFilter, ModuleFilter filter, bool end_of_stream) {
  Stream& s = stream_at(filter);
  must_pass(s.headers(s.request->encoding, response_headers, end_of_stream));
  return {}; // Continue
}

STATUS_HOOK(response_body)(EnvoyFilter, ModuleFilter filter, bool end_of_stream) {
  Stream& s = stream_at(filter);
  must_pass(s.data(s.request->encoding, s.received(envoy_dynamic_module_type_http_body_type_ReceivedResponseBody), end_of_stream));
  return {}; // Continue
}

STATUS_HOOK(response_trailers)(EnvoyFilter, ModuleFilter filter) {
  Stream& s = stream_at(filter);
  must_pass(s.trailers(s.request->encoding, response_trailers));
  return {}; // Continue
}

// Envoy does not call a module's encode hooks for the module's own reply, but it calls the golang extension's.
STATUS_HOOK(local_reply)(EnvoyFilter, ModuleFilter filter, uint32_t, Buffer, bool reset_imminent) {
  Stream& s = stream_at(filter);
  if (s.replying && !reset_imminent) {
    Direction& state = s.request->encoding;
    must_pass(s.headers(state, response_headers, !s.reply_has_body) && (!s.reply_has_body || s.data(state, s.reply_length, true)));
  }
  return {}; // Continue
}

void envoy_dynamic_module_on_http_filter_scheduled(EnvoyFilter, ModuleFilter filter, uint64_t) {
  Stream& s = stream_at(filter);
  if (s.reply != nullptr) {
    s.send_reply();
  }
}

void envoy_dynamic_module_on_http_filter_stream_complete(EnvoyFilter, ModuleFilter filter) {
  Stream& s = stream_at(filter);
  s.request->is_golang_processing_log = 1;
  s.plugin().on_stream_complete(s.request);
  s.request->is_golang_processing_log = 0;
  s.log(DownstreamEnd);
}

void envoy_dynamic_module_on_http_filter_destroy(ModuleFilter filter) {
  Stream* s = &stream_at(filter);
  Request* request = s->request;
  if (s->shown()) {
    bool terminated = in_go(request->decoding) || in_go(request->encoding);
    request->stream = nullptr;
    s->plugin().on_destroy(request, terminated ? 1 : 0);
  } else {
    delete request; // Go never saw it
  }
  delete s;
}

} // extern "C"
