#!/usr/bin/env python3
"""Two cobs joined by a cable: what the command refuses, traffic both ways, and what is left of one cob when the other's kernels or
supervisor die."""
import array
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import unittest

import harness
import servers
from harness import wait_until

A, B = "10.77.0.1", "10.77.0.2"


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class CableTest(harness.CobTest):
    def one_cob(self, address, *words, core=None, kernels=2, runtime=None):
        """A cob of `kernels`, on one core when it is given. `runtime`: of another cob, whose user sees both."""
        shared = {} if runtime is None else {"XDG_RUNTIME_DIR": str(runtime.runtime)}
        cob = self.cob(up=False, environment=shared)
        if runtime is not None:
            cob.run_directory = runtime.runtime / "cob" / cob.name
        cob.address = address
        cores = harness.usable_cores()
        core = cores[core % len(cores)] if core is not None else None
        chosen = ["--cores", ",".join([str(core)] * kernels)] if core is not None else ["--kernels", kernels]
        cob.up("--ip", f"{address}/24", *chosen, *words)
        cob.supervisor = cob.status()["pid"]
        self.cobs = [*getattr(self, "cobs", []), cob]
        for one in self.cobs:
            one.neighbours = [other for other in self.cobs if other is not one]
        return cob

    def two_cobs(self, kernels=2):
        a = self.one_cob(A, core=0, kernels=kernels)
        return a, self.one_cob(B, core=1, kernels=kernels, runtime=a)

    def joined(self, kernels=2):
        a, b = self.two_cobs(kernels)
        done = a.cli("cable", a.name, b.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        return a, b


def wires(cob):
    return [k["cable"]["wires"] if "cable" in k else None for k in cob.kernels()]


def total(cob, what):
    return sum(k["cable"][what] for k in cob.kernels() if "cable" in k)


class CommandTest(CableTest):
    def refused(self, cob, *words, status=1):
        done = cob.cli("cable", *words)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stderr

    def test_a_cable_joins_all_kernels_and_is_removed(self):
        a, b = self.two_cobs()
        self.assertEqual(wires(a), [0, 0])
        self.assertIsNone(a.status()["cable"])
        done = a.cli("cable", a.name, b.name)
        self.assertEqual(done.stdout, f"a cable joins cob '{a.name}' at {A}/24 and cob '{b.name}' at {B}/24\n", done.stderr)
        self.assertEqual([wires(a), wires(b)], [[2, 2], [2, 2]])
        cable = a.status()["cable"]
        self.assertEqual((cable["state"], cable["name"], cable["address"], cable["kernels"], cable["alive"]),
                         ("plugged", b.name, f"{B}/24", 2, 2))
        text = a.named("status").stdout
        self.assertIn(f"cable to cob '{b.name}' of user {os.getuid()} at {B}/24, 2 of 2 kernels alive\n", text)
        self.assertIn("FRAMES OUT", text)
        self.assertIn("have a cable already", self.refused(a, b.name, a.name))
        done = a.cli("cable", "--remove", b.name, a.name, "--json")
        self.assertEqual(json.loads(done.stdout), {"cobs": [b.name, a.name], "plugged": False})
        wait_until(lambda: wires(a) + wires(b) == [0] * 4, what="the wires' end")
        self.assertEqual(a.status()["cable"]["state"], "unplugged")
        self.assertIn("\ncable: unplugged: ", a.named("status").stdout)
        self.assertIn("have no cable", self.refused(a, "--remove", a.name, b.name))
        self.assertEqual(a.cli("cable", a.name, b.name).returncode, 0)
        self.assertEqual(wires(a), [2, 2])

    def test_what_it_refuses(self):
        a, b = self.joined(kernels=1)
        c = self.one_cob(A, core=0, kernels=1, runtime=a)
        far = self.one_cob("10.78.0.2", core=0, kernels=1, runtime=a)
        self.assertIn("is not up", self.refused(a, a.name, "no-such-cob"))
        self.assertIn("needs two cobs", self.refused(c, c.name, c.name, status=2))
        error = self.refused(a, a.name, c.name)
        self.assertIn(f"cob '{a.name}' has a cable to '{b.name}' already", error)
        self.assertIn("not of one network", self.refused(a, c.name, far.name))
        self.assertEqual(a.cli("cable", "--remove", a.name, b.name).returncode, 0)
        self.assertIn(f"have the same address, {A}/24", self.refused(a, a.name, c.name))
        self.assertEqual(self.refused(a, a.name, "bad/name", status=2).count("\n"), 1)
        # Nothing of it left a mark.
        self.assertIsNone(c.status()["cable"])
        self.assertIsNone(far.status()["cable"])

    def test_a_kernel_that_died_is_wired_anew(self):
        a, b = self.joined()
        b.kill_kernel(1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="new wires")
        a.kill_kernel(0)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="new wires")
        self.assertEqual(a.status()["cable"]["cut"] + b.status()["cable"]["cut"], 0)

    def test_a_cob_outlives_the_other(self):
        a, b = self.joined()
        a_before = [k["pid"] for k in a.kernels()]
        os.kill(b.status()["pid"], signal.SIGKILL)
        wait_until(lambda: a.status()["cable"]["state"] == "unplugged", what="the cable's end")
        wait_until(lambda: wires(a) == [0, 0], what="the wires' end")
        self.assertEqual([k["pid"] for k in a.kernels()], a_before)
        self.assertEqual(a.run("echo", "hi").stdout, "hi\n")
        again = self.one_cob("10.77.0.3", core=1, runtime=a)
        self.assertEqual(a.cli("cable", a.name, again.name).returncode, 0)
        self.assertEqual(wires(a), [2, 2])

    def test_down_of_one_unplugs_the_other(self):
        a, b = self.joined()
        self.assertEqual(b.down().returncode, 0)
        wait_until(lambda: a.status()["cable"]["state"] == "unplugged", what="the cable's end")
        self.assertIn("ended", a.status()["cable"]["why"])


