# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# vmbusctl gives devices to user space and back, in guests of vmbus-vm: from Linux's own drivers to
# uio_hv_generic. Sourced after bed.sh; the checks are as those of scripts/vm/storage.sh.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh

bed_products=(vmbusctl)
bed_channels=(commands control)
bed_outputs=(host machine)

usual_processors() { say 1; }

bed_add_parts() { add_uio; }

# A disk at each of two controllers, and a network.
guest_script() {
  machine_script "$@" '--disk disk.img,controller=0 --disk memory:16M,controller=1 --nic switch'
}

devices=/sys/bus/vmbus/devices
disk=5d15c000-0000-4000-8000-000000000000 other=5d15c000-0000-4000-8000-000000000001

# did JSON-FILTER COMMAND...: what vmbusctl says of what it did fulfils a condition of jq.
did() {
  local filter=$1
  shift
  guest "vmbusctl $* --json" >"$scratch/$guest.did"
  cat "$scratch/$guest.did"
  jq -e "$filter" "$scratch/$guest.did" >/dev/null
}

# driver DEVICE: who has it.
driver() { guest "basename \$(readlink -f $devices/$1/driver)"; }

refuses_without_the_module() {
  wait_for 60 there 0 0
  refused 69 'uio_hv_generic is not loaded (modprobe uio_hv_generic)' vmbusctl bind "$disk"
  refused 64 "'nonsense' is no GUID" vmbusctl bind nonsense
  load_uio
}

refuses_what_is_in_use() {
  local name
  name=$(disk 0 0)
  guest "mkdir -p /mnt && mke2fs -q /dev/$name && mount /dev/$name /mnt && echo kept >/mnt/word"
  refused 69 "the system uses $disk: $name (mounted at /mnt)" vmbusctl bind "$disk"
  refused 69 'mounted at /mnt' vmbusctl unbind "$disk"
  [[ $(driver "$disk") == hv_storvsc ]]
  guest 'cat /mnt/word && umount /mnt'
}

refuses_the_default_route() {
  guest 'ip link set eth0 up && ip addr add 10.9.0.2/24 dev eth0 && ip route add default via 10.9.0.1'
  refused 69 'eth0 (the default route)' vmbusctl bind eth0
  guest 'ip route del default && ip link set eth0 down'
}

binds() {
  did '.changed and .driver == "uio_hv_generic" and .previous_driver == "hv_storvsc" and .node == "/dev/uio0"' \
    bind scsi
  not_there_any_more 0 0
  did '.changed == false and .node == "/dev/uio0"' bind "$disk"
  guest "cat $devices/$disk/driver_override" | grep -x uio_hv_generic
  # The other one of its class stays where it is.
  [[ $(driver "$other") == hv_storvsc ]]
  did '.driver == "uio_hv_generic"' bind eth0
  did '.driver == "hv_netvsc" and .changed' restore network
  guest 'ls /sys/class/net' | grep eth0
}

doctor_tells() {
  local status=0
  guest 'vmbusctl doctor --json' >"$scratch/$guest.doctor" || status=$?
  cat "$scratch/$guest.doctor"
  jq -e --arg disk "$disk" '(map(select(.subject == $disk)) | length == 1 and .[0].verdict == "ok")
    and (.[0].subject == "machine" and .[0].verdict == "ok")
    and any(.subject == "uio_hv_generic" and .verdict == "ok")' "$scratch/$guest.doctor" >/dev/null
  ((status == 0))
  guest 'vmbusctl doctor'
}

# Whoever has the node open keeps the device: Linux would never close its channel.
refuses_an_open_node() {
  guest_background holder "sh -c 'exec 5<>/dev/uio0; exec sleep 1000'"
  # shellcheck disable=SC2016
  guest 'until ls -l /proc/$(cat /tmp/holder.pid)/fd | grep uio0; do sleep 0.1; done'
  refused 69 "/dev/uio0 is open in process $(guest 'cat /tmp/holder.pid') (sleep)" vmbusctl restore "$disk"
  refused 69 'is open in process' vmbusctl unbind "$disk"
  [[ $(driver "$disk") == uio_hv_generic ]]
  guest_end holder
}

unbinds_and_restores() {
  did '.driver == null and .changed' unbind "$disk"
  did '.changed == false' unbind "$disk"
  fails guest "[ -e $devices/$disk/driver ]"
  did '.driver == "hv_storvsc" and .changed' restore "$disk"
  did '.changed == false' restore "$disk"
  wait_for 60 there 0 0
  guest "mount /dev/$(disk 0 0) /mnt && cat /mnt/word && umount /mnt" | grep -x kept
}

# What is forced is done, with a warning; and the doctor knows what has become of it.
tells_of_a_lost_channel() {
  local status=0
  did '.node == "/dev/uio0"' bind "$other"
  guest_background holder "sh -c 'exec 5<>/dev/uio0; exec sleep 1000'"
  # shellcheck disable=SC2016
  guest 'until ls -l /proc/$(cat /tmp/holder.pid)/fd | grep uio0; do sleep 0.1; done'
  did '.driver == null and (.warnings | length == 1)' unbind "$other" --force
  guest_end holder
  did '.driver == "uio_hv_generic"' bind "$other"
  guest 'vmbusctl doctor --json' >"$scratch/$guest.doctor" || status=$?
  jq -c --arg disk "$other" '.[] | select(.subject == $disk)' "$scratch/$guest.doctor" | tee "$scratch/$guest.lost"
  jq -e '.verdict == "fault" and .remedy == "restart this machine (reboot)"' "$scratch/$guest.lost" >/dev/null
  ((status == 1))
}

check 'boots' 300 guest_boots
check 'no module, bad names' 180 refuses_without_the_module
check 'a mounted disk' 180 refuses_what_is_in_use
check 'the default route' 180 refuses_the_default_route
check 'bind' 240 binds
check 'doctor' 180 doctor_tells
check 'an open node' 180 refuses_an_open_node
check 'unbind and restore' 240 unbinds_and_restores
check 'a lost channel' 240 tells_of_a_lost_channel
check 'the log has nothing bad' 120 says_nothing_bad
