"""IPv6 over the TAP and within a cob: plain Linux's programs against programs on a cob and the reverse, in a network namespace of the test's own.
xdp_ipv6_test.py asks the same over AF_XDP.

Needs root; without it everything is skipped by name.
"""
import hashlib
import json
import os
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
from tap_test import check_h2load, check_netcat, linux, needs

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


# Sends one long datagram after another, each when the last one was answered.
SEND_LONG = """
import hashlib, os, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(10)
for size in (1_452, 1_453, 2_896, 2_897, 20_000, 65_527):
    data = os.urandom(size)
    s.sendto(data, (sys.argv[1], int(sys.argv[2])))
    s.recv(100)
    print(size, hashlib.sha256(data).hexdigest(), flush=True)
"""

WEIGH = """
import hashlib, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", int(sys.argv[1]))); print("listening", flush=True)
while True:
    data, source = s.recvfrom(65536)
    s.sendto(b"%d %s" % (len(data), hashlib.sha256(data).hexdigest().encode()), source)
"""

# What IPV6_MTU_DISCOVER, IPV6_DONTFRAG and IPV6_MTU make of datagrams that fit a frame and that do not.
OPTIONS = """
import errno, socket, struct, sys, time
MTU_DISCOVER, MTU, DONTFRAG = 23, 24, 62
def fresh(*options):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5)
    for name, value in options: s.setsockopt(socket.IPPROTO_IPV6, name, value)
    s.connect((sys.argv[1], int(sys.argv[2])))
    return s
def outcome(s, size, extra=()):
    try:
        s.sendmsg([size * b"x"], extra)
        for _ in range(100):  # on a cob it is told a moment later
            problem = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem: return errno.errorcode[problem]
            try: return s.recv(100, socket.MSG_DONTWAIT).decode().split()[0]
            except BlockingIOError: time.sleep(0.01)
        return "silence"
    except OSError as e: return errno.errorcode[e.errno]
for discover in range(6):
    s = fresh((MTU_DISCOVER, discover))
    print(discover, outcome(s, 1_452), outcome(s, 3_000))
for value in (0, 1):
    s = fresh((DONTFRAG, value))
    print("whole", value, s.getsockopt(socket.IPPROTO_IPV6, DONTFRAG), outcome(s, 3_000), outcome(s, 1_000))
    print("once", outcome(s, 3_000, [(socket.IPPROTO_IPV6, DONTFRAG, struct.pack("i", 1 - value))]))
s = fresh((MTU, 1_280))
print("bounded", outcome(s, 1_400), outcome(s, 9_000))
s = fresh((MTU, 1_280), (MTU_DISCOVER, 2))
print("bounded and whole", outcome(s, 1_232), outcome(s, 1_233))
print("path", fresh().getsockopt(socket.IPPROTO_IPV6, MTU))
for value in (1, 1_279, -1):
    try: fresh((MTU, value))
    except OSError as e: print(errno.errorcode[e.errno], end=" ")
print()
try: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).getsockopt(socket.IPPROTO_IPV6, MTU)
except OSError as e: print(errno.errorcode[e.errno])
"""

