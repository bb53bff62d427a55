# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What an operator does, in guests of vmbus-vm with systemd and udev: the commands of Documentation/Install.md as they
# stand there, from the packages to a disk and a network in use; what becomes of them when a driver or a device
# goes, and when the machine starts again; what is said of wrong rules; and what a package leaves behind.
# Sourced after bed.sh; the checks are as those of scripts/vm/storage.sh.

# shellcheck source=scripts/vm/drivers.sh
. scripts/vm/drivers.sh
# shellcheck source=scripts/vm/module-tools.sh
. scripts/vm/module-tools.sh
# shellcheck source=scripts/vm/system.sh
. scripts/vm/system.sh

page=Documentation/Install.md
bed_products=()
bed_packages=(e2fsprogs git)
bed_memory=3G
guest_memory=1024M guest_starts=2 guest_system=system
# Where the serial port is the console, systemd and a login have it.
guest_words='bed_system=system console=tty0 systemd.getty_auto=no systemd.show_status=0'
bed_disk=$guest_system
host_words='--echo --balloon 0'
# The first controller has the system's own disk.
system_disk=$disk disk=5d15c000-0000-4000-8000-000000000001
balloon=5d15c000-0000-4000-8000-0000000b0001 echo=8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a002
rules=/etc/udev/rules.d/59-swift-vmbus-devices.rules

part_guests() { say "$1x$2voff"; }

signals_by_monitor() { [[ $guest == 7* ]]; }

# The package is built by the page's words, and lies where they say.
part_prepare() {
  local package image
  system_fetched || system_fetch
  sh -ec "$(page_block "$page" build)"
  image=$scratch/$guest_system
  cp --sparse=always "$system_parts/image" "$image"
  package=$(echo .build-package/debian/swift-vmbus_*.deb)
  put_in_system "$image" "$package" "/root/$package"
  # The author's program, built as those of the package.
  build_standalone vsc-echo
  put_in_system "$image" "$standalone/vsc-echo" /usr/local/bin/vsc-echo 755
  put_in_system "$image" scripts/vm/answers.sh /opt/bed/answers.sh
  # What comes for a port that nobody has open is lost.
  cat >"$scratch/bed.service" <<'END'
[Unit]
Description=Commands of the test bed

[Service]
ExecStart=/bin/sh -c 'dmesg -n 1; exec 3<>/dev/ttyS0; stty -F /dev/ttyS0 raw -echo; . /opt/bed/answers.sh; while :; do (answer_commands /run <>/dev/ttyS0 >&0); sleep 0.1; done'
KillMode=process
END
  put_in_system "$image" "$scratch/bed.service" /etc/systemd/system/bed.service
  printf '[Unit]\nWants=bed.service\n' >"$scratch/wants"
  put_in_system "$image" "$scratch/wants" /etc/systemd/system/multi-user.target.d/bed.conf
}

add_drivers() { bed_add_file "$bed_parts/kernels/6.12/virtio/virtio_blk.ko" /modules/virtio_blk.ko l1; }

# page NAME: the words of the page, with the disk that is driven here.
page() { page_block "$page" "$1" | sed "s/GUID/$disk/g"; }

# is_active UNIT: and stays so.
is_active() { guest "systemctl is-active $1"; }

# property UNIT NAME
property() { guest "systemctl show --value -p $2 $1"; }

# --- Checks: the page ------------------------------------------------------------------------------

boots() {
  guest_seconds=400 guest 'uname -r; systemctl --version | head -n 1' >&3
  guest_seconds=200 guest 'systemctl is-system-running --wait || systemctl --failed; ! systemctl --failed --quiet | grep .'
}

installs() {
  guest 'find /usr /etc /var/lib ! -path "/var/lib/dpkg/*" ! -path "/var/lib/apt/*" ! -path "/var/lib/systemd/*" | sort >/root/before'
  guest_seconds=300 guest "cd /root; $(page install)"
  guest "getent group vmbus; vmbusctl --version" >&3
}

tells_what_there_is() {
  local status=0
  guest "$(page look | grep list)"
  # Nobody has named a device yet, so that nothing is amiss.
  guest_seconds=120 guest "$(page look | grep doctor)" || status=$?
  ((status == 0))
}

