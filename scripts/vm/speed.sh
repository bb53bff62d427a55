# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux on the simulated host's disk and network, beside Linux on QEMU's virtio, in emulated machines of the
# same kind at the same time: what each takes, and the ratio. Shown, not judged. Sourced after bed.sh.
#
# The guests' names end with what they have: vmbus or virtio. GUEST.speed has what was measured, a line each:
# value, unit, what.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/far.sh
. scripts/vm/far.sh

bed_packages=(iproute2)
bed_channels=(commands far)
bed_outputs=(host machine)

part_guests() {
  say "$1x1vmbus"
  say "$1x1virtio"
}

bed_add_parts() {
  local name
  bed_add_program "$ip"
  bed_add_program "$ip" l1
  cp -r "$bed_parts/qemu" "$l1/"
  for name in "${bed_kernels[@]}"; do cp -r "$bed_parts/kernels/$name/virtio" "$l2/modules/$name-virtio"; done
}

# guest_script KIND DIRECTORY FILES: prints what starts the guest's machine, and its host where it has one.
guest_script() {
  local commands="<>$2/$guest.commands >&0" far="<>$2/$guest.far >&0" path='' kernel=${guest%x*}
  local answers=/answers.sh shell=/bin/sh apart='unshare -n' qemu=/qemu/run machine
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH" qemu=$bed_parts/qemu/run
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  if [[ $guest == *vmbus ]]; then
    machine="vmbus-host --socket host.sock --disk disk.img --nic tap=vsp0 2>$2/$guest.host &
until [ -S host.sock ]; do sleep 0.1; done
cut -d ' ' -f 1 /proc/uptime >started
vmbus-vm --kernel $3/$kernel --initrd $3/initrd --memory 320M --cpus 1 \
  --append 'quiet panic=-1 bed_kernel=$kernel bed_commands=ttyS0' --host host.sock"
  else
    machine="$ip tuntap add vsp0 mode tap vnet_hdr
cut -d ' ' -f 1 /proc/uptime >started
$qemu -nodefaults -no-reboot -display none -machine q35,accel=kvm -cpu host -m 320M \
  -kernel $3/$kernel -initrd $3/initrd -serial stdio \
  -append 'quiet panic=-1 bed_kernel=$kernel-virtio bed_commands=ttyS0' \
  -drive file=disk.img,format=raw,if=none,id=disk -device virtio-blk-pci,drive=disk \
  -netdev tap,id=nic,ifname=vsp0,script=no,downscript=no -device virtio-net-pci,netdev=nic,romfile="
  fi
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
truncate -s 64M disk.img
. $answers
mkdir far
(answer_commands far $far) &
$machine $commands 2>$2/$guest.machine
END
}

# measured VALUE UNIT WHAT
measured() {
  [[ $1 =~ ^[0-9.]+$ ]]
  say "$1 $2 $3" | tee -a "$bed_logs/$guest.speed" >&3
}

# --- Checks ----------------------------------------------------------------------------------------

# QEMU's serial port forgets what comes before the guest has opened it.
listens() {
  printf 'ready 5 %s\n' "$(base64 <<<true)" >"$scratch/$guest.commands"
  sleep 0.2
  grep -aq '^ready 0 ' "$bed_logs/$guest.commands"
}

boots() {
  wait_for 240 listens
  measured "$(far "awk '{ print \$1 - started }' started=\$(cat started) /proc/uptime")" s 'from the start to a shell'
}

# seconds WHO COMMAND: how long it takes there, by that machine's clock.
seconds() {
  "$1" "before=\$(cut -d ' ' -f 1 /proc/uptime); ${*:2}; awk '{ print \$1 - before }' before=\$before /proc/uptime"
}

# copies BLOCK COUNT TIMES WORDS: how long dd takes for blocks of so many KiB.
copies() {
  guest_seconds=120 seconds guest "for time in \$(seq $3); do dd bs=${1}k count=$2 ${*:4} 2>/dev/null; done"
}

uses_its_disk() {
  local name=vda
  [[ $guest != *vmbus ]] || name=sda
  wait_for 60 guest "[ -b /dev/$name ]"
  measured "$(copies 1024 48 5 if=/dev/zero of=/dev/$name oflag=direct)" s '240 writes of 1 MiB'
  measured "$(copies 1024 48 5 if=/dev/$name of=/dev/null iflag=direct)" s '240 reads of 1 MiB'
  measured "$(copies 4 2000 1 if=/dev/zero of=/dev/$name oflag=direct)" s '2000 writes of 4 KiB'
  measured "$(copies 4 2000 1 if=/dev/$name of=/dev/null iflag=direct)" s '2000 reads of 4 KiB'
}

uses_its_network() {
  wait_for 60 guest 'ls -d /sys/class/net/eth0'
  far "$ip addr add $far4/24 dev vsp0; $ip link set vsp0 up; truncate -s 32M file; httpd -p 80 -h ."
  guest "$ip addr add $guest4/24 dev eth0; $ip link set eth0 up; truncate -s 32M /tmp/file; httpd -p 80 -h /tmp"
  wait_for 30 guest "ping -q -c 1 -W 2 $far4"
  measured "$(guest_seconds=120 guest "ping -q -A -c 50 $far4" | sed -nE 's|.*min/avg/max = [^/]*/([^/]*)/.*|\1|p')" \
    ms 'for a ping'
  measured "$(guest_seconds=120 seconds guest "wget -q -O /dev/null http://$far4/file")" s '32 MiB by HTTP to the guest'
  measured "$(guest_seconds=120 seconds far "wget -q -O /dev/null http://$guest4/file")" s '32 MiB by HTTP from the guest'
}

# For each kernel, what VMBus took beside what virtio took.
beside_each_other() {
  local kernel
  for kernel in "${kernels[@]}"; do
    paste "$bed_logs/${kernel}x1vmbus.speed" "$bed_logs/${kernel}x1virtio.speed" | awk -F '\t' -v kernel="$kernel" '{
      split($1, vmbus, " "); split($2, virtio, " "); what = $1; sub(/^[^ ]+ [^ ]+ /, "", what)
      printf "%s %s: %s %s, virtio %s, ratio %.2f\n", kernel, what, vmbus[1], vmbus[2], virtio[1],
        (virtio[1] > 0 ? vmbus[1] / virtio[1] : 0)
    }' >&3
  done
}

check 'boots' 300 boots
check 'its disk' 300 uses_its_disk
check 'its network' 300 uses_its_network
check 'powers off' 120 powers_off

part_ended() { step 'VMBus beside virtio' 10 beside_each_other; }
