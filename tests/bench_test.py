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
from xml.etree import ElementTree

COB = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
PROGRAMS = ["nginx", "ab", "redis-server", "redis-benchmark", "redis-cli", "curl"]
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
FLOOR = ["line_8", "line_64", "system_call", "yield_pair", "futex_wake", "futex_wake_hog", "eventfd", "dup_close",
         "first_touch", "second_mapping_touch"]
PLOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "bench", "plot.py")
MESSAGES = ["rounds", "empty_poll_ns", "line_over_line_p99",
            *(f"{k}_{s}" for k in ("line", "bare", "rpc", "loan_4k", "loan_1g") for s in ("ns", "p99_ns", "runs")),
            *(f"{k}_over_line{s}" for k in ("bare", "rpc") for s in ("", "_p99")),
            *(f"oneway_{k}" for k in ("floor_per_s", "64b_per_s", "64b_over_floor", "batched_floor_per_s", "batched_per_s",
                                      "batched_over_floor", "delivery_ns")),
            "multicast_over_oneway",
            *(f"multicast_{n}_{k}" for n in (1, 2, 4, 8) for k in ("delivery_ns", "over_oneway")),
            "bulk_over_copy",
            *(f"{k}_{n}{s}" for n in ("64k", "256k", "1m", "4m")
              for k, s in (("copy", "_gb_per_s"), ("bulk", "_gb_per_s"), ("bulk_over_copy", ""))),
            "loan_1g_over_4k",
            *(f"{k}_rtt_{s}" for k in ("sleeping", "hog", "hog_client", "hog_server", "hog_both") for s in ("p50_us", "p99_us")),
            *(f"{k}_rtt_{s}" for k in ("coherent", "window", "tcp", "tcp_sleeping", "socket") for s in ("ns", "p99_ns")),
            "window_over_coherent_rtt", "window_over_coherent_rate", "window_over_coherent_page_rate", "coherent_per_s", "window_per_s",
            "socket_over_tcp_rtt", "socket_over_sleeping_tcp_rtt", "socket_per_s", "socket_full_per_s", "socket_lent_gb_per_s",
            *(f"cob_{n}_{s}" for n in (8, 64, 4096, 1048576) for s in ("rtt_p50_ns", "rtt_p99_ns", "per_s"))]


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


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
        """Every figure is there, with its floor, and the plot takes the histograms."""
        with tempfile.TemporaryDirectory() as folder:
            histogram = os.path.join(folder, "histogram.json")
            figures, printed = self.figures(
                ["messages", "--seconds", "0.1", "--rounds", "1", "--histogram", histogram], MESSAGES)
            for key in MESSAGES:
                self.assertGreater(figures[key], 0, key)
            self.assertIn("over floor", printed)
            with open(histogram, encoding="utf-8") as file:
                self.assertLessEqual({"line", "bare", "rpc"}, set(json.load(file)))
            plotted = subprocess.run([sys.executable, PLOT, "--latency", histogram], stdout=subprocess.PIPE, text=True, check=True)
            self.assertEqual(ElementTree.fromstring(plotted.stdout).tag, "{http://www.w3.org/2000/svg}svg")

    def test_messages_beside_peers(self):
        """The one peer that is always built; without the others' programs they are rows too."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(os.path.join(os.path.dirname(COB), "cob-peer-unix_socket"), folder)
            file = os.path.join(folder, "messages.json")
            done = subprocess.run([COB, "bench", "messages", "--peers", "--only", "sizes", "--seconds", "0.1", "--rounds", "1", "--json", file],
                                  env={**os.environ, "COB_PEERS": folder}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(done.returncode, 0, done.stdout)
            with open(file, encoding="utf-8") as text:
                figures = json.load(text)
            for size in (8, 64, 4096, 1048576):
                for key in (f"cob_over_best_peer_rtt_{size}", f"cob_over_best_peer_rate_{size}", f"cob_{size}_rtt_p50_ns",
                            f"cob_{size}_rtt_p99_ns", f"cob_{size}_per_s", f"peer_unix_socket_{size}_per_s"):
                    self.assertGreater(figures[key], 0, key)
            self.assertEqual(figures["peer_ucx_missing"], 1)
            self.assertIn("apt-get install libucx-dev", done.stdout)
            plotted = subprocess.run([sys.executable, PLOT, "--sizes", file], stdout=subprocess.PIPE, text=True, check=True)
            self.assertEqual(ElementTree.fromstring(plotted.stdout).tag, "{http://www.w3.org/2000/svg}svg")

    def test_messages_end_when_told(self):
        """In the middle of a phase, in which both processes spin."""
        for told in (signal.SIGTERM, signal.SIGINT):
            running = subprocess.Popen([COB, "bench", "messages", "--only", "round_trips", "--seconds", "600"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 30
            while len(children(running.pid)) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            measuring = children(running.pid)
            self.assertEqual(len(measuring), 2)
            running.send_signal(told)
            self.assertEqual(running.wait(timeout=30), 130)
            self.assertEqual([pid for pid in measuring if os.path.exists(f"/proc/{pid}")], [])

    def test_messages_end_with_a_child(self):
        running = subprocess.Popen([COB, "bench", "messages", "--only", "one_way", "--seconds", "600"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while len(children(running.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(children(running.pid)[0], signal.SIGKILL)
        _, said = running.communicate(timeout=30)
        self.assertEqual(running.returncode, 1)
        self.assertIn("signal 9", said)

    def test_messages_need_two_cores(self):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            done = subprocess.run([COB, "bench", "messages", "--json", file.name], stderr=subprocess.PIPE, text=True,
                                  preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
            self.assertEqual(done.returncode, 2)
            self.assertIn("needs two cores", done.stderr)

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
                "receive_miss_ratio", "echo_ratio", "echo_same_core_ratio", "udp_echo_ratio", "udp_stream_ratio"]
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

    def test_files(self):
        operations = ("open_close", "stat", "create_unlink", "pread_4k", "pwrite_4k", "pread_1m", "pwrite_1m", "git")
        keys = [f"{way}_{operation}_us_p50" for way in ("host", "local", "remote") for operation in operations]
        keys += ["local_open_close_over_host", "local_pread_4k_over_host", "remote_stat_us_p99", "git_over_host",
                 "appends_64b_per_s", "appends_4k_per_s", "host_appends_64b_per_s", "fuse_missing", "sshfs_missing", "mount_missing"]
        figures, printed = self.figures(["files", "--seconds", "0.05", "--rounds", "1", "--only",
                                         ",".join(operations + ("appends_64b", "appends_4k"))], keys)
        for way in ("fuse", "sshfs", "mount"):
            if figures[f"{way}_missing"]:
                print(f"LEFT OUT: {way}")
            else:
                for operation in operations:
                    self.assertIn(f"{way}_{operation}_us_p50" if way == "mount" else f"{way}_over_remote_{operation}", figures, printed)
        self.assertEqual(left_behind(), [])

    def test_files_over_a_socket(self):
        self.figures(["files", "--seconds", "0.05", "--rounds", "1", "--only", "stat", "--link", "socket"], ["remote_stat_us_p50"])

    def test_migrate(self):
        keys = [f"pause_{size}_us_{q}" for size in (0, 1, 10, 100, 1000, "bare_1000") for q in ("p50", "p99")]
        figures, _ = self.figures(["migrate", "--seconds", "0.1", "--rounds", "1"], keys + ["connection_move_us_p50"])
        self.assertGreater(figures["pause_100_runs"], 0)
        self.assertEqual(left_behind(), [])

    def test_offload(self):
        """Our sides are always there; a peer may be missing, with its reason."""
        cases = ["saxpy_256", "histogram_4096", "is_s"]
        with tempfile.TemporaryDirectory() as empty:
            os.environ["COB_PEERS"] = empty
            try:
                figures, printed = self.figures(
                    ["offload", "--seconds", "0.02", "--rounds", "1", "--only", ",".join(cases)],
                    [f"{case}_{side}_us" for case in cases for side in ("cob", "away", "plain")] +
                    ["offload_small_over_plain", "offload_small_away_over_plain", "nas_over_plain", "offload_opencl_missing",
                     "offload_openmp_missing"])
            finally:
                del os.environ["COB_PEERS"]
        self.assertIn("make bench-peers", printed)

    def test_offload_beside_peers(self):
        for peer in ("opencl", "openmp"):
            if not os.path.exists(os.path.join(os.path.dirname(COB), f"cob-peer-offload-{peer}")):
                print(f"LEFT OUT: offload beside {peer} (make bench-peers)")
                continue
            figures, printed = self.figures(["offload", "--seconds", "0.02", "--rounds", "1", "--only", "saxpy_256,is_s"], [])
            if f"offload_{peer}_missing" not in figures:
                self.assertGreater(figures[f"saxpy_256_{peer}_us"], 0, printed)
                self.assertGreater(figures[f"nas_over_{peer}"], 0, printed)

    def test_connections(self):
        """Every kind of load, on the cobs and on Linux's modes; what needs privilege may be missing, with its reason."""
        # A core's time is counted in ticks of 10 ms, of which a measurement this short may see none: costs may be zero.
        cases = ["conn", "conn_64k", "conn_client_closes", "conn_load50", "conn_overload", "keepalive_c8", "bulk", "conn_hog"]
        sides = ["inside", "linux_shared", "linux_reuseport", "linux_affinity"]
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "connections.json")
            done = subprocess.run([COB, "bench", "connections", "--seconds", "0.05", "--rounds", "1", "--connections", "300",
                                   "--only", ",".join(cases + ["idle"]), "--json", file],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stdout)
            with open(file, encoding="utf-8") as text:
                figures = json.load(text)
            self.assertEqual(figures["failed"], 0)
            for side in ("linux_hermes", "tap", "cob"):
                if f"conn_{side}_missing" in figures:
                    self.assertIn(f"{side} is missing: ", done.stdout)
                else:
                    sides.append(side)
            wires = [side for side in ("wire", "xdp", "linux_wire") if f"conn_{side}_missing" not in figures]
            self.assertEqual(figures["missing"], 10 - len(sides) - len(wires))
            for side in wires:
                self.assertGreater(figures[f"conn_{side}_per_s"], 0)
                self.assertNotIn(f"keepalive_c8_{side}_per_s", figures)
            if len(wires) == 3:
                for key in ("conn_xdp_over_linux_wire", "conn_xdp_over_linux"):
                    self.assertGreater(figures[key], 0, key)
                for side in ("xdp", "wire"):
                    self.assertGreaterEqual(figures[f"{side}_server_cost_ratio_linux_wire"], 0)
            if "tap" in sides:
                for key in ("conn_tap_over_linux", "conn_wire_over_linux", "keepalive_c8_tap_over_linux"):
                    self.assertGreater(figures[key], 0, key)
                self.assertGreaterEqual(figures["tap_server_cost_ratio"], 0)
            if "cob" in sides:
                for key in ("conn_over_linux_shared", "conn_hog_over_linux", "bulk_over_linux"):
                    self.assertGreater(figures[key], 0, key)
                self.assertGreaterEqual(figures["cob_server_cost_ratio"], 0)
            for case in cases:
                self.assertEqual(figures[f"{case}_failed"], 0, done.stdout)
                for side in sides:
                    for key in ("per_s", "p50_us", "p99_us", "p999_us"):
                        # An overloaded side may complete nothing in so short a time on a busy machine.
                        least = 0 if (case, key) == ("conn_overload", "per_s") else 1e-9
                        self.assertGreaterEqual(figures[f"{case}_{side}_{key}"], least, done.stdout)
                    self.assertIn(f"{case}_{side}_failed_connections", figures)
            for side in (s for s in sides if s.startswith("linux_")):
                self.assertGreater(figures[f"conn_inside_over_{side}"], 0)
                self.assertIn(f"conn_{side}_server_core_us", figures)
                self.assertGreater(figures[f"conn_load50_{side}_offered_per_s"], 0)
                self.assertIn(f"inside_server_cost_ratio_{side}", figures)
            for key in ("conn_hog_inside_over_linux", "bulk_inside_gb_per_s", "idle_connection_bytes", "idle_connection_linux_bytes"):
                self.assertIn(key, figures)
            plotted = subprocess.run([sys.executable, PLOT, "--connections", file], stdout=subprocess.PIPE, text=True, check=True)
            self.assertEqual(ElementTree.fromstring(plotted.stdout).tag, "{http://www.w3.org/2000/svg}svg")
        self.assertEqual(left_behind(), [])

    def test_connections_on_linux_alone_with_two_workers(self):
        figures, printed = self.figures(
            ["connections", "--linux-only", "--workers", "2", "--seconds", "0.05", "--rounds", "1", "--only", "conn"],
            ["conn_linux_shared_per_s", "conn_linux_reuseport_per_s"])
        self.assertNotIn("conn_inside_per_s", figures)

    def test_angel(self):
        """Every side answers every kind of load; without the privilege for a device of its own it says so."""
        cases = ["skew", "bimodal", "slowed", "hung", "step"]
        code, figures, printed = bench("angel", "--seconds", "0.3", "--rounds", "1", timeout=300)
        if os.geteuid() != 0:
            self.assertEqual(code, 2, printed)
            self.skipTest("needs root: " + figures["error"])
        self.assertEqual(code, 0, printed)
        sides = ["angel", "hash", "linux_shared", "linux_reuseport", "linux_affinity"]
        if "linux_hermes_missing" in figures:
            self.assertIn("linux_hermes is missing: ", printed)
        else:
            sides.append("linux_hermes")
        self.assertEqual(figures["missing"], 6 - len(sides), printed)
        for case in cases:
            for side in sides:
                for key in ("served_share", "p50_us", "ideal_p99_us", "failed", "busiest_share", "lag_p99_us"):
                    self.assertIn(f"{case}_{side}_{key}", figures, printed)
            for key in ("served_over_hash", "served_over_best_linux", "failed"):
                self.assertIn(f"{case}_{key}", figures, printed)
        # The load is what it says: by hash one of two workers has the few groups, and what is stopped answers nobody.
        self.assertGreater(figures["skew_hash_busiest_share"], 0.7, printed)
        self.assertIn("even_load_cost", figures)
        self.assertEqual(left_behind(), [])

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
        for words in ((), ("floor",), ("messages",), ("peers",), ("calls",), ("servers",), ("connections",), ("files",), ("migrate",), ("angel",),
                      ("offload",)):
            done = subprocess.run([COB, "bench", *words, "--help"], stdout=subprocess.PIPE, text=True)
            self.assertEqual(done.returncode, 0)
            self.assertIn("Examples:", done.stdout)

    def test_what_is_wrong_is_said(self):
        for words, expected in [(["servers", "--only", "nginx_open"], "nginx_open"), (["connections", "--only", "conn_c9"], "conn_c9"),
                                (["angel", "--only", "skewed"], "skewed"), (["angel", "--workers", "1"], "--workers"),
                                (["files", "--only", "open"], "open_close"), (["nonsense"], "nonsense"), (["offload", "--only", "daxpy"], "saxpy_256"), (["peers", "--only", "aeron"], "aeron"),
                                (["messages", "--only", "round"], "round_trips"),
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
