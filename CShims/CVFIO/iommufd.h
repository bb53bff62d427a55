// SPDX-License-Identifier: Apache-2.0
//
// A VFIO device by a file of its own, and iommufd, which maps memory for it. Headers before Linux 6.6 have
// neither, so that the structures are here. Failing calls return -errno.
#pragma once

#include "vfio.h"

#ifndef VFIO_DEVICE_BIND_IOMMUFD
struct vfio_device_bind_iommufd {
  uint32_t argsz, flags;
  int32_t iommufd;
  uint32_t out_devid;
};
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)

struct vfio_device_attach_iommufd_pt {
  uint32_t argsz, flags, pt_id;
};
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#endif

// What iommufd takes. Each begins with its size.
struct vmbus_ioas_alloc {
  uint32_t size, flags, id;
};

struct vmbus_ioas_ranges {
  uint32_t size, id, count, reserved;
  uint64_t ranges, alignment;
};

struct vmbus_ioas_map {
  uint32_t size, flags, id, reserved;
  uint64_t start, count, address;
};

struct vmbus_ioas_unmap {
  uint32_t size, id;
  uint64_t address, count;
};

struct vmbus_ioas_physical {
  uint32_t size, flags, id, reserved;
  uint64_t address, count, physical;
};

#define VMBUS_IOAS_CALL(number) _IO(VFIO_TYPE, (number))

/// Gives an opened device to an iommufd, for this process alone.
static inline int vmbus_vfio_bind(int device, int iommufd) {
  struct vfio_device_bind_iommufd bind;
  memset(&bind, 0, sizeof bind);
  bind.argsz = sizeof bind;
  bind.iommufd = iommufd;
  return vmbus_vfio_call(device, VFIO_DEVICE_BIND_IOMMUFD, &bind);
}

/// Lets a device reach what is mapped in an address space.
static inline int vmbus_vfio_attach(int device, uint32_t space) {
  struct vfio_device_attach_iommufd_pt attach;
  memset(&attach, 0, sizeof attach);
  attach.argsz = sizeof attach;
  attach.pt_id = space;
  return vmbus_vfio_call(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
}

/// A new address space.
static inline int vmbus_ioas_alloc(int iommufd, uint32_t *_Nonnull space) {
  struct vmbus_ioas_alloc alloc = {.size = sizeof alloc};
  int result = vmbus_vfio_call(iommufd, VMBUS_IOAS_CALL(0x81), &alloc);
  *space = alloc.id;
  return result;
}

/// The addresses that can be mapped for all devices of an address space. Returns how many stretches there
/// are.
static inline int vmbus_ioas_ranges(
    int iommufd, uint32_t space, struct vmbus_vfio_range *_Nonnull ranges, uint32_t capacity) {
  struct vmbus_ioas_ranges call = {
      .size = sizeof call,
      .id = space,
      .count = capacity,
      .ranges = (uint64_t)(uintptr_t)ranges,
  };
  int result = vmbus_vfio_call(iommufd, VMBUS_IOAS_CALL(0x84), &call);
  // With more of them than fit, the first ones are there.
  if (result < 0 && result != -EMSGSIZE) return result;
  return (int)(call.count < capacity ? call.count : capacity);
}

static inline int vmbus_ioas_map(
    int iommufd, uint32_t space, void *_Nonnull start, uint64_t count, uint64_t address, bool reads,
    bool writes) {
  const uint32_t fixed = 1, writable = 2, readable = 4;
  struct vmbus_ioas_map map = {
      .size = sizeof map,
      .flags = fixed | (writes ? writable : 0) | (reads ? readable : 0),
      .id = space,
      .start = (uint64_t)(uintptr_t)start,
      .count = count,
      .address = address,
  };
  return vmbus_vfio_call(iommufd, VMBUS_IOAS_CALL(0x85), &map);
}

static inline int vmbus_ioas_unmap(int iommufd, uint32_t space, uint64_t address, uint64_t count) {
  struct vmbus_ioas_unmap unmap = {
      .size = sizeof unmap, .id = space, .address = address, .count = count};
  return vmbus_vfio_call(iommufd, VMBUS_IOAS_CALL(0x86), &unmap);
}

/// Where memory lies that is mapped for devices without an IOMMU, and how much of it in one stretch.
static inline int vmbus_ioas_physical(
    int iommufd, uint32_t space, uint64_t address, uint64_t *_Nonnull count,
    uint64_t *_Nonnull physical) {
  struct vmbus_ioas_physical call = {
      .size = sizeof call, .id = space, .address = address, .count = *count};
  int result = vmbus_vfio_call(iommufd, VMBUS_IOAS_CALL(0x95), &call);
  *count = call.count;
  *physical = call.physical;
  return result;
}
