#!/usr/bin/env python3
"""New connections go to kernels that have time for them (docs/angel.md): `cob angel`, `cob drain`, `cob top`, by programs in the cob, and with
root by Linux's over a TAP in a network namespace of the test's own."""
import collections
import concurrent.futures
import hashlib
import itertools
import json
import multiprocessing
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
import unittest

import harness
import tap_test

ADDRESS = "10.77.0.1"  # of a cob without an uplink

# One connection after the other: accepts, reads a line, is busy for a while (blocked, not computing), answers with its name and the line.
WORKER = """
import socket, sys, time
name, port, busy_s = sys.argv[1].encode(), int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port)); s.listen(512)
print("listening", flush=True)
while True:
    c, _ = s.accept()
    line = c.recv(4096)
    time.sleep(busy_s)
    c.sendall(name + b":" + line)
    c.close()
"""

# Serves so many bytes to whoever asks, each connection in a thread of its own.
SOURCE = """
import socket, sys, threading
data = bytes(range(256)) * 4096 * int(sys.argv[2])
def serve(c):
    c.recv(100)
    c.sendall(data)
    c.close()
s = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=512)
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""

# Asks so many times at once, and prints the answers.
ASKER = f"""
import collections, concurrent.futures, json, socket, sys
def ask(n):
    s = socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 60)
    s.sendall(b"line%d" % n)
    answer = b""
    while data := s.recv(4096): answer += data
    return answer.decode()
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(ask, range(int(sys.argv[2]))))))
"""

# A program of the cob that does nothing.
IDLE = """
import socket, time
s = socket.create_server(("0.0.0.0", 0))
time.sleep(60)
"""

# Fetches until told to end, and prints how many were right and what was wrong.
FETCHER = f"""
import hashlib, json, select, socket, sys
right, wrong, want = 0, [], sys.argv[2]
while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        s = socket.create_connection(("{ADDRESS}", int(sys.argv[1])), 60)
        s.sendall(b"?")
        h = hashlib.sha256()
        while data := s.recv(65536): h.update(data)
        if h.hexdigest() == want: right += 1
        else: wrong.append("checksum")
    except OSError as error:
        wrong.append(str(error))
    if right == 1: print("going", flush=True)
