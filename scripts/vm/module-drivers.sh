# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The drivers of this package on the kernel module hv_uservsc, in guests of vmbus-vm: their data path in each
# kind of machine, and what becomes of it when a driver is killed, or its device is taken away under load.
# Any warning of the kernel is a panic.
#
# The guests' names end with the kind of machine: voff is not isolated, vbs is; vring and vall are confidential,
# with a host that is the paravisor itself: an encrypted ring, and encrypted data too. Sourced after bed.sh; the
# checks are as those of scripts/vm/storage.sh.
#
# MODULE_KINDS='voff vbs' takes only these machines, DRIVER_KILLS=COUNT makes one of the checks longer.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/far.sh
. scripts/vm/far.sh
# shellcheck source=scripts/vm/module-tools.sh
. scripts/vm/module-tools.sh

bed_products=(vmbusctl vsc-storage vsc-network)
bed_packages=(iproute2)
bed_channels=(commands far)
bed_outputs=(host machine)

part_prepare() { prepare_module; }

part_guests() {
  local kind
  for kind in ${MODULE_KINDS:-voff vbs vring vall}; do
    # The older kernel knows no confidential VMBus.
    [[ $1 == 6.12 && $kind == v[ra]* ]] || say "$1x$2$kind"
  done
}

bed_add_parts() {
  local name
  add_module
  for name in "${kernels[@]}"; do bed_add_file "$bed_parts/kernels/$name/l1/tun.ko" "/modules/$name.tun.ko"; done
  bed_add_program "$ip"
  bed_add_program "$ip" l1
}

# kind NAME...: whether the guest is of one of these kinds.
kind() {
  local name
  for name in "$@"; do [[ $guest != *"v$name" ]] || return 0; done
  return 1
}

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host and machine.
guest_script() {
  local commands="<>$2/$guest.commands >&0" far="<>$2/$guest.far >&0" path='' answers=/answers.sh
  local shell=/bin/sh apart='unshare -n' isolation=off memory='' options=''
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH"
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  # One of the kernels signals through the monitor page, where user space alone could not in an isolated
  # machine. In a confidential one Linux signals in no other way, and the host looks for all other news.
  [[ $guest == 6.12* ]] || options=--monitors
  case $guest in
    *vbs) isolation=vbs ;;
    # Linux's own drivers bounce their data in either machine.
    *vring) isolation=vbs-confidential memory=,memory=ring options+=' --poll-rings' ;;
    *vall) isolation=vbs-confidential memory=,memory=all options+=' --poll-rings --accept-shared-data' ;;
  esac
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
truncate -s 32M disk.img
vmbus-host --socket host.sock --control control --workers $(processors) --subchannels 2 \
  --disk disk.img,controller=0$memory --nic tap=vsp0,queues=2$memory $options --verbose 2>$2/$guest.host &
host=\$!
until [ -S host.sock ] && [ -p control ]; do sleep 0.1; done
. $answers
mkdir far
(answer_commands far $far) &
vmbus-vm --isolation $isolation --kernel $3/${guest%x*} --initrd $3/initrd --memory 384M --cpus $(processors) \
  --append "quiet panic=-1 panic_on_warn=1 bed_kernel=${guest%x*} bed_commands=ttyS0" --host host.sock --verbose \
  $commands 2>$2/$guest.machine
status=\$?
# The host has the last word when its guest is gone.
sleep 1
kill \$host
exit \$status
END
}

# host_does LINE: a command for the host's control pipe.
host_does() { far "echo '$1' >control"; }

# --- What the checks share -------------------------------------------------------------------------

bus=/sys/bus/vmbus
disk=5d15c000-0000-4000-8000-000000000000 nic=5d15c000-0000-4000-8000-0000000e0000

# show DEVICE: what vmbusctl says of it, for `shown`: an emulated machine takes its time for each question.
show() { guest "vmbusctl show $1 --json" >"$scratch/$guest.shown"; }

