#!/bin/bash
# Runs fuzz targets for so many seconds each: all of them, or those that are named.
#
# With the stable compiler: what cargo-fuzz sets for coverage, without a sanitizer, since
# there is no unsafe code here that one could catch. New inputs are kept in target/found;
# `fuzz/run.sh merge` takes into the corpus those that reach something new.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?seconds, or merge}
shift
targets=${*:-$(basename -s .rs fuzz_targets/*.rs)}
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --locked --release --target "$host"

for target in $targets; do
  program=$CARGO_TARGET_DIR/$host/release/$target
  found=$CARGO_TARGET_DIR/found/$target
  mkdir -p "$found" "artifacts/$target"
  if [ "$seconds" = merge ]; then
    "$program" -merge=1 -max_len=4096 "corpus/$target" "$found"
  else
    echo "== $target"
    "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
      -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$target/" "$found" "corpus/$target"
  fi
done
