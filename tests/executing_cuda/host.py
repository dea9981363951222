"""A CUDA text as a library of the host: compiled unchanged, with its kernels as the driver looks for them."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(')
# -fsanitize=thread: each access calls a function, which is the driver's; without default libraries it is not linked.
FLAGS = ("-shared", "-fPIC", "-std=c++17", "-w", "-O0", "-ffp-contract=off", "-fno-strict-aliasing")
INSTRUMENT = ("-fsanitize=thread", "--param", "tsan-distinguish-volatile=0", "-nodefaultlibs")


def library_of(text: str, options: tuple[str, ...], folder: Path) -> Path:
    """Compile a text, unless the folder holds its library already; returns the library's path."""
    source = f'#include "{HERE / "device.h"}"\n{text}\n' + "".join(_entries(text))
    includes = [option for option in options if option.startswith("-I") and "cupy" in option]  # not NVIDIA's
    flags = [*FLAGS, *INSTRUMENT, *includes]
    version = b"".join((HERE / name).read_bytes() for name in ("device.h", "launch.h"))
    key = hashlib.sha256(version + repr((source, flags)).encode()).hexdigest()[:32]
    library = folder / "libraries" / f"{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(exist_ok=True)
    path, partial = library.with_suffix(".cpp"), library.with_suffix(f".{os.getpid()}.so")
    path.write_text(source, encoding="utf-8")
    command = ["g++", *flags, "-o", str(partial), str(path), "-lstdc++", "-lm", "-lc", "-lgcc"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the C++ compiler refuses {path}:\n{done.stderr[:3000]}")
    partial.replace(library)
    return library


def _entries(text: str) -> list[str]:
    waits = "true" if "__syncthreads" in text else "false"
    return [
        f'extern "C" {{ extern const executing::Entry executing_kernel_{name}; '
        f"const executing::Entry executing_kernel_{name} = executing::Kernel<&{name}, {waits}>::entry; }}\n"
        for name in KERNEL.findall(text)
    ]
