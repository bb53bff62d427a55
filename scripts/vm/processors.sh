# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: Apache-2.0
#
# What scripts/vm/storage.sh checks with two processors, with one and with four: Linux has as many channels
# of a controller. Sourced after bed.sh.

# shellcheck source=scripts/vm/storage.sh
. scripts/vm/storage.sh

# part_guests KERNEL PROCESSORS: the guests with a kernel.
part_guests() {
  local number
  for number in 1 4; do say "$1x$number"; done
}
