// SPDX-License-Identifier: Apache-2.0

#include "ring_twin.h"

#include <string.h>

#define HOT static inline __attribute__((always_inline))
#define COLD __attribute__((noinline, cold))

enum { PRODUCER_INDEX = 0, CONSUMER_INDEX = 4, INTERRUPT_MASK = 8, PENDING_SEND_SIZE = 12,
       FEATURE_BITS = 64 };

HOT uint32_t load_word(const unsigned char *control, size_t offset) {
  return __atomic_load_n((const uint32_t *)(const void *)(control + offset), __ATOMIC_SEQ_CST);
}

HOT void store_word(unsigned char *control, size_t offset, size_t value) {
  __atomic_store_n((uint32_t *)(void *)(control + offset), (uint32_t)value, __ATOMIC_SEQ_CST);
}

HOT uint64_t load_qword(const unsigned char *data) {
  return __atomic_load_n((const uint64_t *)(const void *)data, __ATOMIC_RELAXED);
}

HOT void store_qword(unsigned char *data, uint64_t value) { memcpy(data, &value, 8); }

HOT size_t distance(size_t start, size_t end, size_t size) {
  return end >= start ? end - start : size - (start - end);
}

HOT bool index_is_good(size_t index, size_t size) { return index < size && (index & 7) == 0; }

// The same copy as in the Swift ring.
HOT void copy(unsigned char *target, const unsigned char *source, size_t count) {
  if (__builtin_expect(count > 128, 0)) {
    memcpy(target, source, count);
  } else if (count > 64) {
    memcpy(target, source, 64);
    memcpy(target + count - 64, source + count - 64, 64);
  } else if (count > 32) {
    memcpy(target, source, 32);
    memcpy(target + count - 32, source + count - 32, 32);
  } else if (count >= 16) {
    memcpy(target, source, 16);
    memcpy(target + count - 16, source + count - 16, 16);
  } else if (count == 8) {
    memcpy(target, source, 8);
  } else {
    memcpy(target, source, count);
  }
}

enum ring_status ring_producer_init(struct ring_producer *ring, void *control, void *data,
                                    size_t size) {
  if (size < 4096 || size >= 1ul << 31 || (size & 4095) != 0) return RING_BAD_SIZE;
  size_t own = load_word(control, PRODUCER_INDEX), peer = load_word(control, CONSUMER_INDEX);
  if (!index_is_good(own, size) || !index_is_good(peer, size)) return RING_BAD_INDEX;
  size_t limit = 65535 * 8 + 8;
  *ring = (struct ring_producer){
      .control = control,
      .data = data,
      .size = size,
      .max_packet = size - 8 < limit ? size - 8 : limit,
      .next = own,
      .committed = own,
      .peer = peer,
      .room = size - 8 - distance(peer, own, size),
  };
  store_word(ring->control, PENDING_SEND_SIZE, 0);
  store_word(ring->control, FEATURE_BITS, 1);
  return RING_OK;
}

enum ring_status ring_consumer_init(struct ring_consumer *ring, void *control, void *data,
                                    size_t size) {
  if (size < 4096 || size >= 1ul << 31 || (size & 4095) != 0) return RING_BAD_SIZE;
  size_t own = load_word(control, CONSUMER_INDEX);
  if (!index_is_good(own, size)) return RING_BAD_INDEX;
  *ring = (struct ring_consumer){
      .control = control, .data = data, .size = size, .next = own, .committed = own};
  store_word(ring->control, INTERRUPT_MASK, 1);
  return RING_OK;
}

static COLD enum ring_status refresh_room(struct ring_producer *ring, size_t needed,
                                          size_t ranges_size) {
  if (needed > ring->max_packet) return RING_TOO_LARGE;
  if ((ranges_size & 7) != 0) return RING_UNALIGNED_RANGES;
  size_t index = load_word(ring->control, CONSUMER_INDEX);
  if (!index_is_good(index, ring->size)) return RING_BAD_INDEX;
  if (distance(index, ring->committed, ring->size) >
      distance(ring->peer, ring->committed, ring->size))
    return RING_INDEX_MOVED_BACK;
  ring->peer = index;
  size_t room = ring->size - 8 - distance(index, ring->next, ring->size);
  ring->room = room < ring->max_packet ? room : ring->max_packet;
  return needed <= room ? RING_OK : RING_FULL;
}

