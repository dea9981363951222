"""What CuPy's bindings of the driver and of cuBLAS do, over host memory: they take numbers and addresses.

`fakecupy.cuda` has them. The parameters' names are those of CuPy 14.2, in the docstrings as Cython writes them.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import hostcuda
import numpy as np

STREAM, HANDLE = 7, 8  # what is current; a launch that goes elsewhere is refused
OP_N, OP_T, GEMM_DEFAULT = 0, 1, -1
COMPUTE = {"CUBLAS_COMPUTE_32F": 68, "CUBLAS_COMPUTE_64F": 70, "CUBLAS_COMPUTE_32F_FAST_TF32": 77}
COMPUTE |= {"CUBLAS_COMPUTE_32F_PEDANTIC": 69, "CUBLAS_COMPUTE_64F_PEDANTIC": 71}


def bindings(counts: Any) -> dict[str, Any]:
    """The modules and functions by their names in `cupy.cuda`, whose launches are counted."""
    names = {"CUBLAS_OP_N": OP_N, "CUBLAS_OP_T": OP_T, "CUBLAS_GEMM_DEFAULT": GEMM_DEFAULT, **COMPUTE}
    own = {"create": lambda: HANDLE + 1, "destroy": lambda handle: counts.update(["destroyed_handles"])}
    return {
        "driver": SimpleNamespace(launchKernel=_launch_kernel(counts)),
        "cublas": SimpleNamespace(gemmEx=_gemm(counts), **names, **own),
        "device": SimpleNamespace(get_cublas_handle=lambda: HANDLE),
    }


def tf32(array: np.ndarray) -> np.ndarray:
    """Float32 numbers with 10 bits of mantissa in place of 23, rounded to the nearest, as a tensor core reads them."""
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def _launch_kernel(counts: Any) -> Any:
    def launchKernel(*arguments: int) -> None:
        """launchKernel(intptr_t f, unsigned int grid_dim_x, unsigned int grid_dim_y, unsigned int grid_dim_z, \
unsigned int block_dim_x, unsigned int block_dim_y, unsigned int block_dim_z, unsigned int shared_mem_bytes, \
intptr_t stream, intptr_t kernel_params, intptr_t extra)"""
        f, *grid_and_block, shared, stream, packed, extra = arguments
        (blocks, *ones), (threads, *more) = grid_and_block[:3], grid_and_block[3:]
        assert [*ones, *more, shared, extra] == [1, 1, 1, 1, 0, 0] and stream == STREAM
        if not (0 < blocks < 2**31 and 0 < threads <= 1024):
            raise RuntimeError(f"CUDA_ERROR_INVALID_VALUE: invalid argument: grid {blocks}, block {threads}")
        kernel = ctypes.cast(f, ctypes.py_object).value
        addresses = (ctypes.c_void_p * len(kernel.parameters)).from_address(packed)
        values = [kind.from_address(at).value for kind, at in zip(kernel.parameters, addresses, strict=True)]
        with np.errstate(all="ignore"):
            hostcuda.call(kernel.code, kernel.name, blocks, threads, values)
        counts._add("launches", kernel.name)

    return launchKernel


def _gemm(counts: Any) -> Any:
    def gemmEx(*arguments: int) -> None:
        """gemmEx(intptr_t handle, int transa, int transb, int m, int n, int k, size_t alpha, size_t A, int Atype, \
int lda, size_t B, int Btype, int ldb, size_t beta, size_t C, int Ctype, int ldc, int computeType, int algo)"""
        handle, transa, transb, m, n, k, alpha, A, Atype, lda, B, Btype, ldb, beta, C, Ctype, ldc, compute, algo = (
            arguments
        )
        assert handle == HANDLE + (compute in (69, 71)) and Atype == Btype == Ctype and algo == GEMM_DEFAULT
        single = Atype == 0
        assert compute in ((68, 69, 77) if single else (70, 71))
        real: Any = ctypes.c_float if single else ctypes.c_double
        assert (real.from_address(alpha).value, real.from_address(beta).value) == (1, 0)

        def matrix(address: int, rows: int, columns: int, lead: int) -> np.ndarray:
            """A matrix (rows, columns) that goes by columns, each `lead` elements from the next."""
            assert lead >= rows
            whole = np.ctypeslib.as_array((real * (lead * (columns - 1) + rows)).from_address(address))
            return np.lib.stride_tricks.as_strided(whole, (rows, columns), np.array([1, lead]) * whole.itemsize)

        a = matrix(A, *((m, k) if transa == OP_N else (k, m)), lda)
        b = matrix(B, *((k, n) if transb == OP_N else (n, k)), ldb)
        a, b = (x if how == OP_N else x.T for x, how in ((a, transa), (b, transb)))
        with np.errstate(all="ignore"):
            matrix(C, m, n, ldc)[...] = np.matmul(tf32(a), tf32(b)) if compute == 77 else np.matmul(a, b)
        counts._add("launches", "gemmEx")

    return gemmEx
