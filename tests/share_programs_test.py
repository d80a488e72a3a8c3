#!/usr/bin/env python3
"""Real programs with their processes on two islands and their files on one share: git, a build by make, rsync, fio, stress-ng, nginx.
What is written by island b is checked on the host; a full store and a user without rights get the host's errors."""
import filecmp
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import harness
import servers
from harness import wait_until
from shares_test import ROOT, SharesTest, needs

GIT = 'git -c user.name=n -c user.email=e -c safe.directory="*"'


def different(one, other):
    """Names that are on one side only or differ in kind or bytes, of two trees."""
    found = filecmp.dircmp(one, other, ignore=[".git"])
    wrong = found.left_only + found.right_only + found.common_funny
    wrong += filecmp.cmpfiles(one, other, found.common_files, shallow=False)[1]
    return wrong + [name for below in found.common_dirs for name in different(pathlib.Path(one) / below, pathlib.Path(other) / below)]


class OneShareTest(SharesTest):
    def elsewhere(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="cob-host-"))
        self.addCleanup(shutil.rmtree, folder, True)
        return folder

    def on_a(self, *program, **options):
        return self.one.run(*program, kernel=0, **options)

    def runner(self, kernel):
        """A program that runs its arguments on a kernel, in the share's folder p; the share's directory is empty for island b's."""
        run = f"{self.one.command} run --name {self.one.name} -k {kernel} {'--from b' if kernel else ''} --"
        cover = f"exec unshare -m sh -c 'mount -t tmpfs none {self.share} && exec \"$@\"' sh" if ROOT and kernel else "exec"
        return self.write_program(self.one, f"on{kernel}", f"""#!/bin/sh
cd /; {cover} {run} sh -c 'cd {self.share}/p && exec "$@"' sh "$@"
""")


class GitTest(OneShareTest):
    @needs("git")
    def test_commits_here_and_there_and_a_collection_beside_a_reader(self):
        source = self.elsewhere()
        for i in range(40):
            (source / f"f{i}").write_text(f"{i}\n" * 50)
        here = lambda *words: subprocess.run(["git", "-C", str(source), "-c", "user.name=n", "-c", "user.email=e", *words],
                                             check=True, capture_output=True)
        here("init", "-q")
        here("add", ".")
        here("commit", "-qm", "first")
        self.sh(f'{GIT} clone -q --no-hardlinks {source} "$0/r" 2>&1', timeout=120)
        self.assertEqual(different(source, self.share / "r"), [])
        for turn in range(3):
            self.sh(f'cd "$0/r" && echo {turn} >> f1 && {GIT} commit -qam "b {turn}"')
            done = self.on_a("sh", "-c", f'cd "$0/r" && echo {turn} >> f2 && {GIT} commit -qam "a {turn}"', self.share)
            self.assertEqual(done.returncode, 0, done.stderr)
        reader = self.begin("sh", "-c", f'cd "$0/r" && for i in 1 2 3 4 5 6; do {GIT} log -p --stat > /dev/null || exit 1; done', self.share)
        done = self.on_a("sh", "-c", f'cd "$0/r" && {GIT} gc -q --prune=now 2>&1', self.share, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout)
        said = reader.communicate(timeout=120)
        self.assertEqual(reader.returncode, 0, said)
        self.sh(f'cd "$0/r" && {GIT} gc -q --aggressive --prune=now 2>&1', timeout=120)
        subprocess.run(["git", "-C", str(self.share / "r"), "-c", "safe.directory=*", "fsck", "--strict"], check=True, capture_output=True)
        self.assertEqual(self.sh(f'cd "$0/r" && {GIT} rev-list --count HEAD'), "7\n")
        self.assertEqual(self.sh(f'cd "$0/r" && {GIT} status --porcelain'), "")


