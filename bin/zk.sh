#!/bin/sh
# Every one of Apache's scripts: zkServer.sh, zkCli.sh and the others are names of this file, which reads zkEnv.sh as
# Apache's do, finds the binary beside itself or in PATH, and hands its arguments over.

# The operator's own files, which are sourced below, may be written for bash, as Apache's scripts are.
[ -z "${BASH_VERSION:-}" ] && command -v bash >/dev/null && exec bash "$0" "$@"

name=$(basename "$0")
ZOOBINDIR=$(cd "$(dirname "$0")" && pwd)
here=$(dirname "$(readlink -f "$0")")
ZOOSCRIPT=$0
export ZOOBINDIR ZOOSCRIPT
. "$here/zkEnv.sh"

for program in "$ZOOBINDIR/rookeeper" "$here/rookeeper" "$here/../../../bin/rookeeper" "$(command -v rookeeper)"; do
  [ -f "$program" ] && [ -x "$program" ] && exec "$program" "$name" "$@"
done
echo "$name: there is no rookeeper beside this script nor in PATH; install it, or put its folder into PATH" >&2
exit 127
