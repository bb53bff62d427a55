/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR Apache-2.0) */
/*
 * The interface of hv_uservsc: VMBus devices for drivers (VSCs) in user space.
 *
 * A device is bound to the driver "hv_uservsc" by driver_override. It then has a character device
 * /dev/vmbus/<instance GUID>, e.g. /dev/vmbus/ba6163d9-04a1-4d29-b605-72e2ffb1dc7f (mode 0600; a
 * udev rule may widen it), and a class device /sys/class/hv_uservsc/<instance GUID>.
 *
 * open(2): O_RDWR (EACCES otherwise). One opener at a time: EBUSY. A descriptor that was
 * duplicated, inherited or passed on is the same opener. ENODEV: the device is going away. What the
 * opener had ends with the last close of the descriptor and the last munmap, whatever the reason
 * (SIGKILL too), in this order: no user mapping is left, channels are closed, GPADLs are torn down,
 * memory is scrubbed, made private again, freed. What could not be made private again is never
 * freed, but counted (hv_uservsc_info.leaked_pages, /sys/class/hv_uservsc/leaked_pages) and logged.
 *
 * The end of the device (the host rescinded the offer, or the driver was unbound): the same is done
 * at once. Every mapping turns into one private page, zero at first, that is shared by all of them
 * (no SIGBUS, reads and writes go on and mean nothing); the device's eventfd and those of all
 * channels are signalled; every ioctl and mmap answers ENODEV. Close the descriptor then; the
 * device comes back, if it does, as a new offer with nothing bound to it.
 *
 * The status page: mmap(2) at HV_USERVSC_STATUS_OFFSET, one page, PROT_READ, MAP_SHARED. Its first
 * __u32 is 0, and 1 before any mapping turns into the zero page by the end of the device: look at
 * it, after a load barrier, when something was copied out of a mapping. The page stays.
 *
 * Structures: `size` is sizeof the structure; any other value is refused with EINVAL. `flags` and
 * `reserved` fields must be 0, or hold flags that are defined here: EINVAL. Fields that are marked
 * [out] are ignored as input. When a call fails, nothing is written back.
 *
 * Errors of every call: ENODEV as above; EFAULT; EINVAL as above; ENOTTY for an unknown call.
 *
 * Threads: every call may be made from every thread at every time. SIGNAL takes no lock; the others
 * wait for each other, and OPEN, CLOSE, DMA_ALLOC and DMA_FREE may wait for the host.
 *
 * Trust: an opener writes the ring itself, so it can name any physical page to the host (as with
 * UIO). Give the device only to those who may do that.
 */
#ifndef HV_USERVSC_H
#define HV_USERVSC_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The interface's version: raised when something changes incompatibly. */
#define HV_USERVSC_VERSION 1

#define HV_USERVSC_USER_BYTES 120

/* For mmap(2): the status page. All other offsets are told by calls. */
#define HV_USERVSC_STATUS_OFFSET 0

/*
 * How memory is seen. Where a field of this kind is [in, out], 0 asks for what the channel has by
 * its offer; another value is an expectation: when the channel has something else, the call fails
 * with EPERM and nothing is allocated.
 */
#define HV_USERVSC_PLAIN	1	/* the machine is not isolated: the host sees all memory */
#define HV_USERVSC_SHARED	2	/* isolated machine: decrypted, the host sees it */
#define HV_USERVSC_ENCRYPTED	3	/* isolated machine: private, only a paravisor sees it */

/* hv_uservsc_info.features */
/*
 * The kernel knows confidential channels. Without it the kernel never asks for a confidential
 * connection: all rings and external memory of an isolated machine are SHARED then, and that is
 * what the fields below say.
 */
#define HV_USERVSC_FEATURE_CONFIDENTIAL	(1u << 0)

