"""The cob's uplink over TAP: plain Linux's programs against programs on a cob and the reverse, in a network namespace of the test's own.

Needs root (the namespace, the TAP device, the steering program); without it everything is skipped by name.
"""
import ctypes
import hashlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import unittest

import harness
import servers
import udp_test

HOST, ADDRESS, PREFIX = "10.7.0.1", "10.7.0.2", "10.7.0.2/24"
UPLINK = ("--uplink", f"tap:cob0,host={HOST}", "--ip", PREFIX)
CLONE_NEWNET = 0x40000000
servers.ADDRESS = ADDRESS


def enter_namespace():
    """Why it cannot be had, or None."""
    if os.geteuid() != 0:
        return "a network namespace of one's own needs root"
    if shutil.which("ip") is None:
        return "not installed: ip"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return f"unshare: {os.strerror(ctypes.get_errno())}"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return None


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def linux(*words, timeout=60, **options):
    return subprocess.run([*map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, **options)


# Echoes lines behind its name; several of these may share a port.
ECHO = """
import selectors, socket, sys
name, port = sys.argv[1].encode(), int(sys.argv[2])
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", port)); s.listen(512); s.setblocking(False)
selector = selectors.DefaultSelector(); selector.register(s, selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is s:
            try: c, _ = s.accept()
            except BlockingIOError: continue
            selector.register(c, selectors.EVENT_READ)
            continue
        try: data = key.fileobj.recv(65536)
        except OSError: data = b""
        if data: key.fileobj.sendall(name + b":" + data)
        else: selector.unregister(key.fileobj); key.fileobj.close()
"""


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def syn(source, source_port, destination, port):
    """An IPv4 packet that opens a connection, with an MSS and timestamps."""
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    options = struct.pack("!BBHBBBBII", 2, 4, 1460, 1, 1, 8, 10, 1000, 0)
    def tcp(sum_):
        return struct.pack("!HHIIBBHHH", source_port, port, 1000, 0, (20 + len(options)) << 2, 2, 64240, sum_, 0) + options
    segment = tcp(checksum(ends + struct.pack("!HH", 6, 20 + len(options)) + tcp(0)))
    def head(sum_):
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, sum_) + ends
    return head(checksum(head(0))) + segment


class Line:
    """A connection to an echo server from Linux."""

    def __init__(self, port, timeout=5):
        self.socket = socket.create_connection((ADDRESS, port), timeout)
        self.file = self.socket.makefile("rw", newline="\n")

    def ask(self, text="x"):
        """Who answered; None: the connection is over."""
        try:
            self.file.write(text + "\n")
            self.file.flush()
            name, _, rest = self.file.readline().partition(":")
        except OSError:
            return None
        return name if rest == text + "\n" else None

    def close(self):
        self.file.close()
        self.socket.close()


def answers(port, count):
    """Who answered so many connections, one after another: {name: connections}."""
    names = {}
    for _ in range(count):
        line = Line(port)
        name = line.ask()
        line.close()
        names[name] = names.get(name, 0) + 1
    return names


