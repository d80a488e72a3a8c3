#!/usr/bin/env python3
"""Running programs move between kernels of an island: unmodified, not stopped, their connections live on (docs/moving.md)."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import harness
import servers
from servers import ADDRESS

# Says what it is told, on its own time: a blocked accept, recv and epoll_wait in threads of their own, and a datagram socket.
WAITER = """
import select, socket, threading
def echo(s):
    while data := s.recv(65536):
        s.sendall(data)
    s.close()
def accepts(port):
    listener = socket.create_server(("0.0.0.0", port))
    ready.release()
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
def polls(port):
    listener = socket.create_server(("0.0.0.0", port))
    listener.setblocking(False)
    waiter = select.epoll()
    waiter.register(listener, select.EPOLLIN)
    connections = {}
    ready.release()
    while True:
        for fd, events in waiter.poll():
            if fd == listener.fileno():
                s, _ = listener.accept()
                connections[s.fileno()] = s
                waiter.register(s, select.EPOLLIN | select.EPOLLET)
                continue
            s = connections[fd]
            try:
                while data := s.recv(65536, socket.MSG_DONTWAIT):
                    s.sendall(data)
                waiter.unregister(fd)
                connections.pop(fd).close()
            except BlockingIOError:
                pass
def datagrams(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("0.0.0.0", port))
    ready.release()
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(data, peer)
ready = threading.Semaphore(0)
for what, port in ((accepts, 7000), (polls, 7001), (datagrams, 7002)):
    threading.Thread(target=what, args=(port,), daemon=True).start()
    ready.acquire()
print("listening", flush=True)
threading.Event().wait()
"""

# Keeps its connections over all moves: each line from stdin is one round on every one of them.
ASKER = f"""
import socket, sys
kept = [socket.create_connection(("{ADDRESS}", port)) for port in (7000, 7001) for _ in range(4)]
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.connect(("{ADDRESS}", 7002))
datagrams.settimeout(10)
for s in kept: s.settimeout(10)
print("ready", flush=True)
for line in sys.stdin:
    fresh = [socket.create_connection(("{ADDRESS}", port), 10) for port in (7000, 7001)]
    for n, s in enumerate(kept + fresh):
        text = (line.strip() + str(n)).encode() * 5000
        s.sendall(text)
        got = b""
        while len(got) < len(text):
            piece = s.recv(65536)
            assert piece, "an end"
            got += piece
        assert got == text
    for s in fresh: s.close()
    datagrams.send(line.encode())
    assert datagrams.recv(1000) == line.encode()
    print("done", flush=True)
"""

FORKED = """
import os, socket, time
listener = socket.create_server(("0.0.0.0", 7300))
child = os.fork()
if child == 0:
    listener.accept()
print("listening", flush=True)
time.sleep(1000)
"""


# A listener and a connection, held by four: two accept at the listener, in turn; the third has made no call yet and
# accepts when a line comes; the parent's own connection is used by all.
FAMILY = f"""
import os, socket, sys, time
listener = socket.create_server(("0.0.0.0", 7300))
reader, writer = os.pipe()
def serve():
    while True:
        s, _ = listener.accept()
        while data := s.recv(65536):
            s.sendall(str(os.getpid()).encode() + b" " + data)
        s.close()
if os.fork() == 0: serve()
if os.fork() == 0: serve()
if os.fork() == 0:
    os.read(reader, 1)
    serve()
print("listening", flush=True)
for line in sys.stdin:
    os.write(writer, b"x")
    print("woken", flush=True)
