#!/usr/bin/env python3
"""The same random sequences of file calls (differential/file_calls.c) by processes of the host and by programs on two declared islands,
a share of one of them between them: every result, errno and byte compared.

COB_SEEDS: how many sequences (default 12), COB_FIRST_SEED: where to begin, COB_STEPS: calls a sequence (default 1,500). A difference is
shortened to the calls that bring it about, in COB_TRIES tries at most."""
import collections
import errno
import fcntl
import itertools
import os
import pathlib
import random
import re
import select
import shutil
import stat
import struct
import subprocess
import tempfile
import time
import unittest

import harness
from shares_test import ROOT

PERFORMER = str(harness.BUILD / "differential" / "file_calls")
FIRST = int(os.environ.get("COB_FIRST_SEED", "1"))
SEEDS = int(os.environ.get("COB_SEEDS", "12"))
STEPS = int(os.environ.get("COB_STEPS", "1500"))
TRIES = int(os.environ.get("COB_TRIES", "150"))
PERFORMERS, PAIRS = 3, 8  # at the beginning, and at most with forked children
SETTLE = 0.02  # after an exit: locks of the dead are free a moment later (src/shim/README.md)

HEADER = (pathlib.Path(__file__).parent / "differential" / "file_calls.h").read_text()
CALLS = re.findall(r"\bcall_(\w+)\b", re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S))
NAMES, SLOTS = (int(re.search(rf"{what} = (\d+)", HEADER)[1]) for what in ("file_names", "file_slots"))
STEP, RESULT = struct.Struct("<8iq"), struct.Struct("<2qiI")
Step = collections.namedtuple("Step", "performer call slot other name name2 flags bytes where offset")
WEIGHTS = dict(open=14, close=5, dup=2, dup2=1, read=10, pread=4, readv=2, write=10, pwrite=4, writev=2, seek=7, truncate=1, ftruncate=2,
               fallocate=1, fsync=1, fstat=4, stat=3, access=1, link=1, symlink=1, readlink=1, rename=2, unlink=2, mkdir=1, rmdir=1, chmod=1,
               fchmod=1, utimens=1, set_xattr=1, get_xattr=1, list=1, chdir=0.7, fchdir=0.3, getcwd=0.5, umask=0.3, get_flags=2, set_flags=2,
               flock=3, lock=6, test_lock=4, map=1, copy_range=1, sendfile=1, poll=1, epoll_add=0.5, pipe=0.3, stream_write=1, stream_read=1,
               fork=0.3, exec=0.2, exit=0.2)
WHERE = (0, 0, 0, 1, 511, 512, 4095, 4096, 4097, 10_000, 65_536, 131_072, 1 << 20)
SIZES = (0, 1, 2, 7, 80, 81, 512, 1000, 4095, 4096, 4097, 8192, 16_384, 20_000, 65_536)
KINDS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR)
EXTRAS = ((0, 8), (os.O_CREAT, 12), (os.O_CREAT | os.O_EXCL, 3), (os.O_CREAT | os.O_TRUNC, 3), (os.O_TRUNC, 1), (os.O_CREAT | os.O_APPEND, 4),
          (os.O_APPEND, 2), (os.O_DIRECTORY, 2), (os.O_NOFOLLOW, 1), (os.O_PATH, 1), (os.O_PATH | os.O_NOFOLLOW, 1), (os.O_TMPFILE, 1),
          (os.O_CLOEXEC, 1), (os.O_CREAT | os.O_DIRECTORY, 0.3), (os.O_NONBLOCK, 0.5), (os.O_SYNC, 0.3), (os.O_DSYNC, 0.3), (os.O_NOATIME, 0.3))
MODES = (0o644, 0o600, 0o755, 0o444, 0o4711, 0o000, 0o2775)
FLAGS = dict(seek=(0, 0, 0, 1, 1, 2, 2, 3, 4, 5), fsync=(0, 1), stat=(0, 1), access=(os.F_OK, os.R_OK, os.W_OK, os.X_OK, 15),
             rename=(0, 0, 0, 1, 2, 3), mkdir=MODES, chmod=MODES, fchmod=MODES, umask=(0o022, 0o077, 0, 0o027),
             set_flags=(0, os.O_RDWR, os.O_APPEND, os.O_APPEND, os.O_NONBLOCK, os.O_APPEND | os.O_NONBLOCK), flock=(1, 1, 2, 2, 8, 8, 3), lock=range(6), test_lock=range(6),
             fallocate=(0, 1, 2, 3, 0x10, 0x13, 8))


