#!/usr/bin/env python3
"""Deaths with the real kernels: what programs see when their kernel, or the supervisor, is killed (docs/calls.md)."""
import errno
import os
import signal
import socket
import sys
import time
import unittest

import harness
from harness import processes_of, wait_until

PYTHON = sys.executable

# Listens on port 7000 and 7001, tells each step on its standard output, and echoes lines.
ECHO = r"""
import socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("listening", flush=True)
try:
    while True:
        s, _ = listener.accept()
        print("accepted", flush=True)
        while data := s.recv(4096):
            s.sendall(data)
except OSError as problem:
    print(problem.errno, flush=True)
sys.stdin.read()
"""

CLIENT = r"""
import errno, socket, sys, time
s = socket.create_connection(("10.77.0.1", int(sys.argv[1])), timeout=10)
s.settimeout(None)
s.sendall(b"hello")
print(s.recv(100).decode(), flush=True)

try:
    print(repr(s.recv(100)), flush=True)
except OSError as problem:
    print(errno.errorcode[problem.errno], flush=True)
"""

PING = r"""
import socket, sys
s = socket.create_connection(("10.77.0.1", int(sys.argv[1])), timeout=10)
s.sendall(b"ping")
print(s.recv(100).decode(), flush=True)
"""

AGAIN = r"""
import errno, os, socket, sys, time
file = open("/dev/null")
def attempt():
    try:
        listener = socket.create_server(("0.0.0.0", 7003))
    except OSError as problem:
        return errno.errorcode[problem.errno]
    listener.close()
    return "ok"
print(attempt(), flush=True)
sys.stdin.readline()
seen = []
deadline = time.monotonic() + 5
while (result := attempt()) != "ok" and time.monotonic() < deadline:
    seen.append(result)
    time.sleep(0.01)
assert set(seen) <= {"ENETDOWN"}, seen
os.fstat(file.fileno())
print("again", result, flush=True)
"""

# Never attached when its cob ends: prints how each call went, and what the foreign socket is.
FIRST = r"""
import errno, os, socket, sys
early = [socket.socket() for _ in range(5)]
print("up", flush=True)
sys.stdin.readline()
def outcome(call, *arguments):
    try:
        call(*arguments)
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "ok"
print(outcome(early[0].bind, ("0.0.0.0", 0)), outcome(early[1].bind, ("127.0.0.1", 0)), outcome(early[2].connect, ("127.0.0.1", 7005)),
      outcome(early[3].connect, ("10.77.0.1", 7005)), outcome(early[0].listen), outcome(socket.socket), flush=True)
if len(sys.argv) > 1:
    print(outcome(early[4].bind, (sys.argv[1], 0)), os.readlink(f"/proc/self/fd/{early[4].fileno()}").split(":")[0], flush=True)
"""


