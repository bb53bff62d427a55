// SPDX-License-Identifier: Apache-2.0
//
// Small files, directories and links, as sysfs has them. Failing calls return -errno.
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/// Why the last call of a library failed that tells it in `errno`.
static inline int vmbus_last_error(void) {
  return errno;
}

/// Reads a file from its start; returns the count, which is `capacity` when there may be more.
static inline int vmbus_read_file(
    const char *_Nonnull path, void *_Nonnull bytes, size_t capacity) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  size_t count = 0;
  while (count < capacity) {
    ssize_t part = read(fd, (char *)bytes + count, capacity - count);
    if (part < 0 && errno == EINTR) continue;
    if (part < 0) {
      int error = errno;
      close(fd);
      return -error;
    }
    if (part == 0) break;
    count += (size_t)part;
  }
  close(fd);
  return (int)count;
}

/// Writes a text to a file that is there, in one call, as sysfs wants it. 0 or -errno.
static inline int vmbus_write_file(
    const char *_Nonnull path, const void *_Nonnull bytes, size_t count) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  ssize_t done = write(fd, bytes, count);
  int error = done < 0 ? errno : 0;
  close(fd);
  if (error != 0) return -error;
  return (size_t)done == count ? 0 : -EIO;
}

/// Whether nobody has a block device for himself, as a mounted file system, a swap area or a device
/// mapper has: 0, -EBUSY, or another -errno.
static inline int vmbus_disk_is_free(const char *_Nonnull path) {
  int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -errno;
  close(fd);
  return 0;
}

/// What a link points to; returns the count.
static inline int vmbus_read_link(
    const char *_Nonnull path, void *_Nonnull bytes, size_t capacity) {
  ssize_t count = readlink(path, (char *)bytes, capacity);
  return count < 0 ? -errno : (int)count;
}

/// Calls `body` with the name of each entry but `.` and `..`. 0 or -errno.
static inline int vmbus_list_directory(
    const char *_Nonnull path, void *_Nullable context,
    void (*_Nonnull body)(void *_Nullable context, const char *_Nonnull name)) {
  DIR *directory = opendir(path);
  if (directory == NULL) return -errno;
  int error = 0;
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (entry == NULL) {
      error = errno;
      break;
    }
    const char *name = entry->d_name;
    if (name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0))) continue;
    body(context, name);
  }
  closedir(directory);
  return -error;
}

/// Who may do what with a file, and which one it is.
struct vmbus_file_status {
  uint32_t mode, owner, group, device_major, device_minor;
  /// The device that the file is, for a device file.
  uint32_t number_major, number_minor;
  uint64_t inode, size;
};

static inline int vmbus_file_status(
    const char *_Nonnull path, struct vmbus_file_status *_Nonnull result) {
  struct stat status;
  if (stat(path, &status) != 0) return -errno;
  result->mode = status.st_mode;
  result->owner = status.st_uid;
  result->group = status.st_gid;
  result->device_major = major(status.st_dev);
  result->device_minor = minor(status.st_dev);
  result->number_major = major(status.st_rdev);
  result->number_minor = minor(status.st_rdev);
  result->inode = status.st_ino;
  result->size = (uint64_t)status.st_size;
  return 0;
}

/// Whether this process may read and write a file: 0 or -errno.
static inline int vmbus_may_read_and_write(const char *_Nonnull path) {
  // access(2) asks for the real user, and leaves out ambient capabilities, as services have them: whom it refuses
  // has the rights of an open looked at.
  if (access(path, R_OK | W_OK) == 0) return 0;
  if (errno != EACCES) return -errno;
  return faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) == 0 ? 0 : -errno;
}
