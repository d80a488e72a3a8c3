"""The cob's uplink by AF_XDP: what tap_test.py asks of a TAP, over a veth in a network namespace of the test's own; and what XDP adds: queues
fewer than kernels, native and generic, the interface that stays Linux's, and its end.

Needs root (the namespace, the veth, the XDP program); without it everything is skipped by name.
"""
import ctypes
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import unittest

import harness
import servers
import tap_test
from tap_test import ADDRESS, HOST, PREFIX, answers, linux, needs

# <linux/ethtool.h>, <linux/sockios.h>
SIOCETHTOOL, ETHTOOL_STSO, ETHTOOL_SGSO = 0x8946, 0x1f, 0x24


def no_sockets():
    """Why there are no AF_XDP sockets, or None."""
    try:
        socket.socket(44, socket.SOCK_RAW).close()
    except OSError as error:
        return f"AF_XDP: {error.strerror}"
    return None


def veth(name, peer, queues=2, address=HOST):
    """Two interfaces that are one wire; Linux has its end `peer` and no address on `name`."""
    several = ("numrxqueues", queues, "numtxqueues", queues)
    for words in (("link", "add", name, *several, "type", "veth", "peer", "name", peer, *several), ("addr", "add", f"{address}/24", "dev", peer),
                  ("link", "set", name, "up"), ("link", "set", peer, "up")):
        done = linux("ip", *words)
        if done.returncode != 0:
            raise AssertionError(f"ip {words}: {done.stderr}")


def without_segmentation(name):
    """In generic mode Linux's end of a veth would send frames that no wire carries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command in (ETHTOOL_STSO, ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            fcntl.ioctl(s, SIOCETHTOOL, struct.pack("16sP16x", name.encode(), ctypes.addressof(value)))


def program_of(name):
    """What `ip` says of the interface's XDP program; "" without one."""
    found = re.search(r"xdp(generic)?(/id:\d+)?\b.*", linux("ip", "-d", "link", "show", name).stdout.replace("xdp0", "").replace("xdp1", ""))
    return found[0] if found else ""


@unittest.skipIf(NO_SOCKETS := no_sockets(), NO_SOCKETS)
class XdpTest(tap_test.TapTest):
    """Two queues, native."""
    wire = "linux0"
    queues = 2
    mode = "native XDP, with copies"
    words = ("--uplink", "xdp:cob0", "--ip", PREFIX)
    steered = False

    def setUp(self):
        super().setUp()
        veth("cob0", self.wire, self.queues)
        self.addCleanup(linux, "ip", "link", "del", self.wire)

    # A TAP's own.
    test_without_a_way_out_the_cobs_network_is_linuxs = None
    test_without_offloads_frames_are_those_of_a_wire = None
    test_linux_receives_where_it_is_told = None
    test_without_a_steering_program_kernels_hand_frames_on = None
    test_what_cannot_be_is_refused_with_a_remedy = None
    test_a_device_of_the_users_is_used_and_left = None
    test_a_made_device_goes_with_the_cob = None

    def test_large_transfers_arrive_whole_both_ways(self):
        cob = self.uplinked()
        self.transfer(cob, "send", 64 << 20)
        self.transfer(cob, "receive", 64 << 20)
        total = {key: self.uplink(cob, key) for key in ("frames_in", "frames_out", "bytes_in", "bytes_out")}
        for way in ("in", "out"):
            self.assertLess(total[f"bytes_{way}"] / total[f"frames_{way}"], 1515, total)

    def test_status_says_how(self):
        cob = self.uplinked()
        self.assertIn(self.mode, cob.status()["steering"])
        self.assertIn(f"{self.queues} queue", cob.status()["steering"])
        self.assertIn(self.mode, cob.named("status").stdout)
        self.assertIn(f"uplink {self.words[1]}, steered by", cob.log())

    def test_what_is_not_the_cobs_is_linuxs(self):
        """Frames to others on the same interface are seen by Linux; the cob's are not."""
        self.uplinked()
        seen = {}
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as sniffer, \
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            sniffer.bind(("cob0", 0x0800))
            sniffer.settimeout(10)
            raw.bind((self.wire, 0))
            mac = bytes.fromhex(re.search(r"link/ether (\S+)", linux("ip", "link", "show", "cob0").stdout)[1].replace(":", ""))
            for destination in (ADDRESS, "10.7.0.50", ADDRESS, "10.7.0.51"):
                raw.send(mac + raw.getsockname()[4] + b"\x08\0" + tap_test.syn("10.7.0.99", 1234, destination, 7000))
            while "10.7.0.51" not in seen:
                frame = sniffer.recv(2048)
                seen[socket.inet_ntoa(frame[30:34])] = frame
        self.assertIn("10.7.0.50", seen)
        self.assertNotIn(ADDRESS, seen)

    def test_the_program_goes_with_the_cob(self):
        cob = self.uplinked()
        self.assertNotEqual(program_of("cob0"), "")
        cob.named("down", "--wait")
        harness.wait_until(lambda: program_of("cob0") == "", what="the program's end")
        self.assertEqual(linux("ip", "link", "show", "cob0").returncode, 0)
        # And the next cob finds everything free.
        cob = self.uplinked()
        self.echo(cob, "one", 7000, 1)
        self.assertEqual(answers(7000, 5), {"one": 5})

    def test_the_program_goes_with_a_supervisor_that_is_killed(self):
        cob = self.uplinked()
        pids = [kernel["pid"] for kernel in cob.kernels()]
        os.kill(cob.status()["pid"], signal.SIGKILL)
        harness.wait_until(lambda: program_of("cob0") == "", what="the program's end")
        harness.wait_until(lambda: not any(map(harness.is_alive, pids)), what="the kernels' end")
        again = self.uplinked()
        self.echo(again, "one", 7000, 1)
        self.assertEqual(answers(7000, 5), {"one": 5})

    def test_without_an_interface_the_cob_goes_on(self):
        """The cable is pulled: programs still reach each other."""
        cob = self.uplinked()
        self.echo(cob, "one", 7000, 1)
        self.assertEqual(answers(7000, 5), {"one": 5})
        linux("ip", "link", "set", "cob0", "down")
        servers.wait_for_port(cob, 7000)
        linux("ip", "link", "set", "cob0", "up")
        harness.wait_until(lambda: linux("sh", "-c", f"echo x | nc -w 1 {ADDRESS} 7000").stdout == "one:x\n", 20, "the cable's return")
        linux("ip", "link", "del", "cob0")
        servers.wait_for_port(cob, 7000)
        self.assertEqual({kernel["epoch"] for kernel in cob.kernels()}, {1})
        self.assertEqual(cob.down().returncode, 0)


