// Probes: GET, HEAD or gRPC requests for a path of the gate.
#pragma once

#include "stream.h"

bool hg_is_probe(const hg_gate *gate, void *stream, hg_envoy_buffer method, hg_envoy_buffer path);
void hg_probe_answer(hg_stream *stream);
