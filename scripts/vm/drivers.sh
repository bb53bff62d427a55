# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The drivers of this package in guests of vmbus-vm: the machines, and the checks of disk and network that hold
# whichever of the kernel's drivers gives them to user space. A warning of the kernel is a panic.
#
# The guests' names end with the kind of machine: voff is not isolated, vbs is; vring and vall are confidential,
# with a host that is the paravisor itself: an encrypted ring, and encrypted data too.
#
# Sourced after bed.sh by the parts, which define: bind DEVICE and give_back DEVICE; node DEVICE, which prints its
# path in /dev; nothing_is_left DEVICE, when no driver runs; signals_by_monitor; add_drivers, for
# bed_images; and what follows here where theirs is another one.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/far.sh
. scripts/vm/far.sh

bed_products=(vmbusctl vsc-storage vsc-network)
bed_packages=(iproute2)
bed_channels=(commands far)
bed_outputs=(host machine)
# For the kernel's command line, and the machine; how often it is started; and a file in $scratch with a file system
# that is the guest's own, on a disk before the one that the checks are about.
guest_words='' guest_memory=384M guest_starts=1 guest_system=''
# Other devices, in the words of vmbus-host.
host_words=''

part_guests() { guests_of_kinds "$@"; }

bed_add_parts() {
  local name
  for name in "${kernels[@]}"; do bed_add_file "$bed_parts/kernels/$name/l1/tun.ko" "/modules/$name.tun.ko"; done
  bed_add_program "$ip"
  bed_add_program "$ip" l1
  add_drivers
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
  local shell=/bin/sh apart='unshare -n' isolation=off memory='' options='' disks='' copy=''
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH"
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  # In a confidential machine Linux signals through the monitor page or not at all: the host looks.
  ! signals_by_monitor || options=--monitors
  case $guest in
    *vbs) isolation=vbs ;;
    # Linux's own drivers bounce their data in either machine.
    *vring) isolation=vbs-confidential memory=,memory=ring options+=' --poll-rings' ;;
    *vall) isolation=vbs-confidential memory=,memory=all options+=' --poll-rings --accept-shared-data' ;;
  esac
  disks="--disk disk.img,controller=0$memory"
  if [[ -n $guest_system ]]; then
    disks="--disk /dev/vda,controller=0 --disk disk.img,controller=1$memory"
    if [[ $1 == file ]]; then
      copy="cp --sparse=always $scratch/$guest_system system.img"
      disks=${disks/\/dev\/vda/system.img}
    fi
  fi
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
truncate -s 32M disk.img
$copy
vmbus-host --socket host.sock --control control --workers $(processors) --subchannels 2 \
  $disks --nic tap=vsp0,queues=2$memory $host_words $options --verbose 2>$2/$guest.host &
host=\$!
until [ -S host.sock ] && [ -p control ]; do sleep 0.1; done
. $answers
mkdir far
(answer_commands far $far) &
for start in \$(seq $guest_starts); do
  echo "start \$start" >&2
  status=0
  vmbus-vm --isolation $isolation --kernel $3/${guest%x*} --initrd $3/initrd --memory $guest_memory --cpus $(processors) \
    --append "quiet panic=-1 $(panics) $guest_words bed_kernel=${guest%x*} bed_commands=ttyS0" --host host.sock \
    --verbose || status=\$?
  [ \$status = 0 ] || break
done $commands 2>$2/$guest.machine
# The host has the last word when its guest is gone.
sleep 1
kill \$host
exit \$status
END
}

# Linux warns once, and does not signal, in a confidential machine without monitor pages.
warns() { kind ring all && ! signals_by_monitor; }

panics() { warns || say panic_on_warn=1; }

# starts NUMBER: the machine is started for that time.
starts() { grep -aqx "start $1" "$bed_logs/$guest.machine"; }

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

