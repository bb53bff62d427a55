# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The drivers of this package on uio_hv_generic, which every kernel has: a disk and a network like those of the
# kernel's own drivers, and in isolated machines what there is of a data path, or the reason why there is none.
# Sourced after bed.sh; the checks are as those of scripts/vm/storage.sh.
#
# MODULE_KINDS='voff vbs' takes only these machines, DRIVER_KILLS=COUNT makes one of the checks longer.

# shellcheck source=scripts/vm/drivers.sh
. scripts/vm/drivers.sh

bed_libraries=(VSCStorageNBD)
bed_packages+=(e2fsprogs fio libnbd-bin nbdkit nbdkit-plugin-dev)

# Freed pages hold a pattern, and the kernel looks whether anybody has written to one before it uses it again.
huge_pages=32
guest_words="page_poison=1 hugepages=$huge_pages" guest_memory=640M

add_drivers() {
  local name
  for name in nbdkit nbdinfo nbdcopy fio; do bed_add_program "$(type -P $name)"; done
  add_uio
}

# In an isolated machine user space has no use of that page.
signals_by_monitor() { [[ $guest == 7*voff ]]; }

bind() { guest "vmbusctl bind $1"; }

give_back() { guest "vmbusctl restore $1"; }

node() { guest "echo /dev/\$(ls $bus/devices/$1/uio)"; }

# A killed driver's pages are free when its channel is closed.
nothing_is_left() {
  wait_for 60 shows "$1" status '^usable$'
  wait_for 20 guest "grep -E '^HugePages_Free: +$huge_pages\$' /proc/meminfo"
}

# --- Checks: operators -----------------------------------------------------------------------------

takes_them() {
  shows "$disk" status '^not usable: the kernel module uio_hv_generic is not loaded$'
  guest "insmod /modules/${guest%x*}.tun.ko"
  load_uio
  shows "$disk" status "^not usable: bound to the kernel's driver hv_storvsc"
  bind "$disk"
  bind "$nic"
}

tells_the_truth() {
  local device
  for device in "$disk" "$nic"; do
    show "$device"
    says status '^usable$'
    says transport '^/dev/uio[0-9]+$'
    says kernel_driver '^uio_hv_generic$'
    says ring "^$(ring_memory)\$"
    says dma_memory "^$(data_memory)\$"
    shown memory_known
    if signals_by_monitor; then
      says subchannels '^one for each processor$'
    else
      says subchannels '^none: the host is signalled by hypercall'
    fi
  done
}

# --- Checks: storage -------------------------------------------------------------------------------

# fio, through nbdkit: what every program can use.
exports_the_disk() {
  guest_background export "vsc-storage export --socket /tmp/nbd"
  wait_for 60 guest "nbdinfo --size 'nbd+unix:///?socket=/tmp/nbd'"
  guest_seconds=120 guest "cd /tmp && fio --name=verify --ioengine=nbd --uri='nbd+unix:///?socket=/tmp/nbd' \
    --offset=16M --size=8M --rw=randwrite --bsrange=4k-64k --iodepth=16 --verify=crc32c --verify_fatal=1 \
    --verify_state_save=0" | grep 'err= 0'
  guest "nbdcopy 'nbd+unix:///?socket=/tmp/nbd' /tmp/copy"
  guest_end export
  guest "rm -f /tmp/nbd; vsc-storage read | cmp - /tmp/copy; rm /tmp/copy"
}

# Unbound under its driver the channel would be lost until the machine is restarted.
stays_under_load() {
  guest_background bench vsc-storage bench --pattern randread --time 1000
  wait_for 60 shows "$disk" status "is in use by process [0-9]+\$"
  refused 69 'is open in process' vmbusctl unbind "$disk"
  guest "[ \$(basename \$(readlink $bus/devices/$disk/driver)) = uio_hv_generic ]; [ ! -s /tmp/bench.status ]"
  guest_end bench KILL
  nothing_is_left "$disk"
}

# What killed drivers had is used by others, and the kernel looks at each page.
no_free_page_was_written() {
  guest "echo 0 >/proc/sys/vm/nr_hugepages; mkdir -p /mnt; mount -t tmpfs -o size=80M none /mnt
    dd if=/dev/zero of=/mnt/fill bs=1M count=64; umount /mnt; echo $huge_pages >/proc/sys/vm/nr_hugepages; cat /proc/sys/vm/nr_hugepages" | grep -x "$huge_pages"
  fails guest 'dmesg | grep pagealloc'
}

has_no_memory() {
  refused 69 'a stock kernel gives user space no host-visible memory' vsc-storage info
}

# The kernel's buffers: no DMA memory of ours.
has_no_buffers() {
  refused 69 "maps a network device's buffers with the wrong encryption" vsc-network tap --name vsc0
}

# Where the disk has a data path, and where it has none; the same for the network.
with_disk() { kind bs ring || "$@"; }
without_disk() { ! kind bs ring || "$@"; }
with_network() { ! kind off || "$@"; }
without_network() { kind off || "$@"; }

check 'boots' 300 guest_boots
check 'bound by vmbusctl' 120 takes_them
check 'vmbusctl: bound' 120 tells_the_truth
check 'no disk, and why' 60 'without_disk has_no_memory'
check 'no network, and why' 60 'without_network has_no_buffers'
check 'reads and writes' 300 'with_disk reads_and_writes'
check 'under load' 120 'with_disk carries_load'
check 'fio and nbdcopy on its export' 300 'with_disk exports_the_disk'
check 'a second driver' 120 'with_disk is_in_use'
check 'kill -9 and start again' $((180 + kills * 20)) 'with_disk is_killed_and_starts'
check 'no free page was written' 60 'with_disk no_free_page_was_written'
check 'not unbound under load' 120 'with_disk stays_under_load'
check 'rescinded under load' 200 'with_disk is_rescinded_under_load'
check 'joins the network' 200 'with_network joins_the_network'
check 'files both ways' 200 'with_network carries_files'
check 'network rescinded under load' 200 'with_network network_is_rescinded_under_load'
check 'network killed and started' 200 'with_network network_is_killed_and_starts'
check "Linux's drivers take them back" 300 'with_network gives_them_back'
check 'the log has nothing bad' 120 says_nothing
check 'powers off' 180 powers_off
check 'nobody touched another page' 30 nobody_touched_another_page
