# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux's own VMBus and storage drivers as the clients of the simulated host: stock kernels in
# guests of vmbus-vm, which join a vmbus-host each. Sourced after bed.sh; the checks are as those of
# scripts/vm/balloon.sh.
#
# GUEST.control goes to the host's control pipe. GUEST.host and GUEST.machine are what host and
# machine say, and GUEST.disk is the image of the first disk when the guest has powered off.

bed_host_products=(vmbus-host vmbus-vm)
bed_packages=(e2fsprogs)
bed_modules=devices
bed_channels=(commands control)
bed_outputs=(host machine disk)

usual_processors() { say 2; }

# By their paths, since busybox's shell prefers its own.
mke2fs=$(realpath /sbin/mke2fs) e2fsck=$(realpath /sbin/e2fsck)

bed_add_parts() {
  bed_add_program "$mke2fs"
  bed_add_program "$e2fsck"
  git ls-files -z | xargs -0 tar -c >"$l2/repository.tar"
}

guest_started() { :; }

kvm_works() { "$programs/vmbus-vm" --check 2>/dev/null; }

# A disk that is written to its image; one that is read only, at the same controller; and one with
# blocks of 4 KiB, at another.
disk_arguments=(--disk 'disk.img,controller=0' --disk 'memory:8M,ro,controller=0,lun=1'
  --disk 'memory:16M,block=4096,controller=1')

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host and machine. A port has one
# end for both directions, and can be opened once.
guest_script() {
  local commands="<>$2/$guest.commands >&0" control="$2/$guest.control" path=''
  local monitors=''
  # One of the kernels signals through the monitor page, the other one by hypercall.
  [[ $guest == 6.12* ]] || monitors=--monitors
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    control=$scratch/$guest.control
    path="PATH=$programs:\$PATH"
  fi
  cat <<END
$path
cd "\$(mktemp -d)"
truncate -s 48M disk.img
vmbus-host --socket host.sock --control control --workers ${guest#*x} ${disk_arguments[*]@Q} \
  --verbose $monitors 2>$2/$guest.host &
host=\$!
until [ -S host.sock ] && [ -p control ]; do sleep 0.1; done
cat <$control >control &
vmbus-vm --kernel $3/${guest%x*} --initrd $3/initrd --memory 320M --cpus ${guest#*x} \
  --append "quiet panic=-1 bed_kernel=${guest%x*} bed_commands=ttyS0" --host host.sock \
  $commands 2>$2/$guest.machine
status=\$?
kill \$host
cat disk.img >$2/$guest.disk
exit \$status
END
}

# host_does LINE: a command for the host's control pipe.
host_does() { say "$1" >"$scratch/$guest.control"; }

# --- Checks ----------------------------------------------------------------------------------------

guest_boots() {
  guest_seconds=120 guest uname -r >&3
  guest 'mkdir -p /mnt /repository && tar -x -C /repository -f /repository.tar'
}

connects() {
  local version=6.0
  [[ $guest != 6.12* ]] || version=5.3
  # Each byte through the console takes its time.
  guest "dmesg | grep -E 'Hypervisor detected: Microsoft Hyper-V|Vmbus version:'" >"$scratch/words"
  grep -F 'Microsoft Hyper-V' "$scratch/words"
  grep -oF "Vmbus version:$version" "$scratch/words" >&3
}

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

finds_the_disks() {
  local found
  wait_for 30 there 1 0
  found="$(guest "cat /sys/block/$(disk 0 0)/size") $(guest "cat /sys/block/$(disk 0 1)/ro") $(
    guest "cat /sys/block/$(disk 1 0)/queue/logical_block_size"
  )"
  say "$found"
  [[ $found == "98304 1 4096" ]]
  # One each for the controllers' disks, and none for targets and units that are not there.
  guest 'ls -d /sys/class/scsi_disk/*' | wc -l | grep -x 3
}

# As many channels as processors, of the controller whose disks are used most.
has_subchannels() {
  local count
  count=$(guest 'ls /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000000/channels | wc -l')
  say "$count channels" >&3
  ((count == ${guest#*x}))
}

signals_as_told() {
  local found
  found=$(guest 'cat /sys/bus/vmbus/devices/*/channels/*/monitor_id 2>/dev/null || true' | sort -u | wc -l)
  if [[ $guest == 6.12* ]]; then
    say 'by hypercall' >&3
    ((found == 0))
  else
    say "by $found monitors" >&3
    # Two controllers, with a channel for each processor.
    ((found == 2 * ${guest#*x}))
  fi
}

# The interrupts of a processor that come from the bus.
bus_interrupts() { guest "grep HYP: /proc/interrupts" | awk -v column="$(($1 + 2))" '{ print $column }'; }

# The guest moves a channel, and is interrupted there.
moves_a_channel() {
  local name before after
  name=$(disk 1 0)
  guest "for channel in /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000001/channels/*; do
      echo 1 >\$channel/cpu; cat \$channel/cpu; done" | grep -c 1
  before=$(bus_interrupts 1)
  guest "dd if=/dev/$name of=/dev/null bs=4k count=200 iflag=direct"
  after=$(bus_interrupts 1)
  say "$((after - before)) interrupts for 200 reads" >&3
  ((after - before >= 100))
}

makes_a_file_system() {
  local name
  name=$(disk 0 0)
  guest "printf 'n\np\n1\n\n\nw\n' | fdisk /dev/$name; fdisk -l /dev/$name"
  guest "until [ -b /dev/${name}1 ]; do sleep 0.1; done"
  guest_seconds=60 guest "$mke2fs -q -t ext4 /dev/${name}1 && $e2fsck -f -n /dev/${name}1"
}

copies_the_repository() {
  local name
  name=$(disk 0 0)
  guest_seconds=90 guest "mount /dev/${name}1 /mnt && cp -r /repository /mnt/ && umount /mnt &&
    $e2fsck -f -n /dev/${name}1"
  # From the disk, not from memory.
  guest_seconds=90 guest "echo 3 >/proc/sys/vm/drop_caches; mount /dev/${name}1 /mnt &&
    diff -r /repository /mnt/repository && find /mnt/repository -type f | wc -l" >"$scratch/count"
  say "$(cat "$scratch/count") files" >&3
}

# Four writers at once, each with its own size of writes, past the page cache.
verifies_writes() {
  guest_seconds=120 guest "cd /mnt && dd if=/dev/urandom of=/tmp/random bs=1M count=2 && for size in 4 16 64 512; do
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
  guest_seconds=60 guest "$mke2fs -q -t ext4 /dev/$name && mount /dev/$name /mnt && cp /bin/busybox /mnt &&
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
  wait_for 20 there 0 3
  guest "dd if=/dev/urandom of=/tmp/four bs=1M count=4 && dd if=/tmp/four of=/dev/$(disk 0 3) bs=64k oflag=direct &&
    dd if=/dev/$(disk 0 3) bs=64k iflag=direct | cmp - /tmp/four"
  host_does 'detach controller=0,lun=3'
  wait_for 20 not_there_any_more 0 3
}

tells_errors() {
  local name
  name=$(disk 1 0)
  host_does 'fault 2:medium:blocks=100-107:count=100'
  sleep 1
  guest "! dd if=/dev/$name of=/dev/null bs=4k skip=100 count=1 iflag=direct"
  guest "dmesg | grep -E '\[$name\]|critical' | tail -n 9" >"$scratch/errors"
  cat "$scratch/errors"
  grep 'Sense Key : Medium Error' "$scratch/errors"
  grep 'Add. Sense: Unrecovered read error' "$scratch/errors"
  grep "critical medium error, dev $name, sector 800 " "$scratch/errors"
}

# The bus stays: without it 6.12 has no timer left in a machine that has neither PIT nor HPET in use.
loads_again() {
  guest 'rmmod hv_storvsc && ! ls -d /sys/class/scsi_disk/*'
  guest "insmod /modules/${guest%x*}/hv_storvsc.ko"
  wait_for 30 there 1 0
  [[ $(guest "dd if=/dev/$(disk 0 0) bs=512 count=1 | od -A n -t x1 -j 510") == *'55 aa' ]]
}

# A kernel that panics unloads the bus before it resets the machine, and the next one connects anew.
panics_and_comes_back() {
  local sessions
  guest_background panic "sh -c 'sleep 1; echo c >/proc/sysrq-trigger'"
  await 30 "$bed_logs/$guest.machine" 'told of a panic'
  await 30 "$bed_logs/$guest.host" 'guest=1 .*guest disconnected'
  await 60 "$bed_logs/$guest.host" 'guest=2 .*guest speaks'
  guest_seconds=60 guest uname -r
  wait_for 30 there 1 0
  sessions=$(grep -c 'guest joined' "$bed_logs/$guest.host")
  ((sessions == 2))
}

# What is nobody's fault: the medium error above, and what each kernel says in this machine.
says_nothing_bad() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  ! grep -iE 'BUG:|WARNING: |Oops|hostile|malformed|hung task|blocked for more|invalid packet|timed out|hv_.*(error|fail)' "$bed_logs/$guest.dmesg"
  ! grep -E ' (warning|error) ' "$bed_logs/$guest.machine" "$bed_logs/$guest.host"
}

powers_off() {
  guest_background off "sh -c 'sleep 1; sync; poweroff -f'"
  wait_for 60 machine_ended
  grep -a "The machine of $guest ended with status 0" "$bed_logs/l1.console"
}

machine_ended() { ! bed_runs; }

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
  git ls-files -z | xargs -0 tar -c | tar -d -C "$scratch/$guest.tree/repository" >"$scratch/difference" 2>&1 || true
  # Owner and times may differ, contents may not.
  ! grep -E 'Contents|Size|No such' "$scratch/difference"
  for size in 4 16 64 512; do
    sha256sum <"$scratch/$guest.tree/written.$size" | grep -f "$scratch/$guest.sha"
  done
}

check 'boots' 150 guest_boots
check 'connects' 40 connects
check 'finds the disks' 60 finds_the_disks
check 'a channel for each processor' 40 has_subchannels
check 'signals as the host wants' 40 signals_as_told
check 'a channel moves' 60 moves_a_channel
check 'a partition and ext4' 100 makes_a_file_system
check 'copies the repository' 200 copies_the_repository
check 'writes, verified' 150 verifies_writes
check 'blocks of 4 KiB' 90 large_blocks
check 'a read-only disk' 60 refuses_writes
check 'hot add and remove' 80 comes_and_goes
check 'an error of the medium' 60 tells_errors
check 'unload and load' 90 loads_again
check 'the log has nothing bad' 40 says_nothing_bad
check 'a panic' 150 panics_and_comes_back
check 'powers off' 90 powers_off
check 'the image is what was written' 60 images_are_equal
