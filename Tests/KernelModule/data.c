// SPDX-License-Identifier: Apache-2.0
//
// A disk over the module: data by GPA-direct, GPADLs, subchannels; and a load that others may end.
#include "module.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>

static void fill(uint8_t *memory, size_t bytes, unsigned int seed) {
  for (size_t index = 0; index < bytes; index++) {
    seed = seed * 1664525 + 1013904223;
    memory[index] = (uint8_t)(seed >> 24);
  }
}

static int offered(int device, uint32_t from, struct hv_uservsc_channel *channel) {
  *channel = (struct hv_uservsc_channel){.size = sizeof *channel, .channel = from};
  return ioctl(device, HV_USERVSC_CHANNEL, channel);
}

// Asks the provider for a subchannel and waits for it.
static struct channel open_subchannel(struct channel *primary, int news) {
  struct storage_reply reply;
  struct hv_uservsc_channel found;
  CHECK(storage_send(primary, 13, 13, 1) == 0);
  CHECK(storage_receive(primary, &reply, 10000) == 0 && reply.transaction == 13 && reply.status == 0);
  while (offered(primary->device, 1, &found)) CHECK(wait_event(news, 10000) > 0);
  CHECK(found.state == HV_USERVSC_CHANNEL_OFFERED && found.channel > 0 && found.relid != primary->relid);
  struct channel channel = channel_open(primary->device, found.channel);
  CHECK(channel.relid == found.relid);
  CHECK(offered(primary->device, 1, &found) == 0 && found.state == HV_USERVSC_CHANNEL_OPEN);
  return channel;
}

static void check_subchannel(int device, struct channel *primary, struct region *region, int news) {
  while (wait_event(primary->event, 0) > 0) continue;
  struct channel channel = open_subchannel(primary, news);
  while (wait_event(primary->event, 50) > 0) continue;
  memset(region->memory, 0, 8 * PAGE);
  CHECK(storage_transfer(&channel, false, 64, 4 * PAGE, region->numbers) == 0);
  CHECK(memcmp(region->memory, region->memory + 16 * PAGE, 4 * PAGE) == 0);
  // Each has its own interrupt.
  CHECK(wait_event(primary->event, 100) == -1);
  while (wait_event(channel.event, 50) > 0) continue;
  CHECK(storage_transfer(primary, false, 64, 4 * PAGE, region->numbers) == 0);
  CHECK(wait_event(channel.event, 100) == -1);
  // Closed alone: out of reach, but there until the primary is closed.
  CHECK(channel_close(device, channel.number) == 0);
  CHECK(channel.ring[64] == 0);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, (unsigned long)channel.number), ENOTCONN);
  CHECK_FAILS(channel_close(device, channel.number), ENOTCONN);
  CHECK_FAILS(try_open(&channel, device, channel.number, RING, RING), EBUSY);
  CHECK(storage_transfer(primary, false, 64, 4 * PAGE, region->numbers) == 0);
  munmap(channel.ring, channel.bytes);
}

