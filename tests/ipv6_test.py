"""IPv6 over the TAP and within a cob: plain Linux's programs against programs on a cob and the reverse, in a network namespace of the test's own.

Needs root; without it everything is skipped by name.
"""
import hashlib
import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import textwrap
import unittest

import harness
import servers
import tap_test
from tap_test import linux, needs

HOST, ADDRESS = "fd07::1", "fd07::2"
WORDS = (*tap_test.UPLINK, "--ip6", f"{ADDRESS}/64")

# Listens on :: for both families, echoes, and says who came.
DUAL = """
import socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1]))); s.listen(64)
print("listening", flush=True)
while True:
    c, peer = s.accept()
    c.sendall(f"{peer[0]} {c.getsockname()[0]}\\n".encode()); c.close()
"""

UDP = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
s.bind((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    data, control, flags, peer = s.recvmsg(65536, 1024)
    to = [socket.inet_ntop(socket.AF_INET6, d[:16]) for level, kind, d in control if kind == socket.IPV6_PKTINFO]
    s.sendto(f"{peer[0]} {to[0]} {len(data)} ".encode() + data[:1000], peer)
"""

SEND = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
data = bytes(range(256)) * 4096
for _ in range(int(sys.argv[3])): s.sendall(data)
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())
"""

TAKE = """
import hashlib, socket, sys
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", int(sys.argv[1]))); s.listen(4); print("listening", flush=True)
while True:
    c, _ = s.accept()
    digest = hashlib.sha256()
    while data := c.recv(1 << 16): digest.update(data)
    c.sendall(digest.hexdigest().encode()); c.close()
"""


def digest(mebibytes):
    sha = hashlib.sha256()
    for _ in range(mebibytes):
        sha.update(bytes(range(256)) * 4096)
    return sha.hexdigest()


def icmpv6(source, destination, body):
    """The message with its checksum."""
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination) + struct.pack("!II", len(body), 58)
    return body[:2] + struct.pack("!H", tap_test.checksum(pseudo + body)) + body[4:]


def router_advertisement(source, prefix, valid=600, preferred=300, lifetime=1800, mtu=1400):
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
    body += struct.pack("!BBBBIII", 3, 4, 64, 0xc0, valid, preferred, 0) + socket.inet_pton(socket.AF_INET6, prefix)
    body += struct.pack("!BBHI", 5, 1, 0, mtu)
    return icmpv6(source, "ff02::1", body)


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
class Ipv6Test(harness.CobTest):
    def uplinked(self, kernels=2, words=WORDS):
        cob = self.cob(up=False)
        cores = harness.usable_cores()
        cob.up("--kernels", kernels, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(kernels)), *words)
        subprocess.run(["ip", "-6", "addr", "add", f"{HOST}/64", "dev", "cob0", "nodad"], check=True)
        # Linux's end has looked for duplicates of its link-local address: until then it answers nobody.
        harness.wait_until(lambda: "tentative" not in linux("ip", "-6", "addr", "show", "dev", "cob0").stdout and
                           "fe80" in linux("ip", "-6", "addr", "show", "dev", "cob0").stdout, 10, "Linux's link-local address")
        return cob

    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    def on_linux(self, *words):
        process = subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        def end():
            process.kill()
            process.wait()
            process.stdout.close()
        self.addCleanup(end)
        return process

    def neighbour_mac(self, address=ADDRESS):
        return re.search(r"lladdr (\S+)", linux("ip", "-6", "neigh", "show", address).stdout).group(1)

    def ask(self, address, port, timeout=10):
        with socket.create_connection((address, port), timeout) as s:
            return s.makefile().readline().strip()

    # ---- TCP from Linux

    @needs("nginx", "curl", "ab")
    def test_linux_clients_reach_nginx(self):
        cob = self.uplinked()
        nginx = servers.nginx(cob, kernel=1, server="listen [::]:8080;")
        page = linux("curl", "-6", "-sS", "-m", 10, f"http://[{ADDRESS}]:8080/")
        self.assertEqual(page.stdout, (nginx.root / "www" / "index.html").read_text(), page.stderr)
        for words in (["-c", 1, "-n", 200], ["-c", 32, "-n", 3000], ["-k", "-c", 32, "-n", 3000]):
            done = linux("ab", "-q", *words, f"http://[{ADDRESS}]:8080/memory")
            self.assertRegex(done.stdout, rf"Complete requests:\s+{words[-1]}", done.stderr)
            self.assertRegex(done.stdout, r"Failed requests:\s+0")
        # The eBPF program steers IPv6 by the same tables.
        self.assertLess(sum(k["uplink"]["handed_on"] for k in cob.kernels()), 150)
        self.assertEqual(sum(k["uplink"]["lost"] for k in cob.kernels()), 0)

    @needs("redis-server", "redis-benchmark")
    def test_redis_benchmark(self):
        cob = self.uplinked()
        servers.redis(cob, 6379, 1, "--bind", "0.0.0.0", "::")
        done = linux("redis-benchmark", "-h", ADDRESS, "-n", 10000, "-c", 50, "-t", "set,get", "-q", "-P", 4)
        self.assertRegex(done.stdout, r"GET: [\d.]+ requests per second", done.stderr)

    def test_a_dual_listener_hears_both_families(self):
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", DUAL, 7000, kernel=1))
        self.assertEqual(self.ask(ADDRESS, 7000), f"{HOST} {ADDRESS}")
        self.assertEqual(self.ask(tap_test.ADDRESS, 7000), f"::ffff:{tap_test.HOST} ::ffff:{tap_test.ADDRESS}")
        for kernel in (0, 1):  # and within the cob, by each address
            for address, seen in ((ADDRESS, f"{ADDRESS} {ADDRESS}"), ("::1", "::1 ::1")):
                done = cob.run(sys.executable, "-c", f"import socket; print(socket.create_connection(('{address}', 7000), 10).makefile().readline())",
                               kernel=kernel)
                self.assertEqual(done.stdout.strip(), seen, done.stderr)

    def test_the_link_local_address_is_reached_and_shown_with_its_scope(self):
        cob = self.uplinked(1)
        mac = json.loads(cob.named("ip", "--json", "link").stdout)[0]["address"].split(":")
        own = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("fe80000000000000" + f"{int(mac[0], 16) ^ 2:02x}" + mac[1] + mac[2] + "fffe" + "".join(mac[3:])))
        self.started(cob.start(sys.executable, "-c", DUAL.replace("peer[0]", "peer[3] and peer[0]"), 7000))
        index = socket.if_nametoindex("cob0")
        with socket.socket(socket.AF_INET6) as s:
            s.settimeout(10)
            s.connect((own, 7000, 0, index))
            here, there = s.makefile().readline().split()
            self.assertEqual(here.partition("%")[0], s.getsockname()[0].partition("%")[0])
            self.assertEqual(there.partition("%")[0], own)

    def test_a_closed_port_is_refused(self):
        self.uplinked()
        for port in range(9000, 9010):
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((ADDRESS, port), 10)

    def test_bytes_arrive_whole_both_ways(self):
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", TAKE, 7001, kernel=1))
        done = linux(sys.executable, "-c", SEND, ADDRESS, 7001, 64)
        self.assertEqual(done.stdout.strip(), digest(64), done.stderr)
        self.started(self.on_linux(sys.executable, "-c", TAKE, 7002))
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", SEND, HOST, 7002, 64, kernel=kernel)
            self.assertEqual(done.stdout.strip(), digest(64), done.stderr)

    # ---- from the cob

    @needs("curl", "nginx")
    def test_programs_reach_linux(self):
        cob = self.uplinked()
        root = pathlib.Path(cob.directory)
        (root / "plain.conf").write_text(f"daemon off; master_process off; pid {root}/plain.pid; error_log {root}/plain.log;\n"
                                         "events {} http { access_log off; server { listen [::]:8081;\n"
                                         "location / { return 200 \"from $remote_addr\\n\"; } } }\n")
        self.on_linux("nginx", "-p", root, "-c", root / "plain.conf")
        harness.wait_until(lambda: linux("curl", "-sS", f"http://[{HOST}]:8081/").returncode == 0)
        for kernel in (0, 1):
            for _ in range(5):
                done = cob.run("curl", "-6", "-sS", "-m", 10, f"http://[{HOST}]:8081/", kernel=kernel)
                self.assertEqual(done.stdout, f"from {ADDRESS}\n", done.stderr)
        # The port was chosen so that what was asked by one kernel is answered to it.
        self.assertLess(sum(k["uplink"]["handed_on"] for k in cob.kernels()), 30)
        self.assertEqual(cob.run("curl", "-sS", "-m", 10, f"http://[{HOST}]:8082/").returncode, 7)  # refused
        self.assertEqual(cob.run("curl", "-sS", "-m", 10, "http://[fd07::77]/").returncode, 7)  # nobody has it

    def test_what_the_cob_does_not_reach_is_the_hosts(self):
        cob = self.uplinked()
        subprocess.run(["ip", "-6", "addr", "add", "fd08::1/64", "dev", "lo", "nodad"], check=True)
        self.addCleanup(subprocess.run, ["ip", "-6", "addr", "del", "fd08::1/64", "dev", "lo"], check=True)
        with socket.create_server(("fd08::1", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            program = cob.start(sys.executable, "-c", f"import socket; s = socket.create_connection(('fd08::1', {port}), 10); print(s.recv(9))")
            listener.settimeout(20)
            s, peer = listener.accept()
            s.sendall(b"linux")
            s.close()
            self.assertEqual(peer[0], "fd08::1")
            self.assertEqual(program.communicate(timeout=20)[0], "b'linux'\n")

    # ---- UDP

    def test_datagrams(self):
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", UDP, "::", 7003, kernel=1))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            for text in (b"a", b"b" * 1400, bytes(range(250)) * 16):  # the last one comes in fragments
                s.sendto(text, (ADDRESS, 7003))
                self.assertEqual(s.recv(65536), f"{HOST} {ADDRESS} {len(text)} ".encode() + text[:1000])
            s.connect((ADDRESS, 7099))
            s.send(b"nobody")
            with self.assertRaises(ConnectionRefusedError):
                s.recv(10)
        self.started(self.on_linux(sys.executable, "-c", UDP, HOST, 7004))
        program = textwrap.dedent(f"""
            import socket
            s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5)
            s.sendto(b"x", ("{HOST}", 7004)); print(s.recvfrom(100)[0].decode())
            s.connect(("{HOST}", 7004)); s.send(b"y"); print(s.recv(100).decode(), s.getpeername()[0], s.getsockname()[0])
            s.connect(("{HOST}", 7098)); s.send(b"z")
            try: s.recv(10)
            except ConnectionRefusedError: print("refused")
            s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5)
            s.sendto(b"in", ("{ADDRESS}", 7003)); print(s.recv(100).decode())
            """)
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", program, kernel=kernel)
            self.assertEqual(done.stdout, f"{ADDRESS} {HOST} 1 x\n{ADDRESS} {HOST} 1 y {HOST} {ADDRESS}\nrefused\n"
                                          f"{ADDRESS} {ADDRESS} 2 in\n", done.stderr)

    @needs("iperf3")
    def test_iperf3(self):
        cob = self.uplinked()
        server = cob.start("iperf3", "-s", "-p", 5201, "--forceflush", kernel=1)
        harness.wait_until(lambda: "listening" in server.stdout.readline(), what="iperf3's server")
        for words in ((), ("-R",), ("-u", "-b", "20M"), ("-u", "-b", "20M", "-R")):
            done = linux("iperf3", "-6", "-c", ADDRESS, "-p", 5201, "-t", 1, "-J", *words)
            report = json.loads(done.stdout)
            self.assertNotIn("error", report, done.stdout[-300:])
            self.assertGreater((report["end"].get("sum_received") or report["end"]["sum"])["bits_per_second"], 5e6)

    # ---- ICMPv6 and neighbour discovery

    def test_echo_requests_are_answered(self):
        self.uplinked()
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.settimeout(5)
            for number in range(1, 4):
                for size in (20, 1300):
                    body = struct.pack("!BBHHH", 128, 0, 0, 77, number) + bytes(i % 251 for i in range(size))
                    raw.sendto(body, (ADDRESS, 0))
                    while True:
                        packet, source = raw.recvfrom(8192)
                        if packet[0] == 129 and source[0] == ADDRESS:
                            self.assertEqual(packet[8:], body[8:])
                            break

    def test_an_address_that_linux_has_is_not_taken(self):
        subprocess.run(["ip", "tuntap", "add", "dev", "cob0", "mode", "tap", "multi_queue", "vnet_hdr"], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "cob0"], check=True)
        subprocess.run(["ip", "link", "set", "cob0", "up"], check=True)
        subprocess.run(["ip", "-6", "addr", "add", f"{ADDRESS}/64", "dev", "cob0", "nodad"], check=True)
        cob = self.cob(up=False)
        cob.up("--kernels", 2, "--cores", ",".join(map(str, (harness.usable_cores() * 2)[:2])), "--uplink", "tap:cob0", "--ip",
               tap_test.PREFIX, "--ip6", f"{ADDRESS}/64")
        harness.wait_until(lambda: ADDRESS not in cob.named("ip").stdout, 10, "the address's end")
        for kernel in (0, 1):  # a bind to it is the host's, which has it
            done = cob.run(sys.executable, "-c", f"import socket; s = socket.socket(socket.AF_INET6); s.bind(('{ADDRESS}', 0)); print('bound')",
                           kernel=kernel)
            self.assertEqual(done.stdout, "bound\n", done.stderr)

    def address_of(self, cob):
        return json.loads(cob.named("ip", "--json", "link").stdout)[0]["address"]

    def test_a_router_gives_an_address_and_a_route(self):
        cob = self.uplinked(words=(*tap_test.UPLINK, "--ip6", "auto"))
        router = re.search(r"inet6 (fe80\S+)/", linux("ip", "-6", "addr", "show", "dev", "cob0").stdout).group(1)
        mac = [int(b, 16) for b in self.address_of(cob).split(":")]
        made = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "fd09::")[:8] +
                                bytes([mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, *mac[3:]]))
        subprocess.run(["ip", "-6", "addr", "add", "fd09::1/64", "dev", "cob0", "nodad"], check=True)
        subprocess.run(["ip", "-6", "addr", "add", "fd0a::1/128", "dev", "lo", "nodad"], check=True)
        self.addCleanup(subprocess.run, ["ip", "-6", "addr", "del", "fd0a::1/128", "dev", "lo"], check=True)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("cob0"))
            raw.bind((router, 0, 0, socket.if_nametoindex("cob0")))
            raw.sendto(router_advertisement(router, "fd09::"), ("ff02::1", 0, 0, socket.if_nametoindex("cob0")))
        harness.wait_until(lambda: made in cob.named("ip").stdout, 10, "an address of the router's prefix")
        self.started(cob.start(sys.executable, "-c", DUAL, 7000, kernel=1))
        self.assertEqual(self.ask(made, 7000), f"fd09::1 {made}")
        with socket.create_server(("fd0a::1", 7005), family=socket.AF_INET6) as listener:  # by the router
            listener.settimeout(20)
            for kernel in (0, 1):
                program = cob.start(sys.executable, "-c", "import socket; s = socket.create_connection(('fd0a::1', 7005), 10); print(s.recv(9))",
                                    kernel=kernel)
                s, peer = listener.accept()
                # Segments fit into the MTU that the router named.
                mss = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
                s.sendall(b"linux")
                s.close()
                self.assertEqual(peer[0], made)
                self.assertLessEqual(mss, 1400 - 60)
                self.assertEqual(program.communicate(timeout=20)[0], "b'linux'\n")

    # ---- views

    def test_views_show_it(self):
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", DUAL, 7000, kernel=1))
        with socket.create_connection((ADDRESS, 7000), 10) as s:
            s.makefile().readline()
            self.assertIn(f"inet6 {ADDRESS}/64", cob.named("ip").stdout)
            self.assertIn(HOST, cob.named("ip", "neigh").stdout)
            self.assertIn(f"[{ADDRESS}]:7000", cob.named("ss", "-tan").stdout)
            self.assertIn(f"[{HOST}]:{s.getsockname()[1]}", cob.named("ss", "-tan").stdout)


if __name__ == "__main__":
    harness.main()
