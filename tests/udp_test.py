#!/usr/bin/env python3
"""UDP inside a cob, and beside it: unmodified programs that speak datagrams, on two kernels; what is the host's stays the host's."""
import os
import shutil
import socket
import subprocess
import sys
import threading
import unittest

import harness
from servers import ADDRESS

SECONDS = 20


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None and not os.access(f"/usr/sbin/{p}", os.X_OK)]
    return unittest.skipIf(missing, f"not installed: {' '.join(missing)}")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("0.0.0.0", 0))
        return s.getsockname()[1]


def is_taken(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


# Asks until there is an answer; the server may still be starting.
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.2)
for i in range(100):
    s.sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2])))
    try:
        print(s.recv(70000).decode(), end="")
        break
    except TimeoutError:
        pass
"""

SOCKETSERVER = """
import socketserver, sys
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        sock.sendto(data.upper(), self.client_address)
server = socketserver.ThreadingUDPServer(("0.0.0.0", int(sys.argv[1])), Handler)
server.max_packet_size = 65536
print("bound", flush=True)
server.serve_forever()
"""

LENGTHS = """
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], int(sys.argv[2])))
for bytes in (0, 1, 64, 1500, 2032, 2048, 9000, 65507):
    text = bytes * b"a"
    s.send(text)
    assert s.recv(70000) == text.upper(), bytes
print("equal")
"""

# Says its name to whoever asks.
NAMED = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("bound", flush=True)
while True:
    data, who = s.recvfrom(100)
    s.sendto(sys.argv[2].encode(), who)
"""

MANY_SOURCES = """
import socket, sys
reached = {}
for i in range(100):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    answers = set()
    for turn in range(3):
        s.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
        answers.add(s.recv(100).decode())
    assert len(answers) == 1, answers
    name = answers.pop()
    reached[name] = reached.get(name, 0) + 1
print(*sorted(name for name, count in reached.items() if count >= 10))
"""

MEMBER = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
group = struct.pack("4s4s", socket.inet_aton("239.1.2.3"), socket.inet_aton("0.0.0.0"))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
print("joined", flush=True)
s.settimeout(10)
print(s.recv(100).decode(), s.recv(100).decode(), flush=True)
s.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, group)
"""

SENDER = """
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for text in ("first", "second"):
    s.sendto(text.encode(), ("239.1.2.3", int(sys.argv[1])))
print(os.readlink(f"/proc/self/fd/{s.fileno()}"))
"""

# Whose a socket is after what; the second argument is a port of the host's, where it answers.
DECIDES = """
import os, socket, sys
host = ("127.0.0.1", int(sys.argv[1]))
def is_cob(s): return os.readlink(f"/proc/self/fd/{s.fileno()}") == "anon_inode:[eventfd]"
def fresh():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    assert is_cob(s)
    return s
def ask(s):
    s.sendto(b"who?", host)
    assert s.recv(100) == b"the host"
    assert not is_cob(s)
s = fresh(); ask(s)                                   # never bound
s = fresh(); s.connect(host); s.send(b"who?"); assert s.recv(100) == b"the host"; assert not is_cob(s)
s = fresh(); s.bind(("0.0.0.0", 0)); port = s.getsockname()[1]; ask(s)  # bound, nothing exchanged
s = fresh(); s.bind(("127.0.0.1", 0)); ask(s)
served = fresh(); served.bind(("127.0.0.1", 0))       # a cob socket on loopback is reached by another
s = fresh(); s.sendto(b"x", served.getsockname()); assert served.recv(10) == b"x" and is_cob(s) and is_cob(served)
s.sendto(b"y", served.getsockname()); assert served.recv(10) == b"y"
try:
    served.sendto(b"x", ("192.0.2.1", 9))             # decided, and there is no way out
    assert False
except OSError as problem:
    assert problem.errno == 101, problem
assert socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
print("decided")
"""

FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
r = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
r.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
r.bind(("0.0.0.0", 0))
for i in range(1000): s.sendto(1000 * b"x", (sys.argv[1], r.getsockname()[1]))
r.settimeout(5)
r.recv(2000)
print("flooded")
"""


