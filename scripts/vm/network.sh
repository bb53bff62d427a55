# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux's own network driver as the client of the simulated host. The host's end is a TAP device in a
# network namespace of the machine that runs the host: `far` runs a command there, in the host's
# directory, through the channel GUEST.far. Sourced after bed.sh.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh

bed_host_products+=(vsc-network)
bed_packages=(ethtool iproute2)
bed_channels=(commands far)
bed_outputs=(host machine pcapng)

# By their paths, since busybox's shell prefers its own.
ip=$(realpath "$(PATH=$PATH:/sbin type -P ip)") ethtool=$(realpath "$(PATH=$PATH:/sbin type -P ethtool)")

bed_add_parts() {
  bed_add_program "$ip"
  bed_add_program "$ip" l1
  bed_add_program "$ethtool"
}

# Addresses of the guest's interface and of the host's.
guest4=192.0.2.2 far4=192.0.2.1 guest6=2001:db8::2 far6=2001:db8::1

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

# far COMMAND...: as guest, at the host's end.
far() { run_by far "$@"; }

# host_does LINE: a command for the host's control pipe.
host_does() { far "echo '$1' >control"; }

# --- What the ends say -----------------------------------------------------------------------------

# nic NUMBER: the interface's name in the guest.
nic() { guest "ls /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e000$1/net 2>/dev/null"; }

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

fails() { if "$@"; then return 1; fi; }

# --- Checks ----------------------------------------------------------------------------------------

has_its_nics() {
  local name
  wait_for 30 nic 1
  name=$(nic 0)
  guest "$ip -j -d link show $name; $ethtool -i $name; $ethtool $name; $ethtool -k $name; dmesg | grep -i hv_netvsc"
  [[ $(link "$name" .address) == '"00:15:5d:c0:00:01"' ]]
  [[ $(link "$(nic 1)" .address) == '"00:15:5d:c0:01:01"' ]]
  [[ $(link "$name" .mtu) == 1500 ]]
  say "$name" >"$scratch/$guest.nic"
}

addresses() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set lo up; $ip addr add $guest4/24 dev $name
    $ip addr add $guest6/64 dev $name nodad; $ip link set $name up"
}

goes_up() {
  addresses
  far "$ip addr add $far4/24 dev vsp0; $ip addr add $far6/64 dev vsp0 nodad; $ip link set vsp0 mtu 1500 up"
  wait_for 20 link "$(<"$scratch/$guest.nic")" '.operstate == "UP"'
  guest "cat /sys/class/net/$(<"$scratch/$guest.nic")/speed" >&3
}

# pings ADDRESS [OPTION...]: from the guest, none lost.
pings() {
  guest "ping -q -c 5 -W 5 ${*:2} $1" | tee "$scratch/$guest.ping"
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
  far "ping -q -c 3 $guest4" | grep ' 3 packets received'
}

# The same bytes, from a web server at one end to the other end: a file of so many MiB.
size=4
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

# Several flows, each way; then each queue's numbers are the same at both ends.
flows() {
  guest_seconds=60 guest "for flow in 1 2 3 4 5 6; do wget -q -O /dev/null http://$far4/small & done; wait"
  guest_seconds=60 far "for flow in 1 2 3 4 5 6; do wget -q -O /dev/null http://$guest4/small & done; wait"
}

spreads_flows() {
  guest "head -c 300000 /tmp/file >/tmp/small"
  far "head -c 300000 file >small"
  flows
  wait_for 30 both_count_the_same 0
  cat "$scratch/$guest.here"
  say "$(paste -sd ' ' "$scratch/$guest.here")" >&3
  [[ $(jq '[.[0].queues[].counters.framesToGuest | select(. > 20)] | length' "$scratch/$guest.counters") == "${guest#*x}" ]]
}

# both_count_the_same NUMBER: frames and bytes of each queue, each way.
both_count_the_same() {
  counters "$1"
  jq -r '.[0].queues[] | "\(.queue): \(.counters | "\(.framesFromGuest)/\(.bytesFromGuest) \(.framesToGuest)/\(.bytesToGuest)")"' \
    "$scratch/$guest.counters" >"$scratch/$guest.there"
  guest "$ethtool -S $(nic "$1")" | tr -d : | awk '
    match($1, /^[rt]x_queue_[0-9]+_(packets|bytes)$/) {
      split($1, part, "_"); count[part[1] part[4] part[3]] = $2
      if (part[3] + 1 > queues) queues = part[3] + 1
    }
    END { for (i = 0; i < queues; i++)
      print i ": " count["txpackets" i] "/" count["txbytes" i] " " count["rxpackets" i] "/" count["rxbytes" i] }
  ' >"$scratch/$guest.here"
  diff "$scratch/$guest.here" "$scratch/$guest.there"
}

