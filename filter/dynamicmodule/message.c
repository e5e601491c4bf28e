#include "message.h"

// Unknown fields are allowed, as in protobuf's own parsers.

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, GROUP = 3, END_OF_GROUP = 4, FIXED32 = 5 }; // protobuf's wire types

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

static void expect(hg_message *message, int what) {
  message->expects = what;
  message->varint = 0;
  message->shift = 0;
}

// parse_varint returns whether the byte is the last one of its varint.
static bool parse_varint(hg_message *message, unsigned char byte) {
  if (message->shift == 63 && byte > 1) message->malformed = true; // more than 64 bits
  message->varint |= (uint64_t)(byte & 0x7f) << message->shift;
  message->shift += 7;
  return byte < 0x80;
}

static void end_value(hg_message *message) {
  if (message->expects == HG_NAME && !is_utf8((const unsigned char *)message->name, message->name_length)) message->malformed = true;
  expect(message, HG_TAG);
}

static void begin_value(hg_message *message, uint64_t size, bool is_name) {
  if (size > message->length - message->count || (is_name && size > HG_NAME_MAX)) {
    message->malformed = true;
    return;
  }
  message->left = (uint32_t)size;
  message->expects = is_name ? HG_NAME : HG_SKIPPED;
  if (is_name) message->name_length = 0; // of several names the last one counts
  if (size == 0) end_value(message);
}

static void begin_group(hg_message *message, uint64_t number) {
  if (message->depth == HG_GROUPS_MAX) {
    message->malformed = true;
    return;
  }
  message->groups[message->depth++] = (uint32_t)number;
  expect(message, HG_TAG);
}

static void end_group(hg_message *message, uint64_t number) {
  if (message->depth == 0 || message->groups[--message->depth] != number) message->malformed = true;
  expect(message, HG_TAG);
}

static void begin_field(hg_message *message, uint64_t tag) {
  uint64_t number = tag >> 3;
  // protobuf's own library for Go allows larger numbers in groups: ConsumeTag in encoding/protowire.
  if (number == 0 || number > (message->depth > 0 ? INT32_MAX : (1 << 29) - 1)) {
    message->malformed = true;
    return;
  }
  message->tag = tag;
  switch (tag & 7) {
  case VARINT:
    expect(message, HG_VARINT);
    break;
  case FIXED64:
    begin_value(message, 8, false);
    break;
  case BYTES:
    expect(message, HG_LENGTH);
    break;
  case GROUP:
    begin_group(message, number);
    break;
  case END_OF_GROUP:
    end_group(message, number);
    break;
  case FIXED32:
    begin_value(message, 4, false);
    break;
  default:
    message->malformed = true;
  }
}

static void parse_byte(hg_message *message, unsigned char byte) {
  message->count++;
  if (!parse_varint(message, byte) || message->malformed) return;
  if (message->expects == HG_TAG)
    begin_field(message, message->varint);
  else if (message->expects == HG_LENGTH)
    begin_value(message, message->varint, message->tag == (1 << 3 | BYTES) && message->depth == 0 && !message->nameless);
  else
    expect(message, HG_TAG);
}

// parse_value reads bytes of a field's value, and returns how many.
static size_t parse_value(hg_message *message, const char *bytes, size_t length) {
  size_t used = length < message->left ? length : message->left;
  if (message->expects == HG_NAME) {
    memcpy(message->name + message->name_length, bytes, used);
    message->name_length += used;
  }
  message->count += (uint32_t)used;
  message->left -= (uint32_t)used;
  if (message->left == 0) end_value(message);
  return used;
}

void hg_message_parse(hg_message *message, const char *bytes, size_t length) {
  for (; length > 0 && message->prefix_count < sizeof message->prefix; bytes++, length--) {
    const unsigned char *prefix = message->prefix;
    message->prefix[message->prefix_count++] = (unsigned char)*bytes;
    if (message->prefix_count == sizeof message->prefix)
      message->length = (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 | (uint32_t)prefix[3] << 8 | prefix[4];
  }
  if (length == 0) return;
  // The rest of a request that is too long is ignored.
  if (message->length > HG_MESSAGE_MAX || length > message->length - message->count) message->too_long = true;
  while (length > 0 && !message->too_long && !message->malformed && message->prefix[0] == 0) {
    size_t used = 1;
    if (message->expects == HG_SKIPPED || message->expects == HG_NAME)
      used = parse_value(message, bytes, length);
    else
      parse_byte(message, (unsigned char)*bytes);
    bytes += used;
    length -= used;
  }
}

const char *hg_message_error(const hg_message *message) {
  if (message->malformed) return "the message is malformed";
  if (message->prefix_count < sizeof message->prefix || message->prefix[0] != 0 || message->too_long || message->count < message->length)
    return "the request is not one whole message";
  if (message->expects != HG_TAG || message->shift > 0 || message->depth > 0) return "the message is malformed";
  return NULL;
}
