// The request of a call: one protobuf message with gRPC's prefix, parsed as it arrives.
#pragma once

#include "base.h"

enum { HG_MESSAGE_MAX = 65536, HG_NAME_MAX = 2048, HG_GROUPS_MAX = 100 }; // bytes, bytes, nested groups

// hg_message is a HealthCheckRequest. Only the service's name is kept.
typedef struct {
  unsigned char prefix[5]; // whether the message is compressed, and four bytes of its length
  uint32_t prefix_count, length, count;
  bool too_long;  // also if there is more than one message
  bool malformed;
  bool nameless;  // a HealthListRequest, which has no fields
  enum { HG_TAG, HG_VARINT, HG_LENGTH, HG_SKIPPED, HG_NAME } expects;
  uint64_t varint, tag;
  unsigned shift;
  uint32_t left; // bytes of the field
  size_t depth;  // of open groups
  uint32_t groups[HG_GROUPS_MAX];
  size_t name_length;
  char name[HG_NAME_MAX];
} hg_message;

void hg_message_parse(hg_message *message, const char *bytes, size_t length);
// hg_message_error returns NULL if the complete request is one well-formed message, else the error.
const char *hg_message_error(const hg_message *message);
