#!/usr/bin/env python3
"""Running programs go from island to island and back (docs/moving.md, 10): their files of shares go along, with offset, flags, locks and
position; and descriptors are passed between programs of different kernels."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest

import harness
from harness import wait_until
from locks_test import LOCKER, Locker

PYTHON = sys.executable

# Reads numbered records at one offset with its child, and appends each to a log with who had it.
TWO_READERS = """
import os, sys, time
share = sys.argv[1]
source = os.open(f"{share}/records", os.O_RDONLY)
log = os.open(f"{share}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
child = os.fork()
who = b"p" if child else b"c"
if child: print(os.getpid(), flush=True)
while not os.path.exists(f"{share}/stop"):
    record = os.read(source, 8)
    if not record: break
    os.write(log, record[:7] + who)
    time.sleep(0.0005)
if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

LISTER = """
import os, sys, time
seen = []
with os.scandir(sys.argv[1]) as entries:
    print(os.getpid(), flush=True)
    for entry in entries:
        seen.append(entry.name)
        os.path.exists("/nowhere")  # it goes with a call
        time.sleep(0.002)
print(" ".join(seen), flush=True)
"""

WRITER = """
import os, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=20)
db.execute("create table if not exists t (n integer primary key, s text)")
db.commit()
print(os.getpid(), flush=True)
for n in range(int(sys.argv[2])):
    try:
        db.execute("insert into t values (?, ?)", (n, "x" * 200))
        db.commit()
    except sqlite3.OperationalError as e:
        print(n, e.sqlite_errorname, file=sys.stderr)
        raise
    time.sleep(0.002)
print("done", flush=True)
"""

WALKER = """
import os, sys
print(os.getpid(), flush=True)
for line in sys.stdin:
    word = line.strip()
    try:
        with open(word) as f: said = f.read().strip()
    except OSError as e: said = str(e.errno)
    f = os.open(".", os.O_RDONLY)
    print(os.getcwd(), said, len(os.listdir(f)), flush=True)
    os.close(f)
"""

SENDER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
fds = [os.open(path, os.O_RDONLY) for path in sys.argv[2:]]
heads = [os.read(fd, 1000) for fd in fds]
print("ready", flush=True)
c, _ = s.accept()
socket.send_fds(c, [b"x"], fds)
for fd in fds: os.close(fd)
c.recv(1)
for head in heads: sys.stdout.buffer.write(head)
"""
RECEIVER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
_, fds, _, _ = socket.recv_fds(s, 1, 20)
rest = b""
for fd in fds:
    while piece := os.read(fd, 5000): rest += piece
print(len(fds), os.readlink(f"/proc/self/fd/{fds[0]}"), flush=True)
sys.stdout.buffer.write(rest)
s.send(b"y")
"""


class Islands(harness.CobTest):
    kernels_of_b = 1

    def setUp(self):
        self.share = pathlib.Path(tempfile.mkdtemp(prefix="cob-share-"))
        self.addCleanup(shutil.rmtree, self.share, True)
        self.share.chmod(0o755)
        self.one = self.cob(up=False)
        cores = harness.usable_cores()
        b = ",".join(str(cores[-1]) for _ in range(self.kernels_of_b))
        self.one.up("--island", f"a:1:{cores[0]}", "--island", f"b:{self.kernels_of_b}:{b}", "--share", f"{self.share}@a")

    def words(self, *program, kernel=0):
        island = "a" if kernel == 0 else "b"
        return [self.one.command, "run", "--name", self.one.name, "-k", str(kernel), "--from", island, "--", *map(str, program)]

    def begin(self, *program, kernel=0, **options):
        options = {"stdin": subprocess.DEVNULL, "cwd": "/", **options}
        child = subprocess.Popen(self.words(*program, kernel=kernel), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**self.one.environment, "LC_ALL": "C"}, **options)
        self.one.children.append(child)
        return child

    def migrate(self, pid, kernel):
        return self.one.named("migrate", "--json", pid, kernel)

    def move(self, pid, kernel):
        done = self.migrate(pid, kernel)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def ended(self, child, timeout=60):
        if child.stdin is not None and child.stdin.closed:
            child.stdin = None
        out, err = child.communicate(timeout=timeout)
        self.one.note_reports(err)
        self.assertEqual(child.returncode, 0, out + err)
        return out


