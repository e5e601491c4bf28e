// The parts of a gRPC response. Sending one may destroy the stream, and a destroyed stream is sent nothing.
#pragma once

#include "stream.h"

enum { HG_SERVING = 1, HG_NOT_SERVING = 2, HG_SERVICE_UNKNOWN = 3 }; // HealthCheckResponse.ServingStatus

void hg_response_send_headers(hg_stream *stream);
void hg_response_send_data(hg_stream *stream, hg_buffer data);
void hg_response_send_status(hg_stream *stream, int status); // a HealthCheckResponse
void hg_response_send_trailers(hg_stream *stream, hg_buffer grpc_status);
