#!/usr/bin/env python3
"""TCP Fast Open (RFC 7413): between programs of a cob, and over the TAP with plain Linux, both ways.

Needs root for the second (a network namespace, a TAP device); without it that is skipped by name.
"""
import pathlib
import socket
import subprocess
import sys
import unittest

import harness
import tap_test

MSG_FASTOPEN, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 23, 30

# Answers with what comes, in capitals.
SERVER = """
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.IPPROTO_TCP, 23, 16)
listener.bind(("0.0.0.0", 7000)); listener.listen(64)
assert listener.getsockopt(socket.IPPROTO_TCP, 23) == 16
print("listening", flush=True)
while True:
    c, _ = listener.accept()
    while piece := c.recv(65536): c.sendall(piece.upper())
    c.close()
"""
# Connects three times as `how` says; prints for each whether the SYN's data was taken.
CLIENT = """
import errno, select, socket, struct, sys
how, address = sys.argv[1:3]
for text in (b"first", b"second", b"third" * 2000):
    s = socket.socket()
    if how == "message":
        assert s.sendto(text, 0x20000000, (address, 7000)) == len(text)
    elif how == "nonblocking":
        s.setblocking(False)
        try: sent = s.sendto(text, 0x20000000, (address, 7000))
        except BlockingIOError as e:
            assert e.errno == errno.EINPROGRESS
            sent = 0
        s.setblocking(True)
        s.sendall(text[sent:])
    elif how == "sendmsg":
        sent = s.sendmsg([text], [], 0x20000000, (address, 7000))
        s.sendall(text[sent:])
    else:
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)
        s.connect((address, 7000))
        s.sendall(text)
    answer = b""
    while len(answer) < len(text): answer += s.recv(65536) or sys.exit("ended early")
    assert answer == text.upper(), answer[:40]
    options = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[5]
    print("with" if options & 32 else "without", flush=True)
    s.close()
"""
WAYS = ("message", "sendmsg", "connect", "nonblocking")


class FastOpenTest(harness.CobTest):
    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    def counters(self, cob):
        rows = [line.split() for line in cob.named("stats", "--net").stdout.splitlines()[1:]]
        return {row[0].removeprefix("TcpExtTCPFastOpen"): int(row[1]) for row in rows if "FastOpen" in row[0]}

    def talks(self, done, begins="without"):
        self.assertEqual(done.stdout.split(), [begins, "with", "with"], done.stdout + done.stderr)

    def test_between_kernels(self):
        cob = self.cob(kernels=2)
        self.started(cob.start(sys.executable, "-c", SERVER, kernel=1))
        address = "10.77.0.1"
        for n, how in enumerate(WAYS):
            self.talks(cob.run(sys.executable, "-c", CLIENT, how, address, kernel=0), "with" if n else "without")
        found = self.counters(cob)
        self.assertEqual((found["Active"], found["Passive"], found["CookieReqd"]), (11, 11, 1), found)
        # A cookie of the one kernel is good at the other, and a listener that wants none gives none.
        self.started(cob.start(sys.executable, "-c", SERVER.replace("7000", "7001").replace("23, 16)", "23, 0)")
                               .replace("== 16", "== 0"), kernel=0))
        done = cob.run(sys.executable, "-c", CLIENT.replace("7000", "7001"), "message", address, kernel=0)
        self.assertEqual(done.stdout.split(), ["without"] * 3, done.stderr)

    def test_who_is_refused_is_told(self):
        cob = self.cob(kernels=2)
        done = cob.run(sys.executable, "-c", """
import errno, socket
for how in (0, 1):
    s = socket.socket()
    try:
        if how == 0: s.sendto(b"x", 0x20000000, ("10.77.0.1", 7999))
        else: s.setsockopt(6, 30, 1); s.connect(("10.77.0.1", 7999))
        print("sent")
    except OSError as e: print(errno.errorcode[e.errno])
""", kernel=0)
        self.assertEqual(done.stdout.split(), ["ECONNREFUSED", "ECONNREFUSED"], done.stderr)


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class FastOpenTapTest(FastOpenTest):
    test_between_kernels = test_who_is_refused_is_told = None

    def setUp(self):
        pathlib.Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")
        cores = harness.usable_cores()
        self.uplinked = self.cob(up=False)
        self.uplinked.up("--kernels", 2, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(2)), *tap_test.UPLINK)

    def test_linux_opens_fast(self):
        for kernel in (0, 1):  # either takes the cookie that either gave
            self.started(self.uplinked.start(sys.executable, "-c", SERVER.replace("SO_REUSEADDR", "SO_REUSEPORT"), kernel=kernel))
        for n, how in enumerate(WAYS):
            self.talks(tap_test.linux(sys.executable, "-c", CLIENT, how, tap_test.ADDRESS), "with" if n else "without")
        self.assertEqual(self.counters(self.uplinked)["Passive"], 11)

    def test_the_cob_opens_fast(self):
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)

        def end():
            server.kill()
            server.wait()
            server.stdout.close()
        self.addCleanup(end)
        self.started(server)
        for n, how in enumerate(WAYS):
            self.talks(self.uplinked.run(sys.executable, "-c", CLIENT, how, tap_test.HOST, kernel=0), "with" if n else "without")
        found = self.counters(self.uplinked)
        self.assertEqual(found["Active"], 11, found)


if __name__ == "__main__":
    harness.main()
