#!/bin/sh
# sysroot.sh ARCHITECTURE DIRECTORY: what cob is linked with, of another Debian architecture, unpacked into DIRECTORY. Nothing is installed on
# this machine: apt works in a state of its own beneath DIRECTORY, and checks signatures as ever. Does nothing when all is there.
set -eu
architecture=$1
directory=$2
packages="libssl-dev libssl3 libfmt-dev liburing-dev liburing2 libgtest-dev libgmock-dev"

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
stamp="$directory/.of"
[ "$(cat "$stamp" 2> /dev/null)" != "$packages" ] || exit 0
. "$(dirname "$0")/../src/island/image/foreign-apt.sh"
foreign_apt "$architecture" "$directory/apt"
cd "$directory/apt"
apt-get -q download $packages
for package in *.deb; do
  dpkg-deb -x "$package" "$directory"
  rm "$package"
done
echo "$packages" > "$stamp"
