"""Names resolved by programs on a cob with an uplink: by glibc (getaddrinfo(3), resolv.conf(5)), whose own sockets stay the host's, and by
resolvers of their own, whose queries leave by the uplink, over UDP and TCP.

Needs root (namespaces of the test's own for the network and for /etc/resolv.conf); without it everything is skipped by name.
"""
import contextlib
import ctypes
import http.server
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import threading
import unittest

import harness
import tap_test

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
A, PTR, AAAA = 1, 12, 28
SILENT = "10.7.0.77"  # in the uplink's network, and nobody's


def own_resolv_conf():
    """A file that /etc/resolv.conf is for this process and its children; None: the mounts cannot be had."""
    if tap_test.NO_NAMESPACE:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    file = tempfile.NamedTemporaryFile("w", prefix="cob-resolv-", delete=False)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return None
    if libc.mount(file.name.encode(), os.path.realpath("/etc/resolv.conf").encode(), None, MS_BIND, None) != 0:
        return None
    return file.name


def name_of(query):
    """The name asked for, and the bytes of the question."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    return ".".join(labels).lower(), query[12:at + 5]


def read_message(file):
    """RFC 1035 4.2.2: two bytes of length before it."""
    size = file.read(2)
    message = file.read(int.from_bytes(size, "big"))
    if len(message) < 17:
        raise EOFError
    return message


class NameServer:
    """RFC 1035 4.1 and 4.2 for a handful of names. Answers above 512 bytes are truncated over UDP."""

    def __init__(self, address, records):
        self.records = records  # {(name, type): [data]}
        self.seen = []          # (protocol, who asked, name, type)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for s in (self.udp, self.tcp):
            s.bind((address, 53))
        self.tcp.listen()
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def answer(self, protocol, peer, query):
        name, question = name_of(query)
        kind = struct.unpack("!H", question[-4:-2])[0]
        self.seen.append((protocol, peer[0], name, kind))
        known = any(n == name for n, _ in self.records)
        data = self.records.get((name, kind), [])
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(d)) + d for d in data)
        flags = 0x8180 | (0 if known else 3)
        if protocol == "udp" and 12 + len(question) + len(body) > 512:
            return query[:2] + struct.pack("!HHHHH", flags | 0x200, 1, 0, 0, 0) + question
        return query[:2] + struct.pack("!HHHHH", flags, 1, len(data), 0, 0) + question + body

    def serve_udp(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.udp.recvfrom(65536)
                if len(query) < 17:
                    return  # it was shut down
                self.udp.sendto(self.answer("udp", peer, query), peer)

    def serve_tcp(self):
        with contextlib.suppress(OSError):
            while True:
                line, peer = self.tcp.accept()
                with line, contextlib.suppress(EOFError), line.makefile("rb") as file:
                    while True:
                        query = read_message(file)
                        answer = self.answer("tcp", peer, query)
                        line.sendall(struct.pack("!H", len(answer)) + answer)

    def close(self):
        for s in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


RECORDS = {
    ("www.cob.test", A): [socket.inet_aton(tap_test.HOST)],
    ("both.cob.test", A): [socket.inet_aton("10.7.0.9")],
    ("both.cob.test", AAAA): [socket.inet_pton(socket.AF_INET6, "2001:db8::9")],
    ("many.cob.test", A): [socket.inet_aton(f"10.9.{i // 250}.{i % 250 + 1}") for i in range(500)],
    ("1.0.7.10.in-addr.arpa", PTR): [b"\3www\3cob\4test\0"],
}
ASK = """
import socket, sys
try: print(sorted({i[4][0] for i in socket.getaddrinfo(sys.argv[1], 80, proto=socket.IPPROTO_TCP)}))
except socket.gaierror as e: print(e.errno == socket.EAI_NONAME and "no such name" or e)
"""
# A resolver of its own: over UDP, and over TCP what was truncated. Prints how it was told, and how many addresses.
OWN = f"""
import socket, struct, sys
name = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split(".")) + b"\\0"
query = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.connect(("{tap_test.HOST}", 53))
u.settimeout(5)
u.send(query)
how, answer = "udp", u.recv(4096)
if answer[2] & 2:
    t = socket.create_connection(("{tap_test.HOST}", 53), 5)
    t.sendall(struct.pack("!H", len(query)) + query)
    file = t.makefile("rb")
    how, answer = "tcp", file.read(struct.unpack("!H", file.read(2))[0])
print(how, struct.unpack("!H", answer[6:8])[0])
"""
THREADS = """
import socket, threading
def ask(i):
    for _ in range(20): found.append(socket.getaddrinfo("www.cob.test", 80, proto=socket.IPPROTO_TCP)[0][4][0])
