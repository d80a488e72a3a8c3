#!/usr/bin/env python3
"""The folders' arrows: every `#include "folder/..."` must follow a dependency that the folder's CMakeLists.txt declares
(directly or through another), and the declarations must stay within the design's table below (docs/ARCHITECTURE.md)."""
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"

# Who may know whom, directly; what these know is included. `call` uses base's header-only part alone.
DESIGN = {
    "base": [],
    "message": ["base"],
    "call": ["base"],
    "descriptor": ["message"],
    "net/wire": ["base"],
    "net/snap_bean": ["net/wire", "message"],
    "net/stack": ["net/snap_bean"],
    "net/angel": ["net/stack"],
    "net": ["descriptor", "message"],
    "fs": ["descriptor", "message"],
    "kernel": ["call", "net/stack", "net/angel", "fs", "descriptor"],
    "migrate": ["kernel"],
    "offload": ["message"],
    "shim": ["call"],
    "mount": ["call"],
    "island": ["call", "kernel", "message"],
}
SEES_ALL = {"cli", "sim"}
# Headers that tell a layout to everyone: the board is read by tools, the control messages by the supervisor.
FOLDERS = sorted({str(p.parent.relative_to(SOURCE)) for p in SOURCE.rglob("*") if p.suffix in (".h", ".cc", ".c")})


def closure(start, edges):
    seen, todo = set(), [start]
    while todo:
        folder = todo.pop()
        if folder not in seen:
            seen.add(folder)
            todo.extend(edges.get(folder, []))
    return seen


def top(folder):
    """The folder with a declaration that `folder` belongs to (a folder's own subfolders share it)."""
    while folder not in DESIGN and folder not in SEES_ALL and "/" in folder:
        folder = folder.rsplit("/", 1)[0]
    return folder


def folder_of_target(target):
    name = target.removeprefix("cob_")
    return next((f for f in FOLDERS if f == name or f.endswith("/" + name)), None)


def declared():
    """folder -> folders that its CMakeLists.txt links (None: its targets are not made by cob_library)."""
    edges = {}
    for folder in FOLDERS:
        lists = SOURCE / folder / "CMakeLists.txt"
        if not lists.exists():
            continue
        call = re.search(r"cob_library\((\w+)(?:\s+DEPS\s+([^)]*))?\)", lists.read_text())
        if call:
            targets = [t for t in (call.group(2) or "").split() if t.startswith("cob_")]
            edges[folder] = [f for f in map(folder_of_target, targets) if f]
        else:
            edges[folder] = DESIGN.get(folder, [])
    return edges


def includes():
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix not in (".h", ".cc", ".c"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if found:
                yield path, number, found.group(1)


class ArrowsTest(unittest.TestCase):
    def test_every_folder_is_in_the_design(self):
        unknown = [f for f in FOLDERS if top(f) not in DESIGN and top(f) not in SEES_ALL]
        self.assertEqual(unknown, [], "folders that the design's table does not know")

    def test_declarations_stay_within_the_design(self):
        wrong = []
        for folder, targets in declared().items():
            if top(folder) in SEES_ALL:
                continue
            allowed = closure(folder, DESIGN)
            wrong += [f"{folder} -> {t}" for t in targets if t not in allowed]
        self.assertEqual(wrong, [])

    def test_no_circles(self):
        edges = declared()
        self.assertEqual([f for f in edges if any(f in closure(t, edges) for t in edges[f])], [])

    def test_includes_follow_declarations(self):
        edges = declared()
        wrong = []
        for path, number, header in includes():
            folder = top(str(path.parent.relative_to(SOURCE)))
            target = top(str(pathlib.PurePath(header).parent))
            if not (SOURCE / header).exists() or folder in SEES_ALL or target == folder:
                continue
            allowed = closure(folder, edges)
            if re.search(r"_(test|fuzz|bench)\.cc$", path.name) or re.search(r"target_link_libraries\(\w+_test PRIVATE[^)]*cob_sim",
                                                                             (path.parent / "CMakeLists.txt").read_text()
                                                                             if (path.parent / "CMakeLists.txt").exists() else ""):
                allowed = allowed | {"sim"}
            if target not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {folder} may not know {target} ({header})")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_shim_knows_no_standard_library_objects(self):
        """libcob.so is linked without libstdc++; these headers would need it."""
        heavy = re.compile(r"\s*#\s*include\s+<(string|vector|map|unordered_map|iostream|functional|memory|thread|mutex|fmt/.*)>")
        wrong = [f"{p.relative_to(ROOT)}:{n}" for p in (SOURCE / "shim").glob("*.[hc]*") if not re.search(r"_test\.|^fake_", p.name)
                 for n, line in enumerate(p.read_text().splitlines(), 1) if heavy.match(line)]
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
