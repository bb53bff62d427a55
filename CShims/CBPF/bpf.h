// SPDX-License-Identifier: Apache-2.0
//
// What Swift cannot say to libbpf by itself. Failing calls return -errno.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/// libbpf writes to standard error unless it is told not to.
static inline void vmbus_bpf_be_quiet(void) {
  libbpf_set_print(NULL);
}

/// Opens an object that lies in memory; `types` is a file with type information to use instead of
/// the running kernel's. NULL with `error` set when it fails.
static inline struct bpf_object *_Nullable vmbus_bpf_open(
    const void *_Nonnull bytes, size_t count, const char *_Nullable types, int *_Nonnull error) {
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = "vmbus_channels", .btf_custom_path = types);
  struct bpf_object *object = bpf_object__open_mem(bytes, count, &options);
  *error = object == NULL ? errno : 0;
  return object;
}

/// The descriptor of a program by its name, or -errno.
static inline int vmbus_bpf_program(
    const struct bpf_object *_Nonnull object, const char *_Nonnull name) {
  const struct bpf_program *program = bpf_object__find_program_by_name(object, name);
  return program == NULL ? -ENOENT : bpf_program__fd(program);
}

/// Runs a program of the type `syscall` once, with an argument that it may change.
static inline int vmbus_bpf_run(
    int program, void *_Nonnull argument, uint32_t count, int32_t *_Nonnull result) {
  // The kernel copies the argument back to where it came from, and refuses another place.
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = argument, .ctx_size_in = count);
  if (bpf_prog_test_run_opts(program, &options) != 0) return -errno;
  *result = (int32_t)options.retval;
  return 0;
}

static inline int vmbus_bpf_lookup(int map, uint32_t key, void *_Nonnull value) {
  return bpf_map_lookup_elem(map, &key, value) == 0 ? 0 : -errno;
}

/// The address of a symbol of the kernel or its modules: 0 when the kernel hides addresses. -ENOENT
/// when there is no such symbol.
static inline int vmbus_kernel_symbol(const char *_Nonnull name, uint64_t *_Nonnull address) {
  FILE *symbols = fopen("/proc/kallsyms", "re");
  if (symbols == NULL) return -errno;
  int result = -ENOENT;
  char line[512], found[256];
  uint64_t value;
  while (fgets(line, sizeof line, symbols) != NULL) {
    // Most of the hundreds of thousands of lines need not be taken apart.
    if (strstr(line, name) == NULL) continue;
    if (sscanf(line, "%" SCNx64 " %*c %255s", &value, found) == 2 && strcmp(found, name) == 0) {
      *address = value;
      result = 0;
      break;
    }
  }
  fclose(symbols);
  return result;
}
