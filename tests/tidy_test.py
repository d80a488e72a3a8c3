#!/usr/bin/env python3
"""clang-tidy-19 finds nothing in the sources, by .clang-tidy. A file is looked at again only when it, a header that it
includes, its compile command or the checks changed, in any checkout on this machine: stamps of what was clean lie in
the user's cache (XDG_CACHE_HOME, ~/.cache), and go after a month without use. Arguments: files to look at instead of all; --minutes N: files whose turn has not come by then are left to the next run, and named; --thorough: with the costly checks, which take ten times as long and have findings that
need a reader (`make tidy`)."""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("COB_BUILD", ROOT / "build")).resolve()
PEERS = (ROOT / "bench" / "peers", ROOT / "bench" / "offload")
TIDY = "clang-tidy-19"
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
THOROUGH = ["--checks=clang-analyzer-*,-clang-analyzer-optin.performance.Padding,performance-unnecessary-value-param"]
# Its library's headers are no C++20 for clang: comparisons that g++ takes are ambiguous.
NOT_FOR_CLANG = {PEERS[0] / "capnproto.cc"}
# What g++ is told and clang does not know.
NOT_CLANGS = re.compile(r" -mmem(?:set|cpy)-strategy=\S+")
DATABASE = BUILD / "tidy"
STAMPS = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cob-tidy"
MONTH = 30 * 24 * 3600
JOBS = min(2, os.cpu_count() or 1)


def sources():
    files = sorted(p for top in ("src", "bench") for p in (ROOT / top).rglob("*.cc"))
    return [p for p in files if not re.search(r"_(test|fuzz)\.cc$", p.name) and p not in NOT_FOR_CLANG]


def commands():
    """The compile command of each source file, as clang shall see it; all of them as a database of clang's."""
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    for entry in entries:
        entry["command"] = NOT_CLANGS.sub("", entry["command"])
    DATABASE.mkdir(exist_ok=True)
    (DATABASE / "compile_commands.json").write_text(json.dumps(entries))
    return {pathlib.Path(e["file"]): e["command"] for e in entries}


def with_headers(path, seen):
    """`path` and the headers of the tree that it includes, into `seen`."""
    if path in seen:
        return
    seen[path] = content = path.read_bytes()
    for name in INCLUDE.findall(content):
        for base in (path.parent, ROOT / "src", ROOT, BUILD / "src" / "shim"):
            header = base / name.decode()
            if header.is_file():
                with_headers(header.resolve(), seen)
                break


def digest(path, command, common):
    seen = {}
    with_headers(path, seen)
    here = lambda text: str(text).replace(str(BUILD), "BUILD").replace(str(ROOT), "ROOT").encode()
    total = hashlib.sha256(common + here(command))
    for each in sorted(seen):
        total.update(here(each) + b"\0" + seen[each])
    return total.hexdigest()


def forget_old():
    STAMPS.mkdir(parents=True, exist_ok=True)
    for stamp in STAMPS.iterdir():
        if time.time() - stamp.stat().st_mtime > MONTH:
            stamp.unlink(missing_ok=True)


LATE = (0, None)


def check(path, command, common, extra, end):
    """None: clean before; LATE: not looked at; else (exit status, output)."""
    stamp = STAMPS / digest(path, command, common + " ".join(extra).encode())
    if stamp.is_file():
        stamp.touch()
        return None
    if time.monotonic() > end:
        return LATE
    done = subprocess.run([TIDY, "-p", str(DATABASE), "--quiet", *extra, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True)
    if done.returncode == 0:
        stamp.touch()
    return done.returncode, done.stdout


def main():
    if shutil.which(TIDY) is None:
        print(f"SKIPPED style.tidy: {TIDY} is not installed (tools/packages.txt)")
        return 77
    known = commands()
    forget_old()
    words = argparse.ArgumentParser()
    words.add_argument("--thorough", action="store_true")
    words.add_argument("--minutes", type=float, default=float("inf"))
    words.add_argument("files", nargs="*")
    words = words.parse_args()
    extra = THOROUGH if words.thorough else []
    end = time.monotonic() + words.minutes * 60
    files = [pathlib.Path(a).resolve() for a in words.files] or sources()
    # A peer is compiled only where its package is installed: elsewhere its headers are missing.
    absent = [p for p in files if p not in known and p.parent in PEERS]
    for path in absent:
        print(f"SKIPPED {path.relative_to(ROOT)}: its package is not installed (tools/packages-peers.txt)")
    files = [p for p in files if p not in absent]
    version = subprocess.run([TIDY, "--version"], stdout=subprocess.PIPE).stdout
    common = version + (ROOT / ".clang-tidy").read_bytes()
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(lambda p: check(p, known.get(p, ""), common, extra, end), files))
    bad, told = 0, set()
    for result in results:
        if result is None or result[0] == 0:
            continue
        bad += 1
        # A finding in a header comes with every file that includes it: told once.
        for finding in re.split(r"^(?=\S+:\d+:\d+: (?:error|warning):)", result[1], flags=re.MULTILINE):
            if finding not in told:
                print(finding.replace(str(ROOT) + "/", ""), end="")
                told.add(finding)
    late = [p for p, result in zip(files, results) if result is LATE]
    for path in late:
        print(f"NOT LOOKED AT, for want of time: {path.relative_to(ROOT)}")
    unknown = [p for p in files if p not in known]
    for path in unknown:
        print(f"not built, so not checked as it is compiled: {path.relative_to(ROOT)}")
    looked = sum(r is not None and r is not LATE for r in results)
    print(f"{len(files)} files, {looked} looked at, {bad} with findings, {len(absent)} skipped, {len(late)} left to the next run")
    return 1 if bad or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
