#!/usr/bin/env python3
"""Programs behind a system call filter that they put before themselves: OpenSSH's sshd, whose child before the login is ended by
any call that its filter does not name, serves on a cob. Needs root for sshd.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import unittest

import harness

PORT = 2222
WANTED = ("sshd", "ssh", "scp", "ssh-keygen")


@unittest.skipIf(os.geteuid() != 0, "sshd needs root")
@unittest.skipIf(not all(map(shutil.which, WANTED)), f"needs {', '.join(WANTED)}")
class SshdTest(harness.CobTest):
    def setUp(self):
        self.on = self.cob(kernels=2)
        self.folder = pathlib.Path(self.on.directory)
        for key in ("host", "user"):
            subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key), check=True, timeout=60)
        (self.folder / "user.pub").rename(self.folder / "authorized")
        (self.folder / "sshd_config").write_text(
            f"Port {PORT}\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\nLoginGraceTime 60\n")
        made = not os.path.isdir("/run/sshd")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's own, of its service
        if made:
            self.addCleanup(os.rmdir, "/run/sshd")

    def start_sshd(self, kernel=1):
        with open(self.folder / "sshd.log", "w") as log:
            self.on.start(shutil.which("sshd"), "-D", "-e", "-f", self.folder / "sshd_config", kernel=kernel, stderr=log)
        harness.wait_until(lambda: "listening" in self.log(), 20, "sshd's listener")

    def log(self):
        return (self.folder / "sshd.log").read_text()

    def words(self, program, port_option):
        return (program, "-F", "none", "-i", self.folder / "user", port_option, PORT, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")

    def ssh(self, *command, kernel=0, **options):
        return self.on.run(*self.words("ssh", "-p"), "root@10.77.0.1", *command, kernel=kernel, timeout=60, **options)

    def test_a_command_from_each_kernel(self):
        self.start_sshd()
        for kernel in (0, 1):
            with self.subTest(client_on=kernel):
                done = self.ssh("echo here; exit 7", kernel=kernel)
                self.assertEqual((done.returncode, done.stdout), (7, "here\n"), done.stderr + self.log())

    def test_a_file_both_ways(self):
        self.start_sshd()
        given, there, back = (self.folder / name for name in ("given", "there", "back"))
        given.write_bytes(os.urandom(3_000_001))
        for source, target in ((given, f"root@10.77.0.1:{there}"), (f"root@10.77.0.1:{there}", back)):
            done = self.on.run(*self.words("scp", "-P"), "-q", source, target, kernel=0, timeout=120)
            self.assertEqual(done.returncode, 0, done.stderr + self.log())
        for copy in (there, back):
            self.assertEqual(hashlib.sha256(copy.read_bytes()).digest(), hashlib.sha256(given.read_bytes()).digest())

    # The filter's child ends at the refusal, and the next connection gets another.
    def test_a_refused_login_and_the_next(self):
        self.start_sshd()
        allowed = self.folder / "authorized"
        keys = allowed.read_text()
        allowed.write_text("")
        refused = self.ssh("true")
        self.assertEqual(refused.returncode, 255)
        self.assertIn("Permission denied", refused.stderr)
        allowed.write_text(keys)
        self.assertEqual(self.ssh("echo again").stdout, "again\n", self.log())
        self.assertNotIn("audit", self.log())


if __name__ == "__main__":
    harness.main()
