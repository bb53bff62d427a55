# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux's own VMBus and storage drivers as the clients of the simulated host: stock kernels in
# guests of vmbus-vm, which join a vmbus-host each. Sourced after bed.sh; the checks are as those of
# scripts/vm/balloon.sh.
#
# GUEST.control goes to the host's control pipe. GUEST.host and GUEST.machine are what host and
# machine say, and GUEST.disk is the image of the first disk when the guest has powered off.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh
# shellcheck source=scripts/vm/integration.sh
. scripts/vm/integration.sh

bed_packages=(e2fsprogs sg3-utils)
bed_channels=(commands control)
bed_outputs=(host machine disk)

# By their paths, since busybox's shell prefers its own.
mke2fs=$(realpath /sbin/mke2fs) e2fsck=$(realpath /sbin/e2fsck)

bed_add_parts() {
  bed_add_program "$mke2fs"
  bed_add_program "$e2fsck"
  bed_add_program "$(type -P sg_reset)"
  git ls-files -z | xargs -0 tar -c >"$l2/repository.tar"
}

# A disk that is written to its image; one that is read only, at the same controller; and one with
# blocks of 4 KiB, at another.
disk_arguments=(--disk 'disk.img,controller=0' --disk 'memory:8M,ro,controller=0,lun=1'
  --disk 'memory:16M,block=4096,controller=1')

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host and machine.
guest_script() {
  # One of the kernels signals through the monitor page, the other one by hypercall.
  local monitors=''
  [[ $guest == 6.12* ]] || monitors=--monitors
  machine_script "$@" "${disk_arguments[*]@Q} $monitors $integration_arguments"
}

# --- Checks ----------------------------------------------------------------------------------------

finds_the_disks() {
  local found
  wait_for 60 there 1 0
  found="$(guest "cat /sys/block/$(disk 0 0)/size") $(guest "cat /sys/block/$(disk 0 1)/ro") $(
    guest "cat /sys/block/$(disk 1 0)/queue/logical_block_size"
  )"
  say "$found"
  [[ $found == "98304 1 4096" ]]
  # One each for the controllers' disks, and none for targets and units that are not there.
  guest 'ls -d /sys/class/scsi_disk/*' | wc -l | grep -x 3
}

signals_as_told() {
  local found
  found=$(guest 'cat /sys/bus/vmbus/devices/*/channels/*/monitor_id 2>/dev/null || true' | sort -u | wc -l)
  if [[ $guest == 6.12* ]]; then
    say 'by hypercall' >&3
    ((found == 0))
  else
    say "by $found monitors" >&3
    # Two controllers, with a channel for each processor, and the components.
    ((found == 2 * $(processors) + integration_components))
  fi
}

makes_a_file_system() {
  local name
  name=$(disk 0 0)
  guest "printf 'n\np\n1\n\n\nw\n' | fdisk /dev/$name; fdisk -l /dev/$name"
  guest "until [ -b /dev/${name}1 ]; do sleep 0.1; done"
  guest_seconds=120 guest "$mke2fs -q -t ext4 /dev/${name}1 && $e2fsck -f -n /dev/${name}1"
}

copies_the_repository() {
  local name
  name=$(disk 0 0)
  guest 'mkdir -p /mnt /repository && tar -x -C /repository -f /repository.tar'
  guest_seconds=180 guest "mount /dev/${name}1 /mnt && cp -r /repository /mnt/ && umount /mnt &&
    $e2fsck -f -n /dev/${name}1"
  # From the disk, not from memory.
  guest_seconds=180 guest "echo 3 >/proc/sys/vm/drop_caches; mount /dev/${name}1 /mnt &&
    diff -r /repository /mnt/repository && find /mnt/repository -type f | wc -l" >"$scratch/$guest.count"
  say "$(cat "$scratch/$guest.count") files" >&3
}

# Four writers at once, each with its own size of writes, past the page cache.
verifies_writes() {
  guest_seconds=240 guest "cd /mnt && dd if=/dev/urandom of=/tmp/random bs=1M count=2 && for size in 4 16 64 512; do
      dd if=/tmp/random of=written.\$size bs=\${size}k oflag=direct conv=fsync & done; wait
    echo 3 >/proc/sys/vm/drop_caches
    for size in 4 16 64 512; do dd if=written.\$size bs=64k iflag=direct | cmp - /tmp/random || exit 1; done
    sha256sum /tmp/random | cut -d ' ' -f 1" | tail -n 1 >"$scratch/$guest.sha"
  guest 'umount /mnt'
  cat "$scratch/$guest.sha"
}

