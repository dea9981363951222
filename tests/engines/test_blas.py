"""The product that NumPy uses: right in all layouts through its bare address, its threads given back."""

from __future__ import annotations

import ctypes
import os
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
from numpy.lib.stride_tricks import as_strided
from refusals import refusal
from threadpoolctl import threadpool_info

from xpnet.engines import blas
from xpnet.engines.blas import COLUMN_MAJOR, NO_TRANS, ROW_MAJOR, TRANS, numpy_gemm

REALS = {"float32": ctypes.c_float, "float64": ctypes.c_double}
INTEGERS = {32: ctypes.c_int32, 64: ctypes.c_int64}


def prototype(dtype, bits):
    real, size, enum, array = REALS[dtype], INTEGERS[bits], ctypes.c_int, ctypes.c_void_p
    return ctypes.CFUNCTYPE(None, enum, enum, enum, size, size, size, real, array, size, array, size, real, array, size)


def pool_of(package):
    """The OpenBLAS that came with a package's wheel, as threadpoolctl finds it; a skip if there is another BLAS."""
    site = Path(np.__file__).resolve().parents[1]
    places = (site / f"{package}.libs", site / package / ".dylibs")
    found = [pool for pool in threadpool_info() if Path(pool["filepath"]).resolve().parent in places]
    if not found:
        pytest.skip(f"this {package} has no OpenBLAS of its own")
    return found[0]


def numpy_threads():
    return pool_of("numpy")["num_threads"]


