// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <errno.h>
#include <libudev.h>
#include <stddef.h>

/// The next event of a monitor, or NULL: with `error` 0 when there is none, ENOBUFS when the kernel
/// had more than the socket could hold and dropped some.
static inline struct udev_device *_Nullable vmbus_udev_receive(
    struct udev_monitor *_Nonnull monitor, int *_Nonnull error) {
  errno = 0;
  struct udev_device *device = udev_monitor_receive_device(monitor);
  *error = device != NULL || errno == EAGAIN || errno == EINTR ? 0 : errno;
  return device;
}
