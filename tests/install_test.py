"""What `make install` installs, into a directory of its own (DESTDIR): its layout, and a cob's whole life from there. `make` itself
is not run: it would install missing packages."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import harness
from servers import ADDRESS

ECHO = """
import socket
l = socket.create_server(("0.0.0.0", 7000)); print("listening", flush=True)
while True:
    c, _ = l.accept(); c.sendall(c.recv(100)); c.close()
"""
ASK = f"""
import socket
s = socket.create_connection(("{ADDRESS}", 7000), 10); s.sendall(b"from what was installed"); print(s.recv(100).decode())
"""
LAYOUT = {"bin/cob": 0o755, "libexec/cob/cob-kernel": 0o755, "libexec/cob/cob-bench-call": 0o755,
          "libexec/cob/cob-bench-connections": 0o755, "libexec/cob/cob-bench-files": 0o755, "libexec/cob/cob-bench-migrate": 0o755, "libexec/cob/cob-bench-passthrough": 0o755,
          "libexec/cob/cob-bench-offload": 0o755, "libexec/cob/cob-island": 0o755, "libexec/cob/cob-island-image": 0o755,
          "libexec/cob/foreign-apt.sh": 0o755, "bin/cob-offload": 0o755,
          "libexec/cob/cob-mount": 0o755, "lib/cob/libcob.so": 0o644,
          "share/bash-completion/completions/cob": 0o644, "share/zsh/site-functions/_cob": 0o644,
          "share/doc/cob/README.md": 0o644, "share/doc/cob/LICENSE": 0o644}

# The libraries', which message_package_test.py and offload_test.py look at.
PACKAGE = ("include/cob/", "lib/cmake/cob_message/", "lib/pkgconfig/cob_message.pc", "lib/libcob_message.a",
           "lib/cmake/cob_offload/", "lib/pkgconfig/cob_offload.pc", "lib/libcob_offload.a")


class Install(harness.CobTest):
    @classmethod
    def setUpClass(cls):
        cls.destination = tempfile.TemporaryDirectory(prefix="cob-install-")
        done = subprocess.run(["cmake", "--install", harness.BUILD, "--prefix", "/usr/local"], capture_output=True, text=True,
                              env={**os.environ, "DESTDIR": cls.destination.name})
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        cls.prefix = pathlib.Path(cls.destination.name) / "usr/local"
        cls.prefix.parent.parent.chmod(0o755)

    @classmethod
    def tearDownClass(cls):
        cls.destination.cleanup()

    def test_layout(self):
        found = {str(p.relative_to(self.prefix)): p.stat().st_mode & 0o777 for p in self.prefix.rglob("*") if p.is_file()}
        for start in PACKAGE:
            self.assertTrue([path for path in found if path.startswith(start)], start)
        found = {path: mode for path, mode in found.items() if not path.startswith(PACKAGE)}
        self.assertEqual({path: mode & 0o644 for path, mode in found.items()}, {path: mode & 0o644 for path, mode in LAYOUT.items()})
        for path in ("bin/cob", "libexec/cob/cob-kernel", "libexec/cob/cob-bench-call", "libexec/cob/cob-bench-connections"):
            self.assertTrue(os.access(self.prefix / path, os.X_OK), path)
        bash = self.prefix / "share/bash-completion/completions/cob"
        done = subprocess.run(["bash", "--norc", "-c", f"source {bash}; complete -p cob"], capture_output=True, text=True)
        self.assertIn("_cob", done.stdout)
        self.assertTrue((self.prefix / "share/zsh/site-functions/_cob").read_text().startswith("#compdef cob"))

    def test_a_life(self):
        cob = self.cob(kernels=2, command=self.prefix / "bin/cob")
        server = cob.start(sys.executable, "-c", ECHO, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        done = cob.run(sys.executable, "-c", ASK, kernel=0)
        self.assertEqual(done.stdout, "from what was installed\n", done.stderr)
        self.assertIn(server.pid, [p["pid"] for p in cob.ps()])
        maps = pathlib.Path(f"/proc/{server.pid}/maps").read_text()
        self.assertIn(str((self.prefix / "lib/cob/libcob.so").resolve()), maps)
        kernel = pathlib.Path(f"/proc/{cob.kernels()[1]['pid']}/exe")
        if os.geteuid() == 0:
            self.assertEqual(os.readlink(kernel), str((self.prefix / "libexec/cob/cob-kernel").resolve()))
        self.assertEqual(cob.cli("doctor").returncode, 0)
        self.assertEqual(cob.down().returncode, 0)

    def test_the_benchmark_finds_its_program(self):
        cob = self.cob(up=False, command=self.prefix / "bin/cob")
        done = cob.cli("bench", "calls", "--seconds", "0.05", "--rounds", "1", timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    harness.main()
