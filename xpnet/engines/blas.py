"""Find the matrix product that NumPy calls: its address, for compiled code, and its number of threads.

Nothing is loaded: the BLAS is the one that NumPy's extension module is linked to. Only OpenBLAS is used, since only
OpenBLAS can report its integer width and its threads.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

ROW_MAJOR, COLUMN_MAJOR, NO_TRANS, TRANS = 101, 102, 111, 112  # of CBLAS

# (before, behind) the names of OpenBLAS: NumPy's wheels, 64-bit builds, 32-bit wheels, distributions and conda.
_AFFIXES = (("scipy_", "64_"), ("", "64_"), ("scipy_", ""), ("", ""))


@dataclass
class _Inside:
    """The open blocks of `Gemm.on_threads`, the number of threads before the first, and what sets that number."""

    count: int = 0
    before: int = 1
    lock: Any = field(default_factory=threading.Lock)
    set_threads: Callable[[int], None] | None = None

    def end_all(self) -> None:
        """End the blocks that a forked child has inherited: the threads that were in them are not in the child."""
        self.lock = threading.Lock()  # another thread may have held the old one
        if self.count and self.set_threads is not None:
            self.count = 0
            self.set_threads(self.before)


_INSIDE = _Inside()  # per process, like OpenBLAS's number of threads
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_INSIDE.end_all)


@dataclass(frozen=True)
class Gemm:
    """cblas_sgemm or cblas_dgemm: C = alpha op(A) op(B) + beta C (Dongarra et al. 1990, level 3 BLAS).

    address: void f(int order, int trans_a, int trans_b, I m, I n, I k, T alpha, const T *A, I lda, const T *B, I ldb,
        T beta, T *C, I ldc), with T the float type and I an integer of `integer_bits` bits; order and trans are enums.
    integer_bits: 64 or 32.
    """

    address: int
    integer_bits: int
    _get_threads: Callable[[], int] = field(repr=False)
    _set_threads: Callable[[int], None] = field(repr=False)

    def threads(self) -> int:
        """Return the number of threads that a product may use."""
        return self._get_threads()

    def own_threads(self) -> int:
        """Return the number of threads outside of `on_threads`, whoever is within it now."""
        with _INSIDE.lock:
            return _INSIDE.before if _INSIDE.count else self.threads()

    def set_threads(self, n: int) -> None:
        """Set that number for all of NumPy's products in this process."""
        self._set_threads(n)

    @contextmanager
    def on_threads(self, n: int) -> Iterator[None]:
        """Run products on n threads within the block, and restore the previous number after it.

        The number applies to the process: when several Python threads are in such blocks, the least one holds, and the
        last to leave restores the number before the first.
        """
        with _INSIDE.lock:
            _INSIDE.count += 1
            if _INSIDE.count == 1:
                _INSIDE.before, _INSIDE.set_threads = self.threads(), self.set_threads
            self.set_threads(n if _INSIDE.count == 1 else min(n, self.threads()))
        try:
            yield
        finally:
            with _INSIDE.lock:
                _INSIDE.count = max(_INSIDE.count - 1, 0)  # 0 already in a child that was forked within
                if not _INSIDE.count:
                    self.set_threads(_INSIDE.before)


@contextmanager
def products_on(gemm: Gemm | None, threads: int | None) -> Iterator[None]:
    """Run NumPy's products on so many threads within the block; None leaves them as they are."""
    if gemm is None or threads is None or threads == gemm.own_threads():  # not of a block that another may end first
        yield
    else:
        with gemm.on_threads(threads):
            yield