static void put_qword(struct ring_producer *ring, uint64_t value, size_t *offset) {
  store_qword(ring->data + *offset, value);
  *offset += 8;
  if (*offset == ring->size) *offset = 0;
}

static void put(struct ring_producer *ring, const unsigned char *bytes, size_t count,
                size_t *offset) {
  size_t until_end = ring->size - *offset;
  if (count <= until_end) {
    copy(ring->data + *offset, bytes, count);
  } else {
    copy(ring->data + *offset, bytes, until_end);
    copy(ring->data, bytes + until_end, count - until_end);
  }
  *offset += count;
  if (*offset >= ring->size) *offset -= ring->size;
}

static COLD void write_across_end(struct ring_producer *ring, size_t start, uint64_t first,
                                  uint64_t id, const void *ranges, size_t ranges_size,
                                  const void *payload, size_t payload_size) {
  size_t offset = start;
  put_qword(ring, first, &offset);
  put_qword(ring, id, &offset);
  put(ring, ranges, ranges_size, &offset);
  if ((payload_size & 7) != 0) {
    size_t last = offset + (payload_size & ~7ul);
    if (last >= ring->size) last -= ring->size;
    put_qword(ring, 0, &last);
  }
  put(ring, payload, payload_size, &offset);
  offset = (offset + 7) & ~7ul;
  if (offset == ring->size) offset = 0;
  put_qword(ring, (uint64_t)start << 32, &offset);
}

HOT enum ring_status ring_write(struct ring_producer *ring, uint16_t type, uint64_t id,
                                bool completion, const void *ranges, size_t ranges_size,
                                const void *payload, size_t payload_size) {
  size_t data_offset = 16 + ranges_size;
  size_t length = (data_offset + payload_size + 7) & ~7ul;
  size_t needed = length + 8;
  if (__builtin_expect(needed > ring->room || (ranges_size & 7) != 0, 0)) {
    enum ring_status status = refresh_room(ring, needed, ranges_size);
    if (status != RING_OK) return status;
  }
  uint64_t first = (uint64_t)type | (uint64_t)data_offset << 13 | (uint64_t)length << 29 |
                   (completion ? 1ul << 48 : 0);
  size_t start = ring->next, end = start + needed;
  ring->room -= needed;
  if (__builtin_expect(end <= ring->size, 1)) {
    ring->next = end == ring->size ? 0 : end;
    unsigned char *at = ring->data + start;
    store_qword(at, first);
    store_qword(at + 8, id);
    if (ranges_size > 0) copy(at + 16, ranges, ranges_size);
    if ((payload_size & 7) != 0) store_qword(at + needed - 16, 0);
    copy(at + data_offset, payload, payload_size);
    store_qword(at + needed - 8, (uint64_t)start << 32);
  } else {
    ring->next = end - ring->size;
    write_across_end(ring, start, first, id, ranges, ranges_size, payload, payload_size);
  }
  return RING_OK;
}

HOT bool ring_publish(struct ring_producer *ring) {
  size_t before = ring->committed;
  if (ring->next == before) return false;
  ring->committed = ring->next;
  store_word(ring->control, PRODUCER_INDEX, ring->next);
  if (load_word(ring->control, INTERRUPT_MASK) != 0) return false;
  return load_word(ring->control, CONSUMER_INDEX) == before;
}

static COLD enum ring_status fault(const struct ring_consumer *ring, uint64_t first) {
  uint64_t type = first & 0xffff, data_offset8 = first >> 16 & 0xffff,
           length8 = first >> 32 & 0xffff;
  if (type != 6 && type != 7 && type != 9 && type != 11) return RING_BAD_TYPE;
  if (data_offset8 < (type == 7 || type == 9 ? 3 : 2) || length8 < data_offset8 ||
      length8 * 8 + 8 > ring->available)
    return RING_BAD_LENGTH;
  return first >> 48 > 1 ? RING_BAD_FLAGS : RING_TOO_LARGE;
}