# shown NAME: one thing of that.
shown() { jq -r --arg name "$1" '.[$name]' "$scratch/$guest.shown"; }

# says NAME PATTERN: the same, which must match.
says() {
  local found
  found=$(shown "$1")
  say "$1: $found"
  [[ $found =~ $2 ]]
}

# shows DEVICE NAME PATTERN: asks, and looks.
shows() {
  show "$1"
  says "${@:2}"
}

# bind DEVICE: gives it to the module, by the words of whoever knows what to do.
bind() {
  local todo
  show "$1"
  todo=$(shown what_to_do)
  say "$todo"
  [[ $todo == *'echo hv_uservsc > '* ]]
  guest "${todo#*then }"
  wait_for 20 guest "[ -c /dev/vmbus/$1 ]"
}

# give_back DEVICE: to the kernel's own driver.
give_back() {
  guest "echo $1 >$bus/drivers/hv_uservsc/unbind; echo >$bus/devices/$1/driver_override
    echo $1 >$bus/drivers_probe"
}

# ends NAME: what a program in the background has ended with, when it has ended by itself.
ends() {
  guest_seconds=40 guest "until [ -s /tmp/$1.status ]; do sleep 0.1; done; cat /tmp/$1.log >&2; cat /tmp/$1.status
    rm /tmp/$1.pid /tmp/$1.status"
}

# Who sees what, in vmbusctl's words.
ring_memory() { if kind ring all; then say encrypted; else say host-visible; fi; }
data_memory() { if kind all; then say encrypted; else say host-visible; fi; }

nothing_is_left() {
  guest 'cat /sys/class/hv_uservsc/leaked_pages' | grep -x 0
  wait_for 20 shows "$1" module_memory '^0 of '
}

# --- Checks: operators -----------------------------------------------------------------------------

# Before the module is there, what every kernel has is what can be had.
tells_of_no_module() {
  shows "$disk" status "bound to the kernel's driver hv_storvsc|uio_hv_generic is not loaded"
}

tells_what_to_do() {
  guest "insmod /modules/${guest%x*}.tun.ko; insmod /modules/${guest%x*}.hv_uservsc.ko"
  shows "$disk" status "^not usable: bound to the kernel's driver hv_storvsc"
  bind "$disk"
  bind "$nic"
}

tells_the_truth() {
  local device
  for device in "$disk" "$nic"; do
    show "$device"
    says status '^usable$'
    says transport "^/dev/vmbus/$device\$"
    says kernel_driver '^hv_uservsc$'
    says memory_known 'kernel module'
    says ring "^$(ring_memory)\$"
    says dma_memory "^$(data_memory)\$"
    says module_memory '^0 of '
  done
}

# --- Checks: storage -------------------------------------------------------------------------------

reads_and_writes() {
  local report
  report=$(guest vsc-storage info --json)
  say "$report"
  [[ $(jq -r .transport <<<"$report") == "/dev/vmbus/$disk" ]]
  guest "dd if=/dev/urandom of=/tmp/random bs=1M count=8; sha256sum /tmp/random"
  guest_seconds=120 guest "vsc-storage write --offset 1M --from /tmp/random; vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  # With a queue for each processor, and a size that fits nothing.
  guest_seconds=120 guest "vsc-storage read --offset 1049088 --count 1000448 --cpu 0-$(($(processors) - 1)) >/tmp/part
    dd if=/tmp/random bs=512 skip=1 count=1954 | cmp - /tmp/part; rm /tmp/part"
  nothing_is_left "$disk"
}

# Requests of all sizes at once, for some seconds.
carries_load() {
  guest_seconds=60 guest "vsc-storage bench --pattern randread --time 3 --json" >"$scratch/$guest.bench"
  cat "$scratch/$guest.bench"
  guest "vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
}

