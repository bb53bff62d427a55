# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# PCI functions in user space: an NVMe disk behind a hot-plug port of QEMU's emulated machine, with and
# without an IOMMU. Sourced after bed.sh; the checks are as those of scripts/vm/balloon.sh.
#
# A guest's name ends with the way to its functions: group (Debian's own modules), cdev (iommufd), noiommu
# (a machine without an IOMMU). GUEST.disk is the disk.

# shellcheck source=scripts/vm/qemu.sh
. scripts/vm/qemu.sh
# shellcheck source=scripts/vm/vfio-modules.sh
. scripts/vm/vfio-modules.sh

bed_packages=(fio libnbd-bin nbdkit nbdkit-plugin-dev)
bed_products=(vfio-probe vsc-nvme vmbusctl)
bed_libraries=(VSCStorageNBD)
bed_outputs=()
# QEMU emulates these machines itself, on this one.
bed_nested=no

usual_processors() { say 2; }

part_prepare() { vfio_fetched || vfio_fetch; }

part_guests() {
  say "$1x$2group"
  say "$1x$2cdev"
  say "$1x$2noiommu"
}

# way: to the functions of a guest.
way() { sed -E 's/^[0-9.]+x[0-9]+//' <<<"$guest"; }

bed_add_parts() {
  local name
  cp -r "$bed_parts/udev" "$l2/"
  mkdir -p "$l2/rules"
  # The line of the example for this disk, and those for the nodes.
  sed -E '/vfio/s/^#(SUBSYSTEM)/\1/; /misc/s/^#(SUBSYSTEM)/\1/' udev/59-swift-vmbus-devices.rules >"$l2/rules/59-swift-vmbus-devices.rules"
  cp udev/60-swift-vmbus.rules "$l2/rules/"
  # What systemd would do for the rules: there is none in these guests.
  bed_start_line "systemd/vmbus-bind@.service" >"$l2/rules/bind"
  for name in nbdkit nbdinfo fio; do bed_add_program "$(type -P $name)"; done
  for name in "${bed_kernels[@]}"; do
    rm -r "$l2/modules/$name"
    cp -r "$vfio_parts/$name/stock" "$l2/modules/$name-stock"
    cp -r "$vfio_parts/$name/built" "$l2/modules/$name-built"
    cp "$vfio_parts/$name/vmlinuz" "$l1/files/$name"
  done
}

# bed_start_line UNIT: the command that a template unit starts, for an instance in $1.
# shellcheck disable=SC2016
bed_start_line() { sed -nE '/^ExecStart=/{ s/^ExecStart=//; s/%i/"$1"/g; s/\$\$/$/g; s,/usr/bin/,,g; p; }' "$1"; }

# guest_script KIND DIRECTORY FILES: prints what starts the guest's machine.
guest_script() {
  # Processors that are emulated side by side end QEMU when a function's registers come and go.
  local arguments modules=built iommu='intel_iommu=on' way processors=${guest#*x}
  way=$(way)
  # shellcheck disable=SC2054
  arguments=(-nodefaults -no-reboot -display none -machine 'q35,kernel-irqchip=split'
    -accel tcg,thread=single -cpu max -smp "${processors%"$way"}" -m 1G -kernel "$3/${guest%x*}" -initrd "$3/initrd")
  case $way in
    group) modules=stock ;;
    noiommu) iommu='bed_vfio=enable_unsafe_noiommu_mode=1' ;;
  esac
  # Before the devices that it is for.
  [[ $way == noiommu ]] || arguments+=(-device 'intel-iommu,intremap=on')
  # The kernel's checks of its timer and of itself are too short for an emulated machine that is held up.
  arguments+=(-append "console=ttyS0 quiet panic=-1 no_timer_check nosoftlockup hugepages=24 bed_kernel=${guest%x*}-$modules $iommu"
    -drive "file=$2/$guest.disk,format=raw,if=none,id=disk"
    -device 'pcie-root-port,id=pcie.1,chassis=1,slot=1,addr=6'
    -device "$nvme_device"
    -trace 'vtd_dmar_fault' -D "$2/$guest.trace")
  character_device console "$1" "$2"
  arguments+=(-serial "chardev:console.$guest")
  character_device qmp "$1" "$2"
  arguments+=(-mon "chardev=qmp.$guest,mode=control")
  character_device commands "$1" "$2"
  arguments+=(-device virtio-serial-pci -device "virtserialport,chardev=commands.$guest")
  say "truncate -s 64M $2/$guest.disk"
  say "exec $bed_parts/qemu/run ${arguments[*]@Q} 2>$2/$guest.machine"
}

