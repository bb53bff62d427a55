// SPDX-License-Identifier: GPL-2.0
/*
 * DMA memory: pages, whether the host sees them, and the GPADL over them.
 *
 * Pages are decrypted chunk by chunk at their address in the direct map, as the DMA API does it:
 * that is the one way that every kind of machine has. They are contiguous as far as they can be had
 * so: each change of a page's encryption splits a large page of the direct map.
 *
 * They are the module's own, not of dma_alloc_coherent(): that would hold the hv_device, whose
 * release tells the host that the channel's number is free.
 */
#include <linux/gfp.h>
#include <linux/sched/signal.h>
#include <linux/set_memory.h>
#include <linux/vmalloc.h>

#include "uservsc.h"

/*
 * A kernel without vmbus_establish_gpadl_caller_decrypted() decrypts what it establishes a GPADL
 * over, and encrypts it again at the teardown.
 */
#ifdef HAVE_GPADL_CALLER_DECRYPTED
static const bool core_decrypts;

static int establish(struct vmbus_channel *channel, struct uservsc_memory *memory)
{
	u32 bytes = memory->page_count << PAGE_SHIFT;

	if (memory->decrypted)
		return vmbus_establish_gpadl_caller_decrypted(channel, memory->buffer, bytes,
							      &memory->gpadl);
	return vmbus_establish_gpadl(channel, memory->buffer, bytes, &memory->gpadl);
}
#else
static const bool core_decrypts = true;

static int establish(struct vmbus_channel *channel, struct uservsc_memory *memory)
{
	return vmbus_establish_gpadl(channel, memory->buffer, memory->page_count << PAGE_SHIFT,
				     &memory->gpadl);
}
#endif

#define for_each_chunk(index, memory) \
	for ((index) = 0; (index) < (memory)->page_count; (index) += chunk_pages((memory), (index)))

static unsigned long chunk_pages(const struct uservsc_memory *memory, unsigned long index)
{
	return 1UL << folio_order(page_folio(memory->pages[index]));
}

static void scrub(const struct uservsc_memory *memory)
{
	unsigned long index;

	for_each_chunk(index, memory) {
		memset(page_address(memory->pages[index]), 0,
		       chunk_pages(memory, index) << PAGE_SHIFT);
		cond_resched();
	}
}