print(json.dumps([right, wrong]), flush=True)
"""


# Of network cards (Toeplitz): what a source port adds to the flow group, whatever the addresses.
KEY = int("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa", 16)


def group_of(source_port):
    group = 0
    for bit in range(16):
        if source_port >> (15 - bit) & 1:
            group ^= KEY >> (320 - 32 - 64 - bit) & 0xfff
    return group


class AngelTest(harness.CobTest):
    def worker(self, cob, kernel, port=80, busy_s=0.02):
        child = cob.start(sys.executable, "-c", WORKER, f"k{kernel}", port, busy_s, kernel=kernel)
        self.assertEqual(child.stdout.readline(), "listening\n", child)
        return child

    def angel(self, cob, *words):
        done = cob.cli("angel", *words, "--name", cob.name, *(["--json"] if words[0] == "status" else []))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout) if words[0] == "status" else done.stdout

    def totals(self, cob):
        total = collections.Counter()
        for kernel in self.angel(cob, "status")["kernels"]:
            total.update(kernel["angel"]["since_start"])
        return total


class Policies(AngelTest):
    def test_are_set_shown_and_checked(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "2", "--cores", "0,0", "--angel", "take,redirect")
        self.assertEqual(self.angel(cob, "status")["policies"], ["redirect", "take"])
        self.assertIn("moves,redirect,take,hung", self.angel(cob, "set", "all"))
        harness.wait_until(lambda: all(len(k["angel"]["policies"]) == 4 for k in self.angel(cob, "status")["kernels"]), what="all kernels")
        for words, status, text in ((("set", "fast"), 2, "'fast' is no policy of Angel; they are moves, redirect, take and hung"),
                                    (("set", "take,,moves"), 2, "'' is no policy"),
                                    (("set",), 2, "POLICIES is required"),
                                    ((), 2, "subcommand is required")):
            done = cob.cli("angel", *words, *(["--name", cob.name] if words else []))
            self.assertEqual((done.returncode, done.stdout), (status, ""), words)
            self.assertIn(text, done.stderr)
        self.assertEqual(len(self.angel(cob, "status")["policies"]), 4)
        self.angel(cob, "set", "none")
        cob.kill_kernel(1)  # the next life hears of it
        harness.wait_until(lambda: self.angel(cob, "status")["kernels"][1].get("angel", {}).get("policies") == [], what="its policies")
        text = cob.cli("angel", "status", "--name", cob.name).stdout
        self.assertIn("policies: none", text)
        self.assertIn("ACCEPT QUEUE", text)
        done = cob.cli("up", "--name", cob.name + "x", "--angel", "speed")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'speed' is no policy", done.stderr)

    def test_who_waits_takes_what_a_busy_worker_has_queued(self):
        cob = self.cob(2)
        self.angel(cob, "set", "none")
        self.worker(cob, 0)
        self.worker(cob, 1)

        def ask(count):  # within the cob a connect goes to the listener of its own kernel
            done = cob.run(sys.executable, "-c", ASKER, 80, count, kernel=0, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr)
            answers = json.loads(done.stdout)
            self.assertEqual(sorted(a.split(":")[1] for a in answers), sorted(f"line{n}" for n in range(count)))
            return collections.Counter(a.split(":")[0] for a in answers)

        self.assertEqual(ask(20), {"k0": 20})
        self.angel(cob, "set", "take")
        by_kernel = ask(60)
        self.assertGreaterEqual(by_kernel["k1"], 10, by_kernel)
        total = self.totals(cob)
        self.assertEqual(total["taken"], by_kernel["k1"])
        self.assertEqual(total["given"], by_kernel["k1"])
        self.assertEqual(total["lost"], 0)


class Drain(AngelTest):
    def test_empties_a_kernel_under_transfers(self):
        cob = self.cob(2)
        megabytes = 4
        server = cob.start(sys.executable, "-c", SOURCE, 8000, megabytes, kernel=0)
        self.assertEqual(server.stdout.readline(), "listening\n")
        want = hashlib.sha256(bytes(range(256)) * 4096 * megabytes).hexdigest()
        fetchers = [cob.start(sys.executable, "-c", FETCHER, 8000, want, kernel=k, stdin=subprocess.PIPE) for k in (0, 1)]
        for fetcher in fetchers:
            self.assertEqual(fetcher.stdout.readline(), "going\n")
        for kernel in (0, 1, 0):
            done = cob.named("drain", kernel, "--json")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertGreaterEqual(json.loads(done.stdout)["programs_moved"], 2)
            harness.wait_until(lambda: {p["kernel"] for p in cob.ps()} == {1 - kernel}, what="all programs on the other kernel")
            self.assertTrue(cob.kernels()[kernel]["draining"])
            refused = cob.named("drain", 1 - kernel)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("is the last of its island that is not drained", refused.stderr)
            fresh = [cob.start(sys.executable, "-c", IDLE) for _ in range(3)]  # programs come to the other
            harness.wait_until(lambda: len(cob.ps()) == 6, what="new programs")
            self.assertEqual({p["kernel"] for p in cob.ps()}, {1 - kernel})
            for child in fresh:
                child.kill()
            if kernel == 1:
                cob.kill_kernel(1)  # nobody is there; it stays drained
                self.assertTrue(cob.kernels()[1]["draining"])
            self.assertEqual(cob.named("undrain", kernel).returncode, 0)
            self.assertFalse(cob.kernels()[kernel]["draining"])
        for fetcher in fetchers:
            out, err = fetcher.communicate("end\n", timeout=60)
            right, wrong = json.loads(out.splitlines()[-1])
            self.assertEqual(wrong, [], err)
            self.assertGreater(right, 1)

    def test_says_what_cannot_move(self):
        cob = self.cob(2)
        for words, status, text in (((7,), 1, "there is no kernel 7; '%s' has kernels 0 to 1" % cob.name),
                                    (("x",), 2, "KERNEL"), ((64,), 2, "KERNEL"), ((), 2, "KERNEL is required")):
            for command in ("drain", "undrain"):
                done = cob.named(command, *words)
                self.assertEqual((done.returncode, done.stdout), (status, ""), words)
                self.assertIn(text, done.stderr)
        self.assertFalse(any(k["draining"] for k in cob.kernels()))
        child = cob.start(sys.executable, "-c", IDLE, kernel=0)
        harness.wait_until(lambda: len(cob.ps()) == 1, what="the program")
        self.assertEqual(cob.named("drain", 0, "--stay").returncode, 0)
        self.assertEqual(cob.ps()[0]["kernel"], 0)
        self.assertTrue(cob.kernels()[0]["draining"])
        child.kill()


class Top(AngelTest):
    def test_once(self):
        cob = self.cob(2)
        self.worker(cob, 1)
        done = cob.named("top", "--once", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        kernel = json.loads(done.stdout)["kernels"][1]
        self.assertEqual(kernel["queues"]["listeners"][0]["listener"], "0.0.0.0:80")
        self.assertEqual(kernel["angel"]["since_start"]["taken"], 0)
        self.assertIn("contested_percent", kernel)
        self.assertIn("redirected", kernel["per_second"])
        text = cob.named("top", "--once").stdout
        self.assertNotIn("\x1b", text)
        for word in ("CONTESTED", "REDIR/S", "GROUPS/S", "0.0.0.0:80"):
            self.assertIn(word, text)
        for words, text in ((("--json",), "--json goes with --once"), (("--interval", "0"), "--interval"), (("x",), "x")):
            done = cob.named("top", *words)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn(text, done.stderr + done.stdout)
        done = cob.cli("top", "--once", "--name", "nobody")
        self.assertEqual(done.returncode, 1)

    def live(self, cob, end):
        """A live view on a terminal; how it ended and what it wrote."""
        master, slave = pty.openpty()
        before = termios.tcgetattr(slave)
        child = subprocess.Popen([cob.command, "top", "--name", cob.name, "--interval", "0.1"], stdin=slave, stdout=slave, stderr=slave,
                                 env=cob.environment, start_new_session=True)
        shown = b""
        deadline = time.monotonic() + 20
        while shown.count(b"CONTESTED") < 3 and time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                shown += os.read(master, 65536)
        end(child, master)
        harness.wait_until(lambda: child.poll() is not None, what="its end")
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 65536)
        self.assertEqual(termios.tcgetattr(slave), before)
        os.close(master)
        os.close(slave)
        return child.returncode, shown

    def test_live(self):
        cob = self.cob(2)
        for end in (lambda child, master: os.write(master, b"q"), lambda child, master: child.send_signal(signal.SIGINT),
                    lambda child, master: child.send_signal(signal.SIGTERM)):
            status, shown = self.live(cob, end)
            self.assertEqual(status, 0, shown)
            self.assertGreaterEqual(shown.count(b"CONTESTED"), 3)
            self.assertTrue(shown.startswith(b"\x1b[?1049h"), shown[:50])
            self.assertTrue(shown.endswith(b"\x1b[?25h\x1b[?1049l"), shown[-50:])

    def test_without_a_terminal(self):
        cob = self.cob(2)
        child = subprocess.Popen([cob.command, "top", "--name", cob.name, "--interval", "0.1"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cob.environment)
        lines = [child.stdout.readline() for _ in range(20)]
        child.send_signal(signal.SIGINT)
        rest, err = child.communicate(timeout=20)
        self.assertEqual((child.returncode, err), (0, ""))
        self.assertGreaterEqual(("".join(lines) + rest).count("CONTESTED"), 2)
        self.assertNotIn("\x1b", "".join(lines))


class Uplink(AngelTest):
    """Connections of Linux's, whose source ports say to which kernel's flow groups they belong."""

    def ask(self, port, line=b"line"):
        s = socket.socket()
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((tap_test.HOST, port))
            s.settimeout(60)
            s.connect((tap_test.ADDRESS, 80))
            s.sendall(line)
            answer = b""
            while data := s.recv(4096):
                answer += data
            name, said = answer.decode().split(":")
            self.assertEqual(said, line.decode())
            return name
        finally:
            s.close()

    def ask_at_once(self, ports):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            return collections.Counter(pool.map(lambda port: self.ask(port, b"line%d" % port), ports))

    def test_skewed_connections_are_served_by_both(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "2", *tap_test.UPLINK, "--angel", "none")
        for kernel in (0, 1):
            self.worker(cob, kernel, busy_s=0.004)
        groups = collections.defaultdict(list)
        for port in range(20_000, 60_000):
            groups[group_of(port)].append(port)
        mine = []
        for first, *others in groups.values():  # one tells whose the group is, the others' connections are new
            if len(mine) < 192 and self.ask(first) == "k0":
                mine += others
        before = cob.status()
        self.assertEqual(self.ask_at_once(mine[:64]), {"k0": 64})
        for number, (policies, counter) in enumerate((("redirect", "redirected"), ("take", "taken"))):
            self.angel(cob, "set", policies)
            by_kernel = self.ask_at_once(mine[64 + 64 * number:128 + 64 * number])
            self.assertGreaterEqual(by_kernel["k1"], 5, (policies, by_kernel))
            self.assertEqual(sum(by_kernel.values()), 64)
            self.assertGreaterEqual(self.totals(cob)[counter], 5, policies)
        resets = [k["since_start"]["resets_out"] for k in (*before["kernels"], *cob.status()["kernels"])]
        self.assertEqual(resets, [0] * 4)

    def test_groups_at_rest_move_while_demand_is_skewed(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "2", *tap_test.UPLINK, "--angel", "none")
        for kernel in (0, 1):
            self.worker(cob, kernel, busy_s=0)
        groups = collections.defaultdict(list)
        for port in range(20_000, 60_000):
            groups[group_of(port)].append(port)
        mine = []
        for first, *others in groups.values():
            if len(mine) < 300 and self.ask(first) == "k0":
                mine.append(others)
        self.angel(cob, "set", "moves")

        def ask_all(ports):
            for port in ports:
                self.ask(port)

        slowest = None
        for batch in range(2):  # asks every group of kernel 0's seven times, from several processes
            ports = [ports[batch * 7 + n] for n in range(7) for ports in mine]
            askers = [multiprocessing.Process(target=ask_all, args=(ports[i::3],)) for i in range(3)]
            began = time.monotonic()
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
                self.assertEqual(asker.exitcode, 0)
            rate = len(ports) / (time.monotonic() - began)
            slowest = min(rate, slowest or rate)
            if self.totals(cob)["groups_moved"] > 0:
                break
        else:
            # 64 in 50 ms is the least demand that counts (net/angel/settings.h).
            self.assertLess(slowest, 2_000, "no group moved")
            self.skipTest(f"this machine asks too slowly just now: {slowest:.0f} a second")
        self.assertEqual([k["since_start"]["resets_out"] for k in cob.kernels()], [0, 0])

    def test_a_hung_kernel_gets_nothing_new(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "2", *tap_test.UPLINK)
        for kernel in (0, 1):
            self.worker(cob, kernel, busy_s=0)
        ports = iter(range(20_000, 30_000))
        before = collections.Counter(self.ask(next(ports)) for _ in range(40))
        self.assertEqual(set(before), {"k0", "k1"})
        stopped = cob.kernels()[0]["pid"]
        os.kill(stopped, signal.SIGSTOP)
        self.addCleanup(os.kill, stopped, signal.SIGCONT)

        def hangs():  # who waits for kernel 0 is not waited for: the others make kernel 1 turn, and it looks
            for port in itertools.islice(ports, 8):
                with socket.socket() as s:
                    s.bind((tap_test.HOST, port))
                    s.setblocking(False)
                    s.connect_ex((tap_test.ADDRESS, 80))
                    time.sleep(0.02)
            return cob.kernels()[0]["hangs"]

        harness.wait_until(hangs, what="the suspicion")
        self.assertIn("kernel 0 hangs", cob.log())
        self.assertEqual(collections.Counter(self.ask(next(ports)) for _ in range(40)), {"k1": 40})
        os.kill(stopped, signal.SIGCONT)
        harness.wait_until(lambda: not cob.kernels()[0]["hangs"], what="its recovery")
        after = collections.Counter(self.ask(next(ports)) for _ in range(40))
        self.assertEqual(set(after), {"k0", "k1"})
        self.assertEqual(cob.kernels()[0]["pid"], stopped)

    @tap_test.needs("curl")
    def test_drain_under_curl(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "2", *tap_test.UPLINK)
        megabytes = 8
        server = cob.start(sys.executable, "-c", SOURCE.replace("c.recv(100)", "c.recv(4096); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n')"),
                           80, megabytes, kernel=0)
        self.assertEqual(server.stdout.readline(), "listening\n")
        want = hashlib.sha256(bytes(range(256)) * 4096 * megabytes).hexdigest()

        def fetch(_):
            done = subprocess.run(["curl", "-sS", "--max-time", "60", f"http://{tap_test.ADDRESS}/"], stdout=subprocess.PIPE, check=True)
            return hashlib.sha256(done.stdout).hexdigest()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            sums = pool.map(fetch, range(24))
            for kernel in (0, 1, 0, 1):
                self.assertEqual(cob.named("drain", kernel).returncode, 0)
                self.assertEqual(cob.named("undrain", kernel).returncode, 0)
            self.assertEqual(set(sums), {want})


def load_tests(loader, tests, pattern):
    suite = unittest.TestSuite()
    for case in (Policies, Drain, Top, Uplink):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    if why := tap_test.enter_namespace():
        Uplink = unittest.skip(why)(Uplink)
    harness.main()