def check_products(gemm, dtype, rng):
    """Every layout of a (5, 7) by (7, 4), each array a window of a wider one, against float64 NumPy."""
    call = prototype(dtype, gemm.integer_bits)(gemm.address)
    m, k, n = 5, 7, 4
    A, B, C = rng.standard_normal((m, k)), rng.standard_normal((k, n)), rng.standard_normal((m, n))
    for order, trans_a, trans_b in product((ROW_MAJOR, COLUMN_MAJOR), (NO_TRANS, TRANS), (NO_TRANS, TRANS)):

        def store(matrix, trans, order=order):
            matrix = matrix if trans == NO_TRANS else matrix.T
            whole = np.full((matrix.shape[0] + 1, matrix.shape[1] + 3), 9.0, dtype, "C" if order == ROW_MAJOR else "F")
            window = whole[: matrix.shape[0], : matrix.shape[1]]
            window[...] = matrix
            return window, max(whole.strides) // whole.itemsize, whole

        (a, lda, _), (b, ldb, _), (c, ldc, whole) = store(A, trans_a), store(B, trans_b), store(C, NO_TRANS)
        call(order, trans_a, trans_b, m, n, k, 0.5, a.ctypes.data, lda, b.ctypes.data, ldb, -2.0, c.ctypes.data, ldc)
        expected = np.full(whole.shape, 9.0)
        expected[:m, :n] = 0.5 * A @ B - 2.0 * C
        np.testing.assert_allclose(whole, expected, rtol=0, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", REALS)
def test_products_of_numpys_own(dtype):
    assert pool_of("numpy")
    check_products(numpy_gemm(dtype), dtype, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", REALS)
def test_a_build_with_integers_of_32_bits(dtype):
    path = pool_of("scipy")["filepath"]
    assert scipy.linalg and "openblas" in path
    gemm = numpy_gemm(dtype, [ctypes.CDLL(path)])
    assert gemm.integer_bits == 32 and gemm != numpy_gemm(dtype)
    check_products(gemm, dtype, np.random.default_rng(1))


def test_one_thread_and_back():
    before, gemm = numpy_threads(), numpy_gemm("float64")
    try:
        gemm.set_threads(2)
        assert (gemm.threads(), numpy_threads()) == (2, 2)
        with gemm.on_threads(1):
            assert (gemm.threads(), numpy_threads(), gemm.own_threads()) == (1, 1, 2)
            with blas.products_on(gemm, 1):  # holds also when the other ends first
                assert blas._INSIDE.count == 2
            assert numpy_threads() == 1
        with blas.products_on(gemm, 2), blas.products_on(gemm, None), blas.products_on(None, 1):
            assert blas._INSIDE.count == 0 and numpy_threads() == 2
        assert numpy_threads() == gemm.own_threads() == 2
        with pytest.raises(KeyError), gemm.on_threads(1):
            raise KeyError
        assert numpy_threads() == 2
    finally:
        gemm.set_threads(before)


def test_a_forked_child_has_the_threads_of_before_and_a_free_lock():
    """Whatever other threads do at that moment, compiled runs among them."""
    number = [2]
    gemm = blas.Gemm(0, 64, lambda: number[0], lambda n: number.__setitem__(0, n))

    def in_child(check):
        if (child := os.fork()) == 0:
            os._exit(0 if check() else 1)
        return os.waitpid(child, 0)[1] == 0

    with gemm.on_threads(1):
        assert number == [1] and in_child(lambda: number == [2] and blas._INSIDE.count == 0)
    assert number == [2]
    with blas._INSIDE.lock:
        assert in_child(lambda: blas._INSIDE.lock.acquire(timeout=5))


@pytest.mark.parametrize("dtype", REALS)
def test_none_where_there_is_none(dtype):
    assert numpy_gemm(dtype, []) is None
    assert numpy_gemm(dtype, [ctypes.CDLL(None)]) is None  # the interpreter and the C library


def test_types_that_blas_has_no_product_of():
    with refusal(ValueError, "dtype is int64", "takes float32 or float64", "give one of these"):
        numpy_gemm(int)


def stand_in(dtype, fault=None):
    """A library whose product is written here, with plain names and integers of 64 bits; it may have a fault."""

    def matrix(address, rows, columns, stride, by_rows):
        size = (rows - 1) * stride + columns if by_rows else (columns - 1) * stride + rows
        flat = np.frombuffer((REALS[dtype] * size).from_address(address), dtype)
        steps = (stride, 1) if by_rows else (1, stride)
        return as_strided(flat, (rows, columns), [step * flat.itemsize for step in steps])

    def gemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc):
        by_rows = order == ROW_MAJOR
        A = matrix(a, m, k, lda, by_rows == (trans_a == NO_TRANS))
        B = matrix(b, k, n, ldb, by_rows == (trans_b == NO_TRANS))
        C = matrix(c, m, n, ldc, by_rows or fault == "order")
        C[...] = alpha * A @ B + (0.0 if fault == "beta" else beta) * C
        if fault == "beyond":
            REALS[dtype].from_address(c + n * C.itemsize).value = 0.0

    config = ctypes.create_string_buffer(b"OpenBLAS 0.3.0 USE64BITINT")
    names = {
        f"cblas_{'s' if dtype == 'float32' else 'd'}gemm": prototype(dtype, 64)(gemm),
        "openblas_get_config": ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(config)),
        "openblas_get_num_threads": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3),
        "openblas_set_num_threads": ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda n: None),
    }
    return SimpleNamespace(**names)


@pytest.mark.parametrize("dtype", REALS)
def test_a_wrong_product_is_as_good_as_none(dtype):
    right = stand_in(dtype)
    found = numpy_gemm(dtype, [right])  # its names say nothing of 64 bits, its build does
    assert (found.integer_bits, found.threads()) == (64, 3)
    check_products(found, dtype, np.random.default_rng(2))
    wrong = [stand_in(dtype, fault) for fault in ("order", "beta", "beyond")]
    assert [numpy_gemm(dtype, [library]) for library in wrong] == [None] * 3
    assert numpy_gemm(dtype, [*wrong, right]).address == found.address
    assert numpy_gemm("float64" if dtype == "float32" else "float32", [right]) is None


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"dtype is complex128.*float32 or float64"):
        numpy_gemm(np.complex128)