def check_h2load(test, cob, host):
    """HTTP/2 with several requests under way a connection, and HTTP/1.1, from Linux."""
    every = "[::]" if ":" in host else "0.0.0.0"
    servers.nginx(cob, server=f"listen {every}:8082 http2; listen {every}:8081;")
    for port, words in ((8082, ("-m", 20)), (8081, ("--h1",))):
        done = linux("h2load", "-n", 4000, "-c", 32, *words, f"http://{host}:{port}/memory")
        test.assertIn("4000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout, done.stderr)
        test.assertRegex(done.stdout, r"4000 2xx")


def check_netcat(test, cob, here, there, *family):
    """8 MiB by nc each way between Linux at `here` and the cob at `there`."""
    given = cob.directory / "given"
    given.write_bytes(os.urandom(8 << 20))
    wanted = hashlib.sha256(given.read_bytes()).hexdigest()
    for port, serve, ask, address in ((7310, lambda *w, **o: cob.start(*w, kernel=1, **o), lambda *w: linux(*w), there),
                                      (7311, lambda *w, **o: test.linux_process(*w, **o), lambda *w: cob.run(*w, kernel=0), here)):
        taken = cob.directory / f"taken-{port}"
        with open(taken, "w") as out:
            server = serve("nc", *family, "-l", "-p", port, stdout=out)
        def sent():
            return ask("sh", "-c", f"nc {' '.join(family)} -N -w 20 {address} {port} < {given}").returncode == 0
        harness.wait_until(sent, 20, "nc's listener")
        server.wait(20)
        test.assertEqual(hashlib.sha256(taken.read_bytes()).hexdigest(), wanted)


@unittest.skipIf(NO_NAMESPACE := enter_namespace(), NO_NAMESPACE)
class TapTest(harness.CobTest):
    wire = "cob0"  # Linux's end
    words = UPLINK
    steered = True  # by the tables, not only by what hardware does

    def uplinked(self, kernels=2, words=None, **options):
        cob = self.cob(up=False, **options)
        cores = harness.usable_cores()
        cob.up("--kernels", kernels, "--cores", ",".join(str(cores[i % len(cores)]) for i in range(kernels)), *(words or self.words))
        return cob

    def uplink(self, cob, key):
        return sum(kernel["uplink"][key] for kernel in cob.kernels())

    def started(self, process):
        self.assertEqual(process.stdout.readline(), "listening\n")
        return process

    def echo(self, cob, name, port, kernel):
        return self.started(cob.start(sys.executable, "-c", ECHO, name, port, kernel=kernel))

    def linux_process(self, *words, stdout=subprocess.PIPE):
        process = subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.DEVNULL, text=True)
        def end():
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.addCleanup(end)
        return process

    def test_a_cable_beside_it_is_refused(self):
        cob = self.uplinked(kernels=1)
        other = self.cob(up=False, environment={"XDG_RUNTIME_DIR": str(cob.runtime)})
        other.run_directory = cob.runtime / "cob" / other.name
        other.up("--kernels", 1, "--ip", "10.7.0.3/24")
        for pair in ((cob.name, other.name), (other.name, cob.name)):
            done = cob.cli("cable", *pair)
            self.assertEqual(done.returncode, 1)
            self.assertIn("a cable beside it is not supported", done.stderr)
        harness.wait_until(lambda: (other.status()["cable"] or {}).get("state", "unplugged") == "unplugged", what="no cable")

    def test_without_a_way_out_the_cobs_network_is_linuxs(self):
        subprocess.run(["ip", "addr", "add", "10.7.0.9/24", "dev", "lo"], check=True)
        self.addCleanup(subprocess.run, ["ip", "addr", "del", "10.7.0.9/24", "dev", "lo"], check=True)
        cob = self.cob(up=False)
        cob.up("--kernels", 1, "--ip", PREFIX)
        with socket.create_server(("10.7.0.9", 0)) as listener:
            port = listener.getsockname()[1]
            program = cob.start(sys.executable, "-c",
                                f"import socket; s = socket.create_connection(('10.7.0.9', {port}), 10); print(s.recv(9))")
            listener.settimeout(20)
            s, _ = listener.accept()
            s.sendall(b"linux")
            s.close()
            self.assertEqual(program.communicate(timeout=20)[0], "b'linux'\n")
        refused = cob.run("curl", "-sS", "-m", 10, f"http://10.7.0.9:{port}/")
        self.assertEqual(refused.returncode, 7, refused.stderr)

    # ---- from Linux to the cob ----

    @needs("nginx", "curl", "ab", "wrk")
    def test_linux_clients_reach_a_server_on_the_other_kernel(self):
        cob = self.uplinked()
        if self.steered:
            self.assertEqual(cob.status()["steering"], "eBPF")
        nginx = servers.nginx(cob, kernel=1)
        page = linux("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/")
        self.assertEqual(page.stdout, (nginx.root / "www" / "index.html").read_text(), page.stderr)
        for words in (["-c", 1, "-n", 300], ["-c", 64, "-n", 5000], ["-k", "-c", 64, "-n", 5000]):
            done = linux("ab", "-q", *words, f"http://{ADDRESS}:8080/memory")
            self.assertRegex(done.stdout, rf"Complete requests:\s+{words[-1]}", done.stderr)
            self.assertRegex(done.stdout, r"Failed requests:\s+0")
            self.assertNotIn("Non-2xx", done.stdout)
        done = linux("wrk", "-t", 2, "-c", 64, "-d", 1, f"http://{ADDRESS}:8080/memory")
        self.assertRegex(done.stdout, r"Requests/sec:\s+[1-9]", done.stderr)
        self.assertNotIn("Socket errors", done.stdout)
        # New connections come to the kernel where nginx listens, not by way of the other.
        self.assertEqual(self.uplink(cob, "lost"), 0)
        if self.steered:
            self.assertLess(self.uplink(cob, "handed_on"), 100)

    @needs("nginx", "ab")
    def test_workers_on_both_kernels(self):
        """`cob run --spread`: Linux's connections come to both, and go on when one dies."""
        cob = self.uplinked()
        nginx = servers.nginx(cob, kernel=1, workers=2, spread=True)
        opens = lambda: [kernel["since_start"]["passive_opens"] for kernel in cob.kernels()]
        before = opens()
        done = linux("ab", "-q", "-c", 16, "-n", 2000, f"http://{ADDRESS}:8080/memory")
        self.assertRegex(done.stdout, r"Complete requests:\s+2000", done.stderr)
        self.assertRegex(done.stdout, r"Failed requests:\s+0")
        after = opens()
        self.assertGreater(after[0] - before[0], 200)
        self.assertGreater(after[1] - before[1], 200)
        cob.kill_kernel(0)
        for _ in range(20):
            page = linux("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/memory")
            self.assertEqual(page.stdout, "a body from memory\n", page.stderr)
        self.assertTrue(harness.is_alive(nginx.pid))

    @needs("redis-server", "redis-benchmark")
    def test_redis_benchmark(self):
        cob = self.uplinked()
        servers.redis(cob, kernel=1)
        done = linux("redis-benchmark", "-h", ADDRESS, "-n", 20000, "-c", 50, "-t", "set,get", "-q", "-P", 4)
        self.assertRegex(done.stdout, r"GET: [\d.]+ requests per second", done.stderr)

    def test_both_kernels_serve_one_port(self):
        cob = self.uplinked()
        self.echo(cob, "zero", 7000, 0)
        self.echo(cob, "one", 7000, 1)
        names = answers(7000, 200)
        self.assertEqual(set(names), {"zero", "one"})
        self.assertGreater(min(names.values()), 40)
        self.assertEqual(self.uplink(cob, "lost"), 0)

    def test_connections_outlive_moves_of_their_groups(self):
        """Another listener takes half of the port's groups, and gives them back; none of the connections notices."""
        cob = self.uplinked()
        self.echo(cob, "one", 7000, 1)
        lines = [Line(7000) for _ in range(60)]
        self.assertEqual({line.ask() for line in lines}, {"one"})
        other = self.echo(cob, "zero", 7000, 0)
        self.assertEqual({line.ask("with two") for line in lines}, {"one"})
        self.assertEqual(set(answers(7000, 100)), {"zero", "one"})
        self.assertGreater(self.uplink(cob, "handed_on"), 20)
        self.assertGreater(self.uplink(cob, "entries"), 10)
        other.kill()
        other.wait()
        def alone():
            return answers(7000, 40) == {"one": 40}
        harness.wait_until(alone, what="the port's return to its first listener")
        self.assertEqual({line.ask("alone again") for line in lines}, {"one"})
        for line in lines:
            line.close()

    @needs("nginx", "curl")
    def test_a_server_moves_under_transfers_from_linux(self):
        """Long transfers and new connections from Linux while their server goes to and fro; every byte is checked."""
        cob = self.uplinked()
        nginx = servers.nginx(cob, master="off")
        big = nginx.root / "www" / "big"
        big.write_bytes(os.urandom(16 << 20))
        wanted = hashlib.sha256(big.read_bytes()).hexdigest()
        url = f"http://{ADDRESS}:8080"
        long = self.linux_process("sh", "-c", f"for i in $(seq 8); do curl -sS -m 60 {url}/big | sha256sum; done")
        short = self.linux_process("sh", "-c", f"for i in $(seq 150); do curl -sS -m 20 {url}/memory || exit 1; done")
        moves = 0
        while long.poll() is None or short.poll() is None:
            done = cob.named("migrate", nginx.pid, moves % 2)
            if done.returncode == 0:
                moves += 1
            else:  # a busy machine: not within two seconds, and it stays where it is
                self.assertIn("does not answer", done.stderr, cob.log()[-2000:])
        self.assertEqual([line.split()[0] for line in long.stdout.read().splitlines()], [wanted] * 8)
        self.assertEqual(short.stdout.read(), "a body from memory\n" * 150)
        self.assertEqual(short.returncode, 0)
        self.assertGreater(moves, 10)

    def test_a_flood_of_syns_keeps_nobody_out(self):
        """The SYN queue is full of connections that nobody completes: cookies stand in for it."""
        cob = self.uplinked()
        self.echo(cob, "one", 7000, 1)
        before = Line(7000)
        self.assertEqual(before.ask(), "one")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((self.wire, 0))
            hardware, nobody = raw.getsockname()[4], "10.7.0.99"
            to = linux("ip", "neigh", "show", ADDRESS).stdout.split("lladdr ")[1].split()[0]
            ethernet = bytes.fromhex(to.replace(":", "")) + hardware
            # Asks for the cob, and so is known; and never answers.
            raw.send(ethernet + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + b"\2\0\0\0\0\x63" + socket.inet_aton(nobody) +
                     bytes.fromhex(to.replace(":", "")) + socket.inet_aton(ADDRESS))
            counted = lambda name: json.loads(cob.named("stats", "--net", "--json").stdout)["sum"][name]
            ports = iter(range(1024, 65536))
            def flooded():
                for port in itertools.islice(ports, 1000):  # some find the device's queue full
                    raw.send(ethernet + b"\x08\0" + syn(nobody, port, ADDRESS, 7000))
                return counted("TcpExtSyncookiesSent") > 2000
            harness.wait_until(flooded, 30, "SYNs answered by cookies")
        self.assertEqual(before.ask("still"), "one")
        self.assertEqual(answers(7000, 20), {"one": 20})
        self.assertGreaterEqual(counted("TcpExtSyncookiesRecv"), 20)
        self.assertLess(counted("CobTcpConnections"), 700)
        before.close()

    def test_a_closed_port_is_refused(self):
        self.uplinked()
        for port in range(9000, 9020):
            begun = time.monotonic()
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((ADDRESS, port), 10)
            self.assertLess(time.monotonic() - begun, 5)

    def test_echo_requests_are_answered(self):
        self.uplinked()
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.getprotobyname("icmp")) as raw:
            raw.settimeout(5)
            for number in range(1, 4):
                body = struct.pack("!BBHHH", 8, 0, 0, 77, number) + bytes(range(200))
                total = sum(struct.unpack(f"!{len(body) // 2}H", body))
                total = (total & 0xffff) + (total >> 16)
                total = (total & 0xffff) + (total >> 16)
                raw.sendto(body[:2] + struct.pack("!H", ~total & 0xffff) + body[4:], (ADDRESS, 0))
                while True:
                    packet, source = raw.recvfrom(2048)
                    if source[0] == ADDRESS:
                        break
                self.assertEqual(packet[20:22], b"\0\0")
                self.assertEqual(packet[24:], body[4:])

    # ---- from the cob to Linux ----

    @needs("nginx", "curl")
    def test_programs_reach_linux_by_the_uplink(self):
        cob = self.uplinked()
        root = pathlib.Path(cob.directory)
        (root / "plain.conf").write_text(f"daemon off; master_process off; pid {root}/plain.pid; error_log {root}/plain.log;\n"
                                         "events {} http { access_log off; server { listen 8081;\n"
                                         "location / { return 200 \"from $remote_addr\\n\"; } } }\n")
        self.linux_process("nginx", "-p", root, "-c", root / "plain.conf")
        harness.wait_until(lambda: linux("curl", "-sS", f"http://{HOST}:8081/").returncode == 0)
        for kernel in (0, 1):
            for _ in range(5):
                done = cob.run("curl", "-sS", "-m", 10, f"http://{HOST}:8081/", kernel=kernel)
                self.assertEqual(done.stdout, f"from {ADDRESS}\n", done.stderr)
        self.assertEqual(self.uplink(cob, "lost"), 0)
        # What was asked by one kernel was answered to it: the port was chosen so.
        if self.steered:
            self.assertLess(self.uplink(cob, "handed_on"), 20)
        done = cob.run("curl", "-sS", "-m", 10, f"http://{HOST}:8082/")
        self.assertEqual(done.returncode, 7, done.stderr)  # refused
        done = cob.run("curl", "-sS", "-m", 10, "http://10.7.0.77/")
        self.assertEqual(done.returncode, 7, done.stderr)  # nobody has the address

    @needs("curl")
    def test_what_the_uplink_does_not_reach_is_the_hosts(self):
        cob = self.uplinked()
        subprocess.run(["ip", "addr", "add", "10.8.0.1/24", "dev", "lo"], check=True)
        self.addCleanup(subprocess.run, ["ip", "addr", "del", "10.8.0.1/24", "dev", "lo"], check=True)
        listener = socket.create_server(("10.8.0.1", 7100))
        self.addCleanup(listener.close)
        def peer_of(cob):
            child = cob.start("curl", "-sS", "-m", 5, "http://10.8.0.1:7100/", kernel=0)
            listener.settimeout(10)
            connection, peer = listener.accept()
            connection.close()
            child.wait()
            return peer[0]
        self.assertEqual(peer_of(cob), "10.8.0.1")  # Linux chose its own address
        cob.down()
        gated = self.uplinked(words=(*self.words, "--gateway", HOST))
        self.assertEqual(peer_of(gated), ADDRESS)

    @needs("unshare", "nsenter")
    def test_a_path_that_carries_less_than_the_gateway(self):
        """Behind Linux, who routes, lies a link of 1000 bytes: without path MTU discovery nothing large arrives."""
        cob = self.uplinked(words=(*self.words, "--gateway", HOST))
        inner = self.linux_process("unshare", "-n", "sh", "-c", "echo ready; exec sleep 300")
        self.assertEqual(inner.stdout.readline(), "ready\n")
        there = ("nsenter", "-t", inner.pid, "-n")
        for words in (("ip", "link", "add", "narrow0", "mtu", 1000, "type", "veth", "peer", "name", "narrow1", "netns", inner.pid),
                      ("ip", "addr", "add", "10.9.0.1/24", "dev", "narrow0"), ("ip", "link", "set", "narrow0", "up"),
                      (*there, "ip", "addr", "add", "10.9.0.2/24", "dev", "narrow1"), (*there, "ip", "link", "set", "narrow1", "up"),
                      (*there, "ip", "route", "add", "default", "via", "10.9.0.1")):
            done = linux(*words)
            self.assertEqual(done.returncode, 0, (words, done.stderr))
        forward = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
        self.addCleanup(forward.write_text, forward.read_text())
        forward.write_text("1")
        size = 4 << 20
        server = self.started(self.linux_process(*there, sys.executable, "-c", servers.TRANSFER, "serve", "receive", "-", 7600, size))
        done = cob.run(sys.executable, "-c", servers.TRANSFER, "go", "send", "10.9.0.2", 7600, size, kernel=0, timeout=60)
        self.assertEqual(len(done.stdout), 65, done.stderr)
        self.assertEqual(server.stdout.readline(), done.stdout)

    # ---- datagrams ----

    def test_a_datagram_server_is_reached_from_linux(self):
        cob = self.uplinked()
        for kernel, name in ((0, "zero"), (1, "one")):
            server = cob.start(sys.executable, "-c", udp_test.NAMED, 7400 + kernel, name, kernel=kernel)
            self.assertEqual(server.stdout.readline(), "bound\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            for kernel, name in ((0, b"zero"), (1, b"one")):
                for _ in range(20):
                    asking.sendto(b"?", (ADDRESS, 7400 + kernel))
                    self.assertEqual(asking.recvfrom(100), (name, (ADDRESS, 7400 + kernel)))
        # Both kernels on one port: Linux's sources are spread over them.
        for kernel, name in ((0, "zero"), (1, "one")):
            server = cob.start(sys.executable, "-c", udp_test.NAMED, 7410, name, kernel=kernel)
            self.assertEqual(server.stdout.readline(), "bound\n")
        done = linux(sys.executable, "-c", udp_test.MANY_SOURCES, ADDRESS, 7410)
        self.assertEqual(done.stdout, "one zero\n", done.stderr)

    def test_datagrams_of_programs_reach_linux(self):
        cob = self.uplinked()
        server = self.linux_process(sys.executable, "-c", udp_test.SOCKETSERVER, 7420)
        self.assertEqual(server.stdout.readline(), "bound\n")
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", udp_test.ASK, HOST, 7420, "from a cob", kernel=kernel)
            self.assertEqual(done.stdout, "FROM A COB", done.stderr)

    def test_closed_datagram_ports_are_refused_both_ways(self):
        cob = self.uplinked()
        refused = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect((sys.argv[1], 7499))
for _ in range(2):
    s.send(b"anyone?")
    try:
        s.recv(100)
    except ConnectionRefusedError:
        print("refused", end=" ")
"""
        done = linux(sys.executable, "-c", refused, ADDRESS)
        self.assertEqual(done.stdout, "refused refused ", done.stderr)
        for kernel in (0, 1):
            done = cob.run(sys.executable, "-c", refused, HOST, kernel=kernel)
            self.assertEqual(done.stdout, "refused refused ", done.stderr)

    def test_datagrams_in_fragments_arrive_whole(self):
        cob = self.uplinked()
        weigh = """
import hashlib, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", int(sys.argv[1])))
print("bound", flush=True)
while True:
    data, source = s.recvfrom(65536)
    s.sendto(b"%d %s" % (len(data), hashlib.sha256(data).hexdigest().encode()), source)
"""
        for kernel in (0, 1):
            server = cob.start(sys.executable, "-c", weigh, 7450 + kernel, kernel=kernel)
            self.assertEqual(server.stdout.readline(), "bound\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            for kernel in (0, 1):
                for size in (1, 2_000, 20_000, 65_507):
                    data = os.urandom(size)
                    asking.sendto(data, (ADDRESS, 7450 + kernel))
                    self.assertEqual(asking.recv(200).decode(), f"{size} {hashlib.sha256(data).hexdigest()}")
        counted = json.loads(cob.named("stats", "--net", "--json").stdout)["sum"]
        self.assertEqual((counted["IpReasmOKs"], counted["IpReasmFails"]), (6, 0))

    def test_datagrams_leave_in_fragments(self):
        cob = self.uplinked()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.settimeout(10)
            server.bind((HOST, 7431))
            send = f"""
import hashlib, os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for size in (1_472, 1_473, 2_952, 2_953, 20_000, 65_507):
    data = os.urandom(size)
    s.sendto(data, ("{HOST}", 7431))
    s.recv(100)  # one at a time: the server's queue bears few of the long ones
    print(size, hashlib.sha256(data).hexdigest())
"""
            for kernel in (0, 1):
                client = cob.start(sys.executable, "-c", send, kernel=kernel)
                seen = []
                for _ in range(6):
                    data, source = server.recvfrom(65536)
                    seen.append(f"{len(data)} {hashlib.sha256(data).hexdigest()}")
                    server.sendto(b"ok", source)
                self.assertEqual(client.communicate(timeout=10)[0].splitlines(), seen)

    def test_a_datagram_that_shall_stay_whole_is_a_frame_at_most(self):
        cob = self.uplinked()
        done = cob.run(sys.executable, "-c", f"""
import errno, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
s.connect(("{HOST}", 7430))
s.send(2000 * b"x")  # more than a frame, and told a moment later
for _ in range(500):
    if problem := s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR): break
    time.sleep(0.01)
