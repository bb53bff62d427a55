// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stdbool.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/// The four registers of a CPUID leaf.
struct vmbus_cpuid {
  uint32_t eax, ebx, ecx, edx;
};

/// Whether this processor has the instruction.
static inline bool vmbus_has_cpuid(void) {
#if defined(__x86_64__)
  return true;
#else
  return false;
#endif
}

static inline struct vmbus_cpuid vmbus_cpuid(uint32_t leaf) {
  struct vmbus_cpuid result = {0, 0, 0, 0};
#if defined(__x86_64__)
  __cpuid_count(leaf, 0, result.eax, result.ebx, result.ecx, result.edx);
#else
  (void)leaf;
#endif
  return result;
}
