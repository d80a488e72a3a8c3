#!/usr/bin/env python3
"""The command and the supervisor, with the doubles of tests/double for kernel and shim: every command, every bad input,
and what deaths leave. What needs real kernels is in other files."""
import array
import ctypes
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import harness
from harness import COB, BUILD, is_alive, processes_of, usable_cores, wait_until

PYTHON = sys.executable


class CliTest(harness.CobTest):
    double = True

    def expect(self, done, exit_code, *phrases):
        said = done.stderr + done.stdout
        self.assertEqual(done.returncode, exit_code, said)
        for phrase in phrases:
            self.assertIn(phrase, said)

    def expect_untouched(self, cob):
        self.assertFalse(cob.run_directory.exists())
        self.assertEqual(processes_of(cob.name), [])


class UsageTest(CliTest):
    """What is refused before anything is touched."""

    def setUp(self):
        self.private = self.cob(up=False)

    def refused(self, *words, phrases=()):
        self.expect(self.private.named("up", *words), 2, *phrases)
        self.expect_untouched(self.private)

    def test_names(self):
        for name, phrase in [("x" * 33, "at most 32"), ("a/b", "letters, digits"), ("..", "letters, digits"),
                             ("a b", "letters, digits"), ("ü", "letters, digits"), ("", "empty"), ("a\nb", "letters, digits")]:
            for command in ("up", "ps", "status", "stats", "down"):
                with self.subTest(name=name, command=command):
                    self.expect(self.private.cli(command, "--name", name), 2, phrase)
            self.expect(self.private.cli("run", "--name", name, "--", "true"), 2, phrase)
        self.assertEqual(list((self.private.directory / "runtime").iterdir()), [])

    def test_longest_name_works(self):
        name = "N" * 32
        self.expect(self.private.cli("up", "--kernels", 1, "--name", name), 0, name)
        self.expect(self.private.cli("down", "--name", name), 0)

    def test_core_that_does_not_exist(self):
        self.refused("--cores", "999", phrases=["core 999 does not exist", f"cores {usable_cores()[0]}"])

    def test_core_outside_the_affinity_mask(self):
        cores = usable_cores()
        if len(cores) < 2:
            self.skipTest("one core only")
        done = self.private.named("up", "--cores", cores[1], preexec_fn=lambda: os.sched_setaffinity(0, {cores[0]}))
        self.expect(done, 2, f"core {cores[1]} does not exist or is not ours")
        self.expect_untouched(self.private)

    def test_malformed_cores(self):
        for cores in ("abc", "1-", "-1", "2-1", "0,,1", "", "0;1", "0x1", "99999999999"):
            with self.subTest(cores=cores):
                if cores:
                    self.refused(f"--cores={cores}")
                self.refused("--cores", "0,")

    def test_kernel_counts(self):
        for kernels in ("0", "65", "-1", "two", "1.5", "99999999999999"):
            with self.subTest(kernels=kernels):
                self.refused("--kernels", kernels)

    def test_more_kernels_than_cores(self):
        count = len(usable_cores()) + 1
        if count <= 64:
            self.refused("--kernels", count, phrases=[f"{count} kernels need {count} cores", "name it twice"])
        self.refused("--cores", usable_cores()[0], "--kernels", 2)

    def test_addresses(self):
        for address in ("10.77.0.1", "10.77.0/24", "10.77.0.1/33", "10.77.0.1/7", "10.77.0.256/24", "::1/64", "127.0.0.1/8",
                        "224.0.0.1/24", "0.0.0.1/8", "10.77.0.0/24", "10.77.0.255/24", "10.77.0.1/", "/24", "10.77.0.1/24x"):
            with self.subTest(address=address):
                self.refused("--ip", address, phrases=["--ip"])

    def test_unknown_words(self):
        self.expect(self.private.cli("frobnicate"), 2, "--help")
        self.expect(self.private.cli(), 2)
        self.expect(self.private.cli("up", "--frobnicate"), 2, "cob up --help")
        self.expect(self.private.cli("run"), 2, "run what?")
        self.expect(self.private.cli("run", "-k", "x/y", "--", "true"), 2)
        self.expect(self.private.cli("run", "-k", "64", "--", "true"), 2)
        self.expect(self.private.cli("completion", "fish"), 2)

    def test_errors_as_json(self):
        done = self.private.named("up", "--json", "--cores", "999")
        self.assertEqual(json.loads(done.stdout)["exit"], 2)
        done = self.private.named("ps", "--json")
        self.assertIn("not up", json.loads(done.stdout)["error"])

    def test_not_up(self):
        for command in ("ps", "status", "stats", "down"):
            self.expect(self.private.named(command), 1, f"cob '{self.private.name}' is not up; start it with: cob up")
        self.expect(self.private.run("true"), 1, "is not up")
        self.expect_untouched(self.private)

    def test_run_directory_that_is_not_ours_alone(self):
        root = self.private.run_directory.parent
        root.mkdir(mode=0o755)
        self.expect(self.private.named("up", "--kernels", 1), 1, "open to others", "chmod 700")
        root.rmdir()
        root.symlink_to("/tmp")
        self.expect(self.private.named("up", "--kernels", 1), 1, "not a directory")
        root.unlink()
        if os.geteuid() == 0:
            root.mkdir(mode=0o700)
            os.chown(root, 1, 1)
            self.expect(self.private.named("up", "--kernels", 1), 1, "belongs to user 1")
            root.rmdir()

    def test_run_directory_too_long_for_a_socket(self):
        deep = self.private.directory / ("d" * 90)
        deep.mkdir(mode=0o700)
        self.expect(self.private.named("up", environment={"XDG_RUNTIME_DIR": str(deep)}), 1, "too long a path")
        self.assertEqual(os.listdir(deep), [])

    def test_missing_parts(self):
        self.expect(self.private.named("up", environment={"COB_LIBEXEC": "/nonexistent"}), 1, "/nonexistent/cob-kernel")
        self.expect_untouched(self.private)


