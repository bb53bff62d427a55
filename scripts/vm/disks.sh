# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Disks of the simulated host in a guest with Linux's own drivers: what the parts about them share.
# Sourced after machine.sh.

# disk CONTROLLER LUN: its name in the guest.
disk() {
  guest "for disk in /sys/block/sd?; do
      case \$(readlink -f \$disk/device) in
        */5d15c000-0000-4000-8000-00000000000$1/*:$2) basename \$disk ;;
      esac
    done"
}

# there CONTROLLER LUN: whether the guest has that disk.
there() { [[ -n $(disk "$1" "$2") ]]; }
not_there_any_more() { [[ -z $(disk "$1" "$2") ]]; }

# As many channels as processors, of the controller whose disks are used most.
has_subchannels() {
  local count
  count=$(guest 'ls /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000000/channels | wc -l')
  say "$count channels" >&3
  ((count == $(processors)))
}

# The interrupts of a processor that come from the bus.
bus_interrupts() { guest "grep HYP: /proc/interrupts" | awk -v column="$(($1 + 2))" '{ print $column }'; }

# moves_a_channel CONTROLLER: the guest moves the channels to another processor, and is interrupted there.
moves_a_channel() {
  local name before after
  (($(processors) > 1)) || { say 'there is no other processor' >&3; return 0; }
  name=$(disk "$1" 0)
  guest "for channel in /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-00000000000$1/channels/*; do
      echo 1 >\$channel/cpu; cat \$channel/cpu; done" | grep -c 1
  before=$(bus_interrupts 1)
  guest "dd if=/dev/$name of=/dev/null bs=4k count=200 iflag=direct"
  after=$(bus_interrupts 1)
  say "$((after - before)) interrupts for 200 reads" >&3
  ((after - before >= 100))
}
