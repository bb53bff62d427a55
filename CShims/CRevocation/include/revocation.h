// SPDX-License-Identifier: Apache-2.0
//
// Memory of a device that the kernel takes away while it is mapped: touching it then raises SIGBUS,
// which kills a process. Here it becomes a word that says so, and pages of zeros.
#pragma once

#include <stddef.h>
#include <stdint.h>

/// From here on, SIGBUS in [start, start + count) replaces all of that range by zeroed private memory,
/// and stores `reason` in `word` unless there is something else than 0 already. Other faults go where
/// they went before. Returns 0 or -errno: -ENOSPC when 256 ranges are guarded already.
///
/// Unguard the range before it is unmapped, and before `word` goes away.
int vmbus_guard(void *_Nonnull start, size_t count, uint32_t *_Nonnull word, uint32_t reason);

/// The same for registers: what replaces them reads as all ones, as a bus where nobody answers.
int vmbus_guard_registers(
    void *_Nonnull start, size_t count, uint32_t *_Nonnull word, uint32_t reason);

/// Does to a guarded range at once what a fault would do.
void vmbus_revoke(void *_Nonnull start);

void vmbus_unguard(void *_Nonnull start);
