# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux in machines that hide their memory, with its own drivers: which pages it makes visible to whom, and
# that nobody touches another one. Without confidential hardware: host-visible and private memory of a guest
# are different memory. Sourced after bed.sh; the checks are as those of scripts/vm/storage.sh.
#
# The guests' names end with the kind of machine: vbs has a host; vconfidential a paravisor, whose disk has an
# encrypted ring, and the host's disk and network behind it; vdirect a host that is the paravisor itself,
# with encrypted DMA; vunlawful one whose offer Linux is to refuse. GUEST.host and GUEST.paravisor are what
# those say, GUEST.machine what the monitor says.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh

bed_host_products+=(vmbus-paravisor)
bed_packages=(e2fsprogs iproute2)
bed_channels=(commands far)
bed_outputs=(host machine paravisor disk)

# By their paths, since busybox's shell prefers its own.
mke2fs=$(realpath /sbin/mke2fs) e2fsck=$(realpath /sbin/e2fsck)
ip=$(realpath "$(PATH=$PATH:/sbin type -P ip)")

bed_add_parts() {
  bed_add_program "$mke2fs"
  bed_add_program "$e2fsck"
  bed_add_program "$ip"
  bed_add_program "$ip" l1
}

part_guests() {
  say "$1x$2vbs"
  [[ $1 == 6.12 ]] || printf '%s\n' "$1x$2vconfidential" "$1x$2vdirect" "$1x1vunlawful"
}

guest4=192.0.2.2 far4=192.0.2.1

# What is nobody else's: the words on the guest's disks.
secret=not-for-the-host

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host, paravisor and machine.
guest_script() {
  local commands="<>$2/$guest.commands >&0" far="<>$2/$guest.far >&0" path='' answers=/answers.sh
  local shell=/bin/sh apart='unshare -n' kind=vbs-confidential join=host.sock paravisor='' memory=''
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH"
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  # Linux does not signal in a VBS machine with a paravisor: whoever serves a channel has to look.
  local disks=(--disk disk.img) nic=tap=vsp0 options=(--poll-rings)
  case $guest in
    *vbs) kind=vbs options=() ;;
    *vconfidential)
      join=paravisor.sock disks+=(--disk own.img,vtl=2)
      paravisor="vmbus-paravisor --socket paravisor.sock --host host.sock --isolation vbs --poll-rings \
        --disk 0,key=disk.key,memory=ring --verbose 2>$2/$guest.paravisor &"
      ;;
    *vdirect) memory=,memory=all options+=(--accept-shared-data) ;;
    *vunlawful) disks=(--disk disk.img,memory=ring --disk memory:4M,memory=external) ;;
  esac
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
truncate -s 32M disk.img
truncate -s 16M own.img
dd if=/dev/urandom of=disk.key bs=64 count=1 2>/dev/null
vmbus-host --socket host.sock --workers $(processors) ${disks[*]/%.img/.img$memory} --nic $nic$memory \
  ${options[*]} --verbose 2>$2/$guest.host &
host=\$!
until [ -S host.sock ]; do sleep 0.1; done
$paravisor
paravisor=\$!
until [ -S $join ]; do sleep 0.1; done
. $answers
mkdir far
(answer_commands far $far) &
vmbus-vm --isolation $kind --kernel $3/${guest%x*} --initrd $3/initrd --memory 320M --cpus $(processors) \
  --append "quiet panic=-1 bed_kernel=${guest%x*} bed_commands=ttyS0" --host $join --verbose \
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

# A command line of several commands fails with the first one that does.
guest() { run_by commands "set -e
  $*"; }

# far COMMAND...: as guest, at the host's end.
far() { run_by far "set -e
  $*"; }

# kind NAME...: whether the guest is of one of these kinds.
kind() {
  local name
  for name in "$@"; do [[ $guest != *"v$name" ]] || return 0; done
  return 1
}

# The log of whoever the guest talks to: a paravisor, or the host.
peer_log() { if kind confidential; then say "$bed_logs/$guest.paravisor"; else say "$bed_logs/$guest.host"; fi; }

# --- Checks ----------------------------------------------------------------------------------------

connects_isolated() {
  local version=6.0 group='Group A 0x1, Group B 0x9a1'
  [[ $guest != 6.12* ]] || version=5.3
  ! kind bs || group='Group A 0x0, Group B 0x9a1'
  guest "dmesg | grep -E 'Isolation Config|Memory Encryption|confidential VMBus|Vmbus version:'" >"$scratch/$guest.words"
  cat "$scratch/$guest.words"
  grep -F "$group" "$scratch/$guest.words"
  grep -F 'Memory Encryption Features active: AMD SEV' "$scratch/$guest.words"
  grep -oF "Vmbus version:$version" "$scratch/$guest.words" >&3
  if kind bs; then
    fails grep -F 'confidential VMBus' "$scratch/$guest.words"
  else
    grep -F 'Establishing connection to the confidential VMBus' "$scratch/$guest.words"
    grep -E 'guest speaks 6.0 .*confidential=true|confidential=true.*guest speaks 6.0' "$(peer_log)"
  fi
}

check 'boots' 300 guest_boots
check 'connects' 120 connects_isolated
