#!/bin/bash
# RUSTC_WRAPPER: gwmon's own code is built with coverage, as cargo-fuzz does it; what it depends on is not, and builds faster.
# No sanitizers, which take a nightly compiler: there is no unsafe code here.
[[ ${CARGO_PKG_NAME:-} == gwmon* && $* != *build_script_build* ]] || exec "$@"
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