nvme_device='nvme,id=nvme,serial=vmbus-test,drive=disk,bus=pcie.1'
# Behind the port.
address=0000:01:00.0
nvme_directory=/sys/bus/pci/devices/$address

# --- Checks ----------------------------------------------------------------------------------------

guest_boots() {
  guest_seconds=240 guest uname -r >&3
  guest "cat $nvme_directory/class" | grep -x 0x010802
}

# the_ways: to the function that the guest's kernel has, the best one first.
the_ways() {
  case $guest in
    *group) say group ;;
    *cdev) printf '%s\n' iommufd group ;;
    6.12*) say noiommu ;;
    *) printf '%s\n' iommufd-noiommu noiommu ;;
  esac
}

# each_way COMMAND...: of the probe, with the address and the way behind its first word.
each_way() {
  local way
  for way in $(the_ways); do
    say "$way:"
    guest "vfio-probe $1 $address $way ${*:2}"
  done
}

driver_is() { guest "basename \$(readlink $nvme_directory/driver)" | grep -x "$1"; }

# The kernel's own driver has the disk at first.
binds() {
  driver_is nvme
  guest "vfio-probe list" | grep -F "$address" | grep -F "bound to the kernel's driver nvme"
  guest "vfio-probe bind $address"
  driver_is vfio-pci
  guest "vfio-probe list" | grep -F "$address" | tee "$scratch/$guest.list"
  grep -F "VFIO $(the_ways | paste -sd , | sed 's/,/, /g'): can be opened" "$scratch/$guest.list"
  the_ways | paste -sd ' ' >&3
}

# What is mounted does not change hands.
keeps_a_disk_in_use() {
  local out
  guest "vfio-probe unbind $address"
  driver_is nvme
  guest "mkdir -p /tmp/mounted; mke2fs -q /dev/nvme0n1 4096 >&2; mount /dev/nvme0n1 /tmp/mounted"
  out=$(guest "vfio-probe bind $address; echo \$?")
  say "$out"
  [[ $out == *"the system uses $address: nvme0n1 (mounted at /tmp/mounted)"*1 ]]
  driver_is nvme
  guest 'umount /tmp/mounted'
  guest "vfio-probe bind $address"
}

# property NAME: of the function, as udev knows it.
property() { guest "udevadm info --query=property $nvme_directory" | sed -n "s/^$1=//p"; }

follows_the_rules() {
  guest "udevadm control --reload && udevadm trigger --action=add --subsystem-match=vmbus --subsystem-match=pci &&
    udevadm settle --timeout=30"
}

bound_by_the_unit() { guest "sh /rules/bind $address"; }

# An operator's rule takes the disk from the kernel's driver, now and when it comes again, and not while it
# is mounted.
is_bound_by_a_rule() {
  local node
  guest "vfio-probe unbind $address"
  driver_is nvme
  # Names are looked up as udevd does by default.
  guest "mkdir -p /etc/udev/rules.d && cp /rules/*.rules /etc/udev/rules.d/ && echo 'vmbus:x:990:' >/etc/group
    udevadm control --exit; argv0=systemd-udevd /udev/run --daemon"
  follows_the_rules
  driver_is nvme
  guest "cat $nvme_directory/driver_override" | grep -x vfio-pci
  property SYSTEMD_WANTS | grep -x "vmbus-bind@$address.service"
  wait_for 30 guest '[ -b /dev/nvme0n1 ]'
  guest 'mount /dev/nvme0n1 /tmp/mounted'
  fails bound_by_the_unit
  driver_is nvme
  guest 'umount /tmp/mounted'
  bound_by_the_unit
  driver_is vfio-pci
  guest 'udevadm settle --timeout=30'
  property SYSTEMD_WANTS | grep -x "vsc-nvme@$address.service"
  node=$(guest "readlink $nvme_directory/iommu_group | sed 's,.*/,,'")
  [[ $(way) != noiommu ]] || node=noiommu-$node
  guest "stat -c '%G %a' /dev/vfio/$node" | grep -x 'vmbus 660'
  driver info "$(the_ways | head -n 1)"
  # It goes, and comes again.
  qmp device_del '{"id": "nvme"}'
  wait_for 60 is_deleted 1
  qmp device_add '{"driver": "nvme", "id": "nvme", "serial": "vmbus-test", "drive": "disk", "bus": "pcie.1"}'
  wait_for 60 is_back
  wait_for 30 is_kept
  bound_by_the_unit
  driver_is vfio-pci
  # Given back it stays with the kernel, and without a rule too.
  guest "vmbusctl restore $address && rm -r /etc/udev/rules.d && udevadm control --reload"
  wait_for 30 driver_is nvme
  guest "vfio-probe bind $address"
}

