// SPDX-License-Identifier: Apache-2.0
#include "module.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

// The one that is bound.
int device_open(void) {
  DIR *directory = opendir("/dev/vmbus");
  if (!directory) return -1;
  int device = -1, error = ENOENT;
  for (struct dirent *entry; device < 0 && (entry = readdir(directory));) {
    if (entry->d_name[0] == '.') continue;
    device = openat(dirfd(directory), entry->d_name, O_RDWR | O_CLOEXEC);
    error = errno;
  }
  closedir(directory);
  errno = error;
  return device;
}

struct hv_uservsc_info device_info(int device) {
  struct hv_uservsc_info info = {.size = sizeof info};
  CHECK(ioctl(device, HV_USERVSC_INFO, &info) == 0);
  return info;
}

int set_device_event(int device, int event) {
  struct hv_uservsc_eventfd call = {.size = sizeof call, .eventfd = event};
  return ioctl(device, HV_USERVSC_DEVICE_EVENTFD, &call);
}

// Without a mapping.
int try_open(struct channel *channel, int device, uint32_t number, uint32_t tx, uint32_t rx) {
  struct hv_uservsc_open call = {
      .size = sizeof call, .channel = number, .tx_bytes = tx, .rx_bytes = rx, .eventfd = channel->event};
  int result = ioctl(device, HV_USERVSC_OPEN, &call);
  if (result == 0) {
    channel->device = device;
    channel->number = number;
    channel->relid = call.relid;
    channel->offset = call.offset;
    channel->bytes = call.ring_bytes;
  }
  return result;
}

struct channel channel_open(int device, uint32_t number) {
  struct channel channel = {.event = eventfd(0, EFD_NONBLOCK)};
  CHECK(try_open(&channel, device, number, RING, RING) == 0);
  CHECK(channel.bytes == 2 * RING);
  channel.ring =
      mmap(NULL, channel.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)channel.offset);
  CHECK(channel.ring != MAP_FAILED);
  return channel;
}

int channel_close(int device, uint32_t number) {
  struct hv_uservsc_close call = {.size = sizeof call, .channel = number};
  return ioctl(device, HV_USERVSC_CLOSE, &call);
}

int try_alloc(int device, struct region *region, uint64_t bytes, uint32_t flags) {
  uint32_t count = bytes / PAGE;
  *region = (struct region){.numbers = calloc(count + 1, sizeof(uint64_t))};
  region->call = (struct hv_uservsc_dma){.size = sizeof region->call,
                                         .flags = flags,
                                         .bytes = bytes,
                                         .pages = (uintptr_t)region->numbers,
                                         .page_count = count};
  return ioctl(device, HV_USERVSC_DMA_ALLOC, &region->call);
}

struct region region_alloc(int device, uint64_t bytes, uint32_t flags) {
  struct region region;
  CHECK(try_alloc(device, &region, bytes, flags) == 0);
  region.memory =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)region.call.offset);
  CHECK(region.memory != MAP_FAILED);
  for (uint64_t index = 0; index < bytes; index++) CHECK(region.memory[index] == 0);
  for (uint64_t index = 0; index < bytes / PAGE; index++) CHECK(region.numbers[index] != 0);
  return region;
}

int region_free(int device, struct region *region) {
  struct hv_uservsc_dma_free call = {.size = sizeof call, .offset = region->call.offset};
  return ioctl(device, HV_USERVSC_DMA_FREE, &call);
}

// The eventfd's count, or -1 when nothing came.
int wait_event(int event, int milliseconds) {
  struct pollfd entry = {.fd = event, .events = POLLIN};
  uint64_t count = 0;
  if (poll(&entry, 1, milliseconds) <= 0) return -1;
  return read(event, &count, sizeof count) == sizeof count ? (int)count : -1;
}
