// SPDX-License-Identifier: Apache-2.0
//
// KVM on x86-64: its calls, and flat forms of its structures that end in arrays or hold unions,
// which Swift cannot import. Failing calls return -errno.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static inline int vmbus_kvm_call(int fd, unsigned long request, void *_Nullable argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

static inline int vmbus_kvm_call_value(int fd, unsigned long request, unsigned long argument) {
  int result = ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}

static inline int vmbus_kvm_open(void) {
  int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

static inline int vmbus_kvm_version(int kvm) {
  return vmbus_kvm_call_value(kvm, KVM_GET_API_VERSION, 0);
}

/// What KVM or one of its machines can do: 0 when it can't.
static inline int vmbus_kvm_capability(int fd, int capability) {
  return vmbus_kvm_call_value(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
}

static inline int vmbus_kvm_create_machine(int kvm) {
  return vmbus_kvm_call_value(kvm, KVM_CREATE_VM, 0);
}

/// Interrupt controllers and the timer of a PC, in the kernel. `task_state` is where Intel's
/// processors keep three pages to themselves.
static inline int vmbus_kvm_create_chips(int machine, uint64_t task_state) {
  int error = vmbus_kvm_call_value(machine, KVM_SET_TSS_ADDR, task_state);
  if (error < 0) return error;
  error = vmbus_kvm_call_value(machine, KVM_CREATE_IRQCHIP, 0);
  if (error < 0) return error;
  struct kvm_pit_config timer;
  memset(&timer, 0, sizeof timer);
  timer.flags = KVM_PIT_SPEAKER_DUMMY;
  return vmbus_kvm_call(machine, KVM_CREATE_PIT2, &timer);
}

static inline int vmbus_kvm_set_memory(
    int machine, uint32_t slot, uint64_t guest, void *_Nonnull start, uint64_t count) {
  struct kvm_userspace_memory_region region = {
      .slot = slot,
      .guest_phys_addr = guest,
      .memory_size = count,
      .userspace_addr = (uint64_t)(uintptr_t)start,
  };
  return vmbus_kvm_call(machine, KVM_SET_USER_MEMORY_REGION, &region);
}

// --- Interrupts ------------------------------------------------------------------------------------

/// Where an interrupt goes: a pin of a chip (0 and 1 PIC, 2 IOAPIC), or a processor's SINT.
struct vmbus_kvm_route {
  uint32_t gsi;
  bool is_sint;
  /// Chip or processor.
  uint32_t target;
  /// Pin or SINT.
  uint32_t line;
};

#define VMBUS_KVM_MAX_ROUTES 64

static inline int vmbus_kvm_set_routes(
    int machine, const struct vmbus_kvm_route *_Nonnull routes, size_t count) {
  if (count > VMBUS_KVM_MAX_ROUTES) return -E2BIG;
  struct {
    uint32_t count, flags;
    struct kvm_irq_routing_entry entries[VMBUS_KVM_MAX_ROUTES];
  } table;
  memset(&table, 0, sizeof table);
  table.count = (uint32_t)count;
  for (size_t i = 0; i < count; i++) {
    struct kvm_irq_routing_entry *entry = &table.entries[i];
    entry->gsi = routes[i].gsi;
    if (routes[i].is_sint) {
      entry->type = KVM_IRQ_ROUTING_HV_SINT;
      entry->u.hv_sint.vcpu = routes[i].target;
      entry->u.hv_sint.sint = routes[i].line;
    } else {
      entry->type = KVM_IRQ_ROUTING_IRQCHIP;
      entry->u.irqchip.irqchip = routes[i].target;
      entry->u.irqchip.pin = routes[i].line;
    }
  }
  return vmbus_kvm_call(machine, KVM_SET_GSI_ROUTING, &table);
}

/// An eventfd raises the interrupt, and the other one is signalled when the guest has ended it.
static inline int vmbus_kvm_bind_interrupt(int machine, uint32_t gsi, int event, int ended) {
  struct kvm_irqfd binding = {
      .fd = (uint32_t)event,
      .gsi = gsi,
      .flags = KVM_IRQFD_FLAG_RESAMPLE,
      .resamplefd = (uint32_t)ended,
  };
  return vmbus_kvm_call(machine, KVM_IRQFD, &binding);
}

static inline int vmbus_kvm_set_line(int machine, uint32_t line, bool level) {
  struct kvm_irq_level state = {.irq = line, .level = level};
  return vmbus_kvm_call(machine, KVM_IRQ_LINE, &state);
}

/// From now on the hypercall HvSignalEvent for that connection signals the eventfd, without an exit.
static inline int vmbus_kvm_bind_event(int machine, uint32_t connection, int event) {
  struct kvm_hyperv_eventfd binding = {.conn_id = connection, .fd = event};
  return vmbus_kvm_call(machine, KVM_HYPERV_EVENTFD, &binding);
}

// --- Processors ------------------------------------------------------------------------------------

static inline int vmbus_kvm_create_processor(int machine, int number) {
  return vmbus_kvm_call_value(machine, KVM_CREATE_VCPU, (unsigned long)number);
}

/// The page that KVM and a processor's thread share. NULL with `error` set when it fails.
static inline void *_Nullable vmbus_kvm_map_run(
    int kvm, int processor, size_t *_Nonnull count, int *_Nonnull error) {
  int size = vmbus_kvm_call_value(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < 0) {
    *error = -size;
    return NULL;
  }
  void *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, processor, 0);
  *error = run == MAP_FAILED ? errno : 0;
  *count = (size_t)size;
  return run == MAP_FAILED ? NULL : run;
}

static inline int vmbus_kvm_enable_synic(int processor) {
  struct kvm_enable_cap capability;
  memset(&capability, 0, sizeof capability);
  capability.cap = KVM_CAP_HYPERV_SYNIC2;
  return vmbus_kvm_call(processor, KVM_ENABLE_CAP, &capability);
}

struct vmbus_kvm_cpuid {
  uint32_t function, index;
  /// KVM_CPUID_FLAG_*
  uint32_t flags;
  uint32_t eax, ebx, ecx, edx;
};

#define VMBUS_KVM_MAX_CPUID 256

/// struct kvm_cpuid2, whose array has no length.
struct vmbus_kvm_cpuid_table {
  uint32_t count, padding;
  struct kvm_cpuid_entry2 entries[VMBUS_KVM_MAX_CPUID];
};

static inline int vmbus_kvm_get_cpuid(
    int fd, unsigned long request, struct vmbus_kvm_cpuid *_Nonnull entries) {
  struct vmbus_kvm_cpuid_table table;
  memset(&table, 0, sizeof table);
  table.count = VMBUS_KVM_MAX_CPUID;
  int error = vmbus_kvm_call(fd, request, &table);
  if (error < 0) return error;
  for (uint32_t i = 0; i < table.count; i++) {
    const struct kvm_cpuid_entry2 *entry = &table.entries[i];
    entries[i] = (struct vmbus_kvm_cpuid){
        entry->function, entry->index, entry->flags, entry->eax,
        entry->ebx, entry->ecx, entry->edx};
  }
  return (int)table.count;
}

/// What KVM can give a guest; fills VMBUS_KVM_MAX_CPUID entries at most and returns their count.
static inline int vmbus_kvm_supported_cpuid(int kvm, struct vmbus_kvm_cpuid *_Nonnull entries) {
  return vmbus_kvm_get_cpuid(kvm, KVM_GET_SUPPORTED_CPUID, entries);
}

/// The same of Hyper-V's leaves, of a processor that has its SynIC.
static inline int vmbus_kvm_supported_hyperv_cpuid(
    int processor, struct vmbus_kvm_cpuid *_Nonnull entries) {
  return vmbus_kvm_get_cpuid(processor, KVM_GET_SUPPORTED_HV_CPUID, entries);
}

static inline int vmbus_kvm_set_cpuid(
    int processor, const struct vmbus_kvm_cpuid *_Nonnull entries, size_t count) {
  if (count > VMBUS_KVM_MAX_CPUID) return -E2BIG;
  struct vmbus_kvm_cpuid_table table;
  memset(&table, 0, sizeof table);
  table.count = (uint32_t)count;
  for (size_t i = 0; i < count; i++) {
    table.entries[i] = (struct kvm_cpuid_entry2){
        .function = entries[i].function,
        .index = entries[i].index,
        .flags = entries[i].flags,
        .eax = entries[i].eax,
        .ebx = entries[i].ebx,
        .ecx = entries[i].ecx,
        .edx = entries[i].edx,
    };
  }
  return vmbus_kvm_call(processor, KVM_SET_CPUID2, &table);
}

/// How a processor begins: in 64-bit mode, with flat segments and the given page table.
struct vmbus_kvm_start {
  uint64_t instruction, page_table, descriptor_table;
  uint16_t descriptor_table_limit, code_selector, data_selector;
  /// What is in RSI.
  uint64_t argument;
};

static inline int vmbus_kvm_set_start(int processor, const struct vmbus_kvm_start *_Nonnull start) {
  struct kvm_sregs special;
  int error = vmbus_kvm_call(processor, KVM_GET_SREGS, &special);
  if (error < 0) return error;
  const struct kvm_segment code = {
      .limit = UINT32_MAX, .selector = start->code_selector,
      .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  const struct kvm_segment data = {
      .limit = UINT32_MAX, .selector = start->data_selector,
      .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
  special.cs = code;
  special.ds = special.es = special.fs = special.gs = special.ss = data;
  special.gdt.base = start->descriptor_table;
  special.gdt.limit = start->descriptor_table_limit;
  special.cr3 = start->page_table;
  special.cr4 |= 1u << 5;                // physical address extension
  special.cr0 |= 1u << 31 | 1u;          // paging, protected mode
  special.efer |= 1u << 8 | 1u << 10;    // long mode, active
  error = vmbus_kvm_call(processor, KVM_SET_SREGS, &special);
  if (error < 0) return error;
  struct kvm_regs registers;
  memset(&registers, 0, sizeof registers);
  registers.rip = start->instruction;
  registers.rsi = start->argument;
  registers.rflags = 2;
  return vmbus_kvm_call(processor, KVM_SET_REGS, &registers);
}

// --- Isolated machines -----------------------------------------------------------------------------

/// From now on a guest that writes one of these registers stops its processor with KVM_EXIT_X86_WRMSR, and
/// with KVM_EXIT_X86_RDMSR when it reads one behind the first `writes`; all others stay KVM's.
static inline int vmbus_kvm_watch_registers(
    int machine, const uint32_t *_Nonnull indices, size_t writes, size_t all) {
  struct kvm_enable_cap capability;
  memset(&capability, 0, sizeof capability);
  capability.cap = KVM_CAP_X86_USER_SPACE_MSR;
  capability.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  int error = vmbus_kvm_call(machine, KVM_ENABLE_CAP, &capability);
  if (error < 0) return error;
  // A bit that is 0 denies; KVM reads whole words.
  static uint8_t denied[sizeof(unsigned long)];
  struct kvm_msr_filter filter;
  memset(&filter, 0, sizeof filter);
  if (writes + all > sizeof filter.ranges / sizeof filter.ranges[0]) return -E2BIG;
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  for (size_t i = 0; i < writes + all; i++) {
    filter.ranges[i].flags = KVM_MSR_FILTER_WRITE | (i < writes ? 0 : KVM_MSR_FILTER_READ);
    filter.ranges[i].nmsrs = 1;
    filter.ranges[i].base = indices[i];
    filter.ranges[i].bitmap = denied;
  }
  return vmbus_kvm_call(machine, KVM_X86_SET_MSR_FILTER, &filter);
}

/// Writes a register as the guest would, filter or not. Returns -EINVAL when KVM refuses the value.
static inline int vmbus_kvm_write_register(int processor, uint32_t index, uint64_t value) {
  // The table, and its one entry behind it.
  _Alignas(struct kvm_msrs) unsigned char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
  struct kvm_msrs *registers = (struct kvm_msrs *)bytes;
  memset(bytes, 0, sizeof bytes);
  registers->nmsrs = 1;
  registers->entries[0].index = index;
  registers->entries[0].data = value;
  int written = vmbus_kvm_call(processor, KVM_SET_MSRS, registers);
  return written < 0 ? written : written == 1 ? 0 : -EINVAL;
}

/// How the guest's access of a register ends at the next run: with #GP, or with the value that is read.
static inline void vmbus_kvm_set_register_result(void *_Nonnull page, bool fails, uint64_t value) {
  ((struct kvm_run *)page)->msr.error = fails;
  ((struct kvm_run *)page)->msr.data = value;
}

/// What calls of a guest have in registers.
struct vmbus_kvm_general {
  uint64_t rax, rcx, rdx;
};

static inline int vmbus_kvm_get_general(int processor, struct vmbus_kvm_general *_Nonnull out) {
  struct kvm_regs registers;
  int error = vmbus_kvm_call(processor, KVM_GET_REGS, &registers);
  if (error < 0) return error;
  *out = (struct vmbus_kvm_general){registers.rax, registers.rcx, registers.rdx};
  return 0;
}

static inline int vmbus_kvm_set_general(int processor, const struct vmbus_kvm_general *_Nonnull general) {
  struct kvm_regs registers;
  int error = vmbus_kvm_call(processor, KVM_GET_REGS, &registers);
  if (error < 0) return error;
  registers.rax = general->rax;
  registers.rcx = general->rcx;
  registers.rdx = general->rdx;
  return vmbus_kvm_call(processor, KVM_SET_REGS, &registers);
}

// --- Running ---------------------------------------------------------------------------------------

/// Why a processor has stopped, in one form for all reasons.
struct vmbus_kvm_exit {
  /// KVM_EXIT_*
  uint32_t reason;
  /// IO: the port. MMIO: the physical address. X86_WRMSR: the register.
  uint64_t address;
  /// IO, MMIO: bytes of one access.
  uint32_t size;
  /// IO: accesses that follow each other in `data`. MMIO: 1.
  uint32_t count;
  bool is_write;
  /// What was written, or is to be read.
  uint8_t *_Nullable data;
  /// HYPERV: KVM_EXIT_HYPERV_*
  uint32_t hyperv;
  /// HYPERV, SynIC: the registers.
  uint64_t control, event_flags_page, message_page;
  /// HYPERV, hypercall. X86_WRMSR: the value, in `parameter`.
  uint64_t input, parameter;
  /// SYSTEM_EVENT: KVM_SYSTEM_EVENT_*. Failures: what KVM or the hardware said.
  uint64_t detail;
};

/// Runs a processor until KVM needs something; -EINTR when it was kicked.
static inline int vmbus_kvm_run(
    int processor, void *_Nonnull page, struct vmbus_kvm_exit *_Nonnull out) {
  struct kvm_run *run = (struct kvm_run *)page;
  int error = vmbus_kvm_call_value(processor, KVM_RUN, 0);
  memset(out, 0, sizeof *out);
  if (error < 0) return error;
  out->reason = run->exit_reason;
  switch (run->exit_reason) {
    case KVM_EXIT_IO:
      out->address = run->io.port;
      out->size = run->io.size;
      out->count = run->io.count;
      out->is_write = run->io.direction == KVM_EXIT_IO_OUT;
      out->data = (uint8_t *)page + run->io.data_offset;
      break;
    case KVM_EXIT_MMIO:
      out->address = run->mmio.phys_addr;
      out->size = run->mmio.len;
      out->count = 1;
      out->is_write = run->mmio.is_write;
      out->data = run->mmio.data;
      break;
    case KVM_EXIT_HYPERV:
      out->hyperv = run->hyperv.type;
      if (run->hyperv.type == KVM_EXIT_HYPERV_SYNIC) {
        out->control = run->hyperv.u.synic.control;
        out->event_flags_page = run->hyperv.u.synic.evt_page;
        out->message_page = run->hyperv.u.synic.msg_page;
      } else if (run->hyperv.type == KVM_EXIT_HYPERV_HCALL) {
        out->input = run->hyperv.u.hcall.input;
        out->parameter = run->hyperv.u.hcall.params[0];
      }
      break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      out->address = run->msr.index;
      out->parameter = run->msr.data;
      break;
    case KVM_EXIT_SYSTEM_EVENT: out->detail = run->system_event.type; break;
    case KVM_EXIT_FAIL_ENTRY: out->detail = run->fail_entry.hardware_entry_failure_reason; break;
    case KVM_EXIT_INTERNAL_ERROR: out->detail = run->internal.suberror; break;
    default: break;
  }
  return 0;
}

/// What the hypercall returns at the next run.
static inline void vmbus_kvm_set_hypercall_result(void *_Nonnull page, uint64_t result) {
  ((struct kvm_run *)page)->hyperv.u.hcall.result = result;
}

/// Lets the next or the present run return at once, together with vmbus_kvm_kick.
static inline void vmbus_kvm_end_run(void *_Nonnull page) {
  __atomic_store_n(&((struct kvm_run *)page)->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

static inline void vmbus_kvm_kicked(int number) {
  (void)number;
}

/// Gives the signal that vmbus_kvm_kick sends a handler that does nothing; before any thread runs a
/// processor.
static inline void vmbus_kvm_handle_kicks(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = vmbus_kvm_kicked;
  sigaction(SIGUSR1, &action, NULL);
}

/// On each thread that runs a processor.
static inline void vmbus_kvm_allow_kicks(void) {
  // The runtime's threads block most signals, and the mask is inherited.
  sigset_t kicks;
  sigemptyset(&kicks);
  sigaddset(&kicks, SIGUSR1);
  pthread_sigmask(SIG_UNBLOCK, &kicks, NULL);
}

static inline void vmbus_kvm_kick(pthread_t thread) {
  pthread_kill(thread, SIGUSR1);
}
