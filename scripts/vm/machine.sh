# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Stock kernels in guests of vmbus-vm, which join a vmbus-host each: what the parts about Linux's own
# drivers share. Sourced after bed.sh. GUEST.host and GUEST.machine are what host and machine say.

bed_host_products=(vmbus-host vmbus-vm)
bed_modules=devices

usual_processors() { say 2; }

guest_started() { :; }

kvm_works() { "$programs/vmbus-vm" --check 2>/dev/null; }

# Of the commands of a check, `!` alone would go unnoticed.
fails() { if "$@"; then return 1; fi; }

guest_boots() { guest_seconds=120 guest uname -r >&3; }

connects() {
  local version=6.0
  [[ $guest != 6.12* ]] || version=5.3
  # Each byte through the console takes its time.
  guest "dmesg | grep -E 'Hypervisor detected: Microsoft Hyper-V|Vmbus version:'" >"$scratch/words"
  grep -F 'Microsoft Hyper-V' "$scratch/words"
  grep -oF "Vmbus version:$version" "$scratch/words" >&3
}

says_nothing_bad() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|\] WARNING: |Oops:|hostile|malformed|hung task|blocked for more|invalid packet|timed out|hv_.*(error|fail)' "$bed_logs/$guest.dmesg"
  fails grep -E ' (warning|error) ' "$bed_logs/$guest.machine" "$bed_logs/$guest.host"
}

powers_off() {
  guest_background off "sh -c 'sleep 1; sync; poweroff -f'"
  wait_for 60 machine_ended
  grep -a "The machine of $guest ended with status 0" "$bed_logs/l1.console"
}

machine_ended() { ! bed_runs; }
