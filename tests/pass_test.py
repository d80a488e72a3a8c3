#!/usr/bin/env python3
"""`cob run` on another island than the caller's: its descriptors, directory, environment, exit status and signals. What the program
reads and writes goes by messages: its own numbers are placeholders."""
import hashlib
import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import unittest

import harness
from harness import wait_until, usable_cores

PYTHON = sys.executable


class Pass(harness.CobTest):
    link = "window"

    def setUp(self):
        self.one = self.cob(up=False)
        cores = usable_cores()
        self.one.up("--island", f"a:1:{cores[0]}", "--island", f"b:1:{cores[-1]}", "--link", self.link)
        self.environment = {**self.one.environment, "LC_ALL": "C", "A": f"{self.one.command} run --name {self.one.name} -k 0 --",
                            "B": f"{self.one.command} run --name {self.one.name} -k 1 --"}

    def words(self, *program, kernel=1, options=()):
        return [self.one.command, "run", "--name", self.one.name, "-k", str(kernel), *options, "--", *map(str, program)]

    def sh(self, script, timeout=60, status=0, **options):
        """A shell of the host; $A and $B run a program on an island."""
        done = subprocess.run(["bash", "-c", script], env=self.environment, cwd=self.one.directory, capture_output=True, text=True,
                              timeout=timeout, **options)
        self.one.note_reports(done.stderr)
        self.assertEqual(done.returncode, status, f"{script}\n{done.stdout}{done.stderr}")
        return done.stdout


class DescriptorsTest(Pass):
    def test_its_numbers_are_placeholders(self):
        told = self.sh("echo x | $B readlink /proc/self/fd/0 /proc/self/fd/1")
        self.assertEqual(set(told.split()), {"anon_inode:[eventfd]"})
        told = self.sh("echo x | $A readlink /proc/self/fd/0 /proc/self/fd/1")
        self.assertNotIn("eventfd", told)
        told = self.sh(f"echo x | {self.one.command} run --name {self.one.name} -k 1 --from b -- readlink /proc/self/fd/0")
        self.assertNotIn("eventfd", told)

    def test_input_and_output(self):
        self.assertEqual(self.sh("seq 1 1000 > f; $B wc -l < f").strip(), "1000")
        self.assertEqual(self.sh("seq 1 10 | $B sort -rn | head -n 2"), "10\n9\n")
        self.assertEqual(self.sh("$B sh -c 'echo out; echo err >&2' 2>&1 > o | cat; cat o"), "err\nout\n")
        self.assertEqual(self.sh("$B sh -c 'echo out; echo err >&2' > both 2>&1; cat both"), "out\nerr\n")
        self.assertEqual(self.sh("echo hi 5> five; $B sh -c 'echo five >&5' 5>> five; cat five"), "hi\nfive\n")
        self.assertEqual(self.sh("$B cat /etc/hostname > /dev/null; echo $?"), "0\n")

    def test_a_shared_offset(self):
        # Shell and program have one offset; each byte is read once.
        self.assertEqual(self.sh("seq 10 99 > f; (while read -r l; do echo s$l; $B head -c 3; done) < f | head -n 6"),
                         "s10\n11\ns12\n13\ns14\n15\n")
        lines = self.sh("seq 1000 1099 > f; (while read -r l; do echo $l; $B head -c 5; $A head -c 5; done) < f").split()
        self.assertEqual(lines, [str(i) for i in range(1000, 1100)])
        self.assertEqual(self.sh("(echo a; $B echo b; echo c; $B sh -c 'echo d; echo e'; echo f) > g; cat g"), "a\nb\nc\nd\ne\nf\n")

    def test_appends_of_both_are_whole(self):
        self.sh("""for side in "$A" "$B"; do
                     $side sh -c 'i=0; while [ $i -lt 300 ]; do echo "$0 $i $0 $0 $0"; i=$((i+1)); done' "${side##*-k }" >> log &
                   done; wait""")
        lines = (self.one.directory / "log").read_text().splitlines()
        self.assertEqual(sorted(lines), sorted(f"{k} -- {i} {k} -- {k} -- {k} --" for k in (0, 1) for i in range(300)))

    def test_a_pipeline_over_both(self):
        big = self.one.directory / "big"
        data = os.urandom(1 << 20) * 8
        big.write_bytes(data)
        want = hashlib.md5(data).hexdigest()
        self.assertEqual(self.sh("$A cat big | $B cat | $A cat | $B md5sum").split()[0], want)
        self.assertEqual(self.sh("$B cat < big > copy; md5sum < copy").split()[0], want)
        self.sh("seq 1 200000 | shuf > s; $A sort s | $B gzip > out.gz; gunzip -c out.gz | cmp - <(sort s)")

    def test_ends_of_pipes(self):
        self.assertEqual(self.sh("$B yes | head -n 1; echo ${PIPESTATUS[0]}"), "y\n141\n")   # SIGPIPE
        self.assertEqual(self.sh("(trap '' PIPE; $B sh -c 'sleep 0.3; echo x; echo $? >&2') 2> e | true; cat e").split()[-1], "1")
        self.assertEqual(self.sh("$B true | cat; echo ended"), "ended\n")
        self.assertEqual(self.sh("(echo a; sleep 0.3; echo b) | $B cat"), "a\nb\n")
        self.assertEqual(self.sh("(sleep 0.2; exit) | $B cat; echo $?"), "0\n")

    def test_forks_and_execs_have_them_too(self):
        self.assertEqual(self.sh("seq 1 6 | $B sh -c 'read a; (read b; echo c$b); exec sh -c \"read c; echo e\\$c\"'"), "c2\ne3\n")
        self.assertEqual(self.sh("seq 1 3 | $B bash -c 'while read l; do echo $(echo $l | tr 123 abc); done'"), "a\nb\nc\n")

    def test_a_program_of_the_cob_calls(self):
        # A shell on a, and a program on b that has what the shell has.
        self.assertEqual(self.sh("printf '1\\n2\\n3\\n' > f; $A bash -c 'read a; echo s$a; $B head -c 2; read b; echo s$b' < f"),
                         "s1\n2\ns3\n")
        # A shell on b, whose files are of a; what it starts there goes on by their home.
        self.assertEqual(self.sh("$B bash -c 'read a; echo s$a; $B head -c 2; read b; echo s$b' < f"), "s1\n2\ns3\n")

    def test_sockets_of_the_host(self):
        a, b = socket.socketpair()
        with a:
            child = subprocess.Popen(self.words("sh", "-c", "read x; echo got $x"), env=self.environment, stdin=b, stdout=b)
            b.close()
            a.sendall(b"hello\n")
            self.assertEqual(child.wait(30), 0)
            self.assertEqual(a.recv(100), b"got hello\n")

    def test_what_cannot_go_is_told(self):
        with select.epoll() as epoll:
            os.set_inheritable(epoll.fileno(), True)
            done = subprocess.run(self.words("echo", "ran"), env=self.environment, capture_output=True, text=True, timeout=30,
                                  pass_fds=(epoll.fileno(),))
        self.assertEqual(done.stdout, "ran\n", done.stderr)
        self.assertIn("cannot go to another island", done.stderr)


