#!/usr/bin/env python3
"""Locks on a share's files: programs of island b (which asks), of island a (which stores) and outside of the cob against each other, by
flock, fcntl's POSIX and OFD locks and sqlite3. docs/descriptors.md, 4."""
import os
import signal
import sqlite3
import subprocess
import sys
import unittest

import harness
from harness import wait_until
from shares_test import SharesTest

# Says "ready", then does what each line of its input asks, and answers with what came of it.
# <how> <mode> [first [length]]: how is flock, posix, ofd; mode is sh, ex, un, and with a "+" behind it waits.
LOCKER = r"""
import errno, fcntl, os, signal, struct, sys
fds = [os.open(sys.argv[1], os.O_RDWR)]
modes = {'sh': fcntl.F_RDLCK, 'ex': fcntl.F_WRLCK, 'un': fcntl.F_UNLCK}
flocks = {'sh': fcntl.LOCK_SH, 'ex': fcntl.LOCK_EX, 'un': fcntl.LOCK_UN}
OFD = {'get': 36, 'set': 37, 'wait': 38}
POSIX = {'get': fcntl.F_GETLK, 'set': fcntl.F_SETLK, 'wait': fcntl.F_SETLKW}
class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
def pack(mode, first, length): return struct.pack('hhqqi4x', modes[mode], 0, first, length, 0)
def act(how, mode='', first='0', length='0', fd=0):
    first, length = int(first), int(length)
    waits, mode = mode.endswith('+'), mode.rstrip('+')
    if how == 'flock': fcntl.flock(fds[fd], flocks[mode] | (0 if waits or mode == 'un' else fcntl.LOCK_NB))
    elif how in ('posix', 'ofd'):
        which = POSIX if how == 'posix' else OFD
        fcntl.fcntl(fds[fd], which['wait' if waits else 'set'], pack(mode, first, length))
    elif how in ('getposix', 'getofd'):
        which = POSIX if how == 'getposix' else OFD
        t, _, s, l, pid = struct.unpack('hhqqi4x', fcntl.fcntl(fds[fd], which['get'], pack(mode, first, length)))
        return 'none' if t == fcntl.F_UNLCK else f"{ {v: k for k, v in modes.items()}[t]} {s} {l} {pid}"
    elif how == 'lockf': os.lockf(fds[fd], {'lock': os.F_TLOCK, 'test': os.F_TEST, 'un': os.F_ULOCK}[mode], length)
    elif how == 'open': fds.append(os.open(sys.argv[1], os.O_RDWR))
    elif how == 'dup': fds.append(os.dup(fds[0]))
    elif how == 'close': os.close(fds.pop())
    elif how == 'alarm': signal.setitimer(signal.ITIMER_REAL, float(mode))
    elif how == 'write': os.pwrite(fds[0], mode.encode(), first)
    elif how == 'fork':
        pid = os.fork()
        if pid == 0:
            try: act(*mode.split(',')); code = 0
            except OSError as e: code = e.errno
            os._exit(code)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    elif how == 'exec': os.set_inheritable(fds[0], True); os.execv(sys.executable, [sys.executable, '-c', mode.replace('_', ' '), str(fds[0])])
    return 'ok'
print('ready', flush=True)
for line in sys.stdin:
    try: said = act(*line.split())
    except Stop: said = 'EINTR'
    except OSError as e: said = errno.errorcode[e.errno].replace('EDEADLOCK', 'EDEADLK')
    print(said, flush=True)
"""


class Locker:
    def __init__(self, test, words, environment):
        self.test = test
        self.child = subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/",
                                      env=environment)
        test.one.children.append(self.child)
        test.assertEqual(self.child.stdout.readline(), "ready\n")

    def begin(self, *words):
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()

    def end(self):
        return self.child.stdout.readline().strip()

    def do(self, *words):
        self.begin(*words)
        return self.end()

    def waits(self, seconds=0.3):
        import select
        return not select.select([self.child.stdout], [], [], seconds)[0]


class LocksTest(SharesTest):
    def setUp(self):
        super().setUp()
        self.file = self.share / "file"
        self.file.write_bytes(b"0" * 100)

    def python(self, where, *words):
        """The command that runs python on island b, on island a, or outside."""
        run = [self.one.command, "run", "--name", self.one.name, "-k"]
        program = [sys.executable, *words]
        if where == "b":
            return self.words(*program)
        return [*run, 0, "--", *program] if where == "a" else program

    def locker(self, where):
        return Locker(self, self.python(where, "-c", LOCKER, self.file), self.one.environment)


