"""What happens when memory, address space or descriptors end: of a kernel, of a program. setrlimit(2), prlimit(2)."""
import errno
import pathlib
import re
import resource
import sys

import harness
from servers import ADDRESS

MIB = 1 << 20
HOLD = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 30000),) * 2)
l = socket.create_server(("0.0.0.0", 7000), backlog=4096); print("listening", flush=True)
held = []
try:
    while True: held.append(l.accept()[0])
except OSError as problem: print(problem.errno, flush=True)
"""
FILL = f"""
import errno, resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 30000),) * 2)
first = socket.create_connection(("{ADDRESS}", 7000)); held = []
print("first", flush=True); input()
try:
    for i in range(20000): held.append(socket.create_connection(("{ADDRESS}", 7000), 10))
except OSError: pass
try: first.recv(1); print("still open", flush=True)
except OSError as problem: print(errno.errorcode[problem.errno], flush=True)
"""
ECHO = """
import socket
l = socket.create_server(("0.0.0.0", 7001)); print("listening", flush=True)
while True:
    c, _ = l.accept(); c.sendall(c.recv(100)); c.close()
"""
ASK = f"""
import socket
s = socket.create_connection(("{ADDRESS}", 7001), 10); s.sendall(b"ping"); print(s.recv(100).decode())
"""


class Limits(harness.CobTest):
    def test_kernel_without_memory(self):
        """It says so and ends; its programs see its death, others go on, and another kernel takes its place."""
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", HOLD, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        client = cob.start(sys.executable, "-c", FILL, kernel=0, stdin=-1)
        self.assertEqual(client.stdout.readline(), "first\n")
        pid = cob.kernels()[1]["pid"]
        data = int(re.search(r"VmData:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) * 1024
        resource.prlimit(pid, resource.RLIMIT_DATA, (data + MIB, data + MIB))
        client.stdin.write("go\n")
        client.stdin.flush()
        self.assertEqual(server.stdout.readline(), f"{errno.ENETDOWN}\n")
        self.assertEqual(client.stdout.readline(), "ECONNRESET\n")
        harness.wait_until(lambda: cob.kernels()[1]["epoch"] == 2 and "now" in cob.kernels()[1], 10, "the respawn")
        cob.note_pids()
        self.assertIn("out of memory: this kernel ends", cob.log())
        self.assertIn("kernel 1 (epoch 1) exited with status 1", cob.log())
        self.assertEqual(cob.kernels()[0]["epoch"], 1)
        self.expect_service(cob)

    def expect_service(self, cob):
        server = cob.start(sys.executable, "-c", ECHO, kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        self.assertEqual(cob.run(sys.executable, "-c", ASK, kernel=0).stdout, "ping\n")
        return server

    def test_kernel_without_descriptors(self):
        """It turns new programs away; those that it has go on, also with new connections."""
        cob = self.cob(kernels=2)
        self.expect_service(cob)
        pid = cob.kernels()[1]["pid"]
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
        refused = cob.run(sys.executable, "-c", ASK, kernel=1)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("cob:", refused.stderr)
        self.assertIn("cannot attach to kernel 1", refused.stderr)
        self.assertIn("out of descriptors", cob.log())
        self.assertEqual(cob.run(sys.executable, "-c", ASK, kernel=0).stdout, "ping\n")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        self.assertEqual(cob.run(sys.executable, "-c", ASK, kernel=1).stdout, "ping\n")
        self.assertEqual([k["epoch"] for k in cob.kernels()], [1, 1])

    def test_program_without_address_space(self):
        """Too little for what it shares with its kernel: it is told, and its kernel does not mind."""
        cob = self.cob(kernels=2)
        self.expect_service(cob)
        program = harness.BUILD / "programs" / "errors_plain"
        for mib, said in ((32, "too little address space (ulimit -v)"), (224, "ulimit -v is too small?")):
            with self.subTest(mib=mib):
                limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))
                done = cob.run(program, kernel=1, preexec_fn=limit)
                self.assertIn("cob: ", done.stderr)
                self.assertIn(said, done.stderr)
        self.assertEqual(cob.run(sys.executable, "-c", ASK, kernel=1).stdout, "ping\n")
        self.assertEqual([k["epoch"] for k in cob.kernels()], [1, 1])


if __name__ == "__main__":
    harness.main()
