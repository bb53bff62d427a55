# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What the demo and the network tests share: two network namespaces, one with the driver's interface and
# one with the host's, and the tools of others between them. Sourced after lib.sh.

need_network_tools() {
  need_packages curl iperf3 iproute2 iputils-ping jq libcap2-bin python3-minimal tshark
}

# The namespaces of this run. Their names end with the number of this process, so that those of a run
# which was killed are found and removed by a later one.
guest=vmbus-guest-$$ far=vmbus-host-$$

# Addresses of the guest's interface and of the host's.
guest4=192.0.2.2 far4=192.0.2.1 guest6=2001:db8::2 far6=2001:db8::1

# Whether network namespaces and TAP devices can be made here; says why not.
may_make_namespaces() {
  local name number
  for name in $(ip netns list 2>/dev/null | grep -oE '^vmbus-(guest|host)-[0-9]+' || true); do
    number=${name##*-}
    [[ -d /proc/$number ]] || ip netns del "$name" || true
  done
  if ! why_not=$(ip netns add "$guest" 2>&1); then
    why_not=${why_not##*$'\n'}
    return 1
  fi
  at_exit "ip netns del '$guest'"
  if ! why_not=$(ip netns exec "$guest" ip tuntap add probe mode tap 2>&1); then
    return 1
  fi
  ip -n "$guest" link del probe
  ip netns add "$far"
  at_exit "ip netns del '$far'"
}

in_guest() { ip netns exec "$guest" "$@"; }
in_far() { ip netns exec "$far" "$@"; }

# network_host NAME OPTION...: a simulated host in its namespace, at the socket $scratch/NAME, with
# commands taken at $scratch/NAME.control.
network_host() {
  local name=$1
  shift
  launch "$name" ip netns exec "$far" "$programs/vmbus-host" --socket "$scratch/$name" \
    --control "$scratch/$name.control" --spin 100 "$@"
}

network_host_answers() { "$programs/vmbusctl" list --host "$scratch/$1" "${@:2}" | grep -q network; }

# network_driver NAME HOST INTERFACE OPTION...: joins a host's device to an interface of the guest's
# namespace; it tells what it does at $scratch/NAME.stats.
network_driver() {
  local name=$1 host=$2 interface=$3
  shift 3
  launch "$name" ip netns exec "$guest" "$programs/vsc-network" tap --host "$scratch/$host" \
    --name "$interface" --stats "$scratch/$name.stats" --spin 100 "$@"
}

# joined NAME: whether that driver has its device.
joined() { "$programs/vsc-network" info --stats "$scratch/$1.stats" --json; }

# ends_of INTERFACE INTERFACE: gives the guest's and the host's interface their addresses.
addresses() {
  ip -n "$guest" addr add "$guest4/24" dev "$1"
  ip -n "$guest" addr add "$guest6/64" dev "$1" nodad
  ip -n "$far" addr add "$far4/24" dev "$2"
  ip -n "$far" addr add "$far6/64" dev "$2" nodad
  ip -n "$far" link set "$2" up
}

# pings COUNT OPTION...: packets there and back; none may be lost.
pings() {
  local count=$1
  shift
  in_guest ping -q -c "$count" -i 0.01 -W 2 "$@" >"$scratch/ping" || {
    cat "$scratch/ping"
    return 1
  }
  cat "$scratch/ping"
  say "$(sed -nE 's|^rtt [^=]*= [^/]*/([^/]*)/.*|mean \1 ms|p' "$scratch/ping")" >&3
}

# fetch NAMESPACE ADDRESS NAMESPACE: a file from a web server in one namespace to curl in the other, which
# must get the same bytes.
fetch() {
  local server=$1 address=$2 client=$3 pid status=0
  mkdir -p "$scratch/web"
  [[ -s $scratch/web/file ]] || head -c $((64 << 20)) /dev/urandom >"$scratch/web/file"
  ip netns exec "$server" python3 -m http.server --bind "$address" --directory "$scratch/web" 8000 &
  pid=$!
  wait_for 10 ip netns exec "$client" curl -sf "http://$address:8000/" || status=$?
  ip netns exec "$client" curl -sSf -o "$scratch/fetched" -w '%{speed_download}' \
    "http://$address:8000/file" >"$scratch/speed" || status=$?
  kill "$pid"
  wait "$pid" || true
  ((status == 0)) || return "$status"
  cmp "$scratch/web/file" "$scratch/fetched"
  say "$(stat -c %s "$scratch/fetched") bytes are the same, $(($(cut -d. -f1 "$scratch/speed") >> 20)) MiB/s" >&3
}

# iperf_server: in the host's namespace, until the script ends.
iperf_server() { launch iperf ip netns exec "$far" iperf3 -s -f g; }

iperf_listens() { in_far ss -Htln 'sport = 5201' | grep -q 5201; }

# The rows of the table that iperf fills.
iperf_rows() { cat "$scratch"/iperf-*.row; }

# iperf NUMBER SECONDS STREAMS [-R]: TCP from the guest to the host, or with -R the other way.
iperf() {
  local number=$1 seconds=$2 streams=$3 way='guest to host'
  shift 3
  [[ ${1:-} != -R ]] || way='host to guest'
  in_guest iperf3 -c "$far4" -t "$seconds" -P "$streams" -J "$@" >"$scratch/iperf.json" || {
    jq -r '.error // empty' "$scratch/iperf.json"
    return 1
  }
  jq -r --arg way "$way" --arg streams "$streams" '.end | [$way, $streams,
      (.sum_received.bits_per_second / 1e7 | round / 100), .sum_sent.retransmits] | @tsv' \
    "$scratch/iperf.json" >"$scratch/iperf-$number.row"
  awk -F '\t' '{ print $3 " Gbit/s, " $4 " retransmitted" }' "$scratch/iperf-$number.row" >&3
  # Something came through, whatever the machine.
  jq -e '.end.sum_received.bytes > 1000000' "$scratch/iperf.json" >/dev/null
}

# The table of what iperf measured.
iperf_table() {
  {
    printf 'direction\tstreams\tGbit/s\tretransmitted\n'
    iperf_rows
  } | column -t -s $'\t' | sed 's/^/    /'
}

# --- Without namespaces ----------------------------------------------------------------------------

# Two guests on one host, which send to each other over its switch. It takes no privileges.
over_the_switch() {
  local first status=0
  "$programs/vsc-network" bench --host "$scratch/$1" --direction receive --time 4 --json \
    >"$scratch/first.json" &
  first=$!
  sleep 1
  "$programs/vsc-network" bench --host "$scratch/$1" --direction send --time 1 --size 1500 --json \
    --to "$2" >"$scratch/second.json" || status=$?
  wait "$first" || status=$?
  ((status == 0)) || return "$status"
  jq -e --arg address "$2" '.address == $address' "$scratch/first.json"
  jq -r -s '"\(.[1].runs[0].sent) sent, \(.[0].runs[0].received) received by the other guest"' \
    "$scratch/first.json" "$scratch/second.json" >&3
  jq -e '.runs[0].received > 1000' "$scratch/first.json"
}
