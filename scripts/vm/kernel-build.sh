# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# A compiler and the headers of Debian kernels in a directory, out of which modules are built: with the
# compiler that the kernel was built with, whatever this machine has. Nothing is installed. Sourced after
# fetch.sh, with the environment of use_private_apt.

# gcc takes its libraries from where it lies, the kernel's scripts theirs from the system: so all of it is
# a system of its own.
build_packages=(base-files bash bzip2 coreutils dash diffutils findutils gawk gcc-14 grep gzip libelf1t64
  libssl3t64 make mawk perl-base sed tar xz-utils zlib1g)

# The newest version of a kernel with the name, as its packages have it: 6.12.117+deb13-cloud-amd64.
kernel_version() {
  kernel_packages "${kernel_versions[$1]}" | sed -E 's/^linux-[a-z]+-//' | sort -Vu | tail -n 1
}

# What is needed to build modules for a kernel of that version, its headers first.
kernel_build_packages() {
  local version=${1%-cloud-amd64}
  say "linux-headers-$1"
  say "linux-headers-$version-common"
  say "linux-kbuild-$version"
}

# kernel_source_package VERSION: the package with that kernel's source.
kernel_source_package() { sed -E 's/^([0-9]+\.[0-9]+).*/linux-source-\1/' <<<"$1"; }

# unpack_build_root ARCHIVES ROOT: what `in_build_root` runs in.
unpack_build_root() {
  local package
  mkdir -p "$2"
  for package in "$1"/*.deb; do
    [[ $package == */linux-source-* ]] || dpkg -x "$package" "$2"
  done
  ln -sf gcc-14 "$2/usr/bin/gcc"
  ln -sf mawk "$2/usr/bin/awk"
  mkdir -p "$2"/{dev,proc,tmp}
}

# in_build_root ROOT COMMAND...: runs a command with that directory as the root of all files.
in_build_root() {
  local user=()
  ((EUID == 0)) || user=(--map-root-user)
  # shellcheck disable=SC2016
  unshare "${user[@]}" --mount sh -ec '
    mount --rbind /dev "$0/dev"
    mount --rbind /proc "$0/proc"
    exec chroot "$0" /usr/bin/env -i PATH=/usr/bin:/usr/sbin LC_ALL=C "$@"' "$@"
}

# build_modules ROOT VERSION DIRECTORY [ASSIGNMENT...]: makes the modules of a directory below the root,
# which has its path there.
build_modules() {
  in_build_root "$1" make -j "$(nproc)" -C "/usr/lib/modules/$2/build" "M=$3" \
    CONFIG_DEBUG_INFO_BTF_MODULES= "${@:4}" modules
}
