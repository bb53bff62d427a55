# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What kernel modules are built with for the bed's kernels: their headers and the compiler that they were
# built with, all from Debian packages. They are fetched once and unpacked into a folder, without being
# installed, and commands run with that as their root. Sourced after fetch.sh.

# The number changes when what is kept here changes.
tools_parts=$bed_cache/module-tools.1

tools_packages=(gcc-14 make pahole sparse bash dash coreutils sed grep mawk findutils)

# kernel_release NAME: of one of the bed's kernels, as `uname -r` in it.
kernel_release() {
  strings -n 8 "$bed_parts/kernels/$1/vmlinuz" | sed -nE 's/^([0-9]+\.[0-9][^ ]*-cloud-amd64) .*/\1/p' | sort -u
}

# One root for both kernels. It is of no use when the kernels were fetched anew.
tools_fetched() {
  local name
  [[ -d $tools_parts ]] || return 1
  for name in "${bed_kernels[@]}"; do
    [[ -d $tools_parts/usr/src/linux-headers-$(kernel_release "$name") ]] || return 1
  done
}

# Fetches what is not there. Exits with 77 when it can't be had.
tools_fetch() {
  local work name release packages=()
  exec {bed_lock}>"$bed_cache/lock"
  flock "$bed_lock"
  ! tools_fetched || return 0
  rm -rf "$tools_parts" "$bed_cache"/fetch.*
  work=$(mktemp -d "$bed_cache/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  use_private_apt "$work/apt"
  apt-get update -q >"$work/log" 2>&1 || not_to_be_had "$(grep -m 1 '^E: ' "$work/log")"
  apt-get install -q -y --download-only "${tools_packages[@]}" >"$work/log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$work/log")"
  for name in "${bed_kernels[@]}"; do
    release=$(kernel_release "$name")
    packages+=("linux-headers-$release" "linux-headers-${release%-cloud-amd64}-common"
      "linux-kbuild-${release%-cloud-amd64}")
  done
  # Not by dependencies, as the kernels themselves.
  (cd "$work/apt/cache/archives" && apt-get download -q "${packages[@]}") >"$work/log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$work/log"): where the kernels are too old, remove $bed_parts"
  mkdir "$work/root"
  for name in "$work"/apt/cache/archives/*.deb; do dpkg -x "$name" "$work/root"; done
  # What installing would have linked.
  ln -s mawk "$work/root/usr/bin/awk"
  # Nothing here is written in Perl, or runs under a sanitizer.
  rm -rf "$work/root/usr/share"/{doc,man,locale,perl,info} "$work/root/usr/lib/x86_64-linux-gnu"/{perl,perl-base} \
    "$work/root/usr/lib/x86_64-linux-gnu"/lib{perl,asan,hwasan,lsan,tsan,ubsan}*
  mv "$work/root" "$tools_parts"
  say "$(du -sh "$tools_parts" | cut -f 1) in $tools_parts" >&3
}

# with_tools DIRECTORY COMMAND...: runs a command where the tools are; the directory is /tmp/DIRECTORY's name
# there.
with_tools() {
  local directory=$1
  shift
  # A mount point for each: two runs at once share the root. objtool wants /proc.
  mkdir -p "$tools_parts/tmp/${directory##*/}"
  # shellcheck disable=SC2016
  unshare -rm sh -c 'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" &&
    mount --bind "$1" "$0/tmp/${1##*/}" && root=$0 && cd /tmp && shift &&
    exec chroot "$root" /usr/bin/env -i LC_ALL=C PATH=/usr/bin:/bin "$@"' "$tools_parts" "$directory" "$@" || return
  rmdir "$tools_parts/tmp/${directory##*/}"
}

# build_module KERNEL TO: the package's module for one of the bed's kernels, as the file TO. A warning is an
# error, and so is what sparse finds: only the older kernel's headers come with what calls it.
build_module() {
  local directory release to=$2 checks=()
  release=$(kernel_release "$1")
  [[ $1 != 6.12 ]] || checks=(C=2 CF=-Wsparse-error)
  directory=$(mktemp -d "$scratch/kmod.XXXXXX")
  cp kmod/* "$directory"
  with_tools "$directory" make -C "/usr/src/linux-headers-$release" "M=/tmp/${directory##*/}" \
    KCFLAGS=-Werror "${checks[@]}" modules || return
  cp "$directory/hv_uservsc.ko" "$to"
}

# The module for each of the kernels, before the file systems are made.
prepare_module() {
  local name
  tools_fetched || tools_fetch
  for name in "${kernels[@]}"; do
    build_module "$name" "$scratch/$name.ko"
    objcopy --strip-debug "$scratch/$name.ko"
  done
}

# It lies in the guests as /modules/KERNEL.hv_uservsc.ko.
add_module() {
  local name
  for name in "${kernels[@]}"; do bed_add_file "$scratch/$name.ko" "/modules/$name.hv_uservsc.ko"; done
}
