// SPDX-License-Identifier: Apache-2.0
//
// Calls on device files of uio_hv_generic, and on the memory that is given to their devices.
#pragma once

#include <sys/file.h>
#include <sys/resource.h>

#include "linux.h"

#ifndef MFD_HUGETLB
#define MFD_HUGETLB 0x0004U
#endif
#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

/// Opens a file for reading and writing, without blocking, at `lowest` or above. Returns -errno when
/// that fails: -EMFILE, before anything is opened, when the process may have no such descriptor.
static inline int vmbus_open_device(const char *_Nonnull path, int lowest) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur <= (rlim_t)lowest) return -EMFILE;
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  if (fd >= lowest) return fd;
  int moved = vmbus_result(fcntl(fd, F_DUPFD_CLOEXEC, lowest));
  close(fd);
  return moved;
}

/// An exclusive lock that goes with the descriptor. -EWOULDBLOCK when somebody else has it.
static inline int vmbus_lock_file(int fd) {
  return vmbus_result(flock(fd, LOCK_EX | LOCK_NB));
}

/// The number of interrupts so far, so that poll waits for the next one: 1 when there were some, 0
/// when none came since the last call, -errno when the device is gone (EIO).
static inline int vmbus_uio_take_interrupts(int fd) {
  int32_t total;
  ssize_t count = read(fd, &total, sizeof total);
  if (count == sizeof total) return 1;
  return count >= 0 || errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

/// Unmasks all channels of a device and signals those that no monitor serves.
static inline void vmbus_uio_signal(int fd) {
  int32_t on = 1;
  // It fails when the device is gone, which whoever waits for its interrupts learns.
  ssize_t ignored = write(fd, &on, sizeof on);
  (void)ignored;
}

/// A file of huge pages (2 MiB each). Returns a descriptor below `limit`, or -errno.
static inline int vmbus_huge_page_file(const char *_Nonnull name, uint64_t size, int limit) {
  int fd = (int)syscall(SYS_memfd_create, name, MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
  if (fd < 0) return -errno;
  if (fd >= limit) {
    close(fd);
    return -EMFILE;
  }
  // fallocate takes the pages at once: a page that is lacking is an error here, not a SIGBUS later.
  if (ftruncate(fd, (off_t)size) != 0 || syscall(SYS_fallocate, fd, 0, (off_t)0, (off_t)size) != 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

static inline int vmbus_open_pagemap(void) {
  return vmbus_result(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
}

/// Reads the words of /proc/self/pagemap for `count` pages of the system's size from `start` on.
/// Returns 0 or -errno.
static inline int vmbus_read_pagemap(
    int fd, const void *_Nonnull start, uint64_t *_Nonnull words, size_t count) {
  off_t offset = (off_t)((uintptr_t)start / (uintptr_t)getpagesize() * sizeof *words);
  ssize_t got = pread(fd, words, count * sizeof *words, offset);
  if (got < 0) return -errno;
  return (size_t)got == count * sizeof *words ? 0 : -EIO;
}
