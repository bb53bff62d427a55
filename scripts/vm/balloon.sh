# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What is checked on the test bed. Each check is a function that runs once for each guest, which
# $guest names; scripts/bed.sh has what it can use. The guests run all the time, so what one
# check leaves running in a guest is there for the next one.
#
# A check of its own is a function here and a line in the table at the end. A program that it needs
# in the guests is a word in `bed_products`.

# Products of this package that lie in the guests.
# shellcheck disable=SC2034
bed_products=()

balloon_class=525074dc-8985-46e2-8057-a307dc18a502
devices=/sys/bus/vmbus/devices

guest_boots() {
  guest_seconds=230 guest uname -r >&3
  guest 'test -e /run/udev/control'
}

speaks_version_4() {
  guest dmesg | grep -iE 'Hypervisor detected: Microsoft Hyper-V'
  guest dmesg | grep -iE 'Vmbus version:4\.0'
}

# The name of the balloon in sysfs.
balloon() { guest "grep -il $balloon_class $devices/*/class_id | cut -d / -f 6"; }

one_balloon() {
  guest "cat $devices/*/class_id"
  local found
  mapfile -t found < <(balloon)
  say "${found[*]}" >&3
  ((${#found[@]} == 1))
}

# maps UIO: name and size of each map, in one line.
maps() {
  guest "cd /sys/class/uio/$1/maps && for map in map?; do echo \$(cat \$map/name \$map/size); done" |
    paste -sd ' '
}

bind_to_uio() {
  local name expected found
  name=$(balloon)
  guest "echo uio_hv_generic >$devices/$name/driver_override && echo $name >/sys/bus/vmbus/drivers_probe"
  guest "ls -l $devices/$name/driver /dev/uio0"
  # udevd has seen it too: libudev tells of it.
  guest "udevadm wait --timeout=10 /dev/uio0 && udevadm info /dev/uio0"
  # Kernels since 7.0 have the two buffers for network devices alone.
  expected='txrx_rings 0x0000000000400000 int_page 0x0000000000001000 monitor_page 0x0000000000001000'
  [[ $guest != 6.* ]] || expected+=' recv 0x0000000001f00000 send 0x0000000001000000'
  say "expected $expected"
  # A buffer's name ends with a number that may differ.
  found=$(maps uio0 | sed -E 's/(recv|send):[0-9]+/\1/g')
  say "found    $found"
  wc -w <<<"$found" | awk '{ print $1 / 2 " maps" }' >&3
  [[ $found == "$expected" ]]
}

qemu_answers() {
  qmp query-balloon >&3
}

check 'boots' 240 guest_boots
check 'VMBus 4.0' 40 speaks_version_4
check 'one balloon device' 40 one_balloon
check 'uio_hv_generic takes it' 40 bind_to_uio
check 'QMP answers' 40 qemu_answers
