// SPDX-License-Identifier: Apache-2.0
//
// Registers of a device: each access is made once, as wide as it says, and in the program's order.
#pragma once

#include <stdint.h>

static inline uint8_t vmbus_read8(const volatile void *_Nonnull place) {
  return *(const volatile uint8_t *)place;
}

static inline uint16_t vmbus_read16(const volatile void *_Nonnull place) {
  return *(const volatile uint16_t *)place;
}

static inline uint32_t vmbus_read32(const volatile void *_Nonnull place) {
  return *(const volatile uint32_t *)place;
}

static inline uint64_t vmbus_read64(const volatile void *_Nonnull place) {
  return *(const volatile uint64_t *)place;
}

static inline void vmbus_write8(volatile void *_Nonnull place, uint8_t value) {
  *(volatile uint8_t *)place = value;
}

static inline void vmbus_write16(volatile void *_Nonnull place, uint16_t value) {
  *(volatile uint16_t *)place = value;
}

static inline void vmbus_write32(volatile void *_Nonnull place, uint32_t value) {
  *(volatile uint32_t *)place = value;
}

static inline void vmbus_write64(volatile void *_Nonnull place, uint64_t value) {
  *(volatile uint64_t *)place = value;
}

/// What was written to memory before is seen by the device before a register that is written after. On
/// x86 the processor keeps that order; on Arm memory and a device's registers need the outer domain.
static inline void vmbus_before_register(void) {
#if defined(__aarch64__)
  __asm__ volatile("dmb oshst" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

/// What is read from memory after is not older than a register, or a word of memory that the device wrote,
/// that was read before.
static inline void vmbus_after_register(void) {
#if defined(__aarch64__)
  __asm__ volatile("dmb oshld" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}