class ReadinessTest(Pass):
    def test_select_poll_and_epoll(self):
        told = self.sh(f"""(sleep 1.5; echo x; sleep 0.5) | $B {PYTHON} -c '
import os, select, time
print(select.select([0], [], [], 0)[0])
print(select.select([0], [1], [], 0)[1])
began = time.monotonic(); print(select.select([0], [], [], 10)[0], time.monotonic() - began > 0.1)
p = select.poll(); p.register(0, select.POLLIN); print(p.poll(0)); print(os.read(0, 10)); print(p.poll(0))
e = select.epoll(); e.register(0, select.EPOLLIN); print(e.poll(10)); print(os.read(0, 10))'""")
        self.assertEqual(told.splitlines(), ["[]", "[1]", "[0] True", "[(0, 1)]", "b'x\\n'", "[]", "[(0, 16)]", "b''"])

    def test_nothing_is_burnt_while_it_waits(self):
        child = subprocess.Popen(self.words("cat"), env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.one.children.append(child)
        child.stdin.write(b"one\n"); child.stdin.flush()
        self.assertEqual(os.read(child.stdout.fileno(), 10), b"one\n")

        def used(pid):
            return sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        before = used(child.pid)
        time.sleep(1)
        self.assertLessEqual(used(child.pid) - before, 3)
        child.stdin.close()
        self.assertEqual(child.wait(10), 0)

    def test_signals_break_a_wait(self):
        for number, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)):
            child = subprocess.Popen(self.words("cat"), env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.one.children.append(child)
            wait_until(lambda: any(p["pid"] == child.pid and p["kernel"] == 1 for p in self.one.ps()))
            child.send_signal(number)
            self.assertEqual(child.wait(10), status)
            self.assertEqual(child.stdout.read(), b"")  # its last holder has gone: the pipe ends

    def test_a_handler_runs(self):
        told = self.sh(f"""sleep 2 | $B {PYTHON} -c '
import os, signal
def handler(*_): raise InterruptedError
signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.2)
try: os.read(0, 10)
except InterruptedError: print("woken")'""")
        self.assertEqual(told, "woken\n")


class SurroundingsTest(Pass):
    def test_directory_environment_and_status(self):
        self.assertEqual(self.sh("mkdir -p d; cd d; WORD=w $B sh -c 'pwd; echo $WORD; exit 7'; echo $?").split(),
                         [f"{self.one.directory.resolve()}/d", "w", "7"])
        self.assertEqual(self.sh("$B sh -c 'kill -KILL $$'; echo $?", ).split()[-1], "137")

    def test_a_terminal(self):
        leader, terminal = pty.openpty()
        self.addCleanup(os.close, leader)
        termios.tcsetwinsize(terminal, (33, 77)) if hasattr(termios, "tcsetwinsize") else None
        child = subprocess.Popen(self.words(PYTHON, "-c", """
import os, sys, termios, tty
print(os.isatty(0), os.isatty(2), sorted(os.get_terminal_size())[0] >= 0, flush=True)
print("line", sys.stdin.readline().strip(), flush=True)
before = termios.tcgetattr(0); tty.setcbreak(0); print("key", os.read(0, 1), flush=True)
termios.tcsetattr(0, termios.TCSADRAIN, before); print(termios.tcgetattr(0) == before, flush=True)
"""), env=self.environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True)
        self.one.children.append(child)
        os.close(terminal)
        seen = b""

        def until(text):
            nonlocal seen
            while text not in seen:
                self.assertTrue(select.select([leader], [], [], 20)[0], seen)
                seen += os.read(leader, 1000)
        until(b"True True True")
        os.write(leader, b"abc\n")
        until(b"line abc")
        wait_until(lambda: not termios.tcgetattr(leader)[3] & termios.ICANON)
        os.write(leader, b"k")
        until(b"key b'k'\r\nTrue")
        self.assertEqual(child.wait(10), 0)

    def test_the_islands_kernel_dies(self):
        child = subprocess.Popen(self.words("sh", "-c", "cat; echo ended $?"), env=self.environment, stdin=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.one.children.append(child)
        wait_until(lambda: any(p["pid"] == child.pid for p in self.one.ps()))
        os.kill(self.one.status()["kernels"][0]["pid"], signal.SIGKILL)
        # What it has is lost: its cat is told, it does not hang.
        self.assertIsNotNone(child.wait(20))
        child.stdin.close()
        wait_until(lambda: self.one.status()["kernels"][0]["epoch"] == 2)
        self.assertEqual(self.sh("echo again | $B cat"), "again\n")

    def test_refusals(self):
        done = subprocess.run(self.words("true", options=("--from", "nowhere")), env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no island 'nowhere'", done.stderr)


class SocketLinkTest(DescriptorsTest):
    link = "socket"


class KillTest(Pass):
    def test_kill(self):
        # Programs of a cob of several islands are known before they do anything: what they are asked comes once they run.
        script = "import time; print('runs', flush=True); time.sleep(100)"
        children = [subprocess.Popen(self.words(PYTHON, "-c", script, kernel=k), env=self.environment, stdout=subprocess.PIPE)
                    for k in (0, 1)]
        self.one.children += children
        for child in children:
            self.assertEqual(child.stdout.readline(), b"runs\n")
        wait_until(lambda: {p["pid"] for p in self.one.ps()} >= {c.pid for c in children})
        self.assertEqual({p["island"] for p in self.one.ps()}, {"a", "b"})
        self.assertEqual(self.one.named("kill", children[1].pid, 0).returncode, 0)
        done = self.one.named("kill", "--json", children[1].pid)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(children[1].wait(10), -signal.SIGTERM)
        self.assertEqual(self.one.named("kill", children[0].pid, "sigint").returncode, 0)
        self.assertEqual(children[0].wait(10), -signal.SIGINT)
        for child in children:
            child.stdout.close()

    def test_refusals(self):
        other = subprocess.Popen(["sleep", "100"])
        self.one.children.append(other)
        done = self.one.named("kill", other.pid)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not a program of cob", done.stderr)
        self.assertIsNone(other.poll())
        other.kill()
        other.wait()
        self.assertEqual(self.one.named("kill", other.pid).returncode, 1)
        self.assertEqual(self.one.named("kill", os.getpid(), "NONE").returncode, 2)
        self.assertEqual(self.one.named("kill", "x").returncode, 2)


if __name__ == "__main__":
    harness.main()
