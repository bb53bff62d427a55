/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hv_uservsc inside: what its files share.
 *
 * Locks, the outer ones first:
 *  - uservsc_device.lock: the device's state, its channels and its opener's regions. Held while the
 *    host is waited for. User memory is never touched under it: a fault could want to wait for the
 *    host.
 *  - uservsc_opener.map_sem: which regions may be mapped. Faults take it for reading, so whoever
 *    has it for writing must not wait for anything else.
 *  - uservsc_offers_lock (a spinlock): which device a new subchannel belongs to, and the device's
 *    eventfd. The core calls with a new subchannel while another thread may wait for that in
 *    vmbus_close(): hence not under the device's lock.
 *  - RCU: the doorbell and the interrupt look up a channel without a lock.
 */
#ifndef USERVSC_H
#define USERVSC_H

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/hyperv.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/xarray.h>

#include <asm/mshyperv.h>

#include "hv_uservsc.h"

#define USERVSC_NAME "hv_uservsc"

struct uservsc_opener;
struct uservsc_region;

/* A channel of the device: the primary, which is always there, or a subchannel that was offered. */
struct uservsc_channel {
	u32 index;
	u32 state;			/* HV_USERVSC_CHANNEL_*; under the device's lock */
	bool signals;			/* the doorbell works; read under RCU */
	struct vmbus_channel *vmbus;	/* a subchannel's is held by its kobject */
	struct eventfd_ctx *event;	/* read under RCU, by the interrupt */
	struct uservsc_region *ring;
	struct rcu_head rcu;
};

/* A bound device. It lives on, without its hv_device, as long as somebody has it open. */
struct uservsc_device {
	struct device dev;
	struct cdev cdev;
	struct mutex lock;		/* see above */
	struct hv_device *hv;		/* NULL after remove() */
	bool gone;			/* the same, for those without the lock */
	struct uservsc_opener *opener;
	struct uservsc_channel primary;
	struct xarray channels;		/* by index; written under uservsc_offers_lock */
	unsigned int subchannels;	/* under uservsc_offers_lock */
	bool takes_subchannels;		/* under uservsc_offers_lock */
	struct eventfd_ctx *news;	/* under uservsc_offers_lock */
	struct list_head entry;		/* of all devices; under uservsc_offers_lock */
	atomic64_t used_pages;
	atomic64_t leaked_pages;
};

struct uservsc_opener {
	struct uservsc_device *device;
	struct user_struct *user;	/* whose RLIMIT_MEMLOCK is used up */
	struct address_space *mapping;
	struct page *zero_page;		/* what is mapped where nothing is any more */
	struct page *status_page;	/* at offset 0 */
	struct rw_semaphore map_sem;
	struct xarray regions;		/* by number; written under map_sem */
	u64 next_region;
	bool hidden;			/* all are, for ever; under map_sem */
	struct list_head kept;		/* freed, but the host may write to them still */
};

/* Pages with what is to be done before they can be free again. */
struct uservsc_memory {
	unsigned long page_count;
	struct page **pages;		/* compound pages one after the other */
	unsigned long decrypted;	/* so many from the first on this module has made visible */
	bool unknown;			/* whether the chunk behind those is visible */
	bool opaque;			/* whether any is visible: never to be freed */
	void *buffer;			/* with a GPADL: all pages in a row */
	struct vmbus_gpadl gpadl;
	unsigned long charged;		/* pages */
	bool limited;			/* they are counted against the user's limit */
};

/* What can be mapped: a ring, or DMA memory. Numbers are never used twice by an opener. */
struct uservsc_region {
	u64 number;
	unsigned long page_count;
	bool shared;			/* user space maps it decrypted */
	bool is_ring;
	struct page *ring;		/* a ring's first page */
	unsigned long charged;		/* a ring's pages */
	bool limited;			/* they are counted against the user's limit */
	bool told;			/* user space knows the page numbers */
	struct uservsc_memory memory;
	struct list_head entry;		/* of `kept` */
};

/* A region's place in the file's offsets: its size is below this. */
#define USERVSC_REGION_SHIFT 30
#define USERVSC_REGION_MAX (1ULL << USERVSC_REGION_SHIFT)
#define USERVSC_REGION_NUMBERS (1ULL << (63 - USERVSC_REGION_SHIFT))

/*
 * The length of a GPADL's ranges is a u16 in its message, and the core does not look: 8 bytes, and
 * 8 for each page.
 */