def numpy_gemm(dtype: Any, libraries: Sequence[Any] | None = None) -> Gemm | None:
    """Return the product that NumPy uses for matrices of `dtype`, float32 or float64; None if it is not found.

    libraries: loaded libraries (`ctypes.CDLL`) to search instead of NumPy's.  A product that gives a wrong result in
    any of CBLAS's layouts is rejected.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}, a product of BLAS takes float32 or float64; give one of these")
    return _of_numpy(dtype) if libraries is None else _found(dtype, libraries)


@cache
def _of_numpy(dtype: np.dtype) -> Gemm | None:
    return _found(dtype, _numpy_libraries())  # looked for and tried once, which takes half a millisecond


def _found(dtype: np.dtype, libraries: Sequence[Any]) -> Gemm | None:
    for library, (before, behind) in product(libraries, _AFFIXES):
        names = (
            f"{before}cblas_{'s' if dtype == np.float32 else 'd'}gemm{behind}",
            *(f"{before}openblas_{name}{behind}" for name in ("get_config", "get_num_threads", "set_num_threads")),
        )
        functions = [getattr(library, name, None) for name in names]
        if all(functions):
            found = _gemm(*functions)
            if _is_right(found, dtype):
                return found
    return None


def _gemm(gemm: Any, get_config: Any, get_threads: Any, set_threads: Any) -> Gemm:
    get_config.restype, get_config.argtypes = ctypes.c_char_p, []
    get_threads.restype, get_threads.argtypes = ctypes.c_int, []
    set_threads.restype, set_threads.argtypes = None, [ctypes.c_int]
    # From the configuration, since some distributions build for 64 bits under the plain names.
    bits = 64 if b"USE64BITINT" in get_config() else 32
    address = ctypes.cast(gemm, ctypes.c_void_p).value
    assert address is not None
    return Gemm(address, bits, get_threads, set_threads)


def _numpy_libraries() -> list[Any]:
    """Return the loaded libraries that may hold NumPy's products."""
    if sys.platform == "win32":  # a search skips linked libraries; NumPy has loaded them
        folder = Path(np.__file__).parents[1] / "numpy.libs"
        return [ctypes.CDLL(str(path)) for path in folder.glob("*openblas*.dll")]
    path = getattr(sys.modules.get("numpy._core._multiarray_umath"), "__file__", None)
    libraries = []
    with suppress(OSError, TypeError):  # an extension linked into the interpreter has no file
        # A search covers this module and its linked libraries; RTLD_NOLOAD: only if it is in memory.
        libraries.append(ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY) if path else None)
    return [library for library in libraries if library is not None]


def _is_right(gemm: Gemm, dtype: np.dtype) -> bool:
    """Return whether (2, 3) by (3, 2) is right in every layout, inside wider arrays, and nothing else is written."""
    integer = ctypes.c_int64 if gemm.integer_bits == 64 else ctypes.c_int32
    real = ctypes.c_float if dtype == np.float32 else ctypes.c_double
    enum, array = ctypes.c_int, ctypes.c_void_p
    call = ctypes.CFUNCTYPE(
        None, enum, enum, enum, integer, integer, integer, real, array, integer, array, integer, real, array, integer
    )(gemm.address)
    A, B = np.arange(1.0, 7.0).reshape(2, 3), np.array([[2.0, -1.0], [0.0, 3.0], [-4.0, 5.0]])
    for order, trans_a, trans_b in product((ROW_MAJOR, COLUMN_MAJOR), (NO_TRANS, TRANS), (NO_TRANS, TRANS)):
        a, b = _stored(A, order, trans_a, dtype), _stored(B, order, trans_b, dtype)
        c = np.full((2, 5), 7.0, dtype)
        call(
            order,
            trans_a,
            trans_b,
            2,
            2,
            3,
            2.0,
            a.ctypes.data,
            a.shape[1],
            b.ctypes.data,
            b.shape[1],
            1.0,
            c.ctypes.data,
            c.shape[1],
        )
        expected = np.full((2, 5), 7.0)
        expected[:, :2] += 2.0 * (A @ B if order == ROW_MAJOR else (A @ B).T)
        if not np.array_equal(c, expected):  # small whole numbers: exact in any order of the sum
            return False
    return True


def _stored(matrix: np.ndarray, order: int, trans: int, dtype: np.dtype) -> np.ndarray:
    """Return the matrix as CBLAS reads it: rows of memory, with two extra places of NaN each."""
    rows = matrix if (order == ROW_MAJOR) == (trans == NO_TRANS) else matrix.T
    wide = np.full((rows.shape[0], rows.shape[1] + 2), np.nan, dtype)
    wide[:, : rows.shape[1]] = rows
    return wide
