// SPDX-License-Identifier: Apache-2.0
//
// What Swift cannot say by itself: macros of the C library, variadic and feature-gated calls, and
// two instructions. Header-only, so that each call is inlined or goes straight to the C library.
#pragma once

// No _GNU_SOURCE here: it changes the shape of system structures, and other modules in the same
// program see them without it. What it would declare is called by number.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 0x0001U
#endif
#ifndef MFD_ALLOW_SEALING
#define MFD_ALLOW_SEALING 0x0002U
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#endif
#ifndef F_SEAL_SEAL
#define F_SEAL_SEAL 0x0001
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#endif

// Failing calls return -errno, so that errno is read before anything can overwrite it.
static inline int vmbus_result(long result) {
  return result < 0 ? -errno : (int)result;
}

/// A memory file of `size` bytes that can neither shrink nor grow: a peer that maps it can't be
/// killed with SIGBUS by the one who made it.
static inline int vmbus_memory_file(const char *_Nonnull name, uint64_t size) {
  int fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  if (ftruncate(fd, (off_t)size) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

/// 1 when the file can't shrink, 0 when it can or is no memory file.
static inline int vmbus_is_sealed(int fd) {
  int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

/// The size of a file in bytes, or -errno.
static inline int64_t vmbus_file_size(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return -(int64_t)errno;
  return status.st_size;
}

/// Maps shared memory at `place` (exactly there), or anywhere when it is NULL; reserves address
/// space when `fd` is -1. NULL with `error` set when it fails.
static inline void *_Nullable vmbus_map(
    void *_Nullable place, size_t count, int fd, uint64_t offset, int *_Nonnull error) {
  int protection = fd < 0 ? PROT_NONE : PROT_READ | PROT_WRITE;
  int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void *mapped = mmap(place, count, protection, flags | (place ? MAP_FIXED : 0), fd, (off_t)offset);
  *error = mapped == MAP_FAILED ? errno : 0;
  return mapped == MAP_FAILED ? NULL : mapped;
}

static inline int vmbus_duplicate(int fd) {
  return vmbus_result(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/// Closes a file, and keeps its number for one that does nothing: whoever has the number still reaches
/// nothing else by it. 0 or -errno, and then the file is open still.
static inline int vmbus_hollow(int fd) {
  int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nothing < 0) return -errno;
  int result = vmbus_result(syscall(SYS_dup3, nothing, fd, O_CLOEXEC));
  close(nothing);
  return result < 0 ? result : 0;
}

static inline int vmbus_event_fd(void) {
  return vmbus_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

/// How many descriptors this process may have, after it was raised as far as the process may do so
/// itself. Descriptors up there do not fit select(2), which nothing here uses.
static inline uint64_t vmbus_descriptor_limit(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return 1024;
  if (files.rlim_cur < files.rlim_max) {
    rlim_t before = files.rlim_cur;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) files.rlim_cur = before;
  }
  // Above what any use here needs, and RLIM_INFINITY is.
  return files.rlim_cur < 1048576 ? files.rlim_cur : 1048576;
}

static inline void vmbus_event_signal(int fd) {
  uint64_t one = 1;
  // EAGAIN means that the counter is full: the reader has been told often enough.
  ssize_t ignored = write(fd, &one, sizeof one);
  (void)ignored;
}

static inline void vmbus_event_signal_if_ready(int fd) {
  struct pollfd ready = {.fd = fd, .events = POLLOUT};
  if (poll(&ready, 1, 0) > 0 && (ready.revents & POLLOUT) != 0) vmbus_event_signal(fd);
}

/// Whether a descriptor is an eventfd; it does not block from here on (as long as nobody who has it
/// too says otherwise).
static inline bool vmbus_adopt_event(int fd) {
  char path[64], target[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t count = readlink(path, target, sizeof target - 1);
  if (count < 0) return false;
  target[count] = 0;
  if (strcmp(target, "anon_inode:[eventfd]") != 0) return false;
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

/// The count since the last call, 0 when there was none. It never blocks: whoever has the
/// descriptor too may have made it blocking, so the call says that it must not (where the kernel
/// knows how).
static inline uint64_t vmbus_event_drain(int fd) {
  const int no_wait = 8;  // RWF_NOWAIT
  uint64_t count = 0;
  struct iovec part = {.iov_base = &count, .iov_len = sizeof count};
  long result = syscall(SYS_preadv2, fd, &part, 1, -1L, -1L, no_wait);
  if (result < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
    result = read(fd, &count, sizeof count);
  }
  return result == sizeof count ? count : 0;
}

static inline int vmbus_epoll_create(void) {
  return vmbus_result(epoll_create1(EPOLL_CLOEXEC));
}

static inline int vmbus_epoll_add(int epoll, int fd, uint64_t token, bool hang_up_only) {
  struct epoll_event event = {
      .events = hang_up_only ? EPOLLRDHUP : EPOLLIN, .data = {.u64 = token}};
  return vmbus_result(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static inline int vmbus_epoll_remove(int epoll, int fd) {
  return vmbus_result(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
}

/// Waits until one of the descriptors is ready; fills `tokens`. EINTR is not an error: 0.
static inline int vmbus_epoll_wait(
    int epoll, uint64_t *_Nonnull tokens, int capacity, int milliseconds) {
  struct epoll_event events[64];
  if (capacity > 64) capacity = 64;
  int count = epoll_wait(epoll, events, capacity, milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -errno;
  for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
  return count;
}

static inline void vmbus_sleep_milliseconds(unsigned int milliseconds) {
  struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
  nanosleep(&time, NULL);
}

/// Zeroes shared pages and gives them back to the system.
static inline void vmbus_zero_shared(void *_Nonnull start, size_t count) {
  if (madvise(start, count, MADV_REMOVE) != 0) memset(start, 0, count);
}

#define VMBUS_CPU_WORDS 64

/// Binds the calling thread to one processor. Returns 0 or -errno.
static inline int vmbus_pin_thread(int cpu) {
  unsigned long set[VMBUS_CPU_WORDS] = {0};
  const int bits = 8 * (int)sizeof set[0];
  if (cpu < 0 || cpu >= VMBUS_CPU_WORDS * bits) return -EINVAL;
  set[cpu / bits] = 1ul << (cpu % bits);
  return syscall(SYS_sched_setaffinity, 0, sizeof set, set) < 0 ? -errno : 0;
}

/// Whether the calling thread may run on that processor.
static inline bool vmbus_may_use_cpu(int cpu) {
  unsigned long set[VMBUS_CPU_WORDS] = {0};
  const int bits = 8 * (int)sizeof set[0];
  if (cpu < 0 || cpu >= VMBUS_CPU_WORDS * bits) return false;
  if (syscall(SYS_sched_getaffinity, 0, sizeof set, set) < 0) return false;
  return (set[cpu / bits] >> (cpu % bits) & 1) != 0;
}

static inline void vmbus_name_thread(const char *_Nonnull name) {
  prctl(PR_SET_NAME, name);
}

static inline uint64_t vmbus_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// The same clock at its last tick.
static inline uint64_t vmbus_coarse_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// Nanoseconds since 1970.
static inline uint64_t vmbus_wall_clock(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/// Ends the process as kill -9 does.
_Noreturn static inline void vmbus_crash(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/// A counter that runs at a constant rate and costs a few cycles to read.
static inline uint64_t vmbus_cycles(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t count;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(count));
  return count;
#else
  return vmbus_now();
#endif
}

/// Tells the processor that this thread spins.
static inline void vmbus_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
