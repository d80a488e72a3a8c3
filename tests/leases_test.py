#!/usr/bin/env python3
"""Files of island a that programs of island b cache: reads that send nothing, and writers of every kind whom the next
read sees."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import harness
import shares_test
from harness import wait_until

# Answers on lines: "r POSITION BYTES" reads there, "n BYTES" at the offset, "s POSITION" seeks, "e" from the end, "w FIRST BLOCKS ROUNDS" reads blocks over and over.
READER = """
import hashlib, os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
for line in sys.stdin:
    what, *numbers = line.split()
    numbers = [int(n) for n in numbers]
    if what == "r": data = os.pread(f, numbers[1], numbers[0])
    if what == "n": data = os.read(f, numbers[0])
    if what == "e": os.lseek(f, numbers[0], 2); data = b""
    if what == "s": os.lseek(f, numbers[0], 0); data = b""
    if what == "w":
        for i in range(numbers[2]):
            for block in range(numbers[1]): data = os.pread(f, 4096, (numbers[0] + block) * 4096)
    print(len(data), hashlib.sha256(data).hexdigest(), flush=True)
"""
WRITER = """
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY)
os.pwrite(f, sys.argv[2].encode() * 4096, 0)
"""
# O_RDONLY | O_TRUNC, of a file that its user may write and of one that nobody may: as nobody.
CUTTER = """
import os, sys
path = sys.argv[1]
os.chmod(path, 0o666)
locked = path + ".locked"
with open(locked, "w") as f: f.write("kept")
os.chmod(locked, 0o444)
child = os.fork()  # whose user is looked up anew
if child:
    os.waitpid(child, 0)
    os._exit(0)
