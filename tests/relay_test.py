"""Sockets handed to programs that the shim cannot enter: an inetd-like server execs static and set-user-ID images with the
connection at 0 and 1, clients on the other kernel speak to them. What one program sees is in programs/exec_static.c."""
import os
import pathlib
import re
import shutil
import signal
import stat
import sys
import tempfile
import unittest

import harness
from servers import ADDRESS

STATIC = harness.BUILD / "relay" / "static_image"
DYNAMIC = harness.BUILD / "relay" / "dynamic_image"
NOBODY = 65534

# PORT UID IMAGE WORDS...: each connection becomes standard input and output of the image, run as UID. A line for each image that
# ended: its status. What cannot be run answers for itself.
INETD = """
import os, signal, socket, sys, threading
port, uid, image = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
listener = socket.create_server(("0.0.0.0", port), backlog=1024)
print("listening", flush=True)
def wait(pid): os.write(1, b"%d %d\\n" % (pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
while True:
    connection, _ = listener.accept()
    pid = os.fork()
    if pid == 0:
        for number in 0, 1: os.dup2(connection.fileno(), number)
        if uid: os.setuid(uid)
        try: os.execv(image[0], image)
        except OSError as problem:
            os.write(1, b"cannot: %d\\n" % problem.errno + os.read(0, 100))
            os._exit(9)
    connection.close()
    threading.Thread(target=wait, args=(pid,)).start()
"""

COMMON = f"""
import hashlib, os, socket, struct, sys, threading, time
def connect(port): return socket.create_connection(("{ADDRESS}", port), 20)
def rest(s):
    parts = []
    while part := s.recv(1 << 16): parts.append(part)
    return b"".join(parts)
def ask(port, sent):
    with connect(port) as s:
        s.sendall(sent); s.shutdown(socket.SHUT_WR)
        return rest(s)
"""


