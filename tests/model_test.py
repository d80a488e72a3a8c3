#!/usr/bin/env python3
"""Checks a model of docs/models with spin(1), exhaustively, and that each of its mutations is caught: model_test.py NAME [CHECK...].
77 (ctest: Skipped) without spin. A run takes less than 2 GiB and a minute, most of them seconds."""
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

MODELS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "models"
MEMORY_MB = 1800
SECONDS = 240

# How pan is compiled and run: every reachable state; and every fair cycle, against `ltl settles`.
STATES = (["-DSAFETY", "-DNOCLAIM"], [])
CYCLES = (["-DNFAIR=3"], ["-a", "-f", "-N", "settles"])

# By model: (what, definitions, how, whether it must hold).
CHECKS = {
    "doorbell": [
        ("stores in order", [], STATES, True),
        ("stores in order by word only", ["PSO"], STATES, True),
        ("credits told before sleeping only", ["EVERY=3"], STATES, True),
        ("comes to rest", ["LIMIT=1", "BUFFER=2"], CYCLES, True),
        *((f"without: {m}", [m], STATES, False) for m in (
            "NO_SENDER_FENCE", "NO_RECEIVER_FENCE", "NO_SECOND_LOOK", "NO_LOOK_AT_CREDITS", "NO_STARVED_BIT", "FORGETFUL_BELL",
            "RING_BEFORE_PUBLISH", "ARMED_AFTER_LOOK")),
        ("without: NO_CREDITS_BEFORE_SLEEP", ["NO_CREDITS_BEFORE_SLEEP", "EVERY=3"], STATES, False),
    ],
    "window_doorbell": [
        ("one sends until it starves", ["WORK0=2", "WAKES0=0"], STATES, True),
        ("both send", ["WORK0=1", "WORK1=1", "WAKES0=0"], STATES, True),
        ("the sender is woken otherwise too", ["WORK0=1", "WAKES0=1"], STATES, True),
        ("the receiver is woken otherwise too", ["WORK0=1", "WAKES0=0", "WAKES1=1"], STATES, True),
        ("comes to rest", ["WORK0=1", "WAKES0=0"], CYCLES, True),
        ("without: NO_REST_RULE", ["NO_REST_RULE", "WORK0=1", "WAKES0=0"], CYCLES, False),
        *((f"without: {m}", [m, "WORK0=2", "WAKES0=1"], STATES, False) for m in (
            "NO_HANDSHAKE", "LOOK_BEFORE_WORD", "TRUST_STALE_AWAKE", "NO_LOOK_AT_CREDITS", "RING_OVERTAKES", "FORGETFUL_BELL",
            "SENDS_UNDER_ODD")),
        ("without: NO_STARVED_BIT", ["NO_STARVED_BIT", "WORK0=3", "WAKES0=0"], STATES, False),
    ],
    "token": [
        ("leases run out", ["WORK0=2", "WORK1=2"], STATES, True),
        ("leases are renewed in time", ["PROMPT", "WORK0=2", "WORK1=2", "WORK2=1"], STATES, True),
        ("two programs on a holder, fences, renewals", ["WORK0=2", "WORK1=1", "WORK2=1", "RENEWS=1", "INVALIDATES=1"], STATES, True),
        ("sessions end, holders die", ["WORK0=2", "WORK1=1", "CUTS=2", "DEATHS=1"], STATES, True),
        ("passes and last closes", ["OPENED", "WORK0=1", "WORK1=1", "PASSES=2", "DROPS=2", "CUTS=1"], STATES, True),
        ("passes, last closes and deaths", ["OPENED", "WORK0=1", "WORK1=1", "PASSES=1", "DROPS=1", "CUTS=1", "DEATHS=1"], STATES, True),
        ("three holders, sessions end", ["HOLDERS=3", "WORK0=1", "WORK1=1", "WORK2=1", "CUTS=1"], STATES, True),
        ("three holders, deaths", ["HOLDERS=3", "WORK0=1", "WORK1=1", "WORK2=1", "DEATHS=1"], STATES, True),
        ("three holders, passes", ["HOLDERS=3", "OPENED", "WORK0=1", "WORK1=1", "PASSES=1", "DROPS=1"], STATES, True),
        ("comes to rest", ["WORK0=1", "WORK1=1", "RENEWS=1", "CUTS=1"], CYCLES, True),
        *((f"without: {m}", [m, "WORK0=2", "WORK1=1"], STATES, False) for m in (
            "NO_REFUSAL", "RETURN_BEFORE_LAST_OPERATION", "GRANT_WITHOUT_LEASE", "LOOK_BEFORE_USE", "LEASE_FROM_RECEIPT",
            "EXPIRE_AT_HOME_FIRST", "GIVE_UP_UNDER_WAY", "SILENT_LOSS", "END_WHEN_FENCED")),
        *((f"without: {m}", [m, "WORK0=2", "WORK1=1", "WORK2=2", "RENEWS=1", "INVALIDATES=1"], STATES, False) for m in (
            "NO_GRANT_NUMBER", "GRANT_WHILE_FENCED", "NO_FENCE", "RENEWED_OVERTAKES", "TWO_AT_A_TIME")),
        *((f"without: {m}", [m, "PROMPT", "WORK0=2", "WORK1=1", "WORK2=2"], STATES, False) for m in (
            "RETURN_AFTER_ALL_OPERATIONS", "GRANT_WHILE_WAITING", "GRANT_WHILE_OWN_WAITS")),
        *((f"without: {m}", [m, "WORK0=2", "WORK1=1", "CUTS=1", "DROPS=2"], STATES, False) for m in (
            "GRANT_TO_THE_GONE", "NO_LEASE_WAIT", "CLOSE_UNDER_WAY", "NO_HOLDER_BIT", "DROP_WITHOUT_OFFSET")),
        ("without: DROP_BEFORE_HELD", ["DROP_BEFORE_HELD", "OPENED", "WORK0=1", "WORK1=1", "PASSES=1", "DROPS=1"], STATES, False),
    ],
}