if os.geteuid() == 0: os.seteuid(65534)
f = os.open(path, os.O_RDONLY | os.O_TRUNC)
try: os.open(locked, os.O_RDONLY | os.O_TRUNC); error = 0
except OSError as e: error = e.errno
if os.path.getsize(locked) != 4: error = -1
print(os.fstat(f).st_size, error)
"""
HASTY = """
import fcntl, os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)
print(fcntl.fcntl(f, fcntl.F_GETFL) & os.O_NONBLOCK, [f, os.pwrite(f, b"here", 0)])
"""


class Reader:
    def __init__(self, test, path):
        self.child = subprocess.Popen(test.words(sys.executable, "-c", READER, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True, env=test.one.environment, cwd="/")
        test.one.children.append(self.child)
        assert self.child.stdout.readline() == "open\n"

    def ask(self, *words):
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()

    def answer(self):
        bytes, digest = self.child.stdout.readline().split()
        return int(bytes), digest

    def do(self, *words):
        self.ask(*words)
        return self.answer()


def what(data):
    return len(data), hashlib.sha256(data).hexdigest()


class LeasesTest(shares_test.SharesTest):
    def setUp(self):
        super().setUp()
        self.path = self.share / "file"
        self.data = bytes(i * 7 + (i >> 12) & 255 for i in range(1 << 20)) + b"the end"
        self.path.write_bytes(self.data)

    def requests(self):
        """What b has asked a so far."""
        done = self.one.named("stats", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        for kernel in json.loads(done.stdout)["kernels"]:
            for peer in kernel.get("peers", []):
                if (kernel["kernel"], peer["peer"]) == (1, 0):
                    return peer["since_start"]["requests_out"]
        return None

    def requests_of(self, do):
        before = self.requests()
        do()
        return self.requests() - before

    def test_cached_reads_ask_nobody(self):
        reader = Reader(self, self.path)
        for position, bytes in ((0, 4096), (5000, 9000), (0, 4096), (300_000, 100_000), (len(self.data) - 100, 4096), (len(self.data), 10)):
            self.assertEqual(reader.do("r", position, bytes), what(self.data[position:position + bytes]))
        reader.do("w", 10, 64, 2)
        # Renewals alone, four a second.
        self.assertLess(self.requests_of(lambda: reader.do("w", 10, 64, 500)), 100)
        self.assertEqual(reader.do("r", 10 * 4096, 64 * 4096), what(self.data[10 * 4096:74 * 4096]))

    def test_the_whole_file_in_few_requests(self):
        reader = Reader(self, self.path)
        for _ in range(2):
            reader.do("s", 0)
            def read_all():
                for at in range(0, len(self.data), 4096):
                    self.assertEqual(reader.do("n", 4096), what(self.data[at:at + 4096]))
            self.assertLess(self.requests_of(read_all), 60)
        self.assertEqual(reader.do("n", 4096), what(b""))
        self.assertEqual(reader.do("r", 0, 2 << 20), what(self.data))

    def cached_reader(self):
        reader = Reader(self, self.path)
        wait_until(lambda: self.requests_of(lambda: reader.do("w", 0, 1, 50)) < 20, what="cached reads")
        return reader

    def test_every_writer_is_seen(self):
        reader = self.cached_reader()

        def by_the_host(letter):
            f = os.open(self.path, os.O_WRONLY)
            os.pwrite(f, letter.encode() * 4096, 0)
            os.close(f)

        def on_a(letter):
            done = self.one.run(sys.executable, "-c", WRITER, self.path, letter, kernel=0)
            self.assertEqual(done.returncode, 0, done.stderr)

        def on_b(letter):
            done = self.on_b(sys.executable, "-c", WRITER, self.path, letter)
            self.assertEqual(done.returncode, 0, done.stderr)

        for i in range(60):
            write = on_a if i % 20 == 7 else on_b if i % 20 == 13 else by_the_host
            letter = chr(ord("a") + i % 26)
            write(letter)
            for _ in range(4):
                self.assertEqual(reader.do("r", 0, 4096), what(letter.encode() * 4096), f"{write.__name__} {i}")

    def test_a_cut_is_seen(self):
        reader = self.cached_reader()
        os.truncate(self.path, 100)
        self.assertEqual(reader.do("r", 0, 4096), what(self.data[:100]))
        self.assertEqual(reader.do("r", 100, 4096), what(b""))

    def test_a_cut_by_a_reader_is_seen(self):
        for on in (lambda *p: self.one.run(*p, kernel=0), self.on_b):
            self.path.write_bytes(self.data)
            reader = self.cached_reader()
            done = on(sys.executable, "-c", CUTTER, self.path)
            self.assertEqual(done.stdout, "0 13\n", done.stderr)  # EACCES of a file that may not be written
            self.assertEqual(reader.do("r", 0, 4096), what(b""))

    def test_a_writer_that_does_not_wait(self):
        for on in (lambda *p: self.one.run(*p, kernel=0), self.on_b):
            reader = self.cached_reader()
            done = on(sys.executable, "-c", HASTY, self.path)
            self.assertEqual(done.stdout, f"{os.O_NONBLOCK} [3, 4]\n", done.stderr)
            self.assertEqual(reader.do("r", 0, 4), what(b"here"))

    def test_a_cached_files_end_is_known(self):
        reader = self.cached_reader()
        reader.do("e", -100)
        def seek_often():
            for i in range(1, 500):
                reader.do("e", -i)
        self.assertLess(self.requests_of(seek_often), 100)
        self.assertEqual(reader.do("e", -7), what(b""))
        self.assertEqual(reader.do("n", 100), what(b"the end"))
        with open(self.path, "ab") as f:
            f.write(b" and more")
        reader.do("e", -5)
        self.assertEqual(reader.do("n", 100), what(b" more"))

    def test_while_a_writer_has_it_open_nothing_is_cached(self):
        reader = self.cached_reader()
        with open(self.path, "r+b", buffering=0) as f:
            for i in range(100):
                f.seek(0)
                f.write(bytes([i]) * 4096)
                self.assertEqual(reader.do("r", 0, 4096), what(bytes([i]) * 4096))

    def test_a_stopped_island_holds_a_writer_up_for_a_lease(self):
        reader = self.cached_reader()
        pid = next(k["pid"] for k in self.one.kernels() if k["kernel"] == 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            f = os.open(self.path, os.O_WRONLY)
            took = time.monotonic() - began
            os.pwrite(f, b"z" * 4096, 0)
            os.close(f)
            self.assertLess(took, 2.5)
            reader.ask("r", 0, 4096)  # its lease is over: it asks, and waits
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertEqual(reader.answer(), what(b"z" * 4096))
        wait_until(lambda: self.requests_of(lambda: reader.do("w", 0, 1, 50)) < 20, what="another lease")

    def test_a_stopped_program_holds_nobody_up(self):
        reader = self.cached_reader()
        reader.child.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        os.close(os.open(self.path, os.O_WRONLY))
        self.assertLess(time.monotonic() - began, 0.9)
        reader.child.send_signal(signal.SIGCONT)

    def test_another_users_program_reads_by_its_own_right(self):
        if not shares_test.ROOT:
            self.skipTest("needs root")
        reader = self.cached_reader()
        self.path.chmod(0o600)
        done = self.on_b("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat", self.path)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Permission denied", done.stderr)
        self.assertEqual(reader.do("r", 0, 4096), what(self.data[:4096]))


if __name__ == "__main__":
    harness.main()
