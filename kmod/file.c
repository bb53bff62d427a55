// SPDX-License-Identifier: GPL-2.0
/*
 * The device's file: its one opener and its calls. Each call copies its structure in, checks it,
 * acts under the device's lock, and copies the answer out when it has let that go.
 */
#include <linux/cred.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "uservsc.h"

/* The answers ENODEV and EINTR of all calls. */
static int lock_device(struct uservsc_device *device)
{
	if (mutex_lock_killable(&device->lock))
		return -EINTR;
	if (device->hv)
		return 0;
	mutex_unlock(&device->lock);
	return -ENODEV;
}

static int set_events(struct uservsc_opener *opener, s32 descriptor)
{
	struct eventfd_ctx *event = NULL;

	if (descriptor != -1) {
		event = eventfd_ctx_fdget(descriptor);
		if (IS_ERR(event))
			return PTR_ERR(event);
	}
	uservsc_set_news(opener->device, event);
	return 0;
}

static void describe(struct uservsc_device *device, struct hv_uservsc_info *answer)
{
	const struct vmbus_channel *channel = device->hv->channel;
	const struct vmbus_channel_offer *offer = &channel->offermsg.offer;

	*answer = (struct hv_uservsc_info) {
		.size = sizeof(*answer),
		.version = HV_USERVSC_VERSION,
		.vmbus_version = vmbus_proto_version,
		.isolated = hv_is_isolation_supported(),
		.external_visibility = uservsc_external_visibility(device),
		.page_size = PAGE_SIZE,
		.offer_flags = offer->chn_flags,
		.mmio_megabytes = offer->mmio_megabytes,
		.ring_bytes_max = USERVSC_RING_MAX,
		.region_bytes_max = USERVSC_REGION_MAX,
		.gpadl_bytes_max = USERVSC_GPADL_MAX,
		.device_bytes_max = uservsc_device_limit(),
		.device_bytes_used = atomic64_read(&device->used_pages) << PAGE_SHIFT,
		.leaked_pages = atomic64_read(&device->leaked_pages),
	};
#ifdef HAVE_CONFIDENTIAL_CHANNELS
	answer->features |= HV_USERVSC_FEATURE_CONFIDENTIAL;
#endif
	BUILD_BUG_ON(sizeof(answer->class_id) != sizeof(offer->if_type));
	BUILD_BUG_ON(sizeof(answer->offer_user) != sizeof(offer->u));
	memcpy(answer->class_id, &offer->if_type, sizeof(answer->class_id));
	memcpy(answer->instance_id, &offer->if_instance, sizeof(answer->instance_id));
	memcpy(answer->offer_user, &offer->u, sizeof(answer->offer_user));
}

static long info_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_info call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags)
		return -EINVAL;
	err = lock_device(opener->device);
	if (err)
		return err;
	describe(opener->device, &call);
	mutex_unlock(&opener->device->lock);
	return copy_to_user(user, &call, sizeof(call)) ? -EFAULT : 0;
}

static long channel_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_channel call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags || call.reserved)
		return -EINVAL;
	err = lock_device(opener->device);
	if (err)
		return err;
	err = uservsc_describe_channel(opener->device, &call);
	mutex_unlock(&opener->device->lock);
	if (err)
		return err;
	return copy_to_user(user, &call, sizeof(call)) ? -EFAULT : 0;
}

static long eventfd_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_eventfd call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags || call.reserved)
		return -EINVAL;
	err = lock_device(opener->device);
	if (err)
		return err;
	err = set_events(opener, call.eventfd);
	mutex_unlock(&opener->device->lock);
	return err;
}

static long open_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_open call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags || call.ring_visibility > HV_USERVSC_ENCRYPTED)
		return -EINVAL;
	err = lock_device(opener->device);
	if (err)
		return err;
	err = uservsc_open_channel(opener, &call);
	mutex_unlock(&opener->device->lock);
	if (err)
		return err;
	return copy_to_user(user, &call, sizeof(call)) ? -EFAULT : 0;
}

static long close_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_close call;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags || call.reserved)
		return -EINVAL;
	err = lock_device(opener->device);
	if (err)
		return err;
	err = uservsc_close_channel(opener, call.channel);
	mutex_unlock(&opener->device->lock);
	return err;
}

static int check_dma(const struct hv_uservsc_dma *call)
{
	if (call->size != sizeof(*call) || call->flags & ~HV_USERVSC_DMA_GPADL || call->reserved)
		return -EINVAL;
	if (!call->bytes || call->bytes % PAGE_SIZE || call->visibility > HV_USERVSC_ENCRYPTED)
		return -EINVAL;
	if (call->bytes > (call->flags ? USERVSC_GPADL_MAX : USERVSC_REGION_MAX))
		return -E2BIG;
	if (call->page_count != (call->pages ? call->bytes / HV_HYP_PAGE_SIZE : 0))
		return -EINVAL;
	return 0;
}

static int alloc_dma(struct uservsc_opener *opener, struct hv_uservsc_dma *call, u64 *numbers)
{
	u32 visibility;
	int err;

	err = lock_device(opener->device);
	if (err)
		return err;
	visibility = uservsc_external_visibility(opener->device);
	if (call->visibility && call->visibility != visibility) {
		err = -EPERM;
	} else {
		call->visibility = visibility;
		err = uservsc_alloc_dma(opener, call, numbers);
	}
	mutex_unlock(&opener->device->lock);
	return err;
}

