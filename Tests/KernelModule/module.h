// SPDX-License-Identifier: Apache-2.0
//
// What the checks of the kernel module share: its calls, a ring, and enough of the storage protocol to
// have a host do DMA.
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../kmod/hv_uservsc.h"

#define PAGE 4096u
#define RING (64u << 10)

// Ends the program with what was expected, and where.
#define CHECK(condition)                                                                     \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      printf("FAILED %s:%d: %s (errno %s)\n", __FILE__, __LINE__, #condition, strerror(errno)); \
      exit(1);                                                                               \
    }                                                                                        \
  } while (0)

// A call that is to fail in this way.
#define CHECK_FAILS(call, error)                                                             \
  do {                                                                                       \
    errno = 0;                                                                               \
    long result_ = (long)(call);                                                             \
    if (result_ != -1 || errno != (error)) {                                                 \
      printf("FAILED %s:%d: %s is %ld, %s, not %s\n", __FILE__, __LINE__, #call, result_,    \
             strerror(errno), strerror(error));                                              \
      exit(1);                                                                               \
    }                                                                                        \
  } while (0)

// An open channel: the ring lies twice one behind the other half of it.
struct channel {
  int device, event;
  uint32_t number, relid;
  uint64_t offset, bytes;
  uint8_t *ring;
};

// A DMA region that is mapped.
struct region {
  struct hv_uservsc_dma call;
  uint64_t *numbers;
  uint8_t *memory;
};

int device_open(void);
struct hv_uservsc_info device_info(int device);
int set_device_event(int device, int event);
int try_open(struct channel *channel, int device, uint32_t number, uint32_t tx, uint32_t rx);
struct channel channel_open(int device, uint32_t number);
int channel_close(int device, uint32_t number);
int try_alloc(int device, struct region *region, uint64_t bytes, uint32_t flags);
struct region region_alloc(int device, uint64_t bytes, uint32_t flags);
int region_free(int device, struct region *region);
int wait_event(int event, int milliseconds);

// The storage protocol. A reply's status in the protocol's own words; -1: none came; -ENODEV: the device
// is gone.
#define STORAGE_BYTES 64
struct storage_reply {
  uint64_t transaction;
  uint32_t operation, status;
  uint8_t srb_status, scsi_status;
};
int storage_send(struct channel *channel, uint32_t operation, uint64_t transaction, uint16_t count);
int storage_receive(struct channel *channel, struct storage_reply *reply, int milliseconds);
int storage_start(struct channel *channel);
int storage_submit(struct channel *channel, bool write, uint32_t block, uint32_t bytes,
                   const uint64_t *numbers, uint64_t transaction);
int storage_transfer(struct channel *channel, bool write, uint32_t block, uint32_t bytes,
                     const uint64_t *numbers);

// In files of their own.
int check_interface(void);
int check_errors(void);
int check_data(void);
int check_limits(void);
int run_load(const char *until);
int run_idle(void);
int fuzz(uint64_t seed, uint64_t count);
