#!/bin/bash
# `make demo`: two kernels, nginx on kernel 1, curl on kernel 0, one address; then the table beside plain Linux.
# COB_BUILD names another build tree, COB_DEMO_BENCH gives `cob bench servers` other words than --fast; "no": no table. Everything lives under a private name and a temporary directory, and is taken down also on failure and interrupt.
set -euo pipefail
cd "$(dirname "$0")/.."
cob=$(realpath "${COB_BUILD:-build}")/cob
name=demo-$$
address=10.77.0.1
port=8080
export PATH=$PATH:/usr/sbin:/sbin
directory=$(mktemp -d)
nginx_pid=

# Asks a child to end, and insists after three seconds.
end() {
  kill "$1" 2> /dev/null || true
  for _ in $(seq 60); do
    kill -0 "$1" 2> /dev/null || break
    sleep 0.05
  done
  kill -KILL "$1" 2> /dev/null || true
  wait "$1" 2> /dev/null || true
}
clean_up() {
  local status=$?
  trap '' INT TERM
  set +e
  # Not by the variables: the interrupt may have come between a start and its assignment.
  local pid
  for pid in $(jobs -p); do end "$pid"; done
  "$cob" down --name "$name" > /dev/null 2>&1 || true
  rm -rf "$directory"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Runs in the background of the shell, so that an interrupt is taken at once.
attended() {
  "$@" &
  wait $!
}

chmod 755 "$directory"
mkdir "$directory/www" "$directory/logs" "$directory/temporary"
head -c 200000 /dev/urandom | base64 > "$directory/www/large.txt"
echo 'hello from nginx on cob' > "$directory/www/index.html"
cat > "$directory/nginx.conf" << CONFIGURATION
daemon off;
master_process off;
worker_processes 1;
pid $directory/nginx.pid;
error_log $directory/logs/error.log;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $directory/temporary;
  proxy_temp_path $directory/temporary;
  fastcgi_temp_path $directory/temporary;
  uwsgi_temp_path $directory/temporary;
  scgi_temp_path $directory/temporary;
  server {
    listen $port;
    root $directory/www;
    location = /memory { return 200 "a body from memory\n"; }
  }
}
CONFIGURATION

cores=$(nproc)
say "\$ cob up --kernels 2 --name $name"
if [ "$cores" -ge 2 ]; then
  "$cob" up --kernels 2 --name "$name" --ip "$address/24"
else
  echo "(one core only: both kernels share it, and will be slow)"
  core=$(taskset -pc $$ | sed 's/.*: //')
  "$cob" up --cores "$core,$core" --name "$name" --ip "$address/24"
fi

say "\$ cob run -k 1 --name $name -- nginx"
"$cob" run -k 1 --name "$name" -- nginx -p "$directory" -c "$directory/nginx.conf" -e "$directory/logs/error.log" &
nginx_pid=$!

fetch() { attended "$cob" run -k 0 --name "$name" -- curl -sS --max-time 10 "http://$address:$port/$1" -o "$directory/fetched"; }
for attempt in $(seq 50); do
  fetch memory 2> /dev/null && break
  kill -0 "$nginx_pid" 2> /dev/null || { cat "$directory/logs/error.log" >&2; echo "nginx did not start" >&2; exit 1; }
  [ "$attempt" -lt 50 ] || { fetch memory; exit 1; }
  sleep 0.1
done

say "\$ cob run -k 0 --name $name -- curl http://$address:$port/"
fetch ''
cat "$directory/fetched"
check() { cmp "$directory/fetched" "$1" || { echo "the body of $2 is wrong" >&2; exit 1; }; }
check "$directory/www/index.html" /
fetch large.txt
check "$directory/www/large.txt" /large.txt
fetch memory
echo 'a body from memory' > "$directory/expected"
check "$directory/expected" /memory
echo "bodies of /, /large.txt ($(wc -c < "$directory/www/large.txt") bytes) and /memory: equal"

say "\$ cob ps --name $name"
"$cob" ps --name "$name"
say "\$ cob status --name $name"
"$cob" status --name "$name"

end "$nginx_pid"
"$cob" down --name "$name"

table=${COB_DEMO_BENCH:---fast}
if [ "$table" = no ]; then
  say "(the table beside plain Linux is left out: COB_DEMO_BENCH=no)"
else
  say "\$ cob bench servers $table"
  attended timeout --foreground 120 "$cob" bench servers $table
fi
