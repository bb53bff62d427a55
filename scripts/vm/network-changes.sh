# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Links, devices and drivers that come and go, and the checks of Linux's network driver in their
# order. Sourced by network.sh.

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

loads_again() {
  guest "rmmod hv_netvsc; ! ls -d /sys/class/net/eth*"
  guest "insmod /modules/${guest%x*}/hv_netvsc.ko"
  carries_again
}

carries_again() {
  addresses
  pings "$far4"
  flows
  wait_for 30 both_count_the_same 0
}

joins_the_switch() { guest "$ip addr replace 198.51.100.2/24 dev $(nic 1); $ip link set $(nic 1) up"; }

# second COMMAND...: as guest, in another Linux that has joined the same host.
second() {
  local token=$BASHPID.$RANDOM status out
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
check 'MTU 9000 and others' 200 large_frames
check 'offloads on and off' 200 offloads
check 'the filter' 60 filters
check 'another address' 60 changes_its_address
check 'link down and up' 90 link_down_and_up
check 'rescinded and offered' 120 taken_back_and_offered
check 'unload and load' 120 loads_again
check 'two on a switch' 240 two_on_the_switch
check 'over the switch' 120 talks_over_the_switch
check 'the log has nothing bad' 40 says_nothing_bad_of_nics
check 'powers off' 90 powers_off
