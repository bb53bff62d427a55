// SPDX-License-Identifier: Apache-2.0
//
// What the programs need beside the drivers: signals, exit codes, other programs.
#pragma once

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

extern char *_Nullable *_Null_unspecified environ;

/// Has each line that is printed be written at once, for whoever follows a service or a file. Before anything is
/// printed.
static inline void vmbus_print_by_lines(void) { setvbuf(stdout, NULL, _IOLBF, 0); }

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

/// Becomes another user for good, with no group but its own: root loses all of its ids. Returns 0 or
/// -errno.
static inline int vmbus_become(uint32_t user) {
  if (setgroups(0, NULL) != 0 || setgid(user) != 0 || setuid(user) != 0) return -errno;
  return 0;
}

/// Nobody else may look into this process: no core file, no /proc/PID/mem, no ptrace.
static inline void vmbus_hide_process(void) {
  prctl(PR_SET_DUMPABLE, 0);
}

/// Asks a child to end.
static inline void vmbus_terminate(int child) {
  kill(child, SIGTERM);
}

/// The eventfd that the handler below writes to. Each object file has its own copy of what lies in
/// an inline function: only one Swift file may call these.
static inline int *_Nonnull vmbus_termination_fd(void) {
  static int fd = -1;
  return &fd;
}

static inline void vmbus_termination_handler(int number) {
  int error = errno;
  uint64_t value = (uint64_t)number;
  ssize_t ignored = write(*vmbus_termination_fd(), &value, sizeof value);
  (void)ignored;
  errno = error;
}

/// From now on SIGINT and SIGTERM go to vmbus_wait_for_termination. Blocking them would not do:
/// libdispatch unblocks all signals on the main thread. And writing to a closed pipe is an error
/// of that write, not the end of the process.
static inline int vmbus_catch_termination(void) {
  int fd = eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return -errno;
  *vmbus_termination_fd() = fd;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = vmbus_termination_handler;
  // The second one ends the process as it always did: an end that hangs can be ended.
  action.sa_flags = SA_RESTART | (int)SA_RESETHAND;
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
  return 0;
}

/// Waits for one of them; the sum of the numbers when several came.
static inline int vmbus_wait_for_termination(void) {
  uint64_t value = 0;
  while (read(*vmbus_termination_fd(), &value, sizeof value) < 0 && errno == EINTR) {
  }
  return (int)value;
}

/// Becomes another program (looked up in PATH), with the signals of a new one. Returns the error.
static inline int vmbus_exec(char *_Nullable *_Nonnull arguments) {
  // The runtime's threads block most signals, and the mask is inherited.
  sigset_t none;
  sigemptyset(&none);
  pthread_sigmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  execvp(arguments[0], arguments);
  return errno;
}

_Noreturn static inline void vmbus_exit(int code) {
  exit(code);
}
