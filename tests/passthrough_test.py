"""libcob.so preloaded into programs that belong to no cob changes nothing: the programs of tests/programs and common tools pass; and
the library exports what functions.txt lists and nothing else."""
import importlib.util
import os
import shutil
import subprocess
import unittest

import harness

LIBRARY = harness.BUILD / "libcob.so"
SHIM = harness.ROOT / "src" / "shim"
TOOLS = {
    "bash": "echo a | cat; (exit 3); echo $?; exec 5</etc/passwd; read x <&5; echo $x; kill -0 $$; wait; echo ${x:0:4}",
    "perl": 'print `echo sub`; open(F,"-|","echo pipe"); print <F>; print system("exit 4") >> 8, "\\n"; $SIG{ALRM}=sub{print "alarm\\n"};'
            'kill ALRM => $$; print "end\\n"',
    "python3": "import subprocess, socket, os, signal, threading\n"
               "print(subprocess.check_output(['echo', 'sub']), os.popen('echo p').read(), os.system('exit 3'))\n"
               "a, b = socket.socketpair(); a.send(b'x'); print(b.recv(5)); print(os.spawnvp(os.P_WAIT, 'true', ['true']))\n"
               "l = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname()); d, _ = l.accept()\n"
               "c.sendall(b'over tcp'); print(d.recv(20)); t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n",
    "git": None,
}


def generator():
    spec = importlib.util.spec_from_file_location("generate", SHIM / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Passthrough(unittest.TestCase):
    def preloaded(self, words, **environment):
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=120, env={**os.environ, **environment}, cwd=harness.ROOT)

    def test_programs(self):
        for program in sorted((harness.BUILD / "programs").iterdir()):
            if program.is_file():
                with self.subTest(program.name):
                    done = self.preloaded([str(program)], LD_PRELOAD=str(LIBRARY))
                    self.assertEqual(done.returncode, 0, done.stdout)

    def test_tools(self):
        for tool, script in TOOLS.items():
            if shutil.which(tool) is None:
                continue
            words = [tool, "--version"] if script is None else [tool, "-e" if tool == "perl" else "-c", script]
            with self.subTest(tool):
                plain, preloaded = self.preloaded(words), self.preloaded(words, LD_PRELOAD=str(LIBRARY))
                self.assertEqual((plain.returncode, plain.stdout), (preloaded.returncode, preloaded.stdout))

    def test_exports(self):
        wanted = {"cob_nothing"}  # a call to measure, for `cob bench calls`
        wanted |= {"cob_ask_as", "cob_opened_status"}  # src/call/ask_as.h
        for function in generator().parse(SHIM / "functions.txt"):
            wanted.update([function.name, *function.aliases])
        symbols = subprocess.run(["nm", "-D", "--defined-only", str(LIBRARY)], stdout=subprocess.PIPE, text=True, check=True)
        exported = {line.split()[-1] for line in symbols.stdout.splitlines()}
        self.assertEqual(exported, wanted)


if __name__ == "__main__":
    harness.main()
