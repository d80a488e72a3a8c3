"""Memory of a kernel: resident when idle, and what each idle connection adds, before and after it carried data. proc(5) statm."""
import os
import pathlib
import sys
import time

import harness
from servers import ADDRESS

MIB = 1 << 20
IDLE_KERNEL = 32 * MIB     # bytes resident, programs or none
IDLE_CONNECTION = 760      # bytes resident that an established connection adds to a kernel
MANY = 200_000             # connections at once, of PAIRS pairs of programs: a program has 32,767 sockets, a half of them accepted
PAIRS = 16
MANY_SECONDS = 240         # the longest that making them takes, on two busy cores

# Both hold CONNECTIONS connections; for each line that they are given they move that many bytes each way on every one.
COMMON = """
import resource, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536),) * 2)
def receive(s, size):
    while size > 0:
        got = len(s.recv(1 << 18))
        assert got > 0
        size -= got
def serve(step):
    print("held", flush=True)
    while line := sys.stdin.readline():
        for s in held: step(s, int(line))
        print("moved", flush=True)
held = []
"""
SERVER = COMMON + """
listener = socket.create_server(("0.0.0.0", int(sys.argv[2])), backlog=4096)
print("listening", flush=True)
while len(held) < int(sys.argv[1]): held.append(listener.accept()[0])
def step(s, size): receive(s, size); s.sendall(b"s" * size)
serve(step)
"""
CLIENT = COMMON + f"""
while len(held) < int(sys.argv[1]): held.append(socket.create_connection(("{ADDRESS}", int(sys.argv[2]))))
def step(s, size): s.sendall(b"c" * size); receive(s, size)
serve(step)
"""


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Connections:
    """`count` established connections from a program on kernel 0 to one on kernel 1."""

    def __init__(self, test, cob, count, port=7000):
        self.test = test
        self.server = cob.start(sys.executable, "-c", SERVER, count, port, kernel=1, stdin=-1, stderr=None)
        self.expect(self.server, "listening")
        self.client = cob.start(sys.executable, "-c", CLIENT, count, port, kernel=0, stdin=-1, stderr=None)
        for program in (self.server, self.client):
            self.expect(program, "held")

    def expect(self, program, word):
        self.test.assertEqual(program.stdout.readline(), word + "\n")

    def move(self, size):
        for program in (self.server, self.client):
            program.stdin.write(f"{size}\n")
            program.stdin.flush()
        for program in (self.server, self.client):
            self.expect(program, "moved")

    def end(self):
        for program in (self.server, self.client):
            program.stdin.close()
            program.wait(30)


class Memory(harness.CobTest):
    def setUp(self):
        self.the_cob = self.cob(kernels=2, check=False)  # its walks through /proc would be measured too

    def settled(self):
        """Bytes resident of each kernel once it has nothing left to do."""
        def idle():
            return all(k["state"] == "asleep" for k in self.the_cob.kernels())
        harness.wait_until(idle, 20, "idle kernels")
        return [resident(k["pid"]) for k in self.the_cob.kernels()]

    def assert_idle_kernel(self, what):
        for kernel, size in enumerate(self.settled()):
            print(f"{what}: kernel {kernel} holds {size / MIB:.1f} MiB")
            self.assertLessEqual(size, IDLE_KERNEL)

    def assert_each_connection(self, count, carried, what):
        """`count` connections against a few: what programs, arenas and the rings between kernels need is in both."""
        few = 16
        sizes = []
        for held in (few, count):
            connections = Connections(self, self.the_cob, held)
            for _ in range(0 if not carried else 8 if held == few else 1):
                connections.move(carried)
            sizes.append(self.settled())
            connections.end()
        for kernel, (before, after) in enumerate(zip(*sizes)):
            each = (after - before) / (count - few)
            print(f"{what}: kernel {kernel} holds {each:.0f} bytes a connection")
            self.assertLessEqual(each, IDLE_CONNECTION)
        self.assert_idle_kernel("after " + what)

    def test_idle_kernel(self):
        self.assert_idle_kernel("started")
        shown = [k["now"]["resident_kib"] for k in self.the_cob.kernels()]
        for kernel, size in enumerate(self.settled()):
            self.assertAlmostEqual(shown[kernel] * 1024, size, delta=MIB)

    def test_ten_thousand_idle_connections(self):
        self.assert_each_connection(10_000, 0, "idle")

    def test_two_hundred_thousand_idle_connections(self):
        """They all stay, each costs no more than one of few, and any of them still works."""
        each = MANY // PAIRS
        few = Connections(self, self.the_cob, 16, port=6999)
        before = self.settled()
        begun = time.monotonic()
        pairs = [Connections(self, self.the_cob, each, port=7000 + i) for i in range(PAIRS)]
        took = time.monotonic() - begun
        after = self.settled()
        print(f"{each * PAIRS} connections in {took:.0f} s")
        self.assertLess(took, MANY_SECONDS)
        for kernel, (less, more) in enumerate(zip(before, after)):
            cost = (more - less) / (each * PAIRS)
            print(f"of {each * PAIRS}: kernel {kernel} holds {cost:.0f} bytes a connection")
            self.assertLessEqual(cost, IDLE_CONNECTION)
            self.assertLess(cost * 1_000_000, 1 << 30)
        for pair in (pairs[0], pairs[-1]):
            pair.move(10)
        for pair in pairs + [few]:
            pair.end()

    def test_idle_connections_that_carried_data(self):
        self.assert_each_connection(3_000, 256 * 1024, "idle after 256 KiB each way")


if __name__ == "__main__":
    harness.main()
