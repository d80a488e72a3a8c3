#!/usr/bin/env python3
"""Dual stack: unmodified servers that listen on :: or ::1, reached from the other kernel by IPv4, as ::ffff:a.b.c.d and by ::1."""
import re
import shutil
import socket
import subprocess
import sys
import threading
import unittest

import harness
import servers
from servers import ADDRESS

IPV4 = [ADDRESS, "127.0.0.1"]
MAPPED = [f"[::ffff:{address}]" for address in IPV4]
LOOPBACK = "[::1]"

NODE = """
const http = require("http");
const server = http.createServer((request, response) => {
  response.end(request.socket.remoteFamily + " " + request.socket.remoteAddress);
});
server.listen(+process.argv[2], () => console.log(JSON.stringify(server.address())));
"""

ASYNCIO = """
import asyncio, sys
async def serve(reader, writer):
    name = writer.get_extra_info("peername")
    writer.write(f"{name[0]} {len(name)}".encode())
    writer.close()
async def main():
    # As create_server(host=None) does: a socket of each family on one port, that of IPv6 with IPV6_V6ONLY.
    server = await asyncio.start_server(serve, None, int(sys.argv[1]))
    print(sorted(s.getsockname()[0] for s in server.sockets), flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

DATAGRAMS = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", int(sys.argv[1])))
print("bound", flush=True)
while True:
    data, who = s.recvfrom(100)
    s.sendto(who[0].encode(), who)
"""

ASK_DATAGRAM = """
import socket, sys
host = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(b"who", (host, int(sys.argv[2])))
data, who = s.recvfrom(100)
print(data.decode(), who[0])
"""

READ_ALL = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
text = b""
while piece := s.recv(1000): text += piece
print(text.decode())
"""

# Goes on as another image with the listener, and from there by a fork.
HEIR = """
import os, socket, sys
if len(sys.argv) == 2:
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", int(sys.argv[1]))); s.listen(); s.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, __file__, "heir", str(s.fileno())])
s = socket.socket(fileno=int(sys.argv[2]))
assert s.family == socket.AF_INET6, s.family
if os.fork() == 0:
    print("listens", s.getsockname()[0], flush=True)
    while True:
        c, who = s.accept()
        c.sendall(f"{who[0]} {c.getsockname()[0]}".encode()); c.close()
