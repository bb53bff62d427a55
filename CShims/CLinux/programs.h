// SPDX-License-Identifier: Apache-2.0
//
// What the programs need beside the drivers: child processes, and sockets that were left behind.
#pragma once

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char *_Nullable *_Null_unspecified environ;

/// Starts another program (looked up in PATH) with the signals of a new one. Returns its process
/// id or -errno.
static inline int vmbus_spawn(char *_Nullable *_Nonnull arguments) {
  posix_spawnattr_t attributes;
  int error = posix_spawnattr_init(&attributes);
  if (error != 0) return -error;
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  sigaddset(&defaults, SIGINT);
  sigaddset(&defaults, SIGTERM);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  pid_t child = 0;
  error = posix_spawnp(&child, arguments[0], NULL, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  return error != 0 ? -error : (int)child;
}

/// Waits for a child's end: its exit code, or 128 and the signal that ended it; -errno.
static inline int vmbus_wait_for_child(int child) {
  int status = 0;
  pid_t ended;
  do ended = waitpid(child, &status, 0);
  while (ended < 0 && errno == EINTR);
  if (ended < 0) return -errno;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Asks a child to end.
static inline void vmbus_terminate(int child) {
  kill(child, SIGTERM);
}

/// Removes the stream socket at a path if nobody listens there any more. 0 when the path is free
/// now, -EADDRINUSE when somebody listens, -EEXIST when it is something else, or another -errno.
static inline int vmbus_clear_stale_socket(const char *_Nonnull path) {
  struct stat status;
  if (lstat(path, &status) != 0) return errno == ENOENT ? 0 : -errno;
  if (!S_ISSOCK(status.st_mode)) return -EEXIST;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return -errno;
  int connected = connect(probe, (struct sockaddr *)&address, sizeof address);
  int error = errno;
  close(probe);
  if (connected == 0 || error != ECONNREFUSED) return -EADDRINUSE;
  return unlink(path) == 0 ? 0 : -errno;
}
