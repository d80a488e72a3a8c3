#!/usr/bin/env python3
"""Two cobs joined by a cable: what the command refuses, traffic both ways, and what is left of one cob when the other's kernels or
supervisor die."""
import array
import fcntl
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import unittest

import harness
import servers
from harness import wait_until

A, B = "10.77.0.1", "10.77.0.2"


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def transfer_both_ways(test, a, b, size, address_of, listen_at):
    """A checksummed stream each way at once."""
    running = []
    for port, server, client in ((7001, b, a), (7002, a, b)):
        serving = server.start(sys.executable, "-c", servers.TRANSFER, "serve", "receive", listen_at, port, size, kernel=1)
        test.assertEqual(serving.stdout.readline(), "listening\n")
        going = client.start(sys.executable, "-c", servers.TRANSFER, "go", "send", address_of(server), port, size, kernel=0)
        running.append((serving, going))
    for serving, going in running:
        sent, failed = going.communicate(timeout=120)
        received, also = serving.communicate(timeout=120)
        test.assertEqual((len(sent), sent), (65, received), failed + also)
    test.assertEqual(total(a, "dropped_full") + total(b, "dropped_full"), 0)


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
        cob.memories = set().union(*map(harness.memories_of, cob.pids))
        self.cobs = [*getattr(self, "cobs", []), cob]
        for one in self.cobs:
            one.neighbours = [other for other in self.cobs if other is not one]
        return cob

    def two_cobs(self, kernels=2, others=None):
        a = self.one_cob(A, core=0, kernels=kernels)
        return a, self.one_cob(B, core=1, kernels=others or kernels, runtime=a)

    def joined(self, kernels=2, others=None):
        a, b = self.two_cobs(kernels, others)
        done = a.cli("cable", a.name, b.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        return a, b


def wires(cob):
    return [k["cable"]["wires"] if "cable" in k else None for k in cob.kernels()]


def total(cob, what):
    return sum(k["cable"][what] for k in cob.kernels() if "cable" in k)


A6, B6 = "fd77::1", "fd77::2"


class Ipv6Test(CableTest):
    def joined(self):
        a = self.one_cob(A, "--ip6", f"{A6}/64", core=0)
        b = self.one_cob(B, "--ip6", f"{B6}/64", core=1, runtime=a)
        a.ipv6, b.ipv6 = A6, B6
        done = a.cli("cable", a.name, b.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        return a, b

    @needs("nginx", "curl", "ab")
    def test_every_kernel_reaches_every_server_both_ways(self):
        a, b = self.joined()
        for server in (a, b):
            servers.nginx(server, port=8080, kernel=1, server="listen [::]:8080;")
            servers.nginx(server, port=8081, kernel=0, server="listen [::]:8081;")
        for client, server in ((a, b), (b, a)):
            for port in (8080, 8081):
                root = server.directory / f"nginx-{port}" / "www"
                (root / "large").write_bytes(os.urandom(3 << 20))
                for kernel in (0, 1):
                    url = f"http://[{server.ipv6}]:{port}"
                    for _ in range(4):  # source ports differ, and with them flow groups
                        self.assertEqual(curl(client, kernel, f"{url}/"), (root / "index.html").read_text())
                    done = client.run("sh", "-c", f"curl -sS -m 20 {url}/large | sha256sum", kernel=kernel)
                    self.assertEqual(done.stdout.split()[:1], [hashlib.sha256((root / "large").read_bytes()).hexdigest()],
                                     done.stderr)
                    done = client.run("ab", "-q", "-n", 500, "-c", 16, f"{url}/memory", kernel=kernel)
                    self.assertRegex(done.stdout, r"Complete requests:\s+500\nFailed requests:\s+0", done.stderr)
        self.assertEqual(total(a, "wires_cut") + total(b, "wires_cut"), 0)

    @needs("redis-server", "redis-benchmark")
    def test_redis_both_ways(self):
        a, b = self.joined()
        for client, server in ((a, b), (b, a)):
            servers.redis(server, 6379, 1, "--bind", "0.0.0.0", "::")
            for words in (["-c", 50], ["-c", 20, "-P", 16], ["-c", 5, "-d", 20_000]):
                done = client.run("redis-benchmark", "-h", server.ipv6, "-n", 5000, "-t", "set,get", "-q", *words, kernel=0)
                self.assertRegex(done.stdout, r"GET: [\d.]+ requests per second", done.stderr)

    def test_transfers_arrive_whole_both_ways_at_once(self):
        a, b = self.joined()
        transfer_both_ways(self, a, b, 64 << 20, lambda cob: cob.ipv6, "::")

    @needs("iperf3")
    def test_iperf3(self):
        a, b = self.joined()
        server = b.start("iperf3", "-s", "--forceflush", kernel=1)
        for line in server.stdout:
            if "listening" in line:
                break
        for words in ([], ["-R"], ["-P", 4], ["-u", "-b", "50M", "-l", 1400], ["-u", "-b", "50M", "-l", 1400, "-R"]):
            def done():  # between two tests the server listens anew
                result = a.run("iperf3", "-6", "-c", B6, "-t", 1, "-J", *words, kernel=0)
                report = json.loads(result.stdout)
                return None if "error" in report else report
            result = wait_until(done, 30, "iperf3")
            self.assertGreater((result["end"].get("sum_received") or result["end"]["sum"])["bytes"], 4 << 20)

    def test_datagrams_both_ways(self):
        a, b = self.joined()
        for client, server in ((a, b), (b, a)):
            echo = server.start(sys.executable, "-c", "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); "
                                "s.bind(('::',5353)); print('bound',flush=True)\n"
                                "while True: d,a=s.recvfrom(65536); s.sendto(d.upper(),a)", kernel=1)
            self.assertEqual(echo.stdout.readline(), "bound\n")
            for kernel in (0, 1):
                done = client.run(sys.executable, "-c", "import socket\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.settimeout(10)\n"
                                  f"for n in 1,1000,60000,65527: s.sendto(n*b'x',('{server.ipv6}',5353)); print(s.recv(65536)==n*b'X')\n"
                                  f"s.connect(('{server.ipv6}',9)); s.send(b'x')\n"
                                  "try: s.recv(10)\nexcept ConnectionRefusedError: print('refused')", kernel=kernel)
                self.assertEqual(done.stdout.splitlines(), ["True"] * 4 + ["refused"], done.stderr)


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
        self.assertRegex(text, r"CABLE OF KERNEL +WIRES +FRAMES IN +OUT.*\n +0 +2 ")
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

    @needs("nginx", "curl")
    def test_two_kernels_and_one(self):
        a, b = self.joined(kernels=2, others=1)
        self.assertEqual([wires(a), wires(b)], [[1, 1], [2]])
        servers.nginx(a, kernel=1)
        servers.nginx(b, kernel=0)
        for client, server, kernels in ((a, b, (0, 1)), (b, a, (0,))):
            for kernel in kernels:
                for _ in range(8):
                    self.assertEqual(curl(client, kernel, f"http://{server.address}:8080/memory"), "a body from memory\n")

    def test_256_mib_each_way_at_once(self):
        a, b = self.joined()
        transfer_both_ways(self, a, b, 256 << 20, lambda cob: cob.address, "-")
        self.assertEqual(total(a, "wires_cut") + total(b, "wires_cut"), 0)

    @needs("redis-server", "redis-benchmark")
    def test_redis_both_ways(self):
        a, b = self.joined()
        for client, server in ((a, b), (b, a)):
            servers.redis(server, kernel=1)
            for words in (["-c", 50], ["-c", 20, "-P", 16], ["-c", 5, "-d", 20_000]):
                done = client.run("redis-benchmark", "-h", server.address, "-n", 5000, "-t", "set,get", "-q", *words, kernel=0)
                self.assertRegex(done.stdout, r"GET: [\d.]+ requests per second", done.stderr)
        self.assertEqual(total(a, "dropped_route") + total(b, "dropped_route"), 0)

    def test_datagrams_both_ways(self):
        a, b = self.joined()
        for client, server in ((a, b), (b, a)):
            echo = server.start(sys.executable, "-c", "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); "
                                "s.bind(('0.0.0.0',5353)); print('bound',flush=True)\n"
                                "while True: d,a=s.recvfrom(2000); s.sendto(d.upper(),a)", kernel=1)
            self.assertEqual(echo.stdout.readline(), "bound\n")
            for kernel in (0, 1):
                done = client.run(sys.executable, "-c", "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(10)\n"
                                  f"for t in b'one',b'two': s.sendto(t,('{server.address}',5353)); print(s.recvfrom(100))\n"
                                  f"s.connect(('{server.address}',9)); s.send(b'x')\n"
                                  "try: s.recv(10)\nexcept ConnectionRefusedError: print('refused')", kernel=kernel)
                end = (server.address, 5353)
                self.assertEqual(done.stdout.splitlines(), [str((b"ONE", end)), str((b"TWO", end)), "refused"], done.stderr)

    @needs("iperf3")
    def test_iperf3_both_ways(self):
        a, b = self.joined()
        server = b.start("iperf3", "-s", "-4", "--forceflush", kernel=1)
        for line in server.stdout:
            if "listening" in line:
                break
        for words in ([], ["-R"], ["-P", 4], ["-w", "64K"]):
            done = a.run("iperf3", "-c", B, "-t", 1, "-J", *words, kernel=0)
            result = json.loads(done.stdout)
            self.assertNotIn("error", result, done.stdout)
            self.assertGreater(result["end"]["sum_received"]["bytes"], 1 << 24)

    @needs("nginx", "curl")
    def test_the_views_show_it(self):
        a, b = self.joined()
        servers.nginx(b, port=8080, kernel=1)
        capture = subprocess.Popen([a.command, "capture", "--name", a.name, "-o", str(a.directory / "x.pcapng"), "-f", "tcp port 8080"],
                                   env=a.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (capture.kill(), capture.wait(), capture.stderr.close()))
        self.assertIn("capturing", capture.stderr.readline())
        holding = a.start(sys.executable, "-c", "import socket,sys,time\n"
                          f"s=socket.create_connection(('{B}',8080)); print('connected',flush=True); time.sleep(60)", kernel=0)
        self.assertEqual(holding.stdout.readline(), "connected\n")
        for kernel in (0, 1):
            self.assertEqual(curl(a, kernel, f"http://{B}:8080/memory"), "a body from memory\n")
        [mine] = [line.split() for line in a.named("ss", "-n", "state", "established").stdout.splitlines() if f"{B}:8080" in line]
        [theirs] = [line.split() for line in b.named("ss", "-n", "state", "established").stdout.splitlines() if f"{A}:" in line]
        end = next(word for word in mine if word.startswith(f"{A}:"))
        self.assertIn(end, theirs)
        neighbours = json.loads(a.named("ip", "--json", "neigh").stdout)
        self.assertIn((B, 0), {(n["dst"], n["kernel"]) for n in neighbours if n.get("lladdr")})
        links = json.loads(a.named("ip", "--json", "-s", "link").stdout)
        counted = json.loads(a.named("stats", "--net", "--json").stdout)["sum"]
        self.assertGreaterEqual(links[0]["stats64"]["tx"]["packets"], counted["CobUplinkOutFrames"])
        self.assertGreater(counted["CobUplinkOutFrames"], 10)
        self.assertGreater(counted["CobUplinkInOctets"], 500)
        self.assertEqual(counted["CobUplinkOutDrops"], 0)
        capture.send_signal(signal.SIGINT)
        said = capture.communicate(timeout=60)[1]
        self.assertRegex(said, r"cob: [1-9]\d+ frames to \S+x\.pcapng, 0 lost")
        raw = (a.directory / "x.pcapng").read_bytes()
        self.assertIn(b"GET /memory", raw)
        self.assertIn(b"a body from memory", raw)

    @needs("nginx", "curl")
    def test_plugged_again_and_elsewhere(self):
        """Three times with one cob, then with another that took its address."""
        a, b = self.joined()
        servers.nginx(a, port=8080, kernel=0)
        servers.nginx(b, port=8080, kernel=1)
        for _ in range(3):
            self.assertEqual(curl(a, 1, f"http://{B}:8080/memory"), "a body from memory\n")
            self.assertEqual(curl(b, 0, f"http://{A}:8080/memory"), "a body from memory\n")
            self.assertEqual(a.cli("cable", "--remove", a.name, b.name).returncode, 0)
            wait_until(lambda: wires(a) + wires(b) == [0] * 4, what="the wires' end")
            self.assertEqual(b.cli("cable", b.name, a.name).returncode, 0)
        b.down()
        wait_until(lambda: wires(a) == [0, 0], what="the wires' end")
        c = self.one_cob(B, core=1, kernels=1, runtime=a)
        self.assertEqual(a.cli("cable", c.name, a.name).returncode, 0)
        servers.nginx(c, port=8080, kernel=0)
        self.assertEqual(curl(a, 1, f"http://{B}:8080/memory"), "a body from memory\n")
        self.assertEqual(curl(c, 0, f"http://{A}:8080/memory"), "a body from memory\n")

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

    @needs("nginx", "curl", "ab", "wrk")
    def test_a_dead_kernel_of_the_client_disturbs_nobody_else(self):
        a, b = self.joined()
        servers.nginx(b, port=8080, kernel=0, workers=2)
        loading = a.start("wrk", "-t", 1, "-c", 16, "-d", 30, f"http://{B}:8080/memory", kernel=1)
        wait_until(lambda: total(a, "frames_in") > 1000, what="the load")
        a.kill_kernel(1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="new wires")
        loading.kill()
        for kernel in (0, 1):
            done = a.run("ab", "-q", "-n", 1000, "-c", 8, f"http://{B}:8080/memory", kernel=kernel)
            self.assertRegex(done.stdout, r"Complete requests:\s+1000", done.stderr)
            self.assertRegex(done.stdout, r"Failed requests:\s+0")
        self.assertEqual(total(a, "wires_cut") + total(b, "wires_cut"), 0)

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


WIRE = struct.Struct("<IHHII")
MEMORY_HEADER = struct.Struct("<IIHHII")
ENTRY = struct.Struct("<IIII")
KERNEL_UP, BELL, MEMORY = 2, 4, 5
ARMED_AT, CONSUMED_AT, ENTRIES_AT, ENTRIES, POOL_AT, POOL = 4096, 4096 + 64, 8192, 4096, 8192 + 65536, 4 << 20  # net/snap_bean/cable_link.h
MAC = bytes([2, 0, 0, 0, 0, 9])


class FakeCob:
    """The other cob, played by hand: a hello with this cob's own tables, two kernels, and what they write into their wires."""

    def __init__(self, place, address):
        self.socket = stranger(place)
        self.address = address
        _, [tables] = self.receive()
        hello = HELLO.pack(1, 0x68636f63, 1, struct.unpack(">I", socket.inet_aton(address))[0], 24, 2, 0, b"fake".ljust(32, b"\0"))
        self.send(hello, tables)
        os.close(tables)
        for kernel in (0, 1):
            self.send(KERNEL.pack(KERNEL_UP, kernel, 1))
        self.bells, self.theirs, self.ours, self.next, self.rung = {}, {}, {}, {}, {}  # by (our kernel, theirs)
        while len(self.theirs) < 4:
            message, fds = self.receive()
            if len(message) != WIRE.size:
                continue  # their kernels' lives
            kind, sender, receiver, sender_epoch, _ = WIRE.unpack(message)
            wire = (receiver, sender)
            if kind == BELL:
                self.bells[wire] = socket.socket(fileno=fds[0])
            else:
                self.theirs[wire] = mmap.mmap(fds[0], POOL_AT + POOL, mmap.MAP_SHARED, mmap.PROT_READ)
                os.close(fds[0])
                self.give_memory(wire, sender_epoch)

    def receive(self):
        message, ancillary, _, _ = self.socket.recvmsg(1_000, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data[:len(data) // 4 * 4])
        return message, list(fds)

    def send(self, message, *fds):
        self.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def give_memory(self, wire, epoch):
        fd = os.memfd_create("fake", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(fd, POOL_AT + POOL)
        memory = mmap.mmap(fd, POOL_AT + POOL)
        fcntl.fcntl(fd, 1033, 0x2 | 0x4 | 0x10 | 0x1)  # F_ADD_SEALS: shrink, grow, future write, seal
        MEMORY_HEADER.pack_into(memory, 0, 0x62636f63, 1, *wire, 1, epoch)
        for i in range(ENTRIES):
            ENTRY.pack_into(memory, ENTRIES_AT + i * ENTRY.size, (i + 1 - ENTRIES) % 2**32, 0, 0, 0)
        self.ours[wire], self.next[wire] = memory, 0
        self.send(WIRE.pack(MEMORY, *wire, 1, epoch), fd)
        os.close(fd)

    def ring(self, wire):
        try:
            self.bells[wire].send(b"!", socket.MSG_DONTWAIT)
        except OSError:
            pass

    def ring_once_a_sleep(self, wire):
        """More would fill the bell, which the other cob reads seldom."""
        armed = struct.unpack_from("<I", self.theirs[wire], ARMED_AT)[0]
        if armed not in (0, self.rung.get(wire)):
            self.rung[wire] = armed
            self.ring(wire)

    def put(self, wire, frame):
        """Waits for room, then sends a frame as an honest kernel does."""
        i = self.next[wire]
        wait_until(lambda: i - struct.unpack_from("<I", self.theirs[wire], CONSUMED_AT)[0] < 1000, what="room in the wire")
        offset = i % 1000 * 4096
        self.ours[wire][POOL_AT + offset:POOL_AT + offset + len(frame)] = frame
        entry = ENTRIES_AT + i % ENTRIES * ENTRY.size
        struct.pack_into("<III", self.ours[wire], entry + 4, offset, len(frame), 0)
        with memoryview(self.ours[wire]) as raw, raw.cast("I") as words:
            words[entry // 4] = i + 1  # last, and in one store, which pack_into is not
        self.next[wire] = i + 1
        self.ring_once_a_sleep(wire)

    def sent_by(self, wire):
        """The other cob's frames on a wire; it has sent fewer than the ring holds."""
        for i in range(ENTRIES):
            sequence, offset, length, _ = ENTRY.unpack_from(self.theirs[wire], ENTRIES_AT + i * ENTRY.size)
            if sequence != i + 1:
                return
            yield bytes(self.theirs[wire][POOL_AT + offset:POOL_AT + offset + length])

    def arp(self, wire, target):
        """Who has `target`? How many have answered so far."""
        request = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, MAC, socket.inet_aton(self.address), bytes(6), socket.inet_aton(target))
        answers = sum(f[12:14] == b"\x08\x06" and f[20:22] == b"\0\x02" for f in self.sent_by(wire))
        self.put(wire, b"\xff" * 6 + MAC + b"\x08\x06" + request)
        return answers

    def asks(self, wire, target):
        before = self.arp(wire, target)
        wait_until(lambda: sum(f[12:14] == b"\x08\x06" and f[20:22] == b"\0\x02" for f in self.sent_by(wire)) > before,
                   what="the answer to ARP")

    def close(self):
        self.socket.close()
        for one in (*self.bells.values(), *self.theirs.values(), *self.ours.values()):
            one.close()


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
        done = cob.named("up", "--cable", self.directory / "cable", "--uplink", "tap:cob0")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--cable beside --uplink", done.stderr)
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

    @needs("nginx", "curl")
    def test_an_offender_in_shared_memory_loses_that_wire_and_nothing_else(self):
        a = self.one_cob(A, "--cable", self.place, core=0)
        servers.nginx(a, port=8080, kernel=1)
        before = [k["pid"] for k in a.kernels()]
        for seed, what in enumerate(("entries", "length", "offset", "sequence", "all")):
            r = random.Random(seed)
            fake = FakeCob(self.place, "10.77.0.9")
            self.addCleanup(fake.close)
            wait_until(lambda: wires(a) == [2, 2], what="the wires")
            cut = total(a, "wires_cut")
            for wire in fake.ours:
                fake.asks(wire, A)
            bad, memory = (1, 1), fake.ours[1, 1]
            i = fake.next[bad]
            where = ENTRIES_AT + i % ENTRIES * ENTRY.size
            if what == "entries":
                memory[ENTRIES_AT:POOL_AT] = r.randbytes(POOL_AT - ENTRIES_AT)
            elif what == "length":
                ENTRY.pack_into(memory, where, i + 1, 0, 1 << 20, 0)
            elif what == "offset":
                ENTRY.pack_into(memory, where, i + 1, POOL - 64, 65, 0)
            elif what == "sequence":
                ENTRY.pack_into(memory, where, i + 7, 0, 64, 0)
            else:
                memory[4096:] = r.randbytes(len(memory) - 4096)
            fake.ring(bad)
            wait_until(lambda: total(a, "wires_cut") == cut + 1, what="the wire's cut")
            self.assertEqual(sorted(wires(a)), [1, 2])
            for wire in fake.ours:
                if wire != bad:
                    fake.asks(wire, A)
            self.assertEqual(a.status()["cable"]["state"], "plugged")
            self.assertEqual(curl(a, 0, f"http://{A}:8080/memory"), "a body from memory\n")
            fake.close()
            wait_until(lambda: wires(a) == [0, 0], what="the wires' end")
        self.assertEqual([k["pid"] for k in a.kernels()], before)
        b = self.one_cob(B, "--cable", self.place, core=1)
        wait_until(lambda: wires(a) == wires(b) == [2, 2], what="the wires")
        self.assertEqual(curl(b, 0, f"http://{A}:8080/memory"), "a body from memory\n")

    @needs("nginx", "curl")
    def test_garbage_frames_harm_nobody(self):
        a = self.one_cob(A, "--cable", self.place, core=0)
        servers.nginx(a, port=8080, kernel=1)
        before = [k["pid"] for k in a.kernels()]
        fake = FakeCob(self.place, "10.77.0.9")
        self.addCleanup(fake.close)
        wait_until(lambda: wires(a) == [2, 2], what="the wires")
        r = random.Random(7)
        own, far = socket.inet_aton(A), socket.inet_aton("10.77.0.9")
        mac = bytes([2, 0xc0, 0xb0, 77, 0, 1])
        for turn in range(4000):
            tcp = struct.pack(">HHIIBBHHH", r.choice((1, 80, 8080)), r.choice((1, 80, 8080)), r.getrandbits(32), r.getrandbits(32),
                              r.choice((0x50, 0xf0, 0x00, 0x60)), r.getrandbits(8), r.getrandbits(16), 0, 0) + r.randbytes(r.randrange(60))
            ip = struct.pack(">BBHHHBBH4s4s", r.choice((0x45, 0x45, 0x4f, 0x40)), 0, r.choice((20 + len(tcp), 0, 65535)), 0,
                             r.choice((0, 0, 0x2000)), 64, r.choice((6, 6, 17, 1)), 0, r.choice((far, far, own)), own) + tcp
            frame = r.choice((mac, b"\xff" * 6)) + MAC + r.choice((b"\x08\0", b"\x08\0", b"\x08\x06", r.randbytes(2))) + ip
            if turn % 3 == 0:
                frame = bytes(b ^ (r.getrandbits(8) if r.random() < 0.05 else 0) for b in frame)
            fake.put(r.choice(list(fake.ours)), frame[:r.randrange(1, len(frame) + 1)] if turn % 5 == 0 else frame)
        for wire in fake.ours:
            def all_taken():
                fake.ring_once_a_sleep(wire)
                return struct.unpack_from("<I", fake.theirs[wire], CONSUMED_AT)[0] == fake.next[wire]
            wait_until(all_taken, what="the frames' end")
        self.assertEqual([k["pid"] for k in a.kernels()], before)
        self.assertEqual(total(a, "wires_cut"), 0)
        self.assertEqual(wires(a), [2, 2])
        self.assertEqual(curl(a, 0, f"http://{A}:8080/memory"), "a body from memory\n")


if __name__ == "__main__":
    harness.main()
