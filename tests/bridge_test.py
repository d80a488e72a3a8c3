"""A cob's TAP in a bridge of Linux's that snoops on multicast (RFC 4541): neighbour discovery comes through because the cob tells its groups
(MLD, RFC 3810 and RFC 2710); and a router of the bridge's network that redirects (RFC 4861 section 8).

Needs root; without it everything is skipped by name.
"""
import json
import pathlib
import sys
import time
import unittest

import harness
import tap_test
from tap_test import linux, needs

ROUTER, ADDRESS, OTHER, FAR = "fd07::1", "fd07::2", "fd07::3", "fd08::5"
GROUP = "ff02::1:ff00:2"  # ADDRESS's solicited-node group

SERVE = """
import socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", int(sys.argv[1]))); s.listen(8)
print("listening", flush=True)
while True:
    c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
"""
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10).recv(100).decode())"


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class BridgeTest(harness.CobTest):
    linux_process = tap_test.TapTest.linux_process

    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    def ip(self, *words):
        done = linux("ip", *words)
        self.assertEqual(done.returncode, 0, (words, done.stderr))

    def bridged(self, *options, words=(), kernels=2):
        """Linux, the cob and another machine on one bridge."""
        self.ip("link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge", "mcast_snooping", 1, *options)
        self.addCleanup(linux, "ip", "link", "del", "br0")
        self.ip("-6", "addr", "add", f"{ROUTER}/64", "dev", "br0", "nodad")
        self.ip("link", "set", "br0", "up")
        self.ip("tuntap", "add", "dev", "cob0", "mode", "tap", "multi_queue", "vnet_hdr")
        self.addCleanup(linux, "ip", "link", "del", "cob0")
        self.ip("link", "set", "cob0", "master", "br0", "up")
        other = self.linux_process("unshare", "-n", "sh", "-c", "echo ready; exec sleep 300")
        self.assertEqual(other.stdout.readline(), "ready\n")
        self.there = ("nsenter", "-t", other.pid, "-n")
        self.ip("link", "add", "port1", "type", "veth", "peer", "name", "eth0", "address", "02:00:00:00:00:03", "netns", other.pid)
        self.ip("link", "set", "port1", "master", "br0", "up")
        for address in (f"{OTHER}/64", f"{FAR}/128"):
            done = linux(*self.there, "ip", "-6", "addr", "add", address, "dev", "eth0", "nodad")
            self.assertEqual(done.returncode, 0, done.stderr)
        linux(*self.there, "ip", "link", "set", "eth0", "up")
        harness.wait_until(lambda: "tentative" not in linux("ip", "-6", "addr", "show", "dev", "br0").stdout and
                           "tentative" not in linux(*self.there, "ip", "-6", "addr", "show", "dev", "eth0").stdout, 10, "settled addresses")
        cob = self.cob(up=False)
        cores = harness.usable_cores()
        cob.up("--kernels", kernels, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(kernels)), "--uplink", "tap:cob0",
               "--ip", tap_test.PREFIX, "--ip6", f"{ADDRESS}/64", *words)
        return cob

    def groups(self, port="cob0"):
        entries = json.loads(linux("bridge", "-j", "mdb", "show", "dev", "br0").stdout or "[]")
        return {entry["grp"] for table in entries for entry in table.get("mdb", []) if entry.get("port") == port}

    def snooped(self, version):
        # Times are in 10 ms: a query every 2 s, answered within 1 s; who does not answer is forgotten after 4 s.
        cob = self.bridged("mcast_querier", 1, "mcast_mld_version", version, "mcast_query_interval", 200, "mcast_query_response_interval", 100,
                           "mcast_membership_interval", 400, "mcast_startup_query_interval", 100)
        harness.wait_until(lambda: GROUP in self.groups(), 10, "the group's port")
        self.started(cob.start(sys.executable, "-c", SERVE, 7000, kernel=1))
        done = linux(*self.there, sys.executable, "-c", ASK, ADDRESS, 7000)
        self.assertEqual(done.stdout.strip(), OTHER, done.stderr)
        # Longer than a silent listener is remembered, the group stays.
        end = time.monotonic() + 10
        while time.monotonic() < end:
            self.assertIn(GROUP, self.groups())
            time.sleep(0.2)
        # And whoever has forgotten the cob finds it again.
        linux(*self.there, "ip", "-6", "neigh", "flush", "dev", "eth0")
        done = linux(*self.there, sys.executable, "-c", ASK, ADDRESS, 7000)
        self.assertEqual(done.stdout.strip(), OTHER, done.stderr)

    @needs("bridge", "unshare", "nsenter")
    def test_a_bridge_that_snoops_lets_neighbour_discovery_through(self):
        self.snooped(2)

    @needs("bridge", "unshare", "nsenter")
    def test_one_of_the_older_version_too(self):
        self.snooped(1)

    @needs("unshare", "nsenter")
    def test_a_redirect_is_followed(self):
        router = "fe80::ff:fe00:1"
        cob = self.bridged(words=("--gateway6", router))
        self.ip("-6", "route", "add", f"{FAR}/128", "via", "fe80::ff:fe00:3", "dev", "br0")
        forward = pathlib.Path("/proc/sys/net/ipv6/conf/all/forwarding")
        self.addCleanup(forward.write_text, forward.read_text())
        forward.write_text("1")
        self.started(self.linux_process(*self.there, sys.executable, "-c", SERVE, 7001))
        def direct():
            done = cob.run(sys.executable, "-c", ASK, FAR, 7001, kernel=0)
            self.assertEqual(done.stdout.strip(), ADDRESS, done.stderr)
            return "fe80::ff:fe00:3" in cob.named("ip", "neigh").stdout
        harness.wait_until(direct, 20, "the redirect")
        # All kernels learned of it: the router may go.
        forward.write_text("0")
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", ASK, FAR, 7001, kernel=kernel)
            self.assertEqual(done.stdout.strip(), ADDRESS, done.stderr)


if __name__ == "__main__":
    harness.main()
