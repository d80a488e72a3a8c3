"""End-to-end harness: brings up cobs under private names and checks that nothing of them is left. Standard library only.

    class MyTest(harness.CobTest):
        def test_something(self):
            cob = self.cob(kernels=2)
            self.assertEqual(cob.run("echo", "hi").stdout, "hi\\n")

COB_BUILD names the build tree (default: build/ beside tests/). A file ends with `harness.main()`, whose exit status is 0, 1,
or 77 when something was skipped and nothing failed; each skip is printed by name.
"""
import datetime
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("COB_BUILD", ROOT / "build")).resolve()
COB = str(BUILD / "cob")
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


CHECK_MARK = "cob: check:"
GUARD_MARK = "COB_TEST_GUARD"


def wait_until(condition, seconds=10.0, what="the condition"):
    """Polls until condition() is true and returns its value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.005)


def is_alive(pid):
    """False for a zombie too: nobody may be there to reap it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_of(name):
    """(pid, command line) of the supervisor's kernels, by their title."""
    found = []
    for entry in all_processes():
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if command.startswith(f"cob-kernel[{name}/") and is_alive(entry.name):
            found.append((int(entry.name), command))
    return found


def all_processes():
    return [entry for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit()]


def memories_of(pid):
    """Inodes of the anonymous memories (memfd_create(2)) that a process has open or mapped."""
    found = set()
    try:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/memfd:"):
                found.add(int(fields[4]))
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(entry).startswith("/memfd:"):
                found.add(entry.stat().st_ino)
    except OSError:
        pass
    return found


