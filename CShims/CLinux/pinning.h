// SPDX-License-Identifier: Apache-2.0
//
// Memory whose pages neither move nor go while a process has them: io_uring pins the buffers that
// are registered with it for as long as they are (FOLL_LONGTERM), whatever the kernel would do with
// them otherwise. The rings themselves are never used.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/// Buffers that one ring can have (the kernel's limit).
#define VMBUS_PIN_SLOTS 16384

/// A ring whose `VMBUS_PIN_SLOTS` buffers are all empty, or -errno. Linux 5.19 or later.
static inline int vmbus_pin_ring(void) {
  struct io_uring_params parameters;
  memset(&parameters, 0, sizeof parameters);
  int ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
  if (ring < 0) return -errno;
  struct io_uring_rsrc_register slots;
  memset(&slots, 0, sizeof slots);
  slots.nr = VMBUS_PIN_SLOTS;
  slots.flags = IORING_RSRC_REGISTER_SPARSE;
  if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS2, &slots, sizeof slots) < 0) {
    int error = errno;
    close(ring);
    return -error;
  }
  return ring;
}

/// Makes `count` bytes from `start` the buffer in a slot, which takes the memory and pins it; with
/// NULL it lets go of what is pinned there. Returns 0 or -errno.
static inline int vmbus_pin(int ring, uint32_t slot, void *_Nullable start, size_t count) {
  struct iovec buffer = {.iov_base = start, .iov_len = start ? count : 0};
  struct io_uring_rsrc_update2 update;
  memset(&update, 0, sizeof update);
  update.offset = slot;
  update.data = (uint64_t)(uintptr_t)&buffer;
  update.nr = 1;
  long done =
      syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof update);
  return done < 0 ? -errno : 0;
}

/// Address space without memory, or NULL.
static inline void *_Nullable vmbus_reserve(size_t count) {
  void *start = mmap(
      NULL, count, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return start == MAP_FAILED ? NULL : start;
}

/// Makes private memory of a part of that address space. A child must not have it (its copy would be
/// read from pages that are gone), and neither must a core dump.
static inline int vmbus_back(void *_Nonnull start, size_t count, bool huge) {
  void *mapped = mmap(
      start, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
      -1, 0);
  if (mapped == MAP_FAILED) return -errno;
  madvise(start, count, MADV_DONTFORK);
  madvise(start, count, MADV_DONTDUMP);
  // A kernel without huge pages says EINVAL, and gives small ones.
  madvise(start, count, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return 0;
}

/// Gives the memory back to the system, and keeps the address space.
static inline void vmbus_unback(void *_Nonnull start, size_t count) {
  void *mapped = mmap(
      start, count, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  // Out of mappings: the pages go at least.
  if (mapped == MAP_FAILED) madvise(start, count, MADV_DONTNEED);
}

/// Gives single pages back to the system; they must not be touched again.
static inline void vmbus_drop(void *_Nonnull start, size_t count) {
  madvise(start, count, MADV_DONTNEED);
}

/// The system's last choice when it must end a process to get memory: not this one, please.
static inline int vmbus_protect_from_oom_killer(void) {
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int result = write(fd, "-1000", 5) < 0 ? -errno : 0;
  close(fd);
  return result;
}
