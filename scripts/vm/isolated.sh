# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux in machines that hide their memory, with its own drivers: which pages it makes visible to whom, and
# that nobody touches another one. Without confidential hardware: host-visible and private memory of a guest
# are different memory. Sourced after bed.sh; the checks are as those of scripts/vm/storage.sh.
#
# The guests' names end with the kind of machine: vbs has a host; vconfidential a paravisor, whose disk has an
# encrypted ring, and the host's disk and network behind it; vdirect a host that is the paravisor itself,
# with encrypted DMA; vsnp is as vconfidential, in a machine of another kind, whose guest reaches the host past
# its paravisor and looks at two SynICs; vstrict a host that takes no other data there, so that Linux's is refused; vunlawful one
# whose offer Linux is to refuse. GUEST.host and GUEST.paravisor are what
# those say, GUEST.machine what the monitor says.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/far.sh
. scripts/vm/far.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh

bed_host_products+=(vmbus-paravisor)
bed_packages=(e2fsprogs iproute2)
bed_channels=(commands far)
bed_outputs=(host machine paravisor disk)

# By their paths, since busybox's shell prefers its own.
mke2fs=$(realpath /sbin/mke2fs) e2fsck=$(realpath /sbin/e2fsck)

bed_add_parts() {
  bed_add_program "$mke2fs"
  bed_add_program "$e2fsck"
  bed_add_program "$ip"
  bed_add_program "$ip" l1
}

part_guests() {
  local kind
  for kind in vbs vconfidential vsnp vdirect vstrict vunlawful; do
    # The older kernel knows no confidential VMBus.
    [[ $1 == 6.12 && $kind != vbs ]] || say "$1x$2$kind"
  done
}

# What is nobody else's: the words on the guest's disks.
secret=not-for-the-host

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host, paravisor and machine.
guest_script() {
  local commands="<>$2/$guest.commands >&0" far="<>$2/$guest.far >&0" path='' answers=/answers.sh
  local shell=/bin/sh apart='unshare -n' kind=vbs-confidential join=host.sock paravisor='' more=''
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH"
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  # Linux does not signal in a VBS machine with a paravisor: whoever serves a channel has to look.
  local disks='--disk disk.img' nic=tap=vsp0 options=--poll-rings
  case $guest in
    *vbs) kind=vbs options='' ;;
    *vconfidential | *vsnp)
      # With a GHCB it does.
      [[ $guest != *vsnp ]] || kind=snp-confidential options='' more=nokaslr
      join=paravisor.sock disks+=' --disk own.img,vtl=2'
      paravisor="vmbus-paravisor --socket paravisor.sock --host host.sock --isolation ${kind%%-*} $options \
        --disk 0,key=disk.key,memory=ring --verbose 2>$2/$guest.paravisor &"
      ;;
    *vdirect) disks+=,memory=all nic+=,memory=all options+=' --accept-shared-data' ;;
    *vstrict) disks+=,memory=all ;;
    *vunlawful) disks+=',memory=ring --disk memory:4M,memory=external' ;;
  esac
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
truncate -s 32M disk.img
truncate -s 16M own.img
dd if=/dev/urandom of=disk.key bs=64 count=1 2>/dev/null
vmbus-host --socket host.sock --workers $(processors) $disks --nic $nic $options \
  --verbose 2>$2/$guest.host &
host=\$!
echo \$host >host.pid
until [ -S host.sock ]; do sleep 0.1; done
$paravisor
paravisor=\$!
until [ -S $join ]; do sleep 0.1; done
. $answers
mkdir far
(answer_commands far $far) &
vmbus-vm --isolation $kind --kernel $3/${guest%x*} --initrd $3/initrd --memory 320M --cpus $(processors) \
  --append "quiet panic=-1 $more bed_kernel=${guest%x*} bed_commands=ttyS0" --host $join --verbose \
  $commands 2>$2/$guest.machine
status=\$?
# The host has the last word when its guest is gone.
sleep 1
kill \$paravisor
sleep 1
[ \$host = \$paravisor ] || kill \$host
cat own.img >$2/$guest.disk
exit \$status
END
}

# kind NAME...: whether the guest is of one of these kinds.
kind() {
  local name
  for name in "$@"; do [[ $guest != *"v$name" ]] || return 0; done
  return 1
}

# The log of whoever the guest talks to: a paravisor, or the host.
peer_log() { if kind confidential snp; then say "$bed_logs/$guest.paravisor"; else say "$bed_logs/$guest.host"; fi; }

# --- Checks ----------------------------------------------------------------------------------------