static COLD enum ring_status refuse(struct ring_consumer *ring, size_t start) {
  ring->available += distance(start, ring->next, ring->size);
  ring->next = start;
  return RING_BAD_TRAILER;
}

static COLD uint64_t copy_across_end(struct ring_consumer *ring, size_t start, size_t count,
                                     unsigned char *buffer) {
  size_t offset = start + 16;
  if (offset >= ring->size) offset -= ring->size;
  size_t until_end = ring->size - offset;
  if (count <= until_end) {
    copy(buffer, ring->data + offset, count);
  } else {
    copy(buffer, ring->data + offset, until_end);
    copy(buffer + until_end, ring->data, count - until_end);
  }
  offset += count;
  if (offset >= ring->size) offset -= ring->size;
  return load_qword(ring->data + offset);
}

HOT enum ring_status published(struct ring_consumer *ring, size_t *count) {
  size_t index = load_word(ring->control, PRODUCER_INDEX);
  if (!index_is_good(index, ring->size)) return RING_BAD_INDEX;
  *count = distance(ring->next, index, ring->size);
  return RING_OK;
}

HOT bool is_known(uint32_t head) {
  if (head == (2 << 16 | 6) || head == (2 << 16 | 11)) return true;
  const uint64_t known = 1 << 6 | 1 << 7 | 1 << 9 | 1 << 11, ranged = 1 << 7 | 1 << 9;
  uint64_t type = head & 0xffff;
  return type < 64 && (known >> type & 1) != 0 && head >> 16 >= 2 + (ranged >> type & 1);
}

HOT enum ring_status ring_receive(struct ring_consumer *ring, unsigned char *buffer,
                                  size_t capacity, struct ring_packet *packet) {
  if (ring->available == 0) {
    enum ring_status status = published(ring, &ring->available);
    if (status != RING_OK) return status;
    if (ring->available == 0) return RING_EMPTY;
  }
  if (ring->available < 24) return RING_TRUNCATED;
  size_t start = ring->next;
  uint64_t first = load_qword(ring->data + start);
  size_t data_offset = first >> 13 & 0x7fff8, length = first >> 29 & 0x7fff8;
  if (!is_known((uint32_t)first) || length < data_offset || length + 8 > ring->available ||
      length - 16 > capacity || first >> 49 != 0)
    return fault(ring, first);
  size_t body = length - 16, end = start + length, left = ring->available - length - 8;
  ring->available = left;
  uint64_t id, trailer;
  if (__builtin_expect(end < ring->size, 1)) {
    ring->next = end + 8 == ring->size ? 0 : end + 8;
    id = load_qword(ring->data + start + 8);
    copy(buffer, ring->data + start + 16, body);
    trailer = load_qword(ring->data + end);
  } else {
    ring->next = end + 8 - ring->size;
    id = load_qword(ring->data + (start + 8 == ring->size ? 0 : start + 8));
    trailer = copy_across_end(ring, start, body, buffer);
  }
  if (trailer >> 32 != start && !ring->ignore_trailer) return refuse(ring, start);
  *packet = (struct ring_packet){.type = (uint16_t)first,
                                 .completion_requested = first >> 48 != 0,
                                 .transaction_id = id,
                                 .ranges_size = data_offset - 16,
                                 .payload_size = length - data_offset};
  return RING_OK;
}

static COLD bool frees(const struct ring_consumer *ring, size_t pending, size_t before) {
  size_t producer = load_word(ring->control, PRODUCER_INDEX);
  if (!index_is_good(producer, ring->size)) return false;
  return ring->size - 8 - distance(before, producer, ring->size) < pending &&
         ring->size - 8 - distance(ring->next, producer, ring->size) >= pending;
}

HOT bool ring_release(struct ring_consumer *ring) {
  size_t before = ring->committed;
  if (ring->next == before) return false;
  ring->committed = ring->next;
  store_word(ring->control, CONSUMER_INDEX, ring->next);
  uint32_t pending = load_word(ring->control, PENDING_SEND_SIZE) & ~7u;
  return pending != 0 && frees(ring, pending, before);
}

// MARK: - What is measured

