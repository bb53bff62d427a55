// SPDX-License-Identifier: Apache-2.0
//
// A ring and the storage protocol, without any cleverness: one thread, and no batching.
#include "module.h"

enum { WRITE_INDEX = 0, READ_INDEX = 4, INTERRUPT_MASK = 8 };
enum { DATA_INBAND = 6, GPA_DIRECT = 9, COMPLETION = 11 };

static uint32_t load(const uint8_t *control, int at) {
  return __atomic_load_n((const uint32_t *)(const void *)(control + at), __ATOMIC_SEQ_CST);
}

static void store(uint8_t *control, int at, uint32_t value) {
  __atomic_store_n((uint32_t *)(void *)(control + at), value, __ATOMIC_SEQ_CST);
}

static const uint32_t data_bytes = RING - PAGE;

// Puts a packet into the ring, its trailer with it; -1: no room, or the ring is none any more.
static int put(struct channel *channel, const uint8_t *packet, uint32_t bytes) {
  uint8_t *control = channel->ring, *data = control + PAGE;
  uint32_t write = load(control, WRITE_INDEX), read = load(control, READ_INDEX);
  uint32_t total = bytes + 8, free;
  uint64_t trailer = (uint64_t)write << 32;
  if (write >= data_bytes || read >= data_bytes) return -1;
  free = write >= read ? data_bytes - (write - read) : read - write;
  if (free <= total) return -1;
  for (uint32_t index = 0; index < total; index++) {
    uint8_t byte = index < bytes ? packet[index] : (uint8_t)(trailer >> (index - bytes) * 8);
    data[(write + index) % data_bytes] = byte;
  }
  store(control, WRITE_INDEX, (write + total) % data_bytes);
  if (load(control, INTERRUPT_MASK) == 0 && load(control, READ_INDEX) == write)
    return ioctl(channel->device, HV_USERVSC_SIGNAL, (unsigned long)channel->number);
  return 0;
}

// Takes a packet, up to so many bytes of it; 0: there is none; -1: what is there is no packet.
static int take(struct channel *channel, uint8_t *packet, uint32_t bytes) {
  uint8_t *control = channel->ring + RING, *data = control + PAGE;
  uint32_t write = load(control, WRITE_INDEX), read = load(control, READ_INDEX);
  uint32_t used, length;
  if (write >= data_bytes || read >= data_bytes) return -1;
  used = write >= read ? write - read : data_bytes - (read - write);
  if (used < 24) return used == 0 ? 0 : -1;
  for (uint32_t index = 0; index < 16; index++) packet[index] = data[(read + index) % data_bytes];
  length = (uint32_t)(packet[4] | packet[5] << 8) * 8;
  if (length < 16 || length + 8 > used) return -1;
  for (uint32_t index = 0; index < length && index < bytes; index++)
    packet[index] = data[(read + index) % data_bytes];
  store(control, READ_INDEX, (read + length + 8) % data_bytes);
  return (int)length;
}