class BuildTest(OneShareTest):
    @needs("make", "gcc")
    def test_a_build_spread_over_both(self):
        folder = self.share / "p"
        folder.mkdir()
        for i in range(8):
            (folder / f"f{i}.c").write_text(f'#include <stdio.h>\n#include "all.h"\nint f{i}(void) {{ return printf("%d\\n", {i}); }}\n')
        (folder / "all.h").write_text("".join(f"int f{i}(void);\n" for i in range(8)))
        (folder / "main.c").write_text('#include "all.h"\nint main(void) { ' + "".join(f"f{i}(); " for i in range(8)) + "return 0; }\n")
        (folder / "Makefile").write_text(
            "objects = $(patsubst %.c,%.o,$(wildcard *.c))\nprogram: $(objects)\n"
            f"\t{self.runner(0)} gcc -o $@ $(objects)\n"
            f"f1.o f3.o f5.o f7.o main.o: %.o: %.c all.h\n\t{self.runner(1)} gcc -c -o $@ $<\n"
            f"f0.o f2.o f4.o f6.o: %.o: %.c all.h\n\t{self.runner(0)} gcc -c -o $@ $<\n")
        # make itself is the host's: its compilers are of both islands.
        done = subprocess.run(["sh", "-c", f"cd {folder} && make -j4 2>&1 && ./program && make -q"], env=self.one.environment,
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.split()[-8:], [str(i) for i in range(8)])
        for name in ("f1.o", "program"):
            (folder / name).unlink()
        (folder / "Makefile").write_text("program: $(patsubst %.c,%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n")
        self.sh('cd "$0/p" && make -j4 && ./program', timeout=120)
        self.assertEqual(subprocess.run([folder / "program"], capture_output=True, text=True).stdout.split(), [str(i) for i in range(8)])


class CopyTest(OneShareTest):
    @needs("rsync")
    def test_rsync_there_and_back(self):
        source, back = self.elsewhere(), self.elsewhere()
        for i in range(30):
            (source / f"d{i % 3}").mkdir(exist_ok=True)
            (source / f"d{i % 3}" / f"f{i}").write_bytes(os.urandom(1000 * i))
        (source / "link").symlink_to("d1/f1")
        self.sh(f'rsync -a {source}/ "$0/r/" 2>&1')
        self.assertEqual(different(source, self.share / "r"), [])
        self.assertEqual(os.readlink(self.share / "r" / "link"), "d1/f1")
        with open(source / "d2" / "f29", "r+b") as file:
            file.seek(10000)
            file.write(b"changed")
        os.utime(source / "d2" / "f29", (1e9, 1e9))  # of the same size, and rsync compares whole seconds
        (source / "d0" / "f3").unlink()
        self.sh(f'rsync -a --delete --no-whole-file --inplace {source}/ "$0/r/" 2>&1 && rsync -a "$0/r/" {back}/ 2>&1')
        self.assertEqual(different(source, self.share / "r") + different(source, back), [])
        self.assertEqual(self.sh(f'rsync -ani --delete {source}/ "$0/r/"'), "")

    @needs("fio")
    def test_fio_reads_what_it_wrote(self):
        for engine in ("psync", "sync", "vsync"):
            self.sh(f'fio --name=v --directory="$0" --ioengine={engine} --rw=randwrite --bs=4k --size=2m --verify=crc32c --do_verify=1 --verify_state_save=0 '
                    "--thread --numjobs=2 --minimal 2>&1", timeout=120)
        done = self.on_a("fio", "--name=v", f"--directory={self.share}", "--ioengine=psync", "--rw=randwrite", "--bs=4k", "--size=2m",
                         "--verify=crc32c", "--verify_state_save=0", "--verify_only", "--thread", "--numjobs=2", "--minimal")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    @needs("stress-ng")
    def test_stressors_of_files_locks_and_names(self):
        stressors = {"dentry": "--dentries 64", "flock": "", "lockf": "", "fcntl": "", "rename": "", "dir": "--dir-dirs 64",
                     "seek": "--seek-size 1m", "chmod": "", "chown": "", "utime": "", "hdd": "--hdd-bytes 2m",
                     "fallocate": "--fallocate-bytes 2m"}
        for name, options in stressors.items():
            with self.subTest(stressor=name):
                done = self.on_b("sh", "-c", f'cd "$0" && exec stress-ng --{name} 2 {options} --{name}-ops 50 --timeout 20 --verify '
                                 '--temp-path "$0" 2>&1', self.share, timeout=60)
                self.assertEqual(done.returncode, 0, f"{name}: {done.stdout}{done.stderr}")
                self.assertEqual(list(self.share.iterdir()), [], name)


