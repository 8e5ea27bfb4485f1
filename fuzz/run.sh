#!/usr/bin/env bash
# Fuzzes: `fuzz/run.sh SECONDS [TARGET]...`, each target for so long, all of them unless some are named.
#
# A finding is kept in fuzz/artifacts/TARGET, printed (base64), and ends the run with code 1. What widens coverage is
# kept in fuzz/found/TARGET when SECONDS is 60 or more; the seeds in fuzz/corpus/TARGET stay as they are. To see one
# input again: `fuzz/run.sh 0 TARGET FILE`.
#
# Coverage comes from the stable compiler, by LLVM's own pass, without a sanitizer: the crate's only `unsafe` is in
# src/sys, which no target reaches but to read and write files. Overflow and debug assertions are on.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?seconds for each target}
shift
input=""
if [ "$seconds" = 0 ]; then
  input=$(realpath "${2:?a target and a file}")
  set -- "$1"
fi
[ $# -gt 0 ] || set -- frames requests txns logs snapshots quorum election pipeline

if ! command -v c++ >/dev/null; then
  echo "fuzz: left out, libFuzzer needs a C++ compiler (Debian: g++)"
  exit 0
fi

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target, build scripts and procedural macros are left out of it.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --quiet --release --locked --target "$host" --target-dir target

# Files of the run; in memory where there is such a disk, since one target writes thousands a second.
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" rookeeper-fuzz.XXXXXX)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

# Longest input, bytes: room for a session of every request, a small tree, a trial of some hundred steps.
length() {
  case $1 in
    logs | snapshots) echo 8192 ;;
    *) echo 4096 ;;
  esac
}

for target; do
  binary=target/$host/release/$target
  if [ -n "$input" ]; then
    "$binary" "$input"
    continue
  fi
  new=$scratch/$target
  [ "$seconds" -lt 60 ] || new=found/$target
  mkdir -p "$new" "artifacts/$target"
  log=$scratch/$target.log
  if ! "$binary" "$new" "corpus/$target" -max_total_time="$seconds" -max_len="$(length "$target")" -len_control=20 \
    -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 -artifact_prefix="artifacts/$target/" >"$log" 2>&1; then
    grep -vE '^#|^INFO|^WARNING|^ +[0-9]+: |^ +at |Uses: ' "$log" | tail -n 40
    echo "fuzz: $target failed; to see it again: fuzz/run.sh 0 $target fuzz/artifacts/$target/<the file named above>"
    exit 1
  fi
  rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
  covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  echo "fuzz: $target, $seconds s: nothing found, $rate inputs a second, $covered branches seen"
done
