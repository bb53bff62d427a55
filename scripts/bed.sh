# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# A test bed with a VMBus, on any x86-64 Linux. L0 is QEMU, which emulates an AMD machine with
# virtualisation. L1 is a Linux on it, whose KVM runs machines with a VMBus; L2 are their guests.
# Where KVM works on this machine, the guests run on it directly. Sourced after lib.sh and
# make_scratch, and before the part of the tests that says which machines there are: see the end of
# scripts/vm/balloon.sh and scripts/vm/storage.sh.
#
# A guest is named KERNELxPROCESSORS: 7x1. What acts on a guest takes the one that $guest names.
# Each channel to a guest is a FIFO to write to and a file in $bed_logs that gets what comes back:
# GUEST.commands and what else is in $bed_channels; those in $bed_outputs are files only.

# shellcheck source=scripts/vm/fetch.sh
. scripts/vm/fetch.sh

# --- What the guests hold --------------------------------------------------------------------------

# bed_add_file PATH TO [LEVEL]: a file of this machine, for all guests (l2) or for L1 (l1); before
# bed_images.
bed_add_file() {
  mkdir -p "$scratch/${3:-l2}/$(dirname "$2")"
  cp -fL "$1" "$scratch/${3:-l2}/$2"
}

# bed_add_program PATH [LEVEL]: a program of this machine, with its libraries and the loader, all of
# them at their own paths. In the guests it is found by its name. An emulated machine takes its time for
# each megabyte, so debug information stays here.
bed_add_program() {
  local program file libraries level=${2:-l2}
  program=$(realpath "$1")
  bed_add_file "$program" "$program" "$level"
  objcopy --strip-debug "$scratch/$level/$program"
  say "$program" >>"$scratch/$level/programs"
  # A static program has none, and ldd says so by failing.
  libraries=$(ldd "$program" 2>/dev/null) || return 0
  [[ $libraries != *'not found'* ]] || die "A library of $program is lacking: $libraries"
  while read -r file; do
    bed_add_file "$file" "$file" "$level"
  done < <(grep -oE '/[^ ]+' <<<"$libraries")
}

