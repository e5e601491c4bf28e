// The requests, and what a plugin asks of them.

#include "standin.h"

namespace standin {

// The contrib host's FilterState; Go knows three of them by their numbers.
enum State { WaitingHeader = 0, ProcessingHeader = 1, WaitingData = 2, ProcessingData = 4, ProcessingTrailer = 6, Done = 7 };

// The contrib host's GolangStatus.
enum Status : uint64_t { Running, LocalReply, Continue, StopAndBuffer, StopAndBufferWatermark, StopNoBuffer };

struct Reply {
  int code;
  std::string body, details;
  std::vector<std::pair<std::string, std::string>> headers;
  int64_t grpc_status;
};

struct Stream;

// Request is what Go holds of a stream, HttpRequestInternal there. It outlives the stream, until Go's garbage collector
// finalizes it. The processStates are part of it, so that no late call of Go's touches freed memory.
struct Request : httpRequest {
  Stream* stream; // null once the stream is destroyed; set and read on the stream's worker alone
  processState decoding{}, encoding{};

  explicit Request(Stream* s) : httpRequest{}, stream(s) {
    decoding.req = encoding.req = this;
    encoding.is_encoding = 1;
    live_requests++;
  }
  ~Request() { live_requests--; }
};

// Stream is the contrib host's Filter.
struct Stream {
  std::shared_ptr<FilterConfig> config;
  envoy_dynamic_module_type_http_filter_envoy_ptr envoy = nullptr;
  Request* request = nullptr; // Go's, once it has been shown to Go
  bool shown = false;
  bool replying = false; // while the plugin's own reply is sent
  std::unique_ptr<Reply> reply;

  Plugin& plugin() { return *config->plugin; }

  void show() {
    if (shown) {
      return;
    }
    request->plugin_name = {config->plugin_name->data(), config->plugin_name->size()};
    request->configId = route_config_id(*config, envoy);
    request->worker_id = envoy_dynamic_module_callback_http_filter_get_worker_index(envoy);
    shown = true;
  }

  uint64_t header_count(envoy_dynamic_module_type_http_header_type type) {
    return envoy_dynamic_module_callback_http_get_headers_size(envoy, type);
  }

  // Each returns whether the host is to go on with what it has passed to Go.

  bool headers(processState& state, envoy_dynamic_module_type_http_header_type type, bool end_stream) {
    show();
    state.state = ProcessingHeader;
    // The number of bytes serves Go's CopyHeaders alone, which the stand-in does not have.
    switch (plugin().on_header(&state, end_stream, header_count(type), 0)) {
    case Continue:
      state.state = end_stream ? Done : WaitingData;
      return true;
    case LocalReply:
      return false;
    case StopAndBufferWatermark:
      state.state = WaitingData;
      return false;
    }
    die("an unexpected status of headers");
  }

  bool data(processState& state, bool end_stream) {
    if (state.state != WaitingData) {
      return false; // the reply is on its way
    }
    state.state = ProcessingData;
    switch (plugin().on_data(&state, end_stream, 0, 0)) {
    case Continue:
      state.state = end_stream ? Done : WaitingData;
      return true;
    case LocalReply:
      return false;
    case StopNoBuffer:
      state.state = WaitingData;
      return false;
    }
    die("an unexpected status of data");
  }

  bool trailers(processState& state, envoy_dynamic_module_type_http_header_type type) {
    if (state.state != WaitingData) {
      return false;
    }
    state.state = ProcessingTrailer;
    switch (plugin().on_header(&state, 1, header_count(type), 0)) {
    case Continue:
      state.state = Done;
      return true;
    case LocalReply:
      return false;
    }
    die("an unexpected status of trailers");
  }

  bool is_grpc() {
    envoy_dynamic_module_type_envoy_buffer value{};
    envoy_dynamic_module_callback_http_get_header(envoy, envoy_dynamic_module_type_http_header_type_RequestHeader,
                                                  buffer("content-type"), &value, 0, nullptr);
    std::string_view type = view(value), grpc = "application/grpc";
    return type.substr(0, grpc.size()) == grpc && (type.size() == grpc.size() || type[grpc.size()] == '+');
  }

