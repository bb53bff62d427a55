# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# How a machine of the test bed runs commands that come in through a port: a line holds a token, a
# limit in seconds and the command; the answer's line holds the token, the status and what the command
# printed to its two outputs. Texts are in base64. Sourced.

# answer_commands DIRECTORY: one command at a time; what they leave running in the background goes on.
answer_commands() {
  while read -r token seconds command; do
    printf '%s' "$command" | base64 -d >"$1/command"
    timeout -k 1 "$seconds" sh "$1/command" </dev/null >"$1/out" 2>"$1/err"
    echo "$token $? $(base64 -w 0 "$1/out"). $(base64 -w 0 "$1/err"). end"
  done
}
