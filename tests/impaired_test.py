#!/usr/bin/env python3
"""Ordinary programs over a path that loses, doubles, reorders and delays, between a cob and plain Linux: who serves and who asks changes, and what
arrives is compared. By TAP and by AF_XDP over a veth. How fast it is: impaired.py.

Needs root (namespaces, devices); without it everything is skipped by name.
"""
import hashlib
import json
import os
import pathlib
import shutil
import unittest

import harness
import impaired
import servers
import tap_test
import xdp_test
from impaired import FAR, FAR6, NEAR, NEAR6
from tap_test import linux, needs

# Of a million frames each way; a round trip of 4 ms.
FAULTS = ("--seed", 7, "--loss", 10_000, "--duplicate", 10_000, "--reorder", 20_000, "--corrupt", 1_000, "--delay-us", 2_000)
SIZE = 1 << 20


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class ImpairedTest(harness.CobTest):
    near = "tap"

    def setUp(self):
        impaired.Path.prepare(self.near)
        if self.near == "xdp":
            self.addCleanup(linux, "ip", "link", "del", "wire0")
        self.on = self.cob(up=False)
        cores = harness.usable_cores()
        self.on.up("--kernels", 2, "--cores", f"{cores[0]},{cores[-1]}", *impaired.Path.UPLINKS[self.near], *impaired.Path.ADDRESSES)
        self.path = impaired.Path(self.near, FAULTS)
        self.addCleanup(self.path.close)
        self.given = pathlib.Path(self.on.directory) / "given"
        self.given.write_bytes(os.urandom(SIZE))
        self.on.directory.chmod(0o755)

    def ways(self):
        """(name, start a server, run a client, the server's addresses): the cob serves Linux, and the reverse."""
        yield ("the cob serves", lambda *w, **o: self.on.start(*w, kernel=1, **o),
               lambda *w, **o: linux(*self.path.there, *w, **o), (NEAR, NEAR6))
        yield "Linux serves", self.path.start, lambda *w, **o: self.on.run(*w, kernel=0, **o), (FAR, FAR6)

    def assert_arrived(self, path):
        self.assertEqual(*(hashlib.sha256(pathlib.Path(p).read_bytes()).hexdigest() for p in (path, self.given)))

    def assert_impaired(self):
        """The wire did what it is for."""
        for way in self.path.counters().values():
            for fault in ("lost", "duplicated", "reordered"):
                self.assertGreater(way[fault], 5, way)

    def test_every_byte_of_a_stream_arrives(self):
        for name, start, run, addresses in self.ways():
            self.assertEqual(start(impaired.STREAM, "serve", 7100).stdout.readline(), "listening\n")
            for address in addresses:
                for what in ("send", "receive"):
                    with self.subTest(name, address=address, what=what):
                        done = run(impaired.STREAM, what, address, 7100, 60, SIZE, timeout=90)
                        self.assertEqual(done.stdout.split()[:1], [str(SIZE)], done.stderr)
        self.assert_impaired()

    @needs("nginx", "curl")
    def test_curl(self):
        nginx = servers.nginx(self.on, kernel=1, server="listen [::]:8080;")
        conf, www = nginx.root / "nginx.conf", nginx.root / "www"
        (www / "given").write_bytes(self.given.read_bytes())
        plain = nginx.root / "plain.conf"
        plain.write_text(conf.read_text().replace("nginx.pid", "plain.pid").replace("error.log", "plain.log").replace("master_process on",
                                                                                                              "master_process off"))
        self.path.start("nginx", "-p", nginx.root, "-c", plain)
        harness.wait_until(lambda: linux(*self.path.there, "curl", "-sS", f"http://{FAR}:8080/memory").returncode == 0, 20, "nginx")
        for name, _, run, (address, address6) in self.ways():
            for host in (address, f"[{address6}]"):
                with self.subTest(name, host=host):
                    taken = nginx.root / "taken"
                    done = run("curl", "-sS", "-m", 60, "-o", taken, "-o", f"{taken}2", f"http://{host}:8080/given", f"http://{host}:8080/given",
                               timeout=90)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assert_arrived(taken)
                    self.assert_arrived(f"{taken}2")

    @needs("nc")
    def test_netcat(self):
        for name, start, run, addresses in self.ways():
            for address in addresses:
                with self.subTest(name, address=address):
                    taken = self.on.directory / "taken"
                    with open(taken, "w") as out:
                        server = start("nc", "-6" if ":" in address else "-4", "-l", "-p", 7310, stdout=out)
                    asked = ("sh", "-c", f"nc -N -w 20 {address} 7310 < {self.given}")
                    harness.wait_until(lambda: run(*asked).returncode == 0, 20, "nc's listener")
                    server.wait(20)
                    self.assert_arrived(taken)

    @needs("ssh", "sshd", "ssh-keygen")
    def test_ssh(self):
        folder = pathlib.Path(self.on.directory)
        for key in ("host", "user"):
            impaired.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
        (folder / "user.pub").rename(folder / "authorized")
        config = folder / "sshd_config"
        config.write_text(f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n"
                          "PermitRootLogin yes\nPasswordAuthentication no\n")
        made = not os.path.isdir("/run/sshd")
        os.makedirs("/run/sshd", exist_ok=True)  # sshd's own, of its service
        if made:
            self.addCleanup(os.rmdir, "/run/sshd")
        # On the cob: sandbox_test.py.
        with open(folder / "sshd.log", "w") as log:
            self.path.start(shutil.which("sshd"), "-D", "-e", "-f", config, stderr=log)
        for address in (FAR, FAR6):
            with self.subTest(address=address):
                ssh = (f"ssh -F none -i {folder}/user -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
                       f"-o LogLevel=ERROR root@{address}")
                harness.wait_until(lambda: self.on.run("sh", "-c", f"{ssh} echo here").stdout == "here\n", 20, "a login by ssh")
                taken = folder / "taken"
                done = self.on.run("sh", "-c", f"{ssh} cat < {self.given} > {taken}")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assert_arrived(taken)

    @needs("iperf3")
    def test_iperf3(self):
        for name, start, run, addresses in self.ways():
            with open(self.on.directory / "iperf", "w") as out:
                start("iperf3", "-s", stdout=out)
            for address in addresses:
                for words in (["-n", "2M"], ["-R", "-n", "2M"], ["-P", 4, "-n", "2M"], ["-u", "-b", "8M", "-l", 1200, "-t", 1],
                              ["-u", "-R", "-b", "8M", "-l", 1200, "-t", 1]):
                    with self.subTest(name, address=address, words=words):
                        def done():
                            result = run("iperf3", "-J", "-c", address, *words, timeout=60)
                            return result.returncode == 0 and json.loads(result.stdout)["end"]
                        # It waits half a minute for the answer to a datagram that opens a stream, which the wire may lose.
                        end = harness.wait_until(done, 120, "iperf3")
                        if "-u" in words:
                            self.assertGreater(end["sum"]["packets"], 400)
                            # Datagrams that come twice are losses below zero to it, and then some 1e8 %.
                            lost = end["sum"]["lost_percent"]
                            self.assertTrue(lost < 50 or lost > 1000, lost)
                        else:
                            # It ends when all is sent: what arrived by then is what the buffers do not hold.
                            self.assertGreater(end["sum_received"]["bytes"], 0)


@unittest.skipIf(xdp_test.NO_SOCKETS, xdp_test.NO_SOCKETS)
class ImpairedXdpTest(ImpairedTest):
    near = "xdp"


if __name__ == "__main__":
    harness.main()