  void send_reply() {
    std::unique_ptr<Reply> r = std::move(reply);
    if (is_grpc()) { // the ABI takes no gRPC status; Envoy keeps one that is there
      r->headers.emplace_back("grpc-status", std::to_string(r->grpc_status));
    }
    std::vector<envoy_dynamic_module_type_module_http_header> headers;
    for (auto& [key, value] : r->headers) {
      if (!value.empty()) { // as the contrib host does
        headers.push_back({key.data(), key.size(), value.data(), value.size()});
      }
    }
    request->decoding.state = Done;
    replying = true;
    // The stream may be destroyed when this returns.
    envoy_dynamic_module_callback_http_send_response(envoy, r->code, headers.data(), headers.size(), buffer(r->body),
                                                     buffer(r->details));
  }
};

bool in_go(const processState& state) {
  return state.state == ProcessingHeader || state.state == ProcessingData || state.state == ProcessingTrailer;
}

// The stream of a call from Go, or why there is none. Healthgate calls on the stream's worker alone, inside a callback.
CAPIStatus stream_of(void* s, Stream*& stream) {
  auto* state = static_cast<processState*>(s);
  if (!in_go(*state)) {
    return CAPINotInGo;
  }
  stream = static_cast<Request*>(state->req)->stream;
  return stream == nullptr ? CAPIFilterIsGone : CAPIOK;
}

} // namespace standin

using namespace standin;

extern "C" {

CAPIStatus envoyGoFilterHttpSendLocalReply(void* s, int response_code, void* body_text_data, int body_text_len,
                                           void* headers, int headers_num, long long int grpc_status,
                                           void* details_data, int details_len) {
  Stream* stream;
  if (CAPIStatus status = stream_of(s, stream); status != CAPIOK) {
    return status;
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
  // Posted, never sent from here: the callback that is under way has not returned its status yet.
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
  auto* state = static_cast<processState*>(s);
  if (state->is_encoding || state->state != ProcessingHeader) {
    die("a header other than the request's was asked for");
  }
  envoy_dynamic_module_type_envoy_buffer value{};
  envoy_dynamic_module_callback_http_get_header(stream->envoy, envoy_dynamic_module_type_http_header_type_RequestHeader,
                                                {static_cast<const char*>(key_data), static_cast<size_t>(key_len)},
                                                &value, 0, nullptr);
  if (value.ptr != nullptr) {
    *value_data = reinterpret_cast<uint64_t>(value.ptr);
    *value_len = static_cast<int>(value.length);
  }
  return CAPIOK;
}

void envoyGoFilterHttpFinalize(void* r, int) { delete static_cast<Request*>(static_cast<httpRequest*>(r)); }

envoy_dynamic_module_type_http_filter_module_ptr
envoy_dynamic_module_on_http_filter_new(envoy_dynamic_module_type_http_filter_config_module_ptr config,
                                        envoy_dynamic_module_type_http_filter_envoy_ptr envoy) {
  on_envoys_thread = true; // filters are made on workers
  static std::once_flag first;
  std::call_once(first, await_refresh);
  auto* stream = new Stream();
  stream->config = static_cast<const FilterConfigHolder*>(config)->config;
  stream->envoy = envoy;
  stream->request = new Request(stream);
  return stream;
}

static Stream& stream_at(envoy_dynamic_module_type_http_filter_module_ptr filter) {
  return *const_cast<Stream*>(static_cast<const Stream*>(filter));
}

envoy_dynamic_module_type_on_http_filter_request_headers_status envoy_dynamic_module_on_http_filter_request_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.headers(s.request->decoding, envoy_dynamic_module_type_http_header_type_RequestHeader, end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_headers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_headers_status_StopIteration;
}

envoy_dynamic_module_type_on_http_filter_request_body_status envoy_dynamic_module_on_http_filter_request_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  return s.data(s.request->decoding, end_of_stream)
             ? envoy_dynamic_module_type_on_http_filter_request_body_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_body_status_StopIterationNoBuffer;
}

envoy_dynamic_module_type_on_http_filter_request_trailers_status envoy_dynamic_module_on_http_filter_request_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  return s.trailers(s.request->decoding, envoy_dynamic_module_type_http_header_type_RequestTrailer)
             ? envoy_dynamic_module_type_on_http_filter_request_trailers_status_Continue
             : envoy_dynamic_module_type_on_http_filter_request_trailers_status_StopIteration;
}