def curl(cob, kernel, url):
    done = cob.run("curl", "-sS", "-m", 20, url, kernel=kernel)
    if done.returncode != 0:
        raise AssertionError(f"curl: {done.stderr}{cob.log()}")
    return done.stdout


def programs_reach_an_uplink():
    return "--uplink" in subprocess.run([harness.COB, "up", "--help"], capture_output=True, text=True, check=True).stdout


@unittest.skipUnless(programs_reach_an_uplink(), "this build's programs reach their own cob only")
class TrafficTest(CableTest):
    @needs("nginx", "curl")
    def test_every_kernel_reaches_every_server_both_ways(self):
        a, b = self.joined()
        for server in (a, b):
            servers.nginx(server, port=8080, kernel=1)
            servers.nginx(server, port=8081, kernel=0)
        for client, server in ((a, b), (b, a)):
            for port in (8080, 8081):
                root = server.directory / f"nginx-{port}" / "www"
                (root / "large").write_bytes(os.urandom(3 << 20))
                for kernel in (0, 1):
                    url = f"http://{server.address}:{port}"
                    for _ in range(4):  # source ports differ, and with them flow groups
                        self.assertEqual(curl(client, kernel, f"{url}/"), (root / "index.html").read_text())
                    done = client.run("sh", "-c", f"curl -sS -m 20 {url}/large | sha256sum", kernel=kernel)
                    self.assertEqual(done.stdout.split()[:1], [hashlib.sha256((root / "large").read_bytes()).hexdigest()],
                                     done.stderr)
            # It went over the cable, in large frames.
            self.assertGreater(total(server, "bytes_out"), 12 << 20)
            self.assertGreater(total(server, "bytes_out") / total(server, "frames_out"), 8_000)
        self.assertEqual(total(a, "wires_cut") + total(b, "wires_cut"), 0)

    @needs("nginx", "ab")
    def test_many_connections_lose_nothing(self):
        a, b = self.joined()
        servers.nginx(b, workers=2)
        for kernel, words in ((0, ["-c", 64]), (1, ["-c", 64]), (0, ["-c", 64, "-k"]), (1, ["-c", 1])):
            done = a.run("ab", "-q", "-n", 3000, *words, f"http://{B}:8080/memory", kernel=kernel)
            self.assertEqual(done.returncode, 0, done.stderr + b.log())
            self.assertRegex(done.stdout, r"Complete requests:\s+3000")
            self.assertRegex(done.stdout, r"Failed requests:\s+0")
            self.assertNotIn("Non-2xx", done.stdout)

    @needs("nginx", "wrk")
    def test_wrk_with_threads(self):
        a, b = self.joined()
        servers.nginx(b)
        done = a.run("wrk", "-t", 2, "-c", 32, "-d", 2, f"http://{B}:8080/memory", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Socket errors", done.stdout)
        self.assertNotIn("Non-2xx", done.stdout)

    @needs("curl")
    def test_nobody_listens_and_nobody_is_there(self):
        a, _ = self.joined()
        refused = a.run("curl", "-sS", "-m", 20, f"http://{B}:9/", kernel=1)
        self.assertEqual(refused.returncode, 7, refused.stderr)
        self.assertRegex(refused.stderr, "(?i)refused|failed to connect")

    @needs("nginx", "curl", "ab")
    def test_a_dead_kernel_of_the_other_cob_comes_back(self):
        a, b = self.joined()
        servers.nginx(b, port=8080, kernel=0)
        servers.nginx(b, port=8081, kernel=1)
        b.kill_kernel(1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="new wires")
        done = a.run("ab", "-q", "-n", 1000, "-c", 8, f"http://{B}:8080/memory", kernel=0)
        self.assertRegex(done.stdout, r"Failed requests:\s+0", done.stderr)
        wait_until(lambda: a.run("curl", "-sS", "-m", 5, f"http://{B}:8081/memory", kernel=1).stdout == "a body from memory\n",
                   30, "the revived listener")

    @needs("nginx", "curl")
    def test_the_other_cobs_death_leaves_this_one_at_work(self):
        a, b = self.joined()
        servers.nginx(a, port=8080, kernel=1)
        self.assertEqual(curl(b, 0, f"http://{A}:8080/memory"), "a body from memory\n")
        pids = [k["pid"] for k in a.kernels()]
        os.kill(b.status()["pid"], signal.SIGKILL)
        wait_until(lambda: wires(a) == [0, 0], what="the wires' end")
        self.assertEqual(curl(a, 0, f"http://{A}:8080/memory"), "a body from memory\n")
        self.assertEqual([k["pid"] for k in a.kernels()], pids)


HELLO = struct.Struct("<IIIIIHH32s")
KERNEL = struct.Struct("<III")


def stranger(place):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(str(place))
    return s


class PlaceTest(CableTest):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cob-meet-"))
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", str(self.directory)], check=True))
        self.place = self.directory / "cable"

    def test_two_cobs_meet_at_a_path(self):
        a = self.one_cob(A, "--cable", self.place, core=0)
        self.assertTrue(stat.S_ISSOCK(self.place.stat().st_mode))
        self.assertEqual(stat.S_IMODE(self.place.stat().st_mode), 0o666)
        b = self.one_cob(B, "--cable", self.place, core=1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="the wires")
        self.assertEqual(b.status()["cable"]["name"], a.name)
        # The one who came is gone, and another comes.
        b.down()
        wait_until(lambda: wires(a) == [0, 0], what="the wires' end")
        c = self.one_cob("10.77.0.3", "--cable", self.place, core=1)
        wait_until(lambda: wires(a) == wires(c) == [2, 2], what="the wires")
        # The maker is killed, and comes again to its stale path: the other has called all the while.
        os.kill(a.status()["pid"], signal.SIGKILL)
        wait_until(lambda: wires(c) == [0, 0], what="the wires' end")
        again = self.one_cob("10.77.0.4", "--cable", self.place, core=0)
        wait_until(lambda: wires(again) == wires(c) == [2, 2], what="the wires")
        again.down()
        self.assertFalse(self.place.exists())

    def test_addresses_that_do_not_fit_are_shown(self):
        a = self.one_cob(A, "--cable", self.place, core=0, kernels=1)
        b = self.one_cob(A, "--cable", self.place, core=1, kernels=1)
        wait_until(lambda: "both cobs have the address" in str(b.status()["cable"]), what="the refusal")
        wait_until(lambda: "both cobs have the address" in str(a.status()["cable"]), what="the refusal")

    def test_a_path_that_is_something_else(self):
        self.place.write_text("precious")
        cob = self.cob(up=False)
        done = cob.named("up", "--cable", self.place)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the place is no socket", done.stderr)
        self.assertEqual(self.place.read_text(), "precious")
        done = cob.named("up", "--cable", self.directory / "no" / "such" / "place")
        self.assertEqual(done.returncode, 1)
        done = cob.named("up", "--cable", "/tmp/" + "x" * 200)
        self.assertIn("107 bytes", done.stderr)

    def test_a_hostile_stranger_is_unplugged_and_does_no_harm(self):
        a = self.one_cob(A, "--cable", self.place, core=0)
        before = [k["pid"] for k in a.kernels()]
        name = b"stranger".ljust(32, b"\0")
        hello = HELLO.pack(1, 0x68636f63, 1, 0x0a4d0002, 24, 2, 0, name)
        for words in ([b"x"], [b""], [bytes(128)], [bytes(60)], [hello], [b"y" * 10_000]):
            with stranger(self.place) as s:
                for word in words:
                    s.send(word)
                while s.recv(1_000):  # until it hangs up
                    pass
        # With its real tables, and then kernels by the thousand.
        with stranger(self.place) as s:
            _, ancillary, _, _ = s.recvmsg(1_000, socket.CMSG_SPACE(4))
            tables = array.array("i", ancillary[0][2][:4])
            s.sendmsg([hello], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, tables)])
            wait_until(lambda: (a.status()["cable"] or {}).get("name") == "stranger", what="the greeting")
            try:
                for epoch in range(1, 5_000):
                    s.send(KERNEL.pack(2, 1, epoch))
            except OSError:
                pass
            wait_until(lambda: a.status()["cable"]["state"] == "unplugged", what="the stranger's end")
            self.assertIn("dies too often", a.status()["cable"]["why"])
            os.close(tables[0])
        self.assertEqual([k["pid"] for k in a.kernels()], before)
        b = self.one_cob(B, "--cable", self.place, core=1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="the wires")


if __name__ == "__main__":
    harness.main()