# load: reads that go on until somebody ends them. What was read is compared: of a read that is cut off, what
# there is of it must be right.
load() {
  guest "cat >/tmp/load.sh <<'SCRIPT'
while :; do
  vsc-storage read --offset 1M --count 8M --to /tmp/read
  status=\$?
  cmp -n \$(stat -c %s /tmp/read) /tmp/read /tmp/random || exit 99
  [ \$status = 0 ] || exit \$status
  echo read
done
SCRIPT"
  guest_background load sh /tmp/load.sh
  guest 'until grep read /tmp/load.log; do [ ! -s /tmp/load.status ] || { cat /tmp/load.log; exit 1; }; sleep 0.1; done'
}

is_in_use() {
  guest_background bench vsc-storage bench --pattern randread --time 1000
  wait_for 20 shows "$disk" status "^not usable: /dev/vmbus/$disk is in use by process [0-9]+\$"
  fails guest vsc-storage info 2>"$scratch/$guest.refused"
  grep 'in use by process' "$scratch/$guest.refused"
  guest_end bench KILL
}

# What a killed process had is scrubbed and free, and its device can be had again at once.
kills=${DRIVER_KILLS:-5}
is_killed_and_starts() {
  guest_seconds=$((60 + kills * 20)) guest "
    for number in \$(seq $kills); do
      vsc-storage bench --pattern randread --time 1000 >/tmp/kill.log 2>&1 & pid=\$!
      until grep -q \"FLOCK .* \$pid \" /proc/locks; do usleep 20000; done
      # While it opens, or when it reads already.
      usleep \$((number * 791930 % 3000000))
      kill -9 \$pid
      wait \$pid || true
    done
    vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  nothing_is_left "$disk"
  say "$kills times" >&3
}

is_unbound_under_load() {
  load
  guest "usleep 300000; echo $disk >$bus/drivers/hv_uservsc/unbind"
  [[ $(ends load) == 69 ]]
  bind "$disk"
  guest "vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  nothing_is_left "$disk"
}

is_rescinded_under_load() {
  load
  host_does 'controller 0 rescind'
  [[ $(ends load) == 69 ]]
  wait_for 20 guest "[ ! -e $bus/devices/$disk ]"
  host_does 'controller 0 offer'
  # Nobody has said that it is the module's.
  wait_for 20 shows "$disk" kernel_driver '^hv_storvsc$'
  bind "$disk"
  guest "vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  nothing_is_left "$disk"
}

# --- Checks: network -------------------------------------------------------------------------------

start_tap() { guest_background tap vsc-network tap --name vsc0 --stats /tmp/tap.stats; }

# As it is brought up whenever the driver makes it anew.
interface_up() {
  wait_for 20 guest "[ \"\$(cat /sys/class/net/vsc0/carrier)\" = 1 ]"
  guest "$ip addr replace $guest4/24 dev vsc0; $ip link set vsc0 up"
}

pings() {
  guest "ping -q -A -c 5 -W 5 $far4; ping -q -A -c 5 -W 5 -s 1400 $far4" >"$scratch/$guest.pings"
  cat "$scratch/$guest.pings"
  (($(grep -c ' 5 packets received' "$scratch/$guest.pings") == 2))
}

joins_the_network() {
  far "$ip addr add $far4/24 dev vsp0; $ip link set vsp0 up"
  guest "$ip link set lo up"
  start_tap
  interface_up
  pings
  guest 'vsc-network info --stats /tmp/tap.stats' >&3
}

# A web server at each end, and a file for the other one.
carries_files() {
  guest 'dd if=/dev/urandom of=/tmp/file bs=1M count=4; httpd -p 80 -h /tmp; sha256sum </tmp/file' >"$scratch/$guest.sum"
  far 'dd if=/dev/urandom of=file bs=1M count=4; httpd -p 80 -h .; sha256sum <file' >"$scratch/$guest.far-sum"
  fetches_files
}

