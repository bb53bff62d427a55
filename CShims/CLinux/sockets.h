// SPDX-License-Identifier: Apache-2.0
//
// Unix sockets that keep message boundaries and pass descriptors. Failing calls return -errno.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "linux.h"

/// Removes the socket of that type at a path if nobody listens there any more. 0 when the path is free
/// now, -EADDRINUSE when somebody listens, -EEXIST when it is something else, or another -errno.
static inline int vmbus_clear_stale_socket(const char *_Nonnull path, int type) {
  struct stat status;
  if (lstat(path, &status) != 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(status.st_mode)) return -EEXIST;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int probe = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  if (probe < 0) return -errno;
  int connected = connect(probe, (struct sockaddr *)&address, sizeof address);
  int error = errno;
  close(probe);
  if (connected == 0 || error != ECONNREFUSED) return -EADDRINUSE;
  return unlink(path) == 0 ? 0 : -errno;
}

static inline int vmbus_listen(const char *_Nonnull path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  // What a killed host left behind is replaced, a living one is not.
  int error = vmbus_clear_stale_socket(path, SOCK_SEQPACKET);
  if (error != 0) {
    close(fd);
    return error;
  }
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 64) != 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

/// The connection does not block: a guest that takes no answers must not stop its host.
static inline int vmbus_accept(int listener) {
  return vmbus_result(syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static inline int vmbus_connect(const char *_Nonnull path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

/// Two ends of a connection, not blocking at the first. Returns 0 or -errno.
static inline int vmbus_socket_pair(int *_Nonnull first, int *_Nonnull second) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return -errno;
  int flags = fcntl(fds[0], F_GETFL);
  if (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) != 0) {
    int error = errno;
    close(fds[0]);
    close(fds[1]);
    return -error;
  }
  *first = fds[0];
  *second = fds[1];
  return 0;
}

/// Sends one datagram to whoever has a Unix socket: at a path, or of the abstract kind, whose name begins
/// with an '@' here and with a zero for the kernel. Returns 0 or -errno.
static inline int vmbus_send_datagram(
    const char *_Nonnull name, const void *_Nonnull bytes, size_t count) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t length = strlen(name);
  if (length < 2 || (name[0] != '/' && name[0] != '@')) return -EINVAL;
  // All of it may be used: the kernel wants no zero at the end, and of an abstract name it would be a part.
  if (length > sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, name, length);
  if (name[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  ssize_t sent;
  do {
    sent = sendto(
        fd, bytes, count, MSG_NOSIGNAL, (struct sockaddr *)&address,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
  } while (sent < 0 && errno == EINTR);
  int error = sent < 0 ? -errno : 0;
  close(fd);
  return error;
}

// Two eventfds for each of 64 processors, and files.
#define VMBUS_MAX_FDS 160

/// Sends one datagram with descriptors. Returns 0 or -errno.
static inline int vmbus_send(
    int fd, const void *_Nonnull bytes, size_t count, const int *_Nullable fds, int fd_count) {
  if (fd_count < 0 || fd_count > VMBUS_MAX_FDS) return -EINVAL;
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int) * VMBUS_MAX_FDS)];
  } control;
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd_count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = control.room;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
    memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)fd_count);
  }
  ssize_t sent;
  do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

/// Receives one datagram: its length, 0 at the end, -errno; -EMSGSIZE when it or its descriptors
/// did not fit. Every descriptor in `fds` belongs to the caller.
static inline int64_t vmbus_receive(
    int fd, void *_Nonnull bytes, size_t capacity, int *_Nonnull fds, int *_Nonnull fd_count) {
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(sizeof(int) * VMBUS_MAX_FDS)];
  } control;
  struct iovec part = {.iov_base = bytes, .iov_len = capacity};
  struct msghdr message = {
      .msg_iov = &part,
      .msg_iovlen = 1,
      .msg_control = control.room,
      .msg_controllen = sizeof control.room,
  };
  *fd_count = 0;
  ssize_t received;
  do received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) return -errno;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    for (int i = 0; i < count; i++) {
      int passed;
      memcpy(&passed, CMSG_DATA(header) + sizeof(int) * (size_t)i, sizeof passed);
      if (*fd_count < VMBUS_MAX_FDS) fds[(*fd_count)++] = passed;
      else close(passed);
    }
  }
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    for (int i = 0; i < *fd_count; i++) close(fds[i]);
    *fd_count = 0;
    return -EMSGSIZE;
  }
  return received;
}

#define VMBUS_CPU_WORDS 64

/// Lets receives on a socket fail with EAGAIN after so many seconds.
static inline int vmbus_set_receive_timeout(int fd, int seconds) {
  struct timeval time = {.tv_sec = seconds};
  return vmbus_result(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
}

/// Whether a descriptor has input, or an end, within so many nanoseconds.
static inline bool vmbus_wait_for_input(int fd, int64_t nanoseconds) {
  struct pollfd wanted = {.fd = fd, .events = POLLIN};
  struct timespec time = {
      .tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
  return syscall(SYS_ppoll, &wanted, 1, &time, NULL, 0) > 0;
}
