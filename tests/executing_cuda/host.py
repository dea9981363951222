"""A CUDA text as a library of the host: compiled unchanged, with its kernels as the driver looks for them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import HERE

HEADERS = ("device.h", "fibers.h", "launch.h")
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
# -fsanitize=thread: each access calls a function, which is the driver's; without default libraries it is not linked.
FLAGS = ("-fPIC", "-std=c++17", "-w", "-O0", "-ffp-contract=off", "-fno-strict-aliasing", "-fsanitize=thread")
LINK = ("-shared", "-nodefaultlibs", "-lstdc++", "-lm", "-lc", "-lgcc")


def library_of(text: str, options: tuple[str, ...], folder: Path) -> Path:
    """Compile a text, unless the folder holds its library already; returns the library's path."""
    source = f'#include "{folder / "device.h"}"\n{text}\n' + "".join(_entries(text))
    includes = [option for option in options if option.startswith("-I") and "cupy" in option]  # not NVIDIA's
    flags = [*FLAGS, *includes]
    key = hashlib.sha256(repr((source, flags)).encode()).hexdigest()[:32]
    library = folder / "libraries" / f"{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(exist_ok=True)
    path, partial = library.with_suffix(".cpp"), library.with_suffix(f".{os.getpid()}.so")
    path.write_text(source, encoding="utf-8")
    command = ["g++", *flags, "-o", str(partial), str(path), *LINK]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the C++ compiler refuses {path}:\n{done.stderr[:3000]}")
    partial.replace(library)
    return library


def prepare(folder: Path) -> None:
    """Lay the headers into a folder, the first one compiled: that is half of a text's time."""
    for kept in ("cache", "libraries"):  # of other headers
        shutil.rmtree(folder / kept, ignore_errors=True)
    for name in HEADERS:
        (folder / name).write_bytes((HERE / name).read_bytes())
    header = folder / HEADERS[0]
    subprocess.run(["g++", *FLAGS, str(header), "-o", f"{header}.gch"], check=True)


# A kernel's entry. The fields are as the parameters are said, with their const, as they are filled once.
ENTRY = """
namespace executing_{name} {{
struct Given {{ {fields} }};
void* pack(void** from) {{ return new Given{{{packed}}}; }}
int foreign(void* packed) {{
  Given& g = *(Given*)packed;
  const bool found[] = {{{foreign}}};
  for (int i = 0; i < {n}; i++) if (found[i]) return i;
  return -1;
}}
void drop(void* packed) {{ delete (Given*)packed; }}
void call(void* packed) {{ Given& g = *(Given*)packed; {name}({passed}); }}
}}
extern "C" {{
extern const executing::Entry executing_kernel_{name};
const executing::Entry executing_kernel_{name} = {{
  executing_{name}::pack, executing_{name}::foreign, executing_{name}::drop, executing_{name}::call, executing::run,
  {waits}, executing::__start_of_the_block, executing::__stop_of_the_block}};
}}
"""


def _entries(text: str) -> list[str]:
    waits = "true" if "__syncthreads" in text or "grid_barrier" in text else "false"
    entries = []
    for found in KERNEL.finditer(text):
        given = [parameter.rsplit(None, 1) for parameter in parameters(text[found.end() :])]
        kinds = [kind + "*" * name.count("*") for kind, name in given]
        names = [name.strip("*") for _, name in given]
        entries.append(
            ENTRY.format(
                name=found[1],
                n=len(names),
                fields=" ".join(f"{kind} {name};" for kind, name in zip(kinds, names, strict=True)),
                packed=", ".join(f"*({kind}*)from[{i}]" for i, kind in enumerate(kinds)),
                foreign=", ".join([*(f"executing::is_foreign(g.{name})" for name in names), "false"]),
                passed=", ".join(f"g.{name}" for name in names),
                waits=waits,
            )
        )
    return entries


def parameters(text: str) -> list[str]:
    """Return the parameters that a text begins with, up to the parenthesis that closes them."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "(<[") - (character in ")>]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [parameter.strip() for parameter in found if parameter.strip()]
