// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the BPF program and the one who runs it say to each other. Plain types: the program is
// compiled for a machine without a C library.
#pragma once

// As many relids as the kernel has (MAX_CHANNEL_RELIDS).
#define VMBUS_KERNEL_CHANNELS 2048

/// The program's argument.
struct vmbus_kernel_channels_request {
  /// The address of the kernel's `vmbus_connection`.
  unsigned long long connection;
};

/// What the program returns instead of a count.
enum vmbus_kernel_channels_outcome {
  vmbus_kernel_channels_no_types = -1,
  vmbus_kernel_channels_no_fields = -2,
  vmbus_kernel_channels_unreadable = -3,
};

/// A record of the program's map `channels`.
struct vmbus_kernel_channel {
  unsigned int relid;
  unsigned short subchannel_index;
  unsigned char encrypted_ring;
  unsigned char encrypted_external_memory;
};
