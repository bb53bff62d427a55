// SPDX-License-Identifier: GPL-2.0
/* What memory a device and its opener may have. */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/math64.h>
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>

#include "uservsc.h"

static unsigned int device_mib;
module_param(device_mib, uint, 0644);
MODULE_PARM_DESC(device_mib, "MiB that a device may have; 0, the default: a quarter of all");

static u64 limit_pages(void)
{
	unsigned int mib = READ_ONCE(device_mib);

	return mib ? ((u64)mib << 20) >> PAGE_SHIFT : totalram_pages() / 4;
}

u64 uservsc_device_limit(void)
{
	return limit_pages() << PAGE_SHIFT;
}

/* As io_uring and others count: all pages of the user, against the process's limit. */
static bool charge_user(struct user_struct *user, unsigned long pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	long used = atomic_long_read(&user->locked_vm);

	do {
		if (used < 0 || used + pages > limit)
			return false;
	} while (!atomic_long_try_cmpxchg(&user->locked_vm, &used, used + pages));
	return true;
}

/* Takes pages from the limits, or -ENOMEM. Sets *limited, for uservsc_uncharge(). */
int uservsc_charge(struct uservsc_opener *opener, unsigned long pages, bool *limited)
{
	struct uservsc_device *device = opener->device;

	if (atomic64_add_return(pages, &device->used_pages) > limit_pages())
		goto too_much;
	*limited = !capable(CAP_IPC_LOCK);
	if (*limited && !charge_user(opener->user, pages))
		goto too_much;
	return 0;

too_much:
	atomic64_sub(pages, &device->used_pages);
	return -ENOMEM;
}

void uservsc_uncharge(struct uservsc_opener *opener, unsigned long pages, bool limited)
{
	if (limited)
		atomic_long_sub(pages, &opener->user->locked_vm);
	atomic64_sub(pages, &opener->device->used_pages);
}
