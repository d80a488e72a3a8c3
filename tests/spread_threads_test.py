#!/usr/bin/env python3
"""`cob run --spread-threads`: the threads of one program are served by several kernels (docs/moving.md, 9)."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import harness
import servers
from servers import ADDRESS

SERVE = harness.BUILD / "programs" / "threads_serve"

# Asks over connections one after the other, a few times each; prints who answered, a line a connection: "TID CORE".
ASK = f"""
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 10) as s:
        s.settimeout(10)
        said = set()
        for _ in range(3):
            s.sendall(b"who")
            said.add(s.recv(100).decode().split()[0])
        print(*said, flush=True)
"""

# Keeps a connection, and asks by it when told to; an empty line is a connection that has ended.
HOLD = f"""
import socket, sys
s = socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 10)
s.settimeout(10)
for line in sys.stdin:
    try:
        s.sendall(b"who")
        print(s.recv(100).decode().strip(), flush=True)
    except OSError:
        print(flush=True)
"""

# A thread makes a listener and a connection, then the process forks: the child has the listener; both go on.
FORKS = f"""
import os, socket, threading
made = []
def make():
    listener = socket.create_server(("0.0.0.0", 7900))
    one = socket.create_connection(("{ADDRESS}", 7900), 10)
    made.extend([listener, one, listener.accept()[0]])
first = socket.create_server(("0.0.0.0", 7901))
t = threading.Thread(target=make); t.start(); t.join()
listener, one, other = made
pid = os.fork()
if pid == 0:
    try:
        one.sendall(b"x")
        lost = one.recv(1) == b""
    except OSError:
        lost = True
    c = socket.create_connection(("{ADDRESS}", 7901), 10)
    c.sendall(b"from the child")
    c.close()
    os._exit(0 if lost else 9)
