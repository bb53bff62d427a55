# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What is checked on the test bed. Each check is a function that runs once for each guest, which
# $guest names; scripts/bed.sh has what it can use. The guests run all the time, so what one
# check leaves running in a guest is there for the next one.
#
# A check of its own is a function here and a line in the table at the end. A program that it needs
# in the guests is a word in `bed_products`.

# shellcheck source=scripts/vm/qemu.sh
. scripts/vm/qemu.sh

# Products of this package that lie in the guests.
# shellcheck disable=SC2034
bed_products=(vmbusctl vsc-balloon open-close)

balloon_class=525074dc-8985-46e2-8057-a307dc18a502
devices=/sys/bus/vmbus/devices

guest_boots() {
  guest_seconds=460 guest uname -r >&3
  guest 'test -e /run/udev/control'
}

speaks_version_4() {
  guest dmesg | grep -iE 'Hypervisor detected: Microsoft Hyper-V'
  guest dmesg | grep -iE 'Vmbus version:4\.0'
}

# The name of the balloon in sysfs.
balloon() { guest "grep -il $balloon_class $devices/*/class_id | cut -d / -f 6"; }

one_balloon() {
  guest "cat $devices/*/class_id"
  local found
  mapfile -t found < <(balloon)
  say "${found[*]}" >&3
  ((${#found[@]} == 1))
}

# maps UIO: name and size of each map, in one line.
maps() {
  guest "cd /sys/class/uio/$1/maps && for map in map?; do echo \$(cat \$map/name \$map/size); done" |
    paste -sd ' '
}

has_its_maps() {
  local name expected found
  name=$(balloon)
  guest "ls -l $devices/$name/driver /dev/uio0"
  # udevd has seen it too: libudev tells of it.
  guest "udevadm info /dev/uio0"
  # Kernels since 7.0 have the two buffers for network devices alone.
  expected='txrx_rings 0x0000000000400000 int_page 0x0000000000001000 monitor_page 0x0000000000001000'
  [[ $guest != 6.* ]] || expected+=' recv 0x0000000001f00000 send 0x0000000001000000'
  say "expected $expected"
  # A buffer's name ends with a number that may differ.
  found=$(maps uio0 | sed -E 's/(recv|send):[0-9]+/\1/g')
  say "found    $found"
  wc -w <<<"$found" | awk '{ print $1 / 2 " maps" }' >&3
  [[ $found == "$expected" ]]
}

qemu_answers() {
  qmp query-balloon >&3
}

# --- What vmbusctl tells ---------------------------------------------------------------------------

# told FILTER...: what vmbusctl lists in the guest fulfils conditions of jq.
told() {
  local filter
  guest vmbusctl list --json >"$scratch/$guest.list"
  for filter in "$@"; do
    jq -e "$filter" "$scratch/$guest.list" >/dev/null || {
      cat "$scratch/$guest.list"
      say "this does not hold: $filter"
      return 1
    }
  done
}

lists_the_unbound() {
  told 'length == 1 and (.[0].class | startswith("balloon "))' \
    '.[0].status == "not usable: not bound to a driver"' \
    '.[0].kernel_driver == "none" and .[0].ring == "host-visible"'
  jq -r '.[0].what_to_do' "$scratch/$guest.list" >&3
}

# What an operator was told to do is what is done.
binds_as_told() {
  guest "$(jq -r '.[0].what_to_do' "$scratch/$guest.list")"
  guest "udevadm wait --timeout=10 /dev/uio0"
}

lists_the_bound() {
  # Kernels since 6.19 keep it for each channel; the BPF program reads it there.
  local word='== "host-visible"'
  [[ $guest != 6.* ]] || word='| startswith("not known: this kernel does not keep")'
  told '.[0].status == "usable" and .[0].transport == "/dev/uio0"' \
    '.[0].memory_known == "the machine is not isolated"' \
    '.[0].monitor == "none: signalled by hypercall"' ".[0].kernel_says $word"
  guest vmbusctl list >&3
}

bad_input() {
  refused 64 'no GUID, relid or class' vsc-balloon --device nonsense
  refused 69 'has no balloon device' vsc-balloon --device 00000000-0000-0000-0000-000000000001
  refused 69 "no device 'scsi'" vmbusctl show scsi
  # A user without rights on the node.
  refused 69 'no permission on /dev/uio0 (mode 600' \
    start-stop-daemon -S -c nobody -x /bin/vsc-balloon
}

# --- The driver ------------------------------------------------------------------------------------

start_driver() { guest_background driver vsc-balloon --json --delay 1 "$@"; }

# driver FILTER: the last line that the driver printed, through jq.
driver() { guest 'grep ^{ /tmp/driver.log | tail -n 1' | jq -ce "$1"; }

# The guest's numbers as the host got them, beside those that the driver says it has sent.
reports() {
  local event available
  # Linux turns huge pages off where memory is as small as here; one guest has them.
  [[ $guest == 6.* ]] || guest 'echo madvise >/sys/kernel/mm/transparent_hugepage/enabled'
  # Rarely: a QEMU 10 whose balloon is busy may end at the guest's packet.
  start_driver --interval 30
  await 80 "$bed_logs/$guest.qmp" HV_BALLOON_STATUS_REPORT
  event=$(qmp_events HV_BALLOON_STATUS_REPORT | tail -n 1)
  # The driver prints its line after it has sent the report.
  guest 'sleep 1; cat /tmp/driver.log' >"$scratch/$guest.driver"
  available=$(jq .available <<<"$event")
  jq -s -e "map(select(.event == \"report\") | .status.lastReport
    | select(.availablePages * 4096 == $available
      and .committedPages * 4096 == $(jq .committed <<<"$event"))) | .[0]" \
    <(grep '^{' "$scratch/$guest.driver") >"$scratch/$guest.found" || {
    say "QMP: $event"
    cat "$scratch/$guest.driver"
    return 1
  }
  say "QMP $event, the driver $(jq -c . "$scratch/$guest.found")" >&3
}

in_use() {
  refused 69 'in use by' vsc-balloon
  told '.[0].status | test("^not usable: /dev/uio0 is in use by process [0-9]+$")' \
    '.[0].state == "open"'
}

# actual MIB: what QEMU says that the guest has.
actual() { (($(qmp query-balloon | jq .actual) == $1 << 20)); }

# ballooned MIB: what the driver says that the host has.
ballooned() { driver ".status.balloonedPages == $1 * 256"; }

free_memory() { guest "awk '/^MemFree/ { print \$2 }' /proc/meminfo"; }

# QEMU waits 50 s from the guest's capabilities to its first request. The guest's report comes behind those.
takes_memory() {
  local before after
  qemu_later 50
  before=$(free_memory)
  qmp balloon "{\"value\": $((448 << 20))}"
  wait_for 150 actual 448
  wait_for 30 ballooned 64
  after=$(free_memory)
  say "the guest's free memory: $before kB, then $after kB; $(driver .status.hugePages) huge pages" >&3
  if [[ $guest == 6.* ]]; then driver '.status.hugePages == 0'; else driver '.status.hugePages > 0'; fi
  # 64 MiB are 65536 kB; the system does other things at the same time.
  ((before - after > 50000))
}

gives_memory_back() {
  local before after
  before=$(free_memory)
  qmp balloon "{\"value\": $((512 << 20))}"
  wait_for 90 actual 512
  wait_for 30 ballooned 0
  after=$(free_memory)
  say "the guest's free memory: $before kB, then $after kB" >&3
  ((after - before > 50000))
}

reports_again() {
  local sent
  sent=$(reports_so_far)
  wait_for 60 more_reports_than "$sent" || {
    guest 'tail -n 20 /tmp/driver.log; dmesg | tail -n 20'
    return 1
  }
}

reports_so_far() { guest "grep -c '\"event\":\"report\"' /tmp/driver.log || true"; }
more_reports_than() { (($(reports_so_far) > $1)); }

# In one process, which then has nothing more than before.
open_and_close() { guest_seconds=200 guest open-close 20 >&3; }

# Huge pages, whose physical addresses a device could be given; and a line for who has none.
takes_dma_memory() {
  guest open-close memory >"$scratch/$guest.memory"
  cat "$scratch/$guest.memory" >&3
  grep '32 free huge pages of 2 MiB are needed' "$scratch/$guest.memory"
  guest 'grep HugePages_Free /proc/meminfo' | grep -w 8
}

# A device that was unbound while nobody had it open is found again by who waits for it.
comes_back() {
  local name
  name=$(balloon)
  guest_background wait open-close wait
  guest 'until grep waiting /tmp/wait.log; do sleep 0.1; done'
  guest "echo $name >/sys/bus/vmbus/drivers/uio_hv_generic/unbind; sleep 0.5
    echo $name >/sys/bus/vmbus/drivers_probe"
  # shellcheck disable=SC2016
  guest 'until [ -s /tmp/wait.status ]; do sleep 0.1; done
    cat /tmp/wait.log; grep "came back" /tmp/wait.log && [ "$(cat /tmp/wait.status)" = 0 ]'
}

# Unbound under a running driver: it lets go of everything and waits. Linux never closes the channel
# then (the file's release finds no device any more), so nobody can have it again, and is told so.
unbind_in_use() {
  local name
  name=$(balloon)
  start_driver
  reports_again
  # shellcheck disable=SC2016
  guest "echo $name >/sys/bus/vmbus/drivers/uio_hv_generic/unbind
    until grep 'waiting for $name' /tmp/driver.log; do sleep 0.1; done"
  # shellcheck disable=SC2016
  guest '! ls -l /proc/$(cat /tmp/driver.pid)/fd | grep uio && ! grep -E "/dev/uio|/ring" /proc/$(cat /tmp/driver.pid)/maps'
  guest "echo $name >/sys/bus/vmbus/drivers_probe; udevadm wait --timeout=10 /dev/uio0"
  told '.[0].status | startswith("not usable: its channel is open, but no driver has it")'
  [[ $(guest_end driver) == 0 ]]
  refused 69 'or restart this machine' vsc-balloon
}

# Under load: a report each millisecond.
close_and_open() {
  local round
  [[ $(guest_end driver) == 0 ]]
  for round in 1 2 3; do
    start_driver --interval 0.001
    reports_again
    guest_end driver | tee "$scratch/$guest.status"
    [[ $(cat "$scratch/$guest.status") == 0 ]]
  done
  say "$round times" >&3
}

kill_and_start() {
  start_driver --interval 0.001
  reports_again
  guest_end driver KILL
  start_driver
  reports_again
  [[ $(guest_end driver) == 0 ]]
  guest dmesg | { ! grep -E 'BUG:|WARNING:.* at |Oops'; }
}

check 'boots' 480 guest_boots
check 'vmbusctl: not bound' 120 lists_the_unbound
check 'bound as vmbusctl says' 120 binds_as_told
check 'vmbusctl: bound' 120 lists_the_bound
check 'reports, as QMP has them' 120 reports
check 'VMBus 4.0' 120 speaks_version_4
check 'one balloon device' 120 one_balloon
check 'maps of uio_hv_generic' 120 has_its_maps
check 'QMP answers' 120 qemu_answers
check 'a second driver' 120 in_use
check 'bad input' 120 bad_input
check 'memory for DMA' 120 takes_dma_memory
check 'a balloon request' 240 takes_memory
check 'an unballoon request' 180 gives_memory_back
check 'close and open under load' 240 close_and_open
check 'kill -9 and start again' 120 kill_and_start
check 'open and close 20 times' 240 open_and_close
check 'a device that comes back' 120 comes_back
check 'unbind in use' 120 unbind_in_use
