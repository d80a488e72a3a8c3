#!/usr/bin/env python3
"""Long paths between a cob and plain Linux: between the cob's TAP and one of Linux's lies a wire that takes its time.

Needs root (a network namespace, TAP devices); without it everything is skipped by name.
"""
import collections
import fcntl
import os
import pathlib
import re
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import harness
import tap_test

HOST, ADDRESS = tap_test.HOST, tap_test.ADDRESS
UPLINK = ("--uplink", "tap:cob0,offload=off", "--ip", "10.7.0.2/24")
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 0x0002, 0x1000
ETH_P_ALL = 3

# Sends, or receives, so many bytes; `size` names a socket option to be set first, or is 0.
CLIENT = """
import socket, sys, time
what, address, port, size, option, value = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
s = socket.socket()
if option: s.setsockopt(socket.SOL_SOCKET, option, value)
s.connect((address, port))
s.sendall(what.encode())
block = bytes(65536)
if what == "s":
    for i in range(size // len(block)): s.sendall(block)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)
else:
    while size > 0:
        got = len(s.recv(len(block)))
        if got == 0: sys.exit("ended early")
        size -= got
"""
# The peer on Linux.
SERVER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 7000))
print("listening", flush=True)
block = bytes(65536)
while True:
    c, _ = listener.accept()
    try:
        if c.recv(1) == b"s":
            while c.recv(len(block)): pass
            c.sendall(b"x")
        else:
            while True: c.sendall(block)
    except OSError: pass
    c.close()
"""


class Wire:
    """Two ports; what comes in at one leaves by the other `delay` seconds later."""

    def __init__(self, near, delay):
        self.delay = delay
        self.far = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.far, TUNSETIFF, struct.pack("16sH22x", b"far0", IFF_TAP | IFF_NO_PI))
        for words in (("addr", "add", f"{HOST}/24", "dev", "far0"), ("link", "set", "far0", "up"), ("link", "set", near, "up")):
            subprocess.run(["ip", *words], check=True)
        # Linux itself must not answer at the near end.
        pathlib.Path(f"/proc/sys/net/ipv4/conf/{near}/arp_ignore").write_text("8")
        self.near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.near.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
        self.near.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        self.near.bind((near, 0))
        self.near.setblocking(False)
        self.over = False
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        queues = (collections.deque(), collections.deque())  # to near, to far
        readers = (lambda: os.read(self.far, 2048), lambda: self.near.recv(2048))
        writers = (self.near.send, lambda frame: os.write(self.far, frame))
        while not self.over:
            due = min((q[0][0] for q in queues if q), default=time.monotonic() + 0.05)
            select.select([self.far, self.near], [], [], max(0, due - time.monotonic()))
            for queue, read, write in zip(queues, readers, writers):
                now = time.monotonic()
                try:
                    for _ in range(256):
                        queue.append((now + self.delay, read()))
                except BlockingIOError:
                    pass
                while queue and queue[0][0] <= now:
                    try:
                        write(queue[0][1])
                    except OSError:
                        break  # its queue is full: a little later
                    queue.popleft()

    def close(self):
        self.over = True
        self.thread.join()
        os.close(self.far)
        self.near.close()


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class PathTest(harness.CobTest):
    def setUp(self):
        self.long = self.cob(up=False)
        cores = harness.usable_cores()
        self.long.up("--kernels", 1, "--cores", str(cores[0]), *UPLINK)
        wire = Wire("cob0", 0.03)
        self.addCleanup(wire.close)
        server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)

        def end():
            server.kill()
            server.wait()
            server.stdout.close()
        self.addCleanup(end)
        self.assertEqual(server.stdout.readline(), "listening\n")

    def largest(self, what, megabytes, option=0, value=0):
        """The largest buffers that `cob ss -m` showed during a transfer of a cob's program, as bytes received and to send."""
        client = self.long.start(sys.executable, "-c", CLIENT, what, HOST, 7000, megabytes << 20, option, value)
        most = [0, 0]
        while client.poll() is None:
            found = re.search(r"rb(\d+),t\d+,tb(\d+)", self.long.named("ss", "-tnm", "dport", "=", ":7000").stdout)
            if found:
                most = [max(m, int(f)) for m, f in zip(most, found.groups())]
            time.sleep(0.05)
        self.assertEqual(client.returncode, 0)
        return most

    def test_buffers_grow_on_a_long_path(self):
        begin = 1 << 20
        receive, _ = self.largest("r", 48)
        self.assertGreater(receive, begin)
        _, send = self.largest("s", 48)
        self.assertGreater(send, begin)
        # Of a size that the program chose they do not: Linux doubles what is asked for.
        receive, _ = self.largest("r", 8, socket.SO_RCVBUF, 100_000)
        self.assertEqual(receive, 200_000)
        _, send = self.largest("s", 8, socket.SO_SNDBUF, 100_000)
        self.assertEqual(send, 200_000)


if __name__ == "__main__":
    harness.main()