# The operator takes the sign from two lines, and puts his devices into them.
names_devices() {
  guest "$(page pages)"
  guest "sed -i '/One disk controller/{n;s/^#//;s/KERNEL==\"[^\"]*\"/KERNEL==\"$disk\"/}
    /One network device/{n;s/^#//;s/KERNEL==\"[^\"]*\"/KERNEL==\"$nic\"/;s/hv_uservsc/uio_hv_generic/}' $rules
    grep -v '^#' $rules"
  guest "$(page apply)"
}

# They are what `vmbusctl` says they are.
are_driven() {
  wait_for 240 is_active "vsc-storage@$disk"
  wait_for 240 is_active "vsc-network@$nic"
  guest "$(page ask) | cat"
  shows "$disk" kernel_driver '^uio_hv_generic$'
  shows "$disk" status "^not usable: /dev/uio[0-9]+ is in use by process [0-9]+\$"
  property "vsc-storage@$disk" StatusText
  guest "stat -c '%G %a' \$(ls -d /dev/uio*)" | sort -u | grep -x 'vmbus 660'
  # Whoever drives it is nobody in particular.
  fails grep -x 0 <(guest "stat -c %u /proc/\$(systemctl show --value -p MainPID vsc-storage@$disk)")
}

makes_a_file_system() {
  guest_seconds=120 guest "$(page use)
    mke2fs -q -t ext4 /dev/nbd0; mkdir -p /mnt/disk; mount /dev/nbd0 /mnt/disk
    head -c 4000000 /dev/urandom >/mnt/disk/file; sha256sum </mnt/disk/file >/root/sum"
  guest_seconds=180 guest "cd /mnt/disk && fio --name=verify --size=6M --rw=randwrite --bsrange=4k-64k --iodepth=8 \
    --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 --verify_state_save=0" | grep 'err= 0'
  lets_the_disk_go
}

lets_the_disk_go() { guest_seconds=120 guest 'umount /mnt/disk; e2fsck -fn /dev/nbd0; nbd-client -d /dev/nbd0'; }

# What was written before a driver ended is there after it.
has_the_file() {
  guest_seconds=120 guest "$(page use); mount /dev/nbd0 /mnt/disk; sha256sum </mnt/disk/file | cmp - /root/sum"
  lets_the_disk_go
}

has_a_network() {
  far "$ip addr replace $far4/24 dev vsp0; $ip link set vsp0 up"
  guest "ip addr replace $guest4/24 dev vsc0; ip link set vsc0 up"
  guest "ping -q -A -c 5 -W 5 $far4" | grep ' 0% packet loss'
}

carries_a_file() {
  far 'dd if=/dev/urandom of=file bs=1M count=4; httpd -p 80 -h .; sha256sum <file' >"$scratch/$guest.far-sum"
  guest_seconds=120 guest "curl -sS http://$far4/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
}

# An author's program, from a rule and a unit of his.
drives_its_own() {
  guest "$(page mine)"
  guest "$(page apply)"
  wait_for 240 is_active "vsc-echo@$echo"
  wait_for 60 guest "journalctl -q -b -o cat -u vsc-echo@$echo | grep -x 'success(1000)'"
}

reports_memory() {
  guest "mkdir -p /etc/swift-vmbus; echo 'OPTIONS=\"--delay 1\"' >/etc/swift-vmbus/$balloon.conf"
  guest "sed -i '/^# Dynamic memory/{n;s/^#//}' $rules"
  guest "$(page apply)"
  wait_for 240 is_active "vsc-balloon@$balloon"
  property "vsc-balloon@$balloon" StatusText
  wait_for 60 guest "journalctl -q -b -o cat -u vsc-balloon@$balloon | grep -m 1 'report: '" >&3
}

# --- Checks: what goes wrong -----------------------------------------------------------------------

# A driver that is killed is started again, and its disk is the one that it was.
is_restarted() {
  local unit
  for unit in "vsc-storage@$disk" "vsc-network@$nic"; do
    guest "systemctl kill -s KILL $unit"
    wait_for 240 restarted "$unit" 1
  done
  has_the_file
  has_a_network
}

restarted() { (($(property "$1" NRestarts) >= $2)) && is_active "$1"; }

# The host takes the devices away, and offers them again.
follows_its_device() {
  host_does 'controller 1 rescind'
  host_does 'nic 0 rescind'
  wait_for 60 inactive "vsc-storage@$disk"
  wait_for 60 inactive "vsc-network@$nic"
  guest "[ ! -e $bus/devices/$disk ]"
  host_does 'controller 1 offer'
  host_does 'nic 0 offer'
  wait_for 240 is_active "vsc-storage@$disk"
  wait_for 240 is_active "vsc-network@$nic"
  has_the_file
  has_a_network
}

inactive() { [[ $(property "$1" ActiveState) == inactive ]]; }

starts_again() {
  guest 'systemd-run --on-active=1 systemctl poweroff'
  wait_for 120 starts 2
  boots
  wait_for 240 is_active "vsc-storage@$disk"
  wait_for 240 is_active "vsc-network@$nic"
  has_the_file
  has_a_network
}

# Without the disk that the system lies on there is no system.
keeps_its_own_disk() {
  guest "echo 'SUBSYSTEM==\"vmbus\", KERNEL==\"$system_disk\", ENV{VMBUS_DRIVER}=\"uio_hv_generic\"' >>$rules"
  guest "$(page apply)"
  wait_for 60 failed "vmbus-bind@$system_disk"
  guest "journalctl -q -b -o cat -u vmbus-bind@$system_disk" | tee /dev/stderr | grep "the system uses $system_disk: sd. (mounted at /)"
  [[ $(guest "basename \$(readlink $bus/devices/$system_disk/driver)") == hv_storvsc ]]
  guest "systemctl reset-failed vmbus-bind@$system_disk; sed -i '/$system_disk/d' $rules; echo >$bus/devices/$system_disk/driver_override"
}

failed() { [[ $(property "$1" ActiveState) == failed ]]; }

# doctor_says PATTERN: a fault is a status of 1.
doctor_says() {
  local status=0
  guest_seconds=120 guest vmbusctl doctor >"$scratch/$guest.doctor" || status=$?
  cat "$scratch/$guest.doctor"
  ((status == 1))
  grep -E "$1" "$scratch/$guest.doctor"
}

# A rules file that somebody has edited by hand: what can be read of it holds, and doctor says what can't.
doctor_finds_wrong_rules() {
  guest "cp $rules /root/rules"
  guest "echo 'SUBSYSTEM==\"vmbus\", KERNEL==\"$disk\", ENV{VMBUS_DRIVER}=\"hv_uservsc\"' >>$rules"
  doctor_says "^fault +udev rules +rules want $disk for .* and for "
  guest "cp /root/rules $rules; echo 'SUBSYSTEM==\"vmbus, KERNEL=\"nonsense' >>$rules"
  guest "$(page apply)"
  guest 'journalctl -q -b -o cat -u systemd-udevd' | grep "$rules:"
  is_active "vsc-storage@$disk"
  guest "cp /root/rules $rules; udevadm control --reload"
}

# Nobody can open the nodes then.
doctor_misses_the_group() {
  guest 'cp -a /etc/group /etc/gshadow /root/; sed -i /^vmbus:/d /etc/group /etc/gshadow'
  doctor_says 'group vmbus'
  guest 'cp -a /root/group /root/gshadow /etc/'
}

# --- Checks: the end -------------------------------------------------------------------------------

goes_back_to_the_kernel() {
  guest "sed -i '/$disk/d' $rules"
  guest "$(page back)"
  wait_for 30 guest "[ \$(basename \$(readlink $bus/devices/$disk/driver)) = hv_storvsc ]"
  wait_for 30 guest "ls -d $bus/devices/$disk/host*/target*/*/block/sd*"
  guest "mount /dev/\$(ls $bus/devices/$disk/host*/target*/*/block) /mnt/disk; sha256sum </mnt/disk/file | cmp - /root/sum; umount /mnt/disk"
}

# With a driver that runs: it ends first.
leaves_nothing() {
  guest "rm /etc/systemd/system/vsc-echo@.service /etc/swift-vmbus/$balloon.conf; rmdir /etc/swift-vmbus"
  is_active "vsc-network@$nic"
  guest_seconds=300 guest "$(page remove)"
  guest '[ ! -e /usr/bin/vmbusctl ]; ! systemctl list-units --all "vsc-*" "vmbus-bind@*" --no-legend --plain | grep -v not-found | grep .'
  fails guest 'pgrep vsc-'
  guest 'find /usr /etc /var/lib ! -path "/var/lib/dpkg/*" ! -path "/var/lib/apt/*" ! -path "/var/lib/systemd/*" | sort >/root/after
    diff /root/before /root/after >/root/left || true; cat /root/left'
  # The group stays, for files that may belong to it, and who keeps groups writes a copy of the old file.
  fails guest "grep -vE '^[0-9,acd]+\$|^> /etc/(group|gshadow|passwd|shadow)-?\$|^> /etc/.pwd.lock\$' /root/left"
}

says_nothing_at_all() {
  guest 'journalctl -q -b -k -p warning -o cat' >"$bed_logs/$guest.journal"
  says_nothing
}

powers_off() {
  guest 'systemd-run --on-active=1 systemctl poweroff'
  wait_for 120 bed_ended_well
}

check 'boots' 600 boots
check 'page: install' 360 installs
check 'page: look' 240 tells_what_there_is
check 'page: name the devices' 120 names_devices
check 'they are driven' 600 are_driven
check 'page: use the disk' 400 makes_a_file_system
check 'page: use the network' 120 has_a_network
check 'a file by HTTP' 200 carries_a_file
check 'page: a driver of your own' 400 drives_its_own
check 'dynamic memory' 400 reports_memory
check 'killed and started again' 900 is_restarted
check 'rescinded and offered' 900 follows_its_device
check "the system's own disk" 200 keeps_its_own_disk
check 'doctor: wrong rules' 400 doctor_finds_wrong_rules
check 'doctor: no group' 200 doctor_misses_the_group
check 'the machine starts again' 900 starts_again
check 'page: give it back' 200 goes_back_to_the_kernel
check 'page: remove' 400 leaves_nothing
check 'the log has nothing bad' 120 says_nothing_at_all
check 'powers off' 180 powers_off
