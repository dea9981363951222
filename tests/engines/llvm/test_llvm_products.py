"""Printed matrix products of every small shape against NumPy's in float64."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace
from itertools import product as combinations

import numpy as np
import pytest

from xpnet.engines.llvm import native
from xpnet.engines.llvm.products import (
    FEW_ROWS,
    LONG_INNER,
    SHORT_INNER,
    Factor,
    Product,
    packed_columns,
    packed_size,
    repays_transposing,
    write_packing,
    write_product,
)
from xpnet.engines.llvm.text import VECTOR_BYTES, Function, Metadata, literal
from xpnet.engines.llvm.words import repeated, write_word

pytest.importorskip("llvmlite")

MOST_ROWS, MOST_COLUMNS, MOST_INNER = 13, 37, 130
WIDE = 140  # elements of memory from one row of a factor to the next; what is between must not matter
INNER = [*range(1, 41), *range(64, 131)]
TOLERANCES = {"float32": 2e-6, "float64": 4e-15}  # of the sum of absolute products
DECLARED = """
declare {real} @llvm.vector.reduce.fadd.v{lanes}f{bits}({real}, <{lanes} x {real}>)
declare i64 @llvm.smin.i64(i64, i64)
"""


@dataclass(frozen=True)
class Shape:
    """What is fixed in a product's text; n_rows, n_inner: None if they are given when it is called.

    is_packed: the right operand, and the product ends with a maximum with 0.
    """

    n_columns: int
    n_rows: int | None
    n_inner: int | None
    left_transposed: bool
    right_transposed: bool
    bias: bool
    most_rows: int = MOST_ROWS
    is_packed: bool = False


@dataclass
class Module:
    """Many products, each a function; `run(which, arguments)` calls one of them."""

    dtype: str
    shapes: list[Shape]
    vector_bytes: int = VECTOR_BYTES
    metadata: Metadata = field(default_factory=Metadata)

    def text(self) -> str:
        real = "float" if self.dtype == "float32" else "double"
        functions = [self._product(real, i, shape) for i, shape in enumerate(self.shapes)]
        cases = [f"    i64 {i}, label %c{i}" for i in range(len(self.shapes))]
        calls = [
            f"c{i}:\n  call void @p{i}(ptr %left, ptr %right, ptr %out, ptr %bias, ptr %scratch, i64 %first, "
            "i64 %last, i64 %n_inner)\n  ret void"
            for i in range(len(self.shapes))
        ]
        run = [
            "define void @run(i64 %which, ptr %left, ptr %right, ptr %out, ptr %bias, ptr %scratch, i64 %first, "
            "i64 %last, i64 %n_inner) {",
            "  switch i64 %which, label %none [",
            *cases,
            "  ]",
            "none:",
            "  ret void",
            *calls,
            "}",
        ]
        bits = 32 if real == "float" else 64
        lanes = 8 * self.vector_bytes // bits
        declared = DECLARED.format(real=real, lanes=lanes, bits=bits)
        return "\n".join([*functions, *run, declared, *self.metadata.lines, ""])

    def _product(self, real: str, number: int, shape: Shape) -> str:
        f = Function(self.metadata, real, self.vector_bytes)
        factors = [
            Factor(address, *((1, WIDE) if transposed else (WIDE, 1)))
            for address, transposed in (("%left", shape.left_transposed), ("%right", shape.right_transposed))
        ]
        first, last = ("%first", "%last") if shape.n_rows is None else ("0", str(shape.n_rows))
        n_inner = "%n_inner" if shape.n_inner is None else str(shape.n_inner)
        transposes = shape.right_transposed and repays_transposing(n_inner, shape.most_rows, shape.n_columns)
        product = Product(
            *factors,
            "%out",
            first,
            last,
            shape.most_rows,
            n_inner,
            shape.n_columns,
            "%bias" if shape.bias else None,
            "%scratch" if transposes and not shape.is_packed else None,
        )
        if shape.is_packed:
            write_packing(f, factors[1], int(n_inner), shape.n_columns, "%scratch")
            product = replace(product, packed="%scratch", finish=lambda kind, value: rectified(f, kind, value))
        write_product(f, product)
        arguments = (
            "ptr %left",
            "ptr %right",
            "ptr %out",
            "ptr %bias",
            "ptr %scratch",
            "i64 %first",
            "i64 %last",
            "i64 %n_inner",
        )
        return f.text(f"p{number}", arguments)

    def check(self) -> None:
        loaded = native.load(self.text())
        function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 3)(loaded.address)
        rng = np.random.default_rng(0)
        for number, shape in enumerate(self.shapes):
            for rows in range(1, shape.most_rows + 1) if shape.n_rows is None else [shape.n_rows]:
                for n_inner in (1, 2, 7, 19, 130) if shape.n_inner is None else [shape.n_inner]:
                    # a part of the rows, as a thread has it; the first of them by turns
                    first = (rows + number) % 3 if shape.n_rows is None and rows > 3 else 0
                    self._check_one(function, number, shape, (first, rows, n_inner), rng)

    def _check_one(self, function, number, shape, sizes, rng):
        first, rows, n_inner = sizes
        left = np.full((WIDE, WIDE), np.nan, self.dtype)
        right = left.copy()
        A, B = rng.standard_normal((rows, n_inner)), rng.standard_normal((n_inner, shape.n_columns))
        A, B = A.astype(self.dtype), B.astype(self.dtype)
        (left.T if shape.left_transposed else left)[:rows, :n_inner] = A
        (right.T if shape.right_transposed else right)[:n_inner, : shape.n_columns] = B
        bias = rng.standard_normal(shape.n_columns).astype(self.dtype)
        out = np.full((rows + 2, shape.n_columns), 7.0, self.dtype)
        size = n_inner * shape.n_columns
        if shape.is_packed:
            size = packed_size(n_inner, shape.n_columns, self.vector_bytes // out.itemsize)
        scratch = np.full(size + 1, 7.0, self.dtype)
        arrays = [array.ctypes.data for array in (left, right, out[1:], bias, scratch)]
        function(number, *arrays, first, rows, n_inner)
        expected = A.astype(float) @ B + (bias if shape.bias else 0.0)
        expected = np.maximum(expected, 0.0) if shape.is_packed else expected
        scale = np.abs(A).astype(float) @ np.abs(B) + np.abs(bias)
        error = np.abs(out[1 + first : 1 + rows] - expected[first:]) / scale[first:]
        assert error.max() <= TOLERANCES[self.dtype], (shape, sizes)
        assert (out[: 1 + first] == 7.0).all() and (out[1 + rows :] == 7.0).all() and scratch[-1] == 7.0, shape


def rectified(f, kind, value):
    return write_word(f, "maximum", kind, [value, repeated(literal(0.0), kind)], [False, True])


def taken(shapes, step):
    return [shape for i, shape in enumerate(shapes) if i % step == 0]


def shapes_given_when_called():
    """Rows and length of the sums are given; every number of columns."""
    return [
        Shape(columns, None, None, left_transposed, right_transposed, bias)
        for columns, left_transposed, right_transposed, bias in combinations(
            range(1, MOST_COLUMNS + 1), (False, True), (False, True), (False, True)
        )
    ]


def shapes_of_known_sums():
    """The length of the sums is known, as it is for forward and backward; few and many rows."""
    return [
        Shape(columns, rows, n_inner, left_transposed, right_transposed, bias, rows or most_rows)
        for n_inner, (columns, rows, most_rows) in combinations(
            INNER, [(1, None, 13), (3, None, 5), (7, None, 13), (8, 3, 0), (12, 13, 0), (37, None, 9), (5, 1, 0)]
        )
        for left_transposed, right_transposed, bias in [
            (False, True, n_inner % 2 == 0),
            (True, n_inner % 2 == 0, True),
            (False, False, False),
        ]
    ]


def shapes_of_known_rows():
    """Gradients of weights: known rows and columns, sums over the batch; every number of rows."""
    return [
        Shape(columns, rows, None, True, False, False, rows)
        for rows, columns in combinations(range(1, MOST_ROWS + 1), range(1, MOST_COLUMNS + 1))
    ]


def shapes_of_packed_operands():
    """Predictions: every number of columns, by tiles, by sums along k, and by both."""
    return [
        Shape(columns, None, n_inner, False, True, n_inner % 2 == 0, is_packed=True)
        for columns, n_inner in combinations(range(1, MOST_COLUMNS + 1), (1, 5, 8, 19, 64, 130))
        if all(packed_columns(n_inner, columns, lanes) for lanes in (4, 8, 16))
    ]


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.full), "float64"])
def test_small_shapes(dtype, monkeypatch):
    """A part of the grid, unoptimised, which takes a second of compiling."""
    monkeypatch.setattr(native, "_speed_level", lambda text: 0)
    monkeypatch.setattr(native, "_MACHINE", native._MACHINE | {"opt": 0})
    shapes = [
        *taken(shapes_given_when_called(), 10),
        *taken(shapes_of_known_sums(), 43),
        *taken(shapes_of_known_rows(), 32),
        *taken(shapes_of_packed_operands(), 17),
    ]
    assert {shape.n_columns for shape in shapes} == set(range(1, MOST_COLUMNS + 1))
    assert {shape.n_rows for shape in shapes} == {None, *range(1, MOST_ROWS + 1)}
    Module(dtype, shapes).check()


@pytest.mark.full
def test_vectors_of_a_wider_processor(monkeypatch):
    """LLVM splits them into registers of this one, so that their sums can be looked at here."""
    monkeypatch.setattr(native, "_speed_level", lambda text: 0)
    monkeypatch.setattr(native, "_MACHINE", native._MACHINE | {"opt": 0})
    shapes = [
        *taken(shapes_given_when_called(), 31),
        *taken(shapes_of_known_sums(), 29),
        *taken(shapes_of_known_rows(), 41),
        *taken(shapes_of_packed_operands(), 7),
    ]
    Module("float32", shapes, 64).check()


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.full)])
def test_optimised_code(dtype):
    Module(
        dtype,
        [
            *taken(shapes_given_when_called(), 67),
            *taken(shapes_of_known_sums(), 409),
            *taken(shapes_of_known_rows(), 101),
            *taken(shapes_of_packed_operands(), 79),
        ],
    ).check()


@pytest.mark.full
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_small_shapes_in_full(dtype, part):
    every = [*shapes_given_when_called(), *shapes_of_known_sums(), *shapes_of_known_rows()]
    every += shapes_of_packed_operands()
    Module(dtype, every[part::8]).check()


def test_sums_of_not_a_number_and_infinity():
    """What is beside the operands does not come in, what is in them does."""
    shape = Shape(5, None, 70, False, True, False)
    loaded = native.load(Module("float64", [shape]).text())
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 3)(loaded.address)
    left, right, out = np.ones((2, WIDE)), np.ones((5, WIDE)), np.zeros((2, 5))
    left[0, 69], right[3, 2], right[4, 69], left[1, 70] = np.nan, np.inf, -np.inf, np.nan
    function(0, left.ctypes.data, right.ctypes.data, out.ctypes.data, 0, 0, 0, 2, 70)
    assert np.isnan(out[0]).all()
    np.testing.assert_array_equal(out[1], [70, 70, 70, np.inf, -np.inf])


def test_the_right_operand_is_transposed_only_where_that_pays():
    """By the length of k, which the text must know, and by the rows of a thread and the columns."""
    assert repays_transposing(SHORT_INNER - 1, FEW_ROWS, 2)
    assert repays_transposing(LONG_INNER - 1, LONG_INNER // 2, 100)
    assert not any(
        [
            repays_transposing("%n", 100, 100),
            repays_transposing(8, FEW_ROWS - 1, 100),
            repays_transposing(LONG_INNER - 1, LONG_INNER // 2, 10),
            repays_transposing(LONG_INNER - 1, LONG_INNER // 4, 100),
            repays_transposing(LONG_INNER, 1000, 1000),
        ]
    )


def test_columns_are_packed_where_tiles_are_faster_than_sums():
    """Too few for a vector are summed along a long k; along a short one they share a vector with others."""
    assert packed_columns(100, 10, 8) == 8 and packed_columns(64, 100, 8) == 100
    assert packed_columns(64, 2, 8) == 0 and packed_columns(4, 2, 8) == 2
    assert packed_size(64, 100, 8) == 64 * 104 and packed_size(100, 10, 8) == 800
