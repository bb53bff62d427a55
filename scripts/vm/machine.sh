# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Stock kernels in guests of vmbus-vm, which join a vmbus-host each: what the parts about Linux's own
# drivers share. Sourced after bed.sh. GUEST.host and GUEST.machine are what host and machine say.

bed_host_products=(vmbus-host vmbus-vm)
bed_modules=devices

# What machine and host warn of because a part's checks want it.
bed_asked_for='^$'

usual_processors() { say 2; }

guest_started() { :; }

# processors: how many the guest has. A guest that is held to a version has that behind its name: 7x2v4.1.
processors() {
  local number=${guest#*x}
  say "${number%v*}"
}

kvm_works() { "$programs/vmbus-vm" --check 2>/dev/null; }

# Of the commands of a check, `!` alone would go unnoticed.
fails() { if "$@"; then return 1; fi; }

# The kernel's modules for devices in user space, for the guests.
add_uio() {
  local name module
  for name in "${kernels[@]}"; do
    for module in uio uio_hv_generic; do
      [[ ! -e $bed_parts/kernels/$name/l2/$module.ko ]] ||
        bed_add_file "$bed_parts/kernels/$name/l2/$module.ko" "/modules/$name.$module.ko"
    done
  done
}

load_uio() {
  guest "for name in uio uio_hv_generic; do
    [ ! -e /modules/${guest%x*}.\$name.ko ] || insmod /modules/${guest%x*}.\$name.ko; done"
}

# guests_of_kinds KERNEL PROCESSORS: a guest for each kind of machine, or those of MODULE_KINDS.
guests_of_kinds() {
  local kind
  for kind in ${MODULE_KINDS:-voff vbs vring vall}; do
    # The older kernel knows no confidential VMBus.
    [[ $1 == 6.12 && $kind == v[ra]* ]] || say "$1x$2$kind"
  done
}

# machine_script KIND DIRECTORY FILES DEVICES [WORDS [OPTIONS]]: prints what starts the guest's host, with
# devices in the words of vmbus-host, and machine, with words for its kernel and options. A port has one end
# for both directions, and can be opened once. GUEST.control goes to the host's control pipe, and GUEST.disk,
# where there is one, gets what disk.img is at the end.
machine_script() {
  local commands="<>$2/$guest.commands >&0" control="$2/$guest.control" path='' image=''
  [[ " ${bed_outputs[*]} " != *' disk '* ]] || image="cat disk.img >$2/$guest.disk"
  if [[ $1 == file ]]; then
    commands="<$scratch/$guest.commands >>$2/$guest.commands"
    control=$scratch/$guest.control
    path="PATH=$programs:\$PATH"
  fi
  cat <<END
$path
cd "\$(mktemp -d)"
truncate -s 48M disk.img
vmbus-host --socket host.sock --control control --workers $(processors) $4 --verbose 2>$2/$guest.host &
host=\$!
until [ -S host.sock ] && [ -p control ]; do sleep 0.1; done
cat <$control >control &
vmbus-vm --kernel $3/${guest%x*} --initrd $3/initrd --memory 320M --cpus $(processors) \
  --append "quiet panic=-1 bed_kernel=${guest%x*} bed_commands=ttyS0 ${5:-}" --host host.sock ${6:-} \
  $commands 2>$2/$guest.machine
status=\$?
kill \$host
$image
exit \$status
END
}

# host_does LINE: a command for the host's control pipe.
host_does() { say "$1" >"$scratch/$guest.control"; }

guest_boots() { guest_seconds=240 guest uname -r >&3; }

connects() {
  local version=6.0
  [[ $guest != 6.* ]] || version=5.3
  [[ $guest != *v* ]] || version=${guest#*v}
  # Each byte through the console takes its time.
  guest "dmesg | grep -E 'Hypervisor detected: Microsoft Hyper-V|Vmbus version:'" >"$scratch/$guest.words"
  grep -F 'Microsoft Hyper-V' "$scratch/$guest.words"
  grep -oF "Vmbus version:$version" "$scratch/$guest.words" >&3
}

# What is nobody's fault: what a check has asked for, and what each kernel says in this machine.
says_nothing_bad() {
  guest 'dmesg | gzip' | gzip -d >"$bed_logs/$guest.dmesg"
  fails grep -iE 'BUG:|\] WARNING: |Oops:|hostile|malformed|hung task|blocked for more|invalid packet|timed out|hv_.*(error|fail)' "$bed_logs/$guest.dmesg"
  fails grep -vE -- "$bed_asked_for" <(grep -E ' (warning|error) ' "$bed_logs/$guest.machine" "$bed_logs/$guest.host")
}

powers_off() {
  guest_background off "sh -c 'sleep 1; sync; poweroff -f'"
  wait_for 120 bed_ended_well
}
