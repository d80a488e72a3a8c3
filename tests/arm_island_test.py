#!/usr/bin/env python3
"""An island of another instruction set (docs/islands.md, "Machines"): a real arm64 Linux under QEMU joins a cob of this machine, and
programs run there with their caller's descriptors, directory, environment, exit status and signals."""
import gzip
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import unittest

import harness
from harness import ROOT, wait_until, usable_cores

ARCHITECTURE = "arm64"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
IMAGE = CACHE / "cob" / "islands" / ARCHITECTURE


def missing():
    """Why there can be no guest here; "": there can."""
    for program, package in (("qemu-system-aarch64", "qemu-system-arm"), ("cpio", "cpio"), ("apt-get", "apt")):
        if not shutil.which(program):
            return f"{program} is not installed ({package})"
    parts = ROOT / f"build-{ARCHITECTURE}"
    for part in ("cob-agent", "cob-kernel", "libcob.so"):
        if not (parts / part).exists():
            return f"cob is not built for {ARCHITECTURE} (make cross)"
    built = subprocess.run([harness.COB, "island", "build", "--arch", ARCHITECTURE], capture_output=True, text=True, timeout=300)
    if built.returncode != 0:
        return f"no image: {built.stderr.strip()}"
    return ""


class Guest(harness.CobTest):
    @classmethod
    def setUpClass(cls):
        why = missing()
        if why:
            raise unittest.SkipTest(why)

    def up(self, *words):
        one = self.cob(up=False, environment={"XDG_CACHE_HOME": str(CACHE), "LC_ALL": "C"})
        one.up("--cores", str(usable_cores()[0]), "--room", "1", *words)
        return one

    def add(self, one, name="arm0"):
        done = one.cli("island", "add", name, "--arch", ARCHITECTURE, "--name", one.name, "--json", timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        one.note_pids()
        return json.loads(done.stdout)

    def sh(self, one, script, status=0, timeout=60, **options):
        """A shell of the host; $A and $H run a program on the guest and on kernel 0."""
        run = f"{one.command} run --name {one.name} -k"
        done = subprocess.run(["bash", "-c", script], env={**one.environment, "A": f"{run} arm0 --", "H": f"{run} 0 --"},
                              cwd=one.directory, capture_output=True, text=True, timeout=timeout, **options)
        one.note_reports(done.stderr)
        self.assertEqual(done.returncode, status, f"{script}\n{done.stdout}{done.stderr}\n{one.log()[-3000:]}")
        return done.stdout

    def kernel(self, one, number=1):
        return next(k for k in one.kernels() if k["kernel"] == number)

    def joined(self, one, number=1):
        return any(link["kernel"] == number and link["up"] for link in one.kernels()[0]["links"])


class MachineTest(Guest):
    def test_programs_lives_and_ends(self):
        one = self.cob(up=False, environment={"XDG_CACHE_HOME": str(CACHE), "LC_ALL": "C"})
        share = one.directory / "share"
        share.mkdir()
        one.up("--cores", str(usable_cores()[0]), "--room", "1", "--share", str(share))
        self.assertEqual(self.add(one)["kernel"], 1)
        with self.subTest("it is one of the cob's kernels"):
            listed = json.loads(one.cli("island", "list", "--name", one.name, "--json").stdout)
            self.assertEqual([(i["island"], i["machine"], i["kernel"]) for i in listed], [("a", "", 0), ("arm0", ARCHITECTURE, 1)])
            self.assertEqual(self.sh(one, "$A uname -m"), "aarch64\n")
            self.assertTrue(self.joined(one))
        with self.subTest("standard streams"):
            self.assertEqual(self.sh(one, "seq 1 5 | $A sort -rn"), "5\n4\n3\n2\n1\n")
            self.assertEqual(self.sh(one, "seq 1 1000 > f; $A wc -l < f").strip(), "1000")
            self.assertEqual(self.sh(one, "$A sh -c 'echo out; echo err >&2' > both 2>&1; cat both"), "out\nerr\n")
            self.assertEqual(self.sh(one, "$A cat < /dev/null | wc -c").strip(), "0")
            self.assertEqual(self.sh(one, "echo hi 5> five; $A sh -c 'echo five >&5' 5>> five; cat five"), "hi\nfive\n")
        with self.subTest("one offset, whoever reads"):
            lines = self.sh(one, "seq 1000 1029 > g; (while read -r l; do echo $l; $A head -c 5; $H head -c 5; done) < g").split()
            self.assertEqual(lines, [str(i) for i in range(1000, 1030)])
        with self.subTest("a pipeline over both"):
            data = b"".join(b"%09d\n" % (i * 7919 % 1000003) for i in range(30000))
            (one.directory / "big").write_bytes(data)
            self.sh(one, "$H sort big | $A gzip > out.gz")
            self.assertEqual(gzip.decompress((one.directory / "out.gz").read_bytes()), b"".join(sorted(data.splitlines(True))))
        with self.subTest("exit status, signals, environment, arguments"):
            self.sh(one, "$A sh -c 'exit 7'", status=7)
            self.assertEqual(self.sh(one, "$A sh -c 'kill -9 $$'; echo $?"), "137\n")
            self.assertEqual(self.sh(one, "WORD='a b' $A sh -c 'echo \"$WORD\" $1' x 'c  d'"), "a b c d\n")
            self.sh(one, "$A no-such-program 2> /dev/null", status=127)
            program = one.start("sh", "-c", "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.1; done", kernel="arm0")
            self.assertEqual(program.stdout.readline(), "up\n")
            program.send_signal(signal.SIGUSR1)
            self.assertEqual(program.stdout.readline(), "got\n")
            self.assertEqual(program.wait(20), 3)
        with self.subTest("a share at its path, both ways"):
            (share / "from-host").write_text("host\n")
            self.assertEqual(self.sh(one, f"cd {share}; $A cat from-host"), "host\n")
            self.sh(one, f"cd {share}; $A sh -c 'echo guest > from-guest'")
            self.assertEqual((share / "from-guest").read_text(), "guest\n")
            self.assertEqual(self.sh(one, f"cd {share}; $A pwd"), f"{share}\n")
            self.sh(one, f"for side in $H; do :; done; cd {share}; ($A sh -c 'for i in 1 2 3 4 5 6 7 8 9; do echo guest $i >> log; done' & "
                         "for i in 1 2 3 4 5 6 7 8 9; do echo host $i >> log; done; wait)")
            self.assertEqual(sorted((share / "log").read_text().split("\n")[:-1]),
                             sorted(f"{side} {i}" for side in ("guest", "host") for i in range(1, 10)))
        with self.subTest("a program of another instruction set"):
            shutil.copy("/bin/true", share / "true")
            done = one.run(str(share / "true"), kernel="arm0")
            self.assertEqual(done.returncode, 126)
            self.assertIn("it is a program for x86-64, not aarch64; such programs run on kernel 0 (island a)", done.stderr)
            self.sh(one, f"cp {ROOT}/build-{ARCHITECTURE}/cob-kernel {share}/arm")
            done = one.run(str(share / "arm"), kernel=0)
            self.assertEqual(done.returncode, 126)
            self.assertIn("such programs run on kernel 1 (island arm0)", done.stderr)
        with self.subTest("the machine dies, and comes again"):
            before = self.kernel(one)
            program = one.start("sh", "-c", "echo up; sleep 60", kernel="arm0")
            self.assertEqual(program.stdout.readline(), "up\n")
            os.kill(before["pid"], signal.SIGKILL)
            self.assertEqual(program.wait(20), 255)
            self.assertEqual(self.sh(one, "$H echo still"), "still\n")
            wait_until(lambda: self.kernel(one)["epoch"] == before["epoch"] + 1 and self.joined(one), 90, "the next life")
            one.note_pids()
            self.assertEqual(self.sh(one, "echo again | $A cat"), "again\n")
        with self.subTest("removed"):
            self.assertEqual(one.cli("island", "remove", "arm0", "--name", one.name).returncode, 0)
            wait_until(lambda: len(one.kernels()) == 1, 10, "its end")
            self.sh(one, "$A true 2> why", status=1)
            self.assertIn("there is no island 'arm0'", (one.directory / "why").read_text())

    def test_a_wrong_key_is_refused(self):
        if not shutil.which("openssl"):
            self.skipTest("no openssl")
        one = self.up()
        self.add(one)
        pid = self.kernel(one)["pid"]
        qemu = [int(p) for p in (pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        command = pathlib.Path(f"/proc/{qemu[0]}/cmdline").read_bytes().decode()
        port = command.split("hostfwd=tcp:127.0.0.1:")[1].split("-")[0]
        for identity in (f"{one.name}/0", "other/0"):
            done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-psk_identity", identity, "-psk", "00" * 32],
                                  input=b"", capture_output=True, timeout=30)
            self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.sh(one, "echo on | $A cat"), "on\n")


class BadInputTest(Guest):
    def test_refused(self):
        one = self.up()
        def add(*words, environment=None):
            done = one.cli("island", "add", *words, "--name", one.name, environment=environment, timeout=120)
            self.assertNotEqual(done.returncode, 0)
            self.assertEqual(len(one.kernels()), 1)
            return done.stderr
        self.assertIn("'vax' is no architecture", add("x", "--arch", "vax"))
        self.assertIn("there is no image for arm64", add("x", environment={"XDG_CACHE_HOME": str(one.directory)}))
        self.assertIn("qemu-system-aarch64 is missing", add("x", environment={"PATH": "/nowhere"}))
        self.assertIn("too little memory", add("x", "--memory", "1000000"))
        self.assertIn("there is an island 'a' already", add("a"))
        self.assertIn("taken for a kernel's number", add("7"))
        broken = one.directory / "cob" / "islands" / ARCHITECTURE
        broken.mkdir(parents=True)
        (broken / "kernel").write_text("no kernel")
        (broken / "initramfs").write_text("nothing")
        # QEMU starts what is no kernel; it is ended when it has said nothing, or by QEMU itself.
        other = self.cob(kernels=1)
        done = other.cli("island", "add", "x", "--name", other.name)
        self.assertIn("no room for islands that are added later", done.stderr)
        self.assertIn("came with the cob", one.cli("island", "remove", "a", "--name", one.name).stderr)
        self.assertIn("there is no island 'x'", one.cli("island", "remove", "x", "--name", one.name).stderr)
        build = one.cli("island", "build", "--with", "no-such-package", environment={"XDG_CACHE_HOME": str(one.directory / "cache")},
                        timeout=200)
        self.assertIn("a package is not available", build.stderr)
        self.assertNotEqual(build.returncode, 0)


if __name__ == "__main__":
    harness.main()