def run_delay(pid):
    """Seconds that a process waited for a core since its start."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def usable_cores():
    return sorted(os.sched_getaffinity(0))


class Cob:
    """One cob: a private name, a private XDG_RUNTIME_DIR, a free temporary directory (`directory`)."""

    def __init__(self, double=False, environment=None, command=COB, check=True):
        """`check`: after its calls each program compares the shim's table with the host's, and aborts at a difference."""
        self.command = str(command)
        self.name = "test-" + secrets.token_hex(4)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="cob-test-"))
        runtime = self.directory / "runtime"
        runtime.mkdir(mode=0o700)
        self.runtime = runtime
        self.run_directory = runtime / "cob" / self.name
        self.environment = {k: v for k, v in os.environ.items() if k not in ("COB_SHIM", "LD_PRELOAD")}
        self.environment["XDG_RUNTIME_DIR"] = str(runtime)
        self.environment["XDG_STATE_HOME"] = str(self.directory / "state")
        self.environment["COB_CHECK"] = "1" if check else "0"
        if double:
            self.environment["COB_LIBEXEC"] = str(BUILD / "double")
            self.environment["COB_SHIM_PATH"] = str(BUILD / "double" / "libshim_double.so")
        self.environment.update(environment or {})
        self.pids = set()
        self.check_reports = []  # what the shim's check mode printed before it aborted a program
        self.children = []
        self.neighbours = []  # cobs joined to this one, whose `memories` it was shown: steering tables
        self.memories = set()  # of a neighbour: what it made before it was joined
        self.endings = []  # called first by close(): servers that must be asked to end, not killed
        self.guard = self.start_guard()

    def start_guard(self):
        """Ends the cob should this process be killed, as ctest does at a timeout: then the pipe closes."""
        script = 'exec 3<&0; (cat <&3; "$0" down --name "$1"; rm -rf "$2") > /dev/null 2>&1 &'
        reading, writing = os.pipe()
        subprocess.run(["sh", "-c", script, self.command, self.name, str(self.directory)], stdin=reading,
                       env={**self.environment, GUARD_MARK: "1"}, start_new_session=True, check=True)
        os.close(reading)
        return writing

    # ---- the CLI ----

    def cli(self, *words, environment=None, timeout=60, **options):
        """`cob WORDS`, to its end."""
        done = subprocess.run([self.command, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=timeout,
                              env={**self.environment, **(environment or {})}, **options)
        self.note_reports(done.stderr)
        return done

    def named(self, command, *words, **options):
        return self.cli(command, "--name", self.name, *words, **options)

    def up(self, *words, **options):
        done = self.named("up", *words, **options)
        if done.returncode != 0:
            raise AssertionError(f"cob up failed: {done.stdout}{done.stderr}")
        self.note_pids()
        return done

    def down(self):
        return self.named("down")

    def status(self):
        done = self.named("status", "--json")
        if done.returncode != 0:
            raise AssertionError(f"cob status failed: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def kernels(self):
        return self.status()["kernels"]

    def ps(self):
        return json.loads(self.named("ps", "--json").stdout)

    def log(self):
        try:
            return (self.run_directory / "log").read_text()
        except FileNotFoundError:
            return ""

    def note_pids(self):
        status = self.status()
        self.pids.add(status["pid"])
        self.pids.update(k["pid"] for k in status["kernels"] if k["pid"] > 0)
        return status

    def kill_kernel(self, number, meanwhile=lambda: None):
        """kill -9, `meanwhile()`, and its respawn. Returns the seconds between them by the supervisor's log, without those in which supervisor
        and new kernel waited for a core."""
        supervisor, old = self.status()["pid"], self.kernels()[number]
        waited = -run_delay(supervisor)
        killed = time.time()
        os.kill(old["pid"], signal.SIGKILL)
        meanwhile()
        new = {}
        def runs():
            new.update(self.kernels()[number])
            return new["epoch"] == old["epoch"] + 1 and "now" in new
        wait_until(runs, 30, "the kernel's respawn")
        self.note_pids()
        stamp = re.search(rf"(?m)^(\S+ \S+) supervisor: kernel {number} runs: pid {new['pid']},", self.log())[1]
        waited += run_delay(supervisor) + run_delay(new["pid"])
        return datetime.datetime.fromisoformat(stamp).timestamp() - killed - waited

    # ---- programs ----

    def run(self, *program, kernel=None, spread=False, threads=False, **options):
        """`cob run -- PROGRAM`, to its end; `spread`, `threads`: with --spread, --spread-threads."""
        return self.named("run", *(() if kernel is None else ("-k", kernel)), *(("--spread",) if spread else ()),
                          *(("--spread-threads",) if threads else ()), "--", *program, **options)

    def start(self, *program, kernel=None, spread=False, threads=False, **options):
        """`cob run -- PROGRAM` in the background; ended with the test."""
        words = [self.command, "run", "--name", self.name, *(() if kernel is None else ("-k", str(kernel))),
                 *(("--spread",) if spread else ()), *(("--spread-threads",) if threads else ()), "--"]
        environment = {**self.environment, **options.pop("environment", {})}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        child = subprocess.Popen([*words, *map(str, program)], env=environment, **options)
        self.children.append(child)
        return child

    # ---- the end ----

    def note_reports(self, text):
        self.check_reports += [line for line in text.splitlines() if line.startswith(CHECK_MARK)]

    def read_what_was_printed(self, child):
        """Looks for reports in the rest of a dead child's output; its descendants may hold the pipes open."""
        for stream in (child.stdout, child.stderr):
            if stream is None or stream.closed:
                continue
            os.set_blocking(stream.fileno(), False)
            try:
                while piece := os.read(stream.fileno(), 1 << 20):
                    self.note_reports(piece.decode(errors="replace"))
            except BlockingIOError:
                pass

    def read_logs(self):
        for path in self.directory.rglob("*"):
            if path.is_file() and path.stat().st_size < 1 << 24:
                self.note_reports(path.read_bytes().decode(errors="replace"))

    def processes(self):
        """(pid, command line) of whoever was started with this cob's environment, the guard aside."""
        mark = f"XDG_RUNTIME_DIR={self.runtime}".encode()
        found = []
        for process in all_processes():
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
                if mark in environment and GUARD_MARK.encode() + b"=1" not in environment and is_alive(process.name):
                    found.append((int(process.name), (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()))
            except OSError:
                continue
        return found

    def close(self):
        """Ends everything; returns what was left behind that should not have been."""
        memories = set().union(*(memories_of(pid) for pid in self.pids)).difference(*(cob.memories for cob in self.neighbours))
        for ending in self.endings:
            ending()
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            self.read_what_was_printed(child)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        if (self.run_directory / "control").exists():
            self.down()
        problems = []
        def rest():
            return ([p for p in self.pids if is_alive(p)], processes_of(self.name), self.processes(),
                    [process.name for process in all_processes() if memories and memories & memories_of(process.name)])
        try:
            wait_until(lambda: not any(rest()), 3)
        except AssertionError:
            kernels, titled, started, holders = rest()
            problems.append(f"left: processes {kernels} {titled} {started}; memory of kernels held by {holders}")
        left = [str(path) for path in self.runtime.rglob("*") if not path.is_dir() or path == self.run_directory]
        if left:
            problems.append(f"left in the runtime directory: {left}")
        self.read_logs()
        problems += self.check_reports
        os.close(self.guard)
        shutil.rmtree(self.directory, ignore_errors=True)
        return problems


class CobTest(unittest.TestCase):
    """A test that may use cobs; each is ended after it, and must leave nothing."""

    double = False  # True: kernels and shim are the doubles of tests/double

    def cob(self, kernels=None, cores=None, up=True, **options):
        cob = Cob(double=self.double, **options)
        self.addCleanup(self.end, cob)
        if up:
            words = [] if kernels is None else ["--kernels", kernels]
            if cores is not None:
                words += ["--cores", cores]
            elif kernels is not None and kernels > len(usable_cores()):
                words += ["--cores", ",".join(str(usable_cores()[i % len(usable_cores())]) for i in range(kernels))]
            cob.up(*words)
        return cob

    def end(self, cob):
        log = cob.log()
        problems = cob.close()
        if problems:
            self.fail("; ".join(problems) + "\nthe cob's log:\n" + log[-4000:])
        if self._outcome_failed():
            print("the cob's log:\n" + log[-4000:], file=sys.stderr)

    def _outcome_failed(self):
        result = self._outcome.result
        return any(test is self for test, _ in result.failures + result.errors) if result else False

    def write_program(self, cob, name, text, mode=0o755):
        path = cob.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path


def main():
    program = unittest.main(exit=False, verbosity=2)
    skipped = program.result.skipped
    for test, reason in skipped:
        print(f"SKIPPED: {test.id()}: {reason}", file=sys.stderr)
    if skipped:
        print(f"SKIPPED: {len(skipped)} of {program.result.testsRun}", file=sys.stderr)
    sys.exit(1 if not program.result.wasSuccessful() else 77 if skipped else 0)
