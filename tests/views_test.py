#!/usr/bin/env python3
"""Seeing the network: `cob ss`, `cob ip`, `cob stats --net` and `cob capture`, of a cob with nginx, ab and idle connections."""
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

import harness
import servers
from harness import wait_until

ADDRESS = servers.ADDRESS

# Accepts and never reads; says when it has so many.
HOLDER = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 7000), backlog=4096)
print("listening", flush=True)
held = []
while True:
    held.append(listener.accept()[0])
    if len(held) == int(sys.argv[1]): print("held", flush=True)
"""
# Opens so many connections, sends bytes on the first, and stays.
OPENER = f"""
import socket, sys
held = [socket.create_connection(("{ADDRESS}", 7000)) for i in range(int(sys.argv[1]))]
held[0].sendall(b"x" * 1234)
print("open", flush=True)
sys.stdin.read()
"""


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class ViewsTest(harness.CobTest):
    def view(self, cob, *words):
        done = cob.named(*words, "--json")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def sockets(self, cob, *words):
        found = self.view(cob, "ss", *words)
        self.assertTrue(found["whole"], found)
        return found["sockets"]

    def holding(self, count, cob=None):
        """A holder on kernel 1, `count` connections to it from kernel 0."""
        cob = cob or self.cob(kernels=2)
        holder = cob.start(sys.executable, "-c", HOLDER, count, kernel=1)
        self.assertEqual(holder.stdout.readline(), "listening\n")
        opener = cob.start(sys.executable, "-c", OPENER, count, kernel=0, stdin=subprocess.PIPE)
        self.assertEqual(opener.stdout.readline(), "open\n")
        self.assertEqual(holder.stdout.readline(), "held\n")
        return cob, holder, opener

    # ---- ss ----

    def test_listeners_and_both_ends_of_connections(self):
        cob, holder, opener = self.holding(3)
        listener, = self.sockets(cob, "-l")
        self.assertEqual((listener["state"], listener["local"]["port"], listener["kernel"]), ("LISTEN", 7000, 1))
        self.assertEqual((listener["recv_q"], listener["send_q"]), (0, 4096))
        self.assertEqual([p["pid"] for p in listener["processes"]], [holder.pid])
        self.assertIn("python", listener["processes"][0]["command"])
        ends = self.sockets(cob, "state", "established", "sport = :7000 or dport = :7000")
        self.assertEqual(len(ends), 6)
        by_kernel = {k: [e for e in ends if e["kernel"] == k] for k in (0, 1)}
        self.assertEqual({e["processes"][0]["pid"] for e in by_kernel[0]}, {opener.pid})
        self.assertEqual({e["processes"][0]["pid"] for e in by_kernel[1]}, {holder.pid})
        self.assertEqual({e["peer"]["by"] for e in by_kernel[0]}, {"kernel1"})
        self.assertEqual({e["local"]["port"] for e in by_kernel[0]}, {e["peer"]["port"] for e in by_kernel[1]})
        self.assertEqual(sorted(e["recv_q"] for e in by_kernel[1]), [0, 0, 1234])
        def acknowledged():
            ends = self.sockets(cob, "-k", "0", "state", "established")
            return [e for e in ends if e["info"]["bytes_sent"] == 1234 and e["send_q"] == 0]
        sender, = wait_until(acknowledged, what="the acknowledgement")
        self.assertTrue(sender["info"]["timestamps"])
        self.assertGreater(sender["info"]["cwnd_bytes"], 0)
        self.assertGreater(sender["info"]["rto_us"], 0)

    def test_text_and_filters(self):
        cob, holder, opener = self.holding(2)
        lines = cob.named("ss", "-tlnp").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["State", "Recv-Q", "Send-Q", "Local:Port", "Peer:Port", "Kernel", "Process"])
        self.assertRegex(lines[1], rf'^LISTEN +0 +4096 +0\.0\.0\.0:7000 +0\.0\.0\.0:\* +1 +users:\(\("python3?[^"]*",pid={holder.pid}\)\)$')
        self.assertEqual(len(lines), 2)
        done = cob.named("ss", "-tinmoe", "dport", "=", ":7000")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 1 + 2 * 2)  # a line and one below
        self.assertRegex(lines[1], rf"^ESTAB .* {ADDRESS}:\d+ +{ADDRESS}:7000 +0 .*peer:kernel1")
        self.assertRegex(lines[2], r"^\t skmem:\(r0,rb\d+,t0,tb\d+\) ts sack cubic wscale:7,7 rto:\S+ .*mss:\d+ cwnd:\d+ bytes_sent:")
        self.assertEqual(len(cob.named("ss", "-an").stdout.splitlines()), 1 + 1 + 4)
        self.assertEqual(len(cob.named("ss", "-an", "dst", "10.78.0.0/16").stdout.splitlines()), 1)
        self.assertEqual(len(cob.named("ss", "-tan", "src", "10.77.0.0/16").stdout.splitlines()), 1 + 4)
        self.assertEqual(len(cob.named("ss", "-ua").stdout.splitlines()), 1)
        summary = cob.named("ss", "-s").stdout
        self.assertIn("TCP:   5 (estab 4, listen 1, orphaned 0, timewait 0)", summary)

    def test_datagram_sockets(self):
        cob = self.cob(kernels=2)
        holder = cob.start(sys.executable, "-c", f"""