os.wait()
"""


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class Dual(harness.CobTest):
    def get(self, cob, host, port, path="", kernel=0):
        """What curl gets there, or its exit status."""
        done = cob.run("curl", "-g", "-sS", "-m", 10, f"http://{host}:{port}/{path}", kernel=kernel)
        return done.stdout if done.returncode == 0 else done.returncode

    def python(self, cob, text, *words, kernel=0):
        done = cob.run(sys.executable, "-c", text, *words, kernel=kernel)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def start_python(self, cob, text, *words):
        path = self.write_program(cob, f"program-{len(cob.children)}.py", text)
        child = cob.start(sys.executable, path, *words, kernel=1)
        return child.stdout.readline().strip()

    @needs("nginx", "curl")
    def test_nginx_on_one_socket_for_both_families(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob, listen="[::]:8080 ipv6only=off", workers=2,
                      server='location = /who { return 200 "$remote_addr $server_addr"; }')
        for host in IPV4 + MAPPED:
            address = host.strip("[]").removeprefix("::ffff:")
            self.assertEqual(self.get(cob, host, 8080, "who"), f"::ffff:{address} ::ffff:{address}")
        self.assertEqual(self.get(cob, LOOPBACK, 8080, "who"), "::1 ::1")
        self.assertEqual(self.get(cob, LOOPBACK, 8080, "memory", kernel=1), "a body from memory\n")
        self.assertIn("*:8080", cob.named("ss", "-tln").stdout)

    @needs("nginx", "curl")
    def test_nginx_with_a_socket_a_family(self):
        """ipv6only=on, nginx's default, beside 0.0.0.0 at the same port."""
        cob = self.cob(kernels=2)
        servers.nginx(cob, server='listen [::]:8080 ipv6only=on; location = /who { return 200 "$remote_addr"; }')
        for host in IPV4 + MAPPED:
            self.assertEqual(self.get(cob, host, 8080, "who"), host.strip("[]").removeprefix("::ffff:"))
        self.assertEqual(self.get(cob, LOOPBACK, 8080, "who"), "::1")
        shown = cob.named("ss", "-tln").stdout
        self.assertIn("0.0.0.0:8080", shown)
        self.assertIn("[::]:8080", shown)

    @needs("redis-server", "redis-cli")
    def test_redis_on_both_loopbacks(self):
        cob = self.cob(kernels=2)
        cob.start("redis-server", "--port", 6379, "--bind", "127.0.0.1", "::1", "--dir", cob.directory, "--save", "", kernel=1,
                  stdout=subprocess.DEVNULL)
        cli = lambda host, *words: cob.run("redis-cli", "-h", host, *words, kernel=0)
        harness.wait_until(lambda: cli("::1", "ping").stdout == "PONG\n", what="redis on ::1")
        self.assertEqual(cli("127.0.0.1", "set", "k", "v").stdout, "OK\n")
        self.assertEqual(cli("::1", "get", "k").stdout, "v\n")
        self.assertRegex(cli("::1", "client", "list").stdout, r"addr=\[::1\]:\d+ laddr=\[::1\]:6379")
        self.assertNotEqual(cli(ADDRESS, "ping").returncode, 0)  # bound to neither

    @needs("curl")
    def test_python_http_server(self):
        cob = self.cob(kernels=2)
        log = open(cob.directory / "http.log", "w")
        cob.start(sys.executable, "-u", "-m", "http.server", "--bind", "::", "-d", cob.directory, 8123, kernel=1, stdout=log, stderr=log)
        log.close()
        servers.wait_for_port(cob, 8123)
        (cob.directory / "page").write_text("a page\n")
        for host in IPV4 + MAPPED + [LOOPBACK]:
            self.assertEqual(self.get(cob, host, 8123, "page"), "a page\n", host)
        peers = re.findall(r"(?m)^(\S+) - - .*page", (cob.directory / "http.log").read_text())
        self.assertEqual(peers, ["::ffff:" + a for a in IPV4] * 2 + ["::1"])

    def test_asyncio_on_all_interfaces(self):
        cob = self.cob(kernels=2)
        self.assertEqual(self.start_python(cob, ASYNCIO, 8200), "['0.0.0.0', '::']")
        for host, seen in ((ADDRESS, f"{ADDRESS} 2"), ("::ffff:127.0.0.1", "127.0.0.1 2"), ("::1", "::1 4")):
            self.assertEqual(self.python(cob, READ_ALL, host, 8200), seen)

    @needs("nodejs", "curl")
    def test_node_listens_on_both_by_default(self):
        cob = self.cob(kernels=2)
        path = self.write_program(cob, "server.js", NODE)
        node = cob.start("nodejs", path, 8300, kernel=1)
        self.assertIn('"address":"::","family":"IPv6"', node.stdout.readline())
        self.assertEqual(self.get(cob, ADDRESS, 8300), f"IPv6 ::ffff:{ADDRESS}")
        self.assertEqual(self.get(cob, LOOPBACK, 8300), "IPv6 ::1")

    def test_datagrams(self):
        cob = self.cob(kernels=2)
        self.assertEqual(self.start_python(cob, DATAGRAMS, 8400), "bound")
        for host, seen in ((ADDRESS, f"::ffff:{ADDRESS} {ADDRESS}"), (f"::ffff:{ADDRESS}", f"::ffff:{ADDRESS} ::ffff:{ADDRESS}"),
                           ("127.0.0.1", "::ffff:127.0.0.1 127.0.0.1"), ("::1", "::1 ::1")):
            self.assertEqual(self.python(cob, ASK_DATAGRAM, host, 8400), seen)
        self.assertIn("*:8400", cob.named("ss", "-uan").stdout)

    def test_an_heir_knows_the_family(self):
        cob = self.cob(kernels=2)
        self.assertEqual(self.start_python(cob, HEIR, 8500), "listens ::")
        self.assertEqual(self.python(cob, READ_ALL, ADDRESS, 8500), f"::ffff:{ADDRESS} ::ffff:{ADDRESS}")
        self.assertEqual(self.python(cob, READ_ALL, "::1", 8500), "::1 ::1")

    def test_a_revived_listener_serves_both_again(self):
        cob = self.cob(kernels=2)
        self.assertEqual(self.start_python(cob, ASYNCIO.replace("None,", '"::",'), 8600), "['::']")
        self.assertEqual(self.python(cob, READ_ALL, "::1", 8600), "::1 4")
        cob.kill_kernel(1)
        def answers():
            done = cob.run(sys.executable, "-c", READ_ALL, "::1", 8600, kernel=0)
            return done.stdout.strip() == "::1 4"
        harness.wait_until(answers, 10, "the listener on :: to be back")

    def test_what_is_the_hosts_stays_the_hosts(self):
        """A listener of the host's on ::1 is reached from the cob; one of the cob's is not in the host's way."""
        cob = self.cob(kernels=2)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as host:
            def serve():
                c, who = host.accept()
                c.sendall(who[0].encode())
                c.close()
            thread = threading.Thread(target=serve)
            thread.start()
            self.assertEqual(self.python(cob, READ_ALL, "::1", host.getsockname()[1]), "::1")
            thread.join()
        refused = cob.run(sys.executable, "-c", READ_ALL, "::1", 9, kernel=0)
        self.assertIn("ConnectionRefusedError", refused.stderr)


if __name__ == "__main__":
    harness.main()
