#!/usr/bin/env python3
"""Writes the shim's glue from functions.txt: glue.h (pointers to the real functions, prototypes of the own_ functions) and
glue.cc (the exported names, the binding of the pointers, the cases of syscall()).

usage: generate.py functions.txt glue.h glue.cc
"""
import re
import sys
from dataclasses import dataclass, field

LINE = re.compile(
    r"(?P<kind>\w+)(?P<star>\*?)\s+(?P<result>.*?)(?P<name>\w+)\((?P<parameters>.*?)\)"
    r"(?:\s+also\s+(?P<also>[\w ]+?))?(?:\s+call\s+(?P<call>-|\w+))?(?:\s*=\s*(?P<plain>.*))?$"
)
DEPRECATED = ("sigset", "siginterrupt", "getwd", "readdir_r")
DESCRIPTORS = ("fd", "in", "out")


@dataclass
class Function:
    kind: str
    numbers_may_change: bool
    result: str
    name: str
    parameters: list  # of (type, name)
    variadic: str  # "": no; "taken": the last parameter is the variable one; "free": a real ...
    aliases: list = field(default_factory=list)
    call: str = ""
    plain: str = ""

    def prototype(self, name, real=False):
        parts = [f"{t} {n}" for t, n in self.parameters]
        if real and self.variadic == "taken":
            parts[-1] = "..."
        if self.variadic == "free":
            parts.append("...")
        return f"{self.result} {name}({', '.join(parts)})"

    def arguments(self):
        return ", ".join(n for _, n in self.parameters)

    def pointer(self):
        if self.name.startswith("__") or self.name in DEPRECATED:  # no header has it, or only with a warning
            return f"{self.result} (*real_{self.name})({', '.join(t for t, _ in self.parameters)})"
        return f"decltype(&::{self.name}) real_{self.name}"


def parse(path):
    functions = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.split("#")[0].strip()
            if not line:
                continue
            match = LINE.match(line)
            if not match:
                sys.exit(f"{path}:{number}: cannot read: {line}")
            parameters, variadic = [], ""
            for part in filter(None, (p.strip() for p in match["parameters"].split(","))):
                if part == "...":
                    variadic = "free"
                    continue
                if part.endswith("..."):
                    variadic, part = "taken", part[:-3]
                kind, name = re.match(r"(.*?)(\w+)$", part).groups()
                parameters.append((kind.strip(), name))
            functions.append(
                Function(match["kind"], bool(match["star"]), match["result"].strip(), match["name"], parameters,
                         variadic, (match["also"] or "").split(), match["call"] or "", match["plain"] or ""))
    return functions


def body(function):
    name, arguments = function.name, function.arguments()
    if function.kind == "chk":
        needed = "bytes" if "bytes" in arguments else "count * sizeof(pollfd)"
        return [f"  if ({needed} > room) [[unlikely]] __chk_fail();", f"  return glue_{function.plain};"]
    done = "done_numbers" if function.numbers_may_change else "done"
    if function.result == "void" and function.kind == "own":
        return [f"  own_{name}({arguments});", f'  {done}("{name}", 0);']
    if function.result == "void":
        return [f"  if (attached()) cob_{name}({arguments});", f"  else real_{name}({arguments});",
                f'  {done}("{name}", 0);']

    def give(expression):
        return f'return {done}("{name}", {expression});'

    real, cob = f"real_{name}({arguments})", f"cob_{name}({arguments})"
    if function.kind == "own":
        return ["  " + give(f"own_{name}({arguments})")]
    if function.kind == "always":
        return [f"  if (attached()) {give(cob)}", "  " + give(real)]
    if function.kind == "fresh":
        return ["  host_gives_number();", "  " + give(f"fresh({real})")]
    if function.kind == "takes":
        return ["  host_gives_number();", "  " + give(real)]
    if function.kind == "away":
        directory = "directory" if any(n == "directory" for _, n in function.parameters) else "AT_FDCWD"
        return [f"  if (leads_to_share({directory}, path)) [[unlikely]] return not_on_shares();", "  " + give(real)]
    if function.kind == "pair":
        return ["  host_gives_number();", f"  const int result = {real};", "  if (result == 0) {", "    fresh(ends[0]);", "    fresh(ends[1]);",
                "  }", "  " + give("result")]
    numbers = [n for t, n in function.parameters if n in DESCRIPTORS and t == "int"]
    is_cob = " || ".join(f"is_cob({n})" for n in numbers)
    hidden = " || ".join(f"is_hidden({n})" for n in numbers)
    if function.kind == "make":
        real = f"is_made(command) ? fresh({real}) : {real}" if name == "fcntl" else f"fresh({real})"
        makes = "if (is_made(command)) " if name == "fcntl" else ""
        return [f"  if ({is_cob}) {give(cob)}", f"  if ({hidden}) [[unlikely]] return hidden_number();",
                f"  {makes}host_gives_number();", "  " + give(real)]
    if len(numbers) > 1:  # one may be the cob's and the other hidden
        return [f"  if (({is_cob}) && !({hidden})) {give(cob)}", f"  if ({hidden}) [[unlikely]] return hidden_number();", "  " + give(real)]
    return [f"  if ({is_cob}) {give(cob)}", f"  if ({hidden}) [[unlikely]] return hidden_number();", "  " + give(real)]


