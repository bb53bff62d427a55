# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# The kernel module hv_uservsc, built for each of the bed's kernels, in guests of vmbus-vm: what its interface
# promises, what becomes of memory when somebody ends, and a fuzzer of its calls. Any warning of the kernel is
# a panic, its allocator looks for what was used wrongly (where the module allocates: elsewhere it takes too
# long), and vmbus-vm tells which pages the host can see.
#
# The guests' names end with the kind of machine: voff is not isolated, vbs is; vring and vall are confidential,
# with a host that is the paravisor itself: an encrypted ring, and encrypted data too. Sourced after bed.sh; the
# checks are as those of scripts/vm/storage.sh.
#
# MODULE_FUZZ=CALLS, MODULE_SEED=SEED and MODULE_KILLS=COUNT make two of the checks longer, MODULE_KINDS='voff vbs'
# takes only these machines.

# shellcheck source=scripts/vm/machine.sh
. scripts/vm/machine.sh
# shellcheck source=scripts/vm/disks.sh
. scripts/vm/disks.sh
# shellcheck source=scripts/vm/module-tools.sh
. scripts/vm/module-tools.sh

bed_packages=(libc6-dev)
bed_channels=(commands control)
bed_outputs=(host machine)

part_prepare() { prepare_module; }

part_guests() { guests_of_kinds "$@"; }

