"""The same random sequences of socket calls (differential/socket_calls.c) on the host and on a cob, every result compared.

COB_SEEDS: how many (default 40), COB_FIRST_SEED: where to begin, COB_STEPS: calls a sequence. A difference must persist with
longer and longer settling times: only then is it one of meaning and not of time."""
import difflib
import os
import subprocess
import unittest

import harness

PROGRAM = str(harness.BUILD / "differential" / "socket_calls")
FIRST = int(os.environ.get("COB_FIRST_SEED", "1"))
SEEDS = int(os.environ.get("COB_SEEDS", "40"))
STEPS = os.environ.get("COB_STEPS", "150")
SETTLE_US = ("1000", "10000", "40000")


class Differential(harness.CobTest):
    def transcript_on_host(self, seed, settle_us):
        return subprocess.run([PROGRAM, str(seed), STEPS, settle_us], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300).stdout

    def transcript_on_cob(self, cob, seed, settle_us):
        done = cob.run(PROGRAM, str(seed), STEPS, settle_us, kernel=seed % 2, timeout=300)
        return done.stdout + done.stderr

    def test_random_sequences(self):
        cob = self.cob(kernels=2)
        for seed in range(FIRST, FIRST + SEEDS):
            with self.subTest(seed=seed):
                for settle_us in SETTLE_US:
                    host = self.transcript_on_host(seed, settle_us)
                    self.assertTrue(host.endswith("end\n"), host[-500:])
                    on_cob = self.transcript_on_cob(cob, seed, settle_us)
                    if host == on_cob:
                        break
                else:
                    changes = difflib.unified_diff(host.splitlines(), on_cob.splitlines(), "host", "cob", lineterm="", n=6)
                    self.fail(f"seed {seed}:\n" + "\n".join(list(changes)[:60]))


if __name__ == "__main__":
    harness.main()