fetches_files() {
  guest_seconds=120 guest "wget -q -O - http://$far4/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
  guest_seconds=120 far "wget -q -O - http://$guest4/file | sha256sum" | cmp - "$scratch/$guest.sum"
}

# The driver waits for its device, and drives it again.
network_comes_back() {
  guest_background floods ping -q -A -s 1400 "$far4"
  guest "usleep 500000; echo $nic >$bus/drivers/hv_uservsc/unbind"
  guest "until grep 'waiting for $nic' /tmp/tap.log; do sleep 0.1; done"
  bind "$nic"
  interface_up
  pings
  host_does 'nic 0 rescind'
  wait_for 20 guest "[ \$(grep -c 'waiting for $nic' /tmp/tap.log) = 2 ]"
  wait_for 20 guest "[ ! -e $bus/devices/$nic ]"
  host_does 'nic 0 offer'
  wait_for 20 shows "$nic" kernel_driver '^hv_netvsc$'
  bind "$nic"
  interface_up
  pings
  fetches_files
  guest_end floods KILL
}

network_is_killed_and_starts() {
  local round
  for round in 1 2 3; do
    guest_end tap KILL
    start_tap
    interface_up
    pings
  done
  fetches_files
  [[ $(guest_end tap) == 0 ]]
  nothing_is_left "$nic"
}

# --- Checks: the end -------------------------------------------------------------------------------

# What ours has written is what the kernel's driver reads.
gives_them_back() {
  local name
  give_back "$disk"
  give_back "$nic"
  wait_for 20 guest "ls -d $bus/devices/$disk/host*/target*/*/block/sd*"
  name=$(guest "cd $bus/devices/$disk/host*/target*/*/block; echo sd*")
  guest_seconds=120 guest "dd if=/dev/$name bs=1M skip=1 count=8 iflag=direct | cmp - /tmp/random
    dd if=/tmp/random of=/dev/$name bs=64k oflag=direct; dd if=/dev/$name bs=64k count=128 iflag=direct | cmp - /tmp/random"
  wait_for 20 guest "ls -d $bus/devices/$nic/net/*"
  name=$(guest "cd $bus/devices/$nic/net; echo *")
  guest "$ip addr add $guest4/24 dev $name; $ip link set $name up"
  pings
  fetches_files
  guest 'rmmod hv_uservsc'
}

says_nothing() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG|\] WARNING: |Oops:|hostile|malformed|hung task|blocked for more|are lost|hv_uservsc.*(error|fail)' \
    "$bed_logs/$guest.dmesg"
}

# Data of our drivers is where the offer says; Linux's, at the end, is bounced.
nobody_touched_another_page() {
  grep -o 'visibility: .*' "$bed_logs/$guest.host" | tee "$scratch/$guest.summaries"
  ! kind bs ring all || fails grep -vE 'visibility: 0 violations' "$scratch/$guest.summaries"
  if kind all; then
    grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries" >&3
  else
    fails grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries"
  fi
}

check 'boots' 300 guest_boots
check 'vmbusctl: no module' 120 tells_of_no_module
check 'bound as vmbusctl says' 120 tells_what_to_do
check 'vmbusctl: bound' 120 tells_the_truth
check 'reads and writes' 300 reads_and_writes
check 'under load' 120 carries_load
check 'a second driver' 120 is_in_use
check 'kill -9 and start again' $((180 + kills * 20)) is_killed_and_starts
check 'unbound under load' 200 is_unbound_under_load
check 'rescinded under load' 200 is_rescinded_under_load
check 'joins the network' 200 joins_the_network
check 'files both ways' 200 carries_files
check 'network taken away and given back' 300 network_comes_back
check 'network killed and started' 200 network_is_killed_and_starts
check "Linux's drivers take them back" 300 gives_them_back
check 'the log has nothing bad' 120 says_nothing
check 'powers off' 180 powers_off
check 'nobody touched another page' 30 nobody_touched_another_page
