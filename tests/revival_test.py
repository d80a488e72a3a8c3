#!/usr/bin/env python3
"""Servers outlive their kernel: unmodified, not restarted, they serve again from its successor (docs/calls.md, "Deaths")."""
import os
import pathlib
import signal
import sys
import time

import harness
import servers
from servers import ADDRESS

SECONDS = 5  # from the kernel's death to the first answer

ASYNCIO = """
import asyncio
async def serve(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 7100)
    print("listening", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# A forked child accepts from one listener, edge-triggered; the parent from the same by poll. Each says which it is.
SHARED = """
import os, select, socket, sys
listener = socket.create_server(("0.0.0.0", 7101), backlog=64)
listener.setblocking(False)
child = os.fork() == 0
waiter = select.epoll() if child else select.poll()
waiter.register(listener, select.EPOLLIN | select.EPOLLET if child else select.POLLIN)
if not child: print("listening", flush=True)
while True:
    for fd, events in waiter.poll():
        try:
            while True:
                s, _ = listener.accept()
                s.sendall(b"child" if child else b"parent")
                s.close()
        except BlockingIOError:
            pass
        except OSError as problem:
            print(problem, file=sys.stderr, flush=True)
"""

# Two connections of one program on the dying kernel, edge-triggered; the death must be told, once.
EDGES = f"""
import select, socket
listener = socket.create_server(("0.0.0.0", 7102))
client = socket.create_connection(("{ADDRESS}", 7102))
server, _ = listener.accept()
waiter = select.epoll()
waiter.register(client, select.EPOLLIN | select.EPOLLET)
waiter.register(listener, select.EPOLLIN)
assert waiter.poll(0) == []
print("ready", flush=True)
events = waiter.poll(20)
print([fd == client.fileno() and bool(event & select.EPOLLHUP) for fd, event in events], flush=True)
again = waiter.poll(20)
print([fd == listener.fileno() and event == select.EPOLLIN for fd, event in again], flush=True)
print(listener.accept()[0].recv(10), flush=True)
"""

# Of three listeners one stays; the others were shut down, by the program and by a child that shared them.
ENDED = """
import os, select, socket
ended, ended_by_child, stays = (socket.create_server(("0.0.0.0", port)) for port in (7103, 7104, 7105))
ended.shutdown(socket.SHUT_RD)
if os.fork() == 0:
    ended_by_child.shutdown(socket.SHUT_RD)
    os._exit(0)
os.wait()
print("listening", flush=True)
while True:
    select.select([stays], [], [])
    s, _ = stays.accept()
    s.recv(10) and s.sendall(b"hello")
    s.close()
"""

# A listener with an option; every image of the program serves one connection, the option's value, and hands over by exec.
IMAGES = """
import os, select, socket, sys
if len(sys.argv) > 2:
    listener = socket.socket(fileno=int(sys.argv[2]))
else:
    listener = socket.create_server(("0.0.0.0", 7106))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    print("listening", flush=True)