UNTIL_ANSWERED = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(1)
for _ in range(10):
    s.sendto(int(sys.argv[3]) * b"x", (sys.argv[1], int(sys.argv[2])))
    try:
        if s.recv(100).startswith(sys.argv[3].encode()): print("answered"); break
    except TimeoutError: pass
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
    wire = "cob0"  # Linux's end
    words = WORDS
    steered = True  # by the tables, not only by what hardware does

    def uplinked(self, kernels=2, words=None):
        cob = self.cob(up=False)
        cores = harness.usable_cores()
        cob.up("--kernels", kernels, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(kernels)), *(words or self.words))
        subprocess.run(["ip", "-6", "addr", "add", f"{HOST}/64", "dev", self.wire, "nodad"], check=True)
        self.wait_for_linux()
        return cob

    def wait_for_linux(self):
        # Linux's end has looked for duplicates of its link-local address: until then it answers nobody.
        harness.wait_until(lambda: "tentative" not in linux("ip", "-6", "addr", "show", "dev", self.wire).stdout and
                           "fe80" in linux("ip", "-6", "addr", "show", "dev", self.wire).stdout, 10, "Linux's link-local address")

    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    linux_process = tap_test.TapTest.linux_process

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
        if self.steered:  # the eBPF program steers IPv6 by the same tables
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
        self.started(self.linux_process(sys.executable, "-c", TAKE, 7002))
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
        self.linux_process("nginx", "-p", root, "-c", root / "plain.conf")
        harness.wait_until(lambda: linux("curl", "-sS", f"http://[{HOST}]:8081/").returncode == 0)
        for kernel in (0, 1):
            for _ in range(5):
                done = cob.run("curl", "-6", "-sS", "-m", 10, f"http://[{HOST}]:8081/", kernel=kernel)
                self.assertEqual(done.stdout, f"from {ADDRESS}\n", done.stderr)
        if self.steered:  # the port was chosen so that what was asked by one kernel is answered to it
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
        self.started(self.linux_process(sys.executable, "-c", UDP, HOST, 7004))
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
        for words in ((), ("-R",), ("-P", 4), ("-P", 4, "-R"), ("-u", "-b", "20M", "-l", 1400), ("-u", "-b", "20M", "-l", 1400, "-R"),
                      ("-u", "-b", "20M", "-l", 4000), ("-u", "-b", "20M", "-l", 4000, "-R")):  # the last two in fragments
            def done():  # between two tests the server listens anew
                result = linux("iperf3", "-6", "-c", ADDRESS, "-p", 5201, "-t", 1, "-J", *words)
                report = json.loads(result.stdout)
                return None if "error" in report else report
            report = harness.wait_until(done, 30, "iperf3")
            total = report["end"].get("sum_received") or report["end"]["sum"]
            self.assertGreater(total["bits_per_second"], 5e6, words)
            self.assertLess(total.get("lost_percent", 0), 50, words)

    @needs("nc")
    def test_netcat_carries_files_whole(self):
        check_netcat(self, self.uplinked(), HOST, ADDRESS, "-6")

    @needs("nginx", "h2load")
    def test_h2load(self):
        check_h2load(self, self.uplinked(), f"[{ADDRESS}]")

    def test_transfers_both_ways_at_once_by_several(self):
        cob = self.uplinked()
        size, running = 16 << 20, []
        for number in range(4):
            what, other = ("send", "receive") if number % 2 else ("receive", "send")
            server = self.started(cob.start(sys.executable, "-c", servers.TRANSFER, "serve", what, "::", 7200 + number, size, kernel=number // 2))
            running.append((server, self.linux_process(sys.executable, "-c", servers.TRANSFER, "go", other, ADDRESS, 7200 + number, size)))
        for server, client in running:
            said = client.communicate(timeout=100)[0]
            self.assertEqual(len(said), 65)
            self.assertEqual(server.stdout.readline(), said)

    def test_datagrams_leave_in_fragments(self):
        cob = self.uplinked()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.settimeout(10)
            server.bind((HOST, 7431))
            for kernel in (0, 1):
                client = cob.start(sys.executable, "-c", SEND_LONG, HOST, 7431, kernel=kernel)
                seen = []
                for _ in range(6):
                    data, source = server.recvfrom(65536)
                    seen.append(f"{len(data)} {hashlib.sha256(data).hexdigest()}")
                    server.sendto(b"ok", source)
                self.assertEqual(client.communicate(timeout=10)[0].splitlines(), seen)

    def test_datagrams_in_fragments_arrive_whole(self):
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", WEIGH, 7450, kernel=1))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            for size in (1, 2_000, 20_000, 65_527):
                data = os.urandom(size)
                asking.sendto(data, (ADDRESS, 7450))
                self.assertEqual(asking.recv(200).decode(), f"{size} {hashlib.sha256(data).hexdigest()}")
        counted = json.loads(cob.named("stats", "--net", "--json").stdout)["sum"]
        self.assertEqual((counted["IpReasmOKs"], counted["IpReasmFails"]), (3, 0))

    def test_the_options_about_fragments_are_linuxs(self):
        """The same program on Linux and on the cob, each towards the other."""
        cob = self.uplinked()
        self.started(cob.start(sys.executable, "-c", WEIGH, 7460, kernel=1))
        self.started(self.linux_process(sys.executable, "-c", WEIGH, 7460))
        linux_says = linux(sys.executable, "-c", OPTIONS, ADDRESS, 7460)
        self.assertEqual(linux_says.stdout.count("\n"), 15, linux_says.stderr)
        for kernel in (0, 1):
            self.assertEqual(cob.run(sys.executable, "-c", OPTIONS, HOST, 7460, kernel=kernel).stdout, linux_says.stdout)

    @needs("unshare", "nsenter")
    def test_a_path_that_carries_less_than_the_gateway(self):
        """Behind Linux, who routes, lies a link of 1300 bytes: routers do not cut, who sends must learn of it."""
        cob = self.uplinked(words=(*self.words, "--gateway6", HOST))
        inner = self.linux_process("unshare", "-n", "sh", "-c", "echo ready; exec sleep 300")
        self.assertEqual(inner.stdout.readline(), "ready\n")
        there = ("nsenter", "-t", inner.pid, "-n")
        for words in (("ip", "link", "add", "narrow0", "mtu", 1300, "type", "veth", "peer", "name", "narrow1", "netns", inner.pid),
                      ("ip", "-6", "addr", "add", "fd0b::1/64", "dev", "narrow0", "nodad"), ("ip", "link", "set", "narrow0", "up"),
                      (*there, "ip", "-6", "addr", "add", "fd0b::2/64", "dev", "narrow1", "nodad"),
                      (*there, "ip", "link", "set", "narrow1", "up"),
                      (*there, "ip", "-6", "route", "add", "default", "via", "fd0b::1")):
            done = linux(*words)
            self.assertEqual(done.returncode, 0, (words, done.stderr))
        forward = pathlib.Path("/proc/sys/net/ipv6/conf/all/forwarding")
        self.addCleanup(forward.write_text, forward.read_text())
        forward.write_text("1")
        size = 4 << 20
        server = self.started(self.linux_process(*there, sys.executable, "-c", servers.TRANSFER, "serve", "receive", "::", 7600, size))
        done = cob.run(sys.executable, "-c", servers.TRANSFER, "go", "send", "fd0b::2", 7600, size, kernel=0, timeout=60)
        self.assertEqual(len(done.stdout), 65, done.stderr)
        self.assertEqual(server.stdout.readline(), done.stdout)
        # Datagrams: the first that is too long is lost, and its sender's next ones are cut.
        self.started(self.linux_process(*there, sys.executable, "-c", WEIGH, 7601))
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", UNTIL_ANSWERED, "fd0b::2", 7601, 1_400, kernel=kernel)
            self.assertEqual(done.stdout, "answered\n", done.stderr)

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

    def made_of(self, cob, prefix):
        """The address that the cob makes of a prefix which Linux's end advertises."""
        router = re.search(r"inet6 (fe80\S+)/", linux("ip", "-6", "addr", "show", "dev", "cob0").stdout).group(1)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("cob0"))
            raw.bind((router, 0, 0, socket.if_nametoindex("cob0")))
            raw.sendto(router_advertisement(router, prefix), ("ff02::1", 0, 0, socket.if_nametoindex("cob0")))
        return harness.wait_until(lambda: re.search(rf"inet6 ({prefix[:-1]}\S+)/64", cob.named("ip").stdout), 10,
                                  "an address of the router's prefix").group(1)

    def test_addresses_are_the_same_at_the_next_start_and_do_not_tell_the_mac(self):
        words = (*tap_test.UPLINK, "--ip6", "auto")
        cob = self.uplinked(words=words)
        first, second = self.made_of(cob, "fd09::"), self.made_of(cob, "fd0b::")
        identifiers = [socket.inet_pton(socket.AF_INET6, a)[8:] for a in (first, second)]
        self.assertNotEqual(*identifiers)
        for identifier in identifiers:  # RFC 7217; no ff:fe in the middle of a MAC address
            self.assertNotEqual(identifier[3:5], b"\xff\xfe")
        key = pathlib.Path(cob.environment["XDG_STATE_HOME"]) / "cob" / f"{cob.name}.ipv6-key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        kept = cob.directory / "kept"
        kept.write_bytes(key.read_bytes())
        kept.chmod(0o600)
        for more, same in (((), True), (("--ip6-key", cob.directory / "another"), False), (("--ip6-key", kept), True)):
            with self.subTest(more=more):
                self.assertEqual(cob.named("down", "--wait").returncode, 0)
                cob.up("--kernels", 2, "--cores", ",".join(map(str, (harness.usable_cores() * 2)[:2])), *words, *more)
                self.wait_for_linux()
                self.assertEqual(self.made_of(cob, "fd09::") == first, same)

    def test_a_key_that_is_none_is_refused(self):
        cob = self.cob(up=False)
        bad = cob.directory / "bad"
        bad.write_text("something\n")
        bad.chmod(0o600)
        for words, said in (((*tap_test.UPLINK, "--ip6", "auto", "--ip6-key", bad), "hexadecimal"), (("--ip6-key", bad), "--ip6 auto")):
            done = cob.cli("up", "--name", cob.name, *words)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(said, done.stderr)
            self.assertFalse(cob.run_directory.exists())
        self.assertEqual(bad.read_text(), "something\n")

    def test_a_router_gives_an_address_and_a_route(self):
        cob = self.uplinked(words=(*tap_test.UPLINK, "--ip6", "auto"))
        subprocess.run(["ip", "-6", "addr", "add", "fd09::1/64", "dev", "cob0", "nodad"], check=True)
        subprocess.run(["ip", "-6", "addr", "add", "fd0a::1/128", "dev", "lo", "nodad"], check=True)
        self.addCleanup(subprocess.run, ["ip", "-6", "addr", "del", "fd0a::1/128", "dev", "lo"], check=True)
        made = self.made_of(cob, "fd09::")
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
