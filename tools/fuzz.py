#!/usr/bin/env python3
"""Fuzzes with libFuzzer: tools/fuzz.py TARGET [SECONDS] [--keep]. Starts from src/**/TARGET.corpus (an input a line, in
hexadecimal); --keep writes back what the run found, reduced to what each input adds. Build first:
cmake --preset fuzz && cmake --build build-fuzz --target TARGET"""
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LONGEST = 400  # bytes an input


def main():
    arguments = [a for a in sys.argv[1:] if a != "--keep"]
    if not arguments:
        return __doc__
    target, seconds = arguments[0], arguments[1] if len(arguments) > 1 else "60"
    source = next(ROOT.glob(f"src/**/{target}.cc"))
    binary, text = ROOT / "build-fuzz" / "fuzz" / target, source.with_suffix(".corpus")
    with tempfile.TemporaryDirectory() as folder:
        found, least = pathlib.Path(folder, "found"), pathlib.Path(folder, "least")
        found.mkdir(), least.mkdir()
        lines = text.read_text().splitlines() if text.exists() else []
        for number, line in enumerate(line for line in lines if line and not line.startswith("#")):
            (found / str(number)).write_bytes(bytes.fromhex(line))
        done = subprocess.run([binary, f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-len_control=0", found])
        if "--keep" not in sys.argv:
            return done.returncode
        subprocess.run([binary, "-set_cover_merge=1", f"-max_len={LONGEST}", least, found], check=True)
        inputs = sorted((p.read_bytes().hex() for p in least.iterdir()), key=lambda h: (len(h), h))
        text.write_text(f"# Inputs of {target}, a line each, in hexadecimal; tools/fuzz.py.\n"
                        + "".join(h + "\n" for h in inputs if h))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