def foreign_address():
    """An address of this machine that is not loopback's; None: it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            return None
        own = s.getsockname()[0]
        return None if own.startswith("127.") else own


@unittest.skipUnless(len(harness.usable_cores()) >= 2, "two cores are needed")
class DeathTest(harness.CobTest):
    def kill_kernel(self, cob, number, meanwhile=lambda: None):
        self.assertLess(cob.kill_kernel(number, meanwhile), 1)

    def test_sleepers_wake_and_the_other_kernel_goes_on(self):
        cob = self.cob(kernels=2)
        server = cob.start(PYTHON, "-c", ECHO, 7000, kernel=1, stdin=-1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        local = cob.start(PYTHON, "-c", ECHO, 7001, kernel=0, stdin=-1)
        self.assertEqual(local.stdout.readline(), "listening\n")
        client = cob.start(PYTHON, "-c", CLIENT, 7000, kernel=0)
        self.assertEqual(client.stdout.readline(), "hello\n")
        self.assertEqual(server.stdout.readline(), "accepted\n")
        self.kill_kernel(cob, 1)
        self.assertEqual(server.stdout.readline(), f"{errno.ECONNRESET}\n")  # it is in recv
        self.assertEqual(client.stdout.readline(), "ECONNRESET\n")
        done = cob.run(PYTHON, "-c", PING, 7001, kernel=0)
        self.assertEqual((done.stdout, done.stderr), ("ping\n", ""))
        done = cob.run(PYTHON, "-c", PING, 7001, kernel=1)  # the new kernel, and its way to the old one
        self.assertEqual((done.stdout, done.stderr), ("ping\n", ""))
        again = cob.start(PYTHON, "-c", ECHO, 7002, kernel=1, stdin=-1)
        self.assertEqual(again.stdout.readline(), "listening\n")
        done = cob.run(PYTHON, "-c", PING, 7002, kernel=0)
        self.assertEqual((done.stdout, done.stderr), ("ping\n", ""))

    def test_program_attaches_again_to_the_respawned_kernel(self):
        cob = self.cob(kernels=1)
        program = cob.start(PYTHON, "-c", AGAIN, stdin=-1)
        self.assertEqual(program.stdout.readline(), "ok\n")
        def go_on():
            program.stdin.write("\n")
            program.stdin.flush()
        self.kill_kernel(cob, 0, go_on)
        self.assertEqual(program.stdout.readline(), "again ok\n", program.stderr)
        self.assertEqual(program.wait(5), 0)

    def test_first_attach_that_fails_leaves_no_host_socket(self):
        cob = self.cob(kernels=1)
        foreign = foreign_address()
        program = cob.start(PYTHON, "-c", FIRST, *([foreign] if foreign else []), stdin=-1)
        self.assertEqual(program.stdout.readline(), "up\n")
        os.kill(cob.status()["pid"], signal.SIGKILL)
        wait_until(lambda: not processes_of(cob.name), 2, "the kernels' end")
        program.stdin.write("\n")
        program.stdin.flush()
        self.assertEqual(program.stdout.readline().split(), ["ENETDOWN"] * 6)
        if foreign:
            self.assertEqual(program.stdout.readline(), "ok socket\n")
        cob.down()

    def test_first_attach_waits_for_the_respawned_kernel(self):
        cob = self.cob(kernels=1)
        program = cob.start(PYTHON, "-c", "import sys; sys.stdin.readline()\n" + AGAIN, stdin=-1)
        os.kill(cob.kernels()[0]["pid"], signal.SIGKILL)
        program.stdin.write("\n\n")
        program.stdin.flush()
        self.assertIn(program.stdout.readline(), ("ok\n", "ENETDOWN\n"))
        self.assertEqual(program.stdout.readline(), "again ok\n", program.stderr)
        self.assertEqual(program.wait(5), 0)
        wait_until(lambda: cob.kernels()[0]["epoch"] == 2 and "now" in cob.kernels()[0], 5, "the respawn")
        cob.note_pids()

    def test_killed_supervisor_takes_all_kernels_along(self):
        cob = self.cob(kernels=2)
        server = cob.start(PYTHON, "-c", ECHO, 7000, kernel=1, stdin=-1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        os.kill(cob.status()["pid"], signal.SIGKILL)
        wait_until(lambda: not processes_of(cob.name), 2, "the kernels' end")
        self.assertEqual(server.stdout.readline(), "100\n")
        self.assertIsNone(server.poll())
        self.assertEqual(cob.down().returncode, 1)
        self.assertFalse(cob.run_directory.exists())

    def test_killed_program_leaves_its_kernel_whole(self):
        cob = self.cob(kernels=2)
        for _ in range(20):
            server = cob.start(PYTHON, "-c", ECHO, 7000, kernel=1, stdin=-1)
            self.assertEqual(server.stdout.readline(), "listening\n")
            client = cob.start(PYTHON, "-c", CLIENT, 7000, kernel=0)
            self.assertEqual(client.stdout.readline(), "hello\n")
            server.kill()
            self.assertIn(client.stdout.readline(), ("b''\n", "ECONNRESET\n"))
            server.wait()
            client.wait()
        self.assertEqual([k["epoch"] for k in cob.kernels()], [1, 1])
        wait_until(lambda: cob.ps() == [], 5, "an empty list of programs")


if __name__ == "__main__":
    harness.main()
