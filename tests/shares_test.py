#!/usr/bin/env python3
"""A share of island a, used from island b by unmodified programs. As root its directory is covered by an empty one for the programs
of b, so that what they find there can only have come by messages."""
import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import harness
from harness import wait_until

ROOT = os.geteuid() == 0


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class SharesTest(harness.CobTest):
    read_only = False

    def setUp(self):
        self.share = pathlib.Path(tempfile.mkdtemp(prefix="cob-share-"))
        self.addCleanup(shutil.rmtree, self.share, True)
        self.share.chmod(0o755)
        self.one = self.cob(up=False)
        cores = harness.usable_cores()
        self.one.up("--island", f"a:1:{cores[0]}", "--island", f"b:1:{cores[-1]}", "--share",
                    f"{self.share}{':ro' if self.read_only else ''}@a")

    def covered(self, words):
        """The command with the share's directory empty for it."""
        if not ROOT:
            return list(map(str, words))
        return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.share), *map(str, words)]

    def words(self, *program):
        return self.covered([self.one.command, "run", "--name", self.one.name, "-k", 1, "--from", "b", "--", *program])

    def on_b(self, *program, input=None, timeout=60, cwd="/"):
        done = subprocess.run(self.words(*program), input=input, capture_output=True, text=True, timeout=timeout, cwd=cwd,
                              env={**self.one.environment, "LC_ALL": "C"})
        self.one.note_reports(done.stderr)
        return done

    def sh(self, script, status=0, **options):
        done = self.on_b("sh", "-c", script, self.share, **options)
        self.assertEqual(done.returncode, status, f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    def begin(self, *program, **options):
        child = subprocess.Popen(self.words(*program), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True, env={**self.one.environment, "LC_ALL": "C"}, cwd="/", **options)
        self.one.children.append(child)
        return child


class ProgramsTest(SharesTest):
    def test_reading(self):
        lines = "".join(f"line {i}\n" for i in range(1, 1001))
        (self.share / "text").write_text(lines)
        self.assertEqual(self.sh('cat "$0/text"'), lines)
        self.assertEqual(self.sh('head -n 2 "$0/text"'), "line 1\nline 2\n")
        self.assertEqual(self.sh('tail -c 10 "$0/text"'), lines[-10:])
        self.assertEqual(self.sh('wc -l < "$0/text"').strip(), "1000")
        self.assertEqual(self.sh('sed -n 500p "$0/text"; grep -c "line 9" "$0/text"'), "line 500\n111\n")

    def test_writing(self):
        self.sh('echo one > "$0/a"; echo two >> "$0/a"; cp "$0/a" "$0/b"; cat "$0/a" "$0/b" > "$0/c"')
        self.assertEqual((self.share / "c").read_text(), "one\ntwo\none\ntwo\n")
        self.sh('cp /etc/passwd "$0/p"; cmp /etc/passwd "$0/p"; cp "$0/p" /dev/null; dd if="$0/p" of="$0/q" bs=100 2> /dev/null')
        self.assertEqual((self.share / "q").read_bytes(), pathlib.Path("/etc/passwd").read_bytes())

    def test_names(self):
        self.sh('''set -e
            mkdir "$0/d" "$0/d/e"; touch "$0/d/f"; mv "$0/d/f" "$0/d/g"; ln -s g "$0/d/l"; ln "$0/d/g" "$0/d/h"
            [ "$(readlink "$0/d/l")" = g ]; [ "$(stat -c %h "$0/d/g")" = 2 ]; chmod 640 "$0/d/g"
            [ "$(stat -c %a "$0/d/g")" = 640 ]; rmdir "$0/d/e"; rm "$0/d/h"''')
        self.assertEqual(sorted(os.listdir(self.share / "d")), ["g", "l"])
        self.assertEqual(self.sh('ls -la "$0/d" | wc -l; find "$0" -type l; ls "$0/d"').split()[1:],
                         [f"{self.share}/d/l", "g", "l"])
        self.sh('rm -r "$0/d"')
        self.assertEqual(os.listdir(self.share), [])

    def test_many_entries(self):
        (self.share / "many").mkdir()
        names = sorted(f"a name of some length {i}" for i in range(3000))
        for name in names:
            (self.share / "many" / name).touch()
        self.assertEqual(self.sh('ls "$0/many"').splitlines(), names)
        self.assertEqual(self.sh('find "$0/many" -type f | wc -l').strip(), "3000")

    def test_one_offset_between_processes(self):
        (self.share / "lines").write_text("1\n2\n3\n4\n5\n6\n")
        self.assertEqual(self.sh('while read x; do echo "s$x"; head -n 0; sh -c "read y; echo c\\$y"; done < "$0/lines"'),
                         "s1\nc2\ns3\nc4\ns5\nc6\n")
        self.assertEqual(self.sh('(echo a; sh -c "echo b"; echo c) > "$0/out"; cat "$0/out"'), "a\nb\nc\n")

    def test_appends_of_two_are_whole(self):
        loop = 'i=0; while [ $i -lt 200 ]; do echo "$1$1$1$1$1$1$1$1 $i" >> "$0/log"; i=$((i+1)); done'
        children = [self.begin("sh", "-c", loop, self.share, word) for word in ("aaaa", "bbbb")]
        for child in children:
            self.assertEqual(child.wait(60), 0)
        lines = (self.share / "log").read_text().splitlines()
        self.assertEqual(sorted(lines), sorted(f"{w * 8} {i}" for w in ("aaaa", "bbbb") for i in range(200)))

    def test_the_working_directory(self):
        (self.share / "d" / "e").mkdir(parents=True)
        (self.share / "d" / "f").write_text("here\n")
        self.assertEqual(self.sh('cd "$0/d/e" && /bin/pwd && cat ../f && cd .. && /bin/pwd && ls && cd / && /bin/pwd').split(),
                         [f"{self.share}/d/e", "here", f"{self.share}/d", "e", "f", "/"])

    def same(self, script):
        """What the script prints in a directory of the host, given as its argument, and in one of the share."""
        host = pathlib.Path(tempfile.mkdtemp(prefix="cob-share-"))
        self.addCleanup(shutil.rmtree, host, True)
        head = ("import array, errno, fcntl, os, signal, sys, termios\n"
                "def tell(call, *args):\n"
                "    try: print(call.__name__, call(*args))\n"
                "    except OSError as e: print(call.__name__, errno.errorcode[e.errno])\n"
                "os.chdir(sys.argv[1])\n")
        plain = subprocess.run([sys.executable, "-c", head + script, str(host)], capture_output=True, text=True, cwd="/")
        shared = self.on_b(sys.executable, "-c", head + script, self.share)
        self.assertEqual(shared.stdout.replace(str(self.share), "@"), plain.stdout.replace(str(host), "@"), shared.stderr)
        self.assertEqual((plain.stderr, plain.returncode, shared.returncode), ("", 0, 0), shared.stderr)

    def test_a_working_directory_that_moves(self):
        self.same("""
os.makedirs("d/e")
os.chdir("d/e")
open("f", "w").write("here")
print(os.getcwd(), open("f").read())
os.rename("../../d", "../../g")
print(os.getcwd(), open("f").read(), os.path.realpath("f"))
os.mkdir(sys.argv[1] + "/d"); os.mkdir(sys.argv[1] + "/d/e")  # another one by that name
tell(os.listdir)
pid = os.fork()
if pid == 0:
    print(os.getcwd(), os.listdir(), flush=True)
    os.execvp("sh", ["sh", "-c", "/bin/pwd; cat f; echo; ls"])
os.waitpid(pid, 0)
sys.stdout.flush()
os.spawnvp(os.P_WAIT, "cat", ["cat", "f"])
os.system("/bin/pwd")
os.rename("f", "../f")
back = os.open("..", os.O_RDONLY)
os.rmdir("../e")
tell(os.getcwd); tell(os.listdir); tell(os.mkdir, "x"); tell(os.open, "x", os.O_CREAT | os.O_WRONLY); tell(os.chdir, ".")
tell(os.stat, "x"); tell(os.access, ".", os.R_OK); tell(os.getcwd)
pid = os.fork()
if pid == 0:
    tell(os.getcwd)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", "import os\\ntry: print(os.listdir(), os.getcwd())\\nexcept OSError as e: print(e.errno)"])
os.waitpid(pid, 0)
os.fchdir(back)
print(os.getcwd(), sorted(os.listdir()))
os.chdir("../d/e")
print(os.getcwd(), os.listdir())
tell(os.chdir, "../../g/f"); tell(os.chdir, "none"); tell(os.chdir, "")
os.mkdir("shut", 0)
pid = os.fork()
if pid == 0:
    if os.geteuid() == 0: os.seteuid(65534)
    tell(os.chdir, "shut"); tell(os.getcwd)
    sys.stdout.flush()
    os._exit(0)
sys.stdout.flush()
os.waitpid(pid, 0)
os.chdir("/")
print(os.getcwd())
""")

    def test_status_flags_of_all_who_share(self):
        self.same("""
A, N = os.O_APPEND, os.O_NONBLOCK
def flags(f): return fcntl.fcntl(f, fcntl.F_GETFL) & (A | N | 3)
def change(f, to): fcntl.fcntl(f, fcntl.F_SETFL, to)
f = os.open("f", os.O_CREAT | os.O_RDWR)
d = os.dup(f)
print(os.write(f, b"0123456789"), os.lseek(f, 2, 0), flags(d) == flags(f))
change(d, A)
print(flags(f) & A, os.write(f, b"ab"), os.lseek(f, 0, 1), os.pwrite(f, b"cd", 0), os.lseek(f, 3, 0), os.read(f, 4))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(w)
    os.read(r, 1)  # until the parent has changed them
    print(flags(f) & (A | N), os.lseek(f, 1, 0), os.write(f, b"E"), os.lseek(f, 0, 1), flush=True)
    change(f, A)
    os._exit(0)
os.close(r)
change(f, N)
os.close(w)
sys.stdout.flush()
os.waitpid(pid, 0)
print(flags(f) & (A | N), flags(d) & (A | N), os.lseek(f, 0, 0), os.write(d, b"F"), os.lseek(f, 0, 1))
os.set_inheritable(f, True)
sys.stdout.flush()
os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c",
    "import fcntl, os; print(fcntl.fcntl(%d, fcntl.F_GETFL) & os.O_APPEND, os.write(%d, b'G'))" % (f, f)])
print(open("f").read())
g = os.open("f", os.O_RDWR | os.O_APPEND)
change(g, 0)
print(os.lseek(g, 1, 0), os.write(g, b"-"), open("f").read())
""")

    def test_which_name_is_wrong_first(self):
        self.same("""
open("f", "w").write("f")
os.mkdir("d")
for one in ("f", "f/", "f/x", "none", "none/x", "", "d", "d/"):
    for two in ("f", "f/x", "none/x", "", "f/", "d", "d/", "n" * 300):
        print(repr(one), repr(two[:9]))
        for call in (os.link, os.rename, os.symlink):
            tell(call, one, two)
            if os.path.islink("n" * 300): os.unlink("n" * 300)
        if not os.path.isfile("f") or os.path.islink("f"):
            print(sorted(os.listdir()))
            sys.exit()
""")

    def test_what_is_refused_first(self):
        self.same("""
tell(os.open, "", 0o20200000 | os.O_RDONLY); tell(os.open, "none/x", 0o20200000 | os.O_RDONLY)
f = os.open("f", os.O_CREAT | os.O_RDWR)
place = os.open("f", 0o10000000)
tell(os.posix_fallocate, place, 0, 0); tell(os.posix_fallocate, f, 0, 0)
g = os.open("f", os.O_RDWR | os.O_NOATIME)
fcntl.fcntl(g, fcntl.F_SETFL, 0)
print(oct(fcntl.fcntl(g, fcntl.F_GETFL)))
fcntl.fcntl(g, fcntl.F_SETFL, os.O_NOATIME | os.O_APPEND)
print(oct(fcntl.fcntl(g, fcntl.F_GETFL)))
r, w = os.pipe()
fcntl.fcntl(w, fcntl.F_SETFL, os.O_APPEND)
os.write(f, b"text"); os.lseek(f, 0, 0)
tell(os.sendfile, w, f, None, 10); tell(os.sendfile, g, f, None, 10)
""")

    def test_what_is_unread(self):
        self.same("""
open("f", "w").write("0123456789")
f = os.open("f", os.O_RDWR)
n = array.array("i", [0])
def unread(f): fcntl.ioctl(f, termios.FIONREAD, n); return n[0]
tell(unread, f); os.lseek(f, 3, 0); tell(unread, f); os.lseek(f, 30, 0); tell(unread, f)
tell(unread, os.open(".", os.O_RDONLY))
on = array.array("i", [1])
fcntl.ioctl(f, termios.FIONBIO, on); print(fcntl.fcntl(f, fcntl.F_GETFL) & os.O_NONBLOCK)
""")

    def test_a_path_that_leads_out(self):
        outside = self.one.directory / "outside"
        outside.write_text("out\n")
        (self.share / "link").symlink_to(outside)
        (self.share / "round").symlink_to("round")
        climbs = f"{self.share}/../" + str(outside.relative_to("/tmp")) if str(outside).startswith("/tmp/") else outside
        self.assertEqual(self.sh(f'cat "$0/link" {climbs}'), "out\nout\n")
        self.assertIn("Too many levels", self.on_b("cat", self.share / "round").stderr)

    def test_errors(self):
        (self.share / "file").write_text("x")
        for path, message in (("missing", "No such file"), ("file/x", "Not a directory"), ("n" * 300, "File name too long")):
            self.assertIn(message, self.on_b("cat", self.share / path).stderr)
        self.assertIn("File exists", self.on_b("mkdir", self.share / "file").stderr)
        link = "import ctypes, sys; ctypes.CDLL(None).link(None, sys.argv[1].encode()); ctypes.CDLL(None).perror(b'link')"
        self.assertIn("Bad address", self.on_b("python3", "-c", link, self.share / "none").stderr)

    @unittest.skipUnless(ROOT and shutil.which("setpriv"), "needs root and setpriv")
    def test_an_unreadable_file(self):
        (self.share / "secret").write_text("x")
        (self.share / "secret").chmod(0o600)
        done = self.on_b("setpriv", "--reuid=33", "--regid=33", "--clear-groups", "cat", self.share / "secret")
        self.assertIn("Permission denied", done.stderr)

    def test_executing(self):
        (self.share / "script").write_text('#!/bin/sh\necho "$0 $1"\n')
        (self.share / "script").chmod(0o755)
        shutil.copy("/bin/echo", self.share / "image")
        self.assertEqual(self.sh('"$0/script" a; "$0/image" b; cd "$0"; ./script c'),
                         f"{self.share}/script a\nb\n./script c\n")

    def test_a_large_file(self):
        data = os.urandom(1 << 20) * 64
        (self.share / "large").write_bytes(data)
        self.assertEqual(self.sh('sha256sum < "$0/large"', timeout=120).split()[0], hashlib.sha256(data).hexdigest())

    @needs("python3")
    def test_python(self):
        script = """
import json, os, sys
top = sys.argv[1]
with open(top + '/j', 'w') as f: json.dump({'a': list(range(5000))}, f)
with open(top + '/j') as f: assert json.load(f)['a'][4999] == 4999
with open(top + '/b', 'w+b') as f:
    f.write(b'0123456789'); f.seek(3); assert f.read(2) == b'34'; f.seek(-1, 2); assert f.read() == b'9'
    f.truncate(4); assert os.fstat(f.fileno()).st_size == 4
os.makedirs(top + '/x/y')
open(top + '/x/y/z', 'x').close()
assert sorted(os.listdir(top)) == ['b', 'j', 'x'], os.listdir(top)
assert [d for d, _, _ in os.walk(top)] == [top, top + '/x', top + '/x/y']
assert os.path.realpath(top + '/x/../b') == top + '/b'
os.replace(top + '/b', top + '/c'); os.utime(top + '/c', (5, 6)); assert os.stat(top + '/c').st_mtime == 6
import mmap
with open(top + '/j', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m: assert m[:4] == b'{"a"'
import shutil; shutil.rmtree(top + '/x'); assert not os.path.exists(top + '/x')
import tempfile
with tempfile.NamedTemporaryFile(dir=top) as t: t.write(b'x'); t.flush(); assert os.path.getsize(t.name) == 1
print('well')
"""
        done = self.on_b("python3", "-c", script, self.share)
        self.assertEqual((done.stdout, done.returncode), ("well\n", 0), done.stderr)

    @needs("tar")
    def test_tar_and_grep(self):
        self.sh('mkdir "$0/s" && cp /etc/passwd /etc/group "$0/s" && tar -C "$0" -cf "$0/t.tar" s && mkdir "$0/u" && '
                'tar -C "$0/u" -xf "$0/t.tar" && cmp "$0/s/group" "$0/u/s/group"')
        self.assertEqual(self.sh('grep -rl root: "$0/u"').split().count(f"{self.share}/u/s/passwd"), 1)

    def test_patterns_of_libc(self):
        for name in ("a.c", "b.c", "c.h"):
            (self.share / name).touch()
        (self.share / "d").mkdir()
        (self.share / "d" / "e.c").touch()
        tool = ("import ctypes, sys\nclass G(ctypes.Structure): _fields_ = [('n', ctypes.c_size_t), ('names', ctypes.POINTER(ctypes.c_char_p)), "
                "('rest', ctypes.c_char * 200)]\nlibc = ctypes.CDLL(None)\nfor p in sys.argv[1:]:\n  g = G()\n"
                "  print(libc.glob(p.encode(), 0, None, ctypes.byref(g)), [g.names[i].decode() for i in range(g.n)])\n  libc.globfree(ctypes.byref(g))\n")
        done = self.on_b(sys.executable, "-c", tool, f"{self.share}/*.c", f"{self.share}/*/*.c", f"{self.share}/no*", "/etc/host[n]ame")
        self.assertEqual(done.stdout, f"0 ['{self.share}/a.c', '{self.share}/b.c']\n0 ['{self.share}/d/e.c']\n3 []\n0 ['/etc/hostname']\n", done.stderr)

    @needs("git")
    def test_git_reads(self):
        run = lambda *words: subprocess.run(["git", "-C", str(self.share), "-c", "user.name=n", "-c", "user.email=e", *words],
                                            check=True, capture_output=True)
        run("init", "-q")
        (self.share / "f").write_text("x\n")
        run("add", "f")
        run("commit", "-qm", "first")
        (self.share / "f").write_text("y\n")
        self.assertIn("first", self.sh('git -C "$0" -c safe.directory="*" log --oneline'))
        self.assertIn(" M f", self.sh('git -C "$0" -c safe.directory="*" --no-optional-locks status --short'))

    def test_the_same_on_the_host_and_the_share(self):
        script = '''cd "$0" || exit; umask 027; mkdir -p a/b; echo 1 > a/x; echo 2 >> a/x; cat a/x; ls -l a | cut -c1-10
            ln -s ../a/x a/b/l; cat a/b/l; readlink -f a/b/l | sed "s,$0,,"; cp -r a c; diff -r a c; echo $?; mv c d; ls d
            stat -c "%s %a %F" a/x a/b a/b/l; cat nothing; echo $?; rmdir a; echo $?; cat a; mkdir a; : > e; cat < e; test -e e; echo $?
            test -w a/x; echo $?; find . | sort; rm -r a d; ls; cut -c1 < /etc/passwd > f; sort f | uniq -c | tail -n 1; tail -n 2 f
            printf 'b\\na\\n' > g; sort -o g g; cat g; truncate -s 10 g; wc -c g; head -c 3 g; du -b g; rm -f e f g; ls -A'''
        host = pathlib.Path(tempfile.mkdtemp(prefix="cob-share-"))
        self.addCleanup(shutil.rmtree, host, True)
        plain = subprocess.run(["sh", "-c", script, str(host)], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        shared = self.on_b("sh", "-c", script, self.share)
        self.assertEqual(shared.stdout, plain.stdout)
        self.assertEqual(shared.stderr, plain.stderr)

    def test_the_rest_is_the_hosts(self):
        self.assertEqual(self.sh('cat /etc/passwd; cd /etc && ls | head -n 1 > /dev/null'), pathlib.Path("/etc/passwd").read_text())


class DeathsTest(SharesTest):
    def test_a_killed_program_and_a_killed_kernel(self):
        (self.share / "f").write_text("x" * 100)
        child = self.begin("sh", "-c", 'exec 3< "$0/f"; read -r y <&3; echo open; exec sleep 60', self.share)
        self.assertEqual(child.stdout.readline(), "open\n")
        child.kill()
        child.wait()
        self.assertEqual(self.sh('cat "$0/f"'), "x" * 100)

    @needs("python3")
    def test_the_storing_kernel_dies(self):
        (self.share / "f").write_text("x" * 100)
        script = ("import sys,os\nf = os.open(sys.argv[1], 0)\nprint(len(os.read(f, 10)), flush=True)\nsys.stdin.readline()\n"
                  "try: print(len(os.read(f, 10)))\nexcept OSError as e: print(e.errno)\n")
        child = subprocess.Popen(self.words("python3", "-c", script, self.share / "f"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 text=True, env=self.one.environment, cwd="/")
        self.one.children.append(child)
        self.assertEqual(child.stdout.readline(), "10\n")
        self.one.kill_kernel(0)
        child.stdin.write("\n")
        child.stdin.flush()
        self.assertIn(int(child.communicate(timeout=30)[0]), (116, 112, 5))  # ESTALE, EHOSTDOWN, EIO
        wait_until(lambda: self.on_b("cat", self.share / "f").returncode == 0, 20, "the share's return")


class ReadOnlyTest(SharesTest):
    read_only = True

    def test_nothing_can_be_written(self):
        (self.share / "f").write_text("x")
        self.assertEqual(self.sh('cat "$0/f"'), "x")
        for command in ('echo y > "$0/f"', 'rm "$0/f"', 'mkdir "$0/d"'):
            done = self.on_b("sh", "-c", command, self.share)
            self.assertIn("Read-only file system", done.stderr)


if __name__ == "__main__":
    harness.main()