import socket, sys
bound, joined = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
bound.bind(("{ADDRESS}", 7053)); joined.connect(("{ADDRESS}", 7053)); joined.send(b"four")
print("bound", flush=True); sys.stdin.read()
""", kernel=1, stdin=subprocess.PIPE)
        self.assertEqual(holder.stdout.readline(), "bound\n")
        connected, = self.sockets(cob, "-u")
        self.assertEqual((connected["protocol"], connected["state"], connected["kernel"]), ("udp", "ESTAB", 1))
        self.assertEqual(connected["peer"], {"address": ADDRESS, "port": 7053})
        bound, = self.sockets(cob, "-ul")
        self.assertEqual((bound["state"], bound["local"]["port"]), ("UNCONN", 7053))
        wait_until(lambda: self.sockets(cob, "-ul")[0]["recv_q"] == 32 + 4, what="the datagram in the queue")
        self.assertEqual([p["pid"] for p in bound["processes"]], [holder.pid])
        self.assertEqual(len(self.sockets(cob, "-ua")), 2)
        self.assertEqual(self.sockets(cob, "-ta"), [])
        self.assertRegex(cob.named("ss", "-an").stdout, rf"(?m)^udp +UNCONN +36 +0 +{ADDRESS}:7053 +0\.0\.0\.0:\* +1$")
        self.assertIn("UDP:   2", cob.named("ss", "-s").stdout)

    def test_congestion_control_is_the_cobs_or_the_sockets(self):
        cob = self.cob(up=False)
        self.assertEqual(cob.named("up", "--congestion", "vegas").returncode, 2)
        cob.up("--kernels", 2, "--congestion", "reno", "--ecn", "on")
        self.holding(1, cob)
        ends = self.sockets(cob, "-t")
        self.assertEqual({(e["info"]["congestion_control"], e["info"]["ecn"]) for e in ends}, {("reno", True)})
        done = cob.run(sys.executable, "-c", f"""
import socket
s = socket.socket()
print(s.getsockopt(6, 13, 16).rstrip(b"\\0").decode())
s.setsockopt(6, 13, b"cubic")
s.connect(("{ADDRESS}", 7000))
print(s.getsockopt(6, 13, 16).rstrip(b"\\0").decode())
""")
        self.assertEqual(done.stdout, "reno\ncubic\n", done.stderr)

    def test_time_wait(self):
        cob = self.cob(kernels=2)
        holder = cob.start(sys.executable, "-c", """
import socket
listener = socket.create_server(("0.0.0.0", 7000))
print("listening", flush=True)
while True:
    s, _ = listener.accept()
    s.recv(1)
    s.close()
