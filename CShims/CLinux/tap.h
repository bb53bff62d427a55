// SPDX-License-Identifier: Apache-2.0
//
// TAP network devices, with a virtio-net header before each frame. Failing calls return -errno.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "linux.h"

/// Bytes of the virtio-net header: the one without a count of buffers.
#define VMBUS_VNET_HEADER_BYTES 10
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

static inline int vmbus_tun_open(void) {
  return vmbus_result(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
}

static inline void vmbus_name_interface(
    struct ifreq *_Nonnull request, const char *_Nonnull name) {
  memset(request, 0, sizeof *request);
  strncpy(request->ifr_name, name, sizeof request->ifr_name - 1);
}

/// Makes an opened /dev/net/tun a queue of the TAP device of that name. With `exclusive` the device
/// is made, and -EBUSY when one of that name exists.
static inline int vmbus_tap_attach(int fd, const char *_Nonnull name, bool exclusive) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  unsigned flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  if (exclusive) flags |= IFF_TUN_EXCL;
  request.ifr_flags = (short)flags;
  return vmbus_result(ioctl(fd, TUNSETIFF, &request));
}

/// Whether the device stays when its last queue is closed: 1 or 0.
static inline int vmbus_tap_is_persistent(int fd) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (ioctl(fd, TUNGETIFF, &request) < 0) return -errno;
  return ((unsigned short)request.ifr_flags & IFF_PERSIST) != 0;
}

/// The header's size and its byte order: little-endian.
static inline int vmbus_tap_set_header(int fd) {
  int size = VMBUS_VNET_HEADER_BYTES, little = 1;
  if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) return -errno;
  return vmbus_result(ioctl(fd, TUNSETVNETLE, &little));
}

/// Tells the kernel which work (TUN_F_*) may be left to the reader of the device.
static inline int vmbus_tap_set_offload(int fd, unsigned flags) {
  return vmbus_result(ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags));
}

static inline int vmbus_tap_set_carrier(int fd, bool on) {
  int value = on;
  return vmbus_result(ioctl(fd, TUNSETCARRIER, &value));
}

/// A socket for the calls below: they reach the interfaces of the network namespace in which it was
/// made.
static inline int vmbus_interface_socket(void) {
  return vmbus_result(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

static inline int vmbus_interface_set_mtu(int socket, const char *_Nonnull name, int mtu) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  request.ifr_mtu = mtu;
  return vmbus_result(ioctl(socket, SIOCSIFMTU, &request));
}

static inline int vmbus_interface_mtu(int socket, const char *_Nonnull name) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  if (ioctl(socket, SIOCGIFMTU, &request) < 0) return -errno;
  return request.ifr_mtu;
}

static inline int vmbus_interface_set_address(
    int socket, const char *_Nonnull name, const uint8_t *_Nonnull address) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(request.ifr_hwaddr.sa_data, address, 6);
  return vmbus_result(ioctl(socket, SIOCSIFHWADDR, &request));
}

static inline int vmbus_interface_address(
    int socket, const char *_Nonnull name, uint8_t *_Nonnull address) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  if (ioctl(socket, SIOCGIFHWADDR, &request) < 0) return -errno;
  memcpy(address, request.ifr_hwaddr.sa_data, 6);
  return 0;
}

static inline int vmbus_interface_set_up(int socket, const char *_Nonnull name, bool up) {
  struct ifreq request;
  vmbus_name_interface(&request, name);
  if (ioctl(socket, SIOCGIFFLAGS, &request) < 0) return -errno;
  short flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  if (flags == request.ifr_flags) return 0;
  request.ifr_flags = flags;
  return vmbus_result(ioctl(socket, SIOCSIFFLAGS, &request));
}

/// The most bytes that the stack leaves to the device in one frame of several segments (at most 65536).
static inline int vmbus_interface_set_gso_limit(const char *_Nonnull name, uint32_t limit) {
  struct {
    struct nlmsghdr header;
    struct ifinfomsg interface;
    struct rtattr attribute;
    uint32_t value;
  } request;
  memset(&request, 0, sizeof request);
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_NEWLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.interface.ifi_family = AF_UNSPEC;
  request.interface.ifi_index = (int)if_nametoindex(name);
  if (request.interface.ifi_index == 0) return -errno;
  request.attribute.rta_len = RTA_LENGTH(sizeof request.value);
  request.attribute.rta_type = IFLA_GSO_MAX_SIZE;
  request.value = limit;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
    char rest[256];
  } answer;
  ssize_t count = send(fd, &request, sizeof request, 0);
  if (count >= 0) count = recv(fd, &answer, sizeof answer, 0);
  int error = count < 0 ? -errno : -EPROTO;
  close(fd);
  if (count < (ssize_t)(sizeof answer.header + sizeof answer.error)) return error;
  return answer.header.nlmsg_type == NLMSG_ERROR ? answer.error.error : -EPROTO;
}

/// Reads one frame with its header; the count without the header, or -errno: -EAGAIN when none
/// waits. A frame that does not fit is cut off at `capacity`.
static inline int64_t vmbus_tap_read(
    int fd, void *_Nonnull header, void *_Nonnull frame, size_t capacity) {
  struct iovec parts[2] = {
      {.iov_base = header, .iov_len = VMBUS_VNET_HEADER_BYTES},
      {.iov_base = frame, .iov_len = capacity},
  };
  ssize_t count = readv(fd, parts, 2);
  if (count < 0) return -(int64_t)errno;
  return count < VMBUS_VNET_HEADER_BYTES ? -(int64_t)EIO : count - VMBUS_VNET_HEADER_BYTES;
}

/// Writes one frame with its header: 0 or -errno.
static inline int vmbus_tap_write(
    int fd, const void *_Nonnull header, const void *_Nonnull frame, size_t count) {
  struct iovec parts[2] = {
      {.iov_base = (void *)header, .iov_len = VMBUS_VNET_HEADER_BYTES},
      {.iov_base = (void *)frame, .iov_len = count},
  };
  return writev(fd, parts, 2) < 0 ? -errno : 0;
}