envoy_dynamic_module_type_on_http_filter_response_headers_status envoy_dynamic_module_on_http_filter_response_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  if (!s.headers(s.request->encoding, envoy_dynamic_module_type_http_header_type_ResponseHeader, end_of_stream)) {
    die("the plugin stopped a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_headers_status_Continue;
}

envoy_dynamic_module_type_on_http_filter_response_body_status envoy_dynamic_module_on_http_filter_response_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter,
    bool end_of_stream) {
  Stream& s = stream_at(filter);
  if (!s.data(s.request->encoding, end_of_stream)) {
    die("the plugin stopped the body of a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_body_status_Continue;
}

envoy_dynamic_module_type_on_http_filter_response_trailers_status envoy_dynamic_module_on_http_filter_response_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  if (!s.trailers(s.request->encoding, envoy_dynamic_module_type_http_header_type_ResponseTrailer)) {
    die("the plugin stopped the trailers of a response");
  }
  return envoy_dynamic_module_type_on_http_filter_response_trailers_status_Continue;
}

// Envoy does not call a module's encode hooks for its own reply; the contrib host's filter gets them.
envoy_dynamic_module_type_on_http_filter_local_reply_status envoy_dynamic_module_on_http_filter_local_reply(
    envoy_dynamic_module_type_http_filter_envoy_ptr, envoy_dynamic_module_type_http_filter_module_ptr filter, uint32_t,
    envoy_dynamic_module_type_envoy_buffer, bool reset_imminent) {
  Stream& s = stream_at(filter);
  if (s.replying && !reset_imminent) {
    processState& state = s.request->encoding;
    if (!s.headers(state, envoy_dynamic_module_type_http_header_type_ResponseHeader, false) || !s.data(state, true)) {
      die("the plugin stopped its own reply");
    }
  }
  return envoy_dynamic_module_type_on_http_filter_local_reply_status_Continue;
}

void envoy_dynamic_module_on_http_filter_scheduled(envoy_dynamic_module_type_http_filter_envoy_ptr,
                                                   envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t) {
  Stream& s = stream_at(filter);
  if (s.reply != nullptr) {
    s.send_reply();
  }
}

void envoy_dynamic_module_on_http_filter_stream_complete(envoy_dynamic_module_type_http_filter_envoy_ptr,
                                                         envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream& s = stream_at(filter);
  s.show(); // the log is called for every stream, even one that never came as far as this filter
  constexpr uint64_t downstream_end = 6;
  s.request->is_golang_processing_log = 1;
  s.plugin().on_stream_complete(s.request);
  s.plugin().on_log(s.request, downstream_end, &s.request->decoding, &s.request->encoding,
                    s.header_count(envoy_dynamic_module_type_http_header_type_RequestHeader), 0, 0, 0,
                    s.header_count(envoy_dynamic_module_type_http_header_type_ResponseHeader), 0, 0, 0);
  s.request->is_golang_processing_log = 0;
}

void envoy_dynamic_module_on_http_filter_destroy(envoy_dynamic_module_type_http_filter_module_ptr filter) {
  Stream* s = &stream_at(filter);
  Request* request = s->request;
  if (s->shown) {
    bool terminated = in_go(request->decoding) || in_go(request->encoding);
    request->stream = nullptr;
    s->plugin().on_destroy(request, terminated ? 1 : 0);
  } else {
    delete request; // Go never saw it
  }
  delete s;
}

} // extern "C"
