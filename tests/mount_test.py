#!/usr/bin/env python3
"""A share of island a, mounted on the host by a kernel of island b: programs without the shim, static ones among them, beside programs
of the shim and of the host."""
import errno
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import unittest

import harness
import shares_test
from harness import wait_until
from shares_test import needs

PLAIN = str(harness.BUILD / "mount" / "plain")
FUSE = os.access("/dev/fuse", os.R_OK | os.W_OK)
NOBODY = 65534


def mounts():
    """Directories where `cob mount` mounted something."""
    found = {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        dash = words.index("-")
        if words[dash + 1] == "fuse.cob":
            found[words[4]] = words[dash + 2]
    return found


def server_at(directory):
    """The process that serves the mount."""
    for process in harness.all_processes():
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0] == "cob-mount" and str(directory) in words:
            return int(process.name)
    return None


# What a server of files tells the shim (src/call/ask_as.h), and calls under it.
ASKS = """
import ctypes, os, sys
class AskAs(ctypes.Structure):
    _fields_ = [("others", ctypes.c_bool)] + [(name, ctypes.c_uint32) for name in ("uid", "gid", "pid", "umask")]
shim = ctypes.CDLL(None)
def tell(*whom): shim.cob_ask_as(ctypes.byref(AskAs(*whom)) if whom else None)
def result(call, *words):
    try: call(*words)
    except OSError as failed: return failed.errno
    return 0
share = sys.argv[1]
tell(False, 0, 0, 0, 0o27)
print(result(os.stat, share + "/out"), result(os.chmod, share + "/out", 0o666), result(os.mkdir, share + "/open/own", 0o777))
tell(True, 65534, 65534, 0, 0o77)
print(result(os.mkdir, share + "/open/other", 0o777), result(os.mkdir, share + "/closed/other"))
tell()
print(result(os.stat, share + "/out"), result(os.mkdir, share + "/closed/own"))
"""


