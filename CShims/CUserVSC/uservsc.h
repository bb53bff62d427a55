// SPDX-License-Identifier: Apache-2.0
//
// Calls on device files of the kernel module hv_uservsc. Its interface is included from where the module
// lies, so that there is one of it. Failing calls return -errno.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../kmod/hv_uservsc.h"

// The calls' numbers are made of the structures' sizes.
_Static_assert(HV_USERVSC_INFO == 0xC0F0BC00u, "hv_uservsc_info");
_Static_assert(HV_USERVSC_CHANNEL == 0xC030BC01u, "hv_uservsc_channel");
_Static_assert(HV_USERVSC_DEVICE_EVENTFD == 0x4010BC02u, "hv_uservsc_eventfd");
_Static_assert(HV_USERVSC_OPEN == 0xC0A8BC03u, "hv_uservsc_open");
_Static_assert(HV_USERVSC_CLOSE == 0x4010BC04u, "hv_uservsc_close");
_Static_assert(HV_USERVSC_SIGNAL == 0x0000BC05u, "signal");
_Static_assert(HV_USERVSC_DMA_ALLOC == 0xC030BC06u, "hv_uservsc_dma");
_Static_assert(HV_USERVSC_DMA_FREE == 0x4010BC07u, "hv_uservsc_dma_free");

/// A signal may come while the module waits for the host: none of these calls has done anything then.
static inline int vmbus_uservsc_call(int fd, unsigned long request, void *_Nonnull argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : result;
}

static inline int vmbus_uservsc_open_file(const char *_Nonnull path) {
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  return fd < 0 ? -errno : fd;
}

static inline int vmbus_uservsc_lock_file(int fd) {
  return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

static inline int vmbus_uservsc_info(int fd, struct hv_uservsc_info *_Nonnull info) {
  memset(info, 0, sizeof *info);
  info->size = sizeof *info;
  return vmbus_uservsc_call(fd, HV_USERVSC_INFO, info);
}

/// The channel with the lowest number from `first` on.
static inline int vmbus_uservsc_channel(
    int fd, uint32_t first, struct hv_uservsc_channel *_Nonnull channel) {
  memset(channel, 0, sizeof *channel);
  channel->size = sizeof *channel;
  channel->channel = first;
  return vmbus_uservsc_call(fd, HV_USERVSC_CHANNEL, channel);
}

static inline int vmbus_uservsc_device_event(int fd, int event) {
  struct hv_uservsc_eventfd request = {.size = sizeof request, .eventfd = event};
  return vmbus_uservsc_call(fd, HV_USERVSC_DEVICE_EVENTFD, &request);
}

/// The caller fills in channel, sizes, eventfd and user data.
static inline int vmbus_uservsc_open(int fd, struct hv_uservsc_open *_Nonnull open) {
  open->size = sizeof *open;
  return vmbus_uservsc_call(fd, HV_USERVSC_OPEN, open);
}

static inline int vmbus_uservsc_close(int fd, uint32_t channel) {
  struct hv_uservsc_close request = {.size = sizeof request, .channel = channel};
  return vmbus_uservsc_call(fd, HV_USERVSC_CLOSE, &request);
}

/// - Parameters:
///   - visibility: that is expected.
///   - pages: gets a number for each 4096 bytes; or NULL.
static inline int vmbus_uservsc_allocate(
    int fd, uint64_t bytes, uint32_t flags, uint32_t visibility, uint64_t *_Nullable pages,
    struct hv_uservsc_dma *_Nonnull dma) {
  memset(dma, 0, sizeof *dma);
  dma->size = sizeof *dma;
  dma->flags = flags;
  dma->bytes = bytes;
  dma->pages = (uintptr_t)pages;
  dma->page_count = pages ? (uint32_t)(bytes / 4096) : 0;
  dma->visibility = visibility;
  return vmbus_uservsc_call(fd, HV_USERVSC_DMA_ALLOC, dma);
}

static inline int vmbus_uservsc_free(int fd, uint64_t offset) {
  struct hv_uservsc_dma_free request = {.size = sizeof request, .offset = offset};
  return vmbus_uservsc_call(fd, HV_USERVSC_DMA_FREE, &request);
}

/// Maps the status page; NULL with `error` set when that fails.
static inline const void *_Nullable vmbus_uservsc_map_status(
    int fd, size_t count, int *_Nonnull error) {
  void *mapped = mmap(NULL, count, PROT_READ, MAP_SHARED, fd, HV_USERVSC_STATUS_OFFSET);
  *error = mapped == MAP_FAILED ? errno : 0;
  return mapped == MAP_FAILED ? NULL : mapped;
}

static inline void vmbus_uservsc_unmap(const void *_Nonnull start, size_t count) {
  munmap((void *)start, count);
}

/// The doorbell of one channel.
static inline int vmbus_uservsc_signal(int fd, uint32_t channel) {
  return ioctl(fd, HV_USERVSC_SIGNAL, (unsigned long)channel) < 0 ? -errno : 0;
}
