#!/usr/bin/env python3
"""Declared islands (docs/islands.md): kernels of one machine that share nothing but a window or a socket."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest

import harness
import servers
from harness import wait_until, usable_cores

PYTHON = sys.executable

ECHO = """
import socket, sys
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
l.bind(("0.0.0.0", int(sys.argv[1]))); l.listen(64)
print("listening", flush=True)
while True:
    s, _ = l.accept()
    while data := s.recv(1 << 16): s.sendall(data)
    s.close()
"""
# Connects again and again, and says so, until its input ends.
CLIENT = """
import select, socket, sys
n = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    with socket.create_connection(("10.77.0.1", int(sys.argv[1])), 10) as s:
        s.sendall(b"x" * 1000)
        got = 0
        while got < 1000: got += len(s.recv(1000))
    n += 1
print(n, flush=True)
"""
# A program that its kernel knows: it has a socket.
SLEEP = """
import socket, time
s = socket.socket(); s.bind(("0.0.0.0", 0)); time.sleep(60)
"""
CONNECT = """
import errno, socket, sys
s = socket.socket()
try: s.connect((sys.argv[1], int(sys.argv[2]))); print("connected")
except OSError as e: print(errno.errorcode[e.errno])
"""
BIND = """
import errno, socket, sys
s = socket.socket()
try: s.bind(("0.0.0.0", int(sys.argv[1]))); print("bound")
except OSError as e: print(errno.errorcode[e.errno])
"""


def cores_of(kernels, first=0):
    """`kernels` cores from the first-th on, each again when there are no more."""
    usable = usable_cores()
    return ",".join(str(usable[(first + i) % len(usable)]) for i in range(kernels))


class Islands(harness.CobTest):
    def islands(self, link="window", a=1, b=1, *words):
        cob = self.cob(up=False)
        cob.up("--island", f"a:{a}:{cores_of(a)}", "--island", f"b:{b}:{cores_of(b, a)}", "--link", link, *words)
        self.wait_for_links(cob)
        return cob

    def links(self, cob):
        """(kernel, other) -> (transport, up), of all running kernels."""
        return {(kernel["kernel"], link["kernel"]): (link["transport"], link["up"])
                for kernel in cob.kernels() for link in kernel.get("links", [])}

    def wait_for_links(self, cob):
        kernels = len(cob.kernels())
        def all_up():
            links = self.links(cob)
            return len(links) == kernels * (kernels - 1) and all(up for _, up in links.values())
        wait_until(all_up, 20, "links between all kernels")

    def echo(self, cob, port, kernel):
        server = cob.start(PYTHON, "-c", ECHO, port, kernel=kernel)
        self.assertEqual(server.stdout.readline(), "listening\n")
        return server

    def connect(self, cob, kernel, port, address="10.77.0.1"):
        return cob.run(PYTHON, "-c", CONNECT, address, port, kernel=kernel).stdout.strip()


class TwoIslands(Islands):
    def serves_within_each(self, link):
        cob = self.islands(link)
        self.assertEqual(self.links(cob), {(0, 1): (link, True), (1, 0): (link, True)})
        for kernel, port in ((0, 7000), (1, 7001)):
            self.echo(cob, port, kernel)
            self.assertEqual(self.connect(cob, kernel, port), "connected")
        def programs():
            return [(p["island"], p["kernel"]) for p in sorted(cob.ps(), key=lambda p: p["kernel"])]
        wait_until(lambda: len(programs()) == 2, 10, "the end of what connected")
        self.assertEqual(programs(), [("a", 0), ("b", 1)])

    def test_serve_within_each_by_window(self):
        self.serves_within_each("window")

    def test_serve_within_each_by_socket(self):
        self.serves_within_each("socket")

    @unittest.skipUnless(shutil.which("redis-server") and shutil.which("nginx"), "no redis-server or no nginx")
    def test_real_servers(self):
        cob = self.islands()
        servers.redis(cob, 6379, 0, probe=0)
        servers.nginx(cob, 8080, 1, probe=1)
        self.assertEqual(cob.run("redis-cli", "-h", "10.77.0.1", "SET", "k", "v", kernel=0).stdout, "OK\n")
        self.assertEqual(cob.run("curl", "-s", "http://10.77.0.1:8080/memory", kernel=1).stdout, "a body from memory\n")

    def test_frames_do_not_cross_but_ports_are_one_space(self):
        for link in ("window", "socket"):
            with self.subTest(link=link):
                cob = self.islands(link)
                for port in (7000, 7001):  # the home of one is kernel 0, of the other kernel 1
                    self.echo(cob, port, 0)
                    self.assertEqual(self.connect(cob, 1, port), "ENETUNREACH")
                    bound = cob.run(PYTHON, "-c", BIND, port, kernel=1).stdout.strip()
                    self.assertEqual(bound, "EADDRINUSE")
                self.assertEqual(self.connect(cob, 1, 7002), "ECONNREFUSED")
                self.assertEqual(self.connect(cob, 0, 7000), "connected")

    def test_several_kernels_an_island(self):
        cob = self.islands("window", 2, 2)
        kinds = {pair: transport for pair, (transport, _) in self.links(cob).items()}
        self.assertEqual(kinds, {(i, j): "coherent" if i // 2 == j // 2 else "window"
                                 for i in range(4) for j in range(4) if i != j})
        self.echo(cob, 7000, 1)
        self.assertEqual(self.connect(cob, 0, 7000), "connected")
        self.assertEqual(self.connect(cob, 2, 7000), "ENETUNREACH")

    def test_run_on_an_island(self):
        cob = self.islands("window", 1, 2)
        self.assertEqual(cob.named("run", "--island", "b", "--", "echo", "hi").stdout, "hi\n")
        for _ in range(4):
            cob.children.append(subprocess.Popen([harness.COB, "run", "--name", cob.name, "--island", "b", "--", PYTHON, "-c", SLEEP],
                                                 env=cob.environment))
        wait_until(lambda: sum(p["sockets"] for p in cob.ps()) == 4, 10, "four programs")
        self.assertEqual({(p["island"], p["kernel"]) for p in cob.ps() if p["sockets"]}, {("b", 1), ("b", 2)})
        none = cob.named("run", "--island", "c", "--", "true")
        self.assertEqual((none.returncode, none.stderr), (1, f"cob: there is no island 'c'; '{cob.name}' has a, b\n"))
        both = cob.named("run", "--island", "b", "-k", "1", "--", "true")
        self.assertEqual(both.returncode, 2)

    def test_what_commands_show(self):
        cob = self.islands("socket")
        status = cob.status()
        self.assertEqual(status["islands"], [{"island": "a", "kernels": [0]}, {"island": "b", "kernels": [1]}])
        self.assertEqual(status["link"], "socket")
        self.assertEqual([k["island"] for k in status["kernels"]], ["a", "b"])
        self.assertRegex(cob.named("status").stdout, r"LINK OF KERNEL +ISLAND +TO +ISLAND +BY +STATE\n +0 +a +1 +b +socket +up\n")
        stats = json.loads(cob.named("stats", "--json").stdout)
        self.assertEqual([(k["island"], p["peer"], p["island"], p["transport"]) for k in stats["kernels"] for p in k["peers"]
                          if p["peer"] != k["kernel"]], [("a", 1, "b", "socket"), ("b", 0, "a", "socket")])
        one = self.cob(kernels=1)
        self.assertEqual(one.status()["islands"], [{"island": "a", "kernels": [0]}])
        self.assertNotIn("LINK", one.named("status").stdout)


class Deaths(Islands):
    def goes_on_beside_a_death(self, link):
        cob = self.islands(link)
        self.echo(cob, 7000, 0)
        client = cob.start(PYTHON, "-c", CLIENT, 7000, kernel=0, stdin=subprocess.PIPE)
        for _ in range(3):
            cob.kill_kernel(1)
            self.wait_for_links(cob)
        client.stdin.close()
        self.assertGreater(int(client.stdout.readline()), 0, client.stderr)
        self.assertEqual([k["epoch"] for k in cob.kernels()], [1, 4])
        self.echo(cob, 7001, 1)  # its port's home: the kernel that was killed
        self.assertEqual(self.connect(cob, 1, 7001), "connected")
        self.assertEqual(self.connect(cob, 1, 7000), "ENETUNREACH")  # it heard of the listener again

    def test_by_window(self):
        self.goes_on_beside_a_death("window")

    def test_by_socket(self):
        self.goes_on_beside_a_death("socket")

    def stopped_kernel_is_down_until_it_goes_on(self, link):
        """SIGSTOP: a lease runs out where a coherent link would wait."""
        cob = self.islands(link)
        pid = cob.kernels()[1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: self.links(cob)[(0, 1)] == (link, False), 20, "the lease's end")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.wait_for_links(cob)
        self.assertEqual([k["epoch"] for k in cob.kernels()], [1, 1])

    def test_stopped_by_window(self):
        self.stopped_kernel_is_down_until_it_goes_on("window")

    def test_stopped_by_socket(self):
        self.stopped_kernel_is_down_until_it_goes_on("socket")

    def test_killed_supervisor_leaves_nothing(self):
        for link in ("window", "socket"):
            with self.subTest(link=link):
                cob = self.islands(link, 1, 1, "--share", "/usr/share:ro")
                os.kill(cob.status()["pid"], signal.SIGKILL)
                wait_until(lambda: not harness.processes_of(cob.name), 5, "the kernels' end")
                self.assertEqual(cob.down().returncode, 1)
                self.assertFalse(cob.run_directory.exists())


class Shares(Islands):
    def test_are_shown_and_given_to_their_island_again_and_again(self):
        cob = self.cob(up=False)
        for name in ("one", "two"):
            (cob.directory / name).mkdir()
        link = cob.directory / "link"
        link.symlink_to(cob.directory / "two")
        cob.up("--island", f"a:1:{cores_of(1)}", "--island", f"b:1:{cores_of(1, 1)}", "--share", cob.directory / "one",
               "--share", f"{link}:ro@b")
        self.assertEqual(cob.status()["shares"],
                         [{"number": 0, "path": f"{cob.directory}/one", "read_only": False, "island": "a"},
                          {"number": 1, "path": f"{cob.directory}/two", "read_only": True, "island": "b"}])
        self.assertRegex(cob.named("status").stdout, rf" 1 +b +ro +{cob.directory}/two\n")
        def held():
            return [sorted({os.path.basename(os.readlink(fd)) for fd in pathlib.Path(f"/proc/{k['pid']}/fd").iterdir()
                           if os.path.dirname(os.readlink(fd)) == str(cob.directory)}) for k in cob.kernels()]
        self.assertEqual(held(), [["one"], ["two"]])
        cob.kill_kernel(1)
        self.assertEqual(held(), [["one"], ["two"]])
        shutil.rmtree(cob.directory / "two")  # the descriptor stays; nobody opens the path again
        cob.kill_kernel(1)
        self.assertEqual(held(), [["one"], ["two (deleted)"]])

    def test_are_the_first_islands_without_islands(self):
        cob = self.cob(up=False)
        cob.up("--kernels", "1", "--share", str(cob.directory))
        self.assertEqual([(s["path"], s["island"]) for s in cob.status()["shares"]], [(str(cob.directory), "a")])


class Refusals(Islands):
    def test_come_with_the_reason_and_leave_nothing(self):
        cob = self.cob(up=False)
        core = usable_cores()[0]
        for words, reason in (
                (("--island", "a"), "how many kernels?"),
                (("--island", "a:0"), "an island needs a kernel"),
                (("--island", "a:many"), "'many' is not a number of kernels"),
                (("--island", f"a:1:{core}", "--island", f"a:1:{core}"), "there is an island 'a' already"),
                (("--island", "a/b:1"), "the name 'a/b' cannot be used"),
                (("--island", "a:1:1000"), "core 1000 does not exist"),
                (("--island", "a:64"), "are left of cores"),
                (("--island", f"a:2:{core}"), "1 is named"),
                (("--island", "a:40:" + ",".join([str(core)] * 40), "--island", "b:40:" + ",".join([str(core)] * 40)),
                 "80 kernels together"),
                (("--island", "a:1", "--kernels", "1"), "--kernels beside --island"),
                (("--island", "a:1", "--cores", core), "--cores beside --island"),
                (("--link", "socket"), "what joins islands, and there is one"),
                (("--island", f"a:1:{core}", "--island", f"b:1:{core}", "--link", "wire"), "not in {window,socket}"),
                (("--island", f"a:1:{core}", "--island", f"b:1:{core}", "--uplink", "tap:none"), "do not cross between islands"),
                (("--share", "/nowhere/at/all"), "No such file or directory"),
                (("--share", "/etc/passwd"), "is not a directory"),
                (("--share", "/usr", "--share", "/usr/share"), "lie within each other"),
                (("--share", "/usr@b"), "there is no island 'b'; there is a")):
            with self.subTest(words=words):
                done = cob.named("up", *words)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(reason, done.stderr)
                self.assertFalse(cob.run_directory.exists())

    def test_a_cable_is_for_one_island(self):
        cob = self.islands()
        other = self.cob(up=False, environment={"XDG_RUNTIME_DIR": str(cob.runtime)})
        other.run_directory = cob.runtime / "cob" / other.name
        other.up("--ip", "10.77.0.2/24", "--kernels", 1)
        for one, beside in ((cob, other), (other, cob)):
            one.memories, one.neighbours = set().union(*map(harness.memories_of, one.pids)), [beside]
        done = cob.cli("cable", cob.name, other.name)
        self.assertEqual(done.returncode, 1)
        self.assertIn("has several islands", done.stderr)


if __name__ == "__main__":
    harness.main()