/* What does not change while the device is bound. */
struct hv_uservsc_info {
	__u32 size;
	__u32 flags;			/* 0 */
	__u32 version;			/* [out] HV_USERVSC_VERSION */
	__u32 features;			/* [out] HV_USERVSC_FEATURE_* */
	__u32 vmbus_version;		/* [out] major << 16 | minor, as the kernel negotiated it */
	__u32 isolated;			/* [out] 1: the machine hides its memory from the host */
	__u32 external_visibility;	/* [out] of DMA memory: HV_USERVSC_PLAIN, ... */
	__u32 page_size;		/* [out] bytes; page numbers are of 4096 always */
	__u8 class_id[16];		/* [out] GUIDs as in the offer: fields are little endian */
	__u8 instance_id[16];		/* [out] */
	__u32 offer_flags;		/* [out] the offer's flags, as the host sent them */
	__u32 mmio_megabytes;		/* [out] */
	__u64 ring_bytes_max;		/* [out] limit of tx_bytes + rx_bytes of one channel */
	__u64 region_bytes_max;		/* [out] limit of one DMA region */
	__u64 gpadl_bytes_max;		/* [out] limit of one with a GPADL */
	__u64 device_bytes_max;		/* [out] limit of the device: module parameter */
	__u64 device_bytes_used;	/* [out] of it in use, rings included */
	__u64 leaked_pages;		/* [out] of this device, since it was bound */
	__u8 offer_user[HV_USERVSC_USER_BYTES];	/* [out] the offer's user-defined bytes */
};

/* hv_uservsc_channel.state */
#define HV_USERVSC_CHANNEL_OFFERED	1
#define HV_USERVSC_CHANNEL_OPEN		2
/*
 * A subchannel that the host has taken back while it was open: SIGNAL answers ENOTCONN. Nobody is
 * told of it (the kernel has no call for that); CHANNEL shows it.
 */
#define HV_USERVSC_CHANNEL_RESCINDED	3
/* A subchannel after CLOSE: see there. */
#define HV_USERVSC_CHANNEL_CLOSED	4

/*
 * A channel: the one with the lowest number that is not below `channel`. So, from 0 on with
 * `channel` + 1, all of them. ENOENT: there is none any more. Number 0 is the primary channel,
 * the others are subchannels by the index that the host gave them (1 to 65535).
 */
struct hv_uservsc_channel {
	__u32 size;
	__u32 flags;			/* 0 */
	__u32 channel;			/* [in, out] */
	__u32 state;			/* [out] HV_USERVSC_CHANNEL_* */
	__u32 relid;			/* [out] */
	__u32 connection_id;		/* [out] */
	__u32 monitor_allocated;	/* [out] 1: SIGNAL sets a bit of the monitor page */
	__u32 monitor_id;		/* [out] */
	__u32 dedicated_interrupt;	/* [out] */
	__u32 ring_visibility;		/* [out] HV_USERVSC_PLAIN, ...: by the offer */
	__u32 target_cpu;		/* [out] takes the interrupts; set through sysfs */
	__u32 reserved;			/* 0 */
};

/*
 * Opens a channel. The ring is one mapping of `ring_bytes` bytes at `offset`: the transmit ring
 * (control page first) of `tx_bytes`, then the receive ring of `rx_bytes`. Both are multiples of
 * the page size and at least two pages (EINVAL), together at most ring_bytes_max (E2BIG).
 *
 * The interrupt mask of the ring is user space's: the module never touches it, and signals the
 * eventfd once for each interrupt. The callback runs in interrupt context, nothing is buffered. The
 * eventfd may be any, also the same for several channels; -1 means none.
 *
 * A subchannel can be opened when it was offered, that is after the primary was opened and the
 * provider was asked for it: see DEVICE_EVENTFD.
 *
 * EBUSY: it is open, or a subchannel that was closed. ENOENT: no such channel. EBADF, EINVAL: not
 * an eventfd. EPERM: the visibility expected is not the ring's. ENOMEM: memory, RLIMIT_MEMLOCK (of
 * the user who opened the device, together with io_uring and others; not with CAP_IPC_LOCK) or the
 * device's limit. EIO: the host refused. When writing the answer back fails with EFAULT, the
 * channel is open all the same.
 */
struct hv_uservsc_open {
	__u32 size;
	__u32 flags;			/* 0 */
	__u32 channel;			/* 0: primary; else the subchannel's index */
	__u32 tx_bytes;
	__u32 rx_bytes;
	__s32 eventfd;			/* or -1 */
	__u32 ring_visibility;		/* [in, out] */
	__u32 relid;			/* [out] */
	__u64 offset;			/* [out] for mmap(2): opaque, never given twice */
	__u64 ring_bytes;		/* [out] */
	__u8 user_data[HV_USERVSC_USER_BYTES];	/* of the open message */
};

/* Closes one channel: see HV_USERVSC_CLOSE. */
struct hv_uservsc_close {
	__u32 size;
	__u32 flags;			/* 0 */
	__u32 channel;
	__u32 reserved;			/* 0 */
};

/*
 * An eventfd for what happens to the device: a subchannel was offered, the device's offer was
 * rescinded, the driver was unbound. Signalled once for each; look (CHANNEL, INFO) for what it was.
 * It is also signalled when it is set. Replaces the one before; -1: none.
 */