accepted, _ = first.accept()
print(accepted.recv(100).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
one.sendall(b"still")
print(other.recv(100).decode(), flush=True)
"""


class SpreadThreads(harness.CobTest):
    def serve(self, cob, manner, port=7700, threads=4, kernel=0):
        server = cob.start(SERVE, manner, port, threads, kernel=kernel, threads=True)
        self.assertEqual(server.stdout.readline(), "serving\n")
        servers.wait_for_port(cob, port, kernel=kernel)
        return server

    def served(self, cob, pid):
        """Thread -> kernel, of those that have called one."""
        return {tid: row["kernel"] for row in cob.ps() if row["pid"] == pid for tid in row["served"]}

    def ask(self, cob, kernel, port=7700, connections=20):
        """Who answered, a thread a connection."""
        done = cob.run(sys.executable, "-c", ASK, port, connections, kernel=kernel)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), connections)
        return [int(line) for line in lines]

    def opens(self, cob):
        return [kernel["since_start"]["passive_opens"] for kernel in cob.kernels()]

    def on_cores_of_their_kernels(self, cob, pid, served):
        cores = {kernel["kernel"]: kernel["core"] for kernel in cob.kernels()}
        for tid, kernel in served.items():
            status = pathlib.Path(f"/proc/{pid}/task/{tid}/status").read_text()
            self.assertEqual(re.search(r"Cpus_allowed_list:\s*(\S+)", status)[1], str(cores[kernel]))

    def manner(self, name, born_on_both=True):
        cob = self.cob(kernels=2)
        server = self.serve(cob, name)
        answered = {kernel: self.ask(cob, kernel) for kernel in (0, 1)}
        def all_served():
            served = self.served(cob, server.pid)
            return served if len(served) >= 4 and set(answered[0] + answered[1]) <= set(served) else None
        served = harness.wait_until(all_served, what=f"the threads' kernels: {cob.ps()}")
        self.assertEqual(set(served.values()), {0, 1})
        self.on_cores_of_their_kernels(cob, server.pid, served)
        if born_on_both:
            for opened in self.opens(cob):
                self.assertGreaterEqual(opened, 10)
        return cob, server, served, answered

    def test_a_listener_each_behind_reuseport(self):
        self.manner("own")

    def test_all_accept_on_one_listener(self):
        self.manner("shared")

    def test_each_has_an_epoll_set(self):
        self.manner("epoll")

    def test_each_polls(self):
        self.manner("poll")

    def test_one_accepts_for_all(self):
        """Connections are of the kernel of the one that accepts; the others use them there."""
        _, server, served, answered = self.manner("handed", born_on_both=False)
        self.assertEqual({served[tid] for tid in answered[0]}, {0, 1})
        self.assertNotIn(server.pid, answered[0])

    def test_all_manners_in_one_program_with_its_clients(self):
        """Also connections that come before any thread accepts."""
        cob = self.cob(kernels=2)
        for kernel in (0, 1):
            done = cob.run(SERVE, kernel=kernel, threads=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_memcached(self):
        cob = self.cob(kernels=2)
        if shutil.which("memcached") is None:
            self.skipTest("memcached is not installed")
        server = cob.start("memcached", "-u", "root", "-t", "4", "-p", "7711", "-U", "0", "-l", "0.0.0.0", kernel=0, threads=True)
        servers.wait_for_port(cob, 7711)
        loads = [cob.start(sys.executable, "-c", MEMCACHED_LOAD, "7711", str(k), kernel=k) for k in (0, 1)]
        for load in loads:
            out, err = load.communicate(timeout=60)
            self.assertEqual((load.returncode, out), (0, "all as written\n"), err)
        served = self.served(cob, server.pid)
        self.assertEqual(set(served.values()), {0, 1})
        self.assertGreaterEqual(len(served), 5)
        self.on_cores_of_their_kernels(cob, server.pid, served)

    def test_a_kernel_dies(self):
        cob, server, served, _ = self.manner("epoll")
        held = [cob.start(sys.executable, "-c", HOLD, "7700", kernel=k, stdin=subprocess.PIPE) for k in (0, 1)]
        def by(k):
            held[k].stdin.write("\n")
            held[k].stdin.flush()
            return held[k].stdout.readline().strip()
        for k in (0, 1):  # born on its client's kernel, whatever thread serves it
            self.assertIn(int(by(k).split()[0]), served)
        cob.kill_kernel(1, meanwhile=lambda: self.assertNotEqual(by(0), ""))
        self.assertEqual(by(1), "")
        self.assertNotEqual(by(0), "")
        self.assertIsNone(server.poll())
        # Its threads come back to it, and its part of the listener.
        harness.wait_until(lambda: 1 in [self.served(cob, server.pid).get(t) for t in self.ask(cob, 1, connections=4)], 20,
                           "answers on the kernel that came back")
        # The kernel where the listener was made dies; the other part goes on.
        before = self.opens(cob)[1]
        cob.kill_kernel(0, meanwhile=lambda: self.ask(cob, 1, connections=4))
        self.assertGreater(self.opens(cob)[1], before)
        harness.wait_until(lambda: 0 in [self.served(cob, server.pid).get(t) for t in self.ask(cob, 0, connections=4)], 20,
                           "answers on the first kernel, which came back")

    def test_a_thread_moves_and_what_is_refused(self):
        cob, server, served, _ = self.manner("shared")
        tid = next(t for t, kernel in served.items() if kernel == 1)
        done = cob.named("migrate", f"{server.pid}/{tid}", 0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{server.pid}/{tid} (threads_serve): kernel 1 -> 0", done.stdout)
        self.assertEqual(self.served(cob, server.pid)[tid], 0)
        self.on_cores_of_their_kernels(cob, server.pid, self.served(cob, server.pid))
        self.assertIn(f" {tid}", cob.named("ps").stdout)
        for kernel in (0, 1):
            self.ask(cob, kernel)
        back = cob.named("migrate", "--json", f"{server.pid}/{tid}", 1)
        self.assertEqual(back.returncode, 0, back.stderr)
        self.ask(cob, 1)
        plain = cob.start(SERVE, "shared", 7701, 2, kernel=0)
        self.assertEqual(plain.stdout.readline(), "serving\n")
        servers.wait_for_port(cob, 7701)
        for words, why in (((server.pid, 1), "its threads are on several kernels"), ((server.pid, 0), "several kernels|is on kernel"),
                           ((f"{server.pid}/1", 1), "no kernel serves thread 1"), ((f"{server.pid}/{tid}", 1), "is on kernel 1 already"),
                           ((f"{server.pid}/{tid}", 9), "there is no kernel 9"), ((f"{plain.pid}/{plain.pid}", 1), "with all its threads"),
                           (("12/x", 1), "neither"), (("--tree", f"{server.pid}/{tid}", 0), "--tree")):
            done = cob.named("migrate", *words)
            self.assertNotEqual(done.returncode, 0, words)
            self.assertRegex(done.stderr, why)
        self.ask(cob, 0)
        self.assertEqual(cob.named("migrate", plain.pid, 1).returncode, 0)

    def test_a_fork(self):
        cob = self.cob(kernels=2)
        done = cob.run(sys.executable, "-c", FORKS, kernel=0, threads=True)
        self.assertEqual(done.stdout, "from the child 0\nstill\n", done.stderr)


MEMCACHED_LOAD = f"""
import random, socket, sys, threading
port, mine = int(sys.argv[1]), sys.argv[2]
failed = []
def work(n):
    try:
        r = random.Random(n)
        for connection in range(3):
            with socket.create_connection(("{ADDRESS}", port), 10) as s:
                s.settimeout(20)
                f = s.makefile("rb")
                for i in range(20):
                    key = f"{{mine}}-{{n}}-{{i % 7}}"
                    value = r.randbytes(r.choice([1, 100, 3000, 70_000]))
                    s.sendall(b"set %s 0 0 %d\\r\\n%s\\r\\n" % (key.encode(), len(value), value))
                    assert f.readline() == b"STORED\\r\\n"
                    s.sendall(b"get %s\\r\\n" % key.encode())
                    head = f.readline().split()
                    assert int(head[3]) == len(value), head
                    assert f.read(len(value)) == value
                    assert (f.readline(), f.readline()) == (b"\\r\\n", b"END\\r\\n")
    except Exception as e:
        failed.append(repr(e))
threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(failed or "all as written")
"""

if __name__ == "__main__":
    harness.main()
