#!/usr/bin/env python3
"""tools/demo.sh leaves nothing behind: after its end, and after an interrupt at any stage."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import harness


class DemoTest(unittest.TestCase):
    def setUp(self):
        for program in ("nginx", "curl"):
            if not shutil.which(program):
                self.skipTest(f"{program} is not installed")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cob-demo-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "runtime").mkdir(mode=0o700)
        (self.directory / "temporary").mkdir(mode=0o755)
        self.directory.chmod(0o755)

    def start(self, table="no"):
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory / "runtime"), "COB_BUILD": str(harness.BUILD),
                       "TMPDIR": str(self.directory / "temporary"), "COB_DEMO_BENCH": table, "COB_CHECK": "1"}
        return subprocess.Popen([str(harness.ROOT / "tools/demo.sh")], env=environment, start_new_session=True, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def expect_nothing_left(self, demo):
        def session():
            listing = subprocess.run(["ps", "-s", str(demo.pid), "-o", "stat=,args="], capture_output=True, text=True).stdout
            return [line for line in listing.splitlines() if not line.startswith("Z")]
        harness.wait_until(lambda: not session(), 5, "the end of the demo's processes")
        self.assertEqual(harness.processes_of(f"demo-{demo.pid}"), [])
        self.assertEqual(list((self.directory / "runtime").iterdir()), [])
        self.assertEqual(list((self.directory / "temporary").iterdir()), [])

    def test_it_shows_what_it_promises(self):
        demo = self.start()
        said, _ = demo.communicate(timeout=60)
        self.assertEqual(demo.returncode, 0, said)
        for phrase in ("is up: 2 kernels", "hello from nginx on cob", "equal", "KERNEL", "nginx", "is down",
                       "the table beside plain Linux is left out"):
            self.assertIn(phrase, said)
        self.expect_nothing_left(demo)

    def test_the_table(self):
        for program in ("ab", "redis-server", "redis-benchmark"):
            if not shutil.which(program):
                self.skipTest(f"{program} is not installed")
        demo = self.start("--seconds 0.05 --rounds 1 --only nginx_close,redis_get")
        said, _ = demo.communicate(timeout=120)
        self.assertEqual(demo.returncode, 0, said)
        self.assertRegex(said, r"case +cob/s +Linux/s +ratio")
        for case in ("nginx_close", "redis_get"):
            self.assertRegex(said, rf"(?m)^{case} +[\d,.]+ +[\d,.]+ +[\d.]+x")
        self.expect_nothing_left(demo)

    def test_interrupts(self):
        for wish, after in ((signal.SIGINT, "is up"), (signal.SIGINT, "curl"), (signal.SIGTERM, "nginx"), (signal.SIGTERM, "PID")):
            for whole_group in (True, False):  # Ctrl-C reaches all of the terminal's processes, kill reaches one
                with self.subTest(signal=wish.name, after=after, whole_group=whole_group):
                    demo = self.start()
                    seen = ""
                    while after not in seen and (line := demo.stdout.readline()):
                        seen += line
                    self.assertIn(after, seen)
                    finished = demo.poll()  # not None: it was quicker than this test
                    if finished is None:
                        (os.killpg if whole_group else os.kill)(demo.pid, wish)
                    try:
                        said, _ = demo.communicate(timeout=20)
                    except subprocess.TimeoutExpired:
                        os.killpg(demo.pid, signal.SIGKILL)
                        raise
                    self.assertEqual(demo.returncode, 128 + wish if finished is None else 0, seen + said)
                    self.expect_nothing_left(demo)


if __name__ == "__main__":
    harness.main()