def sequence(seed, steps):
    """Steps of performers 0, 1, ...; which exist is known here, so that none is asked that does not."""
    chance = random.Random(seed)
    alive, never = list(range(PERFORMERS)), list(range(PERFORMERS, PAIRS))
    calls, weights = list(WEIGHTS), list(WEIGHTS.values())
    performer, made = 0, []
    while len(made) < steps:
        if chance.random() < 0.3 or performer not in alive:
            performer = chance.choice(alive)
        call = chance.choices(calls, weights)[0]
        other = chance.randrange(SLOTS)
        if call == "fork":
            if not never:
                continue
            other = never.pop(0)
            alive.append(other)
        elif call == "exit":
            if len(alive) == 1:
                continue
            alive.remove(performer)
        elif call == "exec":
            other = performer
        elif call == "open":
            other = chance.randrange(SLOTS) if chance.random() < 0.1 else -1
        flags = chance.choice(FLAGS.get(call, (0,)))
        size = chance.choice(SIZES) if chance.random() < 0.5 else chance.randrange(200)
        offset = chance.choice(WHERE) if chance.random() < 0.7 else chance.randrange(300)
        if call == "open":
            flags = chance.choice(KINDS) | chance.choices([e for e, _ in EXTRAS], [w for _, w in EXTRAS])[0]
            size = chance.choice(MODES)
        elif call == "seek" and chance.random() < 0.2:
            offset = -offset
        elif call == "test_lock" and flags == 5:
            flags = 2  # F_UNLCK of an OFD lock: EINVAL before Linux 6.5
        elif call == "map":
            offset = offset // 4096 * 4096
        elif call in ("set_xattr", "stream_write"):
            size %= 3000
        name, name2 = (chance.randrange(8) if chance.random() < 0.7 else chance.randrange(NAMES) for _ in range(2))
        made.append(Step(performer, call, chance.randrange(SLOTS), other, name, name2, flags, size, chance.choice((0, 0, 1, 2, 3)), offset))
    return made


class Conductor:
    """Has steps performed by processes that `start(words, pair)` starts; `root` is made anew."""

    def __init__(self, root, start, scratch):
        self.root, self.pipes = root, pathlib.Path(tempfile.mkdtemp(dir=scratch))
        shutil.rmtree(root, True)
        root.mkdir()
        self.ends = []
        for pair in range(PAIRS):
            for kind in ("steps", "results"):
                os.mkfifo(self.pipes / f"{pair}.{kind}")
            self.ends.append((os.open(self.pipes / f"{pair}.steps", os.O_RDWR),
                              os.open(self.pipes / f"{pair}.results", os.O_RDONLY | os.O_NONBLOCK)))
        self.processes = [start((PERFORMER, root, self.pipes, pair), pair) for pair in range(PERFORMERS)]
        self.forked = set()

    def answer(self, performer, bytes_wanted):
        got = b""
        while len(got) < bytes_wanted:
            if not select.select([self.ends[performer][1]], [], [], 30)[0]:
                raise TimeoutError(f"performer {performer} does not answer")
            piece = os.read(self.ends[performer][1], bytes_wanted - len(got))
            if not piece:  # nobody has the other end: not yet begun, or ended
                if all(p.poll() is not None for p in self.processes[performer:performer + 1]):
                    raise EOFError(f"performer {performer} ended")
                time.sleep(0.001)
            got += piece
        return got

    def ended(self, performer):
        if not select.select([self.ends[performer][1]], [], [], 30)[0] or os.read(self.ends[performer][1], 1):
            raise TimeoutError(f"performer {performer} does not end")
        for process in self.processes[performer:performer + 1]:
            process.wait(20)
        time.sleep(SETTLE)

    def perform(self, steps):
        """The results of all steps."""
        results, gone = [], set()
        for performer, together in itertools.groupby(steps, key=lambda s: s.performer):
            together = list(together)
            os.write(self.ends[performer][0], b"".join(
                STEP.pack(CALLS.index(s.call), s.slot, s.other, s.name, s.name2, s.flags, s.bytes, s.where, s.offset) for s in together))
            for step in together:
                if step.call == "exit":
                    self.ended(performer)
                    results.append((0, 0, 0, 0))
                else:
                    result, more, error, sum_ = RESULT.unpack(self.answer(performer, RESULT.size))
                    if step.call == "fork" and result >= 0:
                        self.forked.add(step.other)
                    if step.call == "test_lock":  # of several in the way any may be told (fcntl(2))
                        more, sum_ = int(more != fcntl.F_UNLCK), 0
                    results.append((result, more, error, sum_))
        return results

    def close(self):
        for steps, results in self.ends:
            os.write(steps, STEP.pack(CALLS.index("exit"), *(0,) * 8))
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pair in self.forked:  # those that open their pipes late would wait for ever once ours are closed
            while select.select([self.ends[pair][1]], [], [], 5)[0] and os.read(self.ends[pair][1], 1):
                pass
        for end in itertools.chain(*self.ends):
            os.close(end)
        shutil.rmtree(self.pipes, True)


