// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "ring_twin.h"

#include <sched.h>

// What two processors take to tell each other a number: as fast as no ring can be.

void line_ping(void *lines, uint64_t rounds) {
  uint64_t *to = lines, *from = to + 16;
  for (uint64_t round = 1; round <= rounds; round++) {
    __atomic_store_n(to, round, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(from, __ATOMIC_SEQ_CST) != round) pause_cpu();
  }
}

void line_pong(void *lines, uint64_t rounds) {
  uint64_t *from = lines, *to = from + 16;
  for (uint64_t round = 1; round <= rounds; round++) {
    while (__atomic_load_n(from, __ATOMIC_SEQ_CST) != round) pause_cpu();
    __atomic_store_n(to, round, __ATOMIC_SEQ_CST);
  }
}

int usable_cpus(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

bool pin_to_cpu(int cpu) {
  static cpu_set_t all;
  static bool known;
  if (!known && sched_getaffinity(0, sizeof all, &all) != 0) return false;
  known = true;
  for (int index = 0; index < CPU_SETSIZE; index++) {
    if (!CPU_ISSET(index, &all) || cpu-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(index, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

__attribute__((noinline)) void mark(void) { __asm__ volatile("" : : : "memory"); }
