# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Each version of the VMBus that Linux still speaks, one boot each: a kernel takes the newest one that the
# host knows too, unless it is held to another. Sourced after bed.sh.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh

bed_packages=()
bed_channels=(commands control)
bed_outputs=(host machine)

versions=(4.0 4.1 5.0 5.1 5.2 5.3 6.0)

# part_guests KERNEL PROCESSORS: the guests with a kernel.
part_guests() {
  local version
  for version in "${versions[@]}"; do
    # The older kernel knows no 6.0.
    [[ $1 == 6.12 && $version == 6.0 ]] || say "$1x$2v$version"
  done
}

# A kernel for kernel 7 to start in its own place.
bed_add_parts() {
  clang -O1 -Wall -Wextra -Werror scripts/vm/kexec.c -o "$scratch/kexec"
  bed_add_program "$scratch/kexec"
  bed_add_file "$bed_parts/kernels/7/vmlinuz" /vmlinuz
}

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host and machine.
guest_script() {
  local version=${guest#*v} number
  number=$((${version%.*} << 16 | ${version#*.}))
  # Where the driver is a module, the guest's first process gives it its parameter.
  machine_script "$@" "--disk memory:8M" \
    "hv_vmbus.max_version=$number bed_hv_vmbus=max_version=$number"
}

# --- Checks ----------------------------------------------------------------------------------------

reads_and_writes() {
  local name
  wait_for 60 there 0 0
  name=$(disk 0 0)
  guest "dd if=/dev/urandom of=/tmp/random bs=1M count=4 && dd if=/tmp/random of=/dev/$name bs=64k oflag=direct &&
    dd if=/dev/$name bs=64k count=64 iflag=direct | cmp - /tmp/random"
}

# Linux asks for that from 4.1 on.
moves_a_channel_or_not() {
  local channel
  if [[ $guest == *v4.0 ]]; then
    channel="\$(ls -d /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000000/channels/* | head -n 1)"
    guest "channel=$channel; [ -e \$channel/cpu ] && ! echo 1 >\$channel/cpu"
  else
    moves_a_channel 0
  fi
}

# UNLOAD, and a second INITIATE_CONTACT on the same machine: no guest joins anew.
another_kernel() {
  [[ $guest == 7x*v6.0 ]] || { say 'kernel 7 at 6.0 alone' >&3; return 0; }
  guest 'echo before >/tmp/before'
  guest_seconds=240 guest 'cd / && find . -xdev ! -path "./tmp/*" | cpio -o -H newc >/tmp/initrd && ls -l /tmp/initrd'
  guest_background kexec "sh -c 'sleep 1; exec kexec /vmlinuz /tmp/initrd \"\$(cat /proc/cmdline)\"'"
  await 60 "$bed_logs/$guest.host" 'guest=1 .*guest disconnected'
  wait_for 240 speaks_again
  guest_seconds=240 guest '[ ! -e /tmp/before ]'
  (($(grep -c 'guest joined' "$bed_logs/$guest.host") == 1))
  reads_and_writes
}

speaks_again() { (($(grep -c 'guest speaks 6.0' "$bed_logs/$guest.host") == 2)); }

check 'boots' 300 guest_boots
check 'connects' 120 connects
check 'a channel for each processor' 120 has_subchannels
check 'reads and writes' 180 reads_and_writes
check 'a channel moves' 120 moves_a_channel_or_not
check 'another kernel' 600 another_kernel
check 'the log has nothing bad' 120 says_nothing_bad
check 'powers off' 180 powers_off
