# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts share. Sourced, from any directory: it goes to the root of the repository.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Colours for people, not for files.
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' red='' green='' plain=''
fi

say() { printf '%s\n' "$*"; }

# One clear line, and the end.
die() {
  printf '%s%s%s\n' "$red" "$*" "$plain" >&2
  exit 1
}

# --- Cleaning up -----------------------------------------------------------------------------------

# Commands to run at the end, the last one first, however the end comes.
cleanups=()

at_exit() { cleanups+=("$*"); }

run_cleanups() {
  local status=$? index
  trap - EXIT
  # A second signal, as one that is sent to all, must not cut this short.
  trap '' INT TERM HUP
  set +e
  # The end may come when the group is there, and its number not yet known.
  [[ $inside != next ]] || inside=${!:-}
  [[ -z $inside ]] || end_group "$inside"
  for ((index = ${#cleanups[@]} - 1; index >= 0; index--)); do
    eval "${cleanups[index]}"
  done
  exit "$status"
}

trap run_cleanups EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Sets `scratch` to a new directory that goes away at the end. Sockets lie in it: short names.
make_scratch() {
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/vmbus.XXXXXX")
  at_exit "rm -rf '$scratch'"
}

# Process ids by name, of what runs in the background.
declare -A pids=()

# launch NAME COMMAND...: starts a process that ends with this script; its output goes to
# $scratch/NAME.log.
launch() {
  local name=$1
  shift
  "$@" </dev/null >"$scratch/$name.log" 2>&1 &
  pids[$name]=$!
  at_exit "end '$name'"
}

running() { kill -0 "${pids[$1]:-none}" 2>/dev/null; }

# Ends a process, kindly, then not. Nothing happens when it is gone. Sets `ended_with` to its status.
end() {
  local name=$1 pid=${pids[$1]:-}
  ended_with=0
  [[ -n $pid ]] || return 0
  kill "$pid" 2>/dev/null || true
  wait_for 10 gone "$name" || kill -9 "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || ended_with=$?
  unset "pids[$name]"
}

gone() { ! running "$1"; }

# --- What must be there ----------------------------------------------------------------------------

swift_needed=6.3
swift_page=https://www.swift.org/install/linux

need_swift() {
  local version
  command -v swift >/dev/null ||
    die "Swift $swift_needed or newer is needed and was not found: see $swift_page."
  version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9.]+).*/\1/p')
  printf '%s\n' "$swift_needed" "${version:-0}" | sort -VC ||
    die "Swift $swift_needed or newer is needed, not ${version:-an unknown version}: see $swift_page."
}

apt_updated=no

# Installs the Debian packages that are lacking where that is allowed; otherwise prints the line to
# run and stops.
need_packages() {
  local package lacking=() sudo=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] ||
      lacking+=("$package")
  done
  ((${#lacking[@]} > 0)) || return 0
  command -v apt-get >/dev/null ||
    die "These Debian packages, or what they are called here, are needed: ${lacking[*]}"
  if ((EUID != 0)); then
    sudo=(sudo -n)
    sudo -n true 2>/dev/null ||
      die "Packages are lacking. Run: sudo apt-get update && sudo apt-get install -y ${lacking[*]}"
  fi
  say "Installing ${lacking[*]}"
  if [[ $apt_updated == no ]]; then
    "${sudo[@]}" apt-get update -qq >/dev/null || die "apt-get update failed."
    apt_updated=yes
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${lacking[@]}" >/dev/null ||
    die "Installing failed. Run: sudo apt-get install -y ${lacking[*]}"
}

# What the package's targets for real machines are linked with: without it nothing builds.
need_libraries() { need_packages pkg-config libbpf-dev libssl-dev libudev-dev; }

# Builds programs of the package for use; they lie in $programs.
programs=$root/.build/release

build_programs() {
  local product cache=none
  for product in "$@"; do
    # The manifest looks for nbdkit's header, and one that an earlier run has cached would not see that
    # it has come.
    swift build -c release --manifest-cache $cache --product "$product"
    cache=local
  done
}

# build_standalone PRODUCT...: programs that carry Swift's libraries within them, in $standalone.
standalone=.build-package/release
build_standalone() {
  local product libraries
  # A library does not look there by itself.
  libraries=$(dirname "$(dirname "$(readlink -f "$(command -v swift)")")")/lib/swift_static/linux
  for product; do
    swift build -c release --static-swift-stdlib -Xlinker "-L$libraries" --scratch-path .build-package \
      --manifest-cache none --product "$product"
  done
}

# page_block PAGE NAME: the code block that the comment <!-- NAME --> names.
page_block() {
  awk -v mark="<!-- $2 -->" '
    /^```/ && inside { exit }
    inside { print }
    /^```/ && marked { inside = 1 }
    $0 == mark { marked = 1 }
  ' "$1"
}

readme_block() { page_block README.md "$1"; }

# --- Waiting and steps -----------------------------------------------------------------------------

# wait_for SECONDS COMMAND...: tries until the command succeeds. Fails when the time is over.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# The process group of what `within` runs. An interrupt from the terminal does not reach it.
inside=''

end_group() {
  kill -- "-$1" 2>/dev/null || true
  wait_for 2 not_there "-$1" || kill -9 -- "-$1" 2>/dev/null || true
}

not_there() { ! kill -0 -- "$1"; }

# within SECONDS COMMAND...: runs a command or a function and ends it, with all that it started,
# when the time is over. Sets `status`: the command's, or 124 when it was ended. It never fails
# itself, and must not be called where failures are being caught (`if`, `||`): a function's failed
# commands would go unnoticed there.
within() {
  local end=$((SECONDS + $1)) pid
  shift
  status=0
  # A process group of its own, so that what the command started ends with it.
  inside=next
  set -m
  (
    trap - EXIT INT TERM HUP
    "$@"
  ) </dev/null &
  pid=$!
  set +m
  inside=$pid
  while kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS >= end)); then
      kill -9 -- "-$pid" 2>/dev/null || true
      wait "$pid" 2>/dev/null || true
      status=124
      inside=''
      return
    fi
    sleep 0.05
  done
  wait "$pid" || status=$?
  inside=''
}

# What processes that should be running said before they ended.
show_ended() {
  local name
  for name in "${!pids[@]}"; do
    running "$name" || tail -n 20 "$scratch/$name.log" | sed "s/^/    $name: /"
  done
}

# The lines of a log that say what failed; where none does, the last ones.
failures_in() {
  local lines
  lines=$(grep -aE '✘|[Ee]rror: |ERROR: |SUMMARY: |WARNING: ThreadSanitizer|Fatal|^FAILED' "$1" | head -n 15) ||
    lines=$(tail -n 5 "$1")
  cut -c 1-400 <<<"$lines" | sed 's/^/    /'
}

step_rows=()
# Of those that failed: the name, and what their logs say of it.
step_failures=()
steps_passed=0
steps_failed=0
# Where the steps' logs go; set it to keep them.
step_logs=''
# Whether other shells have steps at the same time: then what a step says comes in one piece, at its end.
steps_together=no

# step NAME SECONDS COMMAND...: one row of the closing table. A command tells facts for its row by
# writing them to descriptor 3. What it printed is shown when it fails. Sets `status`, as `within`.
step() {
  local name=$1 seconds=$2 start took facts log
  shift 2
  [[ -n $step_logs ]] || step_logs=$scratch
  log=$step_logs/${name// /-}.log
  [[ $steps_together == yes ]] || announce_step
  start=$(date +%s%N)
  within "$seconds" "$@" >"$log" 2>&1 3>"$log.facts"
  took=$((($(date +%s%N) - start) / 100000000))
  facts=$(paste -sd ';' "$log.facts" | sed 's/;/; /g')
  rm -f "$log.facts"
  {
    flock 9
    [[ $steps_together == no ]] || announce_step
    end_step
  } 9>"$step_logs/.lock"
}

announce_step() { printf '%s%s%s\n' "$bold" "$name" "$plain"; }

# The end of `step`, with its variables.
end_step() {
  local word colour
  if ((status == 0)); then
    word=ok colour=$green
    steps_passed=$((steps_passed + 1))
  else
    word=FAILED colour=$red
    steps_failed=$((steps_failed + 1))
    ((status != 124)) || facts+="${facts:+; }ended after $seconds s"
    tail -n 60 "$log" | sed 's/^/    /'
    show_ended
    step_failures+=("$name"$'\n'"$(failures_in "$log")")
  fi
  step_rows+=("$(printf '  %s%-6s%s  %-40s %3d:%02d.%d  %s' "$colour" "$word" "$plain" "$name" \
    $((took / 600)) $((took / 10 % 60)) $((took % 10)) "$facts")")
  [[ -z $facts ]] || printf '    %s\n' "$facts"
}

# Shells that run beside this one.
shells=()

# side_by_side FUNCTION WORD...: calls the function once with each word, all at once, in a shell each. The
# steps of all of them are steps of this script, in the order of the words.
side_by_side() {
  local function=$1 word index words=("${@:2}")
  at_exit end_shells
  for word in "${words[@]}"; do
    beside "$function" "$word" </dev/null &
    shells+=($!)
  done
  for index in "${!words[@]}"; do
    status=0
    wait "${shells[index]}" || status=$?
    take_steps "$scratch/steps.${words[index]}"
    ((status == 0)) || {
      step_failures+=("${words[index]} ended with status $status")
      steps_failed=$((steps_failed + 1))
    }
  done
  shells=()
}

# What one of these shells runs. It ends with this script.
beside() {
  cleanups=() step_rows=() step_failures=() steps_together=yes
  trap run_cleanups EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  at_exit keep_steps "'$scratch/steps.$2'"
  "$1" "$2"
}

end_shells() {
  local pid
  ((${#shells[@]} == 0)) || kill "${shells[@]}" 2>/dev/null
  # Each of them ends what it runs.
  for pid in "${shells[@]}"; do wait_for 5 not_there "$pid" || kill -9 "$pid"; done
}

keep_steps() {
  ((${#step_rows[@]} == 0)) || printf '%s\0' "${step_rows[@]}" >"$1.rows"
  ((${#step_failures[@]} == 0)) || printf '%s\0' "${step_failures[@]}" >"$1.failures"
}

take_steps() {
  local rows=() failures=()
  [[ ! -f $1.rows ]] || mapfile -d '' -t rows <"$1.rows"
  [[ ! -f $1.failures ]] || mapfile -d '' -t failures <"$1.failures"
  step_rows+=("${rows[@]}")
  step_failures+=("${failures[@]}")
  steps_failed=$((steps_failed + ${#failures[@]}))
  steps_passed=$((steps_passed + ${#rows[@]} - ${#failures[@]}))
}

# A step that what follows stands on: when it fails, the table comes at once.
must() {
  step "$@"
  ((status == 0)) || {
    finish_steps || true
    exit 1
  }
}

# The table and the verdict; the status is 0 when every step held.
finish_steps() {
  say ''
  printf '%s\n' "${step_rows[@]}"
  say ''
  ((steps_failed == 0)) || printf '%s\n' "${step_failures[@]}" ''
  say "$steps_passed passed, $steps_failed failed"
  ((steps_failed == 0))
}

# for_valgrind PROGRAM: a copy of it without debug information, which valgrind 3.19 can't read all of; the
# names of functions stay.
for_valgrind() {
  objcopy --strip-debug "$1" "$scratch/${1##*/}"
  say "$scratch/${1##*/}"
}