class HostServer:
    """Answers "the host" to datagrams on the host's loopback."""

    def __enter__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def serve(self):
        while True:
            data, who = self.socket.recvfrom(100)
            if data == b"end":
                return
            self.socket.sendto(b"the host", who)

    def __exit__(self, *_):
        self.socket.sendto(b"end", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


# Sets options, and says what of them is left behind an exec, and whether it may send more than the link carries.
KEEPER = """
import os, socket, sys
OPTIONS = [(socket.IPPROTO_IP, 1, 0x20), (socket.IPPROTO_IP, 2, 9), (socket.IPPROTO_IP, 10, 2), (socket.IPPROTO_IP, 33, 3)]
if sys.argv[1] == "6":
    OPTIONS += [(socket.IPPROTO_IPV6, 67, 0x40), (socket.IPPROTO_IPV6, 16, 7), (socket.IPPROTO_IPV6, 23, 2), (socket.IPPROTO_IPV6, 62, 1)]
if sys.argv[2] != "again":
    s = socket.socket(socket.AF_INET6 if sys.argv[1] == "6" else socket.AF_INET, socket.SOCK_DGRAM)
    if sys.argv[2] == "bound": s.bind(("", 0))
    for level, name, value in OPTIONS: s.setsockopt(level, name, value)
    s.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-c", open("/proc/self/cmdline").read().split("\\0")[2], sys.argv[1], "again", str(s.fileno())])
s = socket.socket(fileno=int(sys.argv[3]))
print([s.getsockopt(level, name) for level, name, _ in OPTIONS])
"""


class Udp(harness.CobTest):
    def test_exec_carries_what_was_set(self):
        cob = self.cob(kernels=1)
        for family in "46":
            for how in ("bound", "unbound"):
                with self.subTest(family=family, how=how):
                    words = (sys.executable, "-c", KEEPER, family, how)
                    expected = subprocess.run(words, capture_output=True, text=True, check=True).stdout
                    self.assertEqual(self.python(cob, KEEPER, family, how), expected)
                    self.assertIn("[32, 9, 2, 3", expected)

    def start_python(self, cob, script, *words, kernel, says="bound"):
        child = cob.start(sys.executable, "-c", script, *words, kernel=kernel)
        self.assertEqual(child.stdout.readline().strip(), says)
        return child

    def python(self, cob, script, *words, kernel=0):
        done = cob.run(sys.executable, "-c", script, *words, kernel=kernel, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def ask(self, cob, port, text, kernel=0, address=ADDRESS):
        return self.python(cob, ASK, address, port, text, kernel=kernel)

    def test_a_server_answers_both_kernels(self):
        cob = self.cob(kernels=2)
        self.start_python(cob, SOCKETSERVER, 7001, kernel=1)
        for kernel in (0, 1):
            for address in (ADDRESS, "127.0.0.1"):
                self.assertEqual(self.python(cob, LENGTHS, address, 7001, kernel=kernel), "equal\n")

    def test_whose_a_socket_is(self):
        cob = self.cob(kernels=2)
        with HostServer() as host:
            for kernel in (0, 1):
                self.assertEqual(self.python(cob, DECIDES, host.port, kernel=kernel), "decided\n")

    def test_sources_are_spread_over_sockets_of_both_kernels(self):
        cob = self.cob(kernels=2)
        for kernel, name in ((0, "a"), (0, "b"), (1, "c")):
            self.start_python(cob, NAMED, 7002, name, kernel=kernel)
        for kernel in (0, 1):
            self.assertEqual(self.python(cob, MANY_SOURCES, ADDRESS, 7002, kernel=kernel), "a b c\n")

    def test_a_groups_members_on_both_kernels(self):
        cob = self.cob(kernels=2)
        members = [self.start_python(cob, MEMBER, 7003, kernel=k, says="joined") for k in (0, 0, 1)]
        self.assertEqual(self.python(cob, SENDER, 7003, kernel=1), "anon_inode:[eventfd]\n")
        for member in members:
            self.assertEqual(member.communicate(timeout=SECONDS)[0], "first second\n")
        # Without members the group is the host's.
        self.assertTrue(self.python(cob, SENDER, 7003, kernel=1).startswith("socket:"))

    def test_servers_outlive_their_kernel(self):
        cob = self.cob(kernels=2)
        self.start_python(cob, SOCKETSERVER, 7004, kernel=1)
        self.start_python(cob, NAMED, 7005, "blocked in recvfrom", kernel=1)
        self.assertEqual(self.ask(cob, 7004, "before"), "BEFORE")
        cob.kill_kernel(1)
        self.assertEqual(self.ask(cob, 7004, "after"), "AFTER")
        self.assertEqual(self.ask(cob, 7005, "?"), "blocked in recvfrom")

    def test_what_overflows_is_counted(self):
        cob = self.cob(kernels=2)
        self.assertEqual(self.python(cob, FLOOD, ADDRESS, kernel=0), "flooded\n")
        harness.wait_until(lambda: sum(k["since_start"]["datagrams_dropped"] for k in cob.kernels()) > 0)

    @needs("dnsmasq", "dig")
    def test_a_name_server_and_dig(self):
        cob = self.cob(kernels=2)
        port, host_port = 7053, free_port()
        common = ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=", "--pid-file=", "--conf-file=/dev/null",
                  "--bind-interfaces", "--no-daemon"]
        dnsmasq = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
        cob.start(dnsmasq, *common, f"--port={port}", "--listen-address=127.0.0.1", "--address=/x.test/192.0.2.7", kernel=1)
        host = subprocess.Popen([dnsmasq, *common, f"--port={host_port}", "--listen-address=127.0.0.1", "--address=/x.test/192.0.2.8"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            # What is refused at once dig does not wait for.
            harness.wait_until(lambda: f":{port}" in cob.named("ss", "-uan").stdout and is_taken(host_port), what="the name servers")
            for kernel in (0, 1):
                for p, wanted in ((port, "192.0.2.7"), (host_port, "192.0.2.8")):
                    dig = ["dig", "@127.0.0.1", "-p", str(p), "+short", "+tries=20", "+time=1", "www.x.test"]
                    done = cob.run(*dig, kernel=kernel, timeout=60)
                    self.assertEqual(done.stdout, wanted + "\n", done.stderr)
        finally:
            host.terminate()
            host.wait()

    @needs("memcached")
    def test_memcached(self):
        cob = self.cob(kernels=2)
        cob.start("memcached", "-U", 7211, "-p", 7211, "-u", "nobody", "-l", "0.0.0.0", kernel=1)
        frame = "\0\1\0\0\0\1\0\0"
        stored = self.python(cob, ASK.replace("sys.argv[3].encode()", "eval(sys.argv[3])"), ADDRESS, 7211,
                             repr(frame.encode() + b"set k 0 0 5\r\nvalue\r\n"))
        self.assertEqual(stored[8:], "STORED\r\n".replace("\r\n", "\n") if stored.endswith("D\n") else "STORED\r\n")
        got = self.python(cob, ASK.replace("sys.argv[3].encode()", "eval(sys.argv[3])"), ADDRESS, 7211,
                          repr(frame.encode() + b"get k\r\n"))
        self.assertIn("value", got)

    @needs("iperf3")
    def test_iperf3(self):
        cob = self.cob(kernels=2)
        cob.start("iperf3", "-4", "-s", "-1", "-p", 7201, kernel=1)
        words = ["iperf3", "-u", "-c", ADDRESS, "-p", "7201", "-b", "200M", "-l", "1400", "-t", "1", "-J"]
        # iperf3 -J exits with 0 also when nobody listens yet.
        done = cob.run("sh", "-c", 'for i in $(seq 50); do "$@" > "$0"; grep -q sum "$0" && cat "$0" && exit; sleep 0.1; done; cat "$0"; exit 1',
                       str(cob.directory / "iperf"), *words, kernel=0, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        import json
        total = json.loads(done.stdout)["end"]["sum"]
        self.assertGreater(total["packets"], 1000)
        self.assertLess(total["lost_percent"], 50)

    @needs("socat", "nc")
    def test_socat_and_netcat(self):
        cob = self.cob(kernels=2)
        cob.start("socat", "UDP4-RECVFROM:7301,fork", "SYSTEM:tr a-z A-Z", kernel=1)
        def answer():
            done = cob.run("sh", "-c", f"echo hello | socat -t1 - UDP4:{ADDRESS}:7301", kernel=0)
            return done.stdout == "HELLO\n"
        harness.wait_until(answer, SECONDS)
        listener = cob.start("nc", "-u", "-l", "-W", "1", "0.0.0.0", 7302, kernel=1)
        def sent():
            cob.run("sh", "-c", f"echo text | nc -u -w1 {ADDRESS} 7302", kernel=0)
            return listener.poll() is not None
        harness.wait_until(sent, SECONDS)
        self.assertEqual(listener.communicate()[0], "text\n")


if __name__ == "__main__":
    harness.main()
