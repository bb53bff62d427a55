// SPDX-License-Identifier: Apache-2.0
//
// What the interface promises, one promise after the other.
#include "module.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/uio.h>

static int open_again(int flags) {
  DIR *directory = opendir("/dev/vmbus");
  CHECK(directory);
  int device = -1;
  errno = ENOENT;
  for (struct dirent *entry; (entry = readdir(directory));)
    if (entry->d_name[0] != '.') {
      device = openat(dirfd(directory), entry->d_name, flags);
      break;
    }
  int error = errno;
  closedir(directory);
  errno = error;
  return device;
}

// Bytes of the device's that are in use.
static uint64_t used(int device) { return device_info(device).device_bytes_used; }

int check_interface(void) {
  CHECK_FAILS(open_again(O_RDONLY), EACCES);
  CHECK_FAILS(open_again(O_WRONLY), EACCES);
  int device = device_open();
  CHECK(device >= 0);
  CHECK_FAILS(open_again(O_RDWR), EBUSY);

  struct hv_uservsc_info info = device_info(device);
  CHECK(info.version == HV_USERVSC_VERSION && info.page_size == PAGE);
  CHECK(info.device_bytes_used == 0 && info.leaked_pages == 0);
  // The class of SCSI controllers.
  CHECK(memcmp(info.class_id, "\xd9\x63\x61\xba\xa1\x04\x29\x4d\xb6\x05\x72\xe2\xff\xb1\xdc\x7f", 16) == 0);
  struct hv_uservsc_channel primary = {.size = sizeof primary};
  CHECK(ioctl(device, HV_USERVSC_CHANNEL, &primary) == 0);
  CHECK(primary.channel == 0 && primary.state == HV_USERVSC_CHANNEL_OFFERED && primary.relid != 0);
  printf("vmbus %u.%u isolated %u features %#x offer flags %#x external %u ring %u monitor %u relid %u\n",
         info.vmbus_version >> 16, info.vmbus_version & 0xffff, info.isolated, info.features,
         info.offer_flags, info.external_visibility, primary.ring_visibility, primary.monitor_allocated,
         primary.relid);
  CHECK(info.isolated ? info.external_visibility != HV_USERVSC_PLAIN
                      : info.external_visibility == HV_USERVSC_PLAIN);

  // Opened, closed, opened: a ring of each side's own size, then another one.
  struct channel channel = {.event = eventfd(0, EFD_NONBLOCK)};
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, 0ul), ENOTCONN);
  CHECK_FAILS(channel_close(device, 0), ENOTCONN);
  CHECK(try_open(&channel, device, 0, 2 * PAGE, 5 * PAGE) == 0);
  CHECK(channel.relid == primary.relid && channel.bytes == 7 * PAGE);
  CHECK(used(device) == 8 * PAGE);  // As the kernel allocates it.
  CHECK_FAILS(try_open(&channel, device, 0, RING, RING), EBUSY);
  uint8_t *ring = mmap(NULL, 7 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)channel.offset);
  CHECK(ring != MAP_FAILED);
  // The kernel offers flow control at both ends.
  CHECK(ring[64] == 1 && ring[2 * PAGE + 64] == 1);
  CHECK(ioctl(device, HV_USERVSC_SIGNAL, 0ul) == 0);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, 1ul), ENOTCONN);
  CHECK_FAILS(ioctl(device, HV_USERVSC_SIGNAL, -1ul), ENOTCONN);
  CHECK(channel_close(device, 0) == 0);
  // What was the ring is the zero page: readable, writable, and the same everywhere.
  CHECK(ring[64] == 0);
  ring[5] = 1;
  CHECK(ring[3 * PAGE + 5] == 1);
  CHECK(used(device) == 0);
  uint64_t first = channel.offset;
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, (off_t)first), EINVAL);
  channel = channel_open(device, 0);
  CHECK(channel.offset != first);
  CHECK(storage_start(&channel) == 0);
  CHECK(channel_close(device, 0) == 0);
  close(device);
  // The mappings hold the device.
  CHECK_FAILS(open_again(O_RDWR), EBUSY);
  munmap(ring, 7 * PAGE);
  munmap(channel.ring, channel.bytes);
  CHECK((device = device_open()) >= 0);
  close(device);
  return 0;
}