large_blocks() {
  local name
  name=$(disk 1 0)
  guest_seconds=120 guest "$mke2fs -q -t ext4 /dev/$name && mount /dev/$name /mnt && cp /bin/busybox /mnt &&
    umount /mnt && $e2fsck -f -n /dev/$name && mount -o ro /dev/$name /mnt && cmp /bin/busybox /mnt/busybox &&
    umount /mnt"
}

refuses_writes() {
  local name
  name=$(disk 0 1)
  guest "! dd if=/dev/zero of=/dev/$name bs=4k count=1 oflag=direct"
  guest "dd if=/dev/$name bs=64k iflag=direct | wc -c" | grep -x 8388608
}

comes_and_goes() {
  host_does 'attach memory:4M,controller=0,lun=3'
  wait_for 60 there 0 3
  guest "dd if=/dev/urandom of=/tmp/four bs=1M count=4 && dd if=/tmp/four of=/dev/$(disk 0 3) bs=64k oflag=direct &&
    dd if=/dev/$(disk 0 3) bs=64k iflag=direct | cmp - /tmp/four"
  host_does 'detach controller=0,lun=3'
  wait_for 60 not_there_any_more 0 3
}

tells_errors() {
  local name
  name=$(disk 1 0)
  host_does 'fault 2:medium:blocks=100-107:count=100'
  sleep 1
  guest "! dd if=/dev/$name of=/dev/null bs=4k skip=100 count=1 iflag=direct"
  guest "dmesg | grep -E '\[$name\]|critical' | tail -n 9" >"$scratch/$guest.errors"
  cat "$scratch/$guest.errors"
  grep 'Sense Key : Medium Error' "$scratch/$guest.errors"
  grep 'Add. Sense: Unrecovered read error' "$scratch/$guest.errors"
  grep "critical medium error, dev $name, sector 800 " "$scratch/$guest.errors"
}

# A read that the host never answers. Linux takes it that a host answers everything in the end: a time-out
# only begins anew. What ends it is a reset, and Linux then reads again, unless that is later than six
# time-outs.
holds_a_read() {
  local name read_block
  name=$(disk 0 0)
  read_block="dd if=/dev/$name bs=4k skip=500 count=1 iflag=direct 2>/dev/null | sha256sum"
  guest "echo 8 >/sys/block/$name/device/timeout; $read_block >/tmp/expected"
  resets_seen >"$scratch/$guest.resets"
  host_does 'fault 0:hold:blocks=4000-4007:commands=read'
  await 40 "$bed_logs/$guest.host" 'done: fault 0:hold'
  guest_background held "sh -c '$read_block'"
  # Others read at the same time.
  guest "dd if=/dev/$name of=/dev/null bs=4k count=1 iflag=direct && [ ! -s /tmp/held.status ]"
}

# A time-out has gone by then. Linux waits 10 s after a reset, in which the other controller goes on.
resets_the_bus() {
  local name
  name=$(disk 0 0)
  guest "until [ \$((\$(date +%s) - \$(date -r /tmp/held.pid +%s))) -gt 9 ]; do sleep 0.5; done
    dd if=/dev/$name of=/dev/null bs=4k count=1 iflag=direct && [ ! -s /tmp/held.status ]"
  guest_background reset "sg_reset --host /dev/$name"
}

