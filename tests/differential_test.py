"""The same random sequences of socket calls (differential/socket_calls.c) on the host and on a cob, every result compared: of one
program, and of one with a remote (differential/remote_calls.c) on the other kernel and fixed ports whose home kernels differ.

COB_SEEDS: how many (default 40), COB_FIRST_SEED: where to begin, COB_STEPS: calls a sequence. A difference must persist with
longer and longer settling times: only then is it one of meaning and not of time."""
import difflib
import os
import random
import socket
import subprocess
import unittest

import harness

PROGRAM = str(harness.BUILD / "differential" / "socket_calls")
REMOTE = str(harness.BUILD / "differential" / "remote_calls")
FIRST = int(os.environ.get("COB_FIRST_SEED", "1"))
SEEDS = int(os.environ.get("COB_SEEDS", "40"))
STEPS = os.environ.get("COB_STEPS", "150")
SETTLE_US = ("1000", "10000", "40000")


def four_free_ports():
    """The first of four consecutive ports, divisible by four and below the host's ephemeral range."""
    while True:
        first = random.randrange(20_000, 32_000, 4)
        try:
            for port in range(first, first + 4):
                with socket.socket() as s:
                    s.bind(("0.0.0.0", port))
            return first
        except OSError:
            continue


class Differential(harness.CobTest):
    def transcript(self, cob, on_cob, kernel, seed, settle_us, port):
        """What the program printed; port 0: without a remote."""
        words = [PROGRAM, str(seed), STEPS, settle_us]
        start = (lambda k, *w: cob.start(*w, kernel=k, stderr=subprocess.STDOUT)) if on_cob else (
            lambda k, *w: subprocess.Popen(w, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        remote = None
        if port:
            pipes = [cob.directory / name for name in ("requests", "replies")]
            for pipe in pipes:
                pipe.unlink(missing_ok=True)
                os.mkfifo(pipe)
            remote = start(1 - kernel, REMOTE, *pipes)
            words += [*map(str, pipes), str(port)]
        program = start(kernel, *words)
        said = program.communicate(timeout=300)[0]
        if remote is not None:
            try:
                said += remote.communicate(timeout=20)[0]
            except subprocess.TimeoutExpired:
                remote.kill()
                said += "the remote did not end\n" + remote.communicate()[0]
        return said

    def compare(self, cob, seed, with_remote):
        for settle_us in SETTLE_US:
            # On the host each run has ports of its own: TIME_WAIT of the last may stand in the way.
            said = [self.transcript(cob, on_cob, seed % 2, seed, settle_us, four_free_ports() if with_remote else 0)
                    for on_cob in (False, True)]
            self.assertTrue(said[0].endswith("end\n"), said[0][-500:])
            if said[0] == said[1]:
                return
        changes = difflib.unified_diff(said[0].splitlines(), said[1].splitlines(), "host", "cob", lineterm="", n=6)
        self.fail(f"seed {seed}:\n" + "\n".join(list(changes)[:60]))

    def test_random_sequences(self):
        cob = self.cob(kernels=2)
        for seed in range(FIRST, FIRST + SEEDS, 2):
            with self.subTest(seed=seed):
                self.compare(cob, seed, False)

    def test_with_a_remote_on_the_other_kernel(self):
        cob = self.cob(kernels=2)
        for seed in range(FIRST + 1, FIRST + SEEDS, 2):
            with self.subTest(seed=seed):
                self.compare(cob, seed, True)


if __name__ == "__main__":
    harness.main()
