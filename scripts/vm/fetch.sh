# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What the test bed is made of: QEMU, kernels, udev and busybox, all from Debian packages. They
# are fetched once, unpacked without being installed, and only what is needed stays in the cache.
# Sourced after lib.sh.

# The number changes when what is kept here changes: an older cache is then not used.
bed_cache=${XDG_CACHE_HOME:-$HOME/.cache}/swift-vmbus/bed
bed_parts=$bed_cache/5

# The kernels: a name, the packages' version, and the suite that has it. Those of the second list are for who
# names them.
bed_kernels=(6.12 7)
bed_older_kernels=(6.1)
declare -A kernel_versions=([6.12]='6\.12\.' [7]='7\.' [6.1]='6\.1\.')
bed_suites=(trixie trixie-backports bookworm)

# Modules; a kernel that has not got one has it built in.
l1_modules=(irqbypass kvm kvm-amd tun)
l2_modules=(hv_vmbus uio uio_hv_generic)
# For guests of vmbus-vm, with all that they need, in the order in which they are loaded. ext4 asks
# for its checksum by name, without depending on it.
device_modules=(hv_vmbus hv_storvsc sd_mod crc32c_generic ext4 hv_utils hv_netvsc)
# For guests and machines with VLANs.
vlan_modules=(8021q)
# For guests of QEMU without a VMBus.
virtio_modules=(virtio_blk virtio_net)

bed_fetched() { [[ -d $bed_parts ]]; }

