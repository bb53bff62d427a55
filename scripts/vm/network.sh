# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux's own network driver as the client of the simulated host. The host's end is a TAP device in a
# network namespace of the machine that runs the host: `far` runs a command there, in the host's
# directory, through the channel GUEST.far. Sourced after bed.sh; the checks that follow one another
# are at the end of scripts/vm/network-changes.sh.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/far.sh
. scripts/vm/far.sh

bed_host_products+=(vsc-network)
bed_packages=(ethtool iproute2)
bed_channels=(commands far)
bed_outputs=(host machine pcapng)

# By their paths, since busybox's shell prefers its own.
ethtool=$(realpath -m /sbin/ethtool)

bed_add_parts() {
  local name
  for name in "${kernels[@]}"; do cp -r "$bed_parts/kernels/$name/vlan" "$l2/modules/$name-vlan"; done
  cp -r "$bed_parts/kernels/6.12/vlan" "$l1/modules/"
  bed_add_program "$ip"
  bed_add_program "$ip" l1
  bed_add_program "$ethtool"
}

# The second guest finds the TAP device taken.
bed_asked_for='guest 2 has no network, its link stays down'

# The same as far.sh's, in IPv6.
guest6=2001:db8::2 far6=2001:db8::1

# guest_script KIND DIRECTORY FILES: prints what starts the guest's host and machine. A port has one
# end for both directions, and can be opened once.
guest_script() {
  local commands="<>$2/$guest.commands >&0" far="<>$2/$guest.far >&0" path='' monitors=''
  local answers=/answers.sh shell=/bin/sh apart='unshare -n'
  # One of the kernels signals through the monitor page, the other one by hypercall.
  [[ $guest == 6.12* ]] || monitors=--monitors
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    far="<$scratch/$guest.far >>$2/$guest.far"
    path="PATH=$programs:\$PATH"
    answers=$root/scripts/vm/answers.sh shell="$bed_parts/busybox sh" apart='unshare -rn'
  fi
  cat <<END
[ "\$1" = apart ] || exec $apart $shell "\$0" apart
$path
cd "\$(mktemp -d)"
$ip link set lo up
vmbus-host --socket host.sock --control control --workers ${guest#*x} --verbose $monitors \
  --nic tap=vsp0,queues=4,mtu=9000 --nic switch,speed=2500 ${bed_capture:+--capture capture} 2>$2/$guest.host &
host=\$!
until [ -S host.sock ] && [ -p control ]; do sleep 0.1; done
. $answers
mkdir far
export kernel=$3/${guest%x*} initrd=$3/initrd
(answer_commands far $far) &
vmbus-vm --kernel $3/${guest%x*} --initrd $3/initrd --memory 320M --cpus ${guest#*x} \
  --append "quiet panic=-1 bed_kernel=${guest%x*} bed_commands=ttyS0" --host host.sock \
  $commands 2>$2/$guest.machine
status=\$?
kill \$host
[ ! -e capture ] || cat capture >$2/$guest.pcapng
exit \$status
END
}

# host_does LINE: a command for the host's control pipe.
host_does() { far "echo '$1' >control"; }

# --- What the ends say -----------------------------------------------------------------------------

# nic NUMBER: the interface's name in the guest; fails as long as there is none.
nic() { guest "cd /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e000$1/net && ls -d *"; }

# link NAME JQ: something of what ip says of an interface of the guest's.
link() { guest "$ip -j -s link show $1" | jq -e ".[0] | $2"; }
far_link() { far "$ip -j -s link show $1" | jq -e ".[0] | $2"; }

# counters NUMBER: what the host counted for the guest's device, in $scratch/$guest.counters.
counters() {
  far "rm -f counters; echo 'nic $1 counters counters' >control
    until [ -s counters ]; do sleep 0.05; done; cat counters" >"$scratch/$guest.counters"
}

# counted NAME: the sum of a counter over all queues, after `counters`.
counted() { jq "[.[0].queues[].counters.$1] | add" "$scratch/$guest.counters"; }

# --- Checks ----------------------------------------------------------------------------------------

has_its_nics() {
  local name feature
  wait_for 30 nic 1
  name=$(nic 0)
  guest "$ip -j -d link show $name; $ethtool -i $name; $ethtool $name; $ethtool -k $name" |
    tee "$scratch/$guest.about"
  grep -x 'driver: hv_netvsc' "$scratch/$guest.about"
  grep -x '[[:space:]]*Speed: 10000Mb/s' "$scratch/$guest.about"
  # What the host offers; Linux turns all of it on, and takes tags beside the frame.
  for feature in rx-checksumming tx-checksum-ipv4 tx-checksum-ipv6 tx-tcp-segmentation \
    tx-tcp6-segmentation large-receive-offload rx-vlan-offload tx-vlan-offload; do
    grep -E "^[[:space:]]*$feature: on( |$)" "$scratch/$guest.about"
  done
  [[ $(link "$name" .address) == '"00:15:5d:c0:00:01"' ]]
  [[ $(link "$(nic 1)" .address) == '"00:15:5d:c0:01:01"' ]]
  [[ $(link "$name" .mtu) == 1500 ]]
  say "$name" >"$scratch/$guest.nic"
}

# The first interface with its addresses, wherever it has come from, as soon as it is up.
addresses() {
  wait_for 20 nic 0
  nic 0 >"$scratch/$guest.nic"
  guest "$ip link set lo up; $ip addr add $guest4/24 dev $(<"$scratch/$guest.nic")
    $ip addr add $guest6/64 dev $(<"$scratch/$guest.nic") nodad
    $ip link set $(<"$scratch/$guest.nic") up"
  wait_for 20 link "$(<"$scratch/$guest.nic")" '.operstate == "UP"'
}

goes_up() {
  far "$ip addr add $far4/24 dev vsp0; $ip addr add $far6/64 dev vsp0 nodad; $ip link set vsp0 mtu 1500 up"
  addresses
}

# pings ADDRESS [OPTION...]: from the guest, none lost.
pings() {
  guest "ping -q -A -c 5 -W 5 ${*:2} $1" | tee "$scratch/$guest.ping"
  grep -q ' 5 packets received' "$scratch/$guest.ping"
  sed -nE 's|.*min/avg/max = [^/]*/([^/]*)/.*|mean \1 ms|p' "$scratch/$guest.ping" >&3
}

pings_over_4_and_6() {
  pings "$far4"
  pings "$far6"
  pings "$far4" -s 1400
  # Fragments.
  pings "$far4" -s 8000
  # From the other end.
  far "ping -q -A -c 3 $guest4" | grep ' 3 packets received'
}

# The same bytes, from a web server at one end to the other end: a file of so many MiB.
size=2
serve() {
  guest "[ -s /tmp/file ] || dd if=/dev/urandom of=/tmp/file bs=1M count=$size
    [ -s /tmp/httpd ] || { httpd -p 80 -h /tmp && echo yes >/tmp/httpd; }; sha256sum </tmp/file" >"$scratch/$guest.sum"
  far "[ -s httpd ] || { dd if=/dev/urandom of=file bs=1M count=$size && httpd -p 80 -h . && echo yes >httpd; }
    sha256sum <file" >"$scratch/$guest.far-sum"
}

fetches() {
  serve
  guest_seconds=60 guest "time wget -q -O - http://$far4/file | sha256sum" 2>"$scratch/$guest.time" |
    cmp - "$scratch/$guest.far-sum"
  say "to the guest $(rate)" >&3
  guest_seconds=60 far "time wget -q -O - http://$guest4/file | sha256sum" 2>"$scratch/$guest.time" |
    cmp - "$scratch/$guest.sum"
  say "to the host $(rate)" >&3
}

rate() { awk -v size=$size '/real/ { sub("0m", "", $3); printf "%.1f MiB/s", size / ($3 + 0.001) }' "$scratch/$guest.time"; }

fetches_over_6() {
  guest_seconds=60 guest "wget -q -O - 'http://[$far6]/file' | sha256sum" | cmp - "$scratch/$guest.far-sum"
  guest_seconds=60 far "wget -q -O - 'http://[$guest6]/file' | sha256sum" | cmp - "$scratch/$guest.sum"
}

# --- Queues ----------------------------------------------------------------------------------------

# As many as processors, and a table that spreads what is received over all of them.
has_queues() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "ls -d /sys/class/net/$name/device/channels/*" | wc -l | grep -x "${guest#*x}"
  guest "$ethtool -x $name" >"$scratch/$guest.rss"
  cat "$scratch/$guest.rss"
  guest "$ethtool -n $name rx-flow-hash tcp4"
  grep -E '^ +[0-9]+:' "$scratch/$guest.rss" | sed 's/.*://' | xargs -n 1 | sort | uniq -c >"$scratch/$guest.spread"
  (($(wc -l <"$scratch/$guest.spread") == ${guest#*x}))
  say "$(awk '{ print $1 " of queue " $2 }' "$scratch/$guest.spread" | paste -sd ,)" >&3
}

# Several flows, each way, none of which may fail.
flows() {
  local script
  script="for flow in 1 2 3 4 5 6; do
      wget -q -O - http://ADDRESS/small >small.\$flow & pids=\"\$pids \$!\"
    done
    for pid in \$pids; do wait \$pid; done
    for flow in 1 2 3 4 5 6; do cmp small.\$flow small.sent; done"
  guest_seconds=60 guest "cd /tmp; ${script//ADDRESS/$far4}"
  guest_seconds=60 far "${script//ADDRESS/$guest4}"
}

spreads_flows() {
  # The same at both ends.
  guest "head -c 300000 /tmp/file >/tmp/small; cp /tmp/small /tmp/small.sent"
  far "wget -q -O small http://$guest4/small; cp small small.sent"
  flows
  wait_for 30 both_count_the_same 0
  cat "$scratch/$guest.here"
  say "$(paste -sd ' ' "$scratch/$guest.here")" >&3
  [[ $(jq '[.[0].queues[].counters.framesToGuest | select(. > 20)] | length' "$scratch/$guest.counters") == "${guest#*x}" ]]
}

# both_count_the_same NUMBER: frames and bytes each way, of each queue by ethtool and of all by ip;
# and the host has nothing to find fault with, and all its pieces of the receive buffer again.
both_count_the_same() {
  local name
  name=$(nic "$1")
  counters "$1"
  jq -r '
    def carried: "\(.framesFromGuest)/\(.bytesFromGuest) \(.framesToGuest)/\(.bytesToGuest)";
    .[0].queues | map(.counters) | to_entries[] | "\(.key): \(.value | carried)"
  ' "$scratch/$guest.counters" >"$scratch/$guest.there"
  jq -r '[.[0].queues[].counters] | "all: " + ([
      "framesFromGuest", "bytesFromGuest", "framesToGuest", "bytesToGuest"
    ] as $names | [.[] as $queue | $names | map($queue[.])] | transpose | map(add | tostring) | join(" "))
  ' "$scratch/$guest.counters" >>"$scratch/$guest.there"
  guest "$ethtool -S $name; $ip -j -s link show $name" >"$scratch/$guest.said"
  grep -v '^\[' "$scratch/$guest.said" | tr -d : | awk '
    match($1, /^[rt]x_queue_[0-9]+_(packets|bytes)$/) {
      split($1, part, "_"); count[part[1] part[4] part[3]] = $2
      if (part[3] + 1 > queues) queues = part[3] + 1
    }
    END { for (i = 0; i < queues; i++)
      print i ": " count["txpackets" i] "/" count["txbytes" i] " " count["rxpackets" i] "/" count["rxbytes" i] }
  ' >"$scratch/$guest.here"
  grep '^\[' "$scratch/$guest.said" | jq -r '.[0].stats64 |
    "all: \(.tx.packets) \(.tx.bytes) \(.rx.packets) \(.rx.bytes)"' >>"$scratch/$guest.here"
  diff "$scratch/$guest.here" "$scratch/$guest.there" &&
    jq -e '.[0].errors == 0' "$scratch/$guest.counters" &&
    (($(counted unknownCompletions) == 0 && $(counted buffersWithGuest) == 0))
}

# queue_count NUMBER: frames to the guest on that queue, after `counters`.
queue_count() { jq ".[0].queues[$1].counters.framesToGuest" "$scratch/$guest.counters"; }

# The guest wants all on one queue, and the host obeys.
obeys_the_table() {
  local name first other
  name=$(<"$scratch/$guest.nic")
  guest "$ethtool -X $name equal 1; $ethtool -x $name" | grep -E '^ +[0-9]+:' | sed 's/.*://' |
    xargs -n 1 | sort -u | grep -x 0
  counters 0
  first=$(queue_count 0) other=$(queue_count 1)
  flows
  counters 0
  first=$(($(queue_count 0) - first)) other=$(($(queue_count 1) - other))
  say "$first frames on its queue, $other on the other" >&3
  ((first > 100 && other < 5))
  guest "$ethtool -X $name equal ${guest#*x}"
}

# The guest closes its channels and opens fewer of them, then all again.
fewer_queues() {
  local name
  name=$(<"$scratch/$guest.nic")
  # A table of somebody's own must fit first.
  guest "$ethtool -X $name equal 1 && $ethtool -L $name combined 1"
  wait_for 20 link "$name" '.operstate == "UP"'
  flows
  counters 0
  jq -e '.[0].queues | length == 1' "$scratch/$guest.counters"
  guest "$ethtool -L $name combined ${guest#*x} && $ethtool -X $name equal ${guest#*x}"
  wait_for 20 link "$name" '.operstate == "UP"'
  flows
  wait_for 30 both_count_the_same 0
}

# --- Frames ----------------------------------------------------------------------------------------

# changes_mtu BYTES: at both ends; the guest closes its channels, and starts all over.
changes_mtu() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set $name mtu $1"
  far "$ip link set vsp0 mtu $1"
  [[ $(link "$name" .mtu) == "$1" ]]
  wait_for 20 link "$name" '.operstate == "UP"'
}

large_frames() {
  local sent
  changes_mtu 9000
  counters 0
  sent=$(counted framesFromGuest)
  # One frame each: with fragments it would be seven.
  pings "$far4" -s 8972
  counters 0
  sent=$(($(counted framesFromGuest) - sent))
  say "$sent frames" >&3
  ((sent >= 5 && sent < 15))
  fetches
  wait_for 30 both_count_the_same 0
  changes_mtu 1500
  pings "$far4" -s 1400
}

# The guest's buffers are new ones each time: soon no page of them lies behind the one before it.
other_buffers() {
  local mtu
  for mtu in 4000 1500 2000 1500; do changes_mtu $mtu; done
  flows
  wait_for 30 both_count_the_same 0
}

# sends_large: how many frames of several segments the guest sends while it sends a file.
sends_large() {
  local before
  counters 0
  before=$(counted largeFromGuest)
  guest_seconds=60 far "wget -q -O - http://$guest4/file | sha256sum" | cmp - "$scratch/$guest.sum" >&2
  counters 0
  say $(($(counted largeFromGuest) - before))
}

receives_large() {
  local before
  counters 0
  before=$(counted largeToGuest)
  guest_seconds=60 guest "wget -q -O - http://$far4/file | sha256sum" | cmp - "$scratch/$guest.far-sum" >&2
  counters 0
  say $(($(counted largeToGuest) - before))
}

offloads() {
  local name with without
  name=$(<"$scratch/$guest.nic")
  with=$(sends_large)
  guest "$ethtool -K $name tso off"
  without=$(sends_large)
  say "large sends: $with, with TSO off $without" >&3
  ((with > 20 && without == 0))
  # With sums of its own, then again by the host.
  guest "$ethtool -K $name tx off rx off
    $ethtool -k $name | grep -x 'rx-checksumming: off'; $ethtool -k $name | grep -x 'tx-checksumming: off'"
  [[ $(sends_large) == 0 ]]
  receives_large
  guest "$ethtool -K $name tx on rx on tso on"
  (($(sends_large) > 20))
  guest "$ethtool -K $name lro off"
  without=$(receives_large)
  guest "$ethtool -K $name lro on"
  with=$(receives_large)
  say "large receives: $with, with LRO off $without" >&3
  ((with > 20 && without == 0))
}

# The guest's filter, as the host has it: directed, all multicast and broadcast.
filters() {
  local name
  name=$(<"$scratch/$guest.nic")
  wait_for 10 filter_is 13
  guest "$ip link set $name promisc on"
  wait_for 10 filter_is 32
  guest "$ip link set $name promisc off"
  wait_for 10 filter_is 13
}

filter_is() {
  counters 0
  jq -e ".[0].filter == $1" "$scratch/$guest.counters"
}

# Linux changes it only while the interface is down.
changes_its_address() {
  has_address 02:00:00:00:00:77
  has_address 00:15:5d:c0:00:01
}

has_address() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set $name down; $ip link set $name address $1; $ip link set $name up"
  # IPv6 addresses go with the link.
  guest "$ip addr add $guest6/64 dev $name nodad"
  wait_for 20 link "$name" '.operstate == "UP"'
  pings "$far4"
  far "$ip neigh show $guest4" | grep -F "$1"
}

# shellcheck source=scripts/vm/network-changes.sh
. scripts/vm/network-changes.sh