connects_isolated() {
  local version=6.0 group='Group A 0x1, Group B 0x9a1'
  [[ $guest != 6.12* ]] || version=5.3
  ! kind bs || group='Group A 0x0, Group B 0x9a1'
  ! kind snp || group='Group A 0x1, Group B 0x9a2'
  guest "dmesg | grep -E 'Isolation Config|Memory Encryption|confidential VMBus|Vmbus version:'" >"$scratch/$guest.words"
  cat "$scratch/$guest.words"
  grep -F "$group" "$scratch/$guest.words"
  grep -F 'Memory Encryption Features active: AMD SEV' "$scratch/$guest.words"
  grep -oF "Vmbus version:$version" "$scratch/$guest.words" >&3
  if kind bs; then
    fails grep -F 'confidential VMBus' "$scratch/$guest.words"
    grep "confidential=false .*guest speaks $version" "$(peer_log)"
  else
    grep -F 'Establishing connection to the confidential VMBus' "$scratch/$guest.words"
    grep "confidential=true .*guest speaks $version" "$(peer_log)"
  fi
}

# The controllers of the host's first disk, and of the paravisor's.
host_disk=5d15c000-0000-4000-8000-000000000000 paravisor_disk=9a7a5150-0000-4000-8000-000000000000

# disk_of CONTROLLER: its disk in the guest; fails as long as there is none.
disk_of() { guest "cd /sys/bus/vmbus/devices/$1/host*/target*/*/block && ls -d *"; }

# uses_a_disk CONTROLLER: a partition, a file system, and files that come back from the disk.
uses_a_disk() {
  local name
  wait_for 60 disk_of "$1"
  name=$(disk_of "$1")
  guest "printf 'n\np\n1\n\n\nw\n' | fdisk /dev/$name; fdisk -l /dev/$name"
  guest "until [ -b /dev/${name}1 ]; do sleep 0.1; done"
  guest_seconds=120 guest "mkdir -p /mnt; $mke2fs -q -t ext4 /dev/${name}1; mount /dev/${name}1 /mnt
    dd if=/dev/urandom of=/tmp/random bs=1M count=2; cp /tmp/random /bin/busybox /mnt
    yes $secret | head -n 20000 >/tmp/secret; cp /tmp/secret /mnt; umount /mnt"
  guest_seconds=120 guest "echo 3 >/proc/sys/vm/drop_caches; $e2fsck -f -n /dev/${name}1; mount /dev/${name}1 /mnt
    cmp /tmp/random /mnt/random; cmp /bin/busybox /mnt/busybox; cmp /tmp/secret /mnt/secret; umount /mnt"
  # Past the page cache, in sizes of their own.
  guest_seconds=120 guest "for size in 16 512; do
      dd if=/tmp/random of=/dev/$name bs=\${size}k oflag=direct seek=0 conv=notrunc
      dd if=/dev/$name bs=\${size}k iflag=direct count=\$((2048 / size)) | cmp - /tmp/random
    done"
}

uses_the_disks() {
  uses_a_disk "$host_disk"
  ! kind confidential snp || uses_a_disk "$paravisor_disk"
}

nic() { guest 'cd /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e0000/net && ls -d *'; }

uses_the_network() {
  local name
  wait_for 60 nic
  name=$(nic)
  far "$ip addr add $far4/24 dev vsp0; $ip link set vsp0 up"
  guest "$ip link set lo up; $ip addr add $guest4/24 dev $name; $ip link set $name up"
  guest "ping -q -A -c 5 -W 5 $far4; ping -q -A -c 5 -W 5 -s 1400 $far4" >"$scratch/$guest.pings"
  cat "$scratch/$guest.pings"
  (($(grep -c ' 5 packets received' "$scratch/$guest.pings") == 2))
  # A web server at each end, and a file for the other one.
  guest 'dd if=/dev/urandom of=/tmp/file bs=1M count=2; httpd -p 80 -h /tmp; sha256sum </tmp/file' >"$scratch/$guest.sum"
  far 'dd if=/dev/urandom of=file bs=1M count=2; httpd -p 80 -h .; sha256sum <file' >"$scratch/$guest.far-sum"
  guest_seconds=120 guest "wget -q -O - http://$far4/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
  guest_seconds=120 far "wget -q -O - http://$guest4/file | sha256sum" | cmp - "$scratch/$guest.sum"
}

# What the host was given of the guest's memory: not the private one.
host_has_no_private_memory() {
  local files
  # shellcheck disable=SC2016
  files=$(far 'for file in /proc/$(cat host.pid)/fd/*; do readlink $file || true; done' |
    grep -o 'memfd:vmbus-[a-z-]*' | sort -u | paste -sd ' ')
  say "$files"
  [[ $files == *memfd:vmbus-vm-visible* ]]
  # A host that is the paravisor as well has it.
  if kind direct; then [[ " $files " == *' memfd:vmbus-vm '* ]]; else [[ " $files " != *' memfd:vmbus-vm '* ]]; fi
}

# gpadls LOG: of each channel what its GPADLs lay in: "CHANNEL PAGES encrypted|shared|mixed", the last guest's.
gpadls() {
  sed -nE 's/.*GPADL .* of channel ([0-9]+): ([0-9]+) pages encrypted, ([0-9]+) shared/\1 \2 \3/p' "$1" |
    awk '{ print $1, $2 + $3, ($3 == 0 ? "encrypted" : $2 == 0 ? "shared" : "mixed") }' | sort -u
}