time.sleep(1000)
"""


class Migrate(harness.CobTest):
    def move(self, cob, pid, kernel):
        done = cob.named("migrate", "--json", pid, kernel)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr + cob.log()[-3000:])
        return json.loads(done.stdout)

    def kernel_of(self, cob, pid):
        return {program["pid"]: program["kernel"] for program in cob.ps()}.get(pid)

    def wait_for_kernel(self, cob, pid, kernel):
        harness.wait_until(lambda: self.kernel_of(cob, pid) == kernel, what=f"{pid} on kernel {kernel}")

    def move_under(self, load, cob, pid):
        """To and fro until `load` has ended, well; what it printed. How often depends on the machine."""
        moves = 0
        while load.poll() is None:
            self.move(cob, pid, moves % 2)
            moves += 1
        out = load.stdout.read()
        self.assertEqual(load.returncode, 0, out + load.stderr.read())
        self.assertGreaterEqual(moves, 2)
        return out

    def waiter_and_asker(self, cob, server_kernel=1, client_kernel=0):
        server = cob.start(sys.executable, "-c", WAITER, kernel=server_kernel)
        self.assertEqual(server.stdout.readline(), "listening\n")
        asker = cob.start(sys.executable, "-c", ASKER, kernel=client_kernel, stdin=subprocess.PIPE)
        self.assertEqual(asker.stdout.readline(), "ready\n", asker.poll())
        return server, asker

    def ask(self, asker, text):
        asker.stdin.write(text + "\n")
        asker.stdin.flush()
        self.assertEqual(asker.stdout.readline(), "done\n", text)

    def test_blocked_calls_epoll_sets_and_datagrams(self):
        cob = self.cob(kernels=2)
        server, asker = self.waiter_and_asker(cob)
        self.ask(asker, "before")
        for n in range(20):
            to = n % 2
            self.move(cob, server.pid, to)
            self.ask(asker, f"round {n}")
        self.wait_for_kernel(cob, server.pid, 1)
        core = cob.kernels()[1]["core"]
        for task in pathlib.Path(f"/proc/{server.pid}/task").iterdir():
            self.assertEqual(os.sched_getaffinity(int(task.name)), {core})

    def test_the_client_moves_and_both_do(self):
        cob = self.cob(kernels=2)
        server, asker = self.waiter_and_asker(cob)
        for n in range(6):
            self.move(cob, asker.pid, 1 - n % 2)
            self.ask(asker, f"client {n}")
            self.move(cob, server.pid, n % 2)
            self.ask(asker, f"both {n}")

    def test_three_kernels(self):
        """The peer's kernel is neither the one that the program leaves nor the one that it comes to."""
        cob = self.cob(kernels=3)
        server, asker = self.waiter_and_asker(cob)
        for n, to in enumerate((2, 0, 1, 2, 1, 0, 2)):
            self.move(cob, server.pid, to)
            self.ask(asker, f"to {to}, {n}")

    def test_redis_under_load(self):
        cob = self.cob(kernels=2)
        redis = servers.redis(cob, 6379, 1, "--save", "")
        load = cob.start("redis-benchmark", "-h", ADDRESS, "-t", "set,get,incr", "-n", 60000, "-c", 20, "-P", 4, "-q", kernel=0)
        out = self.move_under(load, cob, redis.pid)
        for test in ("SET", "GET", "INCR"):
            self.assertRegex(out, rf"{test}: [0-9.]+ requests per second")
        self.assertEqual(cob.run("redis-cli", "-h", ADDRESS, "incr", "counter:__rand_int__", kernel=0).stdout, "60001\n")
        self.assertIsNone(redis.poll())

    def test_nginx_under_keep_alive_load(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, master="off")
        load = cob.start("ab", "-q", "-k", "-c", 30, "-n", 60000, f"http://{ADDRESS}:8080/memory", kernel=0)
        out = self.move_under(load, cob, nginx.pid)
        self.assertRegex(out, r"Failed requests: +0\n")
        self.assertRegex(out, r"Complete requests: +60000\n")

    def test_short_connections_while_the_listener_moves(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, master="off")
        load = cob.start("ab", "-q", "-c", 8, "-n", 30000, f"http://{ADDRESS}:8080/memory", kernel=0)
        out = self.move_under(load, cob, nginx.pid)
        self.assertRegex(out, r"Failed requests: +0\n")

    def say_to_family(self, cob, times):
        """Who answered; each connection by itself, from the kernel that they are not on now or then."""
        asked = cob.run(sys.executable, "-c", f"""
import socket
for i in range({times}):
    s = socket.create_connection(("{ADDRESS}", 7300), 10)
    s.settimeout(10)
    s.sendall(b"hello" + str(i).encode())
    pid, text = s.recv(1000).decode().split()
    assert text == "hello" + str(i), text
    print(pid)
    s.close()
""", kernel=0)
        self.assertEqual(asked.returncode, 0, asked.stderr)
        return {int(pid) for pid in asked.stdout.split()}

    def test_a_family_moves_together(self):
        cob = self.cob(kernels=2)
        family = cob.start(sys.executable, "-c", FAMILY, kernel=1, stdin=subprocess.PIPE)
        self.assertEqual(family.stdout.readline(), "listening\n")
        first = self.say_to_family(cob, 20)
        for n in range(8):
            done = cob.named("migrate", "--tree", "--json", family.pid, n % 2)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr + cob.log()[-2000:])
            self.assertEqual(json.loads(done.stdout)["programs"], 4)
            self.assertLessEqual(self.say_to_family(cob, 5), first)
        for pid in first | {family.pid}:
            self.wait_for_kernel(cob, pid, 1)
            self.assertEqual(os.sched_getaffinity(pid), {cob.kernels()[1]["core"]})
        family.stdin.write("wake\n")
        family.stdin.flush()
        self.assertEqual(family.stdout.readline(), "woken\n")
        harness.wait_until(lambda: self.say_to_family(cob, 6) - first, 20, "the child that was still to make a call")

    def test_nginx_master_and_workers_under_load(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=2)
        load = cob.start("ab", "-q", "-k", "-c", 20, "-n", 40000, f"http://{ADDRESS}:8080/memory", kernel=0)
        moves = 0
        while load.poll() is None:
            done = cob.named("migrate", "--tree", "--json", nginx.pid, moves % 2)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr + cob.log()[-2000:])
            self.assertGreaterEqual(json.loads(done.stdout)["programs"], 3)
            moves += 1
        out = load.stdout.read()
        self.assertEqual(load.returncode, 0, out + load.stderr.read())
        self.assertRegex(out, r"Failed requests: +0\n")
        self.assertGreaterEqual(moves, 2)

    def test_a_thousand_moves(self):
        """COB_MOVES of them, 150 by default: kept connections and new ones carry checked bytes between any two."""
        cob = self.cob(kernels=2)
        server, asker = self.waiter_and_asker(cob)
        stop = threading.Event()
        failed = []
        def asks():
            try:
                for n in range(1_000_000):
                    self.ask(asker, f"round {n}")
                    if stop.is_set():
                        return
            except AssertionError as error:
                failed.append(error)
        thread = threading.Thread(target=asks)
        thread.start()
        try:
            for n in range(int(os.environ.get("COB_MOVES", "150"))):
                self.move(cob, server.pid, n % 2)
                self.assertEqual(failed, [])
        finally:
            stop.set()
            thread.join(30)
        self.assertEqual(failed, [])
        self.assertFalse(thread.is_alive())

    def test_a_move_whose_target_is_killed(self):
        """Unharmed where it was; or, killed a moment later, what a kernel's death is to its programs."""
        cob = self.cob(kernels=2)
        server, asker = self.waiter_and_asker(cob, server_kernel=1, client_kernel=1)
        kernel = cob.kernels()[0]["pid"]
        os.kill(kernel, signal.SIGSTOP)
        mover = subprocess.Popen([cob.command, "migrate", "--name", cob.name, str(server.pid), "0"], env=cob.environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        os.kill(kernel, signal.SIGKILL)
        out, error = mover.communicate(timeout=20)
        self.assertEqual(mover.returncode, 1, out)
        self.assertIn(f"program {server.pid}", error)
        self.assertIn("stays on kernel 1", error)
        self.ask(asker, "unharmed")
        harness.wait_until(lambda: all("now" in kernel for kernel in cob.kernels()), 30, "the respawn")
        cob.note_pids()
        self.move(cob, server.pid, 0)
        self.move(cob, asker.pid, 0)
        self.ask(asker, "moved after all")

    def test_a_target_that_stands_still(self):
        cob = self.cob(kernels=2)
        server, asker = self.waiter_and_asker(cob, server_kernel=1, client_kernel=1)
        kernel = cob.kernels()[0]["pid"]
        os.kill(kernel, signal.SIGSTOP)
        self.addCleanup(os.kill, kernel, signal.SIGCONT)
        done = cob.named("migrate", server.pid, 0)
        self.assertEqual(done.returncode, 1)
        self.assertIn("does not answer", done.stderr)
        self.ask(asker, "unharmed")
        os.kill(kernel, signal.SIGCONT)

    def test_refusals(self):
        cob = self.cob(kernels=2)
        forked = cob.start(sys.executable, "-c", FORKED, kernel=1)
        self.assertEqual(forked.stdout.readline(), "listening\n")
        done = cob.named("migrate", forked.pid, 0)
        self.assertEqual(done.returncode, 1)
        self.assertIn("shared with another program", done.stderr)
        self.assertIn("cob migrate --tree", done.stderr)
        self.assertIn("stays on kernel 1", done.stderr)
        for words, code, text in (((forked.pid, 1), 1, "is on kernel 1 already"), ((forked.pid, 2), 1, "there is no kernel 2"),
                                  ((os.getpid(), 0), 1, "not a program of cob"), ((2 ** 30 - 1, 0), 1, "there is no process"),
                                  (("one", 0), 2, ""), ((forked.pid, -1), 2, ""), ((), 2, "")):
            done = cob.named("migrate", *words)
            self.assertEqual(done.returncode, code, (words, done.stderr))
            self.assertIn(text, done.stderr)
            self.assertEqual(done.stdout, "")
        done = cob.named("migrate", "--json", forked.pid, 0)
        self.assertIn("shared", json.loads(done.stdout)["error"])

    def test_another_island(self):
        cob = self.cob(up=False)
        cob.up("--island", "a:1", "--island", "b:1")
        server = cob.start(sys.executable, "-c", WAITER, kernel=0)
        self.assertEqual(server.stdout.readline(), "listening\n")
        done = cob.named("migrate", server.pid, 1)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is a socket of the cob, and frames do not cross islands", done.stderr)
        self.assertIn("stays on kernel 0", done.stderr)


if __name__ == "__main__":
    harness.main()