class ExclusionTest(LocksTest):
    def test_all_against_all(self):
        at = {where: self.locker(where) for where in ("a", "b", "out")}
        at["b2"] = self.locker("b")
        for how in ("flock", "posix", "ofd"):
            for one in at:
                for other in at:
                    if one == other or "b" not in (one, other):
                        continue
                    with self.subTest(how=how, one=one, other=other):
                        self.assertEqual(at[one].do(how, "ex"), "ok")
                        self.assertEqual(at[other].do(how, "sh"), "EAGAIN")
                        self.assertEqual(at[one].do(how, "sh"), "ok")
                        self.assertEqual(at[other].do(how, "sh"), "ok")
                        self.assertEqual(at[other].do(how, "ex"), "EAGAIN")
                        self.assertEqual(at[other].do(how, "un"), "ok")
                        self.assertEqual(at[one].do(how, "un"), "ok")
                        self.assertEqual(at[other].do(how, "ex"), "ok")
                        at[one].begin(how, "ex+")
                        self.assertTrue(at[one].waits(0.1))
                        self.assertEqual(at[other].do(how, "un"), "ok")
                        self.assertEqual(at[one].end(), "ok")
                        self.assertEqual(at[one].do(how, "un"), "ok")

    def test_ranges_and_who_is_in_the_way(self):
        b, out = self.locker("b"), self.locker("out")
        self.assertEqual(b.do("posix", "ex", 10, 10), "ok")
        self.assertEqual(b.do("posix", "un", 14, 2), "ok")
        self.assertEqual(out.do("posix", "ex", 14, 2), "ok")
        self.assertEqual(out.do("posix", "ex", 16, 1), "EAGAIN")
        self.assertEqual(out.do("getposix", "ex", 0, 0), "ex 10 4 -1")
        self.assertEqual(b.do("getposix", "sh", 0, 0), f"ex 14 2 {out.child.pid}")
        self.assertEqual(b.do("getposix", "sh", 0, 14), "none")
        self.assertEqual(b.do("ofd", "ex", 10, 1), "EAGAIN")
        self.assertEqual(b.do("posix", "sh", 50, -5), "ok")
        self.assertEqual(out.do("getposix", "ex", 40, 20), "sh 45 5 -1")
        self.assertEqual(b.do("lockf", "test", 0, 0), "EACCES")
        self.assertEqual(out.do("posix", "un"), "ok")
        self.assertEqual(b.do("lockf", "lock", 0, 0), "ok")
        self.assertEqual(out.do("lockf", "test", 0, 0), "EACCES")
        self.assertEqual(b.do("lockf", "un", 0, 0), "ok")
        self.assertEqual(out.do("posix", "ex"), "ok")

    def test_posix_locks_go_with_any_close_and_stay_with_the_process(self):
        b, out = self.locker("b"), self.locker("out")
        for how in ("open", "dup"):
            with self.subTest(how=how):
                self.assertEqual(b.do("posix", "ex"), "ok")
                self.assertEqual(b.do(how), "ok")
                self.assertEqual(out.do("posix", "ex"), "EAGAIN")
                self.assertEqual(b.do("close"), "ok")
                self.assertEqual(out.do("posix", "ex"), "ok")
                self.assertEqual(out.do("posix", "un"), "ok")
        self.assertEqual(b.do("posix", "ex"), "ok")
        self.assertEqual(b.do("fork", "posix,sh"), "11", "a child has none of it")
        self.assertEqual(b.do("fork", "close"), "0")
        self.assertEqual(out.do("posix", "sh"), "EAGAIN", "a child's close is not its parent's")
        b.begin("exec", "import_sys;print('new',flush=True);sys.stdin.readline()")
        self.assertEqual(b.end(), "new")
        self.assertEqual(out.do("posix", "sh"), "EAGAIN", "exec keeps it")
        b.child.stdin.close()
        b.child.wait(20)
        wait_until(lambda: out.do("posix", "ex") == "ok", 10, "the end of the dead program's lock")

    def test_flocks_and_ofd_locks_are_the_descriptions(self):
        b, out = self.locker("b"), self.locker("out")
        for how in ("flock", "ofd"):
            with self.subTest(how=how):
                self.assertEqual(b.do("open"), "ok")
                self.assertEqual(b.do(how, "ex"), "ok")
                self.assertEqual(b.do("fork", f"{how},ex"), "0", "a child has the description")
                self.assertEqual(b.do("close"), "ok")
                self.assertEqual(out.do(how, "sh"), "EAGAIN", "another's close")
                self.assertEqual(b.do("fork", f"{how},un"), "0")
                self.assertEqual(out.do(how, "ex"), "ok")
                self.assertEqual(out.do(how, "un"), "ok")

    def test_read_only_descriptors_and_bad_requests(self):
        script = """
import errno, fcntl, os, struct, sys
f = os.open(sys.argv[1], os.O_RDONLY)
def tries(call):
    try: call(); return 'ok'
    except OSError as e: return errno.errorcode[e.errno]
lock = lambda *v: struct.pack('hhqqi4x', *v)
print(tries(lambda: fcntl.lockf(f, fcntl.LOCK_EX)), tries(lambda: fcntl.lockf(f, fcntl.LOCK_SH)), tries(lambda: fcntl.flock(f, fcntl.LOCK_EX)),
      tries(lambda: fcntl.flock(f, 16)), tries(lambda: fcntl.fcntl(f, fcntl.F_SETLK, lock(7, 0, 0, 0, 0))),
      tries(lambda: fcntl.fcntl(f, fcntl.F_SETLK, lock(0, 0, -1, 1, 0))), tries(lambda: fcntl.fcntl(f, fcntl.F_SETLK, lock(0, 0, 5, -6, 0))),
      tries(lambda: fcntl.fcntl(f, 37, lock(0, 0, 0, 0, 9))), tries(lambda: fcntl.fcntl(f, fcntl.F_SETLK, lock(0, 0, 2**62, 2**62, 0))),
      tries(lambda: fcntl.fcntl(f, fcntl.F_SETLK, lock(0, 2, -10, 5, 0))))
"""
        plain = subprocess.run([sys.executable, "-c", script, self.file], capture_output=True, text=True)
        there = self.on_b(sys.executable, "-c", script, self.file)
        self.assertEqual(there.stdout, plain.stdout, there.stderr)
        self.assertTrue(plain.stdout.startswith("EBADF ok ok EINVAL"), plain.stdout)


