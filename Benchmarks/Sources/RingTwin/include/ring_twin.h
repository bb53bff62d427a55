// SPDX-License-Identifier: Apache-2.0
//
// A twin of the Swift ring in C: the same checks at every load and for every packet, the same
// copies into private memory, the same publishing. It exists to be measured against.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ring_status {
  RING_OK = 0,
  RING_EMPTY,
  RING_FULL,
  RING_TOO_LARGE,
  RING_UNALIGNED_RANGES,
  RING_BAD_SIZE,
  RING_BAD_INDEX,
  RING_INDEX_MOVED_BACK,
  RING_TRUNCATED,
  RING_BAD_LENGTH,
  RING_BAD_TYPE,
  RING_BAD_FLAGS,
  RING_BAD_TRAILER,
};

struct ring_producer {
  unsigned char *control;
  unsigned char *data;
  size_t size;
  size_t max_packet;
  size_t next;
  size_t committed;
  size_t peer;
  size_t room;
};

struct ring_consumer {
  unsigned char *control;
  unsigned char *data;
  size_t size;
  bool ignore_trailer;
  size_t next;
  size_t committed;
  size_t available;
};

struct ring_packet {
  uint16_t type;
  bool completion_requested;
  uint64_t transaction_id;
  size_t ranges_size;
  size_t payload_size;
};

enum ring_status ring_producer_init(struct ring_producer *ring, void *control, void *data,
                                    size_t size);
enum ring_status ring_consumer_init(struct ring_consumer *ring, void *control, void *data,
                                    size_t size);

// What is measured. Each function sends and receives `packets` packets of `payload` bytes in
// batches of `batch`, all in the calling thread, and returns the number of bytes received.
uint64_t twin_round(struct ring_producer *producer, struct ring_consumer *consumer,
                    const void *source, void *buffer, size_t capacity, size_t payload,
                    uint64_t packets, uint64_t batch);

// The bare copies of the same bytes, into the same places of the same memory and out again.
// `*position` is where the next packet would lie.
uint64_t bare_round(void *data, size_t size, size_t *position, const void *source, void *buffer,
                    size_t payload, uint64_t packets, uint64_t batch);

// One of two threads. The producer sends `packets` packets; the consumer receives as many.
uint64_t twin_produce(struct ring_producer *producer, const void *source, size_t payload,
                      uint64_t packets, uint64_t batch);
uint64_t twin_consume(struct ring_consumer *consumer, void *buffer, size_t capacity,
                      uint64_t packets);

// Ping-pong of packets over two rings, and of a number over two bare cache lines.
void twin_ping(struct ring_producer *producer, struct ring_consumer *consumer, const void *source,
               void *buffer, size_t capacity, size_t payload, uint64_t rounds);
void twin_pong(struct ring_producer *producer, struct ring_consumer *consumer, const void *source,
               void *buffer, size_t capacity, size_t payload, uint64_t rounds);
void line_ping(void *lines, uint64_t rounds);
void line_pong(void *lines, uint64_t rounds);

// Pins the calling thread to the cpu-th of the processors that this process may use. Returns
// whether that was possible.
bool pin_to_cpu(int cpu);
int usable_cpus(void);

// The profiler writes its counts down when this is called; it does nothing.
void mark(void);

// Tells the processor that a loop waits for the other thread.
static inline void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

// Tells the compiler that somebody reads these bytes, and all that others can reach, so that
// copies into them stay.
static inline void escape(const void *bytes) { __asm__ volatile("" : : "r"(bytes) : "memory"); }
