# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# A Debian with systemd, udev and the bed's kernels' modules, on a disk: what an operator has before he installs
# anything of ours. It is made once. Sourced after bed.sh and module-tools.sh.

# The number changes when what is kept here changes.
system_parts=$bed_cache/system.1

# Newer than what the programs are built on, or the same.
system_suite=trixie
# What our package depends on, and what its users use. Beside libssl3t64 there is no other libcrypto.
system_packages=(systemd-sysv udev kmod dbus procps nbdkit nbd-client libnbd-bin e2fsprogs fio iproute2 iputils-ping
  iperf3 curl libbpf1 libssl3t64 libudev1)

# One system for all kernels. It is of no use when they were fetched anew.
system_fetched() {
  diff -q <(for name in "${bed_kernels[@]}"; do kernel_release "$name"; done) "$system_parts/releases" >/dev/null 2>&1
}

# Makes what is not there. Exits with 77 when it can't be had.
system_fetch() {
  local work name release packages
  ((EUID == 0)) || not_to_be_had 'only root can make the file system of an installed Debian'
  need_packages mmdebstrap
  exec {bed_lock}>"$bed_cache/lock"
  flock "$bed_lock"
  ! system_fetched || return 0
  rm -rf "$system_parts" "$bed_cache"/fetch.*
  work=$(mktemp -d "$bed_cache/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  mmdebstrap --variant=minbase --mode=root --format=directory --include="$(IFS=,; say "${system_packages[*]}")" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$system_suite" "$work/root" "$(debian_mirror)" >"$work/log" 2>&1 || not_to_be_had "$(tail -n 1 "$work/log")"
  (
    use_private_apt "$work/apt"
    apt-get update -q >"$work/log" 2>&1 || not_to_be_had "$(grep -m 1 '^E: ' "$work/log")"
    mkdir "$work/packages"
    cd "$work/packages" || exit
    for name in "${bed_kernels[@]}"; do
      mapfile -t packages < <(kernel_packages "${kernel_versions[$name]}")
      # Newer ones have the lists of modules there.
      mapfile -t -O "${#packages[@]}" packages < <(apt-cache pkgnames "linux-base-$(kernel_release "$name")")
      apt-get download -q "${packages[@]}" >"$work/log" 2>&1 || not_to_be_had "$(grep -m 1 '^E: ' "$work/log")"
    done
  )
  # Modules alone: the machine brings the kernel.
  for name in "$work"/packages/*.deb; do
    dpkg-deb --fsys-tarfile "$name" | tar -x -C "$work/root" --keep-directory-symlink --exclude=vmlinuz --exclude=./boot \
      --exclude=./usr/share
  done
  mkdir "$work/parts"
  for name in "${bed_kernels[@]}"; do
    release=$(kernel_release "$name")
    [[ -d $work/root/usr/lib/modules/$release ]] ||
      not_to_be_had "there are no modules for $release: where the kernels are too old, remove $bed_parts"
    chroot "$work/root" depmod "$release"
    say "$release" >>"$work/parts/releases"
  done
  mke2fs -q -t ext4 -L system -d "$work/root" "$work/parts/image" 1500M
  mv "$work/parts" "$system_parts"
  say "$(du -h "$system_parts/image" | cut -f 1) in $system_parts" >&3
}

# put_in_system IMAGE FROM TO [MODE]: a file of this machine, with the directories above it.
put_in_system() {
  local directory=${3%/*} above='' part
  local -a parts
  IFS=/ read -ra parts <<<"${directory#/}"
  for part in "${parts[@]}"; do
    above+=/$part
    debugfs -w -R "mkdir $above" "$1" 2>/dev/null >&2
  done
  debugfs -w -R "write $2 $3" "$1" 2>&1 | tail -n 1
  debugfs -w -R "set_inode_field $3 mode 0100${4:-644}" "$1" 2>/dev/null
  debugfs -R "stat $3" "$1" 2>/dev/null | grep -q 'Type: regular'
}
