# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Guests of QEMU, whose VMBus has a balloon device. Sourced after bed.sh. Their channels beside
# commands: console, qmp, and clock, to QEMU's clock; and GUEST.trace, of the QEMU that the guest runs on.

bed_modules=l2
bed_channels=(console qmp commands clock)
bed_outputs=(trace)

usual_processors() { if [[ $1 == 6.12 ]]; then say 2; else say 1; fi; }

bed_add_parts() {
  cp -r "$bed_parts/udev" "$l2/"
  cp -r "$bed_parts/qemu" "$l1/"
  clang -O1 -Wall -Wextra -Werror -shared -fPIC scripts/vm/clock.c -o "$scratch/clock.so"
  bed_add_file "$scratch/clock.so" /qemu/clock.so l1
}

guest_started() { say '{"execute": "qmp_capabilities"}' >"$scratch/$guest.qmp"; }

# Without kvm=off Linux sees KVM, and no Hyper-V.
hyperv_processor=host,kvm=off,hv-relaxed,hv-vapic,hv-time,hv-frequencies,hv-vpindex,hv-synic
hyperv_processor+=,hv-runtime,hv-stimer

# guest_script KIND DIRECTORY FILES: prints what starts the guest's QEMU. Its channels end in the
# directory, and kernel and file system lie in FILES.
guest_script() {
  local arguments qemu=/qemu/run library=/qemu/clock.so clock=$2/$guest.clock
  [[ $1 == pipe ]] || qemu=$bed_parts/qemu/run library=$scratch/clock.so clock=$scratch/$guest.clock
  # shellcheck disable=SC2054
  arguments=(-nodefaults -no-reboot -display none -machine q35,accel=kvm -cpu "$hyperv_processor"
    -smp "${guest#*x}" -m 512M,slots=2,maxmem=1G -kernel "$3/${guest%x*}" -initrd "$3/initrd"
    -append "console=ttyS0 quiet panic=-1 hugepages=8 bed_kernel=${guest%x*}"
    -device vmbus-bridge -device "hv-balloon,id=balloon,status-report=on"
    -trace 'vmbus*' -trace 'hv_balloon*' -D "$2/$guest.trace")
  character_device console "$1" "$2"
  arguments+=(-serial "chardev:console.$guest")
  character_device qmp "$1" "$2"
  arguments+=(-mon "chardev=qmp.$guest,mode=control")
  character_device commands "$1" "$2"
  arguments+=(-device virtio-serial-pci -device "virtserialport,chardev=commands.$guest")
  say "CLOCK_FROM=$clock LD_PRELOAD=$library exec $qemu ${arguments[*]@Q}"
}

# Whether KVM runs a guest here. That /dev/kvm is there says little: what counts is a guest's
# kernel, with a guest's processor, that comes to find Hyper-V. It ends for want of a file system.
kvm_works() {
  [[ -w /dev/kvm ]] || return 1
  timeout 10 "$bed_parts/qemu/run" -nodefaults -no-reboot -display none \
    -machine q35,accel=kvm -cpu "$hyperv_processor" -m 256M -kernel "$bed_parts/kernels/6.12/vmlinuz" \
    -append 'console=ttyS0 panic=-1' -serial stdio </dev/null 2>&1 |
    grep 'Hypervisor detected: Microsoft Hyper-V'
}

# qmp COMMAND [ARGUMENTS]: tells the guest's QEMU something, with arguments in JSON, and prints
# what it returns. Fails where QEMU says that there is an error.
qmp() {
  local token
  token=$(new_token)
  jq -nc --arg command "$1" --argjson arguments "${2:-{\}}" --arg id "$token" \
    '{execute: $command, arguments: $arguments, id: $id}' >"$scratch/$guest.qmp"
  await 20 "$bed_logs/$guest.qmp" "\"id\": \"$token\"\}?.*\}" |
    jq -ce 'if .error then .error.desc | halt_error else .return end'
}

# qemu_later SECONDS: lets that time go by for the guest's QEMU, though not for the guest.
qemu_later() { say "$1" >"$scratch/$guest.clock"; }

# qmp_events NAME: the data of all events of a name that have come so far, one in a line.
qmp_events() {
  grep -a -E "\"event\": \"$1\".*\}.?$" "$bed_logs/$guest.qmp" | jq -c .data
}
