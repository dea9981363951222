"""Run generated CUDA text on the CPU: compiled, unchanged, by the C++ compiler, with one thread after the other.

What the text takes from CUDA (`__global__`, `threadIdx`, ...) is defined before it; loops over blocks and threads are
added behind it. The order of the threads must not matter; those of a block that wait for each other are fibers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

# What CuPy 14.2 gives NVRTC with a text of xpnet's, beside the architecture and the folders of headers.
NVRTC_OPTIONS = ("--fmad=false", "--std=c++17", "-ftz=true", "--device-as-default-execution-space")
_BEFORE = """\
extern "C" {  // of <math.h>, whose reading takes half of the time
  float fabsf(float); float sqrtf(float); float expf(float); float logf(float); float log1pf(float); float tanhf(float);
  double fabs(double); double sqrt(double); double exp(double); double log(double); double log1p(double);
  double tanh(double);
}
#define __global__
#define __device__
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(2) uchar2 { unsigned char x, y; };
struct Dimension { unsigned int x; };
static Dimension threadIdx, blockIdx, blockDim;
"""
# For texts whose threads wait for each other.
_WAITING = f"""\
#include "{Path(__file__).parent / "executing_cuda" / "fibers.h"}"
#define __shared__ static
static void __syncthreads() {{ fibers::wait(fibers::WAITS_FOR_BLOCK); }}
"""
_BEHIND_WAITING = """\
static struct {{ {fields} }} given_{name};
static void work_{name}() {{ {name}({given}); }}
extern "C" void host_{name}(int stride_, int blocks_, int threads_, {parameters}) {{
  blockDim.x = threads_;
  given_{name} = {{ {arguments} }};
  for (long long k_ = 0; k_ < blocks_; ++k_) {{
    blockIdx.x = (k_ * stride_ % blocks_ + blocks_) % blocks_;
    fibers::begin(threads_, work_{name});
    auto turn_of = [&](long long k) {{ return (k * stride_ % threads_ + threads_) % threads_; }};
    if (!fibers::run(threads_, fibers::all, turn_of, [](long long i) {{ threadIdx.x = i; }}, [] {{}})) abort();
  }}
}}
"""
_BEHIND = """\
extern "C" void host_{name}(int stride_, int blocks_, int threads_, {parameters}) {{
  const long long all_ = (long long)blocks_ * threads_;
  blockDim.x = threads_;
  for (long long k_ = 0; k_ < all_; ++k_) {{
    const long long thread_ = (k_ * stride_ % all_ + all_) % all_;
    blockIdx.x = thread_ / threads_;
    threadIdx.x = thread_ % threads_;
    {name}({arguments});
  }}
}}
"""
_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
_SCALARS = {
    "int": ctypes.c_int32,
    "unsigned int": ctypes.c_uint32,
    "long long": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


def compiler() -> str | None:
    """The C++ compiler, or None."""
    return shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")


def parameters(text: str) -> dict[str, list[tuple[str, str]]]:
    """(type, name) of each parameter of each kernel of a text; a pointer's type ends in "*"."""
    found = {}
    for name, listed in _KERNEL.findall(text):
        found[name] = [tuple(item.removeprefix("const ").rsplit(" ", 1)) for item in listed.split(", ")]
    return found  # type: ignore[return-value]


def plain_type(text: str, kind: str) -> str:
    """The type that a name such as `real` stands for in a text."""
    match = re.search(rf"typedef ([\w ]+) {kind};", text)
    return match.group(1) if match else kind


@functools.cache
def c_types(text: str, name: str) -> list[Any]:
    """The types of a kernel's parameters, of ctypes."""
    kinds = [kind for kind, _ in parameters(text)[name]]
    return [ctypes.c_void_p if kind.endswith("*") else _SCALARS[plain_type(text, kind)] for kind in kinds]


@functools.cache
def load(text: str) -> ctypes.CDLL:
    """Compile a text and load it; each of its kernels NAME is there as host_NAME(stride, blocks, threads, ...)."""
    path = compiler()
    assert path is not None, "there is no C++ compiler; ask `compiler()` first"
    names = {kernel: ", ".join(name for _, name in listed) for kernel, listed in parameters(text).items()}
    before, behind = (_BEFORE + _WAITING, _BEHIND_WAITING) if "__syncthreads" in text else (_BEFORE, _BEHIND)
    wrappers = [
        behind.format(
            name=kernel,
            parameters=listed,
            arguments=names[kernel],
            fields=" ".join(f"{item if '*' in item else item.removeprefix('const ')};" for item in listed.split(", ")),
            given=", ".join(f"given_{kernel}.{name}" for name in names[kernel].split(", ")),
        )
        for kernel, listed in _KERNEL.findall(text)
    ]
    folder = Path(_folder().name)
    stem = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    stem.with_suffix(".cpp").write_text(before + text + "".join(wrappers), encoding="utf-8")
    command = [path, "-shared", "-fPIC", "-O0", "-w", "-std=c++14", "-o", f"{stem}.so", f"{stem}.cpp"]
    command += ["-nostdlib", "-lm", "-lgcc"]  # the standard library of C++ alone takes half of the time
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the C++ compiler refuses the generated text:\n{done.stderr}")
    return ctypes.CDLL(f"{stem}.so")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="hostcuda")  # gone when the process ends


def call(text: str, name: str, blocks: int, threads: int, values: list[Any], stride: int = 1) -> None:
    """Run a kernel.  values: addresses and numbers, in order.

    stride: from a thread to the next that runs, modulo their number: 1 is their order, -1 the first and then the last
    one backwards, a large prime a shuffle across blocks.
    """
    function = load(text)[f"host_{name}"]
    arguments = [kind(value) for kind, value in zip(c_types(text, name), values, strict=True)]
    function(ctypes.c_int(stride), ctypes.c_int(blocks), ctypes.c_int(threads), *arguments)
