"""Offload as people get it: installed into a prefix, examples/offload built against that, loops shared with an island, tasks on
the runner, its death, and what is wrong said. No figure is judged."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import harness

EXAMPLE = harness.ROOT / "examples" / "offload"
STRICT = ["-std=c++23", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]
RUNNER = harness.BUILD / "cob-offload"


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Offload(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="cob-offload-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.work = pathlib.Path(cls.directory.name)
        cls.prefix = cls.work / "prefix"
        run("cmake", "--install", harness.BUILD, "--prefix", cls.prefix, "--component", "message")
        cls.build = cls.work / "build"
        run("cmake", "-S", EXAMPLE, "-B", cls.build, f"-DCMAKE_PREFIX_PATH={cls.prefix}", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", cls.build)
        cls.place = f"@cob-offload-test-{os.getpid()}"

    def runner(self):
        running = subprocess.Popen([RUNNER, self.place, self.build / "libblur.so"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (running.kill(), running.communicate()))
        # Listens when its name is there.
        harness.wait_until(lambda: self.place in pathlib.Path("/proc/net/unix").read_text(), what="the runner's place")
        return running

    def test_a_loop_shared_with_an_island(self):
        self.assertEqual(run(self.build / "loop"), "sum 99999900000000\n")

    def test_tasks_on_a_runner_for_one_host_after_the_other(self):
        self.runner()
        for _ in range(3):
            said = run(self.build / "blur", self.place)
            numbers = [float(word) for word in said.split()]
            self.assertEqual(len(numbers), 9)
            self.assertAlmostEqual(sum(numbers), 1, delta=0.01)
            self.assertEqual(numbers, numbers[::-1])

    def test_a_runner_that_dies_leaves_its_place_to_the_next(self):
        running = self.runner()
        run(self.build / "blur", self.place)
        running.kill()
        running.wait(10)
        done = subprocess.run([self.build / "blur", self.place], stdout=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.runner()
        run(self.build / "blur", self.place)

    def test_the_program_of_the_documentation(self):
        text = (harness.ROOT / "docs" / "offload.md").read_text()
        source = self.work / "saxpy.cc"
        source.write_text(re.search(r"```cpp\n(.*?)```", text, re.DOTALL).group(1))
        flags = run("pkg-config", "--cflags", "--libs", "cob_offload",
                    env={**os.environ, "PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig")}).split()
        run("g++", *STRICT, source, *flags, "-o", self.work / "saxpy")
        self.assertEqual(run(self.work / "saxpy"), "10\n")

    def test_what_is_wrong_is_said(self):
        for words, expected in ((["@x"], "usage"), (["@x", "/no/library.so"], "/no/library.so"), (["@x", "lib", "--cores", "a"], "--cores"),
                                (["@x", self.build / "libblur.so", "--fast"], "--fast"), (["relative", self.build / "libblur.so"], "relative")):
            done = subprocess.run([RUNNER, *words], stderr=subprocess.PIPE, text=True, timeout=30)
            self.assertNotEqual(done.returncode, 0, words)
            self.assertIn(expected, done.stderr)
        self.assertIn("Example", run(RUNNER, "--help"))


if __name__ == "__main__":
    harness.main()