def glue_header(functions):
    out = ["// Written by generate.py from functions.txt. Do not edit.", "#pragma once", '#include "shim/glue_support.h"', "",
           "namespace cob::shim {", 'extern "C" {']
    for function in functions:
        if function.kind not in ("chk", "hand"):
            allowed = "  // NOLINT(bugprone-unsafe-functions)" if function.name == "vfork" else ""
        out.append(f'extern {function.pointer()} __attribute__((visibility("hidden")));{allowed}')
    out.append("}")
    for function in functions:
        if function.kind == "own":
            out.append(function.prototype("own_" + function.name) + ";")
        if function.variadic != "free":
            out.append(function.prototype("glue_" + function.name) + f' __asm__("{function.name}");')
    out += ["// What syscall(number, ...) does when the number is one of those interposed; false: it is not.",
            "bool interposed_call(long number, long a, long b, long c, long d, long e, long f, long& result);",
            "}  // namespace cob::shim", ""]
    return "\n".join(out)


def glue_source(functions):
    out = ["// Written by generate.py from functions.txt. Do not edit.", '#include "glue.h"', "", "#include <dlfcn.h>",
           "#include <sys/syscall.h>", "", "namespace cob::shim {", ""]
    real = [f for f in functions if f.kind not in ("chk", "hand")]
    out.append("// A real pointer begins at a function that binds them all, so that glue entered early just works.")
    out.append("namespace {")
    for function in real:
        out.append(function.prototype("first_" + function.name, real=True) + " noexcept {")
        if function.variadic == "taken":
            (kind, name), (_, before) = function.parameters[-1], function.parameters[-2]
            promoted = "unsigned" if kind == "mode_t" else kind
            out += ["  va_list list;", f"  va_start(list, {before});", f"  {kind} {name} = va_arg(list, {promoted});",
                    "  va_end(list);"]
        out += ["  resolve_real_functions();", f"  return real_{function.name}({function.arguments()});", "}"]
    out += ["}  // namespace", ""]
    out.append('extern "C" {')
    for function in real:
        out.append(f"{function.pointer()} = first_{function.name};")
    out += ["}", "", "namespace {", "struct Binding {", "  const char* name;", "  void** pointer;", "};",
            "const Binding bindings[] = {"]
    for function in real:
        out.append(f'    {{"{function.name}", reinterpret_cast<void**>(&real_{function.name})}},')
    out += ["};", "}  // namespace", "", "void resolve_real_functions() {",
            "  for (const Binding& binding : bindings) {",
            "    if (void* found = dlsym(RTLD_NEXT, binding.name)) *binding.pointer = found;",
            "  }", "}", "", "// ---- the exported names", ""]
    for function in functions:
        if function.kind == "hand":
            continue
        out.append(f"COB_EXPORT {function.prototype('glue_' + function.name)} {{")
        out += body(function) + ["}"]
        for alias in function.aliases:
            out.append(f'COB_EXPORT {function.prototype("glue_" + alias)} __asm__("{alias}") '
                       f'__attribute__((alias("{function.name}")));')
        out.append("")
    out += ["// ---- syscall(2) by number", "",
            "bool interposed_call(long number, long a, long b, long c, long d, long e, long f, long& result) {",
            "  const long argument[6] = {a, b, c, d, e, f};", "  switch (number) {"]
    for function in functions:
        if function.kind in ("chk", "hand") or function.call == "-" or function.name.startswith("__"):
            continue
        if function.name in ("pselect", "execv", "fexecve", "system", "popen", "_Fork"):
            continue
        number = function.call or "SYS_" + function.name
        casts = ", ".join(f"word_as<{t}>(argument[{i}])" for i, (t, _) in enumerate(function.parameters))
        call = f"glue_{function.name}({casts})"
        if function.result == "void":
            continue
        out += [f"#ifdef {number}", f"    case {number}:", f"      result = static_cast<long>({call});",
                "      return true;", "#endif"]
    out += ["    default:", "      return false;", "  }", "}", "", "}  // namespace cob::shim", ""]
    return "\n".join(out)


def main():
    functions = parse(sys.argv[1])
    for path, text in ((sys.argv[2], glue_header(functions)), (sys.argv[3], glue_source(functions))):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