found = []
threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(len(found), set(found))
"""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"of " + self.headers["Host"].encode())

    def log_message(self, *_):
        pass


@unittest.skipIf(tap_test.NO_NAMESPACE, tap_test.NO_NAMESPACE)
@unittest.skipIf((RESOLV_CONF := own_resolv_conf()) is None, "a mount over /etc/resolv.conf cannot be had here")
class ResolverTest(harness.CobTest):
    @classmethod
    def tearDownClass(cls):
        ctypes.CDLL(None).umount2(os.path.realpath("/etc/resolv.conf").encode(), 2)
        os.unlink(RESOLV_CONF)

    def setUp(self):
        self.the_cob = self.cob(up=False)
        self.the_cob.up("--kernels", 2, *tap_test.UPLINK)
        self.server = NameServer(tap_test.HOST, RECORDS)
        self.addCleanup(self.server.close)
        self.name_servers(tap_test.HOST)

    def name_servers(self, *addresses, options="timeout:1 attempts:2"):
        pathlib.Path(RESOLV_CONF).write_text("".join(f"nameserver {a}\n" for a in addresses) + f"options {options}\n")

    def ask(self, name, kernel=0, **options):
        done = self.the_cob.run("python3", "-c", ASK, name, kernel=kernel, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def asked(self, wanted, by):
        """Queries seen, all of them from the address `by`."""
        self.assertEqual({peer for _, peer, _, _ in self.server.seen}, {by})
        return [(protocol, kind) for protocol, _, name, kind in self.server.seen if name == wanted]

    def test_resolvers_of_their_own_ask_by_the_uplink(self):
        for kernel in (0, 1):
            done = self.the_cob.run("python3", "-c", OWN, "www.cob.test", kernel=kernel)
            self.assertEqual(done.stdout, "udp 1\n", done.stderr)
            done = self.the_cob.run("python3", "-c", OWN, "many.cob.test", kernel=kernel)
            self.assertEqual(done.stdout, "tcp 500\n", done.stderr)
        self.assertEqual(self.asked("www.cob.test", tap_test.ADDRESS), [("udp", A)] * 2)
        self.assertEqual(sorted(self.asked("many.cob.test", tap_test.ADDRESS)), [("tcp", A)] * 2 + [("udp", A)] * 2)

    @tap_test.needs("dig")
    def test_dig(self):
        for words, how in (("+notcp",), "udp"), (("+tcp",), "tcp"):
            done = self.the_cob.run("dig", f"@{tap_test.HOST}", "+short", "+time=5", "+tries=1", *words, "www.cob.test", "A")
            self.assertEqual(done.stdout, tap_test.HOST + "\n", done.stderr)
            self.assertEqual(self.server.seen.pop()[:2], (how, tap_test.ADDRESS))

    def test_glibc_asks_from_the_host(self):
        for kernel in (0, 1):
            self.assertEqual(self.ask("www.cob.test", kernel=kernel), f"['{tap_test.HOST}']")
        self.assertEqual(sorted(self.asked("www.cob.test", tap_test.HOST)), [("udp", A)] * 2 + [("udp", AAAA)] * 2)

    def test_addresses_of_both_families(self):
        self.assertEqual(self.ask("both.cob.test"), "['10.7.0.9', '2001:db8::9']")

    def test_no_such_name(self):
        self.assertEqual(self.ask("nobody.cob.test"), "no such name")

    def test_a_truncated_answer_comes_over_tcp(self):
        found = self.ask("many.cob.test")
        self.assertEqual(found.count("10.9."), 500)
        self.assertIn(("tcp", A), self.asked("many.cob.test", tap_test.HOST))

    def test_tcp_alone(self):
        self.name_servers(tap_test.HOST, options="use-vc")
        self.assertEqual(self.ask("www.cob.test"), f"['{tap_test.HOST}']")
        self.assertEqual({protocol for protocol, _ in self.asked("www.cob.test", tap_test.HOST)}, {"tcp"})

    def test_a_silent_name_server_is_passed_over(self):
        self.name_servers(SILENT, tap_test.HOST)
        self.assertEqual(self.ask("www.cob.test"), f"['{tap_test.HOST}']")

    def test_a_port_that_refuses_is_passed_over(self):
        """ICMP port unreachable: nobody serves at the second of Linux's addresses."""
        subprocess.run(["ip", "address", "add", "10.7.0.3/32", "dev", "lo"], check=True)
        self.addCleanup(subprocess.run, ["ip", "address", "del", "10.7.0.3/32", "dev", "lo"], check=True)
        self.name_servers("10.7.0.3", tap_test.HOST, options="timeout:5")
        self.assertEqual(self.ask("www.cob.test"), f"['{tap_test.HOST}']")

    def test_one_query_at_a_time(self):
        self.name_servers(tap_test.HOST, options="single-request-reopen")
        self.assertEqual(self.ask("both.cob.test"), "['10.7.0.9', '2001:db8::9']")

    def test_getent_and_the_way_back(self):
        done = self.the_cob.run("getent", "ahostsv4", "www.cob.test")
        self.assertIn(tap_test.HOST, done.stdout)
        done = self.the_cob.run("getent", "hosts", tap_test.HOST)
        self.assertIn("www.cob.test", done.stdout)

    def test_threads_ask_at_once(self):
        done = self.the_cob.run("python3", "-c", THREADS)
        self.assertEqual(done.stdout.strip(), f"160 {{'{tap_test.HOST}'}}", done.stderr)

    @tap_test.needs("curl")
    def test_curl_by_name(self):
        page = http.server.HTTPServer((tap_test.HOST, 8080), Page)
        threading.Thread(target=page.serve_forever, daemon=True).start()
        self.addCleanup(page.server_close)
        self.addCleanup(page.shutdown)
        done = self.the_cob.run("curl", "-s", "--max-time", "10", "http://www.cob.test:8080/")
        self.assertEqual(done.stdout, "of www.cob.test:8080", done.stderr)


if __name__ == "__main__":
    harness.main()
