#!/usr/bin/env python3
"""`cob run --spread`: unmodified servers of several processes serve one address from several kernels (docs/descriptors.md, 10)."""
import collections
import hashlib
import os
import pathlib
import signal
import subprocess
import sys

import harness
import servers
from servers import ADDRESS

# A parent that listens, and processes that accept; each says who it is. The parent makes a new one for each that ends.
PREFORK = """
import multiprocessing, multiprocessing.connection, os, socket
def serve(listener):
    while True:
        s, _ = listener.accept()
        with s:
            s.settimeout(5)
            if s.recv(100): s.sendall(f"{os.getpid()}".encode())
listener = socket.create_server(("0.0.0.0", 7100), backlog=128)
start = lambda: multiprocessing.Process(target=serve, args=(listener,), daemon=True)
workers = [start() for _ in range(2)]
for w in workers: w.start()
print("listening", flush=True)
while True:
    multiprocessing.connection.wait([w.sentinel for w in workers])
    for n, w in enumerate(workers):
        if not w.is_alive():
            w.join()
            workers[n] = start()
            workers[n].start()
"""

# Each child binds for itself, behind SO_REUSEPORT, and speaks a little HTTP.
REUSEPORT = """
import os, socket, time
for _ in range(2):
    if os.fork() == 0:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", 7200))
        listener.listen(64)
        while True:
            s, _ = listener.accept()
            with s:
                s.settimeout(5)
                if s.recv(4000):
                    body = str(os.getpid()).encode()
                    s.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
print("listening", flush=True)
time.sleep(1000)
"""

# New images serve the listener that is left open for them: by posix_spawn, by fork and exec.
IMAGES = """
import os, socket, subprocess, sys, time
if len(sys.argv) > 2:
    listener = socket.socket(fileno=int(sys.argv[2]))
    while True:
        with listener.accept()[0] as s:
            if s.recv(100): s.sendall(f"{os.getpid()} {listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)}".encode())
listener = socket.create_server(("0.0.0.0", 7500), backlog=64)
listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
listener.set_inheritable(True)
words = [sys.executable, "-c", sys.argv[1], sys.argv[1], str(listener.fileno())]
spawned = os.posix_spawn(sys.executable, words, os.environ)
forked = subprocess.Popen(words, pass_fds=[listener.fileno()]).pid
listener.close()
print(spawned, forked, flush=True)
time.sleep(1000)
"""

# A connection is accepted, and a child made for it; what another child sets on the listener, the parent has.
SERVES_ONE = """
import os, socket, time
listener = socket.create_server(("0.0.0.0", 7300))
parent = os.getpid()
def stay():
    while os.getppid() == parent: time.sleep(0.05)
    os._exit(0)
if os.fork() == 0:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    stay()
while listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) != 77: time.sleep(0.01)
print(parent, flush=True)
while True:
    s, _ = listener.accept()
    if os.fork() == 0:
        s.sendall(str(os.getpid()).encode())
        stay()
    s.close()
"""

# A listener, sent to a program of another kernel, which accepts.
SENDER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 7400))
u = socket.socket(socket.AF_UNIX)
u.connect(sys.argv[1])
socket.send_fds(u, [b"x"], [listener.fileno()])
if sys.argv[2] == "goes": u.recv(1); sys.exit()
u.recv(1)
print("sent", flush=True)
while True:
    with listener.accept()[0] as s:
        s.recv(100) and s.sendall(b"sender")
"""
RECEIVER = """
import socket, sys
unix = socket.socket(socket.AF_UNIX)
unix.bind(sys.argv[1])
unix.listen(2)
print("ready", flush=True)
u, _ = unix.accept()
_, [fd], _, _ = socket.recv_fds(u, 10, 1)
listener = socket.socket(fileno=fd)
listener.setblocking(True)
u.send(b"y")
print(listener.getsockname()[1], flush=True)
while True:
    with listener.accept()[0] as s:
        s.recv(100) and s.sendall(b"receiver")
"""

# Asks without end; prints how many answers came and how many did not, on stdin's end.
ASKER = f"""
import socket, sys, threading
port, answered, failed = int(sys.argv[1]), [0] * 4, [0] * 4
over = threading.Event()
def ask(n):
    while not over.is_set():
        try:
            with socket.create_connection(("{ADDRESS}", port), 10) as s:
                s.settimeout(10)
                s.sendall(b"who")
                if s.recv(100): answered[n] += 1
                else: failed[n] += 1
        except OSError:
            failed[n] += 1
threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
for t in threads: t.start()
print("asking", flush=True)
sys.stdin.readline()
over.set()
for t in threads: t.join()
print(sum(answered), sum(failed), flush=True)
"""

ONE = f'import socket, sys; s = socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 5); s.sendall(b"who"); print(s.recv(100).decode())'


def children_of(pid):
    return sorted(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


class Spread(harness.CobTest):
    def kernels_of(self, cob, pids):
        at = {program["pid"]: program["kernel"] for program in cob.ps()}
        return [at.get(pid) for pid in pids]

    def placed(self, cob, pids, counts):
        """As many of them on each kernel as `counts` says."""
        def there():
            found = collections.Counter(self.kernels_of(cob, pids))
            return found == collections.Counter(counts)
        harness.wait_until(there, what=f"{pids} placed as {counts}: {cob.ps()}")

    def opens(self, cob):
        return [kernel["since_start"]["passive_opens"] for kernel in cob.kernels()]

    def workers_of(self, nginx):
        """None while one master takes the other's place."""
        try:
            return children_of(int((nginx.root / "nginx.pid").read_text()))
        except (FileNotFoundError, ValueError):
            return []

    def other_workers(self, nginx, old):
        """Four that are none of the old ones."""
        def there():
            workers = self.workers_of(nginx)
            return workers if len(workers) == 4 and not set(workers) & set(old) else None
        return harness.wait_until(there, what="other workers")

    def fetch(self, cob, kernel, path="memory", port=8080):
        return cob.run("curl", "-sS", "-m", 5, f"http://{ADDRESS}:{port}/{path}", kernel=kernel).stdout

    def test_nginx_with_four_workers(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=4, spread=True, daemon="on")  # a new master wants an old one of init's
        master = int((nginx.root / "nginx.pid").read_text())
        workers = self.workers_of(nginx)
        harness.wait_until(lambda: None not in self.kernels_of(cob, workers), what="the workers")
        self.assertEqual(set(self.kernels_of(cob, workers)), {0, 1})
        body = os.urandom(300_000)
        (nginx.root / "www" / "file").write_bytes(body)
        before = self.opens(cob)
        digests = [cob.run("sh", "-c", f"for i in $(seq 20); do curl -sS http://{ADDRESS}:8080/file | sha256sum; done", kernel=k).stdout.split()[::2]
                   for k in (0, 1)]
        self.assertEqual(set(sum(digests, [])), {hashlib.sha256(body).hexdigest()})
        self.assertEqual(len(sum(digests, [])), 40)
        loads = [cob.start("wrk", "-t1", "-c8", "-d1", f"http://{ADDRESS}:8080/memory", kernel=k) for k in (0, 1)]
        for load in loads:
            said = load.communicate(timeout=30)[0]
            self.assertNotIn("Socket errors", said)
            self.assertRegex(said, "requests in")
        after = self.opens(cob)
        self.assertGreaterEqual(sum(after) - sum(before), 2 * (20 + 8))
        for k in (0, 1):  # by their clients' kernels, but for what load places elsewhere
            self.assertGreaterEqual(after[k] - before[k], 20)

        # New workers take over, placed anew; then a new master.
        os.kill(master, signal.SIGHUP)
        workers = self.other_workers(nginx, workers)
        harness.wait_until(lambda: None not in self.kernels_of(cob, workers), what="the new workers")
        self.assertEqual(set(self.kernels_of(cob, workers)), {0, 1})
        for k in (0, 1):
            self.assertEqual(self.fetch(cob, k), "a body from memory\n")
        os.kill(master, signal.SIGUSR2)
        self.other_workers(nginx, workers)
        upgraded = int((nginx.root / "nginx.pid").read_text())
        os.kill(master, signal.SIGQUIT)
        harness.wait_until(lambda: not harness.is_alive(master), what="the old master's end")
        for k in (0, 1):
            for _ in range(3):
                self.assertEqual(self.fetch(cob, k), "a body from memory\n")
        self.assertEqual(set(self.kernels_of(cob, self.workers_of(nginx))), {0, 1})

        # A worker is killed: the master makes another.
        victim = self.workers_of(nginx)[0]
        os.kill(victim, signal.SIGKILL)
        self.other_workers(nginx, [victim])
        harness.wait_until(lambda: None not in self.kernels_of(cob, self.workers_of(nginx)), what="its place")
        for k in (0, 1):
            self.assertEqual(self.fetch(cob, k), "a body from memory\n")
        self.assertTrue(harness.is_alive(upgraded))
        self.assertNotIn("[alert] bind", (nginx.root / "error.log").read_text())

    def replace(self, cob, server, victim):
        """Killed, it has a successor, on this kernel."""
        count = len(children_of(server.pid))
        os.kill(victim, signal.SIGKILL)
        def successor():
            others = set(children_of(server.pid)) - {victim}
            return others if len(others) == count and None not in self.kernels_of(cob, others) else None
        before = set(children_of(server.pid)) - {victim}
        [made] = harness.wait_until(successor, what="a process in its place") - before
        return self.kernels_of(cob, [made])[0]

    def test_python_processes_under_load_and_their_deaths(self):
        cob = self.cob(kernels=3)
        server = cob.start(sys.executable, "-c", PREFORK, kernel=1, spread=True)
        self.assertEqual(server.stdout.readline(), "listening\n")
        self.placed(cob, children_of(server.pid), {0: 1, 2: 1})
        ask = lambda k: cob.run(sys.executable, "-c", ONE, 7100, kernel=k).stdout.strip()
        for k in (0, 2):
            self.assertEqual(self.kernels_of(cob, [int(ask(k))]), [k])
        # Where nobody accepts, connections go to both.
        asker = cob.start(sys.executable, "-c", ASKER, 7100, kernel=1, stdin=subprocess.PIPE)
        self.assertEqual(asker.stdout.readline(), "asking\n")
        def more(k, what):
            served = self.opens(cob)[k]
            harness.wait_until(lambda: self.opens(cob)[k] > served + 50, what=what)
        for k in (0, 2):
            more(k, f"the load on kernel {k}")
        self.assertEqual(self.opens(cob)[1], 0)
        victim = next(pid for pid in children_of(server.pid) if self.kernels_of(cob, [pid]) == [0])
        self.assertEqual(self.replace(cob, server, victim), 0)
        for k in (0, 2):
            more(k, f"the load on kernel {k} after a process's death")
        cob.kill_kernel(0)
        more(2, "the load on kernel 2 after the other's death")
        asker.stdin.write("\n")
        asker.stdin.flush()
        answered, failed = map(int, asker.stdout.readline().split())
        self.assertLessEqual(failed, 2 * 4, "more than what four askers had under way at two deaths")
        self.assertGreater(answered, 200)
        # The kernel that came back is the one that is due.
        harness.wait_until(lambda: len(children_of(server.pid)) == 2 and None not in self.kernels_of(cob, children_of(server.pid)), what="all")
        if 0 not in self.kernels_of(cob, children_of(server.pid)):
            self.assertEqual(self.replace(cob, server, children_of(server.pid)[0]), 0)
        harness.wait_until(lambda: ask(0) != "", what="an answer on the new kernel")

        # The kernel of the parent dies, which never waits on its listener.
        cob.kill_kernel(1)
        for k in range(3):
            harness.wait_until(lambda: ask(k) != "", what="an answer after the parent's kernel died")
        self.replace(cob, server, children_of(server.pid)[0])
        for k in range(3):
            harness.wait_until(lambda: ask(k) != "", what="an answer at last")

    def test_reuseport_behind_haproxy(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", REUSEPORT, kernel=1, spread=True)
        self.assertEqual(server.stdout.readline(), "listening\n")
        harness.wait_until(lambda: None not in self.kernels_of(cob, children_of(server.pid)), what="the children")
        self.assertEqual(sorted(self.kernels_of(cob, children_of(server.pid))), [0, 1])
        servers.haproxy(cob, 7201, 7200, kernel=0)
        for k in (0, 1):
            self.assertIn(int(self.fetch(cob, k, "", 7201)), children_of(server.pid))
            self.assertIn(int(self.fetch(cob, k, "", 7200)), children_of(server.pid))
        self.assertEqual({self.kernels_of(cob, [int(self.fetch(cob, k, "", 7200))])[0] for k in (0, 1)}, {0, 1})

    def test_images_have_the_listener_where_they_are_placed(self):
        cob = self.cob(kernels=3)
        server = cob.start(sys.executable, "-c", IMAGES, IMAGES, kernel=1, spread=True)
        pids = [*map(int, server.stdout.readline().split())]
        self.placed(cob, pids, {0: 1, 2: 1})
        for k in (0, 2):
            def answer():
                said = cob.run(sys.executable, "-c", ONE, 7500, kernel=k).stdout.split()
                return said if said else None
            pid, idle = map(int, harness.wait_until(answer, what="an answer"))
            self.assertIn(pid, pids)
            self.assertEqual((self.kernels_of(cob, [pid]), idle), ([k], 77))
        server.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def test_a_listener_is_sent_to_another_kernel(self):
        for manner, answers in (("stays", ["sender", "receiver"]), ("goes", ["receiver", "receiver"])):
            cob = self.cob(kernels=2)
            place = cob.directory / "place"
            receiver = cob.start(sys.executable, "-c", RECEIVER, place, kernel=1)
            self.assertEqual(receiver.stdout.readline(), "ready\n")
            sender = cob.start(sys.executable, "-c", SENDER, place, manner, kernel=0)
            self.assertEqual(receiver.stdout.readline(), "7400\n")
            if manner == "goes":
                self.assertEqual(sender.wait(timeout=10), 0)
            else:
                self.assertEqual(sender.stdout.readline(), "sent\n")
            ask = lambda k: cob.run(sys.executable, "-c", ONE, 7400, kernel=k).stdout.strip()
            harness.wait_until(lambda: [ask(0), ask(1)] == answers, what=f"answers of both when the sender {manner}")

    def test_what_keeps_a_child_at_home_and_what_is_shared(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", SERVES_ONE, kernel=0, spread=True)
        parent = int(server.stdout.readline())
        self.assertEqual(self.kernels_of(cob, children_of(parent)), [1])
        child = int(cob.run(sys.executable, "-c", ONE, 7300, kernel=1).stdout)
        row = next(program for program in cob.ps() if program["pid"] == child)
        self.assertEqual((row["kernel"], row["stays"]), (0, "inherited a connection"))
        self.assertIn("stays: inherited a connection", cob.named("ps").stdout)
        counted = cob.kernels()[0]["since_start"]
        self.assertEqual((counted["children_spread"], counted["children_kept"]), (1, 1))


if __name__ == "__main__":
    harness.main()