is_kept() { [[ $(guest "cat $nvme_directory/driver_override") == vfio-pci ]]; }

identifies() { each_way identify; }

opens_again() { each_way again 10; }

# An IOMMU stops what the function was not given, and the kernel tells of it.
keeps_to_its_memory() {
  local way
  if [[ $(way) == noiommu ]]; then
    say 'no IOMMU' >&3
    return
  fi
  each_way outside
  each_way read-only
  guest "dmesg | grep 'DMAR: .DMA Write.*fault addr 0x700000000'"
  # The machine's own word.
  grep -m 1 'vtd_dmar_fault .*addr 0x700000000 write 1' "$bed_logs/$guest.trace" >&3
}

# driver COMMAND WAY [OPTION...]: the NVMe driver.
driver() { guest "vsc-nvme $1 --device $address --vfio $2 ${*:3}"; }

# What each way wrote, all ways read; the kernel's own driver looks at it at the end.
drives_the_disk() {
  local way place=0
  guest 'dd if=/dev/urandom of=/tmp/data bs=1M count=4'
  for way in $(the_ways); do
    driver info "$way"
    driver write "$way" --offset "${place}M" --from /tmp/data
    ((place += 4))
  done
  for way in $(the_ways); do
    for ((at = 0; at < place; at += 4)); do
      driver read "$way" --offset "${at}M" --count 4M --to /tmp/back
      guest 'cmp /tmp/data /tmp/back && rm /tmp/back'
    done
    driver bench "$way" --pattern randread --requests 2000 --depth 32
  done
  say "$place" >"$scratch/$guest.written"
}

# serves WAY: the disk as NBD, in the background.
serves() {
  guest_background export "vsc-nvme export --device $address --vfio $1 --socket /tmp/nbd"
  wait_for 60 guest "nbdinfo --size 'nbd+unix:///?socket=/tmp/nbd'"
}

ends_serving() {
  guest_end export
  guest 'rm -f /tmp/nbd'
}

# What the export serves is behind all that the kernel's driver looks at.
exports_the_disk() {
  local way
  for way in $(the_ways); do
    serves "$way"
    guest_seconds=120 guest "cd /tmp && fio --name=verify --ioengine=nbd --uri='nbd+unix:///?socket=/tmp/nbd' \
      --offset=32M --size=8M --rw=randwrite --bsrange=4k-64k --iodepth=16 --verify=crc32c --verify_fatal=1 \
      --verify_state_save=0" | grep 'err= 0'
    ends_serving
  done
}

resets() { each_way reset 10; }

# Behind the driver's back: what was under way is never answered, until the driver looks and finds a
# controller that is not ready.
is_reset_under_its_driver() {
  serves "$(the_ways | head -n 1)"
  guest_background fio "fio --name=verify --ioengine=nbd --uri='nbd+unix:///?socket=/tmp/nbd' --offset=40M --size=16M \
    --rw=randwrite --bs=4k --iodepth=16 --verify=crc32c --verify_fatal=1 --verify_state_save=0"
  guest "sleep 2; [ ! -s /tmp/fio.status ]; echo 1 >$nvme_directory/reset; [ ! -s /tmp/fio.status ]"
  guest_seconds=100 guest 'until [ -s /tmp/fio.status ]; do sleep 1; done; cat /tmp/fio.log' |
    tee "$scratch/$guest.fio"
  guest 'cat /tmp/fio.status; rm /tmp/fio.*' | grep -x 0
  grep 'err= 0' "$scratch/$guest.fio"
  ends_serving
}