/* Fills memory->pages; page_count is that of the pages that are there, also when it fails. */
static int alloc_chunks(struct uservsc_device *device, struct uservsc_memory *memory,
			unsigned long page_count)
{
	int node = dev_to_node(&device->hv->device);
	unsigned int order = MAX_PAGE_ORDER;

	while (memory->page_count < page_count) {
		gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_COMP;
		struct page *page;
		unsigned long index;

		order = min_t(unsigned int, order, ilog2(page_count - memory->page_count));
		/* Who asks for too much gets nothing; nobody else is killed for it. */
		gfp |= order ? __GFP_NORETRY : __GFP_RETRY_MAYFAIL;
		page = alloc_pages_node(node, gfp, order);
		if (!page) {
			if (!order--)
				return -ENOMEM;
			continue;
		}
		for (index = 0; index < 1UL << order; index++)
			memory->pages[memory->page_count++] = page + index;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* Stops at the first chunk that fails: whether that one is visible is not known then. */
static int decrypt_chunks(struct uservsc_memory *memory)
{
	unsigned long index;

	for_each_chunk(index, memory) {
		unsigned long address = (unsigned long)page_address(memory->pages[index]);

		if (set_memory_decrypted(address, chunk_pages(memory, index))) {
			memory->unknown = true;
			return -EIO;
		}
		memory->decrypted = index + chunk_pages(memory, index);
		cond_resched();
	}
	return 0;
}

static bool make_private(struct uservsc_memory *memory, unsigned long index)
{
	unsigned long address = (unsigned long)page_address(memory->pages[index]);

	if (memory->opaque || (memory->unknown && index == memory->decrypted))
		return false;
	if (index >= memory->decrypted)
		return true;
	return !set_memory_encrypted(address, chunk_pages(memory, index));
}

/* Frees what can be made private again. */
static void free_chunks(struct uservsc_device *device, struct uservsc_memory *memory)
{
	unsigned long index, leaked = 0, pages;

	for (index = 0; index < memory->page_count; index += pages) {
		struct page *page = memory->pages[index];

		pages = chunk_pages(memory, index);
		if (make_private(memory, index))
			__free_pages(page, folio_order(page_folio(page)));
		else
			leaked += pages;
		cond_resched();
	}
	if (leaked)
		uservsc_count_leak(device, leaked, "DMA memory");
	kvfree(memory->pages);
	memory->pages = NULL;
}

static int establish_gpadl(struct uservsc_device *device, struct uservsc_memory *memory)
{
	pgprot_t protection = memory->decrypted ? pgprot_decrypted(PAGE_KERNEL) : PAGE_KERNEL;
	int err;

	memory->buffer = vmap(memory->pages, memory->page_count, VM_MAP, protection);
	if (!memory->buffer)
		return -ENOMEM;
	err = establish(device->hv->channel, memory);
	if (err) {
		/* The core tried to make it private again. */
		memory->opaque = core_decrypts && memory->gpadl.decrypted;
		return err == -ENODEV || err == -ENOMEM ? err : -EIO;
	}
	return 0;
}

/*
 * Allocates zeroed memory, visible as the device's external memory has to be, with a GPADL of the
 * primary channel when that is wanted.
 */
int uservsc_alloc_memory(struct uservsc_opener *opener, struct uservsc_memory *memory, u64 bytes,
			 bool gpadl)
{
	struct uservsc_device *device = opener->device;
	bool visible = uservsc_external_visibility(device) == HV_USERVSC_SHARED;
	unsigned long page_count = bytes >> PAGE_SHIFT;
	int err;

	err = uservsc_charge(opener, page_count, &memory->limited);
	if (err)
		return err;
	memory->charged = page_count;
	memory->pages = kvmalloc_array(page_count, sizeof(*memory->pages), GFP_KERNEL_ACCOUNT);
	err = memory->pages ? alloc_chunks(device, memory, page_count) : -ENOMEM;
	if (!err && visible && !(gpadl && core_decrypts))
		err = decrypt_chunks(memory);
	if (!err && gpadl)
		err = establish_gpadl(device, memory);
	if (err) {
		uservsc_free_memory(opener, memory);
		return err;
	}
	/* Decryption changes what is read: perhaps to what was there when it was visible last. */
	if (visible)
		scrub(memory);
	return 0;
}

/* The host has no right to the memory by its GPADL after this; it may still have page numbers. */
void uservsc_end_gpadl(struct uservsc_device *device, struct uservsc_memory *memory)
{
	struct vmbus_channel *channel;

	if (memory->gpadl.gpadl_handle) {
		channel = device->hv->channel;
		/* What the core makes private again can be scrubbed only before. */
		if (core_decrypts)
			scrub(memory);
		vmbus_teardown_gpadl(channel, &memory->gpadl);
		/* The core tells neither that it could not ask the host, nor that it need not. */
		if (memory->gpadl.gpadl_handle && !channel->rescind)
			memory->opaque = true;
		if (memory->gpadl.decrypted)
			memory->opaque = true;
		memory->gpadl.gpadl_handle = 0;
	}
	if (memory->buffer)
		vunmap(memory->buffer);
	memory->buffer = NULL;
}

/* Nobody maps it any more, and the host is done with it. */
void uservsc_free_memory(struct uservsc_opener *opener, struct uservsc_memory *memory)
{
	uservsc_end_gpadl(opener->device, memory);
	if (memory->decrypted && !memory->unknown)
		scrub(memory);
	free_chunks(opener->device, memory);
	uservsc_uncharge(opener, memory->charged, memory->limited);
}
