// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Tells what the kernel keeps of each VMBus channel and shows nowhere else: whether its ring and
// its external memory are encrypted. It runs once, when it is asked to, and reads only.
//
// The kernel's structures are named here with the few members that are needed; where these lie is
// filled in when the program is loaded (CO-RE), from the running kernel's type information.

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel_channel.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct vmbus_channel_offer {
  __u16 sub_channel_index;
};

struct vmbus_channel_offer_channel {
  struct vmbus_channel_offer offer;
  __u32 child_relid;
};

struct vmbus_channel {
  struct vmbus_channel_offer_channel offermsg;
  // Linux 6.19 and newer.
  _Bool co_ring_buffer;
  _Bool co_external_memory;
};

struct vmbus_connection {
  // By relid, primary channels and subchannels alike.
  struct vmbus_channel **channels;
};

#pragma clang attribute pop

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, VMBUS_KERNEL_CHANNELS);
  __type(key, __u32);
  __type(value, struct vmbus_kernel_channel);
} channels SEC(".maps");

struct walk {
  struct vmbus_channel **table;
  __u32 count;
};

static long visit(__u32 index, struct walk *walk) {
  struct vmbus_channel *channel = 0;
  if (bpf_probe_read_kernel(&channel, sizeof channel, walk->table + index) != 0) return 1;
  // Relid 0 is the bus itself.
  if (channel == 0 || index == 0) return 0;

  // A channel that is just being freed says another relid, or nothing at all.
  __u32 relid = BPF_CORE_READ(channel, offermsg.child_relid);
  if (relid != index) return 0;

  __u32 slot = walk->count;
  struct vmbus_kernel_channel *record = bpf_map_lookup_elem(&channels, &slot);
  if (record == 0) return 1;
  record->relid = relid;
  record->subchannel_index = BPF_CORE_READ(channel, offermsg.offer.sub_channel_index);
  record->encrypted_ring = BPF_CORE_READ_BITFIELD_PROBED(channel, co_ring_buffer);
  record->encrypted_external_memory = BPF_CORE_READ_BITFIELD_PROBED(channel, co_external_memory);
  walk->count = slot + 1;
  return 0;
}

SEC("syscall")
int list_channels(struct vmbus_kernel_channels_request *request) {
  if (!bpf_core_field_exists(struct vmbus_connection, channels) ||
      !bpf_core_field_exists(struct vmbus_channel, offermsg)) {
    return vmbus_kernel_channels_no_types;
  }
  if (!bpf_core_field_exists(struct vmbus_channel, co_ring_buffer) ||
      !bpf_core_field_exists(struct vmbus_channel, co_external_memory)) {
    return vmbus_kernel_channels_no_fields;
  }
  struct vmbus_connection *connection = (void *)request->connection;
  struct walk walk = {.table = BPF_CORE_READ(connection, channels), .count = 0};
  if (walk.table == 0) return vmbus_kernel_channels_unreadable;
  if (bpf_loop(VMBUS_KERNEL_CHANNELS, visit, &walk, 0) != VMBUS_KERNEL_CHANNELS) {
    return vmbus_kernel_channels_unreadable;
  }
  return (int)walk.count;
}

// The kernel gives the functions that read its memory to programs under this licence only.
char _license[] SEC("license") = "GPL";
