// SPDX-License-Identifier: GPL-2.0
/* Channels: opening, closing, the doorbell and the interrupt. */
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "uservsc.h"

/*
 * In interrupt context, under the channel's sched_lock and RCU. The eventfd is let go only when the
 * core calls no more, or a grace period after it was taken away here.
 */
static void on_interrupt(void *context)
{
	struct uservsc_channel *channel = context;
	struct eventfd_ctx *event = READ_ONCE(channel->event);

	if (event)
		eventfd_signal(event);
}

/* The doorbell. Channels live until a grace period after their `signals` was cleared. */
int uservsc_signal(struct uservsc_device *device, unsigned long index)
{
	struct uservsc_channel *channel;
	int err = 0;

	rcu_read_lock();
	channel = xa_load(&device->channels, index);
	if (READ_ONCE(device->gone))
		err = -ENODEV;
	else if (!channel || !READ_ONCE(channel->signals) || READ_ONCE(channel->vmbus->rescind))
		err = -ENOTCONN;
	else
		vmbus_setevent(channel->vmbus);
	rcu_read_unlock();
	return err;
}

/* What another driver has left in the primary channel. */
void uservsc_init_primary(struct uservsc_device *device)
{
	struct vmbus_channel *vmbus = device->hv->channel;

	device->primary.state = HV_USERVSC_CHANNEL_OFFERED;
	device->primary.vmbus = vmbus;
	vmbus->change_target_cpu_callback = NULL;
	/* Without one of its own, the core calls remove() when the offer is rescinded. */
	vmbus_set_chn_rescind_callback(vmbus, NULL);
	vmbus->max_pkt_size = 0;
	/* A failed open would free the request table again that the last close has freed. */
	vmbus->rqstor_size = 0;
	memset(&vmbus->requestor, 0, sizeof(vmbus->requestor));
}

struct uservsc_channel *uservsc_find_channel(struct uservsc_device *device, u32 index)
{
	return xa_load(&device->channels, index);
}

static int check_ring(const struct hv_uservsc_open *request)
{
	const u32 bytes[] = { request->tx_bytes, request->rx_bytes };
	unsigned int index;

	for (index = 0; index < ARRAY_SIZE(bytes); index++)
		if (bytes[index] % PAGE_SIZE || bytes[index] < 2 * PAGE_SIZE)
			return -EINVAL;
	return (u64)bytes[0] + bytes[1] > USERVSC_RING_MAX ? -E2BIG : 0;
}

/* The core's errors in the interface's words. */
static int open_error(const struct uservsc_channel *channel, int err)
{
	switch (err) {
	case -ENOMEM:
		return err;
	case -ENODEV:
		return channel->index ? -ENOENT : err;
	default:
		return -EIO;
	}
}

static void let_event_go(struct uservsc_device *device, struct eventfd_ctx *event)
{
	if (!event)
		return;
	if (device->gone)
		eventfd_signal(event);
	eventfd_ctx_put(event);
}

/* The core leaks a ring that it could not get back, or make private again. */
static void count_ring_leak(struct uservsc_device *device, const struct uservsc_channel *channel,
			    const struct uservsc_region *ring)
{
	if (channel->vmbus->ringbuffer_page || channel->vmbus->ringbuffer_gpadlhandle.decrypted)
		uservsc_count_leak(device, ring->charged, "ring");
}

static int connect(struct uservsc_device *device, struct uservsc_channel *channel,
		   struct hv_uservsc_open *request, const struct uservsc_region *ring)
{
	struct vmbus_channel *vmbus = channel->vmbus;
	int err;

	set_channel_read_mode(vmbus, HV_CALL_ISR);
	if (!channel->index) {
		uservsc_take_subchannels(device, true);
		vmbus_set_sc_create_callback(vmbus, uservsc_subchannel_offered);
	}
	vmbus->ringbuffer_gpadlhandle.decrypted = false;
	err = vmbus_open(vmbus, request->tx_bytes, request->rx_bytes, request->user_data,
			 sizeof(request->user_data), on_interrupt, channel);
	if (!err)
		return 0;
	if (!channel->index) {
		uservsc_take_subchannels(device, false);
		/* It does nothing to a channel that is not open but to forget the callbacks. */
		vmbus_close(vmbus);
		uservsc_forget_subchannels(device);
	}
	count_ring_leak(device, channel, ring);
	return open_error(channel, err);
}

static void free_ring(struct uservsc_opener *opener, struct uservsc_region *ring)
{
	uservsc_uncharge(opener, ring->charged, ring->limited);
	kfree(ring);
}

