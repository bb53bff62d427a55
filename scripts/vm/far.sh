# shellcheck shell=bash disable=SC2034,SC2154
# SPDX-License-Identifier: Apache-2.0
#
# Guests with a network, and its far end: commands run at either of them. Sourced after machine.sh, in place
# of whose `guest` comes one that is stricter; `far` is a channel of the part.

# By its path, since busybox's shell prefers its own.
ip=$(realpath -m /bin/ip)

# Addresses of the guest's interface and of the far end's.
guest4=192.0.2.2 far4=192.0.2.1

# A command line of several commands fails with the first one that does.
guest() { run_by commands "set -e
  $*"; }

# far COMMAND...: as guest, on the machine that the guest runs on.
far() { run_by far "set -e
  $*"; }