bus_mastering() {
  # The third bit of the command register.
  guest "od -A n -t u1 -j 4 -N 1 $nvme_directory/config" | awk '{ print int($1 / 4) % 2 }'
}

# The kernel makes the function of a killed process quiet, and it can be used again.
survives_a_kill() {
  local way
  for way in $(the_ways); do
    guest_background hold "vfio-probe hold $address $way"
    wait_for 60 guest "grep -q held /tmp/hold.log"
    [[ $(bus_mastering) == 1 ]]
    guest_end hold KILL | grep -x 137
    [[ $(bus_mastering) == 0 ]]
    guest "vfio-probe identify $address $way"
  done
}

is_deleted() { qmp_events DEVICE_DELETED | grep -c '"device":"nvme"' | grep -x "$1"; }

is_back() { guest "cat $nvme_directory/class"; }

# The operator takes the device out of the machine, while it works, and puts it back.
is_taken_away() {
  local way
  for way in $(the_ways); do
    guest_background loop "vfio-probe loop $address $way"
    wait_for 60 guest "grep -q running /tmp/loop.log"
    takes_away loop 0 'worked, then: the host took the device back, status true'
    comes_back
    guest "vfio-probe identify $address $way"
    guest_background bench "vsc-nvme bench --device $address --vfio $way --time 100"
    wait_for 60 reads_at_work
    takes_away bench 69 'vsc-nvme: the host took the device back'
    comes_back
    driver info "$way"
  done
}

reads_at_work() { [[ $(bus_mastering) == 1 ]]; }

# takes_away NAME STATUS WORDS: with a program that has it, which then ends with that status and says so.
takes_away() {
  local deleted
  deleted=$(qmp_events DEVICE_DELETED | grep -c '"device":"nvme"' || true)
  qmp device_del '{"id": "nvme"}'
  wait_for 60 is_deleted $((deleted + 1))
  guest "until [ -s /tmp/$1.status ]; do sleep 0.1; done; cat /tmp/$1.log" | tee "$scratch/$guest.$1"
  grep -F "$3" "$scratch/$guest.$1"
  guest "cat /tmp/$1.status; rm /tmp/$1.status" | grep -x "$2"
  wait_for 60 fails is_back
}

comes_back() {
  qmp device_add '{"driver": "nvme", "id": "nvme", "serial": "vmbus-test", "drive": "disk", "bus": "pcie.1"}'
  wait_for 60 is_back
  wait_for 30 driver_is nvme
  guest "vfio-probe bind $address"
}

fails() { if "$@"; then return 1; fi; }

# The kernel's own driver has it again.
gives_it_back() {
  guest "vfio-probe unbind $address"
  driver_is nvme
  wait_for 30 guest '[ -b /dev/nvme0n1 ]'
  guest "for at in \$(seq 0 4 $(($(<"$scratch/$guest.written") - 4))); do
      dd if=/dev/nvme0n1 bs=1M skip=\$at count=4 iflag=direct | cmp - /tmp/data || exit
    done"
}

says_nothing_bad() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|\] WARNING: |Oops:|hung task|blocked for more|leak' "$bed_logs/$guest.dmesg"
}

powers_off() {
  guest_background off "sh -c 'sleep 1; sync; poweroff -f'"
  wait_for 120 bed_ended_well
}

check 'boots' 300 guest_boots
check 'binds' 120 binds
check 'keeps a disk in use' 120 keeps_a_disk_in_use
check 'bound by a rule' 300 is_bound_by_a_rule
check 'identifies by DMA, with interrupts and a reset' 180 identifies
check 'opens and closes' 180 opens_again
check 'keeps to its memory' 180 keeps_to_its_memory
check 'vsc-nvme writes and reads' 300 drives_the_disk
check 'fio on its export' 400 exports_the_disk
check 'a reset while it works' 180 resets
check 'a reset under its driver' 300 is_reset_under_its_driver
check 'a killed process' 180 survives_a_kill
check 'taken away while it works' 300 is_taken_away
check 'given back' 120 gives_it_back
check 'the log has nothing bad' 120 says_nothing_bad
check 'powers off' 180 powers_off