static struct uservsc_region *alloc_ring(struct uservsc_opener *opener,
					 const struct hv_uservsc_open *request)
{
	struct uservsc_region *ring = kzalloc(sizeof(*ring), GFP_KERNEL_ACCOUNT);
	int err;

	if (!ring)
		return ERR_PTR(-ENOMEM);
	ring->is_ring = true;
	ring->shared = request->ring_visibility == HV_USERVSC_SHARED;
	/* What the core allocates. */
	ring->charged = 1UL << get_order(request->tx_bytes + request->rx_bytes);
	err = uservsc_charge(opener, ring->charged, &ring->limited);
	if (err) {
		kfree(ring);
		return ERR_PTR(err);
	}
	err = uservsc_insert_region(opener, ring);
	if (err) {
		free_ring(opener, ring);
		return ERR_PTR(err);
	}
	return ring;
}

int uservsc_open_channel(struct uservsc_opener *opener, struct hv_uservsc_open *request)
{
	struct uservsc_device *device = opener->device;
	struct uservsc_channel *channel;
	struct uservsc_region *ring;
	struct eventfd_ctx *event = NULL;
	u32 visibility;
	int err;

	err = check_ring(request);
	if (err)
		return err;
	uservsc_forget_rescinded(device);
	channel = uservsc_find_channel(device, request->channel);
	if (!channel)
		return -ENOENT;
	if (channel->state != HV_USERVSC_CHANNEL_OFFERED)
		return -EBUSY;
	visibility = uservsc_visibility(uservsc_ring_encrypted(channel->vmbus));
	if (request->ring_visibility && request->ring_visibility != visibility)
		return -EPERM;
	request->ring_visibility = visibility;
	if (request->eventfd != -1) {
		event = eventfd_ctx_fdget(request->eventfd);
		if (IS_ERR(event))
			return PTR_ERR(event);
	}
	ring = alloc_ring(opener, request);
	if (IS_ERR(ring)) {
		err = PTR_ERR(ring);
		goto put_event;
	}
	WRITE_ONCE(channel->event, event);
	err = connect(device, channel, request, ring);
	if (err)
		goto take_event;
	channel->ring = ring;
	channel->state = HV_USERVSC_CHANNEL_OPEN;
	uservsc_show_ring(opener, ring, channel->vmbus);
	WRITE_ONCE(channel->signals, true);
	request->relid = channel->vmbus->offermsg.child_relid;
	request->offset = uservsc_region_offset(ring);
	request->ring_bytes = (u64)request->tx_bytes + request->rx_bytes;
	return 0;

take_event:
	WRITE_ONCE(channel->event, NULL);
	/* The core keeps the callback of a subchannel that could not be opened. */
	synchronize_rcu();
	uservsc_remove_region(opener, ring);
	free_ring(opener, ring);
put_event:
	if (event)
		eventfd_ctx_put(event);
	return err;
}

/* A subchannel alone: the core closes it with its primary. */
static void close_subchannel(struct uservsc_opener *opener, struct uservsc_channel *channel)
{
	struct eventfd_ctx *event = channel->event;

	WRITE_ONCE(channel->signals, false);
	WRITE_ONCE(channel->event, NULL);
	uservsc_remove_region(opener, channel->ring);
	channel->state = HV_USERVSC_CHANNEL_CLOSED;
	synchronize_rcu();
	let_event_go(opener->device, event);
}

int uservsc_close_channel(struct uservsc_opener *opener, u32 index)
{
	struct uservsc_channel *channel = uservsc_find_channel(opener->device, index);

	if (!channel)
		return -ENOENT;
	if (channel->state != HV_USERVSC_CHANNEL_OPEN)
		return -ENOTCONN;
	if (index)
		close_subchannel(opener, channel);
	else
		uservsc_close_all(opener);
	return 0;
}

/* What is left of a channel when the core has closed it. */
static void clean_up(struct uservsc_opener *opener, struct uservsc_channel *channel)
{
	struct uservsc_device *device = opener->device;

	if (channel->ring) {
		count_ring_leak(device, channel, channel->ring);
		free_ring(opener, channel->ring);
	}
	channel->ring = NULL;
	let_event_go(device, channel->event);
	channel->event = NULL;
	channel->state = HV_USERVSC_CHANNEL_OFFERED;
	if (channel->index)
		uservsc_forget_subchannel(device, channel);
}

/* Closes the primary channel, when it is open, and all subchannels with it. */
void uservsc_close_all(struct uservsc_opener *opener)
{
	struct uservsc_device *device = opener->device;
	struct uservsc_channel *channel;
	unsigned long index;

	if (device->primary.state != HV_USERVSC_CHANNEL_OPEN)
		return;
	uservsc_take_subchannels(device, false);
	xa_for_each(&device->channels, index, channel) {
		WRITE_ONCE(channel->signals, false);
		if (channel->state == HV_USERVSC_CHANNEL_OPEN)
			uservsc_remove_region(opener, channel->ring);
	}
	/* No doorbell rings from here on. */
	synchronize_rcu();
	vmbus_close(device->primary.vmbus);
	xa_for_each(&device->channels, index, channel)
		clean_up(opener, channel);
	uservsc_free_kept(opener);
}