print(errno.errorcode.get(problem))
""")
        self.assertEqual(done.stdout, "EMSGSIZE\n", done.stderr)

    @needs("dnsmasq", "dig")
    def test_a_cob_asks_a_name_server(self):
        cob = self.uplinked()
        self.linux_process(shutil.which("dnsmasq"), "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=", "--pid-file=",
                           "--conf-file=/dev/null", "--bind-interfaces", "--no-daemon", f"--listen-address={HOST}", "--port=53",
                           "--address=/x.test/192.0.2.9")
        for kernel in (0, 1):
            done = cob.run("dig", f"@{HOST}", "+short", "+tries=20", "+time=1", "www.x.test", kernel=kernel, timeout=60)
            self.assertEqual(done.stdout, "192.0.2.9\n", done.stderr)

    @needs("nc", "iperf3")
    def test_netcat_and_iperf3_with_datagrams(self):
        cob = self.uplinked()
        with open(cob.directory / "nc", "w") as out:
            cob.start("nc", "-u", "-l", "-p", 7440, kernel=1, stdout=out)
        def arrived():
            linux("sh", "-c", f"echo by datagram | nc -u -w 1 -q 0 {ADDRESS} 7440")
            return (cob.directory / "nc").read_text().startswith("by datagram\n")
        harness.wait_until(arrived, what="nc's datagram")
        with open(cob.directory / "iperf", "w") as out:
            cob.start("iperf3", "-s", "-4", kernel=1, stdout=out, stderr=out)
        servers.wait_for_port(cob, 5201)
        for words in ([], ["-R"]):
            def done():
                result = linux("iperf3", "-u", "-c", ADDRESS, "-t", 1, "-b", "50M", "-l", 1400, "-J", *words)
                return result if result.returncode == 0 and '"sum"' in result.stdout else None
            total = json.loads(harness.wait_until(done, 20, "iperf3").stdout)["end"]["sum"]
            self.assertGreater(total["packets"], 1000)
            self.assertLess(total["lost_percent"], 50)

    # ---- bulk ----

    def transfer(self, cob, what, size):
        other = "receive" if what == "send" else "send"
        server = self.started(cob.start(sys.executable, "-c", servers.TRANSFER, "serve", what, "-", 7200, size, kernel=1))
        done = linux(sys.executable, "-c", servers.TRANSFER, "go", other, ADDRESS, 7200, size, timeout=120)
        self.assertEqual(len(done.stdout), 65, done.stderr)
        self.assertEqual(server.stdout.readline(), done.stdout)

    def test_large_transfers_arrive_whole_both_ways(self):
        cob = self.uplinked()
        self.transfer(cob, "send", 256 << 20)
        self.transfer(cob, "receive", 256 << 20)
        # Linux cuts what leaves in large pieces, and hands in large ones.
        total = {key: self.uplink(cob, key) for key in ("frames_in", "frames_out", "bytes_in", "bytes_out", "dropped")}
        self.assertGreater(total["bytes_out"] / total["frames_out"], 1_000, total)
        self.assertEqual(total["dropped"], 0)

    def test_without_offloads_frames_are_those_of_a_wire(self):
        cob = self.uplinked(words=("--uplink", f"tap:cob0,offload=off,host={HOST}", "--ip", PREFIX))
        for what, way in (("send", "out"), ("receive", "in")):
            before = [self.uplink(cob, f"{count}_{way}") for count in ("bytes", "frames")]
            self.transfer(cob, what, 16 << 20)
            size, frames = (self.uplink(cob, f"{count}_{way}") - b for count, b in zip(("bytes", "frames"), before))
            self.assertGreater(size, 16 << 20)
            self.assertLess(size / frames, 1515, way)
        self.assertEqual(self.uplink(cob, "dropped"), 0)

    @needs("unshare")
    def test_linux_receives_where_it_is_told(self):
        def masks():
            shown = linux("unshare", "-m", "sh", "-c", "mount -t sysfs none /sys && cat /sys/class/net/cob0/queues/rx-*/rps_cpus").stdout
            return {int(mask.replace(",", ""), 16) for mask in shown.split()}
        cob = self.uplinked(words=("--uplink", f"tap:cob0,host={HOST},rps=0", "--ip", PREFIX))
        self.assertEqual(cob.status()["linux_receives"], "on cores 0")
        self.assertIn("Linux receives on cores 0", cob.named("status").stdout)
        self.assertEqual(masks(), {1})
        self.echo(cob, "one", 7000, 1)
        self.assertEqual(answers(7000, 20), {"one": 20})
        self.transfer(cob, "send", 16 << 20)
        cob.down()
        cob = self.uplinked()
        self.assertEqual(cob.status()["linux_receives"], "on the sending kernel's core")
        self.assertEqual(masks(), {0})

    @needs("iperf3")
    def test_iperf3_both_ways(self):
        cob = self.uplinked()
        with open(cob.directory / "iperf", "w") as out:
            cob.start("iperf3", "-s", "-4", kernel=1, stdout=out, stderr=out)
        servers.wait_for_port(cob, 5201)
        for words in ([], ["-R"], ["-P", 4]):
            def done():
                result = linux("iperf3", "-c", ADDRESS, "-t", 1, *words)
                return result if result.returncode == 0 else None  # the probe's connection may still be served
            self.assertRegex(harness.wait_until(done, 20, "iperf3").stdout, r"bits/sec.*receiver")

    @needs("nc")
    def test_netcat(self):
        cob = self.uplinked()
        with open(cob.directory / "nc", "w") as out:
            server = cob.start("nc", "-l", "-p", 7300, kernel=0, stdout=out)
        def connected():
            return linux("sh", "-c", f"echo from outside | nc -w 2 -q 0 {ADDRESS} 7300").returncode == 0
        harness.wait_until(connected, what="nc's listener")
        server.wait(10)
        self.assertEqual((cob.directory / "nc").read_text(), "from outside\n")

    @needs("nc")
    def test_netcat_carries_files_whole(self):
        check_netcat(self, self.uplinked(), HOST, ADDRESS)

    @needs("nginx", "h2load")
    def test_h2load(self):
        check_h2load(self, self.uplinked(), ADDRESS)

    # ---- deaths and refusals ----

    def test_others_serve_while_a_kernel_dies(self):
        cob = self.uplinked()
        self.echo(cob, "zero", 7000, 0)
        self.echo(cob, "one", 7000, 1)
        lines = [Line(7000, 15) for _ in range(40)]
        of = {line: line.ask() for line in lines}
        self.assertEqual(set(of.values()), {"zero", "one"})
        survivors = [line for line in lines if of[line] == "one"]
        cob.kill_kernel(0, lambda: self.assertEqual({line.ask("still") for line in survivors}, {"one"}))
        self.assertEqual({line.ask("after") for line in survivors}, {"one"})
        self.assertEqual({line.ask("gone") for line in lines if of[line] == "zero"}, {None})
        harness.wait_until(lambda: set(answers(7000, 40)) == {"zero", "one"}, 20, "the revived listener's share")
        self.assertEqual({line.ask("at last") for line in survivors}, {"one"})
        for line in lines:
            line.close()

    def test_without_a_steering_program_kernels_hand_frames_on(self):
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            self.skipTest("not installed: setpriv")
        cob = self.cob(up=False)
        bare = [setpriv, "--bounding-set", "-bpf,-sys_admin,-perfmon", "--inh-caps", "-bpf,-sys_admin,-perfmon"]
        done = subprocess.run([*bare, cob.command, "up", "--name", cob.name, "--kernels", "2", *UPLINK], env=cob.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        if cob.note_pids()["steering"] == "eBPF":
            self.skipTest("steering programs need no privilege here")
        self.echo(cob, "one", 7000, 1)
        self.assertEqual(answers(7000, 200), {"one": 200})
        self.echo(cob, "zero", 7001, 0)
        self.assertEqual(answers(7001, 200), {"zero": 200})
        self.assertGreater(self.uplink(cob, "handed_on"), 0)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((ADDRESS, 9000), 10)

    def test_what_cannot_be_is_refused_with_a_remedy(self):
        cob = self.cob(up=False)
        for words, text in ((["--uplink", "tap:"], "1 to 15 bytes"), (["--uplink", "wire:a"], "tap:NAME"),
                            (["--uplink", "tap:cob0,host=10.9.0.1", "--ip", PREFIX], "another address of the cob's network"),
                            (["--uplink", "tap:cob0,offload=on", "--ip", PREFIX], "only host=ADDR, offload=off and rps=CORES"),
                            (["--uplink", "tap:cob0,rps=x", "--ip", PREFIX], "not a core"),
                            (["--uplink", "tap:cob0,rps=0+4000", "--ip", PREFIX], "4000"),
                            (["--gateway", HOST], "needs an --uplink")):
            done = cob.named("up", *words)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(text, done.stderr)
        subprocess.run(["ip", "tuntap", "add", "dev", "single0", "mode", "tap"], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "single0"], check=True)
        done = cob.named("up", "--uplink", "tap:single0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("multi_queue", done.stderr)

    def test_a_device_of_the_users_is_used_and_left(self):
        subprocess.run(["ip", "tuntap", "add", "dev", "own0", "mode", "tap", "multi_queue", "vnet_hdr"], check=True)
        self.addCleanup(subprocess.run, ["ip", "link", "del", "own0"], check=True)
        subprocess.run(["ip", "addr", "add", f"{HOST}/24", "dev", "own0"], check=True)
        subprocess.run(["ip", "link", "set", "own0", "up"], check=True)
        cob = self.uplinked(words=("--uplink", "tap:own0", "--ip", PREFIX))
        self.echo(cob, "one", 7000, 1)
        self.assertEqual(answers(7000, 5), {"one": 5})
        cob.down()
        self.assertEqual(linux("ip", "link", "show", "own0").returncode, 0)

    def test_a_made_device_goes_with_the_cob(self):
        cob = self.uplinked()
        self.assertEqual(linux("ip", "link", "show", "cob0").returncode, 0)
        shown = cob.named("status").stdout
        self.assertIn("UPLINK OF KERNEL", shown)
        cob.named("down", "--wait")
        harness.wait_until(lambda: linux("ip", "link", "show", "cob0").returncode != 0, what="the device's end")


if __name__ == "__main__":
    harness.main()
