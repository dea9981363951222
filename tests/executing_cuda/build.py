"""Build the executing CUDA: `python -m executing_cuda.build FOLDER`, in the environment that holds CuPy.

It takes CuPy's wheel, NVIDIA's headers and NVRTC as they are installed, and CuPy's source distribution of the same
version from pip. FOLDER then holds the libraries, the rebuilt module of CuPy's, and later the code of each CUDA text.
Exit status: 0 if it is built, 3 if there is no C++ compiler or pip cannot fetch the source, 1 if something else fails.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from . import HERE, RUNTIME
from .host import prepare

WHEEL, LIBS = "cupy-cuda13x", "cupy_backends/cuda/libs"
CONSTANTS = (
    "CUPY_USE_CUDA_PYTHON=False",
    "CUPY_CUDA_VERSION=13020",
    "CUPY_HIP_VERSION=0",
    "CUPY_CUFFT_STATIC=False",
    f"CUPY_CYTHON_VERSION={importlib.metadata.version('cython')}",
)
COMPILER = ("g++", "-shared", "-fPIC", "-std=c++17", "-w")
NOT_SUPPORTED = {"libcuda.so.1": 801, "libcublas.so.13": 15}
PROFILER = 'extern "C" { int cudaProfilerStart(void); int cudaProfilerStop(void); }'  # all that its header is for
CHILD = """\
import sys
from pathlib import Path

sys.path.append({tests!r})
from executing_cuda import activate

activate(Path({folder!r}))
"""  # a child process finds it on its PYTHONPATH


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the executing CUDA.")
    parser.add_argument("folder", type=Path, help="where it is to lie; made where it is missing")
    parser.add_argument("--source", type=Path, help="CuPy's source distribution; pip fetches it otherwise")
    options = parser.parse_args()
    if shutil.which("g++") is None:
        _stop("there is no C++ compiler, g++", 3)
    build(options.folder.resolve(), options.source)


def build(folder: Path, source: Path | None = None) -> None:
    """Build the libraries and the module into a folder; a module that lies there is taken as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = importlib.metadata.distribution("nvidia-cuda-runtime").locate_file("nvidia/cu13/include")
    (cublas,) = Path(str(importlib.metadata.distribution(WHEEL).locate_file(LIBS))).glob("cublas.*")
    runtime = folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    driver = folder / "libcuda.so.1"
    link = [f"-L{folder}", f"-l:{driver.name}", "-Wl,-rpath,$ORIGIN"]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        _library(work, driver, "driver.cpp", set(), [f"-I{headers}", "-ldl"])
        if not runtime.exists():
            text = _runtime_source(work, source or _fetch(work))
            (text.parent / "cuda_profiler_api.h").write_text(PROFILER, encoding="utf-8")
            python, tree = sysconfig.get_paths()["include"], text.parents[3]
            includes = [headers, python, np.get_include(), tree, tree / "cupy_backends", text.parent]
            _run([*COMPILER, "-O1", *(f"-I{path}" for path in includes), "-o", str(runtime), str(text), *link])
        _library(work, driver, "driver.cpp", _symbols(runtime, "U", "cuda"), [f"-I{headers}", "-ldl"])
        _library(work, folder / "libcublas.so.13", "cublas.cpp", _symbols(cublas, "U", "cublas"), ["-O3", *link])
        _library(work, folder / "libcublasLt.so.13", None, set(), [])  # CuPy asks that it is there
    prepare(folder)
    children = folder / "children" / "sitecustomize.py"
    children.parent.mkdir(exist_ok=True)
    children.write_text(CHILD.format(tests=str(HERE.parent), folder=str(folder)), encoding="utf-8")
    print(f"built in {folder}")


def _fetch(work: Path) -> Path:
    """Fetch CuPy's source distribution of the version that is installed; CuPy calls building without CUDA a stub."""
    version = importlib.metadata.version(WHEEL)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "cupy"]
    command += ["--no-build-isolation", "--dest", str(work), f"cupy=={version}"]
    _run(command, status=3, env={**os.environ, "CUPY_INSTALL_USE_STUB": "1"})
    return work / f"cupy-{version}.tar.gz"


def _runtime_source(work: Path, archive: Path) -> Path:
    """Translate the module to C++ with the constants that CuPy's own build gives it."""
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    (tree,) = [path for path in work.iterdir() if path.is_dir() and path.name.startswith("cupy-")]
    module = f"{RUNTIME.replace('.', '/')}.pyx"
    command = [sys.executable, "-m", "cython", "--cplus", "-3", "-X", "freethreading_compatible=True"]
    _run([*command, "-E", ",".join(CONSTANTS), module], cwd=tree)
    return (tree / module).with_suffix(".cpp")


def _library(work: Path, out: Path, source: str | None, needed: set[str], more: list[str]) -> None:
    """Compile a library. needed: functions of it that are linked; those it lacks return the status "not supported"."""
    stubs, versions = work / "stubs.cpp", work / "versions"
    stubs.write_text("", encoding="utf-8")
    versions.write_text(f"{out.name} {{ global: *; }};", encoding="utf-8")
    link = [f"-Wl,-soname,{out.name}", f"-Wl,--version-script,{versions}", "-o", str(out)]
    command = [*COMPILER, "-O2", *link, str(stubs), *([str(HERE / source)] if source else [])]
    _run([*command, *more])
    if missing := needed - _symbols(out, "T", ""):
        lines = [f'extern "C" int {name}() {{ return {NOT_SUPPORTED[out.name]}; }}\n' for name in sorted(missing)]
        stubs.write_text("".join(lines), encoding="utf-8")
        _run([*command, *more])


def _symbols(library: Path, kind: str, prefix: str) -> set[str]:
    """Return the names that a library defines, kind "T", or needs, kind "U"."""
    return set(re.findall(rf" {kind} ({prefix}\w+)(?:@|$)", _run(["nm", "-D", str(library)]), re.MULTILINE))


def _run(command: list[str], status: int = 1, **how: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **how)
    if done.returncode:
        _stop(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}", status)
    return done.stdout


def _stop(reason: str, status: int) -> NoReturn:
    print(reason, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