def run(words, folder):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
                          preexec_fn=limit)
    return done.returncode, done.stdout


def check(model, definitions, how):
    """"holds", "violated", or what went wrong; and how many states were visited."""
    compile_options, run_options = how
    with tempfile.TemporaryDirectory() as folder:
        status, out = run(["spin", "-a", *(f"-D{d}" for d in definitions), str(model)], folder)
        if status == 0:
            status, out = run(["cc", "-w", "-O1", "-DCOLLAPSE", "-DVECTORSZ=512", *compile_options, "-o", "pan", "pan.c"], folder)
        if status != 0:
            return out, "-"
        status, out = run(["./pan", "-m3000000", *run_options], folder)
    states = next((line.split()[0] for line in out.splitlines() if " states, stored" in line), "-")
    if "pan:1: assertion violated" in out or "pan:1: invalid end state" in out or "pan:1: acceptance cycle" in out:
        return "violated", states
    # Only a search that visited all of it proves anything.
    whole = status == 0 and "errors: 0" in out and "max search depth too small" not in out and "Search not completed" not in out
    return ("holds" if whole else out[-2000:]), states


def main():
    name, only = sys.argv[1], sys.argv[2:]
    if not shutil.which("spin"):
        print("SKIPPED: spin is not installed", file=sys.stderr)
        return 77
    failed = 0
    for what, definitions, how, must_hold in CHECKS[name]:
        if only and not any(word in what for word in only):
            continue
        began = time.monotonic()
        got, states = check(MODELS / f"{name}.pml", definitions, how)
        right = got == ("holds" if must_hold else "violated")
        failed += not right
        print(f"{'ok  ' if right else 'FAIL'} {what}: {got}, {states} states, {time.monotonic() - began:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