uint64_t twin_round(struct ring_producer *producer, struct ring_consumer *consumer,
                    const void *source, void *buffer, size_t capacity, size_t payload,
                    uint64_t packets, uint64_t batch) {
  uint64_t received = 0, signals = 0, id = 0;
  while (id < packets) {
    for (uint64_t index = 0; index < batch; index++)
      if (ring_write(producer, 6, id++, true, NULL, 0, source, payload) != RING_OK) return 0;
    signals += ring_publish(producer);
    for (uint64_t index = 0; index < batch; index++) {
      struct ring_packet packet;
      if (ring_receive(consumer, buffer, capacity, &packet) != RING_OK) return 0;
      escape((const unsigned char *)buffer + packet.ranges_size);
      received += packet.payload_size + (packet.transaction_id >> 63);
    }
    signals += ring_release(consumer);
  }
  return received + signals;
}

uint64_t bare_round(void *data, size_t size, size_t *position, const void *source, void *buffer,
                    size_t payload, uint64_t packets, uint64_t batch) {
  size_t stride = 16 + ((payload + 7) & ~7ul) + 8;
  unsigned char *bytes = data;
  uint64_t copied = 0;
  for (uint64_t done = 0; done < packets; done += batch) {
    size_t start = *position;
    if (start + stride * batch > size) start = 0;
    size_t at = start;
    for (uint64_t index = 0; index < batch; index++, at += stride) {
      memcpy(bytes + at + 16, source, payload);
      escape(bytes);
    }
    at = start;
    for (uint64_t index = 0; index < batch; index++, at += stride) {
      memcpy(buffer, bytes + at + 16, payload);
      escape(buffer);
      copied += payload;
    }
    *position = at;
  }
  return copied;
}

uint64_t twin_produce(struct ring_producer *producer, const void *source, size_t payload,
                      uint64_t packets, uint64_t batch) {
  uint64_t signals = 0, id = 0;
  while (id < packets) {
    for (uint64_t index = 0; index < batch && id < packets; index++) {
      enum ring_status status;
      while ((status = ring_write(producer, 6, id, false, NULL, 0, source, payload)) ==
             RING_FULL) {
        signals += ring_publish(producer);
        pause_cpu();
      }
      if (status != RING_OK) return 0;
      id++;
    }
    signals += ring_publish(producer);
  }
  return id + signals;
}

uint64_t twin_consume(struct ring_consumer *consumer, void *buffer, size_t capacity,
                      uint64_t packets) {
  uint64_t received = 0, bytes = 0;
  while (received < packets) {
    struct ring_packet packet;
    enum ring_status status = ring_receive(consumer, buffer, capacity, &packet);
    if (status == RING_EMPTY) {
      bytes += ring_release(consumer);
      pause_cpu();
      continue;
    }
    if (status != RING_OK) return 0;
    escape(buffer);
    bytes += packet.payload_size;
    received++;
    if ((received & 31) == 0) bytes += ring_release(consumer);
  }
  bytes += ring_release(consumer);
  return bytes;
}

static bool send_one(struct ring_producer *producer, const void *source, size_t payload,
                     uint64_t id) {
  if (ring_write(producer, 6, id, false, NULL, 0, source, payload) != RING_OK) return false;
  ring_publish(producer);
  return true;
}

static bool receive_one(struct ring_consumer *consumer, void *buffer, size_t capacity) {
  struct ring_packet packet;
  enum ring_status status;
  while ((status = ring_receive(consumer, buffer, capacity, &packet)) == RING_EMPTY) pause_cpu();
  escape(buffer);
  ring_release(consumer);
  return status == RING_OK;
}

void twin_ping(struct ring_producer *producer, struct ring_consumer *consumer, const void *source,
               void *buffer, size_t capacity, size_t payload, uint64_t rounds) {
  for (uint64_t round = 0; round < rounds; round++)
    if (!send_one(producer, source, payload, round) || !receive_one(consumer, buffer, capacity))
      return;
}

void twin_pong(struct ring_producer *producer, struct ring_consumer *consumer, const void *source,
               void *buffer, size_t capacity, size_t payload, uint64_t rounds) {
  for (uint64_t round = 0; round < rounds; round++)
    if (!receive_one(consumer, buffer, capacity) || !send_one(producer, source, payload, round))
      return;
}