struct hv_uservsc_eventfd {
	__u32 size;
	__u32 flags;			/* 0 */
	__s32 eventfd;
	__u32 reserved;			/* 0 */
};

/* hv_uservsc_dma.flags */
/*
 * Establishes a GPADL over the whole region, of the primary channel (which need not be open). It
 * lives as long as the region: there is no other way to make or end one, since kernels before 6.19
 * change the memory's visibility when they establish a GPADL and when they tear it down.
 */
#define HV_USERVSC_DMA_GPADL	(1u << 0)

/*
 * DMA memory: a region of zero bytes whose pages do not move. `bytes` is a multiple of the page
 * size (EINVAL) and at most region_bytes_max, or gpadl_bytes_max (E2BIG). Map it at `offset`; parts
 * of it may be mapped, also several times. write(2), read(2), send(2) etc. from the mapping work;
 * what pins user pages (O_DIRECT, vmsplice, io_uring's registered buffers) answers EFAULT.
 *
 * `pages` is a user pointer to page_count elements of __u64, which must be bytes / 4096 (EINVAL),
 * for the guest page number of each 4096 bytes; or 0, with page_count 0: then they are not told.
 *
 * Visibility is the device's: external_visibility.
 *
 * ENOMEM as in OPEN. EIO: the host refused the GPADL or the change of visibility. When writing the
 * answer or the page numbers fails with EFAULT, the region is freed as by DMA_FREE.
 */
struct hv_uservsc_dma {
	__u32 size;
	__u32 flags;			/* HV_USERVSC_DMA_GPADL */
	__u64 bytes;
	__u64 pages;			/* pointer to __u64[page_count], or 0 */
	__u32 page_count;
	__u32 visibility;		/* [in, out] */
	__u64 offset;			/* [out] for mmap(2), and its name; never given twice */
	__u32 gpadl;			/* [out] handle, or 0 */
	__u32 reserved;			/* 0 */
};

/*
 * Gives a region back. Its mappings turn into the zero page (see above) at once, its GPADL is torn
 * down. Whatever the host was told to do with the region must be over: memory outlives the device's
 * use of it, so a region whose page numbers were told is kept, out of reach and still counted
 * against the limits, until the primary channel is closed, if that is open. One with a GPADL whose
 * numbers were not told is free when the host has confirmed the teardown. ENOENT: `offset` is not
 * that of a region.
 */
struct hv_uservsc_dma_free {
	__u32 size;
	__u32 flags;			/* 0 */
	__u64 offset;
};

#define HV_USERVSC_IOC 0xBC

#define HV_USERVSC_INFO		_IOWR(HV_USERVSC_IOC, 0x00, struct hv_uservsc_info)
#define HV_USERVSC_CHANNEL	_IOWR(HV_USERVSC_IOC, 0x01, struct hv_uservsc_channel)
#define HV_USERVSC_DEVICE_EVENTFD _IOW(HV_USERVSC_IOC, 0x02, struct hv_uservsc_eventfd)
#define HV_USERVSC_OPEN		_IOWR(HV_USERVSC_IOC, 0x03, struct hv_uservsc_open)
/*
 * Closes a channel: its mappings turn into the zero page, its eventfd is let go. Closing the
 * primary closes all subchannels first, forgets them, and frees the regions that DMA_FREE kept;
 * other regions, and their GPADLs, stay. The primary can be opened again, and the provider asked
 * for subchannels again.
 *
 * Linux closes subchannels only with their primary. So one that is closed alone is out of user
 * space's reach at once, but its ring stays with the host, and its memory counted, until the
 * primary is closed; till then it can't be opened again.
 *
 * ENOTCONN: it is not open. ENOENT: no such channel.
 */
#define HV_USERVSC_CLOSE	_IOW(HV_USERVSC_IOC, 0x04, struct hv_uservsc_close)
/*
 * The doorbell of one channel; the argument is its number, not a pointer. Nothing else is looked
 * at: whether to signal is decided by the ring's mask and indices, as user space reads them.
 * ENOTCONN: not open.
 */
#define HV_USERVSC_SIGNAL	_IO(HV_USERVSC_IOC, 0x05)
#define HV_USERVSC_DMA_ALLOC	_IOWR(HV_USERVSC_IOC, 0x06, struct hv_uservsc_dma)
#define HV_USERVSC_DMA_FREE	_IOW(HV_USERVSC_IOC, 0x07, struct hv_uservsc_dma_free)

#endif
