#!/bin/sh
# `make test`: unit tests under the sanitizers, then every test of the release build. The last ctest closes the run.
# Everything runs, whatever failed before; the exit status tells. Skipped tests are printed by name.
set -u
cd "$(dirname "$0")/.."
failed=
skipped=$(mktemp)
trap 'rm -f "$skipped"' EXIT

# sanitized PRESET REGEX TARGET...: builds the unit tests (and the short runs of the fuzzers, under asan) of the preset and
# runs those that match.
sanitized() {
  preset=$1 regex=$2
  shift 2
  echo "=== $preset"
  cmake --preset "$preset" > "build-$preset.log" 2>&1 || { cat "build-$preset.log"; failed="$failed $preset"; return; }
  rm -f "build-$preset.log"
  targets=$(cd "build-$preset" && ninja -t targets all | sed -n "s/^\([a-z0-9_]*_\(test\|smoke\)\): phony\$/\1/p" | grep -xE "$*" || true)
  [ -n "$targets" ] || { echo "no unit tests match $*"; return; }
  cmake --build "build-$preset" --target $targets || { failed="$failed $preset-build"; return; }
  (cd "build-$preset" && ctest --output-on-failure -L 'unit|fuzz' -R "$regex" -j 2) > "build-$preset/ctest.out" || failed="$failed $preset"
  cat "build-$preset/ctest.out"
  sed -n "s/.*Test *#[0-9]*: \([^ ]*\) \.*\*\*\*Skipped.*/$preset \1/p" "build-$preset/ctest.out" >> "$skipped"
}

sanitized asan . '[a-z0-9_]*_(test|smoke)'
sanitized tsan '^unit\.(message|base|shim)$' '(message|base|shim)_test'

if [ -s "$skipped" ]; then
  echo "SKIPPED under the sanitizers ($(wc -l < "$skipped")):"
  sed 's/^/  /' "$skipped"
fi
[ -z "$failed" ] || echo "FAILED before the last run:$failed"
echo "=== release"
(cd build && ctest --output-on-failure) || failed="$failed release"
[ -z "$failed" ]