reads_again() {
  guest_seconds=120 guest "until [ -s /tmp/held.status ] && [ -s /tmp/reset.status ]; do sleep 0.1; done
    cat /tmp/held.log /tmp/reset.log; [ \"\$(cat /tmp/reset.status)\" = 0 ] && cmp /tmp/held.log /tmp/expected"
  # The disk has told Linux of it.
  (($(resets_seen) > $(<"$scratch/$guest.resets")))
  guest "echo 30 >/sys/block/$(disk 0 0)/device/timeout"
}

resets_seen() { guest "dmesg | grep -c 'Power-on or device reset occurred' || true"; }

no_controller() { [[ -z $(guest "ls -d /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-00000000000$1" 2>/dev/null) ]]; }

# The whole device, with its channels. What is written lies behind the blocks that have an error. Linux
# loses the flush of a disk's cache on a channel that was taken back, and would wait for it for ever: so
# it is told that there is no cache.
controller_comes_and_goes() {
  local name
  name=$(disk 1 0)
  guest "for type in /sys/block/$name/device/scsi_disk/*/cache_type; do echo temporary write through >\$type; done"
  guest "dd if=/dev/urandom of=/tmp/two bs=1M count=2 && dd if=/tmp/two of=/dev/$name bs=64k seek=64 oflag=direct"
  host_does 'controller 1 rescind'
  wait_for 60 no_controller 1
  not_there_any_more 1 0
  guest "[ ! -e /dev/$name ]"
  host_does 'controller 1 offer'
  wait_for 60 there 1 0
  guest "dd if=/dev/$(disk 1 0) bs=64k skip=64 count=32 iflag=direct | cmp - /tmp/two"
  guest 'ls /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000001/channels | wc -l' | grep -x "$(processors)"
}

# The bus stays: without it 6.12 has no timer left in a machine that has neither PIT nor HPET in use.
loads_again() {
  guest 'rmmod hv_storvsc && ! ls -d /sys/class/scsi_disk/*'
  guest "insmod /modules/${guest%x*}/hv_storvsc.ko"
  wait_for 60 there 1 0
  [[ $(guest "dd if=/dev/$(disk 0 0) bs=512 count=1 | od -A n -t x1 -j 510") == *'55 aa' ]]
}

# A kernel that panics unloads the bus before it resets the machine, and the next one connects anew.
panics_and_comes_back() {
  local sessions
  guest_background panic "sh -c 'sleep 1; echo c >/proc/sysrq-trigger'"
  await 60 "$bed_logs/$guest.machine" 'told of a panic'
  await 60 "$bed_logs/$guest.host" 'guest=1 .*guest disconnected'
  await 120 "$bed_logs/$guest.host" 'guest=2 .*guest speaks'
  guest_seconds=120 guest uname -r
  wait_for 60 there 1 0
  sessions=$(grep -c 'guest joined' "$bed_logs/$guest.host")
  ((sessions == 2))
}

# What the guest wrote, read on this side.
images_are_equal() {
  local image=$scratch/$guest.partition
  # The partition begins where fdisk of busybox puts the first one.
  local start
  start=$(od -A n -t u4 -j 454 -N 4 "$bed_logs/$guest.disk" | tr -d ' ')
  dd if="$bed_logs/$guest.disk" of="$image" bs=512 skip="$start" status=none
  e2fsck -f -n "$image"
  mkdir "$scratch/$guest.tree"
  debugfs -R "rdump / $scratch/$guest.tree" "$image"
  git ls-files -z | xargs -0 tar -c | tar -d -C "$scratch/$guest.tree/repository" >"$scratch/$guest.difference" 2>&1 || true
  # Owner and times may differ, contents may not.
  fails grep -E 'Contents|Size|No such' "$scratch/$guest.difference"
  for size in 4 16 64 512; do
    sha256sum <"$scratch/$guest.tree/written.$size" | grep -f "$scratch/$guest.sha"
  done
}

check 'boots' 300 guest_boots
check 'connects' 120 connects
check 'finds the disks' 120 finds_the_disks
check 'a channel for each processor' 120 has_subchannels
check 'signals as the host wants' 120 signals_as_told
check 'integration components' 120 has_integration
check 'refuses to hibernate' 80 refuses_to_hibernate
check 'a channel moves' 120 'moves_a_channel 1'
check 'a partition and ext4' 200 makes_a_file_system
check 'copies the repository' 400 copies_the_repository
check 'writes, verified' 300 verifies_writes
check 'sets its clock' 180 sets_its_clock
check 'a read-only disk' 120 refuses_writes
check 'hot add and remove' 160 comes_and_goes
check 'a read without an answer' 120 holds_a_read
# What lies between is done while Linux waits.
check 'blocks of 4 KiB' 180 large_blocks
check 'an error of the medium' 120 tells_errors
check 'a reset' 120 resets_the_bus
check 'a controller rescinded and offered' 180 controller_comes_and_goes
check 'the read after the reset' 150 reads_again
check 'unload and load' 180 loads_again
check 'the log has nothing bad' 120 says_nothing_bad
check 'a panic' 300 panics_and_comes_back
check 'components again' 120 has_integration
check 'powers off when the host asks' 180 powers_off_when_asked
check 'the image is what was written' 120 images_are_equal
