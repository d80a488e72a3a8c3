#!/usr/bin/env python3
"""Connections passed by SCM_RIGHTS to programs of other kernels of the island (docs/descriptors.md, 11): a master accepts, its workers serve."""
import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import harness
from harness import wait_until

PYTHON = sys.executable

# Accepts and passes connections to workers in turn. `keeps`: it closes its copy when the worker has answered, as node's cluster does.
MASTER = """
import os, socket, sys
path, keeps = sys.argv[1], sys.argv[2] == "keeps"
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); door.bind(path); door.listen()
listener = socket.create_server(("0.0.0.0", 7600), backlog=256)
print("listening", flush=True)
workers = [door.accept()[0] for _ in range(int(sys.argv[3]))]
turn = 0
while True:
    connection, _ = listener.accept()
    worker = workers[turn % len(workers)]
    turn += 1
    try:
        if keeps == False and turn % 3 == 0: connection.recv(1, socket.MSG_PEEK)  # it may have come, or not
        socket.send_fds(worker, [b"c"], [connection.fileno()])
        if keeps: worker.recv(1)
    except OSError as e:
        print("pass:", e, flush=True)
        workers.remove(worker)
    connection.close()
"""

# Answers each request, of so many bytes, with a sum of them and as many bytes of its own.
WORKER = """
import hashlib, os, socket, sys, threading
path, keeps = sys.argv[1], sys.argv[2] == "keeps"
master = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); master.connect(path)
def exactly(c, n):
    got = bytearray()
    while len(got) < n:
        piece = c.recv(min(65536, n - len(got)))
        if not piece: raise EOFError
        got += piece
    return bytes(got)
def serve(c):
    with c:
        while True:
            head = c.recv(8, socket.MSG_WAITALL)
            if len(head) < 8: return
            size = int(head)
            sum = hashlib.md5(exactly(c, size)).digest()
            c.sendall(b"%8d" % os.getpid() + sum + sum * (size // 16))
print(os.getpid(), flush=True)
while True:
    word, fds, _, _ = socket.recv_fds(master, 1, 1)
    if not word: break
    c = socket.socket(fileno=fds[0])
    if keeps:
        c.getpeername()
        master.send(b"k")
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""

# Each connection a few requests, checked; prints who served how many.
CLIENT = """
import collections, hashlib, os, random, socket, sys, threading
address, connections, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
served, errors, lock = collections.Counter(), [], threading.Lock()
def exactly(c, n):
    got = bytearray()
    while len(got) < n:
        piece = c.recv(min(65536, n - len(got)))
        if not piece: raise EOFError("closed")
        got += piece
    return bytes(got)
def run(number):
    chance = random.Random(seed * 1000 + number)
    for _ in range(connections):
        try:
            with socket.create_connection((address, 7600), timeout=30) as c:
                for _ in range(chance.randrange(1, 5)):
                    size = chance.choice((0, 1, 100, 5000, 200_000))
                    body = chance.randbytes(size)
                    c.sendall(b"%8d" % size)
                    c.sendall(body)
                    who, sum = int(exactly(c, 8)), hashlib.md5(body).digest()
                    if exactly(c, 16 + size // 16 * 16) != sum + sum * (size // 16): raise ValueError("another answer")
                    with lock: served[who] += 1
        except Exception as e:
            with lock: errors.append(repr(e))
threads = [threading.Thread(target=run, args=(n,)) for n in range(6)]
for t in threads: t.start()
for t in threads: t.join()
print(len(errors), *errors[:3], sep="|")
print(*(f"{who}:{n}" for who, n in served.items()))
"""


class PassConnections(harness.CobTest):
    def setUp(self):
        self.one = self.cob(kernels=2)
        self.door = str(self.one.directory / "door")
        self.address = "10.77.0.1"

    def line(self, child):
        return child.stdout.readline().strip()

    def begin(self, worker_kernels, keeps="closes"):
        master = self.one.start(PYTHON, "-c", MASTER, self.door, keeps, len(worker_kernels), kernel=0)
        self.assertEqual(self.line(master), "listening", master.stderr.read() if master.poll() else "")
        workers = [self.one.start(PYTHON, "-c", WORKER, self.door, keeps, kernel=k) for k in worker_kernels]
        return master, workers, [int(self.line(w)) for w in workers]

    def load(self, kernel, connections, seed):
        done = self.one.run(PYTHON, "-c", CLIENT, self.address, connections, seed, kernel=kernel, timeout=120)
        errors, served = done.stdout.splitlines() if done.returncode == 0 else (done.stderr, "")
        return errors, {int(w.split(":")[0]): int(w.split(":")[1]) for w in served.split()}

    def test_a_master_passes_and_closes(self):
        _, _, pids = self.begin((0, 1, 1))
        for kernel in (0, 1):
            errors, served = self.load(kernel, 25, kernel)
            self.assertEqual(errors, "0")
            self.assertEqual(set(served), set(pids))

    def test_a_master_keeps_its_copy_until_the_worker_has_answered(self):
        _, _, pids = self.begin((1, 0), "keeps")
        for kernel in (1, 0):
            errors, served = self.load(kernel, 15, 10 + kernel)
            self.assertEqual(errors, "0")
            self.assertEqual(set(served), set(pids))


if __name__ == "__main__":
    harness.main()