# The guest wants all on one queue, and the host obeys.
obeys_the_table() {
  local name before after
  name=$(<"$scratch/$guest.nic")
  guest "$ethtool -X $name equal 1"
  counters 0
  before=$(jq '.[0].queues[1].counters.framesToGuest' "$scratch/$guest.counters")
  flows
  counters 0
  after=$(jq '.[0].queues[1].counters.framesToGuest' "$scratch/$guest.counters")
  say "$((after - before)) frames on the other queue" >&3
  ((after - before < 5))
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

large_frames() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set $name mtu 9000"
  far "$ip link set vsp0 mtu 9000"
  wait_for 20 link "$name" '.operstate == "UP"'
  counters 0
  local before
  before=$(counted framesFromGuest)
  # One frame each: with fragments it would be seven.
  pings "$far4" -s 8972
  counters 0
  (($(counted framesFromGuest) - before < 15))
  fetches
  wait_for 30 both_count_the_same 0
  far "$ip link set vsp0 mtu 1500"
  guest "$ip link set $name mtu 1500"
  wait_for 20 link "$name" '.operstate == "UP"'
  pings "$far4" -s 1400
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
  guest "$ethtool -K $name tx off rx off; $ethtool -k $name | grep -E '^(rx|tx)-checksumming'"
  [[ $(sends_large) == 0 ]]
  receives_large
  guest "$ethtool -K $name tx on rx on tso on"
  (($(sends_large) > 20))
  guest "$ethtool -K $name lro off"
  without=$(receives_large)
  guest "$ethtool -K $name lro on"
  with=$(receives_large)
  say "large receives: $with, with LRO off $without" >&3
  ((with > 0))
}

# The guest's filter and address, as the host has them.
filters() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set $name promisc on"
  wait_for 10 filter_has 32
  guest "$ip link set $name promisc off"
  wait_for 10 fails filter_has 32
  say "$(jq '.[0].filter' "$scratch/$guest.counters")" >&3
}

filter_has() {
  counters 0
  (($(jq '.[0].filter' "$scratch/$guest.counters") & $1))
}

changes_its_address() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "$ip link set $name address 02:00:00:00:00:77"
  pings "$far4"
  counters 0
  far "$ip neigh show $guest4" | grep 02:00:00:00:00:77
  guest "$ip link set $name address 00:15:5d:c0:00:01"
  pings "$far4"
}

# --- What comes and goes ---------------------------------------------------------------------------

carrier() { [[ $(guest "cat /sys/class/net/$(<"$scratch/$guest.nic")/carrier") == "$1" ]]; }

link_down_and_up() {
  host_does 'nic 0 link=down'
  wait_for 20 carrier 0
  guest "! ping -q -c 1 -W 1 $far4"
  host_does 'nic 0 link=up'
  wait_for 20 carrier 1
  pings "$far4"
}

gone() { [[ -z $(guest "ls -d /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e000$1" 2>/dev/null) ]]; }

taken_back_and_offered() {
  host_does 'nic 0 rescind'
  wait_for 20 gone 0
  host_does 'nic 0 offer'
  wait_for 20 nic 0
  nic 0 >"$scratch/$guest.nic"
  addresses
  wait_for 20 link "$(<"$scratch/$guest.nic")" '.operstate == "UP"'
  pings "$far4"
  flows
  wait_for 30 both_count_the_same 0
}

loads_again() {
  guest "rmmod hv_netvsc; ! ls -d /sys/class/net/eth*"
  guest "insmod /modules/${guest%x*}/hv_netvsc.ko"
  wait_for 20 nic 0
  nic 0 >"$scratch/$guest.nic"
  addresses
  wait_for 20 link "$(<"$scratch/$guest.nic")" '.operstate == "UP"'
  pings "$far4"
  flows
  wait_for 30 both_count_the_same 0
}

# --- Over the switch -------------------------------------------------------------------------------

# Our driver is the second guest of the switch, in a namespace of its own.
talks_over_the_switch() {
  local name
  name=$(nic 1)
  guest "$ip addr add 198.51.100.2/24 dev $name; $ip link set $name up"
  far "unshare -n sh -c '
    vsc-network tap --host host.sock --device 5d15c000-0000-4000-8000-0000000e0001 --name vsc0 >tap.log 2>&1 &
    until $ip addr add 198.51.100.1/24 dev vsc0; do sleep 0.1; done
    $ip link set vsc0 up
    httpd -p 80 -h .
    ping -q -c 5 -W 5 198.51.100.2; ping -q -c 5 198.51.100.2
    sleep 40' >peer.log 2>&1 &"
  wait_for 20 guest "ping -q -c 1 -W 2 198.51.100.1"
  pings 198.51.100.1
  guest_seconds=60 guest "wget -q -O - http://198.51.100.1/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
  far 'cat peer.log tap.log'
}

check 'boots' 150 guest_boots
check 'connects' 40 connects
check 'network devices' 60 has_its_nics
check 'link up' 40 goes_up
check 'ping' 90 pings_over_4_and_6
check 'HTTP both ways' 200 fetches
check 'HTTP over IPv6' 200 fetches_over_6
check 'queues' 60 has_queues
check 'flows on all queues' 90 spreads_flows
check 'a table for one queue' 90 obeys_the_table
check 'one queue, and all again' 120 fewer_queues
check 'MTU 9000' 120 large_frames
check 'offloads on and off' 200 offloads
check 'the filter' 60 filters
check 'another address' 60 changes_its_address
check 'link down and up' 90 link_down_and_up
check 'rescinded and offered' 120 taken_back_and_offered
check 'unload and load' 120 loads_again
check 'over the switch' 120 talks_over_the_switch
check 'the log has nothing bad' 40 says_nothing_bad
check 'powers off' 90 powers_off