select.select([listener], [], [])
s, _ = listener.accept()
s.sendall(str(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)).encode())
s.close()
os.set_inheritable(listener.fileno(), True)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1], str(listener.fileno())])
"""

ECHO = f"""
import socket, sys
s = socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 2)
s.settimeout(2)
s.sendall(b"hello")
sys.exit(s.recv(10) != b"hello")
"""


def children_of(pid):
    return sorted(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


class Revival(harness.CobTest):
    def kill_kernel(self, cob, number):
        old = cob.kernels()[number]["pid"]
        os.kill(old, signal.SIGKILL)
        return time.monotonic(), old

    def answers_again(self, cob, killed, attempt):
        """attempt() succeeds within SECONDS of the kernel's death, and then keeps doing so."""
        since, old = killed
        while not attempt():
            self.assertLess(time.monotonic() - since, SECONDS, "no answer since the kernel's death")
        self.assertLess(time.monotonic() - since, SECONDS, "the first answer came late")
        for _ in range(10):
            self.assertTrue(attempt())
        self.assertNotEqual(cob.kernels()[1]["pid"], old)
        cob.note_pids()

    def fetches(self, cob, port=8080):
        return lambda: cob.run("curl", "-sS", "-m", 1, f"http://{ADDRESS}:{port}/memory", kernel=0).stdout == "a body from memory\n"

    def nginx_pids(self, nginx):
        master = int((nginx.root / "nginx.pid").read_text())
        return [master, *children_of(master)]

    def test_nginx_with_two_workers_three_times(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=2)
        pids = self.nginx_pids(nginx)
        self.assertEqual(len(pids), 3)
        for _ in range(3):
            self.answers_again(cob, self.kill_kernel(cob, 1), self.fetches(cob))
            self.assertEqual(self.nginx_pids(nginx), pids)
        self.assertNotIn("[alert]", (nginx.root / "error.log").read_text())

    def test_nginx_under_load(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=1)
        pids = self.nginx_pids(nginx)
        load = cob.start("ab", "-q", "-r", "-k", "-c", 50, "-n", 10000000, f"http://{ADDRESS}:8080/memory", kernel=0)
        harness.wait_until(lambda: cob.kernels()[1]["now"]["connections"] >= 50, what="the load")
        self.answers_again(cob, self.kill_kernel(cob, 1), self.fetches(cob))
        self.assertEqual(self.nginx_pids(nginx), pids)
        load.kill()

    def test_nginx_with_reuseport(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=2, listen="8080 reuseport")
        pids = self.nginx_pids(nginx)
        self.answers_again(cob, self.kill_kernel(cob, 1), self.fetches(cob))
        self.assertEqual(self.nginx_pids(nginx), pids)

    def test_nginx_gets_new_workers_after_the_death(self):
        """The master, which never waits on its listener, passes it on all the same."""
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob, workers=2)
        master, *old = self.nginx_pids(nginx)
        self.answers_again(cob, self.kill_kernel(cob, 1), self.fetches(cob))
        os.kill(old[0], signal.SIGKILL)
        harness.wait_until(lambda: len(set(children_of(master)) - {old[0]}) == 2, what="a worker in its place")
        for _ in range(20):
            self.assertTrue(self.fetches(cob)())
        os.kill(master, signal.SIGHUP)
        harness.wait_until(lambda: len(children_of(master)) == 2 and not set(children_of(master)) & set(old), what="the reload")
        for _ in range(20):
            self.assertTrue(self.fetches(cob)())

    def test_redis(self):
        cob = self.cob(kernels=2)
        redis = servers.redis(cob)
        cli = lambda *words: cob.run("redis-cli", "-h", ADDRESS, *words, kernel=0).stdout
        self.assertEqual(cli("set", "key", "value"), "OK\n")
        idle = cob.start("redis-cli", "-h", ADDRESS, "subscribe", "nothing", kernel=1)
        self.answers_again(cob, self.kill_kernel(cob, 1), lambda: cli("get", "key") == "value\n")
        self.assertIsNone(redis.poll())
        idle.kill()

    def test_asyncio(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", ASYNCIO, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        echo = lambda: cob.run(sys.executable, "-c", ECHO, 7100, kernel=0).returncode == 0
        self.assertTrue(echo())
        self.answers_again(cob, self.kill_kernel(cob, 1), echo)
        self.assertIsNone(server.poll())

    def test_listener_shared_by_fork_is_one_again(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", SHARED, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        script = f'import socket; print(socket.create_connection(("{ADDRESS}", 7101), 2).recv(10).decode())'
        ask = lambda: cob.run(sys.executable, "-c", script, kernel=0).stdout.strip()
        self.answers_again(cob, self.kill_kernel(cob, 1), lambda: ask() != "")
        self.assertEqual(cob.kernels()[1]["listeners"], ["0.0.0.0:7101"])
        # Both hold the one that is there: the parent goes on alone.
        [child] = children_of(server.pid)
        answered = {ask() for _ in range(30)}
        self.assertLessEqual(answered, {"child", "parent"})
        os.kill(child, signal.SIGKILL)
        for _ in range(5):
            self.assertEqual(ask(), "parent")

    def test_edge_triggered_connections_are_told_and_the_listener_stays(self):
        cob = self.cob(kernels=2)
        program = cob.start(sys.executable, "-c", EDGES, kernel=1)
        self.assertEqual(program.stdout.readline(), "ready\n")
        self.kill_kernel(cob, 1)
        self.assertEqual(program.stdout.readline(), "[True]\n")
        script = f'import socket; socket.create_connection(("{ADDRESS}", 7102), 2).sendall(b"hi")'
        harness.wait_until(lambda: cob.run(sys.executable, "-c", script, kernel=0).returncode == 0, what="a connection")
        self.assertEqual(program.stdout.readline(), "[True]\n")
        self.assertEqual(program.stdout.readline(), "b'hi'\n")
        cob.note_pids()

    def test_listeners_that_were_shut_down_stay_so(self):
        cob = self.cob(kernels=2)
        program = cob.start(sys.executable, "-c", ENDED, kernel=1)
        self.assertEqual(program.stdout.readline(), "listening\n")
        echo = lambda: cob.run(sys.executable, "-c", ECHO, 7105, kernel=0).returncode == 0
        self.answers_again(cob, self.kill_kernel(cob, 1), echo)
        self.assertEqual(cob.kernels()[1]["listeners"], ["0.0.0.0:7105"])

    def test_options_and_exec(self):
        cob = self.cob(kernels=2)
        program = cob.start(sys.executable, "-c", IMAGES, IMAGES, kernel=1)
        self.assertEqual(program.stdout.readline(), "listening\n")
        script = f'import socket; print(socket.create_connection(("{ADDRESS}", 7106), 2).recv(10).decode())'
        ask = lambda: cob.run(sys.executable, "-c", script, kernel=0).stdout
        for _ in range(2):
            self.answers_again(cob, self.kill_kernel(cob, 1), lambda: ask() == "77\n")
        self.assertIsNone(program.poll())


if __name__ == "__main__":
    harness.main()
