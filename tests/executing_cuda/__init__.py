"""The executing CUDA: real CuPy on a machine without a GPU.

CuPy's own compiled code runs unchanged on a driver, a runtime and a cuBLAS over host memory; the one module that links
NVIDIA's runtime statically is rebuilt. NVRTC compiles each CUDA text, xpnet's and CuPy's own, with CuPy's options, and
the C++ compiler makes of it what runs. It cannot tell times, cuBLAS's rounding and choices, what CUB does, nor what
happens at once on a device.

`python -m executing_cuda.build FOLDER`, in tests/ and with the extra gpu-check, builds it; `activate(FOLDER)`, before
CuPy is imported, lets a process use it. `XPNET_EXECUTING_CUDA=FOLDER pytest -m gpu` runs the tests of a GPU on it.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
RUNTIME, COMPILER = "cupy_backends.cuda.api.runtime", "cupy.cuda.compiler"


def active() -> Driver | None:
    """Make this process use the executing CUDA if the environment variable XPNET_EXECUTING_CUDA names its folder."""
    folder = os.environ.get("XPNET_EXECUTING_CUDA")
    return activate(Path(folder)) if folder else None


@cache
def activate(folder: Path) -> Driver:
    """Make this process and its children use the executing CUDA that lies in a folder, in the place of any GPU."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("cupy", "cupy_backends")]
    if loaded:
        raise RuntimeError(f"the executing CUDA comes before CuPy, of which {loaded[0]} is imported already")
    os.environ["CUDA_PATH"] = str(importlib.metadata.distribution("nvidia-cuda-runtime").locate_file("nvidia/cu13"))
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB carries a runtime of its own
    os.environ["CUPY_CACHE_DIR"] = str(folder / "cache")
    os.environ["XPNET_EXECUTING_CUDA"] = str(folder)
    paths = [str(folder / "children"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    driver = Driver(ctypes.CDLL(str(folder / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL))
    for name in ("libcublasLt.so.13", "libcublas.so.13"):  # found by their names, as what is loaded already
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    sys.meta_path.insert(0, _Finder(folder))
    return driver


class Driver:
    """The driver's switches and counts.

    late: nothing runs before something waits for it.  flush_denormals: as CuPy's option -ftz=true does.
    order: in which blocks and threads run: 1 as numbered, -1 backwards, a large prime shuffled.
    race: whether each access is held against those of other threads of the launch.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name in ("executing_setting", "executing_counted"):
            getattr(library, name).restype = ctypes.c_longlong

    def __getattr__(self, name: str) -> int:
        """How often something was asked: launches, products, uploads, reads, copies, allocations, races, ..."""
        return self._library.executing_counted(name.encode())

    @contextmanager
    def switched(self, **settings: int) -> Iterator[None]:
        """Set switches for a block; what was asked before runs under the old ones."""
        self._library.cudaDeviceSynchronize()
        before = {name: self._library.executing_setting(name.encode()) for name in settings}
        self._set(settings)
        try:
            yield
            self._library.cudaDeviceSynchronize()
        finally:
            self._set(before)

    def _set(self, settings: dict[str, int]) -> None:
        for name, value in settings.items():
            self._library.executing_set(name.encode(), ctypes.c_longlong(int(value)))

    def complaints(self) -> str:
        """Run what was asked; return and forget what CUDA would not have done, or not always, a line each."""
        self._library.cudaDeviceSynchronize()
        text = ctypes.create_string_buffer(1 << 13)
        self._library.executing_complaints(text, ctypes.c_size_t(len(text)))
        return text.value.decode().strip()


class _Finder:
    """Finds CuPy's rebuilt module in the folder, and adds the C++ compiler to CuPy's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name == RUNTIME:
            file = self._folder / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
            return importlib.util.spec_from_file_location(name, file)
        if name == COMPILER:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            if spec is not None:
                spec.loader = _Compiler(name, spec.origin, self._folder)
            return spec
        return None


class _Compiler(importlib.machinery.SourceFileLoader):
    """CuPy's compiler: after NVRTC has taken a text, the C++ compiler makes what runs."""

    def __init__(self, name: str, path: str, folder: Path) -> None:
        super().__init__(name, path)
        self._folder = folder

    def exec_module(self, module: ModuleType) -> None:
        from .host import library_of

        super().exec_module(module)
        folder, compile_by_nvrtc = self._folder, module._NVRTCProgram.compile

        def compile_twice(program: Any, options: tuple[str, ...] = (), log_stream: Any = None) -> Any:
            made, mapping = compile_by_nvrtc(program, options, log_stream)
            if program.method != "cubin":
                return made, mapping
            return b"executing CUDA:" + library_of(program.src, options, folder).name.encode() + b"\0", mapping

        module._NVRTCProgram.compile = compile_twice