bed_add_parts() {
  add_module
  clang -O1 -Wall -Wextra -Werror -D_GNU_SOURCE Tests/KernelModule/*.c -lpthread -o "$scratch/uservsc-test"
  bed_add_program "$scratch/uservsc-test"
}

# kind NAME...: whether the guest is of one of these kinds.
kind() {
  local name
  for name in "$@"; do [[ $guest != *"v$name" ]] || return 0; done
  return 1
}

# Linux can signal in a VBS machine with a paravisor only through monitors.
guest_script() {
  local isolation=off options='--monitors --subchannels 2' disk=disk.img,controller=0
  case $guest in
    *voff) options='--subchannels 2' ;;
    *vbs) isolation=vbs options='--subchannels 2' ;;
    # Linux's own driver bounces its data in either machine.
    *vring) isolation=vbs-confidential disk+=,memory=ring options+=' --poll-rings' ;;
    *vall) isolation=vbs-confidential disk+=,memory=all options+=' --poll-rings --accept-shared-data' ;;
  esac
  machine_script "$@" "--disk $disk $options" \
    'panic_on_warn=1 slub_debug=FZPU,kmalloc-* kfence.sample_interval=20' "--isolation $isolation --verbose"
}

# --- What the checks share -------------------------------------------------------------------------

bus=/sys/bus/vmbus device=5d15c000-0000-4000-8000-000000000000

# give_to DRIVER: the controller, whoever has it.
give_to() {
  guest "cd $bus/devices/$device; [ ! -e driver ] || echo $device >driver/unbind; echo $1 >driver_override
    echo $device >$bus/drivers_probe; [ \"\$(basename \$(readlink driver))\" = $1 ]"
}

# test_program WORD...: the test program's command, for as long as it may take.
test_program() { guest_seconds=${seconds:-120} guest "$scratch/uservsc-test $*"; }

# visible_pages: how many pages of the guest the host can see, by what the machine has said of each.
visible_pages() {
  awk 'function number(text, value, at) {
      for (at = 3; at <= length(text); at++) value = value * 16 + index("123456789abcdef", substr(text, at, 1))
      return value
    }
    / pages (host-visible|private)/ {
      match($0, /first=0x[0-9a-f]+/); first = number(substr($0, RSTART + 6, RLENGTH - 6), 0)
      match($0, /[0-9]+ pages/); count = substr($0, RSTART, RLENGTH) + 0
      for (page = first; page < first + count; page++)
        if (/host-visible/) seen[page] = 1; else delete seen[page]
    }
    END { for (page in seen) pages++; print pages + 0 }' "$bed_logs/$guest.machine"
}

# as_before: the host sees what it saw at first, and nothing was lost.
as_before() {
  local found
  guest 'cat /sys/class/hv_uservsc/leaked_pages' | grep -x 0
  # Through a port, what the machine says comes later than what the guest says.
  wait_for 20 sees_the_base || {
    found=$(visible_pages)
    say "The host sees $found pages, not $(cat "$scratch/$guest.base")."
    return 1
  }
}

sees_the_base() { [[ $(visible_pages) == "$(cat "$scratch/$guest.base")" ]]; }

# --- Checks ----------------------------------------------------------------------------------------

loads() {
  wait_for 60 there 0 0
  guest "insmod /modules/${guest%x*}.hv_uservsc.ko"
  # It takes nothing by itself.
  guest "[ -z \"\$(ls $bus/drivers/hv_uservsc | grep -)\" ]"
  give_to hv_uservsc
  guest "ls -l /dev/vmbus/$device" | grep '^crw-------'
  guest "[ -e /sys/class/hv_uservsc/$device ]"
  sleep 3
  visible_pages >"$scratch/$guest.base"
  say "the host sees $(cat "$scratch/$guest.base") pages" >&3
}

keeps_its_promises() {
  test_program interface
  test_program errors
  test_program limits
  as_before
}

moves_data() {
  test_program data
  as_before
}

cannot_be_unloaded() {
  guest_background open "$scratch/uservsc-test load kill"
  guest 'until grep loaded /tmp/open.log; do [ ! -s /tmp/open.status ] || exit 1; sleep 0.1; done'
  guest '! rmmod hv_uservsc'
  guest_end open KILL
  as_before
}

# Killed in the midst of its requests, again and again.
kills=${MODULE_KILLS:-20}
is_killed_under_load() {
  seconds=$((kills * 20)) guest_seconds=$((kills * 20)) guest "
    for number in \$(seq $kills); do
      $scratch/uservsc-test load kill >/tmp/kill.log &
      until grep -q loaded /tmp/kill.log; do
        [ -d /proc/\$! ] || { cat /tmp/kill.log; exit 1; }
        usleep 20000
      done
      usleep \$((number * 7919 % 50000))
      kill -9 \$!
      wait \$!
    done
    cat /sys/class/hv_uservsc/leaked_pages"
  as_before
  test_program data
  as_before
  say "$kills kills" >&3
}

# until_gone WORDS COMMAND: what a process sees whose device is taken from it.
until_gone() {
  guest_background gone "$scratch/uservsc-test $1"
  guest 'until grep loaded /tmp/gone.log; do [ ! -s /tmp/gone.status ] || { cat /tmp/gone.log; exit 1; }; sleep 0.1; done'
  "${@:2}"
  guest 'until [ -s /tmp/gone.status ]; do sleep 0.1; done; cat /tmp/gone.log; grep -x 0 /tmp/gone.status && rm /tmp/gone.*'
}

is_unbound() {
  local what
  for what in 'load device' idle; do
    until_gone "$what" guest "echo $device >$bus/drivers/hv_uservsc/unbind"
    as_before
    give_to hv_uservsc
  done
  test_program interface
}

is_rescinded() {
  until_gone 'load device' host_does 'controller 0 rescind'
  guest "for i in \$(seq 100); do [ -e $bus/devices/$device ] || exit 0; sleep 0.1; done; exit 1"
  as_before
  host_does 'controller 0 offer'
  guest "for i in \$(seq 100); do [ ! -e $bus/devices/$device/driver ] || exit 0; sleep 0.1; done; exit 1"
  # Nobody has said that it is the module's.
  guest "basename \$(readlink $bus/devices/$device/driver)" | grep -x hv_storvsc
  wait_for 60 there 0 0
  give_to hv_uservsc
  test_program data
}

is_unloaded() {
  local bound
  guest 'rmmod hv_uservsc && [ ! -e /sys/class/hv_uservsc ] && [ ! -e /dev/vmbus/* ]'
  guest "insmod /modules/${guest%x*}.hv_uservsc.ko"
  give_to hv_uservsc
  test_program data
  as_before
}

# Rounds of so many calls each have seeds that follow one another.
fuzz_calls=${MODULE_FUZZ:-20000} fuzz_seed=${MODULE_SEED:-1} fuzz_round=50000
is_fuzzed() {
  local seed=$fuzz_seed left=$fuzz_calls calls limit=24
  # Each change of visibility takes its time.
  kind off || limit=2
  guest "echo $limit >/sys/module/hv_uservsc/parameters/device_mib"
  while ((left > 0)); do
    calls=$((left < fuzz_round ? left : fuzz_round))
    seconds=900 test_program fuzz "$seed" "$calls"
    as_before
    left=$((left - calls)) seed=$((seed + 1))
  done
  say "$fuzz_calls calls, seeds from $fuzz_seed to $((seed - 1))" >&3
  guest 'echo 0 >/sys/module/hv_uservsc/parameters/device_mib'
  test_program data
  as_before
}

# Linux's own driver, with a file system's worth of data.
gives_it_back() {
  local name
  give_to hv_storvsc
  wait_for 60 there 0 0
  name=$(disk 0 0)
  guest_seconds=120 guest "dd if=/dev/urandom of=/tmp/random bs=1M count=2
    dd if=/tmp/random of=/dev/$name bs=64k oflag=direct && dd if=/dev/$name bs=64k count=32 iflag=direct |
      cmp - /tmp/random"
  guest 'rmmod hv_uservsc'
}

says_nothing() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|\] WARNING: |Oops:|hostile|malformed|hung task|blocked for more|are lost|hv_uservsc .*error' \
    "$bed_logs/$guest.dmesg"
}

nobody_touched_another_page() {
  # Where everything is visible nothing is counted.
  ! kind off || return 0
  grep -o 'visibility: .*' "$bed_logs/$guest.host" | tee "$scratch/$guest.summaries"
  grep -E 'visibility: 0 violations' "$scratch/$guest.summaries" >&3
  fails grep -vE 'visibility: 0 violations' "$scratch/$guest.summaries"
  # Data of ours is where the offer says.
  if kind all; then
    grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries"
  else
    fails grep -E '[1-9][0-9]* encrypted' "$scratch/$guest.summaries"
  fi
}

check 'boots' 300 guest_boots
check 'loads and binds' 120 loads
check 'keeps its promises' 200 keeps_its_promises
check 'moves data' 200 moves_data
check 'can not be unloaded in use' 120 cannot_be_unloaded
check 'is killed under load' $((120 + kills * 20)) is_killed_under_load
check 'is unbound under load' 200 is_unbound
check 'is rescinded under load' 200 is_rescinded
check 'is unloaded and loaded' 200 is_unloaded
check 'is fuzzed' $((300 + fuzz_calls / 100)) is_fuzzed
check "Linux's driver takes it back" 200 gives_it_back
check 'the log has nothing bad' 120 says_nothing
check 'powers off' 180 powers_off
check 'nobody touched another page' 30 nobody_touched_another_page