class WaitingTest(LocksTest):
    def test_a_signal_ends_a_wait(self):
        b, out = self.locker("b"), self.locker("out")
        for how in ("flock", "posix", "ofd"):
            with self.subTest(how=how):
                self.assertEqual(out.do(how, "ex"), "ok")
                self.assertEqual(b.do("alarm", "0.2"), "ok")
                self.assertEqual(b.do(how, "ex+"), "EINTR")
                self.assertEqual(out.do(how, "un"), "ok")
                self.assertEqual(out.do(how, "ex"), "ok", "the wait is over")
                self.assertEqual(out.do(how, "un"), "ok")

    def test_deadlock(self):
        one, other = self.locker("b"), self.locker("b")
        self.assertEqual(one.do("posix", "ex", 0, 1), "ok")
        self.assertEqual(other.do("posix", "ex", 1, 1), "ok")
        one.begin("posix", "ex+", 1, 1)
        self.assertTrue(one.waits())
        self.assertEqual(other.do("posix", "ex+", 0, 1), "EDEADLK")
        self.assertEqual(other.do("posix", "un", 1, 1), "ok")
        self.assertEqual(one.end(), "ok")

    def test_a_loop_under_a_lock_loses_nothing(self):
        script = """
import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR)
for i in range(int(sys.argv[3])):
    if sys.argv[2] == 'flock': fcntl.flock(f, fcntl.LOCK_EX)
    else: fcntl.lockf(f, fcntl.LOCK_EX)
    n = int(os.pread(f, 100, 0).strip(b'\\0') or b'0')
    os.pwrite(f, b'%020d' % (n + 1), 0)
    if sys.argv[2] == 'flock': fcntl.flock(f, fcntl.LOCK_UN)
    else: fcntl.lockf(f, fcntl.LOCK_UN)
"""
        for how in ("flock", "posix"):
            with self.subTest(how=how):
                self.file.write_bytes(b"0")
                children = [subprocess.Popen(list(map(str, self.python(where, "-c", script, self.file, how, 150))), env=self.one.environment)
                            for where in ("b", "b", "a", "out")]
                self.one.children += children
                self.assertEqual([child.wait(100) for child in children], [0] * 4)
                self.assertEqual(int(self.file.read_bytes()), 600)