# Rings, and the network's buffers of 16 MiB and nearly 1 MiB.
memory_is_as_offered() {
  gpadls "$(peer_log)" | tee "$scratch/$guest.gpadls"
  fails grep mixed "$scratch/$guest.gpadls"
  if kind bs; then
    fails grep encrypted "$scratch/$guest.gpadls"
  elif kind confidential snp; then
    # The host's have low numbers.
    fails grep -E '^[0-9]{1,3} .* encrypted' "$scratch/$guest.gpadls"
    grep -E '^[0-9]{4} 64 encrypted' "$scratch/$guest.gpadls"
    fails grep -E '^[0-9]{4} .* shared' "$scratch/$guest.gpadls"
  elif kind direct; then
    fails grep shared "$scratch/$guest.gpadls"
    grep ' 4096 encrypted' "$scratch/$guest.gpadls"
  fi
  grep ' 4096 ' "$scratch/$guest.gpadls"
  say "$(grep -c encrypted "$scratch/$guest.gpadls" || true) encrypted, $(grep -c shared "$scratch/$guest.gpadls" || true) shared" >&3
}

refuses_the_offer() {
  guest dmesg | tee "$scratch/$guest.offers" | grep -i "isn't encrypted" >&3
  wait_for 60 disk_of "$host_disk"
  guest '! ls -d /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-000000000001'
}

# Linux has no way to signal in a VBS machine with a paravisor, and says so once.
says_what_it_must() {
  local warnings=1
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  ! kind bs snp || warnings=0
  (($(grep -c '\] WARNING: ' "$bed_logs/$guest.dmesg") == warnings))
  ((warnings == 0)) || grep -E '\] WARNING: .*(connection\.c|vmbus_set_event)' "$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|Oops:|hostile|malformed|hung task|blocked for more|invalid packet|timed out' "$bed_logs/$guest.dmesg"
  fails grep -iE 'hv_.*(error|fail)' "$bed_logs/$guest.dmesg"
}

# summaries LOG: what was counted of each guest's visibility.
summaries() { grep -o 'visibility: .*' "$1"; }

# Nobody wanted a page that was not his, and data moved in pages of one kind alone: Linux bounces it even where
# it need not.
nobody_touched_another_page() {
  local log
  for log in "$bed_logs/$guest.host" "$bed_logs/$guest.paravisor"; do
    [[ -s $log ]] || continue
    fails grep -E ' (warning|error) ' "$log"
    summaries "$log" | tee "$scratch/$guest.summaries"
    [[ -s $scratch/$guest.summaries ]]
    fails grep -vE 'visibility: 0 violations; data pages: [0-9]+ shared, 0 encrypted' "$scratch/$guest.summaries"
    grep -E 'data pages: [1-9]' "$scratch/$guest.summaries" | tail -n 1 >&3
  done
  fails grep -E ' (warning|error) ' "$bed_logs/$guest.machine"
}

calls_past_the_paravisor() {
  grep -oE '[1-9][0-9]* hypercalls by GHCB' "$bed_logs/$guest.machine" >&3
}

# What the guest wrote to the paravisor's disk lies on the host as ciphertext.
host_has_ciphertext() {
  fails grep -qaF "$secret" "$bed_logs/$guest.disk"
  (($(tr -d '\0' <"$bed_logs/$guest.disk" | wc -c) > 1 << 20))
}

# Whoever looks for it finds it: Linux gives bounced data where this host takes none.
finds_the_wrong_page() {
  grep -E ' warning .*visibility: [1-9][0-9]* violations \(page 0x[0-9a-f]+ was wanted' "$bed_logs/$guest.host"
  say "$(summaries "$bed_logs/$guest.host" | grep -oE '[0-9]+ violations')" >&3
}

# What Linux says of each refused page leaves no room for what it said before.
unless_strict() { kind strict || "$@"; }

# Guests that have nothing to do but to be refused.
unless_refused() { kind unlawful strict || "$@"; }
if_kind() { ! kind "$1" || "${@:2}"; }
if_ciphertext() { ! kind confidential snp || "$@"; }

check 'boots' 300 guest_boots
check 'connects' 120 'unless_strict connects_isolated'
check 'an unlawful offer' 120 'if_kind unlawful refuses_the_offer'
check 'uses the disks' 400 'unless_refused uses_the_disks'
check 'uses the network' 300 'unless_refused uses_the_network'
check 'the host has no private memory' 30 'unless_refused host_has_no_private_memory'
check 'memory is as offered' 30 'unless_refused memory_is_as_offered'
check 'says what it must' 120 'unless_refused says_what_it_must'
check 'powers off' 180 powers_off
check 'nobody touched another page' 30 'unless_refused nobody_touched_another_page'
check 'a wrong page is found' 30 'if_kind strict finds_the_wrong_page'
check 'calls past the paravisor' 30 'if_kind snp calls_past_the_paravisor'
check 'the host has ciphertext' 30 'if_ciphertext host_has_ciphertext'
