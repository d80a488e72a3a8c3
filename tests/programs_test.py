"""Runs every program of tests/programs on the host, where it must pass, and on a cob, where it must pass too.
COB_PROGRAMS="name name" picks some."""
import os
import pathlib
import re
import subprocess
import unittest

import harness

PROGRAMS = harness.BUILD / "programs"
CHOSEN = os.environ.get("COB_PROGRAMS", "").split()
SECONDS = 120


def names():
    return CHOSEN or sorted(path.name for path in PROGRAMS.iterdir() if path.is_file())


class Programs(harness.CobTest):
    def test_on_the_host(self):
        for name in names():
            with self.subTest(name):
                done = subprocess.run([str(PROGRAMS / name)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_on_a_cob(self):
        cob = self.cob(kernels=2)
        for name in names():
            for kernel in (0, 1):
                with self.subTest(name, kernel=kernel):
                    done = cob.run(str(PROGRAMS / name), kernel=kernel, timeout=SECONDS)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_spread_on_a_cob(self):
        """Those that fork or spawn, whose children go to both kernels; not those that pass connections, which no other kernel can have."""
        cob = self.cob(kernels=2)
        for name in names():
            if not re.match("fork|exec|spawn|popen|daemon|epoll_(fork|exec|inherited)|options_travel|listener|killed", name):
                continue
            with self.subTest(name):
                done = cob.run(str(PROGRAMS / name), kernel=1, spread=True, timeout=SECONDS)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    harness.main()
