#!/bin/sh
# setup.sh [LIST]: installs the packages of tools/LIST (packages.txt) that are missing; does nothing, and needs no
# privilege, when none is.
# Servers among them are needed as programs only: they are not started, and not enabled if they were not there before.
set -eu
here=$(dirname "$0")
packages=$(sed 's/#.*//' "$here/${1:-packages.txt}")

if ! command -v dpkg-query > /dev/null; then
  echo "setup: not a Debian system; make sure that these are there:" $packages >&2
  exit 0
fi

missing=
for package in $packages; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true)
  [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "setup: installing$missing"
if [ "$(id -u)" = 0 ]; then
  as_root=
elif command -v sudo > /dev/null; then
  as_root=sudo
else
  echo "setup: these packages are missing, and without root or sudo they cannot be installed here. As root:" >&2
  echo "  apt-get install --no-install-recommends$missing" >&2
  exit 1
fi

# While packages are being installed no service may start; a policy that is already there is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '$as_root rm -f "$policy"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" > /dev/null
  $as_root chmod 755 "$policy"
fi

run_apt() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@"
}
if ! { run_apt update && run_apt install -y --no-install-recommends $missing; }; then
  echo "setup: apt-get failed; what is missing:$missing" >&2
  exit 1
fi

if command -v systemctl > /dev/null; then
  for service in nginx redis-server memcached haproxy; do
    case " $missing " in
      *" $service"*) $as_root systemctl disable --now "$service" > /dev/null 2>&1 || true ;;
    esac
  done
  case " $missing " in
    *" openssh-server "*) $as_root systemctl disable --now ssh > /dev/null 2>&1 || true ;;
  esac
fi