class DeathsTest(LocksTest):
    def test_a_killed_program_holds_nothing(self):
        out = self.locker("out")
        for how in ("flock", "posix", "ofd"):
            with self.subTest(how=how):
                b, other = self.locker("b"), self.locker("b")
                self.assertEqual(b.do(how, "ex"), "ok")
                other.begin(how, "ex+")
                self.assertTrue(other.waits(0.1))
                out.begin(how, "ex+")
                self.assertTrue(out.waits(0.1))
                other.child.kill()  # who waits
                other.child.wait()
                b.child.kill()  # who has it
                self.assertEqual(out.end(), "ok")
                self.assertEqual(out.do(how, "un"), "ok")
                b.child.wait()

    def test_a_killed_kernel_holds_nothing(self):
        b, out = self.locker("b"), self.locker("out")
        for how in ("flock", "posix", "ofd"):
            self.assertEqual(b.do(how, "ex", *(() if how == "flock" else (10 if how == "ofd" else 0, 5))), "ok")
        out.begin("posix", "ex+", 0, 20)
        self.assertTrue(out.waits(0.1))
        self.one.kill_kernel(1)
        self.assertEqual(out.end(), "ok")
        self.assertEqual(out.do("flock", "ex"), "ok")
        self.assertEqual(b.do("posix", "sh"), "ESTALE")

    def test_the_storing_kernel_dies(self):
        b, other, out = self.locker("b"), self.locker("b"), self.locker("out")
        self.assertEqual(b.do("posix", "ex"), "ok")
        other.begin("posix", "ex+")
        self.assertTrue(other.waits(0.1))
        self.one.kill_kernel(0)
        self.assertEqual(other.end(), "ESTALE")
        self.assertEqual(b.do("write", "x"), "ESTALE", "what it believes to have locked it cannot change")
        self.assertEqual(out.do("posix", "ex"), "ok")


SQLITE = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for i in range(int(sys.argv[3])):
    while True:
        try:
            db.execute('BEGIN IMMEDIATE')
            n = db.execute('SELECT n FROM counter').fetchone()[0]
            db.execute('UPDATE counter SET n = ?', (n + 1,))
            db.execute('INSERT INTO log VALUES (?, ?, ?)', (sys.argv[2], i, 'x' * 500))
            db.execute('COMMIT')
            break
        except sqlite3.OperationalError as e:
            if 'locked' not in str(e): raise
            if db.in_transaction: db.execute('ROLLBACK')
print('done')
"""


class SqliteTest(LocksTest):
    def make(self):
        base = self.share / "base"
        with sqlite3.connect(base) as db:
            db.execute("CREATE TABLE counter (n INTEGER)")
            db.execute("INSERT INTO counter VALUES (0)")
            db.execute("CREATE TABLE log (who TEXT, i INTEGER, text TEXT)")
        db.close()
        return base

    def check(self, base, rows):
        db = sqlite3.connect(base)
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        self.assertEqual(db.execute("SELECT n FROM counter").fetchone()[0], rows)
        self.assertEqual(db.execute("SELECT count(*) FROM log").fetchone()[0], rows)
        db.close()

    def test_writers_here_there_and_outside(self):
        base = self.make()
        children = {where: subprocess.Popen(list(map(str, self.python(where, "-c", SQLITE, base, where, 60))), stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True, env=self.one.environment) for where in ("a", "b", "out")}
        self.one.children += children.values()
        for where, child in children.items():
            said, complained = child.communicate(timeout=150)
            self.assertEqual((child.returncode, said), (0, "done\n"), f"{where}: {complained}")
        self.check(base, 180)
        there = self.on_b(sys.executable, "-c", "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("
                          "'PRAGMA integrity_check').fetchall())", base)
        self.assertEqual(there.stdout, "[('ok',)]\n", there.stderr)

    def test_a_killed_writer_leaves_a_whole_base(self):
        base = self.make()
        for _ in range(4):
            child = subprocess.Popen(list(map(str, self.python("b", "-c", SQLITE, base, "b", 100000))), env=self.one.environment,
                                     stdout=subprocess.DEVNULL)
            self.one.children.append(child)
            db = sqlite3.connect(base, timeout=20)
            before = db.execute("SELECT n FROM counter").fetchone()[0]
            wait_until(lambda: db.execute("SELECT n FROM counter").fetchone()[0] > before + 3, 30, "some transactions")
            child.send_signal(signal.SIGKILL)
            child.wait()
            db.execute("BEGIN IMMEDIATE")
            db.rollback()
            n = db.execute("SELECT n FROM counter").fetchone()[0]
            db.close()
            self.check(base, n)

    def test_write_ahead_logging_fails_as_wherever_memory_cannot_be_shared(self):
        base = self.make()
        script = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for words in sys.argv[2:]:
    try: print(db.execute(words).fetchone()[0])
    except sqlite3.OperationalError as e: print(e)
"""
        done = self.on_b(sys.executable, "-c", script, base, "PRAGMA journal_mode=WAL", "SELECT n FROM counter")
        self.assertEqual(done.stdout.splitlines()[1:], ["disk I/O error"], done.stderr)
        db = sqlite3.connect(base)
        self.assertEqual(db.execute("PRAGMA journal_mode=DELETE").fetchone(), ("delete",))
        db.close()
        done = self.on_b(sys.executable, "-c", script, base, "SELECT n FROM counter")
        self.assertEqual(done.stdout, "0\n", done.stderr)
        self.check(base, 0)


if __name__ == "__main__":
    harness.main()
