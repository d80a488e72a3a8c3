#!/usr/bin/env python3
"""Kernels that wait: idle ones cost next to nothing, and one that is stopped for seconds (SIGSTOP) is not taken for dead."""
import os
import pathlib
import re
import signal
import sys
import time
import unittest

import harness
from harness import wait_until

PYTHON = sys.executable

# A connection between the two kernels that carries nothing: what it prints is for the test to wait for.
LISTENER = r"""
import socket, sys
l = socket.create_server(("0.0.0.0", 7000)); print("listening", flush=True)
c, _ = l.accept(); print("accepted", flush=True)
c.recv(1)
"""
CALLER = r"""
import socket
s = socket.create_connection(("10.77.0.1", 7000)); print("connected", flush=True)
s.recv(1)
"""

# Keeps its kernel at work.
BUSY = r"""
import socket
print("busy", flush=True)
while True: socket.socket().bind(("0.0.0.0", 0))
"""

# 7011 is an odd port: kernel 1 of two is its home, whom kernel 0 asks (kernel/directory.h).
BIND = r"""
import socket, sys
s = socket.socket(); socket.socket(); print("ready", flush=True)
sys.stdin.readline()
print("asking", flush=True)
try: s.bind(("0.0.0.0", 7011)); print("bound", flush=True)
except OSError as e: print(e, flush=True)
s.listen()
c, _ = s.accept(); print(c.recv(10), flush=True)
"""
CALL_BACK = 'import socket; socket.create_connection(("10.77.0.1", 7011), 10).sendall(b"hello")'


def used(pid):
    """Nanoseconds on a core and sleeps of the whole process; sched(7), /proc/PID/task/TID/schedstat, proc_pid_status(5)."""
    tasks = [*pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return (sum(int((task / "schedstat").read_text().split()[0]) for task in tasks),
            sum(int(re.search(r"^voluntary_ctxt_switches:\s(\d+)", (task / "status").read_text(), re.M)[1]) for task in tasks))


@unittest.skipUnless(len(harness.usable_cores()) >= 2, "two cores are needed")
class Idle(harness.CobTest):
    """How often a kernel wakes is bounded, and that it does not stay awake. How long a wake-up takes is the machine's: in virtual ones it is
    microseconds at one time and milliseconds at another, and charged to who wakes: of those that a socket links, which wake for
    its heartbeats, it says little. One good look of a few is enough."""

    seconds, looks, wakes = 8, 3, 8

    def look(self, pids):
        before = {pid: (*used(pid), time.monotonic()) for pid in pids}
        time.sleep(self.seconds)
        for pid, (cpu, sleeps, at) in before.items():
            seconds = time.monotonic() - at
            cpu_now, sleeps_now = used(pid)
            yield (sleeps_now - sleeps) / seconds, (cpu_now - cpu) / 1e9 / seconds

    def check(self, cob, what, most=0.001):
        wait_until(lambda: all(k["state"] == "asleep" for k in cob.kernels()), 10, "the kernels' sleep")
        pids = [k["pid"] for k in cob.kernels()]
        for _ in range(self.looks):
            seen = list(self.look(pids))
            print(f"{what}: {', '.join(f'{wakes:.1f} wake-ups a second, {share:.4%} of a core' for wakes, share in seen)}")
            if all(wakes < self.wakes and share < most for wakes, share in seen):
                return
        self.fail(f"{what}: more than {self.wakes} wake-ups a second, or {most:.1%} of a core")

    def test_without_programs(self):
        self.check(self.cob(kernels=2), "kernels without programs")

    def test_with_programs_that_wait(self):
        cob = self.cob(kernels=2)
        server = cob.start(PYTHON, "-c", LISTENER, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        client = cob.start(PYTHON, "-c", CALLER, kernel=0)
        self.assertEqual(client.stdout.readline(), "connected\n")
        self.assertEqual(server.stdout.readline(), "accepted\n")
        self.check(cob, "kernels with a connection between them")

    def test_between_islands(self):
        for link in ("window", "socket"):
            with self.subTest(link=link):
                cob = self.cob(up=False)
                cob.up("--island", "a:1", "--island", "b:1", "--link", link)
                wait_until(lambda: all(peer["up"] for k in cob.kernels() for peer in k.get("links", [])), 10, "the link")
                self.check(cob, f"kernels of islands joined by a {link}", 0.02 if link == "socket" else 0.001)
                cob.down()


@unittest.skipUnless(len(harness.usable_cores()) >= 2, "two cores are needed")
class Stopped(harness.CobTest):
    def stop_at_work(self, cob, number):
        """SIGSTOP at a moment when the kernel does not sleep: then it can be seen to stand still."""
        pid = cob.kernels()[number]["pid"]
        self.addCleanup(self.let_go, pid)
        for _ in range(200):
            os.kill(pid, signal.SIGSTOP)
            if cob.kernels()[number]["state"] != "asleep":
                return pid
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)
        self.fail("the kernel is never at work")

    @staticmethod
    def let_go(pid):
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def test_three_seconds_are_not_death(self):
        cob = self.cob(kernels=2)
        self.assertEqual(cob.start(PYTHON, "-c", BUSY, kernel=1).stdout.readline(), "busy\n")
        program = cob.start(PYTHON, "-c", BIND, kernel=0, stdin=-1)
        self.assertEqual(program.stdout.readline(), "ready\n")
        before = cob.kernels()
        pid = self.stop_at_work(cob, 1)
        stopped = time.monotonic()
        program.stdin.write("\n")
        program.stdin.flush()
        self.assertEqual(program.stdout.readline(), "asking\n")
        wait_until(lambda: cob.kernels()[1]["state"] == "stuck", 10, "the stopped kernel to be shown as stuck")
        self.assertNotEqual(cob.kernels()[0]["state"], "stuck")
        time.sleep(max(0, stopped + 3 - time.monotonic()))
        self.assertEqual(cob.kernels()[1]["state"], "stuck")
        os.set_blocking(program.stdout.fileno(), False)
        self.assertFalse(program.stdout.readline())  # the question waits for its answer
        os.set_blocking(program.stdout.fileno(), True)
        os.kill(pid, signal.SIGCONT)
        self.assertEqual(program.stdout.readline(), "bound\n")
        done = cob.run(PYTHON, "-c", CALL_BACK, kernel=1)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(program.stdout.readline(), "b'hello'\n")
        after = cob.kernels()
        self.assertEqual([(k["pid"], k["epoch"]) for k in after], [(k["pid"], k["epoch"]) for k in before])
        self.assertTrue(all(k["state"] in ("running", "asleep") for k in after), after)


if __name__ == "__main__":
    harness.main()