# bed_images GUEST...: the file systems of L1 and of the guests.
bed_images() {
  local guest name l1=$scratch/l1 l2=$scratch/l2
  mkdir -p "$l1"/{bin,modules,guests,files} "$l2"/{bin,modules}
  touch "$l1/programs" "$l2/programs"
  cp "$bed_parts/busybox" "$l2/bin/"
  cp scripts/vm/l2-init "$l2/init"
  cp scripts/vm/answers.sh "$l2/"
  # A part may use those of other guests too.
  for name in $(printf '%s\n' "${bed_kernels[@]}" "${kernels[@]}" | sort -u); do
    cp -r "$bed_parts/kernels/$name/$bed_modules" "$l2/modules/$name"
    cp "$bed_parts/kernels/$name/vmlinuz" "$l1/files/$name"
  done
  bed_add_parts
  pack "$l2" >"$l1/files/initrd"
  cp "$bed_parts/busybox" "$l1/bin/"
  cp scripts/vm/l1-init "$l1/init"
  cp scripts/vm/answers.sh "$l1/"
  cp "$bed_parts/kernels/6.12/l1"/*.ko "$l1/modules/"
  for guest in "$@"; do
    guest_script pipe /dev/virtio-ports /files >"$l1/guests/$guest"
  done
  pack "$l1" >"$scratch/l1.img"
  say "$(du -h "$scratch/l1.img" | cut -f 1), guests' $(du -h "$l1/files/initrd" | cut -f 1)" >&3
}

# The file system that the kernel unpacks at its start.
pack() { (cd "$1" && find . | "$bed_parts/busybox" cpio -o -H newc -R 0:0 --quiet); }

# --- Machines --------------------------------------------------------------------------------------

# character_device NAME KIND DIRECTORY: the end of a channel, for `arguments`. In L1 that is a
# port, and on this machine a FIFO and a file.
character_device() {
  local path=$3/$guest.$1
  if [[ $2 == file ]]; then
    arguments+=(-chardev "file,id=$1.$guest,path=$path,input-path=$scratch/$guest.$1")
  else
    arguments+=(-chardev "pipe,id=$1.$guest,path=$path")
  fi
}

# make_fifo CHANNEL: the end to write to. Held open for writing, so that it never ends.
make_fifo() {
  local held
  mkfifo "$scratch/$guest.$1"
  # shellcheck disable=SC2034
  exec {held}<>"$scratch/$guest.$1"
}

# bed_start GUEST...: starts the machines, without waiting for the guests.
bed_start() {
  local guest channel
  if [[ -z $bed_nested ]]; then
    bed_nested=no
    if kvm_works >/dev/null; then
      say 'KVM works here: the guests run on this machine.'
    else
      say 'KVM can not run these guests here: they run on emulated machines.'
      bed_nested=yes
      clang -O1 -Wall -Wextra -Werror scripts/vm/tsc.c -o "$scratch/tsc"
      tsc_khz=$("$scratch/tsc")
    fi
  fi
  for guest in "$@"; do
    for channel in "${bed_channels[@]}"; do make_fifo "$channel"; done
    if [[ $bed_nested == yes ]]; then
      start_nested
    else
      guest_script file "$bed_logs" "$scratch/l1/files" >"$scratch/$guest.script"
      launch "$guest" sh -c "sh '$scratch/$guest.script'; echo \"It ended with status \$?.\" >'$bed_logs/$guest.l1'"
    fi
    guest_started
  done
}

# Whether the guests run on emulated machines; not known at first.
bed_nested=''

# What such a machine has, for a part to change: memory, and a disk, a file in $scratch of which each machine has
# its own copy.
bed_memory=1536M bed_disk=''

# A machine of its own for each guest, with one processor: QEMU's threads lose nested guests where several
# of them emulate one machine (a triple fault, or a guest that stands still), and are slower together.
start_nested() {
  local channel
  make_fifo wake
  arguments=(-nodefaults -no-reboot -display none -machine q35 -accel tcg -cpu EPYC -m "$bed_memory"
    -kernel "$bed_parts/kernels/6.12/vmlinuz" -initrd "$scratch/l1.img"
    -append "console=ttyS0 quiet panic=-1 tsc_early_khz=$tsc_khz bed_guest=$guest"
    -serial "file:$bed_logs/$guest.l1"
    -device virtio-serial-pci)
  [[ -z $bed_disk ]] || arguments+=(-drive "file=$scratch/$bed_disk,format=raw,if=virtio,snapshot=on")
  for channel in "${bed_channels[@]}" wake "${bed_outputs[@]}"; do
    if [[ " ${bed_outputs[*]} " == *" $channel "* ]]; then
      arguments+=(-chardev "file,id=$channel.$guest,path=$bed_logs/$guest.$channel")
    else
      character_device "$channel" file "$bed_logs"
    fi
    arguments+=(-device "virtserialport,chardev=$channel.$guest,name=$guest.$channel")
  done
  launch "$guest" "$bed_parts/qemu/run" "${arguments[@]}"
  keep_awake >/dev/null 2>&1 &
}

# QEMU's processor begins and ends a nested guest by changing the word of its pending interrupts without a lock,
# and now and then forgets one that another thread has just put there. L1's timer is set anew by its interrupt
# only, so L1 stood still for good where its guest waited in a loop. Any later interrupt brings the forgotten one.
keep_awake() {
  while bed_runs; do
    say >"$scratch/$guest.wake"
    sleep 0.2
  done
}

# Whether the guest's machine runs still.
bed_runs() { running "$guest"; }

# Whether it has ended as it should.
bed_ended_well() { ! bed_runs && grep -aF 'It ended with status 0.' "$bed_logs/$guest.l1"; }

# bed_end GUEST...: ends what runs still. What has ended without a word is noted in GUEST.silent.
bed_end() {
  local guest
  for guest in "$@"; do
    bed_runs || grep -aqsF 'It ended with status' "$bed_logs/$guest.l1" || touch "$scratch/$guest.silent"
    end "$guest"
  done
}

# --- Talking to a guest ----------------------------------------------------------------------------

# await SECONDS FILE PATTERN: the first line of a file that matches, as soon as it is there.
await() {
  local end=$((SECONDS + $1))
  until grep -a -m 1 -E -- "$3" "$2" 2>/dev/null; do
    bed_runs >/dev/null || {
      say "$guest has ended. The last that it said:" >&2
      tail -qn 20 "$bed_logs/$guest".{console,l1} >&2 2>/dev/null
      return 1
    }
    ((SECONDS < end)) || {
      say "$guest does not answer." >&2
      return 1
    }
    sleep 0.05
  done
}

# What a command in a guest may take; then it is ended, with status 143.
guest_seconds=60

# guest COMMAND...: runs a command line in the guest, as ssh does, and gives what it prints to
# stdout and stderr, and its status.
guest() { run_by commands "$@"; }

# A word that no other command has, whichever shell gives it: an answer is known by it, and the answers to
# all commands stay in one file.
new_token() { say "$BASHPID-${EPOCHREALTIME/[^0-9]/}"; }

# run_by CHANNEL COMMAND...: the same by whoever answers at that channel of the guest's.
run_by() {
  local channel=$1 token answer status out err
  token=$(new_token)
  shift
  [[ ! -e $scratch/$guest.silent ]] || {
    say "$guest does not answer any more." >&2
    return 1
  }
  printf '%s %s %s\n' "$token" "$guest_seconds" "$(base64 -w 0 <<<"$*")" >"$scratch/$guest.$channel"
  # What answers ends a command that takes too long: when nothing comes, the guest stands still.
  answer=$(await $((guest_seconds + 10)) "$bed_logs/$guest.$channel" "^$token .* end") || {
    touch "$scratch/$guest.silent"
    return 1
  }
  read -r _ status out err _ <<<"$answer"
  base64 -d <<<"${err%.}" >&2
  base64 -d <<<"${out%.}"
  return "${status:-1}"
}

# refused STATUS PATTERN COMMAND...: one line on standard error that says it, and that status.
refused() {
  local status=0 wanted=$1 pattern=$2
  shift 2
  guest "$*" >/dev/null 2>"$scratch/$guest.refused" || status=$?
  cat "$scratch/$guest.refused"
  ((status == wanted)) && (($(wc -l <"$scratch/$guest.refused") == 1)) && grep -q "$pattern" "$scratch/$guest.refused"
}

# guest_background NAME COMMAND...: starts a program, which runs on in the guest. Its output goes
# to /tmp/NAME.log there. It ignores SIGINT, as all that a script puts into the background.
guest_background() {
  guest "cd /tmp
    (setsid ${*:2} >$1.log 2>&1 </dev/null & echo \$! >$1.pid; status=0; wait \$! || status=\$?; echo \$status >$1.status) &
    until [ -s $1.pid ]; do sleep 0.01; done"
}

# guest_end NAME [SIGNAL]: ends what runs in the background; prints its status.
guest_end() {
  guest "cd /tmp; kill -${2:-TERM} \$(cat $1.pid); until [ -s $1.status ]; do sleep 0.1; done
    cat $1.status; rm $1.pid $1.status"
}

# A shell on the guest's console, for whoever sits at this terminal.
bed_shell() {
  guest_seconds=240 guest true
  tail -n 0 -f "$bed_logs/$guest.console" &
  at_exit "kill $!"
  if [[ -t 0 ]]; then
    at_exit "stty $(stty -g)"
    guest "stty -F /dev/ttyS0 rows $(tput lines) cols $(tput cols)"
    # Everything but Ctrl-] goes to the guest.
    stty -icanon -echo -icrnl -ixon -iexten intr ^] quit undef susp undef
  fi
  trap 'exit 0' INT
  # Not by `&`: then Ctrl-C would be ignored.
  guest "cd /; start-stop-daemon -S -b -m -p /tmp/shell.pid -x /bin/sh -- \
    -c 'exec setsid -c sh -l </dev/ttyS0 >/dev/ttyS0 2>&1'"
  cat <&0 >"$scratch/$guest.console" &
  at_exit "kill $!"
  while guest "test -d /proc/\$(cat /tmp/shell.pid)"; do sleep 1; done
}