class ServingTest(OneShareTest):
    @needs("nginx", "curl")
    def test_files_that_another_island_replaces_are_whole(self):
        page = lambda i: f"{i:06}" * 5000
        www = self.share / "www"
        www.mkdir()
        (www / "page").write_text(page(0))
        servers.nginx(self.one, port=8080, kernel=1, server=f"location /s/ {{ alias {www}/; }}", probe=1)
        writer = self.begin("python3", "-c", f"""
import os, sys
for i in range(1, 400):
    with open(sys.argv[1] + "/new", "w") as file: file.write(f"{{i:06}}" * 5000)
    os.rename(sys.argv[1] + "/new", sys.argv[1] + "/page")
""", www)
        seen = set()
        script = ("import urllib.request, sys\nfor _ in range(40):\n  got = urllib.request.urlopen(sys.argv[1]).read()\n"
                  "  assert len(got) == 30000 and len(set(got[i:i + 6] for i in range(0, 30000, 6))) == 1, got[:60]\n  print(got[:6].decode())\n")
        while writer.poll() is None or not seen:
            done = self.one.run(sys.executable, "-c", script, f"http://{servers.ADDRESS}:8080/s/page", kernel=1)
            self.assertEqual(done.returncode, 0, done.stderr)
            seen |= set(done.stdout.split())
        self.assertEqual(writer.returncode, 0, writer.communicate())
        self.assertGreater(len(seen), 1)
        self.assertEqual((www / "page").read_text(), page(399))


class DeathTest(OneShareTest):
    WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
for i in range(1000000):
    try:
        os.write(file, b"%07d\\n" % i)
        os.fsync(file)
    except OSError as e:
        print("failed", e.errno, flush=True)
        break
    print(i, flush=True)
"""

    def test_what_was_synced_outlives_either_kernel(self):
        for victim in (0, 1):
            with self.subTest(victim=victim):
                file = self.share / f"f{victim}"
                writer = self.begin("python3", "-c", self.WRITER, file)
                for _ in range(50):
                    writer.stdout.readline()
                self.one.kill_kernel(victim)
                lines = writer.stdout.read().split("\n")
                said = [line for line in lines if line]
                if said and said[-1].startswith("failed"):
                    self.assertIn(int(said.pop().split()[1]), (5, 19, 112, 116))  # EIO, ENODEV, EHOSTDOWN, ESTALE
                synced = int(said[-1]) if said else 49
                found = file.read_text().split()
                self.assertEqual(found, [f"{i:07}" for i in range(len(found))])
                self.assertGreater(len(found), synced)
                wait_until(lambda: self.on_b("cat", file).returncode == 0, 20, "the share's return")


class ErrorTest(OneShareTest):
    def setUp(self):
        if not ROOT:
            self.skipTest("needs root: mounts a store of 1 MiB")
        super().setUp()

    def test_a_full_store_is_its_writers_error(self):
        small = self.share / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(small)])
        script = "import os, sys\nfile = open(sys.argv[1], 'wb', 0)\nn = 0\ntry:\n  while n < 1 << 22: n += file.write(b'x' * 10000)\nexcept OSError as e: print(e.errno, n)\n"
        done = self.on_b("python3", "-c", script, small / "f")
        errno, written = map(int, done.stdout.split())
        self.assertEqual((errno, (small / "f").stat().st_size), (28, written))
        self.assertEqual(self.sh('echo x > "$0/other" && cat "$0/other"'), "x\n")
        (small / "f").unlink()
        self.assertEqual(self.sh('echo x > "$0/small/g" && cat "$0/small/g"'), "x\n")

    def test_links_in_circles_and_long_names(self):
        os.symlink("round", self.share / "round")
        self.assertIn("Too many levels", self.on_b("cat", self.share / "round").stderr)
        self.assertIn("File name too long", self.on_b("touch", self.share / ("n" * 256)).stderr)
        self.assertIn("File name too long", self.on_b("touch", str(self.share) + "/n" * 2100).stderr)


if __name__ == "__main__":
    harness.main()
