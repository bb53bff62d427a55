# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Linux's hv_utils as the guest of the host's integration components: checks for the guests of a part whose
# vmbus-host has $integration_arguments. Sourced after machine.sh. GUEST.host is what the host says.

integration_arguments='--integration heartbeat,timesync,shutdown'

# Components that have a monitor each, where the host uses them.
integration_components=3

# The number of the guest's present connection: a machine that starts again joins again.
host_number() { grep -c 'guest joined' "$bed_logs/$guest.host"; }

# Both sides say which versions they have agreed on.
has_integration() {
  local component version versions=()
  for component in 'heartbeat:3.0' 'timesync:3.0' 'shutdown:3.2'; do
    version=${component#*:}
    component=${component%:*}
    await 30 "$bed_logs/$guest.host" "$component: guest $(host_number) speaks $version, framework 3\.0"
    versions+=("$component $version")
  done
  say "${versions[*]}" >&3
  guest "dmesg | grep -oE '(Heartbeat|TimeSync|Shutdown) IC version .*' | sort" >"$scratch/$guest.versions"
  diff - "$scratch/$guest.versions" <<END
Heartbeat IC version 3.0
Shutdown IC version 3.2
TimeSync IC version 3.0
END
  await 30 "$bed_logs/$guest.host" "heartbeat: guest $(host_number) is alive"
}

look_at_clock() {
  local there
  there=$(guest 'date +%s')
  seconds_off=$((there - $(date +%s)))
}

guest_clock_is_right() {
  look_at_clock
  ((seconds_off > -120 && seconds_off < 120))
}

# A guest whose clock is wrong has the host's time again when the host says so. Emulated machines run a
# little late.
sets_its_clock() {
  guest_clock_is_right
  guest "date -s '2011-11-11 11:11:11' && date +%Y" | grep -x 2011
  host_does 'integration sync'
  wait_for 30 guest_clock_is_right
  look_at_clock
  say "$seconds_off seconds from here" >&3
}

# Linux tells what it cannot do: a machine without S4 does not sleep on its disk.
refuses_to_hibernate() {
  host_does 'integration hibernate'
  await 20 "$bed_logs/$guest.host" "shutdown: guest $(host_number): hibernate refused: 0x80004005" |
    grep -o "hibernate refused.*" >&3
}

# It ends and begins again, and joins anew.
restarts_when_asked() {
  local number
  number=$(($(host_number) + 1))
  host_does 'integration restart'
  await 60 "$bed_logs/$guest.host" "guest=$number .*guest speaks"
  guest_seconds=60 guest uname -r
}

# The end of the machine: nothing comes after it.
powers_off_when_asked() {
  guest sync
  host_does 'integration shutdown'
  wait_for 60 bed_ended_well
  grep "shutdown: guest $(host_number): shutdown accepted" "$bed_logs/$guest.host"
}
