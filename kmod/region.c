// SPDX-License-Identifier: GPL-2.0
/*
 * What can be mapped, and its mappings.
 *
 * Pages are mapped when they are touched, never by mmap() itself: so the end of a region has only
 * to keep faults from finding it, and then to take away what was mapped. What is touched after that
 * gets the opener's zero page: the end of a device must not kill who polls its ring.
 */
#include <linux/slab.h>

#include "uservsc.h"

/* --- DMA memory ------------------------------------------------------------------------- */

/* Whoever gets page numbers in `numbers` may give them to the host. */
int uservsc_alloc_dma(struct uservsc_opener *opener, struct hv_uservsc_dma *request, u64 *numbers)
{
	const u32 per_page = PAGE_SIZE / HV_HYP_PAGE_SIZE;
	bool gpadl = request->flags & HV_USERVSC_DMA_GPADL;
	struct uservsc_region *region;
	u32 index;
	int err;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	err = uservsc_alloc_memory(opener, &region->memory, request->bytes, gpadl);
	if (err)
		goto free;
	region->page_count = region->memory.page_count;
	region->shared = request->visibility == HV_USERVSC_SHARED;
	region->told = numbers;
	err = uservsc_insert_region(opener, region);
	if (err) {
		uservsc_free_memory(opener, &region->memory);
		goto free;
	}
	request->offset = uservsc_region_offset(region);
	request->gpadl = region->memory.gpadl.gpadl_handle;
	for (index = 0; index < request->page_count; index++) {
		struct page *page = region->memory.pages[index / per_page];

		numbers[index] = page_to_hvpfn(page) + index % per_page;
	}
	return 0;

free:
	kfree(region);
	return err;
}

static void free_region(struct uservsc_opener *opener, struct uservsc_region *region)
{
	uservsc_free_memory(opener, &region->memory);
	kfree(region);
}

int uservsc_free_dma(struct uservsc_opener *opener, u64 offset)
{
	struct uservsc_region *region = xa_load(&opener->regions, offset >> USERVSC_REGION_SHIFT);

	if (!region || region->is_ring || offset != uservsc_region_offset(region))
		return -ENOENT;
	uservsc_remove_region(opener, region);
	uservsc_end_gpadl(opener->device, &region->memory);
	/* Until the channel is closed the host may do what it was told to do with these pages. */
	if (region->told && opener->device->primary.state == HV_USERVSC_CHANNEL_OPEN)
		list_add(&region->entry, &opener->kept);
	else
		free_region(opener, region);
	return 0;
}

/* The primary channel is closed. */
void uservsc_free_kept(struct uservsc_opener *opener)
{
	struct uservsc_region *region, *next;

	list_for_each_entry_safe(region, next, &opener->kept, entry) {
		list_del(&region->entry);
		free_region(opener, region);
	}
}

/* The same, and the device is at its end. */
void uservsc_free_all_dma(struct uservsc_opener *opener)
{
	struct uservsc_region *region;
	unsigned long number;

	xa_for_each(&opener->regions, number, region) {
		if (WARN_ON_ONCE(region->is_ring))
			continue;
		uservsc_remove_region(opener, region);
		free_region(opener, region);
	}
	uservsc_free_kept(opener);
}

/* --- Regions ---------------------------------------------------------------------------- */

int uservsc_insert_region(struct uservsc_opener *opener, struct uservsc_region *region)
{
	int err;

	if (opener->next_region == USERVSC_REGION_NUMBERS)
		return -ENOMEM;
	region->number = opener->next_region;
	down_write(&opener->map_sem);
	err = xa_insert(&opener->regions, region->number, region, GFP_KERNEL_ACCOUNT);
	up_write(&opener->map_sem);
	if (!err)
		opener->next_region++;
	return err;
}

/* A ring has its number before it has pages: nothing can fail when the channel is open. */
void uservsc_show_ring(struct uservsc_opener *opener, struct uservsc_region *region,
		       const struct vmbus_channel *channel)
{
	down_write(&opener->map_sem);
	region->ring = channel->ringbuffer_page;
	region->page_count = channel->ringbuffer_pagecount;
	up_write(&opener->map_sem);
}

