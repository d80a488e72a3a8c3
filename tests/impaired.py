#!/usr/bin/env python3
"""Paths with faults between plain Linux and a cob, or plain Linux and plain Linux, over the wire of tests/wire: what impaired_test.py drives; and,
run by itself, the table of goodput that docs/impaired.txt keeps:

    tests/impaired.py [--seeds N] [--only TEXT] [--uplink tap|xdp] > docs/impaired.txt

(without --uplink both, one table below the other).

Needs root: everything happens in network namespaces of its own. Every byte is compared where it arrives.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

import harness
import tap_test

NEAR, FAR = "10.7.0.2", "10.7.0.1"
NEAR6, FAR6 = "fd07::2", "fd07::1"
PORT = 7000
STREAM = harness.BUILD / "wire" / "stream"
# Linux's own defaults, whatever this machine's are; a path that was slow once is not remembered. (CUBIC stream chooses itself.)
SETTINGS = {"tcp_rmem": "4096 131072 6291456", "tcp_wmem": "4096 16384 4194304",
            "tcp_no_metrics_save": "1"}


def check(*words):
    done = tap_test.linux(*words)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def settings(prefix=()):
    check(*prefix, "sh", "-ec", "; ".join(f"echo {value} > /proc/sys/net/ipv4/{name}" for name, value in SETTINGS.items()))


class Path:
    """This process's namespace, another one (`there`), and the wire between: `near` is linux, tap or xdp. Of the last two somebody brings a cob up
    on `uplink` first."""

    # What makes a cob's uplink of the near end.
    UPLINKS = {"tap": ("--uplink", "tap:cob0,offload=off"), "xdp": ("--uplink", "xdp:cob0")}
    ADDRESSES = ("--ip", f"{NEAR}/24", "--ip6", f"{NEAR6}/64")

    @staticmethod
    def prepare(near):
        if near == "xdp":
            for words in (("add", "cob0", "type", "veth", "peer", "name", "wire0"), ("set", "cob0", "up"), ("set", "wire0", "up")):
                check("ip", "link", *words)

    def __init__(self, near, faults=()):
        self.other = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; echo ready; exec sleep 100000"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes = [self.other]
        assert self.other.stdout.readline() == "ready\n"
        self.there = ("nsenter", "-t", self.other.pid, "-n")
        end = {"linux": "tap:near0", "tap": "packet:cob0", "xdp": "packet:wire0"}[near]
        if near != "linux":
            # Linux itself is silent where the wire begins.
            silent = end.split(":")[1]
            pathlib.Path(f"/proc/sys/net/ipv6/conf/{silent}/disable_ipv6").write_text("1")
            pathlib.Path(f"/proc/sys/net/ipv4/conf/{silent}/arp_ignore").write_text("8")
            check("ip", "link", "set", silent, "up")
        self.wire = subprocess.Popen([harness.BUILD / "wire" / "wire", end, f"tap:far0@{self.other.pid}", *map(str, faults)],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(self.wire)
        if self.wire.stdout.readline() != "ready\n":
            raise AssertionError("no wire")
        settings()
        settings(self.there)
        for prefix, device, address, address6 in ((self.there, "far0", FAR, FAR6), ((), "near0", NEAR, NEAR6)):
            if prefix or near == "linux":
                check(*prefix, "ip", "addr", "add", f"{address}/24", "dev", device)
                check(*prefix, "ip", "addr", "add", f"{address6}/64", "dev", device, "nodad")
                check(*prefix, "ip", "link", "set", device, "up")

    def start(self, *words, **options):
        """A program of plain Linux at the far end."""
        process = subprocess.Popen([*map(str, (*self.there, *words))], **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True,
                                                                        "stderr": subprocess.DEVNULL, **options})
        self.processes.append(process)
        return process

    def counters(self):
        """Ends the wire: {"there": {"sent": frames, ...}, "back": ...}."""
        lines = self.wire.communicate(timeout=10)[0].splitlines()
        return {name: {key: int(value) for key, value in (word.split("=") for word in words)} for name, *words in map(str.split, lines)}

    def close(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self.processes:
            # Gone with what held them; a name that comes again must find it free.
            harness.wait_until(lambda: "near0" not in tap_test.linux("ip", "-br", "link").stdout, what="the end of the wire's devices")
        self.processes = []


# ---- the table ----

RATE = 12_500_000  # bytes a second: 100 Mbit/s
QUEUE_US = 50_000
ROUND_TRIPS_MS = (0, 10, 100)
ROWS = {
    "no faults": {},
    "loss 0.1 %": {"loss": 1_000},
    "loss 1 %": {"loss": 10_000},
    "loss 5 %": {"loss": 50_000},
    "reorder 1 %": {"reorder": 10_000},
    "reorder 10 %": {"reorder": 100_000},
    "duplicate 5 %": {"duplicate": 50_000},
}
HEAD = """Goodput of one TCP connection over a wire of 100 Mbit/s with faults, both ways: bytes that the
receiver's program read in {seconds} s ({long} s where the round trip is 100 ms) from its connect or accept on,
every byte compared. Medians of {seeds} seeds, in real time, the four measurements of a seed beside each
other. "Linux": Linux to Linux. "sends", "receives": the cob to and from Linux. Each to
its ratio to Linux with the same client and direction. Linux {release}, its defaults (CUBIC, SACK,
RACK-TLP, buffers to 4 and 6 MiB) and no memory of earlier connections; the cob has its own.
AF_XDP: over a veth, whose other end the wire takes from and gives to (so frames are copied).
The wire drops beyond a queue of 50 ms; "reorder": held back for up to 2 ms, the time of 16 full
frames. The round trip is without the queue. Written by tests/impaired.py on {cores} cores.
"""


def goodput(near, what, faults, seconds):
    """Bytes a second; called in a process of its own."""
    cob = None
    problem = tap_test.enter_namespace()
    if problem:
        raise AssertionError(problem)
    Path.prepare(near)
    if near != "linux":
        cob = harness.Cob(check=False)
        cores = harness.usable_cores()
        cob.up("--kernels", 1, "--cores", cores[what == "send"], *Path.UPLINKS[near], *Path.ADDRESSES)
    path = Path(near, faults)
    try:
        path.start(STREAM, "serve", PORT).stdout.readline()
        words = (STREAM, what, FAR, PORT, seconds)
        done = cob.run(*words) if cob else tap_test.linux(*words)
        if done.returncode != 0:
            raise AssertionError(f"{near} {what}: {done.stderr}")
        received, us = map(int, done.stdout.split())
        return received / us * 1e6
    finally:
        path.close()
        if cob:
            cob.close()


def measure(jobs):
    """Each job's goodput, all at once; a process each, because a namespace is a process's."""
    processes = [subprocess.Popen([sys.executable, __file__, "--job", json.dumps(job)], stdout=subprocess.PIPE, text=True) for job in jobs]
    texts = [process.communicate()[0] for process in processes]
    return [float(text) if text.strip() else None for text in texts]


def cell(faults, round_trip_ms, seeds, seconds, uplink):
    """({"linux send": MB/s, ...})"""
    found = {}
    for seed in range(1, seeds + 1):
        words = [word for name, ppm in faults.items() for word in (f"--{name}", ppm)]
        words += ["--seed", seed, "--rate", RATE, "--queue-us", QUEUE_US, "--delay-us", round_trip_ms * 500]
        jobs = [(near, what, words, seconds) for near in ("linux", uplink) for what in ("send", "receive")]
        for (near, what, *_), value in zip(jobs, measure(jobs)):
            if value is not None:
                found.setdefault(f"{'linux' if near == 'linux' else 'cob'} {what}", []).append(value / 1e6)
    return {key: statistics.median(values) for key, values in found.items()}


NAMES = {"tap": "TAP", "xdp": "AF_XDP"}


def table(arguments, uplink):
    print(f"{'By ' + NAMES[uplink]:14}" + "".join(f"{f'round trip {ms} ms':^36}" for ms in ROUND_TRIPS_MS))
    print(f"{'MB/s':14}" + "".join(f"{'Linux':>8}{'sends':>14}{'receives':>14}" for _ in ROUND_TRIPS_MS))
    for name, faults in ROWS.items():
        if arguments.only and arguments.only != name:
            continue
        line = f"{name:14}"
        for ms in ROUND_TRIPS_MS:
            got = cell(faults, ms, arguments.seeds, arguments.seconds * (2 if ms >= 100 else 1), uplink)
            both = statistics.mean((got["linux send"], got["linux receive"]))
            line += f"{both:8.3f}" + "".join(f"{got[f'cob {w}']:9.3f} {got[f'cob {w}'] / got[f'linux {w}']:4.2f}" for w in ("send", "receive"))
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only")
    parser.add_argument("--uplink", choices=NAMES)
    parser.add_argument("--job", type=json.loads)
    arguments = parser.parse_args()
    if arguments.job:
        print(goodput(*arguments.job))
    else:
        print(HEAD.format(seconds=arguments.seconds, long=2 * arguments.seconds, seeds=arguments.seeds, release=os.uname().release.split("-")[0],
                          cores=os.cpu_count()))
        for uplink in [arguments.uplink] if arguments.uplink else NAMES:
            table(arguments, uplink)
            print()


if __name__ == "__main__":
    main()
