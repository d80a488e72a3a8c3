#!/bin/sh
# cross.sh ARCHITECTURE [TARGET...]: builds what an island of that architecture runs (or these targets) in build-ARCHITECTURE, with Debian's
# cross compiler and the libraries that tools/sysroot.sh fetches. Exit status 77: the compiler or the libraries cannot be had.
set -eu
cd "$(dirname "$0")/.."
architecture=$1
shift
isa=$(sed -n "/\"name\": \"$architecture\"/,/}/s/.*\"COB_CROSS_ISA\": \"\([a-z0-9_]*\)\".*/\1/p" CMakePresets.json)
if [ -z "$isa" ]; then
  echo "cross.sh: CMakePresets.json has no preset '$architecture'" >&2
  exit 2
fi
if ! command -v "$isa-linux-gnu-g++" > /dev/null; then
  echo "cross.sh: $isa-linux-gnu-g++ is not installed (package g++-$isa-linux-gnu)" >&2
  exit 77
fi
if ! tools/sysroot.sh "$architecture" "build-$architecture/sysroot" > "build-$architecture.log" 2>&1; then
  cat "build-$architecture.log" >&2
  rm -f "build-$architecture.log"
  echo "cross.sh: Debian's libraries for $architecture cannot be had" >&2
  exit 77
fi
rm -f "build-$architecture.log"
test -f "build-$architecture/build.ninja" || cmake --preset "$architecture"
[ $# -gt 0 ] || set -- cob-agent cob-kernel cob_shim
exec cmake --build "build-$architecture" --target "$@"
