// All of Healthgate's C, in reading order: a file includes only those above it. doc.go says which question each answers.
#pragma once

#include "abi_types.h"
#include "abi.h"
#include "base.h"
#include "go.h"
#include "sample.h"
#include "age.h"
#include "metric.h"
#include "gate.h"
#include "route.h"
#include "stream.h"
#include "probe.h"
#include "message.h"
#include "response.h"
#include "group.h"
#include "watch.h"
#include "grpc.h"
