// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Structures as a kernel with VMBus has them, in memory of a kernel without it: a connection with
// four channels. The object's type information takes the place of that kernel's. The members lie
// elsewhere than in any real kernel, so that only relocated accesses find them.
//
// FIELDS: 0 for a kernel without the fields, 1 for bytes, 2 for bits.

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct vmbus_channel_offer {
  __u8 guids[40];
  __u16 sub_channel_index;
};

struct vmbus_channel_offer_channel {
  __u64 header;
  struct vmbus_channel_offer offer;
  __u32 child_relid;
};

struct vmbus_channel {
  __u8 others[72];
  struct vmbus_channel_offer_channel offermsg;
#if FIELDS == 1
  __u8 more[13];
  _Bool co_ring_buffer;
  _Bool co_external_memory;
#elif FIELDS == 2
  __u8 more : 3;
  __u8 co_ring_buffer : 1;
  __u8 co_external_memory : 1;
#endif
};

struct vmbus_connection {
  __u32 state;
  struct vmbus_channel **channels;
};

struct memory {
  struct vmbus_connection vmbus_connection;
  struct vmbus_channel *table[2048];
  struct vmbus_channel channels[4];
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct memory);
} memory SEC(".maps");

struct request {
  unsigned long long connection;
};

static void set(
    struct vmbus_channel *channel, __u32 relid, __u16 index, int ring, int external) {
  channel->offermsg.child_relid = relid;
  channel->offermsg.offer.sub_channel_index = index;
#if FIELDS
  channel->co_ring_buffer = ring;
  channel->co_external_memory = external;
#endif
}

SEC("syscall")
int make(struct request *request) {
  __u32 first = 0;
  struct memory *kernel = bpf_map_lookup_elem(&memory, &first);
  if (kernel == 0) return -1;
  kernel->vmbus_connection.channels = kernel->table;
  set(&kernel->channels[0], 1, 0, 0, 0);
  set(&kernel->channels[1], 7, 0, 1, 0);
  set(&kernel->channels[2], 2047, 3, 1, 1);
  // In the table at 9, and saying something else: as one that is just being freed.
  set(&kernel->channels[3], 12, 0, 1, 1);
  kernel->table[1] = &kernel->channels[0];
  kernel->table[7] = &kernel->channels[1];
  kernel->table[2047] = &kernel->channels[2];
  kernel->table[9] = &kernel->channels[3];
  // Points nowhere: it is not followed.
  kernel->table[10] = (void *)0xffff800000000000;
  request->connection = (unsigned long long)&kernel->vmbus_connection;
  return 0;
}

char _license[] SEC("license") = "GPL";
