"""IPv6 over AF_XDP: what ipv6_test.py asks of a TAP, over a veth in a network namespace of the test's own, with as many queues as kernels, with
one for both, and generic; and what of it is Linux's there.

Needs root (the namespace, the veth, the XDP program); without it everything is skipped by name.
"""
import re
import socket
import struct
import threading
import unittest

import harness
import ipv6_test
import xdp_test
from ipv6_test import ADDRESS, icmpv6
from tap_test import linux


@unittest.skipIf(xdp_test.NO_SOCKETS, xdp_test.NO_SOCKETS)
class Ipv6XdpTest(ipv6_test.Ipv6Test):
    """What ipv6_test.py asks of a TAP."""
    wire = "linux0"
    queues = 2
    words = (*xdp_test.XdpTest.words, "--ip6", f"{ADDRESS}/64")
    steered = False

    def setUp(self):
        super().setUp()
        xdp_test.veth("cob0", self.wire, self.queues)
        self.addCleanup(linux, "ip", "link", "del", self.wire)

    # A TAP's own: the link-local address is Linux's here, and so is what routers say.
    test_the_link_local_address_is_reached_and_shown_with_its_scope = None
    test_an_address_that_linux_has_is_not_taken = None
    test_a_router_gives_an_address_and_a_route = None
    test_addresses_are_the_same_at_the_next_start_and_do_not_tell_the_mac = None
    test_a_key_that_is_none_is_refused = None

    def test_linux_tells_of_the_cobs_group(self):
        """To the card, and to switches that snoop (MLD), for as long as the cob is there."""
        joined = lambda: re.findall(r"inet6 +(\S+)", linux("ip", "-6", "maddr", "show", "dev", "cob0").stdout)
        self.assertNotIn("ff02::1:ff00:2", joined())
        cob = self.uplinked()
        self.assertIn("ff02::1:ff00:2", joined())
        cob.named("down", "--wait")
        harness.wait_until(lambda: "ff02::1:ff00:2" not in joined(), what="the group's end")

    def test_an_address_that_another_claims_is_given_up(self):
        """Another machine on the wire answers who looks whether it is free, as RFC 4862 section 5.4.4 has it: to all nodes."""
        mac, own = bytes([2, 9, 9, 9, 9, 9]), socket.inet_pton(socket.AF_INET6, ADDRESS)
        claim = icmpv6(ADDRESS, "ff02::1", struct.pack("!BBHI", 136, 0, 0, 0x20000000) + own + b"\2\1" + mac)
        claim = b"\x33\x33\0\0\0\1" + mac + struct.pack("!HIHBB", 0x86dd, 6 << 28, len(claim), 58, 255) + own + \
            socket.inet_pton(socket.AF_INET6, "ff02::1") + claim
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd)) as raw:
            raw.bind((self.wire, 0x86dd))
            raw.settimeout(0.1)
            ending = threading.Event()
            def answer():
                while not ending.is_set():
                    try:
                        frame = raw.recv(2048)
                    except TimeoutError:
                        continue
                    if frame[54:55] == b"\x87" and frame[62:78] == own:
                        raw.send(claim)
            answering = threading.Thread(target=answer)
            answering.start()
            try:
                cob = self.uplinked(1)
                harness.wait_until(lambda: ADDRESS not in cob.named("ip").stdout, 10, "the address's end")
            finally:
                ending.set()
                answering.join()


class Ipv6ProxyTest(Ipv6XdpTest):
    queues = 1


class Ipv6GenericTest(Ipv6XdpTest):
    words = (*xdp_test.GenericTest.words, "--ip6", f"{ADDRESS}/64")

    def setUp(self):
        super().setUp()
        xdp_test.without_segmentation(self.wire)


if __name__ == "__main__":
    harness.main()