class ForeignStatsTest(CliTest):
    """Kernels whose statistics this command cannot read."""

    def test_of_another_version(self):
        self.expect(self.cob(kernels=1).named("stats"), 1, "kernel 0: the statistics are of another version than this reader")

    def test_none(self):
        cob = self.cob(kernels=1, environment={"COB_DOUBLE": "no-stats"})
        self.expect(cob.named("stats"), 1, "kernel 0: no statistics there")
        self.expect(cob.named("status"), 0)


class HelpTest(CliTest):
    def test_every_command_teaches(self):
        cob = self.cob(up=False)
        listing = cob.cli("--help").stdout
        for command in ("up", "run", "migrate", "ps", "kill", "status", "stats", "ss", "ip", "capture", "down", "cable", "doctor", "completion"):
            self.assertRegex(listing, rf"\n  {command} ")
            done = cob.cli(command, "--help")
            self.expect(done, 0, "Examples:", f"cob {command}")
            if command != "completion":
                self.assertIn("--json", done.stdout)
        self.expect(cob.cli("bench", "--help"), 0, "Examples:", "cob bench servers")
        self.assertRegex(cob.cli("--version").stdout, r"^cob \d+\.\d+\.\d+\n$")

    def test_shim_needs_the_c_library_alone(self):
        """Starting a small program must not load libstdc++."""
        dynamic = subprocess.run(["readelf", "-d", BUILD / "libcob.so"], capture_output=True, text=True, check=True).stdout
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
        self.assertEqual([n for n in needed if not n.startswith(("libc.so", "ld-linux"))], [])

    def test_doctor(self):
        cob = self.cob(up=False)
        report = json.loads(cob.cli("doctor", "--json").stdout)
        self.assertTrue(report["fit"])
        self.assertEqual({f["verdict"] for f in report["findings"]} - {"ok", "note", "warning"}, set())
        names = {f["what"] for f in report["findings"]}
        self.assertLessEqual({"cores", "memfd", "eventfd", "pidfd", "descriptors", "io_uring", "clock source"}, names)
        self.expect(cob.cli("doctor"), 0, "cob can run here")
        lacking = cob.cli("doctor", environment={"COB_LIBEXEC": "/nonexistent"})
        self.expect(lacking, 1, "missing", "make", "cob cannot run here")

    def test_completion(self):
        cob = self.cob(up=False)
        script = cob.directory / "cob.bash"
        script.write_text(cob.cli("completion", "bash").stdout)

        def complete(*words):
            setting = f'source {script}; COMP_WORDS=({" ".join(words)} ""); COMP_CWORD={len(words)}; _cob; echo "${{COMPREPLY[@]}}"'
            done = subprocess.run(["bash", "--norc", "-c", setting], capture_output=True, text=True, env=cob.environment)
            self.assertEqual(done.stderr, "")
            return done.stdout.split()
        self.assertLessEqual({"up", "run", "ps", "status", "stats", "down", "cable", "doctor", "bench"}, set(complete("cob")))
        self.assertLessEqual({"--kernels", "--cores", "--ip", "--name", "--json"}, set(complete("cob", "up")))
        self.assertLessEqual({"--remove", "--json"}, set(complete("cob", "cable")))
        self.assertLessEqual({"--listening", "--info", "--json", "state"}, set(complete("cob", "ss")))
        self.assertIn("established", complete("cob", "ss", "state"))
        self.assertLessEqual({"--statistics", "addr", "neigh"}, set(complete("cob", "ip")))
        self.assertLessEqual({"--output", "--filter", "--seconds"}, set(complete("cob", "capture")))
        self.assertIn("true", complete("cob", "run", "-k", "1", "--"))
        self.assertEqual({"bash", "zsh"} - set(complete("cob", "completion")), set())
        self.assertLessEqual({"floor", "messages", "calls", "servers", "--seconds", "--rounds", "--only", "--fast", "--json"},
                             set(complete("cob", "bench")))
        self.assertLessEqual({"nginx_close", "redis_get_p16_hog"}, set(complete("cob", "bench", "servers", "--only")))
        zsh = cob.cli("completion", "zsh").stdout
        self.assertTrue(zsh.startswith("#compdef cob"))
        if shutil.which("zsh"):
            self.assertEqual(subprocess.run(["zsh", "-n"], input=zsh, text=True).returncode, 0)


