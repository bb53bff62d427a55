// SPDX-License-Identifier: Apache-2.0
//
// A search of memory, which needs _GNU_SOURCE.
#pragma once

#include <stddef.h>

extern void *_Nullable memmem(const void *_Nonnull, size_t, const void *_Nonnull, size_t);

/// Where `bytes` begin in `memory`, or NULL.
static inline const void *_Nullable vmbus_find(
    const void *_Nonnull memory, size_t memory_size, const void *_Nonnull bytes, size_t size) {
  return memmem(memory, memory_size, bytes, size);
}
