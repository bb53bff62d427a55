// SPDX-License-Identifier: Apache-2.0
//
// A library to be loaded before a program's own: its monotonic clock can be moved on. Each line that comes
// from the file CLOCK_FROM is a number of seconds. QEMU's balloon device waits 50 s for a guest before it asks for
// anything, and nothing else shortens that.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static _Atomic long moved;
static int (*real_clock)(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now) {
  // Others may ask before this library's turn has come.
  if (!real_clock)
    *(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real_clock(clock, now);
  if (status == 0 && clock == CLOCK_MONOTONIC)
    now->tv_sec += atomic_load(&moved);
  return status;
}

static void *take_lines(void *path) {
  FILE *from = fopen(path, "r");
  long seconds;
  while (from && fscanf(from, "%ld", &seconds) == 1)
    atomic_fetch_add(&moved, seconds);
  return NULL;
}

__attribute__((constructor)) static void begin(void) {
  char *path = getenv("CLOCK_FROM");
  pthread_t thread;
  if (path && pthread_create(&thread, NULL, take_lines, path) == 0)
    pthread_detach(thread);
}
