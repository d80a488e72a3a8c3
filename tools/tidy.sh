#!/bin/sh
# `make tidy`: clang-tidy-19 over the sources (or those given), by .clang-tidy. Takes minutes; not part of `make test`.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- $(find src bench -name '*.cc' ! -name '*_test.cc' ! -name '*_fuzz.cc' | sort)
printf '%s\n' "$@" | xargs -P "$(nproc)" -n 4 clang-tidy-19 -p build --quiet
