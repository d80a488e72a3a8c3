"""Real servers and clients, unmodified, on two kernels at one address: what the issue's users run first."""
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import unittest

import harness
import servers
from servers import ADDRESS


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class Servers(harness.CobTest):
    @needs("nginx", "curl")
    def test_nginx_serves_curl_from_memory_and_from_a_file(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob)
        for kernel in (0, 1):
            body = cob.run("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/memory", kernel=kernel)
            self.assertEqual((body.returncode, body.stdout), (0, "a body from memory\n"), body.stderr)
            body = cob.run("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/", kernel=kernel)
            self.assertEqual(body.stdout, (nginx.root / "www" / "index.html").read_text(), body.stderr)
        loopback = cob.run("curl", "-sS", "-m", 10, "http://127.0.0.1:8080/memory", kernel=0)
        self.assertEqual(loopback.stdout, "a body from memory\n", loopback.stderr)

    @needs("nginx", "ab")
    def test_ab_close_and_keep_alive_lose_nothing(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob)
        for words in (["-c", 64], ["-c", 64, "-k"], ["-c", 1], ["-c", 8]):
            done = cob.run("ab", "-q", "-n", 5000, *words, f"http://{ADDRESS}:8080/memory", kernel=0)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"Complete requests:\s+5000")
            self.assertRegex(done.stdout, r"Failed requests:\s+0")
            self.assertNotIn("Non-2xx", done.stdout)

    @needs("nginx", "wrk")
    def test_wrk_with_threads(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob, workers=2)
        done = cob.run("wrk", "-t", 2, "-c", 50, "-d", 1, f"http://{ADDRESS}:8080/", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Socket errors", done.stdout)
        self.assertGreater(int(re.search(r"(\d+) requests in", done.stdout)[1]), 100)

    @needs("redis-server", "redis-cli", "redis-benchmark")
    def test_redis_with_its_forked_save(self):
        cob = self.cob(kernels=2)
        redis = servers.redis(cob)
        cli = lambda *words: cob.run("redis-cli", "-h", ADDRESS, *words, kernel=0)
        self.assertEqual(cli("set", "k", "v" * 10000).stdout, "OK\n")
        self.assertEqual(cli("get", "k").stdout, "v" * 10000 + "\n")
        self.assertIn("Background saving started", cli("bgsave").stdout)
        harness.wait_until(lambda: (redis.root / "dump.rdb").exists(), what="the forked child's dump.rdb")
        done = cob.run("redis-benchmark", "-h", ADDRESS, "-n", 5000, "-q", "-t", "get,set", "-P", 16, "--csv", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"GET"', done.stdout)

    @needs("memcached")
    def test_memcached_with_four_threads(self):
        cob = self.cob(kernels=2)
        servers.memcached(cob)
        client = f"""
import socket, threading
errors = []
def work(n):
    s = socket.create_connection(("{ADDRESS}", 11211), 10); f = s.makefile("rwb")
    for i in range(50):
        value = (str(n) + ":" + str(i)).encode() * 50
        f.write(b"set k%d 0 0 %d\\r\\n%s\\r\\n" % (n, len(value), value)); f.flush()
        if f.readline() != b"STORED\\r\\n": errors.append((n, i)); return
        f.write(b"get k%d\\r\\n" % n); f.flush()
        head = f.readline(); got = f.readline(); end = f.readline()
        if got != value + b"\\r\\n": errors.append((n, i, head)); return
threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
[t.start() for t in threads]; [t.join() for t in threads]
print(errors or "all stored")
"""
        done = cob.run(sys.executable, "-c", client, kernel=0)
        self.assertEqual(done.stdout, "all stored\n", done.stderr)

    @needs("nginx", "haproxy", "ab")
    def test_haproxy_in_front_of_nginx(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob, port=8080)
        servers.haproxy(cob, 8000, 8080)
        done = cob.run("ab", "-q", "-n", 2000, "-c", 16, f"http://{ADDRESS}:8000/memory", kernel=0)
        self.assertRegex(done.stdout, r"Failed requests:\s+0")
        self.assertNotIn("Non-2xx", done.stdout)

    @needs("curl")
    def test_python_http_server_and_asyncio(self):
        cob = self.cob(kernels=2)
        (cob.directory / "file.txt").write_text("python's\n")
        cob.start(sys.executable, "-m", "http.server", "-d", cob.directory, 8001, kernel=1)
        servers.wait_for_port(cob, 8001)
        got = cob.run("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8001/file.txt", kernel=0)
        self.assertEqual(got.stdout, "python's\n", got.stderr)
        echo = f"""
import asyncio
async def serve(r, w):
    while data := await r.read(65536): w.write(data); await w.drain()
    w.close()
async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 8002)
    async def one(n):
        r, w = await asyncio.open_connection("{ADDRESS}", 8002)
        sent = bytes([n]) * 200000; w.write(sent); w.write_eof()
        got = await r.read(-1); w.close(); return got == sent
    print(all(await asyncio.gather(*(one(n) for n in range(30)))))
    server.close()
asyncio.run(main())
"""
        done = cob.run(sys.executable, "-c", echo, kernel=1, timeout=60)
        self.assertEqual(done.stdout, "True\n", done.stderr)

    def test_python_forks_under_a_running_event_loop(self):
        """multiprocessing's fork: the child inherits the loop's epoll set and sockets, makes a loop of its own, and ends; the
        parent's loop goes on meanwhile."""
        program = f"""
import asyncio, multiprocessing
async def serve(r, w):
    while data := await r.read(65536): w.write(data); await w.drain()
    w.close()
async def once(n):
    r, w = await asyncio.open_connection("{ADDRESS}", 8006)
    sent = bytes([n]) * 50000; w.write(sent); w.write_eof()
    got = await r.read(-1); w.close(); return got == sent
def child(n, results): results.put(asyncio.run(once(n)))
async def main():
    fork = multiprocessing.get_context("fork")
    server = await asyncio.start_server(serve, "0.0.0.0", 8006)
    r, w = await asyncio.open_connection("{ADDRESS}", 8006)
    results = fork.Queue()
    children = [fork.Process(target=child, args=(n, results)) for n in range(8)]
    for c in children: c.start()
    for n in range(50): w.write(b"x" * 1000); assert len(await r.readexactly(1000)) == 1000
    loop = asyncio.get_running_loop()
    good = [await loop.run_in_executor(None, results.get) for _ in children]
    for c in children: await loop.run_in_executor(None, c.join)
    w.write(b"after"); print(all(good), [c.exitcode for c in children], await r.readexactly(5), await once(9))
    w.close(); server.close()
asyncio.run(main())
"""
        cob = self.cob(kernels=2, environment=CHECKED)
        done = cob.run(sys.executable, "-c", program, kernel=1, timeout=60)
        self.assertEqual(done.stdout, f"True {[0] * 8} b'after' True\n", done.stderr)

    def test_bash_and_perl_scripts(self):
        cob = self.cob(kernels=2)
        perl = ("use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalPort => 8003, Listen => 5, ReuseAddr => 1) or die $!;"
                "while (my $c = $l->accept) { while (my $line = <$c>) { print $c uc $line; last if $line =~ /bye/ } close $c }")
        cob.start("perl", "-e", perl, kernel=1)
        servers.wait_for_port(cob, 8003)
        script = (f"exec 3<>/dev/tcp/{ADDRESS}/8003; echo hello >&3; read -r a <&3; echo bye >&3; read -r b <&3; "
                  "echo \"$a $b\"; (echo child >&3) 2>/dev/null; exec 3>&-")
        done = cob.run("bash", "-c", script, kernel=0)
        self.assertEqual(done.stdout, "HELLO BYE\n", done.stderr)

    def test_a_gibibyte_arrives_as_it_was_sent(self):
        cob = self.cob(kernels=2)
        size = 1 << 30
        server = f"""
import socket, hashlib
l = socket.create_server(("0.0.0.0", 8004)); c, _ = l.accept(); h = hashlib.md5(); n = 0
probe = c.recv(1)
if not probe: c, _ = l.accept()
else: h.update(probe); n = 1
while n < {size}:
    d = c.recv(1 << 20)
    if not d: break
    h.update(d); n += len(d)
c.sendall((str(n) + " " + h.hexdigest()).encode())
"""
        cob.start(sys.executable, "-c", server, kernel=1)
        servers.wait_for_port(cob, 8004)
        client = f"""
import socket, hashlib, random
s = socket.create_connection(("{ADDRESS}", 8004)); h = hashlib.md5(); block = random.Random(1).randbytes(1 << 20)
for i in range({size} >> 20):
    part = i.to_bytes(8, "big") + block[8:]; s.sendall(part); h.update(part)
print(s.recv(100).decode() == str({size}) + " " + h.hexdigest())
"""
        done = cob.run(sys.executable, "-c", client, kernel=0, timeout=120)
        self.assertEqual(done.stdout, "True\n", done.stderr)

    @needs("nginx")
    def test_ten_thousand_connections_at_once(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob)
        client = f"""
import socket, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (min(12000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
all_of_them = []
for i in range(10000):
    s = socket.create_connection(("{ADDRESS}", 8080), 20); all_of_them.append(s)
good = 0
for s in all_of_them:
    s.sendall(b"GET /memory HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
for s in all_of_them:
    got = b""
    while d := s.recv(4096): got += d
    good += got.endswith(b"a body from memory\\n")
print(good)
"""
        done = cob.run(sys.executable, "-c", client, kernel=0, timeout=120)
        self.assertEqual(done.stdout, "10000\n", done.stderr[-2000:])


class Contested(harness.CobTest):
    """A computing neighbour on the cores: what is served, and that `cob status` names it."""

    def hog(self, core):
        hog = subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        self.addCleanup(hog.wait)
        self.addCleanup(hog.kill)

    @needs("nginx", "ab")
    def test_status_shows_it(self):
        cob = self.cob(kernels=2)
        servers.nginx(cob)
        for kernel in cob.kernels():
            self.hog(kernel["core"])
        def shown():
            done = cob.run("ab", "-q", "-n", 500, "-c", 8, f"http://{ADDRESS}:8080/memory", kernel=0)
            self.assertRegex(done.stdout, r"Failed requests:\s+0\n", done.stderr)
            return all(k["since_start"]["contested_ns"] > 0 for k in cob.kernels())
        harness.wait_until(shown, 30, "contested time of both kernels")


class NginxSignals(harness.CobTest):
    """Reload and binary upgrade under load: no connection is lost that Linux would keep."""

    def load_while(self, cob, act):
        """ab is at work before, while and after `act` runs; it is ended by SIGINT and tells what it saw."""
        # -t implies -n 50000, and the later of the two counts. Without -r ab gives up at the first connection lost.
        load = cob.start("ab", "-q", "-t", 100, "-n", 8000000, "-c", 16, f"http://{ADDRESS}:8080/memory", kernel=0)
        for step in (lambda: None, act):
            step()
            self.assertIsNone(load.poll(), "the load ended before its time")
            self.wait_for_requests(cob, load)
        load.send_signal(signal.SIGINT)
        out, err = load.communicate(timeout=60)
        self.assertEqual(err, "")
        self.assertGreater(int(re.search(r"Complete requests:\s+(\d+)", out)[1]), 2000, out)
        self.assertRegex(out, r"Failed requests:\s+0\n")
        self.assertNotIn("Non-2xx", out)

    def wait_for_requests(self, cob, load, count=1000):
        """Until ab's kernel has opened `count` further connections."""
        opened = lambda: cob.kernels()[0]["since_start"]["active_opens"]
        begin = opened()
        harness.wait_until(lambda: load.poll() is not None or opened() - begin >= count, 30, f"{count} requests")
        self.assertIsNone(load.poll(), "the load ended before its time")

    def workers(self, master):
        """Process ids of the workers that accept."""
        found = set()
        for entry in pathlib.Path("/proc").iterdir():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) if entry.name.isdigit() else 0
                if parent == master and (entry / "cmdline").read_text().rstrip("\0 ") == "nginx: worker process":
                    found.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found

    @needs("nginx", "ab")
    def test_reload(self):
        self.reload(self.cob(kernels=2))
        self.reload(self.cob(kernels=2, check=False))  # and at the full rate

    def reload(self, cob):
        nginx = servers.nginx(cob, workers=2)
        master = int((nginx.root / "nginx.pid").read_text())
        def act():
            for _ in range(5):
                old = harness.wait_until(lambda: self.workers(master), what="workers")
                os.kill(master, signal.SIGHUP)
                harness.wait_until(lambda: len(self.workers(master) - old) == 2, 20, "new workers")
                harness.wait_until(lambda: not any(map(harness.is_alive, old)), 20, "the old workers' end")
        self.load_while(cob, act)

    @needs("nginx", "ab")
    def test_binary_upgrade(self):
        self.upgrade(self.cob(kernels=2))
        self.upgrade(self.cob(kernels=2, check=False))

    def upgrade(self, cob):
        # A master that is no daemon ignores USR2 while its parent lives.
        nginx = servers.nginx(cob, daemon="on")
        old = int((nginx.root / "nginx.pid").read_text())
        old_workers = harness.wait_until(lambda: self.workers(old), what="workers")
        def act():
            os.kill(old, signal.SIGUSR2)
            harness.wait_until(lambda: (nginx.root / "nginx.pid.oldbin").exists(), 20, "the new binary")
            new = harness.wait_until(lambda: (nginx.root / "nginx.pid").exists() and
                                     int((nginx.root / "nginx.pid").read_text() or 0), 20, "the new master")
            self.assertNotEqual(new, old)
            workers = harness.wait_until(lambda: self.workers(new), 20, "the new workers")
            self.assertEqual(workers & old_workers, set())
            os.kill(old, signal.SIGQUIT)
            harness.wait_until(lambda: not any(map(harness.is_alive, {old, *old_workers})), 20, "the old ones' end")
        self.load_while(cob, act)
        got = cob.run("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/memory", kernel=0)
        self.assertEqual(got.stdout, "a body from memory\n", got.stderr)


if __name__ == "__main__":
    harness.main()
