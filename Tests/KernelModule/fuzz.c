// SPDX-License-Identifier: Apache-2.0
//
// A fuzzer of the module's calls: two threads over one descriptor, whose calls have each field right, off by
// one, huge, misaligned, used before or random, and pointers of every kind. What a thread calls follows from
// the seed and from what the calls before gave.
#include "module.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>

enum { THREADS = 2, SLOTS = 64, MAPPINGS = 16, EPOCH = 2500, CALLS = 9, ERRORS = 134 };

static struct {
  int device, event, news;
  uint64_t count;
  pthread_barrier_t barrier;
  // What was given: offsets of regions and rings.
  uint64_t offsets[SLOTS];
  uint8_t *read_only, *border;
} shared;

struct thread {
  uint64_t state, calls[CALLS][ERRORS];
  int number;
  uint8_t *mappings[MAPPINGS];
  size_t lengths[MAPPINGS];
  pthread_t id;
};

static const char *const names[CALLS] = {"info",  "channel", "eventfd", "open", "close",
                                         "signal", "alloc",   "free",    "other"};

// splitmix64.
static uint64_t next(struct thread *thread) {
  uint64_t value = thread->state += 0x9e3779b97f4a7c15;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

static uint64_t below(struct thread *thread, uint64_t limit) { return next(thread) % limit; }

// A value like this one, mostly this one.
static uint64_t like(struct thread *thread, uint64_t value) {
  static const uint64_t others[] = {0, 1, 4095, 4096, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000,
                                    1ull << 30, 1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 4095};
  switch (below(thread, 48)) {
    case 0: return value + 1;
    case 1: return value - 1;
    case 2: return value + PAGE / 2;
    case 3: return others[below(thread, sizeof others / sizeof *others)];
    case 4: return next(thread);
    case 5: return value ^ 1ull << below(thread, 64);
    case 6: return __atomic_load_n(&shared.offsets[below(thread, SLOTS)], __ATOMIC_RELAXED);
    default: return value;
  }
}

// Where a structure lies for the call: where it is, mostly.
static void *place(struct thread *thread, void *call, size_t bytes) {
  switch (below(thread, 64)) {
    case 0: return NULL;
    case 1: return (void *)(uintptr_t)next(thread);
    case 2: return shared.read_only;
    case 3: return shared.border + PAGE - below(thread, bytes + 1);
    case 4: {
      // Within the device's own memory, behind what means something in a ring.
      uint8_t *mapping = thread->mappings[below(thread, MAPPINGS)];
      if (!mapping) return call;
      memcpy(mapping + PAGE / 2, call, bytes);
      return mapping + PAGE / 2;
    }
    default: return call;
  }
}

static void keep(struct thread *thread, uint64_t offset) {
  __atomic_store_n(&shared.offsets[below(thread, SLOTS)], offset, __ATOMIC_RELAXED);
}

static uint64_t one_of(struct thread *thread) {
  return __atomic_load_n(&shared.offsets[below(thread, SLOTS)], __ATOMIC_RELAXED);
}

static int call_info(struct thread *thread) {
  struct hv_uservsc_info call = {.size = (uint32_t)like(thread, sizeof call), .flags = (uint32_t)like(thread, 0)};
  return ioctl(shared.device, HV_USERVSC_INFO, place(thread, &call, sizeof call));
}

static int call_channel(struct thread *thread) {
  struct hv_uservsc_channel call = {.size = (uint32_t)like(thread, sizeof call),
                                    .flags = (uint32_t)like(thread, 0),
                                    .channel = (uint32_t)like(thread, below(thread, 3)),
                                    .reserved = (uint32_t)like(thread, 0)};
  return ioctl(shared.device, HV_USERVSC_CHANNEL, place(thread, &call, sizeof call));
}

static int call_eventfd(struct thread *thread) {
  const int files[] = {-1, shared.event, shared.news, shared.device};
  struct hv_uservsc_eventfd call = {.size = (uint32_t)like(thread, sizeof call),
                                    .flags = (uint32_t)like(thread, 0),
                                    .eventfd = (int32_t)like(thread, (uint64_t)files[below(thread, 4)]),
                                    .reserved = (uint32_t)like(thread, 0)};
  return ioctl(shared.device, HV_USERVSC_DEVICE_EVENTFD, place(thread, &call, sizeof call));
}

static int call_open(struct thread *thread) {
  struct hv_uservsc_open call = {.size = (uint32_t)like(thread, sizeof call),
                                 .flags = (uint32_t)like(thread, 0),
                                 .channel = (uint32_t)like(thread, below(thread, 2)),
                                 .tx_bytes = (uint32_t)like(thread, PAGE * (2 + below(thread, 15))),
                                 .rx_bytes = (uint32_t)like(thread, PAGE * (2 + below(thread, 15))),
                                 .eventfd = (int32_t)like(thread, (uint64_t)shared.event),
                                 .ring_visibility = (uint32_t)like(thread, 0)};
  int result = ioctl(shared.device, HV_USERVSC_OPEN, place(thread, &call, sizeof call));
  if (result == 0) keep(thread, call.offset);
  return result;
}

static int call_close(struct thread *thread) {
  struct hv_uservsc_close call = {.size = (uint32_t)like(thread, sizeof call),
                                  .flags = (uint32_t)like(thread, 0),
                                  .channel = (uint32_t)like(thread, below(thread, 4) != 0),
                                  .reserved = (uint32_t)like(thread, 0)};
  return ioctl(shared.device, HV_USERVSC_CLOSE, place(thread, &call, sizeof call));
}

static int call_signal(struct thread *thread) {
  return ioctl(shared.device, HV_USERVSC_SIGNAL, (unsigned long)like(thread, below(thread, 2)));
}

static int call_alloc(struct thread *thread) {
  uint64_t numbers[64], pages = 1 + below(thread, below(thread, 8) ? 16 : 64);
  bool told = below(thread, 2);
  struct hv_uservsc_dma call = {.size = (uint32_t)like(thread, sizeof call),
                                .flags = (uint32_t)like(thread, below(thread, 4) == 0),
                                .bytes = like(thread, pages * PAGE),
                                .page_count = (uint32_t)like(thread, told ? pages : 0),
                                .visibility = (uint32_t)like(thread, 0),
                                .reserved = (uint32_t)like(thread, 0)};
  // More numbers than there is room for here: what is asked for then lies in memory that is not there.
  void *to = call.page_count > 64 ? shared.border + PAGE : place(thread, numbers, sizeof numbers);
  call.pages = told ? (uintptr_t)to : like(thread, 0);
  int result = ioctl(shared.device, HV_USERVSC_DMA_ALLOC, place(thread, &call, sizeof call));
  if (result == 0) keep(thread, call.offset);
  return result;
}

static int call_free(struct thread *thread) {
  struct hv_uservsc_dma_free call = {.size = (uint32_t)like(thread, sizeof call),
                                     .flags = (uint32_t)like(thread, 0),
                                     .offset = like(thread, one_of(thread))};
  return ioctl(shared.device, HV_USERVSC_DMA_FREE, place(thread, &call, sizeof call));
}

static int call_other(struct thread *thread) {
  uint8_t bytes[256];
  unsigned long command = like(thread, HV_USERVSC_INFO) ^ 1ul << below(thread, 32);
  memset(bytes, (int)next(thread), sizeof bytes);
  return ioctl(shared.device, command, place(thread, bytes, sizeof bytes));
}

static void unmap(struct thread *thread, unsigned int slot) {
  if (thread->mappings[slot]) munmap(thread->mappings[slot], thread->lengths[slot]);
  thread->mappings[slot] = NULL;
}

static void map_or_touch(struct thread *thread) {
  unsigned int slot = (unsigned int)below(thread, MAPPINGS);
  if (below(thread, 2) || !thread->mappings[slot]) {
    size_t length = PAGE * (1 + below(thread, 8));
    off_t offset = (off_t)like(thread, one_of(thread) + (below(thread, 4) ? 0 : PAGE * below(thread, 8)));
    int rights = below(thread, 4) ? PROT_READ | PROT_WRITE : (int)below(thread, 8);
    void *memory = mmap(NULL, length, rights, below(thread, 16) ? MAP_SHARED : MAP_PRIVATE, shared.device, offset);
    if (memory == MAP_FAILED) return;
    // Only what can be touched is kept.
    if (rights != (PROT_READ | PROT_WRITE)) {
      munmap(memory, length);
      return;
    }
    unmap(thread, slot);
    thread->mappings[slot] = memory;
    thread->lengths[slot] = length;
  } else {
    // Control pages of rings as well: their second half means nothing to anybody.
    volatile uint8_t *memory = thread->mappings[slot];
    size_t at = below(thread, thread->lengths[slot]);
    (void)memory[at];
    memory[at | 2048] = (uint8_t)next(thread);
  }
}

// A device with a subchannel to be found.
static void begin_epoch(struct thread *thread) {
  struct channel channel = {.event = shared.event};
  if (shared.device >= 0) close(shared.device);
  CHECK((shared.device = device_open()) >= 0);
  struct hv_uservsc_info info = device_info(shared.device);
  CHECK(info.device_bytes_used == 0 && info.leaked_pages == 0);
  memset(shared.offsets, 0, sizeof shared.offsets);
  // Now and then without.
  if (below(thread, 8)) {
    channel = channel_open(shared.device, 0);
    close(shared.event);
    shared.event = channel.event;
    CHECK(storage_start(&channel) == 0);
    CHECK(storage_send(&channel, 13, 13, 1) == 0);
    keep(thread, channel.offset);
    munmap(channel.ring, channel.bytes);
  }
}

static void *run(void *argument) {
  static int (*const calls[CALLS])(struct thread *) = {call_info,   call_channel, call_eventfd,
                                                       call_open,   call_close,   call_signal,
                                                       call_alloc,  call_free,    call_other};
  // Of 64: opening and closing take the most time.
  static const uint8_t often[CALLS] = {4, 6, 5, 3, 2, 14, 13, 12, 5};
  struct thread *thread = argument;
  for (uint64_t index = 0; index < shared.count; index++) {
    if (index % EPOCH == 0) {
      for (unsigned int slot = 0; slot < MAPPINGS; slot++) unmap(thread, slot);
      pthread_barrier_wait(&shared.barrier);
      if (thread->number == 0) begin_epoch(thread);
      pthread_barrier_wait(&shared.barrier);
    }
    uint64_t choice = below(thread, 64);
    unsigned int kind = 0;
    while (choice >= often[kind]) choice -= often[kind++];
    errno = 0;
    int result = calls[kind](thread);
    int error = result < 0 ? errno : 0;
    CHECK(result == 0 || result == -1);
    CHECK(error == 0 || error == EINVAL || error == EFAULT || error == ENOTTY || error == EBUSY ||
          error == ENOENT || error == ENOTCONN || error == ENOMEM || error == E2BIG || error == EPERM ||
          error == EBADF);
    thread->calls[kind][error]++;
    if (below(thread, 4) == 0) map_or_touch(thread);
  }
  for (unsigned int slot = 0; slot < MAPPINGS; slot++) unmap(thread, slot);
  return NULL;
}

int fuzz(uint64_t seed, uint64_t count) {
  static struct thread threads[THREADS];
  shared.device = -1;
  shared.event = eventfd(0, EFD_NONBLOCK);
  shared.news = eventfd(0, EFD_NONBLOCK);
  shared.count = count / THREADS;
  shared.read_only = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  shared.border = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(shared.read_only != MAP_FAILED && shared.border != MAP_FAILED);
  CHECK(munmap(shared.border + PAGE, PAGE) == 0);
  CHECK(pthread_barrier_init(&shared.barrier, NULL, THREADS) == 0);
  for (int index = 0; index < THREADS; index++) {
    threads[index] = (struct thread){.state = seed * THREADS + (uint64_t)index, .number = index};
    CHECK(pthread_create(&threads[index].id, NULL, run, &threads[index]) == 0);
  }
  for (int index = 0; index < THREADS; index++) CHECK(pthread_join(threads[index].id, NULL) == 0);
  close(shared.device);
  CHECK((shared.device = device_open()) >= 0);
  struct hv_uservsc_info info = device_info(shared.device);
  CHECK(info.device_bytes_used == 0 && info.leaked_pages == 0);
  uint64_t total = 0;
  for (int kind = 0; kind < CALLS; kind++) {
    printf("%-8s", names[kind]);
    for (int error = 0; error < ERRORS; error++) {
      uint64_t calls = threads[0].calls[kind][error] + threads[1].calls[kind][error];
      total += calls;
      if (calls) printf(" %s %llu", error ? strerrorname_np(error) : "ok", (unsigned long long)calls);
    }
    printf("\n");
  }
  printf("%llu calls, seed %llu\n", (unsigned long long)total, (unsigned long long)seed);
  return 0;
}