# Fetches the packages where they are not there yet. Exits with 77 when they can't be had.
bed_fetch() {
  local work name
  mkdir -p "$bed_cache"
  # Two runs at once fetch once.
  exec {bed_lock}>"$bed_cache/lock"
  flock "$bed_lock"
  ! bed_fetched || return 0
  rm -rf "$bed_cache"/fetch.*
  work=$(mktemp -d "$bed_cache/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  use_private_apt "$work/apt"
  fetch_packages "$work/apt"
  mkdir "$work/root"
  for name in "$work"/apt/cache/archives/*.deb; do dpkg -x "$name" "$work/root"; done
  mkdir "$work/parts"
  keep_parts "$work/root/usr" "$work/parts"
  mv "$work/parts" "$bed_parts"
  say "$(du -sh "$bed_parts" | cut -f 1) in $bed_parts" >&3
}

not_to_be_had() {
  say "The packages of the test bed could not be had from $mirror, and $bed_cache has none: $1"
  exit 77
}

# The mirror that this machine uses: it has the other suites too.
debian_mirror() {
  local uri
  # shellcheck disable=SC2016
  uri=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m 1 -E '/debian/?$') || true
  printf '%s' "${uri:-http://deb.debian.org/debian}"
}

# A configuration of its own, by the environment: with `apt-get -c` the system's hooks would run.
# How to reach a mirror is taken from the system's.
use_private_apt() {
  local directory=$1 suite
  mkdir -p "$directory"/{empty,state/lists/partial,cache/archives/partial}
  : >"$directory/status"
  mirror=$(debian_mirror)
  for suite in "${bed_suites[@]}"; do
    say "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$directory/sources.list"
  {
    apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]+)( |:)' || true
    cat <<END
Dir::Etc "$directory/empty";
Dir::Etc::sourcelist "$directory/sources.list";
Dir::Etc::sourceparts "$directory/empty";
Dir::Etc::parts "$directory/empty";
Dir::State "$directory/state";
Dir::State::status "$directory/status";
Dir::Cache "$directory/cache";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "2";
END
  } >"$directory/apt.conf"
  export APT_CONFIG=$directory/apt.conf
}

fetch_packages() {
  local log=$1/log name packages=()
  apt-get update -q >"$log" 2>&1 || not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  apt-get install -q -y --download-only qemu-system-x86 busybox-static udev >"$log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  for name in "${bed_kernels[@]}" "${bed_older_kernels[@]}"; do
    mapfile -t -O "${#packages[@]}" packages < <(kernel_packages "${kernel_versions[$name]}")
  done
  # Not by dependencies: a kernel of another suite wants that suite's helpers.
  (cd "$1/cache/archives" && apt-get download -q "${packages[@]}") >"$log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  say "$(du -sh "$1/cache/archives" | cut -f 1) fetched from $mirror" >&3
}

# The packages of the newest kernel of a version: one, or one each for the image and the modules.
kernel_packages() {
  local names newest
  names=$(apt-cache pkgnames linux- | grep -E "^linux-(image|binary|modules)-$1.*-cloud-amd64$")
  newest=$(sed -E 's/^linux-[a-z]+-//' <<<"$names" | sort -Vu | tail -n 1)
  grep -F -- "-$newest" <<<"$names"
}

# keep_parts USR TO: busybox, kernels, and a directory each for QEMU and udev.
keep_parts() {
  local usr=$1 to=$2 name file
  cp "$usr/bin/busybox" "$to/busybox"
  for name in "${bed_kernels[@]}" "${bed_older_kernels[@]}"; do
    mkdir -p "$to/kernels/$name"
    keep_kernel "$usr" "$to/kernels/$name" "${kernel_versions[$name]}"
  done
  # shellcheck disable=SC2016
  keep_program "$usr" qemu-system-x86_64 "$to/qemu" '-L "$here/share"'
  keep_program "$usr" udevadm "$to/udev"
  mkdir "$to/qemu/share"
  for file in seabios/bios-256k.bin qemu/kvmvapic.bin qemu/linuxboot_dma.bin; do
    cp -L "$usr/share/$file" "$to/qemu/share/"
  done
}

keep_kernel() {
  local usr=$1 to=$2 directory module file
  # Older packages have them beside /usr.
  directory=$(find "$usr"{,/..}/lib/modules -mindepth 1 -maxdepth 1 -regextype egrep -regex ".*/$3.*" || true)
  file=$directory/vmlinuz
  [[ -f $file ]] || file=$usr/../boot/vmlinuz-${directory##*/}
  cp "$file" "$to/vmlinuz"
  say "kernel ${directory##*/}" >&3
  mkdir "$to"/{l1,l2,devices,vlan,virtio}
  for module in "${l1_modules[@]}"; do keep_module "$usr" "$directory" "$to/l1/$module.ko"; done
  touch "$to"/{l2,devices,vlan,virtio}/order
  for module in "${l2_modules[@]}"; do keep_module_tree "$usr" "$directory" "$to/l2" "$module"; done
  for module in "${device_modules[@]}"; do
    keep_module_tree "$usr" "$directory" "$to/devices" "$module"
  done
  for module in "${vlan_modules[@]}"; do keep_module_tree "$usr" "$directory" "$to/vlan" "$module"; done
  for module in "${virtio_modules[@]}"; do
    keep_module_tree "$usr" "$directory" "$to/virtio" "$module"
  done
}

# keep_module USR DIRECTORY TO: a module, named as the file TO. One that is not there is built in.
keep_module() {
  local file name=${3##*/}
  # Names of modules and of their files differ in these two signs.
  file=$(find "$2" -name "${name//[_-]/[_-]}.xz" -o -name "${name//[_-]/[_-]}")
  case $file in
    *.xz) "$1/bin/busybox" xz -dc "$file" >"$3" ;;
    ?*) cp "$file" "$3" ;;
  esac
}

# keep_module_tree USR DIRECTORY TO NAME: a module behind those that it depends on, in TO/order.
keep_module_tree() {
  local needed
  ! grep -qx "$4" "$3/order" || return 0
  keep_module "$1" "$2" "$3/$4.ko"
  [[ -f $3/$4.ko ]] || return 0
  for needed in $(tr '\0' '\n' <"$3/$4.ko" | sed -n 's/^depends=//p' | tr , ' '); do
    keep_module_tree "$1" "$2" "$3" "$needed"
  done
  say "$4" >>"$3/order"
}

# keep_program USR NAME TO [ARGUMENTS]: a program with the loader and the libraries that it was built for, and
# `run`, which starts it wherever the directory lies and whatever else is there.
keep_program() {
  local usr=$1 name=$2 to=$3 loader libraries
  loader=$usr/lib64/ld-linux-x86-64.so.2
  libraries=$usr/lib/x86_64-linux-gnu:$usr/lib/x86_64-linux-gnu/systemd
  mkdir -p "$to/lib"
  cp "$usr/bin/$name" "$to/"
  cp -L "$loader" "$to/lib/loader"
  "$loader" --library-path "$libraries" --list "$usr/bin/$name" >"$to/list"
  awk '$2 == "=>" && $1 !~ "/" { print $3 }' "$to/list" | xargs cp -L -t "$to/lib"
  rm "$to/list"
  cat >"$to/run" <<END
#!/bin/sh
here=\${0%/*}
exec "\$here/lib/loader" --argv0 "\${argv0:-$name}" --library-path "\$here/lib" \\
  "\$here/$name" ${4:-} "\$@"
END
  chmod +x "$to/run"
}
