"""The harness reports what a test leaves behind; a check that cannot fail proves nothing."""
import os
import signal
import subprocess
import sys
import unittest

import harness

HOLDER = """
import os, sys
for entry in os.scandir(f"/proc/{sys.argv[1]}/fd"):
    if os.readlink(entry.path).startswith("/memfd:"): kept = open(entry.path, "rb"); break
print("held", flush=True)
sys.stdin.read()
"""


class Harness(unittest.TestCase):
    def setUp(self):
        self.cob = harness.Cob()
        self.cob.up("--kernels", 1)

    def test_nothing_left_is_no_problem(self):
        self.cob.run("true")
        self.assertEqual(self.cob.close(), [])

    def test_a_process(self):
        started = self.cob.run("sh", "-c", "sleep 60 > /dev/null 2>&1 & echo $!")
        self.addCleanup(os.kill, int(started.stdout), signal.SIGKILL)
        self.assertRegex(" ".join(self.cob.close()), r"left: processes .*sleep 60")

    def test_a_file(self):
        (self.cob.runtime / "cob" / "remains").write_text("")
        self.assertRegex(" ".join(self.cob.close()), "remains")

    def test_memory_held_by_another_process(self):
        if os.geteuid() != 0:
            self.skipTest("only root may open a supervisor's descriptors")
        pid = self.cob.kernels()[0]["pid"]
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertEqual(holder.stdout.readline(), "held\n")
        problems = " ".join(self.cob.close())
        holder.communicate()
        self.assertRegex(problems, rf"memory of kernels held by \['{holder.pid}'\]")

    def test_a_report_of_the_check_mode(self):
        program = self.cob.start("sh", "-c", "echo 'cob: check: a difference' >&2")
        program.wait()
        self.assertEqual(self.cob.close(), ["cob: check: a difference"])

    def test_the_check_mode_is_on(self):
        program = str(harness.BUILD / "programs" / "closed_behind")
        done = self.cob.run(program, "and call")
        self.assertEqual(done.returncode, -signal.SIGABRT, done.stderr)
        self.assertRegex(" ".join(self.cob.close()), "cob: check: .*closed on the host")


if __name__ == "__main__":
    harness.main()
