# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The drivers of this package on the kernel module hv_uservsc: their data path in each kind of machine, and
# what becomes of it when a driver is killed, or its device is taken away under load. Sourced after bed.sh; the
# checks are as those of scripts/vm/storage.sh.
#
# MODULE_KINDS='voff vbs' takes only these machines, DRIVER_KILLS=COUNT makes one of the checks longer.

# shellcheck source=scripts/vm/drivers.sh
. scripts/vm/drivers.sh
# shellcheck source=scripts/vm/module-tools.sh
. scripts/vm/module-tools.sh

bed_packages+=(strace)
# For uio_hv_generic, beside which the module is measured.
guest_words=hugepages=8

part_prepare() { prepare_module; }

add_drivers() {
  add_module
  add_uio
  bed_add_program "$(type -P strace)"
}

# One of the kernels signals through the monitor page, where user space alone could not in an isolated machine.
signals_by_monitor() { [[ $guest != 6.12* ]]; }

# bind DEVICE: gives it to the module, by the words of whoever knows what to do.
bind() {
  local todo
  show "$1"
  todo=$(shown what_to_do)
  say "$todo"
  [[ $todo == *'echo hv_uservsc > '* ]]
  guest "${todo#*then }"
  wait_for 20 guest "[ -c /dev/vmbus/$1 ]"
}

# give_back DEVICE: to the kernel's own driver.
give_back() {
  guest "echo $1 >$bus/drivers/hv_uservsc/unbind; echo >$bus/devices/$1/driver_override
    echo $1 >$bus/drivers_probe"
}

node() { say "/dev/vmbus/$1"; }

nothing_is_left() {
  guest 'cat /sys/class/hv_uservsc/leaked_pages' | grep -x 0
  wait_for 60 shows "$1" module_memory '^0 of '
}

# --- Checks: operators -----------------------------------------------------------------------------

# Before the module is there, what every kernel has is what can be had.
tells_of_no_module() {
  shows "$disk" status "bound to the kernel's driver hv_storvsc|uio_hv_generic is not loaded"
}

tells_what_to_do() {
  guest "insmod /modules/${guest%x*}.tun.ko; insmod /modules/${guest%x*}.hv_uservsc.ko"
  shows "$disk" status "^not usable: bound to the kernel's driver hv_storvsc"
  bind "$disk"
  bind "$nic"
}

tells_the_truth() {
  local device
  for device in "$disk" "$nic"; do
    show "$device"
    says status '^usable$'
    says transport "^/dev/vmbus/$device\$"
    says kernel_driver '^hv_uservsc$'
    says memory_known 'kernel module'
    says ring "^$(ring_memory)\$"
    says dma_memory "^$(data_memory)\$"
    says module_memory '^0 of '
  done
}

# --- Checks: what it costs -------------------------------------------------------------------------

# measure NAME: requests one by one, each of which is a signal, an interrupt and a wake-up, on whatever has the disk.
measure() {
  local bench='vsc-storage bench --pattern randread --depth 1 --block-size 512 --spin 0 --time 5 --json'
  guest_seconds=120 guest "$bench >/dev/null; time -p $bench 2>/tmp/times; cat /tmp/times >&2" \
    >"$scratch/$guest.$1" 2>"$scratch/$guest.$1.times"
  guest_seconds=200 guest "strace -f -c -o /tmp/calls $bench >/dev/null; cat /tmp/calls" >"$scratch/$guest.$1.calls"
  cat "$scratch/$guest.$1"*
}

# told NAME: what that has shown.
told() {
  jq -r --arg name "$1" '"\($name): \(.latency.p50 | round) µs in the middle, \(.latency.p99 | round) µs at 99 %, of \(.requests) requests, \(.doorbells) signals"' \
    "$scratch/$guest.$1" >&3
}

# User space has no other way to the disk in a machine that is not isolated.
costs_beside_uio() {
  kind off || return 0
  measure hv_uservsc
  load_uio
  guest "echo $disk >$bus/drivers/hv_uservsc/unbind; echo uio_hv_generic >$bus/devices/$disk/driver_override
    echo $disk >$bus/drivers/uio_hv_generic/bind"
  measure uio_hv_generic
  guest "echo $disk >$bus/drivers/uio_hv_generic/unbind; echo hv_uservsc >$bus/devices/$disk/driver_override
    echo $disk >$bus/drivers/hv_uservsc/bind"
  told hv_uservsc
  told uio_hv_generic
}

# --- Checks: under load ----------------------------------------------------------------------------

is_unbound_under_load() {
  load
  guest "usleep 300000; echo $disk >$bus/drivers/hv_uservsc/unbind"
  [[ $(ends load) == 69 ]]
  bind "$disk"
  guest "vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  nothing_is_left "$disk"
}

# The driver waits for its device, and drives it again.
network_is_unbound_under_load() {
  guest_background floods ping -q -A -s 1400 "$far4"
  guest "usleep 500000; echo $nic >$bus/drivers/hv_uservsc/unbind"
  guest "until grep 'waiting for $nic' /tmp/tap.log; do sleep 0.1; done"
  bind "$nic"
  interface_up
  pings
  guest_end floods KILL
}

module_is_removed() { guest 'rmmod hv_uservsc'; }

check 'boots' 300 guest_boots
check 'vmbusctl: no module' 120 tells_of_no_module
check 'bound as vmbusctl says' 120 tells_what_to_do
check 'vmbusctl: bound' 120 tells_the_truth
check 'reads and writes' 300 reads_and_writes
check 'under load' 120 carries_load
check 'beside uio_hv_generic' 600 costs_beside_uio
check 'a second driver' 120 is_in_use
check 'kill -9 and start again' $((180 + kills * 20)) is_killed_and_starts
check 'unbound under load' 200 is_unbound_under_load
check 'rescinded under load' 200 is_rescinded_under_load
check 'joins the network' 200 joins_the_network
check 'files both ways' 200 carries_files
check 'network unbound under load' 200 network_is_unbound_under_load
check 'network rescinded under load' 200 network_is_rescinded_under_load
check 'network killed and started' 200 network_is_killed_and_starts
check "Linux's drivers take them back" 300 gives_them_back
check 'the module is removed' 60 module_is_removed
check 'the log has nothing bad' 120 says_nothing
check 'powers off' 180 powers_off
check 'nobody touched another page' 30 nobody_touched_another_page
