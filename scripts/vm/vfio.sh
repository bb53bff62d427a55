# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# PCI functions in user space: an NVMe disk behind a hot-plug port of QEMU's emulated machine, with and
# without an IOMMU. Sourced after bed.sh; the checks are as those of scripts/vm/balloon.sh.
#
# A guest's name ends with the way to its functions: group (Debian's own modules), cdev (iommufd), noiommu
# (a machine without an IOMMU). GUEST.disk is the disk.

# shellcheck source=scripts/vm/qemu.sh
. scripts/vm/qemu.sh
# shellcheck source=scripts/vm/vfio-modules.sh
. scripts/vm/vfio-modules.sh

bed_outputs=()
# QEMU emulates these machines itself, on this one.
bed_nested=no

usual_processors() { say 2; }

part_fetched() { vfio_fetched; }
part_fetch() { vfio_fetch; }

part_guests() {
  say "$1x$2group"
  say "$1x$2cdev"
  say "$1x$2noiommu"
}

# way: to the functions of a guest.
way() { sed -E 's/^[0-9.]+x[0-9]+//' <<<"$guest"; }

bed_add_parts() {
  local name
  for name in "${bed_kernels[@]}"; do
    rm -r "$l2/modules/$name"
    cp -r "$vfio_parts/$name/stock" "$l2/modules/$name-stock"
    cp -r "$vfio_parts/$name/built" "$l2/modules/$name-built"
    cp "$vfio_parts/$name/vmlinuz" "$l1/files/$name"
  done
}

# guest_script KIND DIRECTORY FILES: prints what starts the guest's machine.
guest_script() {
  local arguments modules=built iommu='intel_iommu=on' way processors=${guest#*x}
  way=$(way)
  arguments=(-nodefaults -no-reboot -display none -machine 'q35,accel=tcg,kernel-irqchip=split'
    -cpu EPYC -smp "${processors%"$way"}" -m 768M -kernel "$3/${guest%x*}" -initrd "$3/initrd")
  case $way in
    group) modules=stock ;;
    noiommu) iommu='bed_vfio=enable_unsafe_noiommu_mode=1' ;;
  esac
  # Before the devices that it is for.
  [[ $way == noiommu ]] || arguments+=(-device 'intel-iommu,intremap=on')
  arguments+=(-append "console=ttyS0 quiet panic=-1 hugepages=24 bed_kernel=${guest%x*}-$modules $iommu"
    -drive "file=$2/$guest.disk,format=raw,if=none,id=disk"
    -device 'pcie-root-port,id=pcie.1,chassis=1,slot=1,addr=6'
    -device "$nvme_device"
    -trace 'vtd_dmar_fault' -D "$2/$guest.trace")
  character_device console "$1" "$2"
  arguments+=(-serial "chardev:console.$guest")
  character_device qmp "$1" "$2"
  arguments+=(-mon "chardev=qmp.$guest,mode=control")
  character_device commands "$1" "$2"
  arguments+=(-device virtio-serial-pci -device "virtserialport,chardev=commands.$guest")
  say "truncate -s 64M $2/$guest.disk"
  say "exec $bed_parts/qemu/run ${arguments[*]@Q}"
}

nvme_device='nvme,id=nvme,serial=vmbus-test,drive=disk,bus=pcie.1'
# Behind the port.
address=0000:01:00.0
nvme_directory=/sys/bus/pci/devices/$address

# --- Checks ----------------------------------------------------------------------------------------

guest_boots() {
  guest_seconds=240 guest uname -r >&3
  guest "cat $nvme_directory/class" | grep -x 0x010802
}

check 'boots' 300 guest_boots
