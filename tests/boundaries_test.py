"""kill -9 of a program at every boundary of its calls, and between the instructions of some: its kernel lives, keeps nothing of
it, serves on; its peer on the other kernel got a prefix of what it sent, then the connection's end."""
import json
import subprocess
import sys
import time
import unittest

import harness
from servers import ADDRESS

LIFE = harness.BUILD / "boundaries" / "life"
KILL_AT = harness.BUILD / "boundaries" / "kill_at"
MOST_KILLS = 420  # of one test: with more boundaries than that, every second is taken, or third

# Port 7000. "L": a life; its bytes are compared, and its own listener is connected to. "Q": what was seen so far.
PEER = f"""
import json, socket, threading
text = lambda stream, size: bytes((ord(stream) + i * 7 + i // 256) & 255 for i in range(size))
seen = dict(live=0, faults=[], complete=0)
lock = threading.Lock()
def note(live=0, fault=None, complete=0):
    with lock:
        seen["live"] += live; seen["complete"] += complete
        if fault: seen["faults"].append(fault)
def receive_prefix(s, whole):
    got = 0
    try:
        while d := s.recv(65536):
            if d != whole[got:got + len(d)]: return note(fault=f"bytes from {{got}} on are not what was sent")
            got += len(d)
        if got == len(whole): note(complete=1)
    except ConnectionResetError: pass
def connect_back():
    try:
        s = socket.socket(); s.connect(("{ADDRESS}", 7100)); s.sendall(text("p", 5000)); receive_prefix(s, text("i", 7000))
    except (ConnectionError, BrokenPipeError): pass
    except OSError as e: note(fault=f"connecting back: {{e}}")
    s.close(); note(live=-1)
def serve(s):
    try:
        what = s.recv(1)
        if what == b"Q": s.sendall(json.dumps(seen).encode())
        if what == b"L":
            note(live=1); threading.Thread(target=connect_back).start(); receive_prefix(s, text("o", 9000))
    except ConnectionError: pass
    except OSError as e: note(fault=f"serving: {{e}}")
    s.close(); note(live=-1)
listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
print("listening", flush=True)
while True:
    s, _ = listener.accept(); note(live=1); threading.Thread(target=serve, args=(s,)).start()
"""
# On the kernel of the killed: for each line a new connection that asks the peer.
PROBER = f"""
import socket, sys
print("ready", flush=True)
while sys.stdin.readline():
    s = socket.create_connection(("{ADDRESS}", 7000), 10); s.sendall(b"Q"); got = b""
    while d := s.recv(65536): got += d
    s.close(); print(got.decode(), flush=True)
"""


def can_trace():
    """False where ptrace(2) is forbidden, as in some containers."""
    done = subprocess.run([KILL_AT, "calls", "0", "/dev/null", "true"], capture_output=True, text=True)
    return done.stdout.startswith("ended 0")


