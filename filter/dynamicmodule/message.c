#include "stream.h"

// Unknown fields are allowed, as in protobuf's own parsers.

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, GROUP = 3, END_OF_GROUP = 4, FIXED32 = 5 }; // protobuf's wire types

void hg_message_append(hg_message *message, hg_envoy_buffer bytes) {
  enum { MAX = HG_PREFIX + HG_MESSAGE_MAX };
  if (bytes.length > MAX - message->length) {
    message->too_long = true;
    bytes.length = MAX - message->length;
  }
  if (bytes.length == 0) return;
  size_t length = message->length + bytes.length;
  if (length > message->capacity) {
    message->capacity = length < MAX / 2 ? 2 * length : MAX;
    message->bytes = hg_realloc(message->bytes, message->capacity);
  }
  memcpy(message->bytes + message->length, bytes.ptr, bytes.length);
  message->length = length;
}

static bool is_utf8(const unsigned char *at, size_t left) {
  static const uint32_t least[] = {0, 0x80, 0x800, 0x10000}; // by the number of bytes after the first
  while (left > 0) {
    size_t more = *at < 0x80 ? 0 : *at < 0xe0 ? 1 : *at < 0xf0 ? 2 : 3;
    if ((*at >= 0x80 && *at < 0xc0) || *at > 0xf4 || more >= left) return false;
    uint32_t character = more == 0 ? *at : *at & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
      if ((at[i] & 0xc0) != 0x80) return false;
      character = character << 6 | (at[i] & 0x3f);
    }
    if (character < least[more] || character > 0x10ffff || (character >= 0xd800 && character < 0xe000)) return false;
    at += more + 1;
    left -= more + 1;
  }
  return true;
}

// reader reads the rest of a message.
typedef struct {
  const unsigned char *at;
  size_t left;
  bool malformed;
} reader;

static uint64_t read_varint(reader *r) {
  uint64_t value = 0;
  for (unsigned shift = 0; r->left > 0; shift += 7) {
    unsigned char byte = *r->at++;
    r->left--;
    if (shift == 63 && byte > 1) break; // more than 64 bits
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  r->malformed = true;
  return 0;
}

static hg_envoy_buffer read_bytes(reader *r, uint64_t length) {
  hg_envoy_buffer bytes = {(const char *)r->at, length};
  if (length > r->left) {
    r->malformed = true;
    return (hg_envoy_buffer){"", 0};
  }
  r->at += length;
  r->left -= length;
  return bytes;
}

static bool is_well_formed(reader r, hg_envoy_buffer *name) {
  uint64_t groups[HG_GROUPS_MAX];
  size_t depth = 0;
  while (r.left > 0 && !r.malformed) {
    uint64_t tag = read_varint(&r), number = tag >> 3;
    // protobuf's own library for Go allows larger numbers in groups: ConsumeTag in encoding/protowire.
    if (number == 0 || number > (depth > 0 ? INT32_MAX : (1 << 29) - 1)) return false;
    switch (tag & 7) {
    case VARINT:
      read_varint(&r);
      break;
    case FIXED64:
      read_bytes(&r, 8);
      break;
    case FIXED32:
      read_bytes(&r, 4);
      break;
    case BYTES: {
      hg_envoy_buffer value = read_bytes(&r, read_varint(&r));
      if (number != 1 || depth > 0 || name == NULL) break;
      if (value.length > HG_NAME_MAX || !is_utf8((const unsigned char *)value.ptr, value.length)) return false;
      *name = value; // of several names the last one counts
      break;
    }
    case GROUP:
      if (depth == HG_GROUPS_MAX) return false;
      groups[depth++] = number;
      break;
    case END_OF_GROUP:
      if (depth == 0 || groups[--depth] != number) return false;
      break;
    default:
      return false;
    }
  }
  return !r.malformed && depth == 0;
}

const char *hg_message_parse(const hg_message *message, hg_envoy_buffer *name) {
  const unsigned char *prefix = (const unsigned char *)message->bytes; // whether it is compressed, and four bytes of its length
  if (message->too_long || message->length < HG_PREFIX || prefix[0] != 0) return "the request is not one whole message";
  uint32_t length = (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | prefix[4];
  if (length != message->length - HG_PREFIX) return "the request is not one whole message";
  return is_well_formed((reader){prefix + HG_PREFIX, length, false}, name) ? NULL : "the message is malformed";
}