int check_errors(void) {
  int device = device_open();
  CHECK(device >= 0);
  struct hv_uservsc_info info = {.size = sizeof info + 1};
  CHECK_FAILS(ioctl(device, HV_USERVSC_INFO, &info), EINVAL);
  info = (struct hv_uservsc_info){.size = sizeof info, .flags = 1};
  CHECK_FAILS(ioctl(device, HV_USERVSC_INFO, &info), EINVAL);
  CHECK_FAILS(ioctl(device, HV_USERVSC_INFO, NULL), EFAULT);
  CHECK_FAILS(ioctl(device, _IO(HV_USERVSC_IOC, 99)), ENOTTY);
  CHECK_FAILS(ioctl(device, _IOWR(HV_USERVSC_IOC, 0, struct hv_uservsc_channel), &info), ENOTTY);
  struct hv_uservsc_channel next = {.size = sizeof next, .channel = 1};
  CHECK_FAILS(ioctl(device, HV_USERVSC_CHANNEL, &next), ENOENT);
  CHECK_FAILS(set_device_event(device, device), EINVAL);
  CHECK_FAILS(set_device_event(device, 999), EBADF);
  CHECK_FAILS(set_device_event(device, -2), EBADF);

  info = device_info(device);
  struct channel channel = {.event = -1};
  const uint32_t wrong[] = {0, 1, PAGE, 2 * PAGE - 1, 2 * PAGE + 1, UINT32_MAX};
  for (size_t index = 0; index < sizeof wrong / sizeof *wrong; index++) {
    CHECK_FAILS(try_open(&channel, device, 0, wrong[index], RING), EINVAL);
    CHECK_FAILS(try_open(&channel, device, 0, RING, wrong[index]), EINVAL);
  }
  CHECK_FAILS(try_open(&channel, device, 0, (uint32_t)info.ring_bytes_max, RING), E2BIG);
  CHECK_FAILS(try_open(&channel, device, 0, 0xfffff000, 0xfffff000), E2BIG);
  CHECK_FAILS(try_open(&channel, device, 1, RING, RING), ENOENT);
  CHECK_FAILS(try_open(&channel, device, 0x10000, RING, RING), ENOENT);
  channel.event = device;
  CHECK_FAILS(try_open(&channel, device, 0, RING, RING), EINVAL);
  CHECK(device_info(device).device_bytes_used == 0);
  // Without an eventfd, and as large as can be.
  channel.event = -1;
  CHECK(try_open(&channel, device, 0, (uint32_t)info.ring_bytes_max / 2, (uint32_t)info.ring_bytes_max / 2) == 0);
  CHECK(channel_close(device, 0) == 0);

  struct region region;
  CHECK_FAILS(try_alloc(device, &region, 0, 0), EINVAL);
  CHECK_FAILS(try_alloc(device, &region, PAGE + 1, 0), EINVAL);
  CHECK_FAILS(try_alloc(device, &region, PAGE, 2), EINVAL);
  CHECK_FAILS(try_alloc(device, &region, info.region_bytes_max + PAGE, 0), E2BIG);
  CHECK_FAILS(try_alloc(device, &region, info.gpadl_bytes_max + PAGE, HV_USERVSC_DMA_GPADL), E2BIG);
  CHECK_FAILS(try_alloc(device, &region, info.region_bytes_max, 0), ENOMEM);
  struct hv_uservsc_dma dma = {.size = sizeof dma, .bytes = PAGE, .pages = (uintptr_t)&region, .page_count = 2};
  CHECK_FAILS(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma), EINVAL);
  dma.pages = 8;
  dma.page_count = 1;
  CHECK_FAILS(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma), EFAULT);
  dma.pages = 0;
  dma.page_count = 0;
  dma.visibility = 4;
  CHECK_FAILS(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma), EINVAL);
  dma.visibility = info.external_visibility % 3 + 1;
  CHECK_FAILS(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma), EPERM);
  CHECK(device_info(device).device_bytes_used == 0);
  dma.visibility = info.external_visibility;
  CHECK(ioctl(device, HV_USERVSC_DMA_ALLOC, &dma) == 0);
  region.call = dma;
  off_t offset = (off_t)dma.offset;
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, device, offset), EINVAL);
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, device, offset), EINVAL);
  CHECK_FAILS(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, device, offset), EINVAL);
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, offset + PAGE), EINVAL);
  // The status page can't be written.
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, HV_USERVSC_STATUS_OFFSET), EINVAL);
  CHECK_FAILS(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, device, HV_USERVSC_STATUS_OFFSET), EINVAL);
  CHECK_FAILS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, PAGE), EINVAL);
  uint32_t *status = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, HV_USERVSC_STATUS_OFFSET);
  CHECK(status != MAP_FAILED && *status == 0);
  CHECK_FAILS(mprotect(status, PAGE, PROT_READ | PROT_WRITE), EACCES);
  uint8_t *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, offset);
  CHECK(memory != MAP_FAILED);
  CHECK_FAILS(mprotect(memory, PAGE, PROT_READ | PROT_EXEC), EACCES);
  CHECK_FAILS(mremap(memory, PAGE, 2 * PAGE, MREMAP_MAYMOVE), EFAULT);
  region.call.offset++;
  CHECK_FAILS(region_free(device, &region), ENOENT);
  region.call.offset--;
  CHECK(region_free(device, &region) == 0);
  CHECK_FAILS(region_free(device, &region), ENOENT);
  CHECK(device_info(device).device_bytes_used == 0);
  return 0;
}

// A process without CAP_IPC_LOCK has its limit.
int check_limits(void) {
  int device = device_open();
  CHECK(device >= 0);
  struct rlimit limit = {.rlim_cur = 256 << 10, .rlim_max = 256 << 10};
  CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
  struct region first, second;
  CHECK(setresuid(65534, 65534, 65534) == 0);
  CHECK_FAILS(try_alloc(device, &first, (256 << 10) + PAGE, 0), ENOMEM);
  CHECK(try_alloc(device, &first, 192 << 10, 0) == 0);
  CHECK_FAILS(try_alloc(device, &second, 128 << 10, 0), ENOMEM);
  struct channel channel = {.event = -1};
  CHECK_FAILS(try_open(&channel, device, 0, RING, RING), ENOMEM);
  CHECK(region_free(device, &first) == 0);
  CHECK(try_open(&channel, device, 0, RING, RING) == 0);
  CHECK(try_alloc(device, &second, 128 << 10, 0) == 0);
  CHECK_FAILS(try_alloc(device, &first, PAGE, 0), ENOMEM);
  // Its numbers were told: it counts until the channel is closed.
  CHECK(region_free(device, &second) == 0);
  CHECK_FAILS(try_alloc(device, &first, PAGE, 0), ENOMEM);
  CHECK(channel_close(device, 0) == 0);
  CHECK(device_info(device).device_bytes_used == 0);
  CHECK(try_alloc(device, &first, 256 << 10, 0) == 0);
  return 0;
}
