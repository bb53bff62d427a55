// SPDX-License-Identifier: Apache-2.0
//
// Registers the plugin with nbdkit. The callbacks themselves are Swift functions: see
// Sources/VSCStorageNBD.
#define _GNU_SOURCE
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#include <dlfcn.h>
#include <stdint.h>

#include <nbdkit-plugin.h>

#include "nbdkit_report.h"

int vsc_nbd_config(const char *key, const char *value);
int vsc_nbd_config_complete(void);
int vsc_nbd_start(void);
void vsc_nbd_stop(void);
int64_t vsc_nbd_size(void);
int vsc_nbd_can_write(void);
int vsc_nbd_can_trim(void);
int vsc_nbd_can_fast_zero(void);
void vsc_nbd_block_size(uint32_t *preferred);
int vsc_nbd_read(void *bytes, uint32_t count, uint64_t offset);
int vsc_nbd_write(const void *bytes, uint32_t count, uint64_t offset, int forced);
int vsc_nbd_flush(void);
int vsc_nbd_trim(uint32_t count, uint64_t offset, int forced);
int vsc_nbd_zero(uint32_t count, uint64_t offset, int may_trim, int forced, int fast);

void vsc_nbd_report(int error, const char *message) {
  nbdkit_error("%s", message);
  nbdkit_set_error(error);
}

// There is one disk, whoever connects.
static void *plugin_open(int readonly) {
  (void)readonly;
  return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle) {
  (void)handle;
  return vsc_nbd_size();
}

static int plugin_block_size(
    void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum) {
  (void)handle;
  *minimum = 1;
  vsc_nbd_block_size(preferred);
  *maximum = 32u << 20;
  return 0;
}

static int plugin_can_write(void *handle) {
  (void)handle;
  return vsc_nbd_can_write();
}

static int plugin_yes(void *handle) {
  (void)handle;
  return 1;
}

// Where the disk can't force a write, the driver sends a flush behind it.
static int plugin_can_fua(void *handle) {
  (void)handle;
  return NBDKIT_FUA_NATIVE;
}

static int plugin_can_trim(void *handle) {
  (void)handle;
  return vsc_nbd_can_trim();
}

// A server that advertises fast zeroing may still refuse each one.
static int plugin_can_fast_zero(void *handle) {
  (void)handle;
  return vsc_nbd_can_fast_zero();
}

static int plugin_pread(
    void *handle, void *bytes, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)handle;
  (void)flags;
  return vsc_nbd_read(bytes, count, offset);
}

static int plugin_pwrite(
    void *handle, const void *bytes, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)handle;
  return vsc_nbd_write(bytes, count, offset, (flags & NBDKIT_FLAG_FUA) != 0);
}

static int plugin_flush(void *handle, uint32_t flags) {
  (void)handle;
  (void)flags;
  return vsc_nbd_flush();
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)handle;
  return vsc_nbd_trim(count, offset, (flags & NBDKIT_FLAG_FUA) != 0);
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags) {
  (void)handle;
  return vsc_nbd_zero(
      count, offset, (flags & NBDKIT_FLAG_MAY_TRIM) != 0, (flags & NBDKIT_FLAG_FUA) != 0,
      (flags & NBDKIT_FLAG_FAST_ZERO) != 0);
}

static void plugin_load(void);

static struct nbdkit_plugin plugin = {
    .name = "vsc-storage",
    .longname = "a disk of a Hyper-V host over VMBus",
    .description = "Serves a disk that a storage VSP offers, through the Swift storage VSC.",
    .config = vsc_nbd_config,
    .config_complete = vsc_nbd_config_complete,
    .config_help =
        "host=PATH       (required) The socket of a simulated host.\n"
        "machine=KIND    plain, isolated or confidential.\n"
        "device=DEVICE   Instance GUID, relid, or place among the disks.\n"
        "lun=NUMBER      The disk on its controller.\n"
        "namespace=ID    The device is an NVMe controller: its namespace.\n"
        "cpu=LIST        Processors for the polling workers, one channel each.\n"
        "spin=ROUNDS     Rounds without work before it sleeps.\n"
        "memory=MIB      Memory for devices.",
    .load = plugin_load,
    // After the fork, since threads do not live through it.
    .after_fork = vsc_nbd_start,
    .cleanup = vsc_nbd_stop,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = plugin_can_write,
    .can_flush = plugin_yes,
    .can_fua = plugin_can_fua,
    .can_trim = plugin_can_trim,
    // Without a command that fills, the driver writes zeros itself.
    .can_zero = plugin_yes,
    .can_fast_zero = plugin_can_fast_zero,
    // A flush on one connection covers the writes of all: they go to one disk.
    .can_multi_conn = plugin_yes,
    .pread = plugin_pread,
    .pwrite = plugin_pwrite,
    .flush = plugin_flush,
    .trim = plugin_trim,
    .zero = plugin_zero,
};

// nbdkit takes its plugins out of memory at its end. Threads of Swift's pool may still be in code
// of this one then, and in that of Swift's runtime: both stay.
static void plugin_load(void) {
  Dl_info found;
  if (dladdr(&plugin, &found) != 0)
    (void)dlopen(found.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

NBDKIT_REGISTER_PLUGIN(plugin)