class LifeTest(CliTest):
    def test_up_reports_and_down_leaves_nothing(self):
        cob = self.cob(up=False)
        done = cob.up("--kernels", 1, "--ip", "10.9.8.7/16")
        self.expect(done, 0, f"cob '{cob.name}' is up", "1 kernel on core 0", "10.9.8.7/16")
        self.assertEqual(sorted(os.listdir(cob.run_directory)), ["control", "lock", "log"])
        self.assertEqual(cob.run_directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual((cob.run_directory / "control").stat().st_mode & 0o777, 0o600)
        self.expect(cob.down(), 0, "is down")
        self.expect_untouched(cob)
        self.expect(cob.down(), 1, "is not up")

    def test_default_is_a_kernel_on_every_core(self):
        cob = self.cob(up=False)
        report = json.loads(cob.named("up", "--json").stdout)
        self.assertEqual([k["core"] for k in report["kernels"]], usable_cores()[:64])
        self.assertEqual(report["address"], "10.77.0.1/24")
        for kernel in cob.kernels():
            self.assertEqual(os.sched_getaffinity(kernel["pid"]), {kernel["core"]})

    def test_cores_named_twice_are_shared(self):
        core = usable_cores()[0]
        cob = self.cob(cores=f"{core},{core},{core}")
        self.assertEqual([k["core"] for k in cob.kernels()], [core] * 3)
        self.assertEqual([k["now"]["connections"] for k in cob.kernels()], [2, 2, 2])

    def test_sixty_four_kernels_know_each_other(self):
        core = usable_cores()[0]
        cob = self.cob(cores=",".join([str(core)] * 64))
        wait_until(lambda: all(k["now"]["connections"] == 63 for k in cob.kernels()), 20, "64 kernels connected")

    def test_already_up(self):
        cob = self.cob(kernels=1)
        pid = cob.status()["pid"]
        self.expect(cob.named("up"), 1, "already up", f"pid {pid}", "cob status")
        self.assertEqual(cob.status()["pid"], pid)

    def test_of_four_at_once_one_wins(self):
        cob = self.cob(up=False)
        racers = [subprocess.Popen([COB, "up", "--kernels", "1", "--name", cob.name], env=cob.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]
        said = [racer.communicate(timeout=30)[0] for racer in racers]
        self.assertEqual(sorted(r.returncode for r in racers), [0, 1, 1, 1], said)
        self.assertEqual(len(processes_of(cob.name)), 1)

    def test_two_cobs_side_by_side(self):
        first, second = self.cob(kernels=1), self.cob(kernels=1)
        self.assertNotEqual(first.kernels()[0]["pid"], second.kernels()[0]["pid"])
        first.down()
        self.assertEqual(second.kernels()[0]["state"], "asleep")

    def test_up_and_down_again_and_again(self):
        cob = self.cob(up=False)
        for _ in range(10):
            cob.up("--kernels", 1)
            self.expect(cob.down(), 0)

    def test_without_privilege(self):
        if os.geteuid() != 0:
            return  # then every test of this file is this test
        cob = self.cob(up=False)
        here = cob.directory
        for source, name in [(COB, "cob"), (BUILD / "double/cob-kernel", "cob-kernel"),
                             (BUILD / "double/libshim_double.so", "libcob.so")]:
            shutil.copy(source, here / name)
        for path in (here, here / "runtime"):
            os.chown(path, 65534, 65534)
        cob.command = str(here / "cob")
        for name in ("COB_LIBEXEC", "COB_SHIM_PATH"):
            del cob.environment[name]
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        self.expect(cob.named("up", "--kernels", 1, **nobody), 0)
        self.assertEqual(cob.run("id", "-u", **nobody).stdout, "65534\n")
        self.expect(cob.named("status", **nobody), 0)
        self.expect(cob.named("down", **nobody), 0)

    def test_foreground(self):
        cob = self.cob(up=False)
        for wish in (signal.SIGINT, signal.SIGTERM):
            child = subprocess.Popen([COB, "up", "--foreground", "--kernels", "1", "--name", cob.name], env=cob.environment,
                                     stdout=subprocess.PIPE, text=True)
            self.assertIn("is up", child.stdout.readline())
            self.assertEqual(cob.status()["pid"], child.pid)
            child.send_signal(wish)
            self.assertEqual(child.wait(10), 0)
            child.stdout.close()
            self.expect_untouched(cob)

    def test_kernels_share_the_callers_session_but_not_its_signals(self):
        """The host's scheduler groups by session (docs/decisions/0002); a terminal's keys and its end are not for a cob."""
        cob = self.cob(kernels=1)
        status = cob.status()
        for pid in (status["pid"], status["kernels"][0]["pid"]):
            self.assertEqual(os.getsid(pid), os.getsid(0))
            self.assertNotEqual(os.getpgid(pid), os.getpgid(0))
            os.kill(pid, signal.SIGHUP)
        self.assertEqual(cob.status()["kernels"][0]["pid"], status["kernels"][0]["pid"])

    def test_sigterm_ends_the_supervisor_in_order(self):
        cob = self.cob(kernels=1)
        os.kill(cob.status()["pid"], signal.SIGTERM)
        wait_until(lambda: not cob.run_directory.exists())

    def test_down_waits_for_programs(self):
        cob = self.cob(kernels=1)
        program = cob.start("sleep", "0.5")
        wait_until(cob.ps)
        begin = time.monotonic()
        self.expect(cob.named("down", "--wait"), 0)
        self.assertGreater(time.monotonic() - begin, 0.2)
        self.assertEqual(program.wait(5), 0)

    def test_programs_survive_down(self):
        cob = self.cob(kernels=1)
        program = cob.start("sh", "-c", "read line; exit 9", stdin=subprocess.PIPE)
        wait_until(cob.ps)
        self.expect(cob.down(), 0)
        program.communicate("on\n")
        self.assertEqual(program.returncode, 9)


class BadKernelTest(CliTest):
    """Kernels that misbehave: before the cob is up that is a failure of `up`, afterwards it harms themselves only."""

    def failing_up(self, how, *phrases, kernel=None):
        cob = self.cob(up=False, environment={"COB_DOUBLE": how, **({"COB_DOUBLE_KERNEL": kernel} if kernel else {})})
        core = usable_cores()[0]
        begin = time.monotonic()
        self.expect(cob.named("up", "--cores", f"{core},{core}"), 1, "did not come up", *phrases)
        self.expect_untouched(cob)
        return time.monotonic() - begin

    def test_crash_is_reported_with_its_words(self):
        self.failing_up("crash", "kernel 1 exited with status 3", "double: crashing as told", kernel="1")

    def test_silence(self):
        self.failing_up("mute", "kernel 1 did not start: it said nothing for 10 s", kernel="1")

    def test_hello_without_a_sealed_board(self):
        self.failing_up("no-board", "hello without a sealed board")

    def test_kernel_that_is_no_program(self):
        cob = self.cob(up=False)
        self.write_program(cob, "cob-kernel", "\x7fELFnonsense")
        done = cob.named("up", "--kernels", 1, environment={"COB_LIBEXEC": str(cob.directory)})
        self.expect(done, 1, "cannot start", "Exec format error")
        self.expect_untouched(cob)

    def test_stubborn_kernel_is_killed(self):
        cob = self.cob(up=False, environment={"COB_DOUBLE": "stubborn"})
        cob.up("--kernels", 1)
        begin = time.monotonic()
        self.expect(cob.down(), 0)
        self.assertGreater(time.monotonic() - begin, 1.5)
        self.assertLess(time.monotonic() - begin, 6)

    def test_kernel_that_accuses_its_peers_ends_them_and_in_the_end_itself(self):
        cob = self.cob(up=False, environment={"COB_DOUBLE": "accuse", "COB_DOUBLE_KERNEL": "1"})
        core = usable_cores()[0]
        cob.up("--cores", f"{core},{core},{core}")
        began = time.monotonic()
        innocent, accuser, other = cob.kernels()
        wait_until(lambda: cob.kernels()[0]["epoch"] >= 2 and cob.kernels()[2]["epoch"] >= 2, 10, "the accused ones' new lives")
        self.assertGreater(time.monotonic() - began, 0.5)  # each life lasts a second
        wait_until(lambda: cob.kernels()[1]["epoch"] >= 2, 10, "the accuser's new life")
        cob.note_pids()
        # Who lies restarts about as often as who is lied about: nobody is kept down by it.
        wait_until(lambda: cob.kernels()[1]["epoch"] >= 4, 20, "more lives of the accuser")
        cob.note_pids()
        epochs = [k["epoch"] for k in cob.kernels()]
        self.assertLessEqual(max(epochs[0], epochs[2]), 2 * epochs[1] + 2, epochs)

    def test_kernels_that_die_together_come_back_together(self):
        core = usable_cores()[0]
        cob = self.cob(up=False)
        cob.up("--cores", ",".join([str(core)] * 6))
        for life in range(2, 6):
            for kernel in cob.kernels():
                os.kill(kernel["pid"], signal.SIGKILL)
            wait_until(lambda: all(k["epoch"] == life and k["state"] in ("running", "asleep") for k in cob.kernels()), 10, "six new lives")
            cob.note_pids()

    def test_kernel_that_keeps_dying_is_slowed_down(self):
        for how in ("crash-once-up", "gibberish"):
            with self.subTest(how):
                core = usable_cores()[0]
                cob = self.cob(up=False, environment={"COB_DOUBLE": how, "COB_DOUBLE_KERNEL": "1"})
                done = cob.named("up", "--cores", f"{core},{core}")
                if done.returncode != 0:  # it may be gone again before the other's hello
                    self.expect(done, 1, "kernel 1")
                    continue
                cob.note_pids()
                first = cob.kernels()[0]["pid"]
                wait_until(lambda: cob.kernels()[1]["epoch"] >= 6, 10, "five respawns")
                time.sleep(1.0)  # the time in which it must not spin: at most two more lives fit
                cob.note_pids()
                self.assertLessEqual(cob.kernels()[1]["epoch"], 9)
                self.assertEqual(cob.kernels()[0]["pid"], first)


class DeathTest(CliTest):
    def test_killed_kernel_is_back_within_a_second(self):
        cob = self.cob(kernels=2)
        wait_until(lambda: all(k["now"]["connections"] == 1 for k in cob.kernels()))
        other, victim = cob.kernels()
        stay = cob.start("sleep", "60", kernel=0)
        wait_until(lambda: len(cob.ps()) == 1)
        begin = time.monotonic()
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: cob.kernels()[1]["epoch"] == 2 and "now" in cob.kernels()[1])
        self.assertLess(time.monotonic() - begin, 1.0 + 0.4)  # a status takes 0.2 s, twice
        cob.note_pids()
        wait_until(lambda: all(k["now"]["connections"] == 1 for k in cob.kernels()), what="both know each other again")
        after = cob.kernels()
        self.assertEqual((after[0]["pid"], after[0]["epoch"]), (other["pid"], 1))
        self.assertEqual([p["pid"] for p in cob.ps()], [stay.pid])
        self.assertEqual(cob.run("true", kernel=1).returncode, 0)
        self.assertIn("was killed by signal 9", cob.log())

    def test_program_sees_its_kernels_death(self):
        cob = self.cob(kernels=1)
        watcher = ("import os, socket\nfd = int(os.environ['COB_SHIM'].split(':')[1])\n"
                   "s = socket.socket(fileno=fd)\nprint('up', flush=True)\nprint(repr(s.recv(10)), flush=True)\n")
        program = cob.start(PYTHON, "-c", watcher)
        self.assertEqual(program.stdout.readline(), "up\n")
        wait_until(cob.ps)
        os.kill(cob.kernels()[0]["pid"], signal.SIGKILL)
        self.assertEqual(program.stdout.readline(), "b''\n")
        wait_until(lambda: cob.kernels()[0]["epoch"] == 2 and cob.kernels()[0]["state"] == "asleep")
        cob.note_pids()

    def test_killed_supervisor_leaves_nothing(self):
        cob = self.cob(kernels=2)
        program = cob.start("sleep", "60")
        wait_until(cob.ps)
        os.kill(cob.status()["pid"], signal.SIGKILL)
        wait_until(lambda: not processes_of(cob.name), 2, "the kernels' end")
        self.assertIsNone(program.poll())
        for command in ("ps", "status"):
            self.expect(cob.named(command), 1, "is not up")
        self.expect(cob.run("true"), 1, "is not up")
        cob.up("--kernels", 1)  # takes the directory over
        self.assertEqual(cob.kernels()[0]["epoch"], 1)
        os.kill(cob.status()["pid"], signal.SIGKILL)
        wait_until(lambda: not processes_of(cob.name), 2, "the kernels' end")
        self.expect(cob.down(), 1, "is not up")
        self.expect_untouched(cob)

    def test_stopped_kernel_does_not_stop_the_others(self):
        cob = self.cob(kernels=2)
        victim = cob.kernels()[1]["pid"]
        os.kill(victim, signal.SIGSTOP)
        self.assertEqual(cob.run("true", kernel=0).returncode, 0)
        begin = time.monotonic()
        self.expect(cob.down(), 0)
        self.assertLess(time.monotonic() - begin, 6)
        self.assertFalse(is_alive(victim))


class RunTest(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.shared = harness.Cob(double=True)
        cls.shared.up("--cores", ",".join(map(str, (usable_cores() * 2)[:2])))

    @classmethod
    def tearDownClass(cls):
        problems = cls.shared.close()
        if problems:
            raise AssertionError(problems)

    def test_exit_status(self):
        for code in (0, 1, 7, 126, 255):
            self.assertEqual(self.shared.run("sh", "-c", f"exit {code}").returncode, code)
        self.assertEqual(self.shared.run("sh", "-c", "kill -TERM $$").returncode, -signal.SIGTERM)
        self.assertEqual(self.shared.run("sh", "-c", "kill -SEGV $$").returncode, -signal.SIGSEGV)

    def test_process_is_the_program(self):
        program = self.shared.start("sleep", "60")
        wait_until(lambda: pathlib.Path(f"/proc/{program.pid}/comm").read_text() == "sleep\n")
        program.send_signal(signal.SIGINT)
        self.assertEqual(program.wait(5), -signal.SIGINT)

    def test_streams(self):
        done = subprocess.run([COB, "run", "--name", self.shared.name, "--", "sh", "-c", "cat; echo problem >&2"], input="text",
                              capture_output=True, text=True, env=self.shared.environment)
        self.assertEqual((done.stdout, done.stderr), ("text", "problem\n"))

    def test_options_belong_to_the_program(self):
        self.assertEqual(self.shared.run("echo", "-n", "-k", "--", "--json").stdout, "-k -- --json")
        done = self.shared.cli("run", "--name", self.shared.name, "echo", "--name", "x")
        self.assertEqual(done.stdout, "--name x\n")

    def test_terminal_and_its_signals(self):
        pid, master = pty.fork()
        if pid == 0:
            os.execve(COB, [COB, "run", "--name", self.shared.name, "--", "sh", "-c", "tty && exec cat"], self.shared.environment)
        seen = b""
        while b"/dev/" not in seen:
            seen += os.read(master, 100)
        os.write(master, b"\x03")
        _, status = os.waitpid(pid, 0)
        os.close(master)
        self.assertEqual(os.waitstatus_to_exitcode(status), -signal.SIGINT)

    def test_descriptors_variables_and_core(self):
        probe = self.write_program(self.shared, "probe.py", PROBE)
        for kernel in self.shared.kernels():
            done = self.shared.run(PYTHON, probe, kernel=kernel["kernel"], environment={"LD_PRELOAD": ""})
            self.assertEqual(done.returncode, 0, done.stderr)
            seen = json.loads(done.stdout)
            self.assertEqual(seen["kernel"], kernel["kernel"])
            self.assertEqual(seen["affinity"], [kernel["core"]])
            self.assertEqual(seen["echo"], "ping")
            self.assertTrue(seen["attached_again"])
            self.assertTrue(seen["right_is_write_only"])
            self.assertGreaterEqual(min(seen["descriptors"]), 512)
            self.assertLess(max(seen["descriptors"]), 1024)
            self.assertEqual(seen["preload"], self.shared.environment["COB_SHIM_PATH"])
            self.assertEqual(seen["others"], [0, 1, 2])

    def test_existing_preload_stays(self):
        shim = self.shared.environment["COB_SHIM_PATH"]
        libm = next(str(p) for p in pathlib.Path("/lib").rglob("libm.so.6"))
        done = self.shared.run("printenv", "LD_PRELOAD", environment={"LD_PRELOAD": libm})
        self.assertEqual(done.stdout, f"{shim}:{libm}\n")
        done = self.shared.run("printenv", "LD_PRELOAD", environment={"LD_PRELOAD": f"{shim}:{libm}"})
        self.assertEqual(done.stdout, f"{shim}:{libm}\n")

    def test_few_descriptors(self):
        def limit(count):
            import resource
            return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
        self.assertEqual(self.shared.run("true", preexec_fn=limit(16)).returncode, 0)
        self.expect(self.shared.run("true", preexec_fn=limit(6)), 1)

    def test_default_is_the_kernel_with_fewest_programs(self):
        cob = self.cob(cores=",".join(map(str, (usable_cores() * 2)[:2])))
        kernels = [k["pid"] for k in cob.kernels()]
        for pid in kernels:  # all four are placed before any is attached
            os.kill(pid, signal.SIGSTOP)
        programs = [cob.start("sleep", "60") for _ in range(4)]
        for program in programs:
            wait_until(lambda pid=program.pid: pathlib.Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        for pid in kernels:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: len(cob.ps()) == 4)
        self.assertEqual([k["now"]["programs"] for k in cob.kernels()], [2, 2])
        on_first = {p["pid"] for p in cob.ps() if p["kernel"] == 0}
        for program in programs:
            if program.pid in on_first:
                program.kill()
                program.wait()
        wait_until(lambda: cob.kernels()[0]["now"]["programs"] == 0)
        done = cob.run("printenv", "COB_SHIM")
        self.assertEqual(done.stdout.strip().split(":")[2], "0")

    def test_ps_shows_programs(self):
        program = self.shared.start("sleep", "60", kernel=1)
        row = wait_until(lambda: [p for p in self.shared.ps() if p["pid"] == program.pid])[0]
        self.assertEqual((row["kernel"], row["core"]), (1, self.shared.kernels()[1]["core"]))
        self.assertRegex(self.shared.named("ps").stdout, rf"PID +KERNEL +ISLAND +CORE(.*\n)* *{program.pid} +1 ")

    # ---- what cannot run ----

    def test_unknown_kernel(self):
        self.expect(self.shared.run("true", kernel=7), 1, "no kernel 7", "kernels 0 to 1")

    def test_missing_program(self):
        self.expect(self.shared.run("no-such-program-anywhere"), 127, "no such program in PATH")
        self.expect(self.shared.run("/no/such/program"), 127, "no such program")
        self.expect(self.shared.run(""), 127)

    def test_not_executable(self):
        plain = self.write_program(self.shared, "plain", "text", mode=0o644)
        self.expect(self.shared.run(plain), 126, "Permission denied")
        self.expect(self.shared.run("/tmp"), 126, "Is a directory")
        nothing = self.write_program(self.shared, "orphan", "#!/no/such/interpreter\n")
        self.expect(self.shared.run(nothing), 126, "/no/such/interpreter")

    def test_scripts(self):
        plain = self.write_program(self.shared, "script", "exit 5\n")
        self.assertEqual(self.shared.run(plain).returncode, 5)
        env = self.write_program(self.shared, "env-script", "#!/usr/bin/env python3\nimport sys; sys.exit(6)\n")
        self.assertEqual(self.shared.run(env).returncode, 6)
        lost = self.write_program(self.shared, "lost", "#!/usr/bin/env no-such-interpreter\n")
        self.expect(self.shared.run(lost), 127, "no-such-interpreter")
        loop = self.shared.directory / "loop"
        self.write_program(self.shared, "loop", f"#!{loop}\n")
        self.expect(self.shared.run(loop), 126, "too many interpreters")

    def compile(self, name, *options, source="int main(void) { return 0; }"):
        path = self.shared.directory / name
        subprocess.run(["g++", "-x", "c++", "-", "-o", str(path), *options], input=source, text=True, check=True)
        return path

    def test_static_programs(self):
        for name, option in (("static", "-static"), ("static-pie", "-static-pie")):
            program = self.compile(name, option)
            self.expect(self.shared.run(program), 126, "statically linked", "dynamically linked version", str(program))
            script = self.write_program(self.shared, name + "-script", f"#!{program}\n")
            self.expect(self.shared.run(script), 126, "statically linked")
        self.assertEqual(self.shared.run(self.compile("dynamic")).returncode, 0)

    def test_go_programs(self):
        note = 'asm(".pushsection .note.go.buildid, \\"a\\", @note\\n.long 4, 4, 4\\n.asciz \\"Go\\\\0\\"\\n.long 1\\n.popsection");'
        for options in ((), ("-static",)):
            program = self.compile("go" + "".join(options), *options, source=note + "int main() { return 0; }")
            self.expect(self.shared.run(program), 126, "Go program")

    def test_other_machines(self):
        image = bytearray(self.compile("own").read_bytes())
        other = self.shared.directory / "other"
        machines = {0x3e: "x86-64", 0xb7: "aarch64"}
        own = struct.unpack_from("<H", image, 18)[0]
        alien = 0xb7 if own == 0x3e else 0x3e
        struct.pack_into("<H", image, 18, alien)
        other.write_bytes(image)
        other.chmod(0o755)
        self.expect(self.shared.run(other), 126, f"a program for {machines[alien]}")
        struct.pack_into("<H", image, 18, 3)
        image[4] = 1
        other.write_bytes(image)
        self.expect(self.shared.run(other), 126, "32-bit x86")
        other.write_bytes(b"\x7fELF")
        self.expect(self.shared.run(other), 126, "cut short")
        other.write_bytes(image[:64])
        self.expect(self.shared.run(other), 126)

    def test_secure_programs(self):
        if os.geteuid() == 0:
            program = self.compile("secure")
            os.chown(program, 1, 1)
            for mode, word in ((0o4755, "setuid"), (0o2755, "setgid")):
                program.chmod(mode)
                self.expect(self.shared.run(program), 126, word, "does not load libcob.so")
        else:
            self.expect(self.shared.run("su"), 126, "setuid")

    def test_musl_programs(self):
        program = self.compile("musl", "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1")
        self.expect(self.shared.run(program), 126, "musl")

    def test_shim_that_is_missing_or_unpreloadable(self):
        self.expect(self.shared.run("true", environment={"COB_SHIM_PATH": "/nonexistent.so"}), 1, "/nonexistent.so")
        spaced = self.shared.directory / "a b"
        spaced.mkdir()
        shutil.copy(self.shared.environment["COB_SHIM_PATH"], spaced / "libcob.so")
        self.expect(self.shared.run("true", environment={"COB_SHIM_PATH": str(spaced / "libcob.so")}), 1, "spaces or colons")

    # ---- the control socket ----

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(s.close)
        s.connect(str(self.shared.run_directory / "control"))  # waits while the listener's backlog is full
        s.settimeout(5)
        return s

    def test_garbage_on_the_control_socket(self):
        for garbage in (b"\0", b"{", b"[]", b"null", b'{"do":1}', b'{"do":"x"}', b'{"do":"attach"}', b"[" * 4000,
                        b'{"do":"attach","kernel":"one"}', b'{"do":"attach","kernel":99999999999999999999}', b"\xff" * 4096,
                        b'{"do":"attach","kernel":-2}', b'{"do":"attach","kernel":1e300}', b"x" * 100_000):
            s = self.connect()
            s.send(garbage)
            answer = json.loads(s.recv(65536))
            self.assertFalse(answer["ok"], garbage)
        self.assertEqual(self.shared.run("true").returncode, 0)

    def test_many_idle_clients(self):
        idle = [self.connect() for _ in range(200)]
        self.assertEqual(self.shared.run("true").returncode, 0)
        self.assertEqual(len(self.shared.kernels()), 2)
        del idle

    def test_client_that_asks_and_never_reads(self):
        s = self.connect()
        s.setblocking(False)
        try:
            for _ in range(100_000):
                s.send(b'{"do":"status"}')
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        self.assertEqual(self.shared.run("true").returncode, 0)

    def test_garbage_on_the_attach_right(self):
        script = ("import os, socket, array\nright = socket.socket(fileno=int(os.environ['COB_SHIM'].split(':')[0]))\n"
                  "right.settimeout(5)\n"
                  "for m in (b'x', b'\\0' * 12, b'\\4\\0\\0\\0' + b'\\xff' * 8, b'y' * 5000):\n"
                  "    right.send(m)\n"
                  "    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
                  "    right.sendmsg([m], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [a.fileno()]))])\n"
                  "    a.close(); b.settimeout(5)\n"
                  "    assert b.recv(1) == b'', 'turned away'\n")
        done = self.shared.run(PYTHON, "-c", script)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.shared.run("true").returncode, 0)


# Runs as a program of the cob, with the double's kernel at the other end of its liveness socket.
PROBE = r"""
import array, json, os, socket, struct, sys, time
right_fd, liveness_fd, kernel, address = map(int, os.environ["COB_SHIM"].partition("/")[0].split(":"))
liveness = socket.socket(fileno=liveness_fd)
right = socket.socket(fileno=right_fd)
assert liveness.getblocking() and right.getblocking()
liveness.send(b"ping")
echo = liveness.recv(100).decode()
mine, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
right.sendmsg([struct.pack("=III", 4, os.getpid(), kernel)],
              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [kernels.fileno()]))])
kernels.close()
mine.settimeout(5)
mine.send(b"again")
again = mine.recv(100) == b"again"
write_only = right.recv(100) == b""
others = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(fd)
    except OSError:
        continue
    if fd not in (right_fd, liveness_fd, mine.fileno()):
        others.append(fd)
print(json.dumps({"kernel": kernel, "affinity": sorted(os.sched_getaffinity(0)), "echo": echo, "attached_again": again,
                  "right_is_write_only": write_only, "descriptors": [right_fd, liveness_fd],
                  "preload": os.environ["LD_PRELOAD"], "others": sorted(others)}))
"""

if __name__ == "__main__":
    harness.main()