#define USERVSC_GPADL_MAX round_down((u64)((U16_MAX - 8) / 8) * HV_HYP_PAGE_SIZE, PAGE_SIZE)
/* vmbus_alloc_ring() wants contiguous pages. A ring has a GPADL as well. */
#define USERVSC_RING_MAX min_t(u64, PAGE_SIZE << MAX_PAGE_ORDER, USERVSC_GPADL_MAX)

static inline u64 uservsc_region_offset(const struct uservsc_region *region)
{
	return region->number << USERVSC_REGION_SHIFT;
}

#ifdef HAVE_CONFIDENTIAL_CHANNELS
static inline bool uservsc_ring_encrypted(const struct vmbus_channel *channel)
{
	return channel->co_ring_buffer;
}

static inline bool uservsc_external_encrypted(const struct vmbus_channel *channel)
{
	return channel->co_external_memory;
}
#else
/* Such a kernel never asks for a confidential connection: nothing is encrypted for a device. */
static inline bool uservsc_ring_encrypted(const struct vmbus_channel *channel)
{
	return false;
}

static inline bool uservsc_external_encrypted(const struct vmbus_channel *channel)
{
	return false;
}
#endif

static inline u32 uservsc_visibility(bool encrypted)
{
	if (!hv_is_isolation_supported())
		return HV_USERVSC_PLAIN;
	return encrypted ? HV_USERVSC_ENCRYPTED : HV_USERVSC_SHARED;
}

static inline u32 uservsc_external_visibility(const struct uservsc_device *device)
{
	return uservsc_visibility(uservsc_external_encrypted(device->hv->channel));
}

/* driver.c */
void uservsc_count_leak(struct uservsc_device *device, unsigned long pages, const char *what);

/* file.c */
extern const struct file_operations uservsc_file_operations;
void uservsc_end_opener(struct uservsc_opener *opener);

/* channel.c */
void uservsc_init_primary(struct uservsc_device *device);
int uservsc_open_channel(struct uservsc_opener *opener, struct hv_uservsc_open *request);
int uservsc_close_channel(struct uservsc_opener *opener, u32 index);
struct uservsc_channel *uservsc_find_channel(struct uservsc_device *device, u32 index);
void uservsc_close_all(struct uservsc_opener *opener);
int uservsc_signal(struct uservsc_device *device, unsigned long index);

/* subchannel.c */
extern spinlock_t uservsc_offers_lock;
void uservsc_add_device(struct uservsc_device *device);
void uservsc_delete_device(struct uservsc_device *device);
void uservsc_take_subchannels(struct uservsc_device *device, bool takes);
void uservsc_subchannel_offered(struct vmbus_channel *channel);
void uservsc_forget_subchannels(struct uservsc_device *device);
void uservsc_forget_rescinded(struct uservsc_device *device);
void uservsc_forget_subchannel(struct uservsc_device *device, struct uservsc_channel *channel);
int uservsc_describe_channel(struct uservsc_device *device, struct hv_uservsc_channel *answer);
void uservsc_set_news(struct uservsc_device *device, struct eventfd_ctx *event);
void uservsc_tell_news(struct uservsc_device *device);

/* memory.c */
int uservsc_alloc_memory(struct uservsc_opener *opener, struct uservsc_memory *memory, u64 bytes,
			 bool gpadl);
void uservsc_end_gpadl(struct uservsc_device *device, struct uservsc_memory *memory);
void uservsc_free_memory(struct uservsc_opener *opener, struct uservsc_memory *memory);

/* region.c */
int uservsc_alloc_dma(struct uservsc_opener *opener, struct hv_uservsc_dma *request, u64 *numbers);
int uservsc_free_dma(struct uservsc_opener *opener, u64 offset);
void uservsc_free_kept(struct uservsc_opener *opener);
void uservsc_hide_all(struct uservsc_opener *opener);
void uservsc_free_all_dma(struct uservsc_opener *opener);
int uservsc_insert_region(struct uservsc_opener *opener, struct uservsc_region *region);
void uservsc_show_ring(struct uservsc_opener *opener, struct uservsc_region *region,
		       const struct vmbus_channel *channel);
void uservsc_remove_region(struct uservsc_opener *opener, struct uservsc_region *region);
int uservsc_mmap(struct file *file, struct vm_area_struct *vma);

/* account.c */
u64 uservsc_device_limit(void);
int uservsc_charge(struct uservsc_opener *opener, unsigned long pages, bool *limited);
void uservsc_uncharge(struct uservsc_opener *opener, unsigned long pages, bool limited);

#endif
