# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# VLANs; links, devices and drivers that come and go; and the checks of Linux's network driver in their
# order. Sourced by network.sh.

# A VLAN of each end: between guest and host a tag travels beside its frame, and at the host's end it is in it.
guest_vlan=203.0.113.2 far_vlan=203.0.113.1
load_vlan="for module in \$(cat \$modules/order); do insmod \$modules/\$module.ko; done"

talks_in_a_vlan() {
  local name
  name=$(<"$scratch/$guest.nic")
  guest "modules=/modules/${guest%x*}-vlan; [ -e /proc/net/vlan ] || $load_vlan
    $ip link add link $name name vlan5 type vlan id 5; $ip addr add $guest_vlan/24 dev vlan5; $ip link set vlan5 up
    $ip link add link $name name vlan6 type vlan id 6; $ip addr add 198.18.0.2/24 dev vlan6; $ip link set vlan6 up"
  # Where that is this machine, it has what it needs.
  far "modules=/modules/vlan; [ ! -e \$modules ] || [ -e /proc/net/vlan ] || $load_vlan
    $ip link add link vsp0 name vlan5 type vlan id 5; $ip addr add $far_vlan/24 dev vlan5; $ip link set vlan5 up
    $ip addr add 198.18.0.1/24 dev vlan5"
  pings "$far_vlan"
  # With another number nobody is there.
  guest '! ping -q -c 1 -W 1 198.18.0.1'
  guest_seconds=60 guest "wget -q -O - http://$far_vlan/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
  guest_seconds=60 far "wget -q -O - http://$guest_vlan/file | sha256sum" | cmp - "$scratch/$guest.sum"
  far_link vlan5 .stats64 >"$scratch/$guest.vlan"
  jq -r '"\(.rx.packets) and \(.tx.packets) frames with the tag"' "$scratch/$guest.vlan" >&3
  jq -e ".rx.bytes > $size * 1000000 and .tx.bytes > $size * 1000000" "$scratch/$guest.vlan"
  guest "$ip link del vlan5; $ip link del vlan6"
  far "$ip link del vlan5"
  wait_for 30 both_count_the_same 0
}

carrier() { [[ $(guest "cat /sys/class/net/$(<"$scratch/$guest.nic")/carrier") == "$1" ]]; }

link_down_and_up() {
  host_does 'nic 0 link=down'
  wait_for 20 carrier 0
  guest "! ping -q -c 1 -W 1 $far4"
  host_does 'nic 0 link=up'
  wait_for 20 carrier 1
  pings "$far4"
}

# gone NUMBER: the guest has that device no more.
gone() { guest "[ ! -e /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e000$1 ]"; }

# Linux hears no answers any more once it has been told, and waits for ever for those to what it had
# sent: so nothing may be on its way.
taken_back_and_offered() {
  fails gone 0
  host_does 'nic 0 link=down'
  wait_for 20 carrier 0
  host_does 'nic 0 rescind'
  wait_for 20 gone 0
  host_does 'nic 0 offer'
  wait_for 20 nic 0
  guest "$ip link set $(nic 0) up"
  [[ $(guest "cat /sys/class/net/$(nic 0)/carrier") == 0 ]]
  host_does 'nic 0 link=up'
  carries_again
}

# received COUNT: whether the first interface has got more frames than that.
received() { link "$(nic 0)" ".stats64.rx.packets > $1"; }

# The host takes it back without a word while frames come. As above, the guest itself is silent.
taken_back_under_traffic() {
  local name before
  name=$(nic 0)
  guest 'echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all'
  before=$(link "$name" .stats64.rx.packets)
  far "$ip neigh replace $guest4 lladdr 00:15:5d:c0:00:01 dev vsp0 nud permanent
    for number in 1 2 3 4; do ping -q -i 0.01 -s 1400 $guest4 >/dev/null 2>&1 </dev/null & echo \$!; done >senders"
  wait_for 20 received $((before + 200))
  host_does 'nic 0 rescind'
  wait_for 30 gone 0
  guest "[ ! -e /sys/class/net/$name ]"
  # The other device goes on, and so do those that send.
  counters 1
  far "kill -0 \$(cat senders)"
  host_does 'nic 0 offer'
  addresses
  wait_for 20 received 200
  far "kill \$(cat senders); $ip neigh del $guest4 dev vsp0"
  guest 'echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_all'
  carries
}

loads_again() {
  guest "rmmod hv_netvsc; ! ls -d /sys/class/net/eth*"
  guest "insmod /modules/${guest%x*}/hv_netvsc.ko"
  carries_again
}

carries_again() {
  addresses
  carries
}

carries() {
  pings "$far4"
  flows
  wait_for 30 both_count_the_same 0
}

joins_the_switch() { guest "$ip addr replace 198.51.100.2/24 dev $(nic 1); $ip link set $(nic 1) up"; }

# second COMMAND...: as guest, in another Linux that has joined the same host.
second() {
  local token status out
  token=$(new_token)
  far "echo '$token 60 $(base64 -w 0 <<<"set -e; $*")' >second.in
    until grep '^$token .* end' second.out; do sleep 0.1; done" >"$scratch/$guest.second"
  read -r _ status out _ <"$scratch/$guest.second"
  base64 -d <<<"${out%.}"
  return "$status"
}