@unittest.skipUnless(FUSE, "there is no /dev/fuse here, or it may not be opened")
class MountTest(shares_test.SharesTest):
    options = ()

    def setUp(self):
        super().setUp()
        self.at = self.one.directory / "mount"
        self.at.mkdir()
        self.one.directory.chmod(0o755)
        self.addCleanup(self.unmounted)
        if self.options is not None:
            self.mount(*self.options)

    def unmounted(self):
        for directory in mounts():
            if directory.startswith(str(self.one.directory)):
                subprocess.run(["umount", "-l", directory], check=False)

    def mount(self, *words):
        done = self.one.named("mount", self.at, *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def plain(self, *words, **options):
        """The static program, to its end; what it printed."""
        done = subprocess.run([PLAIN, *map(str, words)], capture_output=True, text=True, timeout=60, **options)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    def begin_plain(self, *words):
        child = subprocess.Popen([PLAIN, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.one.children.append(child)
        return child

    def on_a(self, *words):
        """A program of the storing island, with the shim."""
        child = subprocess.Popen([self.one.command, "run", "--name", self.one.name, "-k", "0", "--", *map(str, words)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.one.environment)
        self.one.children.append(child)
        return child

    def shell(self, script, status=0, **options):
        """Without the shim; $0 is the mount."""
        done = subprocess.run(["sh", "-c", script, str(self.at)], capture_output=True, text=True, timeout=200, **options)
        self.assertEqual(done.returncode, status, f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout


class ProgramsTest(MountTest):
    def test_a_static_program(self):
        text = "".join(f"line {i}\n" for i in range(20_000))
        (self.share / "text").write_text(text)
        self.assertEqual(self.plain("cat", self.at / "text"), text)
        self.assertEqual(self.plain("tmpfile", self.at), f"{errno.EOPNOTSUPP}\n")
        self.assertEqual(self.plain("map", self.at / "text"), f"line {errno.ENODEV}\n")
        # One that lies there itself.
        shutil.copy(PLAIN, self.at / "program")
        done = subprocess.run([self.at / "program", "cat", self.at / "text"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stdout, text)

    def test_commands(self):
        self.shell('''set -e; cd "$0"
            mkdir d d/e; cp /etc/passwd d/p; cmp /etc/passwd d/p; mv d/p d/q; ln -s q d/l; ln d/q d/h; [ "$(readlink d/l)" = q ]
            [ "$(stat -c %h d/q)" = 2 ]; chmod 640 d/q; [ "$(stat -c %a d/h)" = 640 ]; cmp d/l /etc/passwd; touch -d @1000000000.25 d/q
            [ "$(stat -c %.2Y d/h)" = 1000000000.25 ]; rmdir d/e; truncate -s 100 d/q; [ "$(stat -c %s d/h)" = 100 ]; rm d/h
            mkfifo d/f; [ -p d/f ]; dd if=/dev/zero of=d/big bs=1M count=3 2> /dev/null; [ "$(du -k --apparent-size d/big | cut -f 1)" = 3072 ]
            df -k . > /dev/null; find . -type f | sort | tr "\\n" " " > list''')
        self.assertEqual(sorted(os.listdir(self.share / "d")), ["big", "f", "l", "q"])
        self.assertEqual((self.share / "list").read_text(), "./d/big ./d/q ./list ")
        self.assertTrue(stat.S_ISFIFO(os.stat(self.share / "d/f").st_mode))
        self.shell('cd "$0/d" && rm big f l q && cd .. && rmdir d')

    def test_many_entries(self):
        (self.share / "many").mkdir()
        names = sorted(f"a name of some length {i}" for i in range(2000))
        for name in names:
            (self.share / "many" / name).touch()
        self.assertEqual(sorted(os.listdir(self.at / "many")), names)

    def test_calls(self):
        path = self.at / "file"
        f = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.addCleanup(os.close, f)
        os.pwrite(f, b"data", 1 << 20)
        self.assertEqual((os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 0, os.SEEK_HOLE), os.lseek(f, 0, os.SEEK_END)), (1 << 20, 0, (1 << 20) + 4))
        os.posix_fallocate(f, 0, 2 << 20)
        self.assertEqual(os.fstat(f).st_size, 2 << 20)
        os.fsync(f)
        os.fdatasync(f)
        other = os.open(self.at / "other", os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, other)
        self.assertEqual(os.copy_file_range(f, other, 4, 1 << 20, 3), 4)
        self.assertEqual((self.share / "other").read_bytes(), b"\0\0\0data")
        os.utime(path, ns=(1_000_000_007, 2_000_000_009))
        self.assertEqual(((self.share / "file").stat().st_mtime_ns, os.stat(path).st_atime_ns), (2_000_000_009, 1_000_000_007))
        self.assertEqual(os.stat(path).st_ino, (self.share / "file").stat().st_ino)
        self.assertTrue(os.access(path, os.R_OK | os.W_OK))
        self.assertEqual(os.statvfs(self.at).f_blocks, os.statvfs(self.share).f_blocks)
        try:
            os.setxattr(self.share / "file", "user.there", b"value")
        except OSError:
            self.assertEqual(os.listxattr(path), [])
        else:
            os.setxattr(path, "user.here", b"other")
            self.assertEqual(os.getxattr(path, "user.there"), b"value")
            self.assertEqual(sorted(os.listxattr(path)), ["user.here", "user.there"])
            os.removexattr(path, "user.there")
            with self.assertRaises(OSError) as raised:
                os.getxattr(path, "user.there")
            self.assertEqual(raised.exception.errno, errno.ENODATA)
        # Without a name it lives on.
        os.unlink(path)
        os.pwrite(f, b"still", 0)
        self.assertEqual((os.pread(f, 5, 0), os.fstat(f).st_nlink), (b"still", 0))
        os.fchmod(f, 0o640)
        os.ftruncate(f, 3)
        self.assertEqual((stat.S_IMODE(os.fstat(f).st_mode), os.fstat(f).st_size), (0o640, 3))

    def test_renaming(self):
        for name in ("a", "b"):
            (self.share / name).write_text(name)
        self.assertEqual(self.plain("rename", self.at / "a", self.at / "b", 1), f"{errno.EEXIST}\n")  # RENAME_NOREPLACE
        self.assertEqual(self.plain("rename", self.at / "a", self.at / "b", 2), "0\n")  # RENAME_EXCHANGE
        self.assertEqual(((self.share / "a").read_text(), (self.at / "a").read_text()), ("b", "b"))
        # A file whose name another has taken on the storing island is not the one that was open.
        (self.share / "d").mkdir()
        (self.share / "d" / "f").write_text("old")
        f = os.open(self.at / "d" / "f", os.O_RDONLY)
        self.addCleanup(os.close, f)
        directory = os.open(self.at / "d", os.O_RDONLY)
        self.addCleanup(os.close, directory)
        (self.share / "new").write_text("new")
        os.rename(self.share / "new", self.share / "d" / "f")
        self.assertEqual((os.pread(f, 10, 0), (self.at / "d" / "f").read_text(), os.fstat(f).st_nlink), (b"old", "new", 0))
        # Of a directory that was moved there, too.
        os.rename(self.share / "d", self.share / "e")
        (self.share / "d").mkdir()
        self.assertEqual(os.listdir(self.at / "d"), [])
        self.assertEqual(os.listdir(directory), ["f"])
        g = os.open("g", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        os.close(g)
        self.assertTrue((self.share / "e" / "g").exists())

    def test_random_reads_and_writes(self):
        """fsx's way: each step on the mount and on a model; sometimes by the storing island's own programs."""
        seed = int(os.environ.get("COB_SEED", "1"))
        choose = random.Random(seed)
        model = bytearray()
        most = 300_000
        f = os.open(self.at / "file", os.O_RDWR | os.O_CREAT)
        there = os.open(self.share / "file", os.O_RDWR)
        self.addCleanup(os.close, f)
        self.addCleanup(os.close, there)
        for step in range(3000):
            what = choose.choice(("read", "read", "write", "write", "truncate", "size", "reopen", "outside"))
            at = choose.randrange(most)
            size = choose.choice((1, 100, 4096, choose.randrange(1, 70_000)))
            if what in ("write", "outside"):
                data = choose.randbytes(size)
                self.assertEqual(os.pwrite(f if what == "write" else there, data, at), size)
                model.extend(bytes(max(0, at + size - len(model))))
                model[at:at + size] = data
            if what == "truncate" and step % 5 == 0:
                os.ftruncate(f, at)
                del model[at:]
                model.extend(bytes(at - len(model)))
            if what == "read":
                self.assertEqual(os.pread(f, size, at), model[at:at + size], f"seed {seed}, step {step}")
            if what == "size":
                self.assertEqual((os.fstat(f).st_size, os.stat(self.at / "file").st_size), (len(model), len(model)), f"seed {seed}, step {step}")
            if what == "reopen":
                os.close(os.open(self.at / "file", choose.choice((os.O_RDONLY, os.O_RDWR))))
        self.assertEqual((self.share / "file").read_bytes(), model)

    @needs("git")
    def test_git(self):
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_NAME": "a",
                       "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_EMAIL": "a@b", "HOME": str(self.one.directory)}
        self.shell('''set -e; mkdir "$0/origin"; cd "$0/origin"; git init -q; for i in 1 2 3 4; do mkdir d$i; echo $i > d$i/file; done
            git add .; git commit -q -m first; git clone -q "$0/origin" "$0/clone"; cd "$0/clone"; echo more >> d1/file
            [ "$(git status --porcelain)" = " M d1/file" ]; git commit -q -a -m second; git fsck --strict; git repack -q -a -d''', env=environment)
        done = subprocess.run(["git", "-C", self.share / "clone", "status", "--porcelain"], capture_output=True, text=True, env=environment)
        self.assertEqual((done.stdout, done.returncode), ("", 0), done.stderr)


class TogetherTest(MountTest):
    """Programs of the mount, of the shim on either island, and of the host."""

    def test_appends(self):
        children = [self.begin_plain("append", self.at / "log", "mount", 300), self.begin_plain("append", self.share / "log", "host", 300)]
        script = 'import os\nf = os.open(%r, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\nfor i in range(300): os.write(f, b"shim %%d %%0100d\\n" %% (i, i))'
        children += [self.on_a(sys.executable, "-c", script % str(self.share / "log")),
                     self.begin(sys.executable, "-c", script.replace("shim", "away") % str(self.share / "log"))]
        for child in children:
            self.assertEqual(child.wait(60), 0, child.stderr.read())
        wanted = [f"{word} {i} {i:0100d}" for word in ("mount", "host", "shim", "away") for i in range(300)]
        self.assertEqual(sorted((self.share / "log").read_text().splitlines()), sorted(wanted))

    def test_appending_as_fcntl_says(self):
        f = os.open(self.at / "log", os.O_WRONLY | os.O_CREAT)
        self.addCleanup(os.close, f)
        os.write(f, b"one\n")
        fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)
        with open(self.share / "log", "a") as outside:
            outside.write("two\n")
        os.write(f, b"three\n")
        self.assertEqual((self.share / "log").read_text(), "one\ntwo\nthree\n")

    def test_locks_exclude(self):
        for kind in ("posix", "flock", "ofd"):
            with self.subTest(kind):
                (self.share / "count").write_text("0000000000")
                script = ("import fcntl, os, sys\nf = os.open(sys.argv[1], os.O_RDWR)\nfor i in range(60):\n"
                          " if sys.argv[2] == 'flock': fcntl.flock(f, fcntl.LOCK_EX)\n else: fcntl.lockf(f, fcntl.LOCK_EX, 10)\n"
                          " n = int(os.pread(f, 10, 0)); os.pwrite(f, b'%010d' % (n + 1), 0)\n"
                          " if sys.argv[2] == 'flock': fcntl.flock(f, fcntl.LOCK_UN)\n else: fcntl.lockf(f, fcntl.LOCK_UN, 10)\n")
                children = [self.begin_plain("count", self.at / "count", kind, 60) for _ in range(2)]
                children += [self.begin_plain("count", self.share / "count", kind, 60),
                             self.begin(sys.executable, "-c", script, self.share / "count", kind)]
                for child in children:
                    self.assertEqual(child.wait(120), 0, child.stderr.read())
                self.assertEqual(int((self.share / "count").read_text()), 240)

    def test_locks_are_seen_and_interrupted(self):
        (self.share / "file").write_text("0000000000")
        for kind in ("posix", "flock", "ofd"):
            with self.subTest(kind):
                holder = self.begin_plain("hold", self.at / "file", kind)
                self.assertEqual(holder.stdout.readline(), "held\n")
                for place in (self.at, self.share):
                    self.assertEqual(self.plain("try", place / "file", kind), "busy\n", place)
                self.assertEqual(self.plain("timed", self.at / "file", kind), "interrupted\n")
                holder.kill()
                holder.wait()
                wait_until(lambda: self.plain("try", self.share / "file", kind) == "had\n", 10, "the dead program's lock gone")
                # The other way round.
                holder = self.begin_plain("hold", self.share / "file", kind)
                self.assertEqual(holder.stdout.readline(), "held\n")
                self.assertEqual(self.plain("try", self.at / "file", kind), "busy\n")
                waiter = self.begin_plain("hold", self.at / "file", kind)
                holder.stdin.close()
                holder.wait()
                self.assertEqual(waiter.stdout.readline(), "held\n")
                waiter.stdin.close()
                waiter.wait()

    def test_a_close_ends_record_locks(self):
        (self.share / "file").write_text("0000000000")
        first, second = os.open(self.at / "file", os.O_RDWR), os.open(self.at / "file", os.O_RDWR)
        fcntl.lockf(first, fcntl.LOCK_EX, 5)
        fcntl.lockf(second, fcntl.LOCK_EX, 5, 5)
        self.assertEqual(self.plain("try", self.share / "file", "posix"), "busy\n")
        os.close(second)
        self.assertEqual(self.plain("try", self.share / "file", "posix"), "had\n")
        os.close(first)

    def test_what_was_written_is_read(self):
        """Reads that are cached at the kernel under a lease, and writers of every kind."""
        data = bytes(range(256)) * 1024
        (self.share / "file").write_bytes(data)
        f = os.open(self.at / "file", os.O_RDONLY)
        self.addCleanup(os.close, f)
        for i in range(60):
            for _ in range(4):
                self.assertEqual(os.pread(f, 4096, 8192), data[8192:12288])
            fresh = bytes([i]) * 4096
            if i % 3 == 0:
                with open(self.share / "file", "r+b", buffering=0) as outside:
                    outside.seek(8192)
                    outside.write(fresh)
            elif i % 3 == 1:
                with open(self.at / "file", "r+b", buffering=0) as other:
                    other.seek(8192)
                    other.write(fresh)
            elif i % 15 == 2:
                self.sh(f'head -c 4096 /dev/zero | tr "\\0" "\\{i:03o}" | dd of="$0/file" bs=4096 seek=2 conv=notrunc 2> /dev/null')
            else:
                continue
            data = data[:8192] + fresh + data[12288:]
        self.assertEqual(os.pread(f, 4096, 8192), data[8192:12288])
        os.truncate(self.share / "file", 10)
        self.assertEqual((os.pread(f, 4096, 0), os.fstat(f).st_size), (data[:10], 10))

    def test_sqlite(self):
        insert = ("import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
                  "for i in range(20):\n db.execute('begin immediate'); db.execute('insert into t values (?, ?)', (sys.argv[2], i)); db.execute('commit')")
        db = sqlite3.connect(self.at / "db", timeout=60)
        db.execute("create table t (who text, number int)")
        db.commit()
        children = [self.on_a(sys.executable, "-c", insert, self.share / "db", "shim")]
        for place, who in ((self.share, "host"), (self.at, "mount"), (self.at, "another")):
            child = subprocess.Popen([sys.executable, "-c", insert, place / "db", who], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.one.children.append(child)
            children.append(child)
        for child in children:
            self.assertEqual(child.wait(120), 0, child.stderr.read())
        self.assertEqual(db.execute("select who, count(*) from t group by who order by who").fetchall(),
                         [(who, 20) for who in ("another", "host", "mount", "shim")])
        self.assertEqual(db.execute("pragma integrity_check").fetchall(), [("ok",)])
        db.close()


@unittest.skipUnless(os.geteuid() == 0, "serves other users: root's")
class OthersTest(MountTest):
    options = ("--allow-other",)

    def as_other(self, *words, groups="--clear-groups"):
        return subprocess.run(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", groups, *map(str, words)], capture_output=True, text=True, timeout=60)

    def test_each_is_asked_for_as_itself(self):
        for name, mode, group in (("public", 0o644, 0), ("secret", 0o600, 0), ("group", 0o640, 4321)):
            (self.share / name).write_text(name)
            os.chown(self.share / name, 0, group)
            (self.share / name).chmod(mode)
        (self.share / "closed").mkdir(mode=0o700)
        (self.share / "closed" / "file").write_text("x")
        (self.share / "open").mkdir()
        (self.share / "open").chmod(0o777)
        self.assertEqual(self.as_other(PLAIN, "cat", self.at / "public").stdout, "public")
        for path in ("secret", "group", "closed/file"):
            self.assertEqual(self.as_other(PLAIN, "cat", self.at / path).stderr, f"open: errno {errno.EACCES}\n", path)
        self.assertEqual(self.as_other(PLAIN, "cat", self.at / "group", groups="--groups=4321").stdout, "group")
        # As root they all are there, and nobody has become somebody else for good.
        self.assertEqual(self.plain("cat", self.at / "secret"), "secret")
        self.assertEqual(self.as_other("sh", "-c", 'cd "$0" && umask 027 && echo x > open/f && mkdir open/d && mv open/f open/g && echo y >> open/g', self.at).stderr, "")
        made = (self.share / "open" / "g").stat()
        self.assertEqual((made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)), (NOBODY, NOBODY, 0o640))
        self.assertEqual(stat.S_IMODE((self.share / "open" / "d").stat().st_mode), 0o750)
        for command in ('rm public', 'echo x > public', 'mv public open/', 'chmod 666 public', 'ls closed', 'touch new', 'truncate -s 0 secret', 'ln -s x y'):
            done = self.as_other("sh", "-c", f'cd "$0" && {command}', self.at)
            self.assertNotEqual(done.returncode, 0, command)
            self.assertRegex(done.stderr, "ermission denied|not permitted", command)
        self.assertEqual((self.share / "public").read_text(), "public")
        # access(2) asks too; and what is readable but not executable does not start.
        self.assertEqual(self.as_other("test", "-w", self.at / "public").returncode, 1)
        shutil.copy(PLAIN, self.share / "program")
        (self.share / "program").chmod(0o744)
        with self.subTest("execution"):
            self.assertEqual(self.as_other(self.at / "program", "cat", self.at / "public").returncode, 126)

    def test_what_a_server_may_ask(self):
        outside = self.one.directory / "outside"
        outside.write_text("")
        outside.chmod(0o644)
        (self.share / "out").symlink_to(outside)
        for name, mode in (("open", 0o777), ("closed", 0o700)):
            (self.share / name).mkdir()
            (self.share / name).chmod(mode)
        done = self.on_b(sys.executable, "-c", ASKS, self.share)
        leads_out, refused = errno.EXDEV, errno.EACCES
        self.assertEqual(done.stdout.splitlines(), [f"{leads_out} {leads_out} 0", f"0 {refused}", "0 0"], done.stderr)
        own, other = (self.share / "open" / "own").stat(), (self.share / "open" / "other").stat()
        self.assertEqual((own.st_uid, stat.S_IMODE(own.st_mode), other.st_uid, other.st_gid, stat.S_IMODE(other.st_mode)), (0, 0o750, NOBODY, NOBODY, 0o700))
        self.assertEqual(stat.S_IMODE(outside.stat().st_mode), 0o644)
        # Of another user's program: nothing for others.
        for path in ("open/own", "open/other", "closed/own"):
            (self.share / path).rmdir()
        done = self.on_b("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", ASKS, self.share)
        self.assertEqual(done.stdout.splitlines(), [f"{leads_out} {leads_out} 0", f"{errno.EPERM} {errno.EPERM}", f"0 {refused}"], done.stderr)

    def test_a_file_that_is_open_stays_so(self):
        (self.share / "file").write_text("x")
        (self.share / "file").chmod(0o644)
        child = subprocess.Popen(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "sh", "-c", 'exec 3< "$0"; echo open; read x; cat <&3', self.at / "file"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(child.stdout.readline(), "open\n")
        (self.share / "file").chmod(0o600)
        self.assertEqual(child.communicate("\n", timeout=30)[0], "x")

    def test_links_that_lead_out_are_the_senders_own(self):
        """A link to a path of the host is followed by the host, as who follows it; never by the server."""
        secret = self.one.directory / "secret"
        secret.write_text("secret")
        secret.chmod(0o600)
        (self.share / "out").symlink_to(secret)
        self.assertEqual(self.plain("cat", self.at / "out"), "secret")
        self.assertEqual(self.as_other(PLAIN, "cat", self.at / "out").stderr, f"open: errno {errno.EACCES}\n")
        done = self.as_other("chmod", "666", self.at / "out")
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(stat.S_IMODE(secret.stat().st_mode), 0o600)


class DeathsTest(MountTest):
    def reads(self):
        try:
            return self.plain("cat", self.at / "file") == "text"
        except AssertionError as failed:
            self.assertRegex(str(failed), f"errno ({errno.EIO}|{errno.ESTALE})\n")
            return False

    def test_kernels(self):
        (self.share / "d").mkdir()
        (self.share / "d" / "file").write_text("text")
        (self.share / "file").write_text("text")
        for kernel in (1, 0):
            with self.subTest(f"kernel {kernel}"):
                f = os.open(self.at / "file", os.O_RDONLY)
                self.assertTrue(self.reads())
                self.one.kill_kernel(kernel)
                wait_until(self.reads, 20, "the mount back")
                self.assertEqual((self.at / "d" / "file").read_text(), "text")
                with self.assertRaises(OSError) as raised:
                    os.pread(f, 4, 0)
                self.assertIn(raised.exception.errno, (errno.ESTALE, errno.EIO))
                os.close(f)
                (self.at / "d" / f"new{kernel}").write_text("written")
                self.assertEqual((self.share / "d" / f"new{kernel}").read_text(), "written")

    def test_the_server(self):
        (self.share / "file").write_text("text")
        os.kill(server_at(self.at), signal.SIGKILL)
        def is_dead():
            try:
                os.stat(self.at)
            except OSError as raised:
                return raised.errno == errno.ENOTCONN
        wait_until(is_dead, 10, "the end of the mount")
        self.mount()  # cleans up
        self.assertTrue(self.reads())
        self.assertEqual(list(mounts()).count(str(self.at)), 1)

    def test_asked_to_end(self):
        server = server_at(self.at)
        os.kill(server, signal.SIGTERM)
        wait_until(lambda: not harness.is_alive(server) and str(self.at) not in mounts(), 10, "the end of the server")

    def test_the_supervisor(self):
        server = server_at(self.at)
        os.kill(self.one.status()["pid"], signal.SIGKILL)
        wait_until(lambda: not harness.is_alive(server) and str(self.at) not in mounts(), 10, "the end of the mount")

    def test_cob_down(self):
        f = os.open(self.at, os.O_RDONLY)
        self.addCleanup(os.close, f)
        server = server_at(self.at)
        self.assertEqual(self.one.down().returncode, 0)
        self.assertNotIn(str(self.at), mounts())
        self.assertEqual(os.listdir(self.at), [])
        wait_until(lambda: not harness.is_alive(server), 10, "the end of the server")


class ReadOnlyTest(MountTest):
    read_only = True

    def test_is_read_only(self):
        (self.share / "file").write_text("text")
        self.assertEqual(self.plain("cat", self.at / "file"), "text")
        for words in (("append", "file", "x", 1), ("append", "new", "x", 1)):
            done = subprocess.run([PLAIN, words[0], self.at / words[1], *map(str, words[2:])], capture_output=True, text=True)
            self.assertEqual(done.stderr, f"open: errno {errno.EROFS}\n")


class CommandTest(MountTest):
    options = None

    def refused(self, wanted, *words, status=1):
        before = mounts()
        done = self.one.named("mount", *words)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertRegex(done.stderr, wanted)
        self.assertEqual(mounts(), before)

    def test_what_it_says(self):
        self.assertIn(f"{self.one.name}:{self.share} is mounted at {self.at}", self.mount("--share", self.share))
        self.assertEqual(mounts()[str(self.at)], f"{self.one.name}:{self.share}")
        self.assertIn(server_at(self.at), [p["pid"] for p in self.one.ps()])
        self.refused("is mounted there; see: cob unmount", self.at)
        done = self.one.cli("unmount", self.at)
        self.assertEqual((done.returncode, done.stdout), (0, f"{self.at} is unmounted\n"), done.stderr)
        self.assertNotIn(str(self.at), mounts())
        done = self.one.cli("unmount", self.at)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nothing is mounted there", done.stderr)
        self.assertIn("not by `cob mount`", self.one.cli("unmount", "/proc").stderr)
        # Again, a directory of the share, by umount(8).
        (self.share / "d, with").mkdir()
        (self.share / "d, with" / "file").write_text("text")
        told = json.loads(self.mount("--share", self.share / "d, with", "-k", 1, "--json"))
        self.assertEqual((told["directory"], told["pid"]), (str(self.at), server_at(self.at)))
        self.assertEqual(self.plain("cat", self.at / "file"), "text")
        server = server_at(self.at)
        subprocess.run(["umount", self.at], check=True)
        wait_until(lambda: not harness.is_alive(server), 10, "the end of the server")

    def test_bad_input(self):
        (self.one.directory / "plain").write_text("")
        self.refused("No such file", self.one.directory / "none")
        self.refused("not a directory", self.one.directory / "plain")
        self.refused("is mounted there", "/proc")
        self.refused("is in no share", self.at, "--share", "/nowhere")
        self.refused("there is no kernel 7", self.at, "-k", 7)
        self.refused("stores", self.at, "-k", 0)
        self.refused("lies in the share", self.share)
        self.refused("lies there", self.share.parent)
        self.refused("No such file", self.at, "--share", self.share / "none")
        (self.share / "plain").write_text("")
        self.refused("Not a directory", self.at, "--share", self.share / "plain")
        self.refused("required", status=2)
        done = self.one.cli("mount", "--name", "none-such", self.at)
        self.assertEqual(done.returncode, 1)
        self.assertIn("none-such", done.stderr)

    def test_without_shares(self):
        other = self.cob(kernels=1)
        done = other.named("mount", self.at)
        self.assertEqual(done.returncode, 1)
        self.assertIn("has no share", done.stderr)

    def test_in_the_foreground(self):
        child = subprocess.Popen([self.one.command, "mount", "--name", self.one.name, "--foreground", self.at], env=self.one.environment,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.one.children.append(child)
        wait_until(lambda: str(self.at) in mounts(), 10, "the mount")
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(10), 0, child.stderr.read())
        self.assertNotIn(str(self.at), mounts())

    @unittest.skipUnless(os.geteuid() == 0, "becomes another user: root's")
    def test_only_root_asks_for_others(self):
        """The whole cob another user's, whose /dev/fuse all may open, as udev has it."""
        place = self.one.directory / "users"
        for directory in ("", "runtime", "share", "at", "dev"):
            (place / directory).mkdir()
            os.chown(place / directory, NOBODY, NOBODY)
        (place / "runtime").chmod(0o700)
        (place / "share" / "file").write_text("text")
        script = """set -e; cob=$0; plain=$1; cd "$2"; name=$3
            mount -t tmpfs none dev; mknod dev/fuse c 10 229; chmod 666 dev/fuse; mount --bind dev/fuse /dev/fuse
            user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
            user $cob up --name $name --island a:1 --island b:1 --share $PWD/share > /dev/null
            trap 'user $cob down --name $name > /dev/null || true' EXIT
            user $cob mount --name $name --allow-other at 2>&1 || echo "refused"
            user $cob mount --name $name at > /dev/null
            user $plain cat at/file; echo; user sh -c 'echo more > at/new; cat share/new'
            ls at 2>&1 || true  # root either
            trap - EXIT; user $cob down --name $name > /dev/null; ls at | wc -l"""
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, self.one.command, PLAIN, place, self.one.name + "u"], capture_output=True, text=True,
                              timeout=60, cwd="/", env={**self.one.environment, "LC_ALL": "C", "XDG_RUNTIME_DIR": str(place / "runtime")})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        said = done.stdout.splitlines()
        self.assertIn("superuser's", said[0])
        self.assertEqual(said[1:4], ["refused", "text", "more"])
        self.assertIn("Permission denied", said[4])
        self.assertEqual(said[5], "0")


if __name__ == "__main__":
    harness.main()