static int free_dma(struct uservsc_opener *opener, u64 offset)
{
	int err = lock_device(opener->device);

	if (err)
		return err;
	err = uservsc_free_dma(opener, offset);
	mutex_unlock(&opener->device->lock);
	return err;
}

static long dma_alloc_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_dma call;
	u64 *numbers = NULL;
	size_t bytes;
	int err;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	err = check_dma(&call);
	if (err)
		return err;
	bytes = array_size(call.page_count, sizeof(*numbers));
	if (call.pages) {
		numbers = kvmalloc(bytes, GFP_KERNEL_ACCOUNT);
		if (!numbers)
			return -ENOMEM;
	}
	err = alloc_dma(opener, &call, numbers);
	if (!err && ((numbers && copy_to_user(u64_to_user_ptr(call.pages), numbers, bytes)) ||
		     copy_to_user(user, &call, sizeof(call)))) {
		err = -EFAULT;
		/* Another thread may have guessed the number, or the device have gone. */
		free_dma(opener, call.offset);
	}
	kvfree(numbers);
	return err;
}

static long dma_free_call(struct uservsc_opener *opener, void __user *user)
{
	struct hv_uservsc_dma_free call;

	if (copy_from_user(&call, user, sizeof(call)))
		return -EFAULT;
	if (call.size != sizeof(call) || call.flags)
		return -EINVAL;
	return free_dma(opener, call.offset);
}

static long uservsc_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct uservsc_opener *opener = file->private_data;
	void __user *user = (void __user *)argument;

	/* First, and without a lock: it is on the data path. */
	if (command == HV_USERVSC_SIGNAL)
		return uservsc_signal(opener->device, argument);
	if (READ_ONCE(opener->device->gone))
		return -ENODEV;
	switch (command) {
	case HV_USERVSC_INFO:
		return info_call(opener, user);
	case HV_USERVSC_CHANNEL:
		return channel_call(opener, user);
	case HV_USERVSC_DEVICE_EVENTFD:
		return eventfd_call(opener, user);
	case HV_USERVSC_OPEN:
		return open_call(opener, user);
	case HV_USERVSC_CLOSE:
		return close_call(opener, user);
	case HV_USERVSC_DMA_ALLOC:
		return dma_alloc_call(opener, user);
	case HV_USERVSC_DMA_FREE:
		return dma_free_call(opener, user);
	default:
		return -ENOTTY;
	}
}

static struct uservsc_opener *alloc_opener(struct uservsc_device *device, struct file *file)
{
	struct uservsc_opener *opener = kzalloc(sizeof(*opener), GFP_KERNEL_ACCOUNT);

	if (!opener)
		return NULL;
	opener->zero_page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	opener->status_page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!opener->zero_page || !opener->status_page)
		goto no_memory;
	opener->device = device;
	opener->user = get_uid(current_user());
	opener->mapping = file->f_mapping;
	init_rwsem(&opener->map_sem);
	xa_init(&opener->regions);
	/* Offset 0 is the status page. */
	opener->next_region = 1;
	INIT_LIST_HEAD(&opener->kept);
	return opener;

no_memory:
	if (opener->zero_page)
		__free_page(opener->zero_page);
	kfree(opener);
	return NULL;
}

static void free_opener(struct uservsc_opener *opener)
{
	xa_destroy(&opener->regions);
	free_uid(opener->user);
	__free_page(opener->zero_page);
	__free_page(opener->status_page);
	kfree(opener);
}

static int uservsc_open(struct inode *inode, struct file *file)
{
	struct uservsc_device *device = container_of(inode->i_cdev, struct uservsc_device, cdev);
	struct uservsc_opener *opener;
	int err;

	if ((file->f_mode & (FMODE_READ | FMODE_WRITE)) != (FMODE_READ | FMODE_WRITE))
		return -EACCES;
	opener = alloc_opener(device, file);
	if (!opener)
		return -ENOMEM;
	err = lock_device(device);
	if (err)
		goto free;
	if (device->opener) {
		err = -EBUSY;
	} else {
		device->opener = opener;
		file->private_data = opener;
		get_device(&device->dev);
	}
	mutex_unlock(&device->lock);
free:
	if (err)
		free_opener(opener);
	return err;
}

/*
 * The end of what an opener has, by its release or the device's end: no user mapping, channels
 * closed, GPADLs torn down, memory scrubbed, made private, freed. Under the device's lock.
 */
void uservsc_end_opener(struct uservsc_opener *opener)
{
	uservsc_hide_all(opener);
	uservsc_close_all(opener);
	uservsc_free_all_dma(opener);
	if (opener->device->gone)
		uservsc_tell_news(opener->device);
	uservsc_set_news(opener->device, NULL);
}

/* The last close and the last munmap. */
static int uservsc_release(struct inode *inode, struct file *file)
{
	struct uservsc_opener *opener = file->private_data;
	struct uservsc_device *device = opener->device;

	mutex_lock(&device->lock);
	if (device->hv)
		uservsc_end_opener(opener);
	device->opener = NULL;
	mutex_unlock(&device->lock);
	free_opener(opener);
	put_device(&device->dev);
	return 0;
}

const struct file_operations uservsc_file_operations = {
	.owner = THIS_MODULE,
	.open = uservsc_open,
	.release = uservsc_release,
	.unlocked_ioctl = uservsc_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = uservsc_mmap,
};
