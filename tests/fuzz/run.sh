#!/bin/bash
# Feeds every parser random bytes, guided by coverage (libFuzzer), beginning with what lies in tests/fuzz/corpus/TARGET.
# usage: run.sh [TARGET...]     SECONDS_EACH=12 or RUNS=1000000 say for how long; what breaks one is left in target/fuzz/TARGET.
set -euo pipefail
cd "$(dirname "$0")"
targets=("$@"); [ $# -gt 0 ] || targets=(review annotations status manifests selectors)
work=$PWD/../../target/fuzz; mkdir -p "$work"
RUSTC_WRAPPER=$PWD/rustc.sh cargo build --quiet --locked --target-dir "$work/build"
limit=(-max_total_time="${SECONDS_EACH:-12}"); [ -z "${RUNS:-}" ] || limit=(-runs="$RUNS")
for target in "${targets[@]}"; do
  mkdir -p "$work/$target/found"
  "$work/build/debug/$target" "${limit[@]}" -timeout=5 -rss_limit_mb=1024 -max_len=16384 -print_final_stats=1 \
    -artifact_prefix="$work/$target/" "$work/$target/found" "corpus/$target" >"$work/$target/log" 2>&1 ||
    { tail -n 40 "$work/$target/log"; exit 1; }
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target/log") inputs"
done