static void put16(uint8_t *bytes, int at, uint32_t value) {
  bytes[at] = (uint8_t)value;
  bytes[at + 1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *bytes, int at, uint32_t value) {
  put16(bytes, at, value);
  put16(bytes, at + 2, value >> 16);
}

static void put64(uint8_t *bytes, int at, uint64_t value) {
  put32(bytes, at, (uint32_t)value);
  put32(bytes, at + 4, (uint32_t)(value >> 32));
}

static uint32_t get32(const uint8_t *bytes, int at) {
  return bytes[at] | (uint32_t)bytes[at + 1] << 8 | (uint32_t)bytes[at + 2] << 16 |
         (uint32_t)bytes[at + 3] << 24;
}

static void describe(uint8_t *packet, int type, uint32_t offset, uint32_t bytes, uint64_t transaction) {
  put16(packet, 0, (uint32_t)type);
  put16(packet, 2, offset / 8);
  put16(packet, 4, bytes / 8);
  put16(packet, 6, 1);  // A completion is requested.
  put64(packet, 8, transaction);
}

int storage_send(struct channel *channel, uint32_t operation, uint64_t transaction, uint16_t count) {
  uint8_t packet[16 + STORAGE_BYTES] = {0};
  describe(packet, DATA_INBAND, 16, sizeof packet, transaction);
  put32(packet, 16, operation);
  put32(packet, 20, 1);
  put16(packet, 28, operation == 9 ? 0x600 : count);
  return put(channel, packet, sizeof packet);
}

int storage_receive(struct channel *channel, struct storage_reply *reply, int milliseconds) {
  uint8_t packet[16 + STORAGE_BYTES] = {0};
  for (int waited = 0;; waited += 10) {
    int length = take(channel, packet, sizeof packet);
    if (length < 0) {
      struct hv_uservsc_info info = {.size = sizeof info};
      return ioctl(channel->device, HV_USERVSC_INFO, &info) < 0 && errno == ENODEV ? -ENODEV : -1;
    }
    if (length > 0) break;
    if (waited >= milliseconds) return -1;
    wait_event(channel->event, 10);
  }
  if (packet[0] != COMPLETION) return -1;
  reply->transaction = get32(packet, 8) | (uint64_t)get32(packet, 12) << 32;
  reply->operation = get32(packet, 16);
  reply->status = get32(packet, 24);
  reply->srb_status = packet[16 + 12 + 2];
  reply->scsi_status = packet[16 + 12 + 3];
  return 0;
}

// What a provider wants before it does anything.
int storage_start(struct channel *channel) {
  static const uint32_t operations[] = {7, 9, 10, 8};
  for (int index = 0; index < 4; index++) {
    struct storage_reply reply = {0};
    int result = storage_send(channel, operations[index], 100 + (uint64_t)index, 0);
    if (result == 0) result = storage_receive(channel, &reply, 10000);
    if (result || reply.transaction != 100 + (uint64_t)index || reply.operation != 1 || reply.status != 0) {
      printf("operation %u: result %d, transaction %llu, operation %u, status %#x\n", operations[index],
             result, (unsigned long long)reply.transaction, reply.operation, reply.status);
      return -1;
    }
  }
  return 0;
}

// READ(10) or WRITE(10) of blocks of 512 bytes, with the data in whole pages.
int storage_submit(struct channel *channel, bool write, uint32_t block, uint32_t bytes,
                   const uint64_t *numbers, uint64_t transaction) {
  uint8_t packet[16 + 16 + 8 * 64 + STORAGE_BYTES] = {0};
  uint32_t pages = bytes / PAGE, offset = 32 + 8 * pages;
  if (pages > 64) return -1;
  describe(packet, GPA_DIRECT, offset, offset + STORAGE_BYTES, transaction);
  put32(packet, 20, 1);
  put32(packet, 24, bytes);
  for (uint32_t index = 0; index < pages; index++) put64(packet, (int)(32 + 8 * index), numbers[index]);
  uint8_t *storage = packet + offset, *request = storage + 12;
  put32(storage, 0, 3);
  put32(storage, 4, 1);
  put16(request, 0, 52);
  request[8] = 10;
  request[9] = 20;
  request[10] = write ? 0 : 1;
  put32(request, 12, bytes);
  request[16] = write ? 0x2a : 0x28;
  for (int index = 0; index < 4; index++) request[18 + index] = (uint8_t)(block >> (24 - 8 * index));
  request[23] = (uint8_t)(bytes / 512 >> 8);
  request[24] = (uint8_t)(bytes / 512);
  request[38] = 0xff;
  request[39] = 0x20;
  put32(request, 40, write ? 0x80 : 0x40);
  put32(request, 44, 60);
  return put(channel, packet, offset + STORAGE_BYTES);
}

int storage_transfer(struct channel *channel, bool write, uint32_t block, uint32_t bytes,
                     const uint64_t *numbers) {
  struct storage_reply reply;
  if (storage_submit(channel, write, block, bytes, numbers, 7)) return -1;
  // A disk says first that it was reset.
  if (storage_receive(channel, &reply, 10000) || reply.transaction != 7) return -1;
  if (reply.scsi_status == 2) {
    if (storage_submit(channel, write, block, bytes, numbers, 8)) return -1;
    if (storage_receive(channel, &reply, 10000) || reply.transaction != 8) return -1;
  }
  return reply.status == 0 && (reply.srb_status & 0x3f) == 1 && reply.scsi_status == 0 ? 0 : -1;
}