""", kernel=1)
        holder.stdout.readline()
        done = cob.run(sys.executable, "-c", f"import socket\nfor i in range(5): socket.create_connection(('{ADDRESS}', 7000)).close()", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        rest = wait_until(lambda: len(found := self.sockets(cob, "state", "time-wait")) == 5 and found, what="5 in TIME-WAIT")
        self.assertTrue(all(0 < s["timer"]["ms"] <= 60_000 and s["timer"]["kind"] == "timewait" for s in rest), rest)
        self.assertEqual([s for s in self.sockets(cob) if s["state"] == "TIME-WAIT"], [])  # not by default
        self.assertEqual(sum(s["state"] == "TIME-WAIT" for s in self.sockets(cob, "-a")), 5)

    def test_ten_thousand_come_whole(self):
        count = 5000  # connections: 10,000 ends
        cob, holder, opener = self.holding(count)
        found = self.sockets(cob, "state", "established")
        self.assertEqual(len(found), 2 * count)
        self.assertEqual(len({(s["kernel"], s["local"]["port"], s["peer"]["port"]) for s in found}), 2 * count)
        opener.stdin.close()

    def test_a_stopped_kernel_hangs_nothing(self):
        cob, holder, opener = self.holding(2)
        pid = cob.kernels()[1]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            done = cob.named("ss", "-a", "--json", timeout=30)
            self.assertEqual(done.returncode, 1)
            found = json.loads(done.stdout)
            self.assertFalse(found["whole"])
            self.assertEqual(found["problems"], [{"kernel": 1, "error": "kernel 1 does not answer: is it stopped?"}])
            self.assertEqual({s["kernel"] for s in found["sockets"]}, {0})
            done = cob.named("ss", timeout=30)
            self.assertEqual(done.returncode, 1)
            self.assertIn("cob: kernel 1 does not answer: is it stopped?; the list lacks sockets of kernel 1", done.stderr)
            for words in (("ip", "-s"), ("ip", "neigh"), ("stats", "--net")):
                done = cob.named(*words, timeout=30)
                self.assertEqual(done.returncode, 1)
                self.assertIn("kernel 1 does not answer", done.stderr)
            done = cob.named("capture", "-o", cob.directory / "x.pcapng", "--seconds", "0.1", timeout=30)
            self.assertEqual(done.returncode, 1)
            self.assertIn("kernel 1 does not answer: is it stopped?; its frames are missing", done.stderr)
        finally:
            os.kill(pid, signal.SIGCONT)
        # What waited for it was let go; it answers again.
        wait_until(lambda: cob.named("ss", "-a").returncode == 0, what="an answer of the kernel that was stopped")
        self.assertEqual(len(self.sockets(cob, "state", "established")), 4)

    def test_what_is_refused(self):
        cob = self.cob(kernels=2)
        for words, code, phrase in (
                (("ss", "state", "fine"), 2, "'fine' is no state"),
                (("ss", "dport", "=", ":http"), 2, "'http' is no port"),
                (("ss", "-k", 2), 1, f"there is no kernel 2; '{cob.name}' has kernels 0 to 1"),
                (("ip", "tunnel"), 2, "'tunnel' is none of addr, link, neigh, route"),
                (("ip", "addr", "add"), 2, "cob ip --help"),
                (("stats", "--net", "--watch", 1), 2, "--net goes with"),
                (("capture",), 2, "cob capture --help"),
                (("capture", "-o", "x", "-f", "port http"), 2, "'http' is no port"),
                (("capture", "-o", cob.directory / "x", "-k", 2), 1, f"there is no kernel 2; '{cob.name}' has kernels 0 to 1"),
                (("capture", "-o", "/nonexistent/x"), 1, "/nonexistent/x: No such file or directory")):
            with self.subTest(words=words):
                done = cob.named(*words)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(phrase, done.stderr)

    # ---- ip, stats --net ----

    def test_ip(self):
        cob, holder, opener = self.holding(2)
        text = cob.named("ip").stdout
        self.assertRegex(text, r"^1: cob0: <UP,LOWER_UP> mtu \d+ state UP queues 2\n    link/ether 02:c0:b0:4d:00:01 brd ff:ff:ff:ff:ff:ff\n"
                               rf"    inet {ADDRESS}/24 scope global cob0\n$")
        self.assertNotIn("inet", cob.named("ip", "l").stdout)
        link, = self.view(cob, "ip", "-s", "link")
        self.assertEqual(link["address"], "02:c0:b0:4d:00:01")
        self.assertEqual([k["kernel"] for k in link["kernels"]], [0, 1])
        for way in ("rx", "tx"):
            for what in ("bytes", "packets"):
                self.assertGreater(link["stats64"][way][what], 0)
                self.assertEqual(link["stats64"][way][what], sum(k[way][what] for k in link["kernels"]))
        self.assertIn("RX BYTES", cob.named("ip", "-s", "addr").stdout)
        self.assertEqual(self.view(cob, "ip", "neigh"), [])
        self.assertIn({"type": "unicast", "dst": "10.77.0.0/24", "dev": "cob0", "scope": "link", "prefsrc": ADDRESS},
                      self.view(cob, "ip", "route"))
        self.assertIn(f"10.77.0.0/24 dev cob0 scope link src {ADDRESS}\n", cob.named("ip", "r", "show").stdout)
        self.assertEqual(self.view(cob, "ip", "addr")[0]["addr_info"][0]["local"], ADDRESS)

    def test_counters(self):
        cob, holder, opener = self.holding(7)
        counted = self.view(cob, "stats", "--net")
        own = {k["kernel"]: k["counters"] for k in counted["kernels"]}
        self.assertEqual((own[0]["TcpActiveOpens"], own[1]["TcpPassiveOpens"]), (7, 7))
        self.assertEqual((own[1]["TcpActiveOpens"], own[0]["TcpPassiveOpens"]), (0, 0))
        self.assertEqual(counted["sum"]["TcpActiveOpens"], 7)
        self.assertGreaterEqual(counted["sum"]["TcpInSegs"], 7 * 3)
        text = cob.named("stats", "--net").stdout
        self.assertRegex(text, r"(?m)^TcpActiveOpens +7 +7 +0$")
        self.assertNotIn("TcpExtPAWSEstab", text)
        self.assertRegex(cob.named("stats", "--net", "-z").stdout, r"(?m)^TcpExtPAWSEstab +0 +0 +0$")
        self.assertEqual([k["kernel"] for k in self.view(cob, "stats", "--net", "-k", 1)["kernels"]], [1])

    # ---- capture ----

    def capturing(self, cob, *words):
        capture = subprocess.Popen([cob.command, "capture", "--name", cob.name, *map(str, words)], env=cob.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: (capture.kill(), capture.wait(), capture.stdout.close(), capture.stderr.close()))
        line = capture.stderr.readline().decode()
        self.assertIn("capturing kernel", line)
        return capture

    def finish(self, capture, code=0):
        capture.send_signal(signal.SIGINT)
        out, said = capture.communicate(timeout=60)
        self.assertEqual(capture.returncode, code, said)
        return out, said.decode()

    def tshark(self, file, *words, data=None):
        done = subprocess.run(["tshark", "-n", "-r", file, *words], input=data, capture_output=True, timeout=120,
                              env={**os.environ, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().splitlines()

    @needs("nginx", "ab", "tshark")
    def test_tshark_finds_the_requests(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob, port=80)
        file = cob.directory / "web.pcapng"
        capture = self.capturing(cob, "-o", file, "-f", "tcp port 80")
        done = cob.run("ab", "-q", "-n", 200, "-c", 4, f"http://{ADDRESS}/memory", kernel=0)
        self.assertIn("Complete requests:      200", done.stdout)
        _, said = self.finish(capture)
        self.assertRegex(said, r"cob: \d+ frames to \S+web\.pcapng, 0 lost\n")
        requests = self.tshark(file, "-Y", "http.request", "-T", "fields", "-e", "http.request.uri", "-e", "frame.interface_name")
        self.assertEqual(requests, ["/memory\tkernel0"] * 200)
        responses = self.tshark(file, "-Y", "http.response.code == 200", "-T", "fields", "-e", "http.file_data",
                                "-e", "frame.interface_name", "-e", "tcp.stream")
        self.assertEqual(len(responses), 200)
        self.assertEqual(len({line.split("\t")[2] for line in responses}), 200)
        self.assertEqual({line.split("\t")[1] for line in responses}, {"kernel1"})
        checks = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
        self.assertEqual(self.tshark(file, *checks, "-Y", "tcp.checksum.status != 1 || ip.checksum.status != 1"), [])
        odd = self.tshark(file, "-Y", "tcp.analysis.retransmission || tcp.analysis.lost_segment || tcp.analysis.out_of_order "
                                      "|| tcp.analysis.ack_lost_segment || _ws.malformed")
        self.assertEqual(odd, [])
        comments = set(self.tshark(file, "-T", "fields", "-e", "frame.comment"))
        self.assertEqual(comments, {"to kernel 0, checksums by the capture", "to kernel 1, checksums by the capture"})
        times = [float(t) for t in self.tshark(file, "-T", "fields", "-e", "frame.time_epoch")]
        self.assertEqual(times, sorted(times))

    @needs("tshark")
    def test_a_pipe_a_count_and_one_kernel(self):
        cob, holder, opener = self.holding(1)
        captures = [self.capturing(cob, "-o", "-", "-k", 1, "-s", 60), self.capturing(cob, "-o", "-", "--both-ends")]
        done = cob.run(sys.executable, "-c", f"import socket; socket.create_connection(('{ADDRESS}', 7000)).sendall(b'y' * 500)", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: self.sockets(cob, "state", "fin-wait-2"), what="the last acknowledgement, of the end")
        alone, both = (self.finish(c)[0] for c in captures)
        fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "frame.len", "-e", "frame.cap_len"]
        rows = [line.split("\t") for line in self.tshark("-", *fields, data=alone)]
        self.assertEqual({row[0] for row in rows}, {"kernel1"})
        self.assertEqual({row[1][-1] for row in rows}, {"1", "2"})  # in and out: kernel 0 is not captured
        self.assertTrue(all(int(row[3]) == min(int(row[2]), 60) for row in rows), rows)
        self.assertGreater(max(int(row[2]) for row in rows), 500)
        rows = [line.split("\t")[:2] for line in self.tshark("-", *fields, data=both)]
        self.assertEqual(sum(r[0] == "kernel0" for r in rows), sum(r[0] == "kernel1" for r in rows))
        capture = self.capturing(cob, "-o", cob.directory / "few.pcapng", "-c", 2)
        cob.run(sys.executable, "-c", f"import socket; socket.create_connection(('{ADDRESS}', 7000)).sendall(b'y')", kernel=0)
        self.assertIn(b"cob: 2 frames", capture.communicate(timeout=60)[1])
        self.assertEqual(len(self.tshark(cob.directory / "few.pcapng")), 2)

    def test_a_capture_ends_with_its_kernel_and_with_its_reader(self):
        cob, holder, opener = self.holding(1)
        capture = self.capturing(cob, "-o", cob.directory / "x.pcapng", "-k", 1)
        cob.kill_kernel(1)
        said = capture.communicate(timeout=60)[1].decode()
        self.assertEqual(capture.returncode, 1)
        self.assertIn("cob: kernel 1 ended; its frames end there", said)
        capture = self.capturing(cob, "-o", "-", "--seconds", 30)
        capture.stdout.close()
        listening = cob.start(sys.executable, "-c", HOLDER.replace("7000", "7001"), 1, kernel=1)
        listening.stdout.readline()
        def traffic():
            cob.run(sys.executable, "-c", f"import socket; socket.create_connection(('{ADDRESS}', 7001)).close()", kernel=0)
            return capture.poll() is not None
        wait_until(traffic, 20, "the end of a capture that nobody reads")
        self.assertEqual(capture.returncode, 0)
        capture.stdout = open(os.devnull)

    def test_so_many_captures(self):
        cob = self.cob(kernels=1)
        captures = [self.capturing(cob, "-o", cob.directory / f"{i}.pcapng") for i in range(4)]
        done = cob.named("capture", "-o", cob.directory / "4.pcapng")
        self.assertEqual(done.returncode, 1)
        self.assertIn("kernel 0: as many captures run there as may", done.stderr)
        self.finish(captures[0])
        def again():
            return cob.named("capture", "-o", cob.directory / "4.pcapng", "--seconds", "0.05").returncode == 0
        wait_until(again, what="the place that a capture left")


class LiarTest(harness.CobTest):
    """Kernels that tell what cannot be: they are not believed, and the command goes on without them."""
    double = True

    def test_views_that_lie(self):
        cob = self.cob(kernels=1, environment={"COB_DOUBLE": "lying-view"})
        for words in (("ss",), ("ip",), ("ip", "neigh"), ("stats", "--net"), ("capture", "-o", cob.directory / "x")):
            with self.subTest(words=words):
                done = cob.named(*words)
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                self.assertIn("kernel 0 answers gibberish", done.stderr)

    def test_a_ring_of_noise(self):
        cob = self.cob(kernels=1, environment={"COB_DOUBLE": "garbage-ring"})
        done = cob.named("capture", "-o", cob.directory / "x.pcapng")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("cob: kernel 0 wrote garbage into its ring; its frames end there", done.stderr)
        self.assertIn("cob: 0 frames to", done.stderr)

    def test_silence(self):
        cob = self.cob(kernels=3, cores="0,0,0")
        done = cob.named("ss", "--json", timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertEqual([p["kernel"] for p in json.loads(done.stdout)["problems"]], [0, 1, 2])


if __name__ == "__main__":
    harness.main()
