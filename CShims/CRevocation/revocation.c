// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "revocation.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

// Written under the lock, read by the handler without: `start` is set last and cleared first.
struct range {
  _Atomic uintptr_t start;
  _Atomic uintptr_t end;
  uint32_t *_Atomic word;
  _Atomic uint32_t reason;
  // What the range becomes once; 0 where that is zeros.
  _Atomic uintptr_t ones;
  _Atomic bool has_ones;
};

static struct range ranges[256];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static bool is_installed;

// Calls of mmap and mremap are plain system calls on Linux: they take no lock that the interrupted code
// may have. Whoever touches the range meanwhile waits, or faults once more.
static bool replace(struct range *range, uintptr_t start, uintptr_t end, uint32_t *word, uint32_t reason) {
  void *replaced;
  if (atomic_load(&range->has_ones)) {
    uintptr_t ones = atomic_exchange(&range->ones, 0);
    // Another thread does it, or has done it.
    if (ones == 0) return true;
    replaced = mremap(
        (void *)ones, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start);
  } else {
    replaced = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  }
  if (replaced == MAP_FAILED) return false;
  uint32_t none = 0;
  __atomic_compare_exchange_n(word, &none, reason, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return true;
}

static void handle(int signal, siginfo_t *info, void *context) {
  const uintptr_t address = (uintptr_t)info->si_addr;
  for (size_t i = 0; info->si_code > 0 && i < sizeof ranges / sizeof ranges[0]; i++) {
    struct range *range = &ranges[i];
    uintptr_t start = atomic_load(&range->start);
    uintptr_t end = atomic_load(&range->end);
    uint32_t *word = atomic_load(&range->word);
    uint32_t reason = atomic_load(&range->reason);
    // Another thread may have given the slot to another range meanwhile.
    if (start == 0 || address < start || address >= end || atomic_load(&range->start) != start) {
      continue;
    }
    int error = errno;
    bool is_replaced = replace(range, start, end, word, reason);
    errno = error;
    if (!is_replaced) break;
    return;
  }
  if (previous.sa_flags & SA_SIGINFO) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
  } else {
    // The fault comes again, and ends the process as if there were no handler here.
    sigaction(SIGBUS, &previous, NULL);
    if (info->si_code <= 0) raise(signal);
  }
}

static int install(void) {
  if (is_installed) return 0;
  struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, &previous) != 0) return -errno;
  is_installed = true;
  return 0;
}

static int guard(void *start, size_t count, uint32_t *word, uint32_t reason, void *ones) {
  pthread_mutex_lock(&lock);
  int result = install();
  for (size_t i = 0; result == 0; i++) {
    if (i == sizeof ranges / sizeof ranges[0]) {
      result = -ENOSPC;
    } else if (atomic_load(&ranges[i].start) == 0) {
      ranges[i].end = (uintptr_t)start + count;
      ranges[i].word = word;
      ranges[i].reason = reason;
      ranges[i].ones = (uintptr_t)ones;
      ranges[i].has_ones = ones != NULL;
      atomic_store(&ranges[i].start, (uintptr_t)start);
      break;
    }
  }
  pthread_mutex_unlock(&lock);
  return result;
}

int vmbus_guard(void *start, size_t count, uint32_t *word, uint32_t reason) {
  return guard(start, count, word, reason, NULL);
}

int vmbus_guard_registers(void *start, size_t count, uint32_t *word, uint32_t reason) {
  void *ones =
      mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ones == MAP_FAILED) return -errno;
  memset(ones, 0xFF, count);
  int result = guard(start, count, word, reason, ones);
  if (result < 0) munmap(ones, count);
  return result;
}

void vmbus_unguard(void *start) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    if (atomic_load(&ranges[i].start) != (uintptr_t)start) continue;
    size_t count = atomic_load(&ranges[i].end) - (uintptr_t)start;
    atomic_store(&ranges[i].start, 0);
    uintptr_t ones = atomic_exchange(&ranges[i].ones, 0);
    if (ones != 0) munmap((void *)ones, count);
  }
  pthread_mutex_unlock(&lock);
}

void vmbus_revoke(void *start) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    if (atomic_load(&ranges[i].start) != (uintptr_t)start) continue;
    replace(&ranges[i], (uintptr_t)start, ranges[i].end, ranges[i].word, ranges[i].reason);
  }
  pthread_mutex_unlock(&lock);
}