int check_data(void) {
  int device = device_open(), news = eventfd(0, EFD_NONBLOCK);
  CHECK(device >= 0);
  CHECK(set_device_event(device, news) == 0 && wait_event(news, 0) == 1);
  struct hv_uservsc_info info = device_info(device);
  struct region region = region_alloc(device, 256 << 10, 0);
  struct channel primary = channel_open(device, 0);
  CHECK(storage_start(&primary) == 0);

  // Written from one place, read into others, and nothing beside it.
  fill(region.memory + 16 * PAGE, 4 * PAGE, info.offer_flags + 1);
  CHECK(storage_transfer(&primary, true, 64, 4 * PAGE, region.numbers + 16) == 0);
  memset(region.memory + 32 * PAGE, 0xee, 6 * PAGE);
  uint64_t scattered[4] = {region.numbers[36], region.numbers[33], region.numbers[35], region.numbers[34]};
  CHECK(storage_transfer(&primary, false, 64, 4 * PAGE, scattered) == 0);
  const uint8_t *from = region.memory + 16 * PAGE, *to = region.memory + 32 * PAGE;
  for (unsigned int index = 0; index < PAGE; index++) CHECK(to[index] == 0xee && to[5 * PAGE + index] == 0xee);
  CHECK(memcmp(to + 4 * PAGE, from, PAGE) == 0 && memcmp(to + PAGE, from + PAGE, PAGE) == 0);
  CHECK(memcmp(to + 3 * PAGE, from + 2 * PAGE, PAGE) == 0 && memcmp(to + 2 * PAGE, from + 3 * PAGE, PAGE) == 0);

  // System calls take it as memory; what pins it does not.
  int null = open("/dev/zero", O_RDWR), ends[2];
  CHECK(null >= 0 && pipe(ends) == 0);
  CHECK(write(ends[1], region.memory, PAGE) == PAGE && read(ends[0], region.memory + PAGE, PAGE) == PAGE);
  struct iovec piece = {.iov_base = region.memory, .iov_len = PAGE};
  CHECK_FAILS(vmsplice(ends[1], &piece, 1, 0), EFAULT);

  // GPADLs, while the channel is open and after. One that was told of is kept.
  uint64_t before = device_info(device).device_bytes_used;
  struct region small = region_alloc(device, PAGE, HV_USERVSC_DMA_GPADL);
  struct region large = region_alloc(device, 4 << 20, HV_USERVSC_DMA_GPADL);
  CHECK(small.call.gpadl != 0 && large.call.gpadl != 0 && small.call.gpadl != large.call.gpadl);
  memset(large.memory, 0x77, 4 << 20);
  memset(large.memory, 0, PAGE);
  CHECK(storage_transfer(&primary, false, 64, 4 * PAGE, large.numbers + 512) == 0);
  CHECK(memcmp(large.memory + 512 * PAGE, from, 4 * PAGE) == 0);
  CHECK(region_free(device, &small) == 0);
  CHECK(device_info(device).device_bytes_used == before + PAGE + (4 << 20));
  struct hv_uservsc_dma dma = {.size = sizeof dma, .flags = HV_USERVSC_DMA_GPADL, .bytes = 8 * PAGE};
  CHECK(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma) == 0 && dma.gpadl != 0);
  small.call.offset = dma.offset;
  CHECK(region_free(device, &small) == 0);
  CHECK(device_info(device).device_bytes_used == before + PAGE + (4 << 20));

  check_subchannel(device, &primary, &region, news);
  CHECK(channel_close(device, 0) == 0);
  CHECK(device_info(device).device_bytes_used == (256 << 10) + (4 << 20));
  struct hv_uservsc_channel none;
  CHECK_FAILS(offered(device, 1, &none), ENOENT);

  // Once more, with a subchannel, and with the largest GPADL there is.
  munmap(primary.ring, primary.bytes);
  CHECK(region_free(device, &large) == 0);
  primary = channel_open(device, 0);
  CHECK(storage_start(&primary) == 0);
  check_subchannel(device, &primary, &region, news);
  large = region_alloc(device, info.gpadl_bytes_max, HV_USERVSC_DMA_GPADL);
  memset(large.memory, 0x55, info.gpadl_bytes_max);
  uint64_t last = info.gpadl_bytes_max / PAGE - 4;
  CHECK(storage_transfer(&primary, false, 64, 4 * PAGE, large.numbers + last) == 0);
  CHECK(memcmp(large.memory + last * PAGE, from, 4 * PAGE) == 0);
  printf("%llu pages with a GPADL\n", (unsigned long long)info.gpadl_bytes_max / PAGE);
  return 0;
}

// --- A load -----------------------------------------------------------------------------------------

enum { DEPTH = 8, EACH = 16 * PAGE };

struct load {
  struct channel *channel;
  unsigned int flying;
  unsigned long done;
};

// Keeps requests in flight; -ENODEV: the device is gone.
static int push(struct load *load, struct region *region, unsigned int first) {
  struct storage_reply reply;
  while (load->flying < DEPTH) {
    unsigned int slot = (unsigned int)(load->done + load->flying) % DEPTH;
    if (storage_submit(load->channel, slot & 1, 1024 + slot * 128, EACH,
                       region->numbers + (first + slot) * (EACH / PAGE), 200 + slot))
      break;
    load->flying++;
  }
  int result = storage_receive(load->channel, &reply, 20);
  if (result == 0) {
    if (load->flying > 0) load->flying--;
    load->done++;
  }
  return result == -ENODEV ? result : 0;
}