class Relay(harness.CobTest):
    def inetd(self, cob, port, *image, uid=0, **options):
        server = cob.start(sys.executable, "-c", INETD, port, uid, *image, kernel=1, **options)
        self.assertEqual(server.stdout.readline(), "listening\n")
        return server

    def client(self, cob, script, **options):
        done = cob.run(sys.executable, "-c", COMMON + script, kernel=0, **options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return done.stdout

    def ended(self, server, count=1):
        """Exit statuses of the next images that ended."""
        return [int(server.stdout.readline().split()[1]) for _ in range(count)]

    def expect_nothing_left(self, cob):
        """No connection, and in the kernels no more descriptors than before any relay."""
        harness.wait_until(lambda: all(k["now"]["connections"] == 0 for k in cob.kernels()), what="the connections' end")
        harness.wait_until(lambda: all(self.unix_sockets(k["pid"]) == self.before[k["pid"]] for k in cob.kernels()),
                           what="the relays' end")

    @staticmethod
    def unix_sockets(pid):
        directory = pathlib.Path(f"/proc/{pid}/fd")
        links = []
        for entry in os.listdir(directory):
            try:
                links.append(os.readlink(directory / entry))
            except FileNotFoundError:
                pass
        return sum(link.startswith("socket:") for link in links)

    def noted(self, cob):
        """Call with every program started that stays."""
        self.before = {k["pid"]: self.unix_sockets(k["pid"]) for k in cob.kernels()}

    def test_static_image_answers_to_the_end(self):
        cob = self.cob(kernels=2)
        server = self.inetd(cob, 7000, STATIC, "echo")
        self.noted(cob)
        out = self.client(cob, 'print([ask(7000, b"request %d" % i) == b"request %d" % i for i in range(20)] == [True] * 20)')
        self.assertEqual(out, "True\n")
        self.assertEqual(self.ended(server, 20), [0] * 20)
        self.expect_nothing_left(cob)

    @unittest.skipIf(os.geteuid() != 0, "only root can make a set-user-ID program of another user")
    def test_set_user_id_image(self):
        cob = self.cob(kernels=2)
        directory = pathlib.Path(tempfile.mkdtemp(prefix="cob-relay-"))
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o755)
        image = shutil.copy(DYNAMIC, directory / "image")
        os.chmod(image, 0o4711)  # not readable: as some systems install sudo
        if os.statvfs(image).f_flag & os.ST_NOSUID:
            self.skipTest("the temporary directory's file system is nosuid")
        self.inetd(cob, 7000, image, "uid", uid=NOBODY)
        self.inetd(cob, 7001, image, "echo", uid=NOBODY)
        self.assertEqual(self.client(cob, 'print(ask(7000, b""), ask(7001, b"as root"))'), "b'0\\n' b'as root'\n")

    def test_big_transfer_both_ways(self):
        cob = self.cob(kernels=2)
        server = self.inetd(cob, 7000, STATIC, "echo")
        self.noted(cob)
        out = self.client(cob, """
sent = os.urandom(1 << 20) * 40
s = connect(7000)
def send(): s.sendall(sent); s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
got = rest(s)
print(len(got) == len(sent), hashlib.sha256(got).digest() == hashlib.sha256(sent).digest())
""")
        self.assertEqual(out, "True True\n")
        self.assertEqual(self.ended(server), [0])
        self.expect_nothing_left(cob)

    def test_many_at_once(self):
        cob = self.cob(kernels=2)
        server = self.inetd(cob, 7000, STATIC, "echo")
        self.noted(cob)
        out = self.client(cob, """
held = [connect(7000) for _ in range(100)]
for n, s in enumerate(held): s.sendall(b"%d;" % n * 10000)
for s in held: s.shutdown(socket.SHUT_WR)
print(all(rest(s) == b"%d;" % n * 10000 for n, s in enumerate(held)))
""")
        self.assertEqual(out, "True\n")
        self.assertEqual(self.ended(server, 100), [0] * 100)
        self.expect_nothing_left(cob)

    def test_client_resets(self):
        cob = self.cob(kernels=2)
        echo = self.inetd(cob, 7000, STATIC, "echo")
        writer = self.inetd(cob, 7001, STATIC, "pipe-gone")
        self.noted(cob)
        self.client(cob, """
for port in 7000, 7001:
    s = connect(port)
    s.sendall(b"x"); s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
""")
        self.assertEqual(self.ended(echo) + self.ended(writer), [0, 0])
        self.expect_nothing_left(cob)

    def test_image_killed(self):
        cob = self.cob(kernels=2)
        server = self.inetd(cob, 7000, STATIC, "echo")
        self.noted(cob)
        client = cob.start(sys.executable, "-c", COMMON + """
s = connect(7000)
s.sendall(b"alive"); print(s.recv(5).decode(), flush=True)
print(s.recv(1), flush=True)
""", kernel=0)
        self.assertEqual(client.stdout.readline(), "alive\n")
        image = [p for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and self.is_image(p, server.pid)]
        self.assertEqual(len(image), 1)
        os.kill(int(image[0].name), signal.SIGKILL)
        self.assertEqual(client.stdout.readline(), "b''\n")
        self.assertEqual(self.ended(server), [-signal.SIGKILL])
        self.assertEqual(client.wait(10), 0)
        self.expect_nothing_left(cob)

    @staticmethod
    def is_image(process, parent):
        try:
            status = (process / "status").read_text()
            return re.search(rf"^PPid:\t{parent}$", status, re.M) and os.readlink(process / "exe") == str(STATIC)
        except (FileNotFoundError, ProcessLookupError):
            return False

    def test_image_that_cannot_be_run_leaves_the_socket(self):
        cob = self.cob(kernels=2)
        broken = cob.directory / "broken"
        broken.write_bytes(STATIC.read_bytes()[:4096])
        broken.chmod(stat.S_IRUSR)
        server = self.inetd(cob, 7000, broken)
        self.noted(cob)
        self.assertEqual(self.client(cob, 'print(ask(7000, b"request"))'), "b'cannot: 13\\nrequest'\n")
        self.assertEqual(self.ended(server), [9])
        self.expect_nothing_left(cob)

    def test_script_shares_its_connection_with_static_tools(self):
        """What a tool does not read is the script's, and the tools' output comes in order with the script's own."""
        cob = self.cob(kernels=2)
        script = self.write_program(cob, "session", f"""#!/bin/bash
while read -r line; do
  echo "$line:"
  {STATIC} nothing
  {STATIC} say "tool "
  echo done
done
{STATIC} echo
""")
        server = self.inetd(cob, 7000, script)
        self.noted(cob)
        out = self.client(cob, """
lines = b"".join(b"line %d\\n" % i for i in range(30))
want = b"".join(b"line %d:\\ntool done\\n" % i for i in range(30))
print(ask(7000, lines) == want)
""")
        self.assertEqual(out, "True\n")
        self.assertEqual(self.ended(server), [0])
        self.expect_nothing_left(cob)

    def test_image_that_does_not_read_stops_its_client_alone(self):
        cob = self.cob(kernels=2)
        self.inetd(cob, 7000, STATIC, "wait")
        self.inetd(cob, 7001, STATIC, "echo")
        kernel = cob.kernels()[1]["pid"]
        before = int(pathlib.Path(f"/proc/{kernel}/statm").read_text().split()[1])
        out = self.client(cob, """
s = connect(7000)
s.settimeout(0.5)
sent = 0
try:
    while sent < 1 << 28: sent += s.send(bytes(1 << 16))
except TimeoutError: pass
print(sent < 1 << 23, ask(7001, b"another"))
""")
        self.assertEqual(out, "True b'another'\n")
        after = int(pathlib.Path(f"/proc/{kernel}/statm").read_text().split()[1])
        self.assertLess((after - before) * os.sysconf("SC_PAGESIZE"), 8 << 20)

    def test_the_kernels_death_ends_the_stream(self):
        cob = self.cob(kernels=2)
        server = self.inetd(cob, 7000, STATIC, "echo")
        client = cob.start(sys.executable, "-c", COMMON + 's = connect(7000); s.sendall(b"x"); print(s.recv(1), flush=True)\n'
                           "try: print(s.recv(1))\nexcept ConnectionResetError: print('reset')\n", kernel=0)
        self.assertEqual(client.stdout.readline(), "b'x'\n")
        os.kill(cob.kernels()[1]["pid"], signal.SIGKILL)
        self.assertEqual(self.ended(server), [0])
        self.assertEqual(client.stdout.readline(), "reset\n")
        cob.note_pids()

    def test_a_listener_is_refused_and_said_so(self):
        cob = self.cob(kernels=2)
        done = cob.run(sys.executable, "-c", f"""
import os, socket
listener = socket.create_server(("0.0.0.0", 7000))
listener.set_inheritable(True)
os.execv("{STATIC}", ["image", "accept", str(listener.fileno())])
""")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"cob: {STATIC} is statically linked: ", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_static_child_does_not_hold_what_it_does_not_inherit(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", f"""
import os, signal, socket
listener = socket.create_server(("0.0.0.0", 7000))
print("listening", flush=True)
connection, _ = listener.accept()
child = os.fork()
if child == 0: os.execv("{STATIC}", ["image", "wait"])
while os.readlink(f"/proc/{{child}}/exe") != "{STATIC}": pass
connection.close()
print("closed", flush=True)
listener.accept()
os.kill(child, signal.SIGKILL)
""", kernel=1)
        self.assertEqual(server.stdout.readline(), "listening\n")
        self.assertEqual(self.client(cob, "s = connect(7000); print(rest(s)); connect(7000)"), "b''\n")
        self.assertEqual(server.wait(10), 0)


if __name__ == "__main__":
    harness.main()