class FilesTest(Islands):
    def test_nothing_is_read_twice_or_lost_over_a_hundred_moves(self):
        count = 60_000
        (self.share / "records").write_text("".join(f"{i:07d}\n" for i in range(count)))
        child = self.begin(PYTHON, "-c", TWO_READERS, self.share)
        pid = int(child.stdout.readline())
        for move in range(100):
            self.move(pid, 1 - move % 2)
        (self.share / "stop").touch()
        self.ended(child)
        log = (self.share / "log").read_text()
        had = sorted(int(log[i:i + 7]) for i in range(0, len(log), 8))
        self.assertEqual(had, list(range(len(had))))
        self.assertLess(len(had), count, "all was read before the last move")
        self.assertGreater(log.count("p"), 100)
        self.assertGreater(log.count("c"), 100)

    def test_it_is_a_program_of_the_other_island_there(self):
        (self.share / "f").write_text("words")
        child = self.begin(PYTHON, "-c", "import os, sys\nprint(os.getpid(), flush=True)\n"
                           "for line in sys.stdin:\n f = os.open(line.strip(), os.O_RDONLY)\n"
                           " print(os.readlink(f'/proc/self/fd/{f}'), os.read(f, 9), flush=True)\n", stdin=subprocess.PIPE)
        pid = int(child.stdout.readline())

        def opened():
            child.stdin.write(f"{self.share}/f\n"); child.stdin.flush()
            return child.stdout.readline().split()
        for _ in range(3):
            self.assertEqual(opened(), [f"{self.share}/f", "b'words'"])
            self.move_awake(pid, 1, opened)
            self.assertEqual(opened(), ["anon_inode:[eventfd]", "b'words'"])
            told = json.loads(self.one.named("ps", "--json").stdout)
            self.move_awake(pid, 0, opened)
        child.stdin.close()
        self.assertIn(str(pid), json.dumps(told))
        self.ended(child)

    def move_awake(self, pid, kernel, wake):
        """One that sleeps in the host's read goes with its next call."""
        command = subprocess.Popen([self.one.command, "migrate", "--name", self.one.name, str(pid), str(kernel)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.one.environment)
        time.sleep(0.2)
        wake()
        out, err = command.communicate(timeout=30)
        self.assertEqual(command.returncode, 0, out + err)

    def test_locks_are_held_throughout(self):
        (self.share / "f").write_bytes(bytes(100))
        for start in (0, 1):
            locker = Locker(self, self.words(PYTHON, "-c", LOCKER, self.share / "f", kernel=start), self.one.environment)
            host = Locker(self, [PYTHON, "-c", LOCKER, str(self.share / "f")], self.one.environment)
            self.assertEqual(locker.do("posix ex 0 10"), "ok")
            self.assertEqual(locker.do("flock ex"), "ok")
            pid = self.pid_of(locker)
            for kernel in (1 - start, start, 1 - start):
                self.move_awake(pid, kernel, lambda: locker.do("lockf test 0 1"))
                self.assertEqual(host.do("posix ex 9 1"), "EAGAIN")
                self.assertEqual(host.do("posix ex 10 1"), "ok")
                self.assertEqual(host.do("posix un 10 1"), "ok")
                self.assertEqual(host.do("flock ex"), "EAGAIN")
                self.assertEqual(locker.do("posix ex 0 10"), "ok")
            self.assertEqual(locker.do("posix un 5 5"), "ok")
            self.assertEqual(host.do("posix ex 5 5"), "ok")
            self.assertEqual(host.do("posix ex 4 1"), "EAGAIN")
            self.assertEqual(locker.do("flock un"), "ok")
            self.assertEqual(host.do("flock ex"), "ok")
            locker.child.stdin.close()
            locker.child.wait(30)
            wait_until(lambda: host.do("posix ex 0 10") == "ok", 10)
            host.child.stdin.close()
            host.child.wait(30)

    def pid_of(self, locker):
        told = json.loads(self.one.named("ps", "--json").stdout)
        self.assertIn(locker.child.pid, [p["pid"] for p in told])
        return locker.child.pid

    def test_a_shell_reads_on(self):
        (self.share / "in").write_text("".join(f"{i} some words in a line\n" for i in range(3_000)))
        child = self.begin("bash", "-c", f'echo $$; exec < "{self.share}/in" > "{self.share}/out"; while read -r l; do echo "$l"; '
                           f'[ "${{l%% *}}" = 2000 ] && while [ ! -e "{self.share}/go" ]; do :; done; done; true')
        pid = int(child.stdout.readline())
        for move in range(21):
            self.move(pid, 1 - move % 2)
        (self.share / "go").touch()
        self.ended(child)
        self.assertEqual((self.share / "out").read_text(), (self.share / "in").read_text())

    def test_a_directory_is_read_on(self):
        directory = self.share / "d"
        directory.mkdir()
        for i in range(700):
            (directory / f"name-{i:04d}").touch()
        for start in (0, 1):
            child = self.begin(PYTHON, "-c", LISTER, directory, kernel=start)
            pid = int(child.stdout.readline())
            for kernel in (1 - start, start, 1 - start):
                self.move(pid, kernel)
            self.assertEqual(sorted(self.ended(child).split()), [f"name-{i:04d}" for i in range(700)])

    def test_sqlite_writes_on(self):
        for start in (0, 1):
            db = self.share / f"db{start}"
            child = self.begin(PYTHON, "-c", WRITER, db, 150, kernel=start)
            pid = int(child.stdout.readline())
            for move in range(6):
                self.move(pid, 1 - (start + move) % 2)
            self.assertEqual(self.ended(child), "done\n")
            with sqlite3.connect(db) as connection:
                self.assertEqual(connection.execute("pragma integrity_check").fetchall(), [("ok",)])
                self.assertEqual(connection.execute("select count(*), sum(n) from t").fetchone(), (150, sum(range(150))))
            connection.close()

    def test_pipes_and_the_working_directory(self):
        inner = self.share / "inner"
        inner.mkdir()
        (inner / "x").write_text("text of x")
        child = self.begin(PYTHON, "-c", WALKER, stdin=subprocess.PIPE, cwd=inner)
        pid = int(child.stdout.readline())

        def asks(word="x"):
            child.stdin.write(word + "\n"); child.stdin.flush()
            return child.stdout.readline().strip()
        want = f"{inner} text of x 1"
        self.assertEqual(asks(), want)
        for kernel in (1, 0, 1, 0):
            self.move_awake(pid, kernel, asks)
            self.assertEqual(asks(), want)
            self.assertEqual(asks("../inner/x"), want)
            self.assertEqual(asks("absent"), f"{inner} 2 1")
        child.stdin.close()
        self.ended(child)


class RefusedTest(Islands):
    def test_sockets_of_the_cob(self):
        child = self.begin(PYTHON, "-c", "import os, socket, time\ns = socket.create_server(('0.0.0.0', 7000))\n"
                           "print(os.getpid(), s.fileno(), flush=True)\nwhile not os.path.exists('/nowhere'): time.sleep(0.01)")
        pid, number = child.stdout.readline().split()
        done = self.migrate(pid, 1)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(f"descriptor {number} is a socket of the cob", done.stdout + done.stderr)
        self.assertIn("stays on kernel 0", done.stdout + done.stderr)
        self.assertIsNone(child.poll())
        told = json.loads(self.one.named("ps", "--json").stdout)
        self.assertEqual([p["kernel"] for p in told if p["pid"] == int(pid)], [0])

    def test_a_kernel_that_has_died(self):
        (self.share / "records").write_text("".join(f"{i:07d}\n" for i in range(60_000)))
        child = self.begin(PYTHON, "-c", TWO_READERS, self.share)
        pid = int(child.stdout.readline())
        self.move(pid, 1)
        self.move(pid, 0)
        victim = next(k for k in self.one.status()["kernels"] if k["kernel"] == 1)["pid"]
        os.kill(victim, signal.SIGSTOP)
        done = self.migrate(pid, 1)
        os.kill(victim, signal.SIGKILL)
        self.assertEqual(done.returncode, 1, done.stdout)
        (self.share / "stop").touch()
        self.ended(child)
        log = (self.share / "log").read_text()
        had = sorted(int(log[i:i + 7]) for i in range(0, len(log), 8))
        self.assertEqual(had, list(range(len(had))))


class KernelsOfAnIslandTest(Islands):
    kernels_of_b = 2

    def test_a_program_with_remote_files_moves_within_its_island(self):
        (self.share / "records").write_text("".join(f"{i:07d}\n" for i in range(60_000)))
        child = self.begin(PYTHON, "-c", TWO_READERS, self.share, kernel=1)
        pid = int(child.stdout.readline())
        for kernel in (2, 1, 2, 0, 2, 1) * 3:
            self.move(pid, kernel)
        (self.share / "stop").touch()
        self.ended(child)
        log = (self.share / "log").read_text()
        had = sorted(int(log[i:i + 7]) for i in range(0, len(log), 8))
        self.assertEqual(had, list(range(len(had))))

    def test_who_sleeps_in_a_call_goes_and_sleeps_on(self):
        # Pipes of the caller's island: the programs sleep in read, and in select.
        polls = "import os, select\nwhile select.select([0], [], [])[0]:\n data = os.read(0, 99)\n if not data: break\n os.write(1, data)"
        for program in (("cat",), (PYTHON, "-c", polls)):
            words = [self.one.command, "run", "--name", self.one.name, "-k", "1", "--from", "a", "--", *program]
            child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.one.environment)
            self.one.children.append(child)

            def echoes(text):
                os.write(child.stdin.fileno(), text)
                self.assertEqual(os.read(child.stdout.fileno(), 99), text)
            echoes(b"first")
            for move in range(10):
                self.move(child.pid, 2 - move % 2)
                echoes(b"words %d" % move)
            child.stdin.close()
            self.assertEqual(child.wait(30), 0)
            child.stdout.close()

    def test_who_waits_for_a_lock_goes_and_waits_on(self):
        (self.share / "f").write_bytes(bytes(100))
        for how in ("posix", "flock"):
            holder = Locker(self, [PYTHON, "-c", LOCKER, str(self.share / "f")], self.one.environment)
            waiter = Locker(self, self.words(PYTHON, "-c", LOCKER, self.share / "f", kernel=1), self.one.environment)
            self.assertEqual(holder.do(how, "ex"), "ok")
            waiter.begin(how, "ex+")
            for kernel in (2, 1, 2):
                self.assertTrue(waiter.waits())
                self.move(waiter.child.pid, kernel)
            self.assertTrue(waiter.waits())
            self.assertEqual(holder.do(how, "un"), "ok")
            self.assertEqual(waiter.end(), "ok")
            self.assertEqual(holder.do(how, "ex"), "EAGAIN")
            for one in (holder, waiter):
                one.child.stdin.close()
                self.assertEqual(one.child.wait(30), 0)

    def test_descriptors_are_passed_between_kernels(self):
        files = []
        for i in range(3):
            files.append(self.share / f"f{i}")
            files[-1].write_bytes(os.urandom(40_000))
        want = hashlib.sha256(b"".join(f.read_bytes()[1000:] for f in files)).hexdigest()
        for sends, receives, found in ((1, 2, "anon_inode"), (2, 1, "anon_inode"), (1, 0, "anon_inode"), (0, 2, str(self.share)),
                                       (1, 1, "anon_inode")):
            path = f"{self.one.directory}/s{sends}{receives}"
            one = subprocess.Popen(self.words(PYTHON, "-c", SENDER, path, *files, kernel=sends), stdout=subprocess.PIPE,
                                   env=self.one.environment)
            self.one.children.append(one)
            self.assertEqual(one.stdout.readline(), b"ready\n")
            other = subprocess.run(self.words(PYTHON, "-c", RECEIVER, path, kernel=receives), capture_output=True, timeout=60,
                                   env=self.one.environment)
            self.assertEqual(other.returncode, 0, other.stderr)
            head, rest = other.stdout.split(b"\n", 1)
            self.assertEqual(head.split()[0], b"3")
            self.assertTrue(head.split()[1].decode().startswith(found), (sends, receives, head))
            self.assertEqual(hashlib.sha256(rest).hexdigest(), want, (sends, receives))
            self.assertEqual(one.wait(30), 0)
            one.stdout.close()


if __name__ == "__main__":
    unittest.main()
