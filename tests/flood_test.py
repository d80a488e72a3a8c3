"""Floods over the TAP while connections work: SYNs, fragments, garbage, and resets inside the window. Connections that are there go on, new ones
come to be, and the kernels' memory stays bounded.

Needs root (the namespace, the TAP, frames of one's own making); without it everything is skipped by name.
"""
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

import harness
import tap_test
from tap_test import ADDRESS, HOST, checksum

PORT = 7600
SECONDS = 1.5          # of each flood
GROWTH = 24 << 20      # bytes that a flood may add to a kernel: queues, pools and tables, which have their ends
PATIENCE = 10          # seconds within which an answer comes while it lasts
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, SEND_QUEUE = 19, 20, 21, 2


def ipv4(source, destination, protocol, payload, identification=0, fragment=0):
    def head(sum_):
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), identification, fragment, 64, protocol, sum_) \
            + socket.inet_aton(source) + socket.inet_aton(destination)
    return head(checksum(head(0))) + payload


def reset(source_port, sequence):
    """RST from Linux's end to the cob's."""
    def tcp(sum_):
        return struct.pack("!HHIIBBHHH", source_port, PORT, sequence & 0xffffffff, 0, 5 << 4, 4, 0, sum_, 0)
    pseudo = socket.inet_aton(HOST) + socket.inet_aton(ADDRESS) + struct.pack("!HH", 6, 20)
    return ipv4(HOST, ADDRESS, 6, tcp(checksum(pseudo + tcp(0))))


def neighbour(random_):
    return f"10.7.0.{random_.randrange(3, 255)}"


def next_sequence(line):
    """What the cob expects next of a Linux connection."""
    line.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    line.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    sequence = line.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xffffffff
    line.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)  # off, and no window probe
    return sequence


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class FloodTest(harness.CobTest):
    def setUp(self):
        self.the_cob = self.cob(up=False, check=False)
        self.the_cob.up("--kernels", 2, *tap_test.UPLINK)
        for kernel in (0, 1):
            server = self.the_cob.start(sys.executable, "-c", tap_test.ECHO, f"k{kernel}", PORT + kernel, kernel=kernel)
            self.assertEqual(server.stdout.readline(), "listening\n")
        self.lines = [tap_test.Line(PORT + i % 2, PATIENCE) for i in range(20)]
        for line in self.lines:
            self.addCleanup(line.close)
        self.assert_lines_work()
        neighbours = subprocess.run(["ip", "neigh", "show", ADDRESS], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        mac = bytes.fromhex(neighbours[neighbours.index("lladdr") + 1].replace(":", ""))
        self.ethernet = mac + b"\2\0\0\0\0\x99" + b"\x08\0"
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.addCleanup(self.raw.close)
        self.raw.bind((tap_test.TapTest.wire, 0))

    def assert_lines_work(self):
        for i, line in enumerate(self.lines):
            self.assertEqual(line.ask(f"to {i}"), f"k{i % 2}")

    def resident(self):
        return [int(pathlib.Path(f"/proc/{k['pid']}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
                for k in self.the_cob.kernels()]

    def counted(self):
        return json.loads(self.the_cob.named("stats", "--net", "--json").stdout)["sum"]

    def flood(self, packets):
        """Sends what packets(random) makes for a while, asks on each connection meanwhile, and opens new ones. Returns how many were sent."""
        sent = [0]
        end = time.monotonic() + SECONDS
        def send():
            random_ = random.Random(7)
            while time.monotonic() < end:
                for frame in packets(random_):
                    try:
                        self.raw.send(frame)
                        sent[0] += 1
                    except OSError:  # the TAP's queue is full
                        time.sleep(0.0005)
        before = self.resident()
        sender = threading.Thread(target=send)
        sender.start()
        try:
            while time.monotonic() < end:
                self.assert_lines_work()
        finally:
            sender.join()
        self.assert_lines_work()
        self.assertEqual(tap_test.answers(PORT, 3), {"k0": 3})
        after = self.resident()
        print(f"{self._testMethodName}: {sent[0]} frames, kernels {[f'{(b - a) / (1 << 20):+.1f} MiB' for a, b in zip(before, after)]}")
        for less, more in zip(before, after):
            self.assertLess(more - less, GROWTH)
        self.assertGreater(sent[0], 1000)
        return sent[0]

    def test_opening_segments(self):
        """Of strangers who never answer: the SYN queue fills, and cookies keep the listener open."""
        def syns(r):
            return [self.ethernet + tap_test.syn(neighbour(r), r.randrange(1024, 65536), ADDRESS, PORT) for _ in range(64)]
        self.flood(syns)
        self.assertGreater(self.counted()["TcpExtSyncookiesSent"], 0)

    def test_fragments(self):
        """First pieces of datagrams that never become whole."""
        def pieces(r):
            return [self.ethernet + ipv4(neighbour(r), ADDRESS, 17, bytes(1400), r.randrange(65536), 0x2000 | r.randrange(0, 4000))
                    for _ in range(64)]
        self.flood(pieces)
        self.assertGreater(self.counted()["IpReasmFails"], 0)

    def test_garbage(self):
        def frames(r):
            kinds = (b"\x08\0", b"\x08\x06", b"\x86\xdd", b"\x12\x34")
            made = [self.ethernet[:12] + r.choice(kinds) + r.randbytes(r.randrange(0, 1400)) for _ in range(32)]
            # What has good headers, and nonsense behind them.
            return made + [self.ethernet + ipv4(neighbour(r), ADDRESS, r.choice((1, 2, 6, 17, 41)), r.randbytes(r.randrange(0, 200)))
                           for _ in range(32)]
        self.flood(frames)

    def test_resets_inside_the_window(self):
        """RFC 5961 section 3.2: only the very next sequence number ends a connection; others are answered, so many a second."""
        victims = [line.socket for line in self.lines[::2]]
        aims = [(v.getsockname()[1], next_sequence(v)) for v in victims]
        def resets(r):
            # Beyond what the connection sends meanwhile, and within its window.
            return [self.ethernet + reset(port, sequence + r.randrange(30_000, 60_000)) for port, sequence in aims for _ in range(4)]
        self.flood(resets)
        self.assertGreater(self.counted()["TcpExtTCPChallengeACK"], 0)


if __name__ == "__main__":
    harness.main()
