// SPDX-License-Identifier: GPL-2.0
/*
 * hv_uservsc: VMBus devices for drivers in user space. Channels with the encryption that they have,
 * DMA memory that outlives its process, GPADLs, an eventfd and a doorbell for each channel: see
 * hv_uservsc.h.
 *
 * It matches no device by itself: bind by driver_override.
 */
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "uservsc.h"

#define MINORS 1024

static dev_t first_number;
static DEFINE_IDA(minors);
static atomic64_t leaked_pages_of_all = ATOMIC64_INIT(0);

/* Pages that the host may see for ever. They are never freed. */
void uservsc_count_leak(struct uservsc_device *device, unsigned long pages, const char *what)
{
	atomic64_add(pages, &device->leaked_pages);
	atomic64_add(pages, &leaked_pages_of_all);
	dev_err(&device->dev, "%lu pages of a %s could not be made private again: they are lost\n",
		pages, what);
}

static ssize_t leaked_pages_show(const struct class *class, const struct class_attribute *attribute,
				 char *text)
{
	return sysfs_emit(text, "%lld\n", atomic64_read(&leaked_pages_of_all));
}
static CLASS_ATTR_RO(leaked_pages);

static struct attribute *uservsc_class_attrs[] = {
	&class_attr_leaked_pages.attr,
	NULL
};
ATTRIBUTE_GROUPS(uservsc_class);

static char *node_of(const struct device *dev, umode_t *mode)
{
	if (mode)
		*mode = 0600;
	return kasprintf(GFP_KERNEL, "vmbus/%s", dev_name(dev));
}

static const struct class uservsc_class = {
	.name = USERVSC_NAME,
	.devnode = node_of,
	.class_groups = uservsc_class_groups,
};

static void release_device(struct device *dev)
{
	struct uservsc_device *device = container_of(dev, struct uservsc_device, dev);

	ida_free(&minors, MINOR(dev->devt) - MINOR(first_number));
	xa_destroy(&device->channels);
	mutex_destroy(&device->lock);
	kfree(device);
}

static int uservsc_probe(struct hv_device *hv, const struct hv_vmbus_device_id *id)
{
	struct uservsc_device *device;
	int err, minor;

	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;
	minor = ida_alloc_max(&minors, MINORS - 1, GFP_KERNEL);
	if (minor < 0) {
		kfree(device);
		return minor;
	}
	mutex_init(&device->lock);
	xa_init(&device->channels);
	device->hv = hv;
	device_initialize(&device->dev);
	device->dev.class = &uservsc_class;
	/* Held until cdev_device_del() in remove(), no longer. */
	device->dev.parent = &hv->device;
	device->dev.devt = MKDEV(MAJOR(first_number), MINOR(first_number) + minor);
	device->dev.release = release_device;
	err = dev_set_name(&device->dev, "%pUl", &hv->dev_instance);
	if (err)
		goto put;
	uservsc_init_primary(device);
	err = xa_insert(&device->channels, 0, &device->primary, GFP_KERNEL);
	if (err)
		goto put;
	hv_set_drvdata(hv, device);
	uservsc_add_device(device);
	cdev_init(&device->cdev, &uservsc_file_operations);
	device->cdev.owner = THIS_MODULE;
	err = cdev_device_add(&device->cdev, &device->dev);
	if (err)
		goto delete;
	return 0;

delete:
	uservsc_delete_device(device);
	hv_set_drvdata(hv, NULL);
put:
	put_device(&device->dev);
	return err;
}

/*
 * The driver was unbound, or the offer rescinded. When this returns the core tells the host that
 * the channel's number is free, or another driver takes the device.
 */
static void uservsc_remove(struct hv_device *hv)
{
	struct uservsc_device *device = hv_get_drvdata(hv);

	cdev_device_del(&device->cdev, &device->dev);
	mutex_lock(&device->lock);
	WRITE_ONCE(device->gone, true);
	if (device->opener)
		uservsc_end_opener(device->opener);
	uservsc_delete_device(device);
	device->hv = NULL;
	mutex_unlock(&device->lock);
	hv_set_drvdata(hv, NULL);
	put_device(&device->dev);
}

static const struct hv_vmbus_device_id no_ids[] = {
	{ }
};

static struct hv_driver uservsc_driver = {
	.name = USERVSC_NAME,
	.id_table = no_ids,
	.probe = uservsc_probe,
	.remove = uservsc_remove,
	.driver = {
		.probe_type = PROBE_PREFER_ASYNCHRONOUS,
	},
};

static int __init uservsc_init(void)
{
	int err;

	err = alloc_chrdev_region(&first_number, 0, MINORS, USERVSC_NAME);
	if (err)
		return err;
	err = class_register(&uservsc_class);
	if (err)
		goto numbers;
	err = vmbus_driver_register(&uservsc_driver);
	if (err)
		goto class;
	return 0;

class:
	class_unregister(&uservsc_class);
numbers:
	unregister_chrdev_region(first_number, MINORS);
	return err;
}

static void __exit uservsc_exit(void)
{
	vmbus_driver_unregister(&uservsc_driver);
	class_unregister(&uservsc_class);
	unregister_chrdev_region(first_number, MINORS);
	ida_destroy(&minors);
}

module_init(uservsc_init);
module_exit(uservsc_exit);

MODULE_DESCRIPTION("VMBus devices for drivers in user space");
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
