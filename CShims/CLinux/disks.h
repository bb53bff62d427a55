// SPDX-License-Identifier: Apache-2.0
//
// Files with holes: calls and numbers that need _GNU_SOURCE.
#pragma once

#include <errno.h>
#include <linux/falloc.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/// Gives a range's room back; it reads as zeros from then on. 0, or -1 and errno.
static inline int vmbus_punch_hole(int fd, int64_t offset, int64_t count) {
  return (int)syscall(
      SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count);
}

/// The next byte at or after `offset` that takes room (SEEK_DATA), or -1 and errno: ENXIO when
/// there is none.
static inline int64_t vmbus_seek_data(int fd, int64_t offset) { return lseek(fd, offset, 3); }

/// The next byte at or after `offset` that takes none (SEEK_HOLE), the end of the file at last.
static inline int64_t vmbus_seek_hole(int fd, int64_t offset) { return lseek(fd, offset, 4); }
