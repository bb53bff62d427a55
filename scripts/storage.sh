# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What the demo and the storage tests share: a simulated host with disks, a driver that exports
# one of them, and clients that nobody here wrote. Sourced after lib.sh.

need_storage_tools() {
  need_packages e2fsprogs fio jq libnbd-bin nbdkit nbdkit-plugin-dev qemu-utils
}

# host NAME DISK...: a simulated host that serves disks, at the socket $scratch/NAME.
host() {
  local name=$1 disk disks=()
  shift
  for disk in "$@"; do disks+=(--disk "$disk"); done
  launch "$name" "$programs/vmbus-host" --socket "$scratch/$name" "${disks[@]}"
}

# Whether a host answers.
host_answers() { "$programs/vmbusctl" list --host "$scratch/$1" "${@:2}"; }

# export_disk NAME HOST NUMBER [OPTION...]: the driver of a disk, which it serves as NBD at
# $scratch/NAME.
export_disk() {
  launch "$1" "$programs/vsc-storage" export --host "$scratch/$2" --device "$3" --socket "$scratch/$1" \
    "${@:4}"
}

# The address of an export, for people who speak NBD.
uri() { printf 'nbd+unix:///?socket=%s' "$scratch/$1"; }

export_answers() { nbdinfo --size "$(uri "$1")"; }

# started NAME CHECK...: waits until the check holds; what the process said when it does not.
started() {
  wait_for 30 "${@:2}" || {
    cat "$scratch/$1.log"
    return 1
  }
}

# fio_verify EXPORT SIZE [OPTION...]: random writes, each block read back and checked.
fio_verify() {
  (cd "$scratch" && fio --name=verify --ioengine=nbd --uri="$(uri "$1")" --size="$2" \
    --rw=randwrite --bs=4k --iodepth=32 --verify=crc32c --verify_fatal=1 \
    --verify_state_save=0 "${@:3}")
}
