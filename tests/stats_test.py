#!/usr/bin/env python3
"""`cob stats`: what kernels count about each other, of a cob with traffic between its kernels."""
import json
import signal
import subprocess
import sys

import harness
from harness import wait_until

ADDRESS = "10.77.0.1"

# Claims a port of its kernel's peers for each listener, and serves on the first.
SERVER = """
import socket
listeners = [socket.create_server(("0.0.0.0", 7000 + i)) for i in range(8)]
print("listening", flush=True)
while True:
    s, _ = listeners[0].accept()
    while data := s.recv(4096): s.sendall(data)
    s.close()
"""
CLIENT = f"""
import socket
for i in range(50):
    with socket.create_connection(("{ADDRESS}", 7000)) as s:
        s.sendall(b"x" * 100)
        s.recv(100)
"""


class StatsTest(harness.CobTest):
    def stats(self, cob, *words):
        done = cob.named("stats", "--json", *words)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def pairs(self, cob, *words):
        """(kernel, peer) -> what the kernel counts about the peer."""
        return {(kernel["kernel"], peer["peer"]): peer for kernel in self.stats(cob, *words)["kernels"]
                for peer in kernel.get("peers", []) if peer["peer"] != kernel["kernel"]}

    def busy_cob(self):
        cob = self.cob(kernels=2)
        wait_until(lambda: all(k["state"] == "asleep" for k in cob.kernels()), what="kernels with nothing to do")
        server = cob.start(sys.executable, "-c", SERVER, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        done = cob.run(sys.executable, "-c", CLIENT, kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        return cob

    def quiet_pairs(self, cob):
        """Once what one has sent is what the other has taken."""
        def settled():
            pairs = self.pairs(cob)
            there, back = pairs[0, 1]["since_start"], pairs[1, 0]["since_start"]
            agree = all(a[f"{what}_out"] == b[f"{what}_in"] for a, b in ((there, back), (back, there))
                        for what in ("messages", "bytes", "requests", "frames"))
            return pairs if agree else None
        return wait_until(settled, what="agreement of the two kernels")

    def test_traffic_is_counted(self):
        pairs = self.quiet_pairs(self.busy_cob())
        for pair in pairs.values():
            self.assertEqual((pair["transport"], pair["connected"], pair["epoch"]), ("coherent", True, 1))
            counted = pair["since_start"]
            self.assertGreater(sum(counted["messages_out"].values()), 0)
            self.assertGreater(counted["bytes_out"], 0)
            self.assertGreaterEqual(counted["frames_out"], 50)
            self.assertEqual(counted["sessions_begun"], 1)
            self.assertEqual((counted["faults"], sum(counted["refused"].values())), (0, 0))
        server = pairs[1, 0]["since_start"]
        self.assertGreater(server["answered"], 0)
        self.assertEqual(server["requests_out"], server["answered"] + sum(server["failed"].values()))
        rung = pairs[1, 0]["since_start"]["doorbells_rung"]
        heard = pairs[0, 1]["since_start"]["doorbells_heard"]
        self.assertGreater(rung, 0)
        self.assertTrue(0 < heard <= rung, (heard, rung))

    def test_latencies(self):
        trips = self.quiet_pairs(self.busy_cob())[1, 0]["since_start"]["round_trip_ns"]
        self.assertGreater(trips["count"], 0)
        self.assertEqual(sum(bucket["count"] for bucket in trips["buckets"]), trips["count"])
        self.assertTrue(0 < trips["p50"] <= trips["p99"] <= trips["p99_9"] <= trips["max"], trips)
        self.assertLess(trips["max"], 10e9)

    def test_table(self):
        lines = self.busy_cob().named("stats").stdout.splitlines()
        self.assertRegex(lines[0], r"^KERNEL +PEER +ISLAND +LINK +EPOCH +MSGS OUT .* P50 US +P99 US +P99\.9 US$")
        self.assertEqual(len(lines), 3)
        for kernel in (0, 1):
            self.assertRegex(lines[1 + kernel], rf"^ +{kernel} +{1 - kernel} +a +coherent +1 ")

    def test_selection(self):
        cob = self.cob(kernels=3)
        wait_until(lambda: len(self.pairs(cob)) == 6, what="all links")
        self.assertEqual(set(self.pairs(cob, "--kernel", 1)), {(1, 0), (1, 2)})
        self.assertEqual(set(self.pairs(cob, "--peer", 2)), {(0, 2), (1, 2)})
        self.assertEqual(set(self.pairs(cob, "-k", 2, "-p", 0)), {(2, 0)})

    def test_rates(self):
        cob = self.busy_cob()
        for words, check in (
                (("--json",), lambda line: json.loads(line)["kernels"][0]["peers"][0]["interval"]["per_second"]["frames_out"]),
                ((), lambda line: "MSGS OUT/S" in line)):
            watch = subprocess.Popen([cob.command, "stats", "--name", cob.name, "--watch", "0.1", *words],
                                     stdout=subprocess.PIPE, text=True, env=cob.environment)
            try:
                seen = []
                while not any(seen):
                    seen.append(check(watch.stdout.readline()))
                    if words:
                        cob.run(sys.executable, "-c", CLIENT, kernel=0)
                    self.assertLess(len(seen), 50)
            finally:
                watch.send_signal(signal.SIGINT)
                watch.wait()
                watch.stdout.close()

    def test_a_peers_new_life(self):
        cob = self.busy_cob()
        cob.kill_kernel(1)
        def again():
            pair = self.pairs(cob).get((0, 1))
            return pair if pair["epoch"] == 2 and pair["connected"] else None
        counted = wait_until(again, what="the link to the new kernel")["since_start"]
        self.assertEqual((counted["sessions_begun"], counted["sessions_ended"]), (2, 1))
        self.assertEqual(self.pairs(cob)[1, 0]["since_start"]["sessions_begun"], 1)  # it counts from its own start

    def test_what_is_refused(self):
        cob = self.cob(kernels=2)
        for words, code, phrase in (
                (("--kernel", 2), 1, f"there is no kernel 2; '{cob.name}' has kernels 0 to 1"),
                (("--peer", 9), 1, f"there is no kernel 9; '{cob.name}' has kernels 0 to 1"),
                (("--kernel", 64), 2, "cob stats --help"),
                (("--peer", "x"), 2, "cob stats --help"),
                (("--watch", 0), 2, "cob stats --help"),
                (("--watch", "soon"), 2, "cob stats --help")):
            with self.subTest(words=words):
                done = cob.named("stats", *words)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(phrase, done.stderr)
                done = cob.named("stats", "--json", *words)
                self.assertEqual(json.loads(done.stdout)["exit"], code)

    def test_watching_ends_with_the_cob(self):
        cob = self.cob(kernels=1)
        watch = subprocess.Popen([cob.command, "stats", "--name", cob.name, "--watch", "0.1"], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, env=cob.environment)
        watch.stdout.readline()
        cob.down()
        said = watch.communicate(timeout=30)[1]
        self.assertEqual(watch.returncode, 1)
        self.assertRegex(said, r"^cob: the cob's supervisor (is gone|hung up)")


if __name__ == "__main__":
    harness.main()