two_on_the_switch() {
  local lost name
  [[ $guest == 7x* ]] || { say 'with kernel 7 alone' >&3; return 0; }
  joins_the_switch
  far "mkfifo second.in
    vmbus-vm --kernel \$kernel --initrd \$initrd --memory 320M --host host.sock \
      --append 'quiet panic=-1 bed_kernel=${guest%x*} bed_commands=ttyS0' <>second.in >second.out 2>second.log &"
  guest_seconds=120 second uname -r
  name=$(second 'cd /sys/bus/vmbus/devices/5d15c000-0000-4000-8000-0000000e0001/net && ls -d *')
  second "$ip addr add 198.51.100.3/24 dev $name; $ip link set $name up
    head -c 1000000 /dev/urandom >/tmp/file; httpd -p 80 -h /tmp"
  wait_for 30 guest 'ping -q -c 1 -W 2 198.51.100.3'
  lost=$(lost_on_the_way)
  pings 198.51.100.3
  second 'wget -q -O - http://198.51.100.2/file | sha256sum' | cmp - "$scratch/$guest.sum"
  second 'sha256sum </tmp/file' >"$scratch/$guest.second-sum"
  guest 'wget -q -O - http://198.51.100.3/file | sha256sum' | cmp - "$scratch/$guest.second-sum"
  wait_for 30 lost_as_many "$lost"
  far "echo 'off 5 $(base64 -w 0 <<<'poweroff -f')' >second.in"
  wait_for 30 far '! pidof vmbus-vm | grep " "'
}

# Our driver is the second guest of the switch, in a namespace of its own.
talks_over_the_switch() {
  local name lost
  name=$(nic 1)
  joins_the_switch
  far "cat >peer.sh <<'END'
    vsc-network tap --host host.sock --device 5d15c000-0000-4000-8000-0000000e0001 --name vsc0 >tap.log 2>&1 &
    until $ip addr add 198.51.100.1/24 dev vsc0; do sleep 0.1; done
    $ip link set vsc0 up
    httpd -p 80 -h .
    until ping -q -c 1 -W 1 198.51.100.2; do :; done
    ping -q -A -c 5 -W 5 198.51.100.2 >peer.ping
    wget -q -O - http://198.51.100.2/file | sha256sum >peer.sum
    echo done >peer.done
    sleep 60
END
    unshare -n sh peer.sh >peer.log 2>&1 </dev/null &"
  wait_for 30 guest "ping -q -c 1 -W 2 198.51.100.1"
  [[ $(guest "cat /sys/class/net/$name/speed") == 2500 ]]
  wait_for 60 far '[ -e peer.done ]' || far 'cat peer.log tap.log'
  far 'grep " 5 packets received" peer.ping'
  far 'cat peer.sum' | cmp - "$scratch/$guest.sum"
  lost=$(lost_on_the_way)
  pings 198.51.100.1
  guest_seconds=60 guest "wget -q -O - http://198.51.100.1/file | sha256sum" | cmp - "$scratch/$guest.far-sum"
  wait_for 30 both_count_the_same 1
  # A frame of one guest is a frame to the other one, or was not for it.
  wait_for 30 lost_as_many "$lost"
}

# What one guest of the switch has sent and the other one has not got, both ways; what was sent before
# both were there among it.
lost_on_the_way() {
  counters 1
  jq -c '
    def sum(name): [.queues[].counters[name]] | add;
    def sent: sum("framesFromGuest");
    def taken: sum("framesToGuest") + sum("filtered");
    if length == 2 then [(.[0] | sent) - (.[1] | taken), (.[1] | sent) - (.[0] | taken)]
    else error("not two guests") end
  ' "$scratch/$guest.counters"
}

lost_as_many() { [[ $(lost_on_the_way) == "$1" ]]; }

# Of hv_netvsc and the bus, nothing that Linux takes for a warning. It takes the driver's coalesced
# frames for one: no segment size comes with them.
says_nothing_bad_of_nics() {
  guest 'dmesg -r | gzip' | gzip -d >"$scratch/$guest.raw"
  grep '^<6>.* hv_netvsc' "$scratch/$guest.raw"
  sed '/Driver has suspect GRO implementation/d' "$scratch/$guest.raw" >"$scratch/$guest.levels"
  fails grep -E '^<[0-4]>.*(hv_|vmbus|eth[0-9])' "$scratch/$guest.levels"
  says_nothing_bad
}

# first COMMAND, last COMMAND: with one kernel of several, for what shows little more with the others.
first() { by_one_of "${guests[0]}" "$@"; }
last() { by_one_of "${guests[-1]}" "$@"; }
by_one_of() {
  if [[ $guest == "$1" ]]; then "${@:2}"; else say "with ${1%x*} alone" >&3; fi
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
check 'MTU 9000' 200 large_frames
check 'MTU after MTU' 120 'first other_buffers'
check 'offloads on and off' 200 offloads
check 'a VLAN' 120 'last talks_in_a_vlan'
check 'the filter' 60 filters
check 'another address' 60 changes_its_address
check 'link down and up' 90 link_down_and_up
check 'rescinded and offered' 120 taken_back_and_offered
check 'unload and load' 120 'first loads_again'
check 'two on a switch' 240 two_on_the_switch
check 'over the switch' 120 'first talks_over_the_switch'
check 'rescinded under traffic' 150 'first taken_back_under_traffic'
check 'the log has nothing bad' 40 says_nothing_bad_of_nics
check 'powers off' 90 powers_off