class FilesOracle(harness.CobTest):
    def setUp(self):
        self.share = pathlib.Path(tempfile.mkdtemp(prefix="cob-share-"))
        self.addCleanup(shutil.rmtree, self.share, True)
        self.share.chmod(0o755)
        self.root = self.share / "root"
        self.one = self.cob(up=False)
        cores = harness.usable_cores()
        self.one.up("--island", f"a:1:{cores[0]}", "--island", f"b:1:{cores[-1]}", "--share", f"{self.share}@a")

    def on_host(self, words, _):
        return subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL)

    def on_cob(self, kernels):
        """Performers on these kernels in turn; of island b's the share's directory is covered, so that only messages lead there."""
        def start(words, pair):
            kernel = kernels[pair % len(kernels)]
            command = [self.one.command, "run", "--name", self.one.name, "-k", str(kernel), "--", *map(str, words)]
            if ROOT and kernel > 0:
                command = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.share), *command]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self.one.environment)
        return start

    def results(self, start, steps):
        conductor = Conductor(self.root, start, self.one.directory)
        try:
            return conductor.perform(steps)
        finally:
            conductor.close()

    def difference(self, kernels, steps):
        """Where the two differ first, and how; None if nowhere."""
        host, cob = self.results(self.on_host, steps), self.results(self.on_cob(kernels), steps)
        for at, pair in enumerate(zip(host, cob)):
            if pair[0] != pair[1]:
                return at, *pair
        return None

    def shortened(self, kernels, steps, tries=TRIES):
        """A shorter sequence that ends in a difference."""
        size = max(1, len(steps) // 2)
        while size >= 1 and tries > 0:
            at = 0
            while at < len(steps) - 1 and tries > 0:
                kept = [s for i, s in enumerate(steps[:-1]) if not at <= i < at + size or s.call in ("fork", "exit")] + steps[-1:]
                tries -= 1
                found = self.difference(kernels, kept) if len(kept) < len(steps) else None
                if found:
                    steps = kept[:found[0] + 1]
                else:
                    at += size
            size //= 2
        return steps

    def compare(self, kernels, seed):
        steps = sequence(seed, STEPS)
        found = self.difference(kernels, steps)
        if not found or not self.difference(kernels, steps[:found[0] + 1]):  # what time alone brings about does not come again
            return
        steps = self.shortened(kernels, steps[:found[0] + 1])
        _, host, cob = self.difference(kernels, steps) or found
        def told(result):
            return f"{result[0]} {errno.errorcode.get(result[2], '')} more {result[1]} sum {result[3]:x}"
        self.fail(f"seed {seed} on kernels {kernels}:\n" + "\n".join(map(str, steps)) + f"\nhost {told(host)}\ncob  {told(cob)}")

    def test_programs_of_both_islands(self):
        for seed in range(FIRST, FIRST + SEEDS, 2):
            with self.subTest(seed=seed):
                self.compare((0, 1, 1), seed)

    def test_programs_of_the_island_without_the_store(self):
        for seed in range(FIRST + 1, FIRST + SEEDS, 2):
            with self.subTest(seed=seed):
                self.compare((1,), seed)


if __name__ == "__main__":
    harness.main()