# ends NAME: what a program in the background has ended with, when it has ended by itself.
ends() {
  guest_seconds=40 guest "until [ -s /tmp/$1.status ]; do sleep 0.1; done; cat /tmp/$1.log >&2; cat /tmp/$1.status
    rm /tmp/$1.pid /tmp/$1.status"
}

# Who sees what, in vmbusctl's words.
ring_memory() { if kind ring all; then say encrypted; else say host-visible; fi; }
data_memory() { if kind all; then say encrypted; else say host-visible; fi; }

# --- Checks: storage -------------------------------------------------------------------------------

reads_and_writes() {
  local report
  report=$(guest vsc-storage info --json)
  say "$report"
  [[ $(jq -r .transport <<<"$report") == "$(node "$disk")" ]]
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
  [ ! -e /tmp/read ] || cmp -n \$(stat -c %s /tmp/read) /tmp/read /tmp/random || exit 99
  [ \$status = 0 ] || exit \$status
  echo read
done
SCRIPT"
  guest_background load sh /tmp/load.sh
  guest 'until grep read /tmp/load.log; do [ ! -s /tmp/load.status ] || { cat /tmp/load.log; exit 1; }; sleep 0.1; done'
}

is_in_use() {
  guest_background bench vsc-storage bench --pattern randread --time 1000
  wait_for 60 shows "$disk" status "^not usable: $(node "$disk") is in use by process [0-9]+\$"
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
      until grep -q \"FLOCK .* \$pid \" /proc/locks; do
        kill -0 \$pid || { echo \"kill \$number:\"; cat /tmp/kill.log; exit 1; } >&2
        usleep 20000
      done
      # While it opens, or when it reads already.
      usleep \$((number * 791930 % 3000000))
      kill -9 \$pid
      wait \$pid || true
    done
    vsc-storage read --offset 1M --count 8M | cmp - /tmp/random"
  nothing_is_left "$disk"
  say "$kills times" >&3
}

is_rescinded_under_load() {
  load
  host_does 'controller 0 rescind'
  [[ $(ends load) == 69 ]]
  wait_for 20 guest "[ ! -e $bus/devices/$disk ]"
  host_does 'controller 0 offer'
  # Nobody has said that it is the module's.
  wait_for 60 shows "$disk" kernel_driver '^hv_storvsc$'
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
network_is_rescinded_under_load() {
  local waits
  guest_background floods ping -q -A -s 1400 "$far4"
  waits=$(guest "grep -c 'waiting for $nic' /tmp/tap.log || true")
  host_does 'nic 0 rescind'
  wait_for 20 guest "[ \$(grep -c 'waiting for $nic' /tmp/tap.log) = $((waits + 1)) ]"
  wait_for 20 guest "[ ! -e $bus/devices/$nic ]"
  host_does 'nic 0 offer'
  wait_for 60 shows "$nic" kernel_driver '^hv_netvsc$'
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
}

says_nothing() {
  local warnings=0
  # Our module is nobody's whom Debian has signed for.
  guest 'dmesg | gzip' | gzip -d | sed '/module verification failed/d' >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|pagealloc|Oops:|hostile|malformed|hung task|blocked for more|are lost|hv_uservsc.*(error|fail)' \
    "$bed_logs/$guest.dmesg"
  ! warns || warnings=1
  (($(grep -c '\] WARNING: ' "$bed_logs/$guest.dmesg") == warnings))
  ((warnings == 0)) || grep -E '\] WARNING: .*(connection\.c|vmbus_set_event)' "$bed_logs/$guest.dmesg"
}

# Data of our drivers is where the offer says; Linux's, at the end, is bounced.
nobody_touched_another_page() {
  # Where everything is visible nothing is counted.
  ! kind off || return 0
  grep -o 'visibility: .*' "$bed_logs/$guest.host" | tee "$scratch/$guest.summaries"
  fails grep -vE 'visibility: 0 violations' "$scratch/$guest.summaries"
  if kind all; then
    grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries" >&3
  else
    fails grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries"
  fi
}
