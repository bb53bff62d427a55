# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The kernels of the guests with VFIO, and their modules: Debian's own, and the same built once more with
# what Debian leaves out (no-IOMMU mode, iommufd, a device file for each device). They have a cache of their
# own. Sourced after fetch.sh.

# shellcheck source=scripts/vm/kernel-build.sh
. scripts/vm/kernel-build.sh

# The number changes when what is kept here changes: an older cache is then not used.
vfio_cache=${XDG_CACHE_HOME:-$HOME/.cache}/swift-vmbus/vfio
vfio_parts=$vfio_cache/1

# In the order in which they are loaded.
vfio_modules=(vfio vfio_iommu_type1 vfio-pci)
vfio_built_modules=(iommu_amdv1 iommufd_driver iommufd vfio vfio_iommu_type1 vfio-pci-core vfio-pci)

vfio_fetched() { [[ -d $vfio_parts ]]; }

# Fetches and builds where that was not done yet. Exits with 77 when the packages can't be had.
vfio_fetch() {
  local work name
  mkdir -p "$vfio_cache"
  # Two runs at once fetch once.
  exec {vfio_lock}>"$vfio_cache/lock"
  flock "$vfio_lock"
  ! vfio_fetched || return 0
  rm -rf "$vfio_cache"/fetch.*
  work=$(mktemp -d "$vfio_cache/fetch.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  use_private_apt "$work/apt"
  fetch_vfio_packages "$work/apt"
  unpack_build_root "$work/apt/cache/archives" "$work/root"
  for name in "${bed_kernels[@]}"; do
    keep_vfio_kernel "$work" "$(<"$work/version.$name")" "$work/parts/$name"
  done
  mv "$work/parts" "$vfio_parts"
  say "$(du -sh "$vfio_parts" | cut -f 1) in $vfio_parts" >&3
}

fetch_vfio_packages() {
  local log=$1/log name version packages=()
  apt-get update -q >"$log" 2>&1 || not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  apt-get install -q -y --download-only busybox-static "${build_packages[@]}" >"$log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  for name in "${bed_kernels[@]}"; do
    version=$(kernel_version "$name")
    say "$version" >"$1/../version.$name"
    mapfile -t -O "${#packages[@]}" packages < <(
      kernel_packages "${kernel_versions[$name]}"
      kernel_build_packages "$version"
      kernel_source_package "$version"
    )
  done
  (cd "$1/cache/archives" && apt-get download -q "${packages[@]}") >"$log" 2>&1 ||
    not_to_be_had "$(grep -m 1 '^E: ' "$log")"
  say "$(du -sh "$1/cache/archives" | cut -f 1) fetched from $mirror" >&3
}

# keep_vfio_kernel WORK VERSION TO: the kernel, and its modules: those of Debian in `stock`, the others in
# `built`.
keep_vfio_kernel() {
  local usr=$1/root/usr version=$2 to=$3 module directory file source=$1/root/build.$2
  directory=$usr/lib/modules/$version
  mkdir -p "$to"/{stock,built}
  file=$directory/vmlinuz
  [[ -f $file ]] || file=$usr/../boot/vmlinuz-$version
  cp "$file" "$to/vmlinuz"
  touch "$to"/{stock,built}/order
  for module in "${vfio_modules[@]}"; do
    keep_module_tree "$usr" "$directory" "$to/stock" "$module"
  done
  vfio_source "$1" "$version" "$source"
  build_vfio_modules "$1/root" "$version" "/build.$version" >"$1/build.log" 2>&1 || {
    tail -n 20 "$1/build.log" >&2
    die "The modules of $version could not be built."
  }
  # Of what these need and is not theirs, the stock module is right.
  for module in irqbypass "${vfio_built_modules[@]}"; do
    file=$(find "$source" -name "$module.ko")
    if [[ -n $file ]]; then
      objcopy --strip-debug "$file" "$to/built/$module.ko"
    else
      keep_module "$usr" "$directory" "$to/built/$module.ko"
    fi
    [[ ! -f $to/built/$module.ko ]] || say "$module" >>"$to/built/order"
  done
  say "kernel $version" >&3
}

# vfio_source WORK VERSION TO: what is built, with makefiles around it.
vfio_source() {
  local package name tree
  name=$(kernel_source_package "$2")
  package=$(compgen -G "$1/apt/cache/archives/${name}_*.deb")
  dpkg -x "$package" "$1/source"
  tar -xJf "$1/source/usr/src/$name.tar.xz" -C "$1/source" "$name"/{drivers/{vfio,iommu},lib/interval_tree.c}
  tree=$1/source/$name
  mkdir -p "$3/iommu"
  mv "$tree/drivers/vfio" "$3/vfio"
  mv "$tree/drivers/iommu/iommufd" "$tree/drivers/iommu"/*.h "$3/iommu/"
  [[ ! -d $tree/drivers/iommu/generic_pt ]] || mv "$tree/drivers/iommu/generic_pt" "$3/iommu/"
  # Iterating over spans of a tree is for iommufd alone, and so it is not in the kernel.
  {
    say '#include <linux/interval_tree.h>'
    sed -n '/^#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER/,/^#endif/p' "$tree/lib/interval_tree.c" | grep -v EXPORT_SYMBOL
  } >"$3/iommu/iommufd/span.c"
  say 'iommufd-y += span.o' >>"$3/iommu/iommufd/Makefile"
  say 'obj-y += vfio/ iommu/iommufd/' >"$3/Kbuild"
  [[ ! -d $3/iommu/generic_pt ]] || say 'obj-y += iommu/generic_pt/fmt/' >>"$3/Kbuild"
}

# The build reads the kernel's own configuration, so that what differs is said twice: to make, and to the
# compiler.
build_vfio_modules() {
  local name choices=() flags=''
  for name in VFIO_NOIOMMU VFIO_DEVICE_CDEV IOMMUFD_NOIOMMU INTERVAL_TREE_SPAN_ITER; do
    choices+=("CONFIG_$name=y") flags+=" -DCONFIG_$name=1"
  done
  for name in IOMMUFD IOMMUFD_DRIVER_CORE IOMMU_PT_AMDV1; do
    choices+=("CONFIG_$name=m") flags+=" -DCONFIG_${name}_MODULE=1"
  done
  build_modules "$@" "${choices[@]}" "KCFLAGS=$flags"
}
