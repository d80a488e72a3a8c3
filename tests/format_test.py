#!/usr/bin/env python3
"""Every C++ file is as clang-format-19 leaves it. To repair: tests/format_test.py --fix"""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = sorted(str(p) for top in ("src", "bench", "tests", "examples") for p in (ROOT / top).rglob("*") if p.suffix in (".h", ".cc", ".c"))


def main():
    if "--fix" in sys.argv:
        return subprocess.run(["clang-format-19", "-i", *FILES]).returncode
    done = subprocess.run(["clang-format-19", "--dry-run", "-Werror", *FILES], stderr=subprocess.PIPE, text=True)
    wrong = sorted({line.split(":", 1)[0] for line in done.stderr.splitlines() if ": error:" in line})
    for path in wrong:
        print(f"not formatted: {pathlib.Path(path).relative_to(ROOT)}")
    print(f"{len(FILES)} files, {len(wrong)} not formatted" + ("; repair: tests/format_test.py --fix" if wrong else ""))
    return 1 if done.returncode or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
