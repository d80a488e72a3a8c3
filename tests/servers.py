"""Real servers for the end-to-end tests: Debian's nginx, redis, memcached and haproxy with private configurations.

Each function starts one on a kernel of a cob and waits until it accepts; the harness ends it. Standard library only.
"""
import os
import pathlib
import shutil
import signal
import sys

import harness

ADDRESS = "10.77.0.1"
PROBE = ("import socket,sys,time\n"
         "for i in range(200):\n"
         "  try: socket.create_connection((sys.argv[1],int(sys.argv[2])),2).close(); sys.exit(0)\n"
         "  except OSError: time.sleep(0.05)\n"
         "sys.exit(1)\n")

# Takes one connection (serve) or makes it (go), sends or receives so many bytes, prints their SHA-256.
TRANSFER = """
import hashlib, random, socket, sys
role, what, address, port, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
if role == "serve":
    l = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind((address if ":" in address else "0.0.0.0", port)); l.listen(1)
    print("listening", flush=True)
    s, _ = l.accept()
else:
    s = socket.create_connection((address, port), 10)
    s.settimeout(60)
digest, left, r = hashlib.sha256(), size, random.Random(size)
while left:
    if what == "send":
        data = r.randbytes(min(left, r.randrange(1, 400_000))); s.sendall(data)
    else:
        data = s.recv(min(left, 1 << 20))
        if not data: break
    digest.update(data); left -= len(data)
if what == "send": s.shutdown(socket.SHUT_WR); s.recv(1)
print(digest.hexdigest(), flush=True)
"""

def wait_for_port(cob, port, kernel=0):
    done = cob.run(sys.executable, "-c", PROBE, getattr(cob, "address", ADDRESS), port, kernel=kernel)
    if done.returncode != 0:
        raise AssertionError(f"nothing accepts on port {port}: {done.stderr}{cob.log()}")


def end_nginx(root):
    """Ends master and workers: a killed master would leave its workers running."""
    try:
        pid = int((root / "nginx.pid").read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return
    harness.wait_until(lambda: not harness.is_alive(pid), what="nginx's end")


def nginx(cob, port=8080, kernel=1, workers=1, server="", listen=None, daemon="off", probe=0, master="on", **options):
    """`probe`: the kernel whose program finds out that it accepts."""
    root = pathlib.Path(cob.directory) / f"nginx-{port}"
    (root / "www").mkdir(parents=True)
    root.chmod(0o755)
    cob.directory.chmod(0o755)
    (root / "www" / "index.html").write_text("<h1>served from a file</h1>\n" * 20)
    (root / "nginx.conf").write_text(f"""
daemon {daemon};
master_process {master};
worker_processes {workers};
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 12000; }}
http {{
  access_log off;
  client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;
  keepalive_requests 1000000;
  server {{
    listen {listen or port} backlog=4096;
    root {root}/www;
    location = /memory {{ return 200 "a body from memory\\n"; }}
    {server}
  }}
}}
""")
    log = open(root / "out", "w")
    process = cob.start(shutil.which("nginx"), "-p", root, "-c", root / "nginx.conf", kernel=kernel, stdout=log, stderr=log,
                        **options)
    log.close()
    process.root = root
    cob.endings.append(lambda: end_nginx(root))
    harness.wait_until(lambda: (root / "nginx.pid").exists() and (root / "nginx.pid").read_text().strip(),
                       what="nginx's pid file")
    wait_for_port(cob, port, probe)
    return process


def redis(cob, port=6379, kernel=1, *words, probe=0):
    root = pathlib.Path(cob.directory) / f"redis-{port}"
    root.mkdir()
    with open(root / "out", "w") as out:
        process = cob.start("redis-server", "--port", port, "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", root, *words,
                            kernel=kernel, stdout=out, stderr=out)
    process.root = root
    wait_for_port(cob, port, probe)
    return process


def memcached(cob, port=11211, kernel=1, threads=4):
    process = cob.start("memcached", "-u", "nobody", "-U", 0, "-l", "0.0.0.0", "-p", port, "-t", threads, "-c", 2000,
                        kernel=kernel)
    wait_for_port(cob, port)
    return process


def haproxy(cob, port, backend_port, kernel=0):
    root = pathlib.Path(cob.directory) / f"haproxy-{port}"
    root.mkdir()
    (root / "haproxy.cfg").write_text(f"""
global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind 0.0.0.0:{port}
  default_backend b
backend b
  server one {ADDRESS}:{backend_port}
""")
    with open(root / "out", "w") as out:
        process = cob.start("haproxy", "-db", "-f", root / "haproxy.cfg", kernel=kernel, stderr=out)
    process.root = root
    wait_for_port(cob, port)
    return process
