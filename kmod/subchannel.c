// SPDX-License-Identifier: GPL-2.0
/*
 * Subchannels as the host offers and rescinds them, the table of a device's channels, and the
 * device's news.
 *
 * The core calls when a subchannel is offered, from a work queue; closing the primary channel may
 * wait for that call. It tells nobody of a subchannel that is rescinded: one that is not open it
 * removes at once, so each is held here by its kobject, whose end frees the channel's structure.
 * (Its place in sysfs is held as well: uservsc_forget_rescinded() lets go as soon as somebody
 * looks.)
 */
#include <linux/slab.h>

#include "uservsc.h"

/* As many as a hostile host can make a device have. */
#define SUBCHANNELS_MAX 1024

DEFINE_SPINLOCK(uservsc_offers_lock);
static LIST_HEAD(devices);

void uservsc_add_device(struct uservsc_device *device)
{
	spin_lock(&uservsc_offers_lock);
	list_add(&device->entry, &devices);
	spin_unlock(&uservsc_offers_lock);
}

void uservsc_delete_device(struct uservsc_device *device)
{
	spin_lock(&uservsc_offers_lock);
	list_del(&device->entry);
	spin_unlock(&uservsc_offers_lock);
}

void uservsc_take_subchannels(struct uservsc_device *device, bool takes)
{
	spin_lock(&uservsc_offers_lock);
	device->takes_subchannels = takes;
	spin_unlock(&uservsc_offers_lock);
}

static bool is_of(const struct uservsc_device *device, const struct vmbus_channel *vmbus)
{
	return device->takes_subchannels && device->primary.vmbus == vmbus->primary_channel;
}

/*
 * Not by hv_get_drvdata(): the call may come when the primary is closed already, and another driver
 * has the device.
 */
static struct uservsc_device *device_of(const struct vmbus_channel *vmbus)
{
	struct uservsc_device *device;

	list_for_each_entry(device, &devices, entry)
		if (is_of(device, vmbus))
			return device;
	return NULL;
}

static int add_subchannel(struct uservsc_device *device, struct uservsc_channel *channel)
{
	/* An opener's DMA memory has one visibility. */
	if (uservsc_external_encrypted(channel->vmbus) !=
	    uservsc_external_encrypted(device->primary.vmbus))
		return -EPERM;
	if (device->subchannels == SUBCHANNELS_MAX)
		return -ENOSPC;
	/* EBUSY: the host has given the number twice, or that of the primary. */
	return xa_insert(&device->channels, channel->index, channel, GFP_ATOMIC);
}

/* In a work queue. The channel lives at least as long as this. */
void uservsc_subchannel_offered(struct vmbus_channel *vmbus)
{
	struct uservsc_channel *channel = kzalloc(sizeof(*channel), GFP_KERNEL);
	struct uservsc_device *device;
	int err = -ENODEV;

	if (!channel)
		return;
	channel->index = vmbus->offermsg.offer.sub_channel_index;
	channel->state = HV_USERVSC_CHANNEL_OFFERED;
	channel->vmbus = vmbus;
	spin_lock(&uservsc_offers_lock);
	device = device_of(vmbus);
	if (device) {
		err = add_subchannel(device, channel);
		if (err) {
			dev_warn_ratelimited(&device->dev, "subchannel %u is not taken: error %d\n",
					     channel->index, err);
		} else {
			kobject_get(&vmbus->kobj);
			device->subchannels++;
			if (device->news)
				eventfd_signal(device->news);
		}
	}
	spin_unlock(&uservsc_offers_lock);
	if (err)
		kfree(channel);
}

/* The channel is not open. */
void uservsc_forget_subchannel(struct uservsc_device *device, struct uservsc_channel *channel)
{
	spin_lock(&uservsc_offers_lock);
	xa_erase(&device->channels, channel->index);
	device->subchannels--;
	spin_unlock(&uservsc_offers_lock);
	/* It may be the last one, which removes the channel's directory in sysfs. */
	kobject_put(&channel->vmbus->kobj);
	kfree_rcu(channel, rcu);
}

/* Subchannels that the host has taken back before they were opened. */
void uservsc_forget_rescinded(struct uservsc_device *device)
{
	struct uservsc_channel *channel;
	unsigned long index;

	xa_for_each_start(&device->channels, index, channel, 1)
		if (channel->state == HV_USERVSC_CHANNEL_OFFERED &&
		    READ_ONCE(channel->vmbus->rescind))
			uservsc_forget_subchannel(device, channel);
}

/* All of them; none is open. */
void uservsc_forget_subchannels(struct uservsc_device *device)
{
	struct uservsc_channel *channel;
	unsigned long index;

	xa_for_each_start(&device->channels, index, channel, 1)
		uservsc_forget_subchannel(device, channel);
}

/* The first channel from answer->channel on. */
int uservsc_describe_channel(struct uservsc_device *device, struct hv_uservsc_channel *answer)
{
	const struct vmbus_channel_offer_channel *offer;
	unsigned long index = answer->channel;
	struct uservsc_channel *channel;

	uservsc_forget_rescinded(device);
	channel = xa_find(&device->channels, &index, ULONG_MAX, XA_PRESENT);
	if (!channel)
		return -ENOENT;
	offer = &channel->vmbus->offermsg;
	answer->channel = channel->index;
	answer->state = channel->state;
	if (channel->state == HV_USERVSC_CHANNEL_OPEN && READ_ONCE(channel->vmbus->rescind))
		answer->state = HV_USERVSC_CHANNEL_RESCINDED;
	answer->relid = offer->child_relid;
	answer->connection_id = offer->connection_id;
	answer->monitor_allocated = offer->monitor_allocated;
	answer->monitor_id = offer->monitorid;
	answer->dedicated_interrupt = channel->vmbus->is_dedicated_interrupt;
	answer->ring_visibility = uservsc_visibility(uservsc_ring_encrypted(channel->vmbus));
	answer->target_cpu = channel->vmbus->target_cpu;
	return 0;
}

/* Takes the reference. */
void uservsc_set_news(struct uservsc_device *device, struct eventfd_ctx *event)
{
	struct eventfd_ctx *before;

	spin_lock(&uservsc_offers_lock);
	before = device->news;
	device->news = event;
	if (event)
		eventfd_signal(event);
	spin_unlock(&uservsc_offers_lock);
	if (before)
		eventfd_ctx_put(before);
}

void uservsc_tell_news(struct uservsc_device *device)
{
	spin_lock(&uservsc_offers_lock);
	if (device->news)
		eventfd_signal(device->news);
	spin_unlock(&uservsc_offers_lock);
}
