"""The messaging library as people outside of cob get it: installed into a prefix of its own, then examples/message built against
that alone, by CMake and by pkg-config, and run."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import harness

EXAMPLE = harness.ROOT / "examples" / "message"
SAYS = """2 apples: 50 cents, thank you
0 apples: Invalid argument
lent: 150000000 grams
3 apples: Connection reset by peer
the farm is back, in epoch 2
4 apples: 100 cents, thank you
not told: 0
closed, 0
"""
STRICT = ["-std=c++23", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class MessagePackage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="cob-package-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.work = pathlib.Path(cls.directory.name)
        cls.prefix = cls.work / "prefix"
        run("cmake", "--install", harness.BUILD, "--prefix", cls.prefix, "--component", "message")

    def flags(self):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig")}
        return run("pkg-config", "--cflags", "--libs", "cob_message", env=environment).split()

    def check(self, program):
        for _ in range(5):
            self.assertEqual(run(program, f"@cob-test-{os.getpid()}"), SAYS)

    def test_cmake(self):
        build = self.work / "cmake"
        run("cmake", "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", build)
        self.check(build / "market")

    def test_pkg_config(self):
        program = self.work / "market"
        run("g++", *STRICT, EXAMPLE / "market.cc", *self.flags(), "-o", program)
        self.check(program)

    def test_the_program_of_the_documentation(self):
        text = (harness.ROOT / "docs" / "messaging.md").read_text()
        source = self.work / "ping.cc"
        source.write_text(re.search(r"```cpp\n(.*?)```", text, re.DOTALL).group(1).replace("@ping-example", f"@cob-test-{os.getpid()}"))
        program = self.work / "ping"
        run("g++", *STRICT, source, *self.flags(), "-o", program)
        other = subprocess.Popen([program, "1"])
        self.addCleanup(other.kill)
        self.assertEqual(run(program, "0"), "pong 1\npong 2\npong 3\n")
        self.assertEqual(other.wait(60), 0)

    def test_every_header_is_whole(self):
        headers = sorted((self.prefix / "include" / "cob").rglob("*.h"))
        names = [str(header.relative_to(self.prefix / "include" / "cob")) for header in headers]
        self.assertIn("message/messenger.h", names)
        self.assertEqual([name for name in names if "test" in name], [])
        unit = self.work / "all.cc"
        unit.write_text("".join(f"#include <{name}>\n" for name in names) + "int main() {}\n")
        run("g++", *STRICT, unit, *self.flags(), "-o", self.work / "all")

    def test_the_standard_is_stated(self):
        targets = (self.prefix / "lib/cmake/cob_message/cob_message-targets.cmake").read_text()
        self.assertIn("cxx_std_23", targets)


if __name__ == "__main__":
    harness.main()
