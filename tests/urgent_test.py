#!/usr/bin/env python3
"""Urgent data (MSG_OOB, SIOCATMARK, POLLPRI, SIGURG): between programs of a cob, and over the TAP with plain Linux, both ways.

Needs root for the second (a network namespace, a TAP device); without it that is skipped by name.
"""
import subprocess
import sys
import unittest

import harness
import tap_test

# Both ends say the same in turn: bytes, the last of them urgent, and bytes behind it. Who hears it says what came before the mark.
BOTH = """
import fcntl, os, select, signal, socket, struct, sys
SIZES = [0, 1, 1_000, 5_000, 70_000, 300_000, 0]
told = []
def at_mark(c): return struct.unpack("i", fcntl.ioctl(c, 0x8905, bytes(4)))[0]
def say(c, number, size):
    c.sendall(b"s" * size)
    assert c.send(bytes([65 + number]), socket.MSG_OOB) == 1
    c.sendall(b"t" * (size + 1))
def hear(c, number, size):
    before, byte, got = None, b"", 0
    poll = select.poll(); poll.register(c, select.POLLIN | select.POLLPRI)
    while got < 2 * size + 1 or not byte:
        events = (poll.poll(20_000) or sys.exit(f"silence in {number}: {got} {byte}"))[0][1]
        if events & select.POLLPRI and not byte:
            byte = c.recv(1, socket.MSG_OOB)
            try: sys.exit(f"twice: {c.recv(1, socket.MSG_OOB)}")
            except OSError as error: assert error.errno == 22, error
        if before is None and at_mark(c): before = got
        if not events & select.POLLIN: continue
        data = c.recv(min(65_536, 2 * size + 1 - got) or 1)
        assert data == (b"s" if before is None else b"t") * len(data), (number, got, data[:20])
        got += len(data)
    assert (byte, before, got) == (bytes([65 + number]), size, 2 * size + 1), (number, byte, before, got)
def talk(c, begins):
    signal.signal(signal.SIGURG, lambda *_: told.append(1))
    fcntl.fcntl(c, fcntl.F_SETOWN, os.getpid())
    c.sendall(b"R"); assert c.recv(1) == b"R"  # both have an owner
    for number, size in enumerate(SIZES):
        for says in (begins, not begins): (say if says else hear)(c, number, size)
    c.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    c.sendall(b"I"); assert c.recv(1) == b"I"  # no urgent byte comes before
    assert c.send(b"abc!", socket.MSG_OOB) == 4
    c.sendall(b"z")
    pieces = []
    while sum(map(len, pieces)) < 5: pieces.append(c.recv(16))
    assert b"".join(pieces) == b"abc!z" and pieces[-1][:1] in b"!z", pieces
    assert len(told) >= len(SIZES), told
    print("heard", flush=True)
if sys.argv[1] == "server":
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", 7000)); listener.listen(8)
    print("listening", flush=True)
    talk(listener.accept()[0], False)
else:
    talk(socket.create_connection((sys.argv[1], 7000)), True)
"""


class UrgentTest(harness.CobTest):
    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    def expect_heard(self, server, client):
        self.assertEqual((client.returncode, client.stdout), (0, "heard\n"), client.stderr)
        said, _ = server.communicate(timeout=30)
        self.assertEqual((server.returncode, said), (0, "heard\n"))

    def test_between_programs_of_a_cob(self):
        cob = self.cob(kernels=2)
        for kernel in (0, 1):
            with self.subTest(client_on=kernel):
                server = self.started(cob.start(sys.executable, "-c", BOTH, "server", kernel=1))
                self.expect_heard(server, cob.run(sys.executable, "-c", BOTH, "10.77.0.1", kernel=kernel, timeout=60))

    def uplinked(self):
        cob = self.cob(up=False)
        cores = harness.usable_cores()
        cob.up("--kernels", 2, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(2)), *tap_test.UPLINK)
        return cob

    @unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
    def test_linux_and_a_server_on_the_cob(self):
        cob = self.uplinked()
        server = self.started(cob.start(sys.executable, "-c", BOTH, "server", kernel=1))
        self.expect_heard(server, tap_test.linux(sys.executable, "-c", BOTH, tap_test.ADDRESS))

    @unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
    def test_the_cob_and_a_server_on_linux(self):
        cob = self.uplinked()
        server = self.started(subprocess.Popen([sys.executable, "-c", BOTH, "server"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                               text=True))
        try:
            self.expect_heard(server, cob.run(sys.executable, "-c", BOTH, tap_test.HOST, kernel=0, timeout=60))
        finally:
            server.kill()
            server.stdout.close()


if __name__ == "__main__":
    harness.main()