// Who waits for a device's end without doing anything is told by each eventfd.
int run_idle(void) {
  int device = device_open(), news = eventfd(0, EFD_NONBLOCK);
  CHECK(device >= 0);
  CHECK(set_device_event(device, news) == 0 && wait_event(news, 0) == 1);
  struct channel primary = channel_open(device, 0);
  CHECK(storage_start(&primary) == 0);
  struct channel second = open_subchannel(&primary, news);
  while (wait_event(primary.event, 500) > 0 || wait_event(second.event, 0) > 0) continue;
  puts("loaded");
  fflush(stdout);
  CHECK(wait_event(news, 120000) == 1);
  CHECK(wait_event(primary.event, 0) == 1 && wait_event(second.event, 0) == 1);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, 0ul), ENODEV);
  return 0;
}

// Reads and writes until somebody ends it: with "kill" this process, with "device" the device.
int run_load(const char *until) {
  int device = device_open(), news = eventfd(0, EFD_NONBLOCK);
  CHECK(device >= 0);
  CHECK(set_device_event(device, news) == 0);
  struct region region = region_alloc(device, 2 * DEPTH * EACH, 0);
  struct region gpadl = region_alloc(device, 1 << 20, HV_USERVSC_DMA_GPADL);
  volatile uint32_t *ended = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, HV_USERVSC_STATUS_OFFSET);
  CHECK(ended != MAP_FAILED && *ended == 0);
  struct channel primary = channel_open(device, 0);
  CHECK(storage_start(&primary) == 0);
  struct channel second = open_subchannel(&primary, news);
  struct load loads[2] = {{.channel = &primary}, {.channel = &second}};
  while (wait_event(news, 0) > 0) continue;
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  int result = 0;
  bool said = false;
  while (result == 0) {
    for (int index = 0; index < 2 && result == 0; index++)
      result = push(&loads[index], &region, (unsigned int)index * DEPTH);
    if (!said && loads[0].done > 20 && loads[1].done > 20) {
      said = true;
      puts("loaded");
      fflush(stdout);
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    CHECK(now.tv_sec - start.tv_sec < 120);
    // Nobody asks a device that stands still, when it is gone, but its eventfd says so.
    if (wait_event(news, 0) > 0) result = -ENODEV;
  }
  if (strcmp(until, "device") != 0) return 1;

  // The end of the device: no signal, one zero page, and an answer to everything.
  struct hv_uservsc_info info = {.size = sizeof info};
  struct hv_uservsc_dma_free release = {.size = sizeof release, .offset = region.call.offset};
  while (ioctl(device, HV_USERVSC_INFO, &info) == 0) sched_yield();
  CHECK(errno == ENODEV);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, 0ul), ENODEV);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, (unsigned long)second.number), ENODEV);
  CHECK_FAILS(ioctl(device, HV_USERVSC_DMA_FREE, &release), ENODEV);
  CHECK_FAILS(try_open(&primary, device, 0, RING, RING), ENODEV);
  CHECK_FAILS(channel_close(device, 0), ENODEV);
  CHECK_FAILS(set_device_event(device, news), ENODEV);
  CHECK_FAILS(try_alloc(device, &gpadl, PAGE, 0), ENODEV);
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, (off_t)region.call.offset), ENODEV);
  while (!*ended) sched_yield();
  memset(region.memory, 0, PAGE);
  for (unsigned int index = 0; index < 2 * RING; index += PAGE)
    CHECK(primary.ring[index] == 0 && second.ring[index] == 0);
  region.memory[9] = 9;
  CHECK(primary.ring[PAGE + 9] == 9 && region.memory[EACH + 9] == 9);
  printf("gone after %lu and %lu requests\n", loads[0].done, loads[1].done);
  return 0;
}
