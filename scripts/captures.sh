# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What tshark says of the network tests' traffic, captured at both ends. Sourced after network.sh.

# Traffic of all kinds, captured by the driver with checksums filled in, and by dumpcap at the host's end.
capture_traffic() {
  local dump
  # Not through a function: this is to be the process that is ended.
  ip netns exec "$far" dumpcap -q -i vsp0 -s 262144 -B 64 -w "$scratch/far.pcapng" &
  dump=$!
  wait_for 10 test -s "$scratch/far.pcapng"
  in_guest ping -q -c 20 -i 0.01 -s 1400 "$far4"
  in_guest ping -q -c 20 -i 0.01 "$far6"
  in_guest iperf3 -c "$far4" -n 40M
  in_guest iperf3 -c "$far4" -n 40M -R
  in_guest iperf3 -c "$far6" -n 10M
  in_guest iperf3 -c "$far4" -u -b 20M -l 1400 -t 1
  in_guest iperf3 -c "$far4" -n 20M -P 8
  in_guest python3 scripts/send-tagged vsc0 02:00:00:00:00:01 50
  in_far python3 scripts/send-tagged vsp0 02:00:00:00:00:02 50
  sleep 1
  kill "$dump"
  wait "$dump" || true
}

# count FILE FILTER: frames that the filter shows, with all checksums looked at.
count() {
  tshark -r "$1" -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE -o ip.check_checksum:TRUE \
    -Y "$2" -T fields -e frame.number 2>/dev/null | wc -l
}

tshark_finds_nothing() {
  local file=$scratch/driver.pcapng all wrong right duplicates
  all=$(count "$file" frame)
  wrong=$(count "$file" '_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 ||
    udp.checksum.status == 0 || icmpv6.checksum.status == 0 || icmp.checksum.status == 0')
  right=$(count "$file" 'tcp.checksum.status == 1 || udp.checksum.status == 1')
  # Each IPv4 packet of a flow has a number of its own, so that two equal ones are one sent twice.
  # A reset answers a packet for nobody, and has none.
  tshark -r "$file" -Y 'ip && tcp && tcp.flags.reset == 0' -w "$scratch/ip.pcapng" 2>/dev/null
  duplicates=$(editcap -D 64 "$scratch/ip.pcapng" "$scratch/unique.pcapng" 2>&1 |
    sed -nE 's/.* ([0-9]+) packets? skipped.*/\1/p')
  say "$all frames: $right checksums right, $wrong wrong or malformed, $duplicates duplicates" >&3
  ((all > 1000 && right > 1000 && wrong == 0 && duplicates == 0)) || {
    tshark -r "$file" -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE \
      -Y '_ws.malformed || tcp.checksum.status == 0 || udp.checksum.status == 0' 2>/dev/null | head
    return 1
  }
}

# A tag travels beside the frame, and is in it again at the other end.
tags_in_the_captures() {
  local here there
  here=$(count "$scratch/driver.pcapng" 'vlan.id == 5 && eth.src == 02:00:00:00:00:02')
  there=$(count "$scratch/far.pcapng" 'vlan.id == 5 && eth.src == 02:00:00:00:00:01')
  say "$here received by the guest, $there by the host" >&3
  ((here == 50 && there == 50))
}

large_frames_in_the_captures() {
  local here there
  here=$(count "$scratch/driver.pcapng" 'frame.len > 60000 && ip.src == '"$guest4")
  there=$(count "$scratch/far.pcapng" 'frame.len > 60000 && ip.src == '"$guest4")
  say "more than 60000 bytes: $here sent by the guest, $there seen by the host" >&3
  ((here > 0 && there > 0))
}
