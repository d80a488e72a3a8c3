"""Real servers and clients, unmodified, on two kernels at one address: what the issue's users run first."""
import hashlib
import os
import re
import shutil
import signal
import sys
import time
import unittest

import harness
import servers
from servers import ADDRESS

CHECKED = {"COB_CHECK": "1"}  # the shim's table is compared with the host's after every call


def needs(*programs):
    missing = [p for p in programs if shutil.which(p) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class Servers(harness.CobTest):
    @needs("nginx", "curl")
    def test_nginx_serves_curl_from_memory_and_from_a_file(self):
        cob = self.cob(kernels=2, environment=CHECKED)
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

    @needs("nginx", "ab")
    def test_large_bodies_to_many_at_once_arrive_whole(self):
        """They are more than the memory a program has for sending."""
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob)
        (nginx.root / "www" / "large").write_bytes(os.urandom(1 << 20) * 4)
        done = cob.run("ab", "-q", "-s", 20, "-n", 300, "-c", 100, f"http://{ADDRESS}:8080/large", kernel=0)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"Complete requests:\s+300")
        self.assertRegex(done.stdout, r"Failed requests:\s+0")
        self.assertRegex(done.stdout, rf"HTML transferred:\s+{300 * (4 << 20)} bytes")

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
        cob = self.cob(kernels=2, environment=CHECKED)
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
        cob = self.cob(kernels=2, environment=CHECKED)
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
        cob = self.cob(kernels=2, environment=CHECKED)
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

    def test_bash_and_perl_scripts(self):
        cob = self.cob(kernels=2, environment=CHECKED)
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


class NginxSignals(harness.CobTest):
    """Reload and binary upgrade under load: no connection is lost that Linux would keep."""

    def load_while(self, cob, act):
        load = cob.start("ab", "-q", "-c", 16, "-n", 200000, "-t", 6, f"http://{ADDRESS}:8080/memory", kernel=0)
        time.sleep(0.7)
        act()
        out, err = load.communicate(timeout=60)
        self.assertEqual(load.returncode, 0, err)
        self.assertRegex(out, r"Failed requests:\s+0")
        self.assertNotIn("Non-2xx", out)

    @needs("nginx", "ab")
    def test_reload(self):
        cob = self.cob(kernels=2)
        nginx = servers.nginx(cob)
        def reload():
            for _ in range(3):
                os.kill(int((nginx.root / "nginx.pid").read_text()), signal.SIGHUP)
                time.sleep(0.5)
        self.load_while(cob, reload)

    @needs("nginx", "ab")
    def test_binary_upgrade(self):
        cob = self.cob(kernels=2)
        # A master that is no daemon ignores USR2 while its parent lives.
        nginx = servers.nginx(cob, daemon="on")
        old = int((nginx.root / "nginx.pid").read_text())
        def upgrade():
            os.kill(old, signal.SIGUSR2)
            harness.wait_until(lambda: (nginx.root / "nginx.pid.oldbin").exists(), what="the new binary")
            time.sleep(0.5)
            os.kill(old, signal.SIGQUIT)
            time.sleep(0.5)
        self.load_while(cob, upgrade)
        harness.wait_until(lambda: not harness.is_alive(old), what="the old master's end")
        got = cob.run("curl", "-sS", "-m", 10, f"http://{ADDRESS}:8080/memory", kernel=0)
        self.assertEqual(got.stdout, "a body from memory\n", got.stderr)


if __name__ == "__main__":
    harness.main()
