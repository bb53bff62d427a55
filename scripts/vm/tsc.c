// SPDX-License-Identifier: Apache-2.0
//
// Prints how fast this machine's time stamp counter runs, in kHz. An emulated machine has the same counter,
// but a kernel that measures it there while others work may be wrong by a factor of ten.

#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct moment {
  uint64_t ticks, nanoseconds, error;
};

// The best of several: one that nothing came between.
static struct moment look(void) {
  struct moment best = {0, 0, UINT64_MAX};
  for (int i = 0; i < 100; i++) {
    struct timespec t;
    uint64_t before = __rdtsc();
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t after = __rdtsc();
    if (after - before < best.error) {
      best = (struct moment){before, (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec, after - before};
    }
  }
  return best;
}

int main(void) {
  struct moment first = look();
  nanosleep(&(struct timespec){0, 200000000}, NULL);
  struct moment last = look();
  printf("%.0f\n", (double)(last.ticks - first.ticks) * 1e6 / (double)(last.nanoseconds - first.nanoseconds));
  return 0;
}
