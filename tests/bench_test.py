#!/usr/bin/env python3
"""e2e.bench_smoke: every `cob bench` command, as short as it goes, prints a table and writes flat JSON with its keys.

    bench_test.py PATH/TO/cob

No figure is judged: machines differ and tests run beside each other. Skips loudly (exit 77) what the machine lacks.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

COB = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
PROGRAMS = ["nginx", "ab", "redis-server", "redis-benchmark", "redis-cli", "curl"]
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
FLOOR = ["line_8", "line_64", "system_call", "yield_pair", "futex_wake", "futex_wake_hog", "eventfd", "dup_close",
         "first_touch", "second_mapping_touch"]


def bench(*words, timeout=150):
    """(exit status, figures, what was printed)"""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run([COB, "bench", *words, "--json", file.name], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout)
        text = file.read().decode()
        return done.returncode, json.loads(text) if text else None, done.stdout


def needs_programs():
    missing = [p for p in PROGRAMS if shutil.which(p, path=PATH) is None]
    if missing:
        raise unittest.SkipTest("missing: " + " ".join(missing))


def left_behind():
    """Names of private cobs and processes that carry a benchmark's marks."""
    marks = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                command = file.read().strip()
        except OSError:
            continue
        if ("/cob-bench-" in line or command == "cob-bench-hog") and int(pid) != os.getpid():
            marks.append(f"{pid}: {command} {line}")
    return marks


class Bench(unittest.TestCase):
    def figures(self, words, keys, status=0):
        code, figures, printed = bench(*words)
        self.assertEqual(code, status, printed)
        self.assertIsInstance(figures, dict, printed)
        for key, value in figures.items():
            self.assertIsInstance(value, (int, float), key)
            self.assertNotIsInstance(value, bool, key)
        for key in keys:
            self.assertIn(key, figures, printed)
        return figures, printed

    def test_floor(self):
        keys = [f"{k}_{suffix}" for k in FLOOR for suffix in ("ns", "p99_ns", "runs")]
        figures, printed = self.figures(["floor", "--seconds", "0.05", "--rounds", "1"], keys)
        self.assertIn("median", printed)
        self.assertGreater(figures["line_8_ns"], 0)

    def test_messages(self):
        self.figures(["messages", "--seconds", "0.2", "--rounds", "1"],
                     ["message_typed_ns", "message_bare_over_line", "message_typed_over_line"])

    def test_peers(self):
        """The one peer that needs no package; the others' programs are the same in what this command does with them."""
        keys = [f"peer_unix_socket_{size}_{k}" for size in (8, 64, 4096, 1048576) for k in ("rtt_p50_ns", "rtt_p99_ns", "per_s")]
        figures, printed = self.figures(["peers", "--only", "unix_socket", "--seconds", "0.1", "--rounds", "1"], keys)
        self.assertGreater(figures["peer_unix_socket_64_per_s"], 0, printed)

    def test_a_missing_peer_is_a_row(self):
        with tempfile.TemporaryDirectory() as empty:
            os.environ["COB_PEERS"] = empty
            try:
                figures, printed = self.figures(["peers", "--only", "nng"], ["peer_nng_missing"])
            finally:
                del os.environ["COB_PEERS"]
        self.assertEqual(figures, {"peer_nng_missing": 1})
        self.assertIn("apt-get install libnng-dev", printed)

    def test_calls(self):
        keys = ["line_64_ns", "yield_pair_ns", "call_ns", "call_over_line", "call_same_core_ns",
                "receive_miss_ratio", "echo_ratio", "echo_same_core_ratio"]
        self.figures(["calls", "--seconds", "0.1", "--rounds", "1"], keys)

    def test_servers(self):
        needs_programs()
        cases = ["nginx_close", "nginx_close_static", "nginx_keepalive", "nginx_close_hog", "redis_get", "redis_get_p16",
                 "nginx_close_static_c1", "nginx_close_static_c8", "nginx_keepalive_c1", "nginx_keepalive_c8"]
        keys = [f"{c}_{k}" for c in cases
                for k in ("ratio", "cob_per_s", "linux_per_s", "cob_p50_us", "cob_p99_us", "linux_p50_us",
                          "linux_p99_us", "rounds", "voided")]
        figures, printed = self.figures(
            ["servers", "--seconds", "0.05", "--rounds", "1", "--only", ",".join(cases)],
            keys + ["nginx_server_cost_ratio"])
        for case in cases:
            self.assertEqual(figures[f"{case}_failed"], 0, printed)
        self.assertEqual(left_behind(), [])

    def test_servers_on_linux_alone(self):
        needs_programs()
        figures, printed = self.figures(
            ["servers", "--linux-only", "--seconds", "0.05", "--rounds", "1", "--only", "nginx_close_static,redis_set"],
            ["nginx_close_static_linux_per_s", "redis_set_linux_per_s"])
        self.assertNotIn("nginx_close_static_ratio", figures)
        self.assertIn("Linux/s", printed)

    def test_an_interrupt_leaves_nothing_behind(self):
        needs_programs()
        with tempfile.TemporaryDirectory() as folder:
            running = subprocess.Popen([COB, "bench", "servers", "--linux-only", "--seconds", "30"],
                                       env={**os.environ, "TMPDIR": folder}, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 30
            while not any("/nginx-linux/" in m for m in left_behind()) and time.monotonic() < deadline:
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            self.assertEqual(running.wait(timeout=30), 130)
            self.assertEqual(os.listdir(folder), [])
            self.assertEqual([m for m in left_behind() if folder in m], [])

    def test_the_hogs_are_left_out_of_small_cases(self):
        code, _, printed = bench("servers", "--only", "nginx_keepalive_c1_hog")
        self.assertEqual(code, 2, printed)

    def test_help_has_examples(self):
        for words in ((), ("floor",), ("messages",), ("peers",), ("calls",), ("servers",)):
            done = subprocess.run([COB, "bench", *words, "--help"], stdout=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 0)
            self.assertIn("Examples:", done.stdout)

    def test_what_is_wrong_is_said(self):
        for words, expected in [(["servers", "--only", "nginx_open"], "nginx_open"), (["nonsense"], "nonsense"), (["peers", "--only", "aeron"], "aeron"),
                                (["floor", "--cores", "0,9999"], "9999"), (["floor", "--cores", "0,0"], "different"),
                                (["floor", "--rounds", "0"], "--rounds")]:
            code, said, printed = bench(*words)
            self.assertEqual(code, 2, printed)
            self.assertIn(expected, printed)
            self.assertEqual(said["exit"], 2)
            self.assertIn(expected, said["error"])


if __name__ == "__main__":
    if not COB or len(os.sched_getaffinity(0)) < 2:
        print("SKIPPED: " + ("no path to cob given" if not COB else "benchmarks need two cores"))
        sys.exit(77)
    unittest.main(verbosity=2)
