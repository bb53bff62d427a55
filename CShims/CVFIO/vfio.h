// SPDX-License-Identifier: Apache-2.0
//
// Linux's VFIO: its calls, and flat forms of its structures that end in arrays. Failing calls return -errno.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static inline int vmbus_vfio_call(int fd, unsigned long request, void *_Nullable argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

static inline int vmbus_vfio_call_value(int fd, unsigned long request, unsigned long argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

// --- Groups and their container --------------------------------------------------------------------

static const uint32_t VMBUS_VFIO_NOIOMMU = VFIO_NOIOMMU_IOMMU;
static const uint32_t VMBUS_VFIO_TYPE1V2 = VFIO_TYPE1v2_IOMMU;

/// Whether a container knows a kind of IOMMU: 1 or 0.
static inline int vmbus_vfio_knows(int container, unsigned long kind) {
  if (vmbus_vfio_call_value(container, VFIO_GET_API_VERSION, 0) != VFIO_API_VERSION) return -EPROTO;
  return vmbus_vfio_call_value(container, VFIO_CHECK_EXTENSION, kind);
}

/// Whether all devices of a group are with VFIO or with nobody: 1 or 0.
static inline int vmbus_vfio_group_is_viable(int group) {
  struct vfio_group_status status = {.argsz = sizeof status};
  int result = vmbus_vfio_call(group, VFIO_GROUP_GET_STATUS, &status);
  return result < 0 ? result : (status.flags & VFIO_GROUP_FLAGS_VIABLE) != 0;
}

static inline int vmbus_vfio_set_container(int group, int container) {
  return vmbus_vfio_call(group, VFIO_GROUP_SET_CONTAINER, &container);
}

static inline int vmbus_vfio_set_iommu(int container, unsigned long kind) {
  return vmbus_vfio_call_value(container, VFIO_SET_IOMMU, kind);
}

/// A descriptor of a device of the group, at `lowest` or above.
static inline int vmbus_vfio_device(int group, const char *_Nonnull name, int lowest) {
  int fd = vmbus_vfio_call(group, VFIO_GROUP_GET_DEVICE_FD, (void *)name);
  if (fd < 0) return fd;
  int moved = fcntl(fd, F_DUPFD_CLOEXEC, lowest);
  int error = errno;
  close(fd);
  return moved < 0 ? -error : moved;
}

/// A stretch of addresses, both ends included.
struct vmbus_vfio_range {
  uint64_t first, last;
};

/// The addresses that a container can map. Returns how many stretches there are: 0 from kernels that do
/// not tell; of more than `capacity` the first ones.
static inline int vmbus_vfio_ranges(
    int container, struct vmbus_vfio_range *_Nonnull ranges, int capacity) {
  struct vfio_iommu_type1_info size = {.argsz = sizeof size};
  int result = vmbus_vfio_call(container, VFIO_IOMMU_GET_INFO, &size);
  if (result < 0) return result;
  if (size.argsz <= sizeof size || size.argsz > 1 << 16) return 0;
  struct vfio_iommu_type1_info *info = (struct vfio_iommu_type1_info *)calloc(1, size.argsz);
  if (info == NULL) return -ENOMEM;
  info->argsz = size.argsz;
  result = vmbus_vfio_call(container, VFIO_IOMMU_GET_INFO, info);
  int count = result < 0 ? result : 0;
  uint32_t offset = result < 0 || !(info->flags & VFIO_IOMMU_INFO_CAPS) ? 0 : info->cap_offset;
  while (offset >= sizeof *info && offset <= size.argsz - sizeof(struct vfio_info_cap_header)) {
    struct vfio_info_cap_header *cap = (struct vfio_info_cap_header *)((char *)info + offset);
    if (cap->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      struct vfio_iommu_type1_info_cap_iova_range *known =
          (struct vfio_iommu_type1_info_cap_iova_range *)cap;
      for (uint32_t i = 0; i < known->nr_iovas && count < capacity; i++) {
        if (offset + sizeof *known + (i + 1) * sizeof known->iova_ranges[0] > size.argsz) break;
        ranges[count].first = known->iova_ranges[i].start;
        ranges[count].last = known->iova_ranges[i].end;
        count++;
      }
    }
    offset = cap->next > offset ? cap->next : 0;
  }
  free(info);
  return count;
}

static inline int vmbus_vfio_map(
    int container, void *_Nonnull start, uint64_t count, uint64_t address, bool reads, bool writes) {
  struct vfio_iommu_type1_dma_map map = {
      .argsz = sizeof map,
      .flags = (reads ? VFIO_DMA_MAP_FLAG_READ : 0u) | (writes ? VFIO_DMA_MAP_FLAG_WRITE : 0u),
      .vaddr = (uint64_t)(uintptr_t)start,
      .iova = address,
      .size = count,
  };
  return vmbus_vfio_call(container, VFIO_IOMMU_MAP_DMA, &map);
}

static inline int vmbus_vfio_unmap(int container, uint64_t address, uint64_t count) {
  struct vfio_iommu_type1_dma_unmap unmap = {
      .argsz = sizeof unmap, .iova = address, .size = count};
  int result = vmbus_vfio_call(container, VFIO_IOMMU_UNMAP_DMA, &unmap);
  if (result < 0) return result;
  return unmap.size == count ? 0 : -ENOENT;
}

// --- A device --------------------------------------------------------------------------------------

static const uint32_t VMBUS_VFIO_CONFIG_REGION = VFIO_PCI_CONFIG_REGION_INDEX;
static const uint32_t VMBUS_VFIO_MSI = VFIO_PCI_MSI_IRQ_INDEX;
static const uint32_t VMBUS_VFIO_MSIX = VFIO_PCI_MSIX_IRQ_INDEX;
static const uint32_t VMBUS_VFIO_ERROR = VFIO_PCI_ERR_IRQ_INDEX;
static const uint32_t VMBUS_VFIO_REQUEST = VFIO_PCI_REQ_IRQ_INDEX;

/// 1 when the device is a PCI function that can be reset, 0 when it can't.
static inline int vmbus_vfio_can_reset(int device) {
  struct vfio_device_info info = {.argsz = sizeof info};
  int result = vmbus_vfio_call(device, VFIO_DEVICE_GET_INFO, &info);
  if (result < 0) return result;
  if (!(info.flags & VFIO_DEVICE_FLAGS_PCI)) return -ENODEV;
  return (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
}

static inline int vmbus_vfio_reset(int device) {
  return vmbus_vfio_call_value(device, VFIO_DEVICE_RESET, 0);
}

/// A part of the device's file: a BAR, or its configuration space.
struct vmbus_vfio_region {
  uint64_t offset, size;
  /// Bytes from its start that can be mapped.
  uint64_t mappable;
};

static inline int vmbus_vfio_region(
    int device, uint32_t index, struct vmbus_vfio_region *_Nonnull region) {
  struct vfio_region_info size = {.argsz = sizeof size, .index = index};
  int result = vmbus_vfio_call(device, VFIO_DEVICE_GET_REGION_INFO, &size);
  if (result < 0) return result;
  region->offset = size.offset;
  region->size = size.size;
  region->mappable = size.flags & VFIO_REGION_INFO_FLAG_MMAP ? size.size : 0;
  if (!(size.flags & VFIO_REGION_INFO_FLAG_CAPS) || region->mappable == 0) return 0;
  if (size.argsz <= sizeof size || size.argsz > 1 << 16) return 0;
  struct vfio_region_info *info = (struct vfio_region_info *)calloc(1, size.argsz);
  if (info == NULL) return -ENOMEM;
  info->argsz = size.argsz;
  info->index = index;
  result = vmbus_vfio_call(device, VFIO_DEVICE_GET_REGION_INFO, info);
  uint32_t offset = result < 0 ? 0 : info->cap_offset;
  while (offset >= sizeof *info && offset <= size.argsz - sizeof(struct vfio_info_cap_header)) {
    struct vfio_info_cap_header *cap = (struct vfio_info_cap_header *)((char *)info + offset);
    if (cap->id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
      // Only what lies at the start is of use to somebody who maps one stretch.
      struct vfio_region_info_cap_sparse_mmap *sparse =
          (struct vfio_region_info_cap_sparse_mmap *)cap;
      region->mappable = 0;
      for (uint32_t i = 0; i < sparse->nr_areas; i++) {
        if (offset + sizeof *sparse + (i + 1) * sizeof sparse->areas[0] > size.argsz) break;
        if (sparse->areas[i].offset == 0) region->mappable = sparse->areas[i].size;
      }
    }
    offset = cap->next > offset ? cap->next : 0;
  }
  free(info);
  return result;
}

/// How many interrupts of a kind the device has.
static inline int vmbus_vfio_interrupt_count(int device, uint32_t index) {
  struct vfio_irq_info info = {.argsz = sizeof info, .index = index};
  int result = vmbus_vfio_call(device, VFIO_DEVICE_GET_IRQ_INFO, &info);
  if (result < 0) return result;
  if (!(info.flags & VFIO_IRQ_INFO_EVENTFD)) return 0;
  return info.count <= 2048 ? (int)info.count : 2048;
}

/// Enables the first `count` interrupts of a kind, each with its eventfd.
static inline int vmbus_vfio_enable_interrupts(
    int device, uint32_t index, const int32_t *_Nonnull events, uint32_t count) {
  size_t size = sizeof(struct vfio_irq_set) + count * sizeof *events;
  struct vfio_irq_set *set = (struct vfio_irq_set *)calloc(1, size);
  if (set == NULL) return -ENOMEM;
  set->argsz = (uint32_t)size;
  set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  set->index = index;
  set->count = count;
  memcpy(set->data, events, count * sizeof *events);
  int result = vmbus_vfio_call(device, VFIO_DEVICE_SET_IRQS, set);
  free(set);
  return result;
}

/// Disables all interrupts of a kind.
static inline int vmbus_vfio_disable_interrupts(int device, uint32_t index) {
  struct vfio_irq_set set = {
      .argsz = sizeof set,
      .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
      .index = index,
  };
  return vmbus_vfio_call(device, VFIO_DEVICE_SET_IRQS, &set);
}

/// One access of 1, 2 or 4 bytes to a region that is not mapped. 0 or -errno.
static inline int vmbus_vfio_read(
    int device, uint64_t offset, void *_Nonnull bytes, size_t count) {
  ssize_t done = pread(device, bytes, count, (off_t)offset);
  if (done < 0) return -errno;
  return (size_t)done == count ? 0 : -EIO;
}

static inline int vmbus_vfio_write(
    int device, uint64_t offset, const void *_Nonnull bytes, size_t count) {
  ssize_t done = pwrite(device, bytes, count, (off_t)offset);
  if (done < 0) return -errno;
  return (size_t)done == count ? 0 : -EIO;
}