class ProxyTest(XdpTest):
    """One queue and two kernels: the second is reached, and sends, by the first."""
    queues = 1

    def test_the_kernel_without_a_queue_is_named(self):
        cob = self.uplinked(kernels=3)
        self.assertIn("kernels from 1 on by those before", cob.status()["steering"])
        self.echo(cob, "two", 7000, 2)
        self.assertEqual(answers(7000, 20), {"two": 20})
        self.assertGreater(self.uplink(cob, "handed_on"), 20)


class ManyQueuesTest(XdpTest):
    """More queues than kernels: each has several."""
    queues = 4


class GenericTest(XdpTest):
    """In Linux's stack instead of the driver."""
    mode = "generic XDP, with copies"
    words = ("--uplink", "xdp:cob0,generic", "--ip", PREFIX)

    def setUp(self):
        super().setUp()
        without_segmentation(self.wire)


@unittest.skipIf(tap_test.NO_NAMESPACE or NO_SOCKETS, tap_test.NO_NAMESPACE or NO_SOCKETS)
class RefusalTest(harness.CobTest):
    def refused(self, status, text, *words, before=()):
        cob = self.cob(up=False)
        done = subprocess.run([*before, cob.command, "up", "--name", cob.name, "--kernels", "1", *words], env=cob.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, status, done.stderr)
        self.assertIn(text, done.stderr)

    def wire(self, queues=1):
        veth("cob0", "linux0", queues)
        self.addCleanup(linux, "ip", "link", "del", "linux0")

    def test_words(self):
        for uplink, text in (("xdp:", "1 to 15 bytes"), ("xdp:a/b", "1 to 15 bytes"), ("xdp:cob0,fast", "only zerocopy, copy and generic"),
                             ("xdp:cob0,zerocopy,generic", "generic XDP copies"), ("xdb:cob0", "xdp:NAME")):
            self.refused(2, text, "--uplink", uplink)

    def test_interfaces(self):
        self.wire()
        self.refused(1, "there is no network interface nowhere0", "--uplink", "xdp:nowhere0")
        self.refused(1, "lo is no Ethernet interface", "--uplink", "xdp:lo")
        self.refused(1, "one of this machine's own", "--uplink", "xdp:cob0", "--ip", f"{HOST}/24")
        self.refused(1, "cannot do without copies", "--uplink", "xdp:cob0,zerocopy", "--ip", PREFIX)
        linux("ip", "link", "set", "cob0", "down")
        self.refused(1, "ip link set cob0 up", "--uplink", "xdp:cob0", "--ip", PREFIX)
        linux("ip", "link", "set", "cob0", "mtu", 9000, "up")
        self.refused(1, "an MTU of 9000", "--uplink", "xdp:cob0", "--ip", PREFIX)

    def test_many_queues(self):
        self.wire(queues=16)
        self.refused(1, "ethtool -L cob0 combined 1", "--uplink", "xdp:cob0", "--ip", PREFIX)

    def test_a_second_cob_on_one_interface(self):
        self.wire()
        first = self.cob(up=False)
        first.up("--kernels", 1, "--uplink", "xdp:cob0", "--ip", PREFIX)
        self.refused(1, "it has an XDP program already", "--uplink", "xdp:cob0", "--ip", "10.7.0.3/24")

    def test_privilege(self):
        if shutil.which("setpriv") is None:
            self.skipTest("not installed: setpriv")
        self.wire()
        everyones = pathlib.Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text() == "0\n"
        for capabilities in ("net_raw", "net_admin,-sys_admin", "bpf,-sys_admin"):
            if everyones and capabilities.startswith("bpf"):
                continue  # CAP_NET_ADMIN is enough here
            bare = ["setpriv", "--bounding-set", f"-{capabilities}", "--inh-caps", f"-{capabilities}"]
            self.refused(1, "needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF", "--uplink", "xdp:cob0", "--ip", PREFIX, before=bare)


if __name__ == "__main__":
    harness.main()