static void unmap(struct uservsc_opener *opener, u64 offset, u64 bytes)
{
	unmap_mapping_range(opener->mapping, offset, bytes, 1);
}

/* After this no user maps it, and none will. */
void uservsc_remove_region(struct uservsc_opener *opener, struct uservsc_region *region)
{
	down_write(&opener->map_sem);
	xa_erase(&opener->regions, region->number);
	up_write(&opener->map_sem);
	unmap(opener, uservsc_region_offset(region), USERVSC_REGION_MAX);
}

/* The same for all regions at once, which stay in the table. */
void uservsc_hide_all(struct uservsc_opener *opener)
{
	u32 *ended = page_address(opener->status_page);

	WRITE_ONCE(*ended, 1);
	/* Who finds the zero page where something was has to find this as well: by a fault, too. */
	smp_wmb();
	down_write(&opener->map_sem);
	opener->hidden = true;
	up_write(&opener->map_sem);
	/* All but the status page; 0: to the end. */
	unmap(opener, PAGE_SIZE, 0);
}

/* --- Mappings --------------------------------------------------------------------------- */

static vm_fault_t region_fault(struct vm_fault *vmf)
{
	const unsigned int shift = USERVSC_REGION_SHIFT - PAGE_SHIFT;
	struct vm_area_struct *vma = vmf->vma;
	struct uservsc_opener *opener = vma->vm_file->private_data;
	unsigned long index = vmf->pgoff & ((1UL << shift) - 1);
	unsigned long frame = page_to_pfn(opener->zero_page);
	pgprot_t protection = vma->vm_page_prot;
	struct uservsc_region *region;
	vm_fault_t result;

	if (!vmf->pgoff)
		return vmf_insert_pfn_prot(vma, vmf->address, page_to_pfn(opener->status_page),
					   protection);
	down_read(&opener->map_sem);
	region = opener->hidden ? NULL : xa_load(&opener->regions, vmf->pgoff >> shift);
	if (region && index < region->page_count) {
		if (region->is_ring)
			frame = page_to_pfn(region->ring) + index;
		else
			frame = page_to_pfn(region->memory.pages[index]);
		if (region->shared)
			protection = pgprot_decrypted(protection);
	}
	result = vmf_insert_pfn_prot(vma, vmf->address, frame, protection);
	up_read(&opener->map_sem);
	return result;
}

static const struct vm_operations_struct region_operations = {
	.fault = region_fault,
};

int uservsc_mmap(struct file *file, struct vm_area_struct *vma)
{
	const unsigned int shift = USERVSC_REGION_SHIFT - PAGE_SHIFT;
	struct uservsc_opener *opener = file->private_data;
	unsigned long index = vma->vm_pgoff & ((1UL << shift) - 1);
	vm_flags_t never = VM_MAYEXEC;
	struct uservsc_region *region;
	unsigned long page_count = 0;
	bool hidden;

	if (!(vma->vm_flags & VM_SHARED) || (vma->vm_flags & VM_EXEC))
		return -EINVAL;
	down_read(&opener->map_sem);
	hidden = opener->hidden;
	region = xa_load(&opener->regions, vma->vm_pgoff >> shift);
	if (region)
		page_count = region->page_count;
	up_read(&opener->map_sem);
	if (hidden)
		return -ENODEV;
	if (!vma->vm_pgoff) {
		/* The status page: to be read only. */
		if (vma->vm_flags & VM_WRITE)
			return -EINVAL;
		never |= VM_MAYWRITE;
		page_count = 1;
	}
	if (index >= page_count || vma_pages(vma) > page_count - index)
		return -EINVAL;
	/* Not for a child: it would keep what its parent gives up. */
	vm_flags_mod(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY, never);
	vma->vm_ops = &region_operations;
	return 0;
}
