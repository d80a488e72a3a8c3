"""Deaths: of programs, of kernels, of the supervisor; who is told what, and that the rest goes on."""
import errno
import os
import pathlib
import signal
import sys
import time

import harness
import servers
from servers import ADDRESS

ECHO = """
import socket, threading
l = socket.create_server(("0.0.0.0", 7000), backlog=100)
def serve(c):
    try:
        while d := c.recv(65536): c.sendall(d)
    except OSError: pass
    c.close()
while True:
    try: c, _ = l.accept()
    except OSError as e: print("accept", e.errno, flush=True); break
    threading.Thread(target=serve, args=(c,), daemon=True).start()
"""


def python(cob, text, kernel, **options):
    return cob.run(sys.executable, "-c", text, kernel=kernel, **options)


class ProgramDeaths(harness.CobTest):
    def test_killed_in_the_middle_of_a_transfer(self):
        """The peer gets what was sent before, then the connection's end; the kernel serves on."""
        cob = self.cob(kernels=2)
        cob.start(sys.executable, "-c", ECHO, kernel=1)
        servers.wait_for_port(cob, 7000)
        for delay in (0.05, 0.1, 0.2):
            sender = cob.start(sys.executable, "-c", f"""
import socket
s = socket.create_connection(("{ADDRESS}", 7000))
while True: s.sendall(b"x" * 100000)
""", kernel=0)
            time.sleep(delay)
            sender.kill()
            sender.wait()
            got = python(cob, f"""
import socket
s = socket.create_connection(("{ADDRESS}", 7000), 10); s.sendall(b"still here?"); print(s.recv(100).decode())
""", 0)
            self.assertEqual(got.stdout, "still here?\n", got.stderr)
        harness.wait_until(lambda: sum(k["now"]["connections"] for k in cob.kernels()) < 4, what="the dead one's connections' end")

    def test_what_was_sent_before_death_is_delivered(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", """
import socket
l = socket.create_server(("0.0.0.0", 7001)); print("ready", flush=True)
c, _ = l.accept(); n = 0
try:
    while d := c.recv(65536): n += len(d)
    print(n, "end", flush=True)
except OSError as e: print(n, e.errno, flush=True)
""", kernel=1)
        server.stdout.readline()
        python(cob, f"""
import socket, os, signal
s = socket.create_connection(("{ADDRESS}", 7001)); s.sendall(b"y" * 100000); os.kill(os.getpid(), signal.SIGKILL)
""", 0)
        self.assertEqual(server.stdout.readline(), "100000 end\n")


class KernelDeaths(harness.CobTest):
    def kill_kernel(self, cob, number):
        seconds = cob.kill_kernel(number)
        print(f"kernel {number} runs again after {seconds * 1000:.0f} ms")
        self.assertLess(seconds, 1)

    def wait_for_sleep(self, cob, program):
        """Until the program sleeps in ppoll(2) or epoll_pwait2(2), as waits for a kernel do."""
        syscall = pathlib.Path(f"/proc/{program.pid}/syscall")
        harness.wait_until(lambda: syscall.read_text().split()[0] in ("271", "441"), what="the program's sleep")

    def test_sleepers_wake_the_other_kernel_goes_on_new_programs_run(self):
        cob = self.cob(kernels=2)
        cob.start(sys.executable, "-c", ECHO, kernel=1)
        servers.wait_for_port(cob, 7000)
        waiting = cob.start(sys.executable, "-c", f"""
import socket, errno
s = socket.create_connection(("{ADDRESS}", 7000)); print("waiting", flush=True)
try: print("got", s.recv(10))
except OSError as e: print(errno.errorcode[e.errno], flush=True)
try:
    s2 = socket.socket(); s2.connect(("{ADDRESS}", 7000)); print("connected")
except OSError as e: print(errno.errorcode[e.errno])
""", kernel=0)
        self.assertEqual(waiting.stdout.readline(), "waiting\n")
        self.kill_kernel(cob, 1)
        # Its peer kernel is gone: reset; and nobody listens there any more.
        self.assertEqual(waiting.stdout.readline(), "ECONNRESET\n")
        self.assertEqual(waiting.stdout.readline(), "ECONNREFUSED\n")
        cob.start(sys.executable, "-c", ECHO.replace("7000", "7005"), kernel=1)
        servers.wait_for_port(cob, 7005)

    def test_programs_of_the_dead_kernel_are_told_and_attach_again(self):
        cob = self.cob(kernels=2)
        program = cob.start(sys.executable, "-c", """
import socket, errno, time
l = socket.create_server(("0.0.0.0", 7002)); print("listening", flush=True)
try: l.accept()
except OSError as e: print(errno.errorcode[e.errno], flush=True)
for i in range(200):
    try:
        again = socket.create_server(("0.0.0.0", 7003)); print("again", flush=True); break
    except OSError as e: last = e; time.sleep(0.02)
else: print(last, flush=True)
c, _ = again.accept(); print(c.recv(10), flush=True)
""", kernel=1)
        self.assertEqual(program.stdout.readline(), "listening\n")
        self.wait_for_sleep(cob, program)
        self.kill_kernel(cob, 1)
        self.assertEqual(program.stdout.readline(), "ENETDOWN\n")
        self.assertEqual(program.stdout.readline(), "again\n")
        got = python(cob, f'import socket; socket.create_connection(("{ADDRESS}", 7003), 10).sendall(b"hi")', 0)
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(program.stdout.readline(), "b'hi'\n")

    def test_epoll_reports_the_death(self):
        cob = self.cob(kernels=2)
        cob.start(sys.executable, "-c", ECHO, kernel=1)
        servers.wait_for_port(cob, 7000)
        program = cob.start(sys.executable, "-c", f"""
import errno, socket, select
s = socket.create_connection(("{ADDRESS}", 7000)); e = select.epoll(); e.register(s, select.EPOLLIN); print("waiting", flush=True)
both = select.EPOLLHUP | select.EPOLLERR
print([(fd == s.fileno(), events & both == both) for fd, events in e.poll(20)], flush=True)
print(e.poll(0.3), flush=True)
try: e.modify(s, select.EPOLLIN)
except OSError as problem: print(errno.errorcode[problem.errno], flush=True)
try: s.recv(1)
except OSError as problem: print(errno.errorcode[problem.errno], flush=True)
""", kernel=0)
        self.assertEqual(program.stdout.readline(), "waiting\n")
        self.wait_for_sleep(cob, program)
        self.kill_kernel(cob, 0)
        self.assertEqual(program.stdout.readline(), "[(True, True)]\n")  # told once
        self.assertEqual(program.stdout.readline(), "[]\n")
        self.assertEqual(program.stdout.readline(), "ENOENT\n")  # the set has dropped it
        self.assertEqual(program.stdout.readline(), "ECONNRESET\n")


    def test_ports_whose_home_is_down_are_granted_and_claimed_when_it_is_back(self):
        """Kernel 1 is the home of the odd ports. It dies until its supervisor waits before the next life."""
        cob = self.cob(kernels=2)
        bind = """
import socket, errno
s = socket.socket(); s.settimeout(20)
try: s.bind(("0.0.0.0", 7011)); s.listen(); print("listening", flush=True)
except OSError as e: print(errno.errorcode[e.errno], flush=True)
"""
        def held_down():
            k = cob.kernels()[1]
            if k["pid"] > 0:
                cob.pids.add(k["pid"])
                try:
                    os.kill(k["pid"], signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return k["epoch"] >= 7 and k["state"] == "restarting"
        harness.wait_until(held_down, 20, "kernel 1 to be held down")
        holder = cob.start(sys.executable, "-c", bind + "c, _ = s.accept(); print(c.recv(10), flush=True)", kernel=0)
        self.assertEqual(holder.stdout.readline(), "listening\n")
        harness.wait_until(lambda: cob.kernels()[1]["state"] in ("running", "asleep"), 20, "kernel 1's next life")
        cob.note_pids()
        harness.wait_until(lambda: python(cob, bind, 1).stdout == "EADDRINUSE\n", 10, "the claim to be known again")
        got = python(cob, f'import socket; socket.create_connection(("{ADDRESS}", 7011), 10).sendall(b"hi")', 1)
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(holder.stdout.readline(), "b'hi'\n")


class StandingStill(harness.CobTest):
    """A kernel that lives and does nothing: stopped by a signal."""

    def stopped(self, cob, number):
        pid = cob.kernels()[number]["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(lambda: harness.is_alive(pid) and os.kill(pid, signal.SIGCONT))
        return pid

    def test_bind_of_a_port_whose_home_stands_still_ends(self):
        cob = self.cob(kernels=2)
        home = self.stopped(cob, 1)
        got = python(cob, """
import socket, errno
s = socket.socket()
try: s.bind(("0.0.0.0", 7013)); print("bound")
except OSError as e: print(errno.errorcode[e.errno])
s.bind(("0.0.0.0", 7014)); print("bound")
""", 0, timeout=30)
        os.kill(home, signal.SIGCONT)
        self.assertEqual(got.stdout, "EADDRINUSE\nbound\n", got.stderr)
        # The home has heard that it is over.
        harness.wait_until(lambda: python(cob, 'import socket; socket.create_server(("0.0.0.0", 7013))', 1).returncode == 0, 10,
                           "the port to be free")

    def test_status_shows_what_waits_in_the_rings_to_it(self):
        cob = self.cob(kernels=2)
        harness.wait_until(lambda: [p["message_lines"] for p in cob.kernels()[0]["queues"]["peers"]] == [0], what="the ring to be empty")
        self.stopped(cob, 1)
        cob.start(sys.executable, "-c", """
import socket
listeners = [socket.create_server(("0.0.0.0", 8000 + 2 * i)) for i in range(40)]
input()
""", kernel=0, stdin=-1)
        harness.wait_until(lambda: cob.kernels()[0]["queues"]["peers"][0]["message_lines"] == 40, what="the notices to be seen")
        self.assertIn("40/1024", cob.named("status").stdout)


class Queues(harness.CobTest):
    def test_status_shows_what_is_not_accepted_and_not_read(self):
        cob = self.cob(kernels=2)
        server = cob.start(sys.executable, "-c", """
import socket
l = socket.create_server(("0.0.0.0", 7020), backlog=17); print("ready", flush=True)
input(); c, _ = l.accept(); c2, _ = l.accept(); print("two", flush=True)
input()
""", kernel=1, stdin=-1)
        self.assertEqual(server.stdout.readline(), "ready\n")
        client = cob.start(sys.executable, "-c", f"""
import socket
s = [socket.create_connection(("{ADDRESS}", 7020)) for i in range(5)]
s[0].sendall(b"x" * 100000); print("connected", flush=True); input()
""", kernel=0, stdin=-1)
        self.assertEqual(client.stdout.readline(), "connected\n")
        def listener():
            rows = cob.kernels()[1]["queues"]["listeners"]
            return [(r["listener"], r["accept_queue"], r["backlog"], r["handshakes"]) for r in rows]
        harness.wait_until(lambda: listener() == [("0.0.0.0:7020", 5, 17, 0)], what="five connections in the queue")
        self.assertRegex(cob.named("status").stdout, r"0\.0\.0\.0:7020 +1 +5/17 +0\n")
        server.stdin.write("\n")
        server.stdin.flush()
        self.assertEqual(server.stdout.readline(), "two\n")
        harness.wait_until(lambda: listener() == [("0.0.0.0:7020", 3, 17, 0)], what="two of them accepted")
        row = lambda: next(p for p in cob.kernels()[1]["queues"]["programs"])
        harness.wait_until(lambda: row()["receive_chunks"] >= 49, what="100,000 unread bytes to be seen")
        self.assertEqual((row()["calls_waiting"], row()["receive_chunks_of"]), (0, 16384))
        client.kill()
        harness.wait_until(lambda: cob.kernels()[0]["queues"]["programs"] == [], what="the client's end")


class SupervisorDeath(harness.CobTest):
    def test_nothing_stays(self):
        cob = self.cob(kernels=2)
        program = cob.start(sys.executable, "-c", ECHO, kernel=1)
        servers.wait_for_port(cob, 7000)
        client = cob.start(sys.executable, "-c", f"""
import errno, socket
def told(what, *words):
    try: print(what(*words), flush=True)
    except OSError as problem: print(errno.errorcode[problem.errno], flush=True)
s = socket.create_connection(("{ADDRESS}", 7000)); print("waiting", flush=True)
told(s.recv, 10)
told(s.send, b"x")
told(socket.create_server, ("0.0.0.0", 7001))
""", kernel=0)
        self.assertEqual(client.stdout.readline(), "waiting\n")
        status = cob.status()
        os.kill(status["pid"], signal.SIGKILL)
        harness.wait_until(lambda: not any(harness.is_alive(k["pid"]) for k in status["kernels"]), 5, "the kernels' end")
        self.assertEqual(program.stdout.readline(), f"accept {errno.ENETDOWN}\n")
        self.assertEqual(client.communicate(timeout=20)[0].split(), ["ECONNRESET", "ECONNRESET", "ENETDOWN"])
        program.wait(10)
        cob.up("--kernels", 2)  # what the dead one left is taken over


if __name__ == "__main__":
    harness.main()