@unittest.skipUnless(KILL_AT.exists() and can_trace(), "ptrace is not permitted here")
class Boundaries(harness.CobTest):
    def setUp(self):
        self.the_cob = self.cob(kernels=2)
        self.pids = [k["pid"] for k in self.the_cob.kernels()]
        peer = self.the_cob.start(sys.executable, "-c", PEER, kernel=1, stderr=None)
        self.assertEqual(peer.stdout.readline(), "listening\n")
        self.prober = self.the_cob.start(sys.executable, "-c", PROBER, kernel=0, stdin=-1, stderr=None)
        self.assertEqual(self.prober.stdout.readline(), "ready\n")
        self.ask_peer()
        listed = subprocess.run(["nm", "-D", "--defined-only", harness.BUILD / "libcob.so"], capture_output=True, text=True,
                                check=True).stdout
        functions = {}
        for line in listed.splitlines():
            address, kind, name = line.split()
            if kind in "TW":
                names = functions.setdefault(int(address, 16), name), name
                functions[int(address, 16)] = min(names, key=lambda n: (n.startswith("_"), len(n)))  # of its aliases
        self.functions = self.the_cob.directory / "functions"
        self.functions.write_text("".join(f"{address:x} {name}\n" for address, name in functions.items()))
        self.names = set(functions.values())
        self.descriptions = self.settle()
        self.programs = self.rows()

    def rows(self):
        return sorted((p["pid"], p["kernel"], p["sockets"]) for p in self.the_cob.ps())

    def descriptions_now(self):
        return [k["now"]["descriptions"] for k in self.the_cob.kernels()]

    def settle(self):
        """Descriptions of each kernel when nothing is under way."""
        last = []
        def same():
            last.append(self.descriptions_now())
            return len(last) > 1 and last[-1] == last[-2]
        harness.wait_until(same, what="the descriptions of idle kernels")
        return last[-1]

    def ask_peer(self):
        self.prober.stdin.write("\n")
        self.prober.stdin.flush()
        return json.loads(self.prober.stdout.readline())

    def life(self, *how):
        """One life under kill_at: "killed WHERE" or "ended STATUS COUNT"."""
        environment = {**self.the_cob.environment, "COB_CHECK": "0"}  # else most boundaries would be those of the check
        done = subprocess.run([KILL_AT, *map(str, how), self.functions, harness.COB, "run", "--name", self.the_cob.name, "-k", "0",
                               "--", LIFE, ADDRESS, "7000", "7100", "traced"], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, env=environment, timeout=60)
        self.assertEqual(done.returncode, 0, f"{how}: {done.stdout}{done.stderr}")
        return done.stdout.strip().splitlines()[-1]

    def check_rest(self, where):
        """What must hold after each death."""
        for pid in self.pids:
            self.assertTrue(harness.is_alive(pid), f"{where}: a kernel died\n{self.the_cob.log()}")
        seen = {}
        def over():
            seen.update(self.ask_peer())  # through the same kernel, by a new connection
            return seen["live"] == 1  # this question
        harness.wait_until(over, 15, f"{where}: the end of the dead one's connections ({seen})")
        self.assertEqual(seen["faults"], [], where)
        rows = []
        def listed():
            rows[:] = self.rows()
            return rows == self.programs
        try:
            harness.wait_until(listed, 15)
        except AssertionError:
            self.fail(f"{where}: programs {rows}, not {self.programs}; {self.descriptions_now()} descriptions")

    def check_nothing_leaked(self, where):
        harness.wait_until(lambda: self.descriptions_now() == self.descriptions, 15,
                           f"{where}: descriptions {self.descriptions_now()} to be {self.descriptions}")

    def expect_whole_life(self):
        before = self.ask_peer()["complete"]
        ended = self.life("calls", 0).split()
        self.assertEqual(ended[:2], ["ended", "0"])
        self.check_rest("a whole life")
        self.assertEqual(self.ask_peer()["complete"], before + 2)
        return int(ended[2])

    def test_at_every_boundary(self):
        stride = 1 + self.expect_whole_life() // MOST_KILLS
        at, kills, ended = 1, [], 0
        while ended < 3:  # the number of boundaries may differ by a few between lives
            result = self.life("calls", at)
            self.check_rest(f"boundary {at} ({result})")
            if result.startswith("killed"):
                kills.append(result)
            else:
                ended += 1
            if at % 50 == 0:
                self.check_nothing_leaked(f"up to boundary {at}")
            at += stride
        self.check_nothing_leaked("after all boundaries")
        self.expect_whole_life()
        print(f"{len(kills)} deaths, every {stride}. boundary; last: {kills[-1]}")
        for call in ("send", "accept", "connect", "close", "epoll_wait", "fork", "dup2", "shutdown"):
            if not any(k.endswith(f"entry {call}") for k in kills):  # another number in that life
                self.assertRegex(self.life("steps", call, 1, 1), "^killed")
                self.check_rest(f"the entry of {call}")

    def check_within(self, function, turn=1, kills=40):
        self.assertIn(function, self.names)
        limit = 100_000
        result = self.life("steps", function, turn, limit).split()
        self.check_rest(f"all of {function}")
        length = int(result[2]) if result[0] == "ended" else limit
        self.assertGreater(length, 10, f"{function}: {result}")
        # The first instructions of a wait are its own, the rest are looks that find nothing.
        length = min(length, 4_000)
        stride = max(1, length // kills)
        for instructions in range(1, length + 1, stride):
            result = self.life("steps", function, turn, instructions)
            self.check_rest(f"{function}, instruction {instructions} of {length} ({result})")
        self.check_nothing_leaked(f"after deaths within {function}")
        print(f"{function}: {length} instructions, every {stride}.")

    def test_within_send(self):
        self.check_within("send")

    def test_within_close(self):
        self.check_within("close", turn=2)  # the first is of a duplicate

    def test_within_accept(self):
        self.check_within("accept")

    def test_within_fork(self):
        self.check_within("fork", kills=20)


if __name__ == "__main__":
    harness.main()
