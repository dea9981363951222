"""The printed functions: as near to the exact values as they say, NumPy's special values, and vectors in any loop."""

from __future__ import annotations

import ctypes
import re
from functools import cache

import numpy as np
import pytest
from processors import PROCESSORS, VECTOR_BYTES

from xpnet.engines.llvm import native
from xpnet.engines.llvm.mathematics import definitions

ULPS = {"exp": 1.2, "tanh": 2.6, "log": 1.0, "log1p": 1.0}  # the largest error, in units of the last place
DTYPES = [np.float32, np.float64]
inf, nan = np.inf, np.nan

LOOP = """
define void @apply(ptr noalias %input, ptr noalias %output, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %from = getelementptr {real}, ptr %input, i64 %i
  %to = getelementptr {real}, ptr %output, i64 %i
  %x = load {real}, ptr %from
  %y = call {real} @xp_{word}({real} %x)
  store {real} %y, ptr %to
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def text(word, dtype):
    """A loop that calls the function."""
    real = "float" if dtype is np.float32 else "double"
    return definitions([word], dtype) + LOOP.format(real=real, word=word)


@cache
def loaded(word, dtype, cpu):
    """The loop in machine code for the host, or for any CPU of its kind."""
    processor = native.host() if cpu == "host" else native.Processor(native.host().triple, cpu)
    return native.load(text(word, dtype), "apply", processor)


def apply(word, x, cpu="host"):
    """The function of each element."""
    result = np.empty_like(x)
    address = loaded(word, x.dtype.type, cpu).address
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    function(x.ctypes.data, result.ctypes.data, x.size)
    return result


def inputs(word, dtype):
    """All over the range by their bits, evenly where the function bends, and near the ends of its reductions."""
    rng = np.random.default_rng(7)
    kind, eps = np.finfo(dtype), np.finfo(dtype).eps
    if dtype is np.float32:  # every 4007th of all there are
        anywhere = np.arange(0, 2**32, 4007, dtype=np.uint64).astype(np.uint32).view(dtype)
    else:
        anywhere = rng.integers(0, 2**64 - 1, 400_000, dtype=np.uint64, endpoint=True).view(dtype)
    denormal = kind.smallest_normal * rng.uniform(-1, 1, 2000)
    bounds = {"exp": (-1.05 * kind.maxexp, 1.05 * kind.maxexp), "tanh": (-21, 21), "log": (0, 9), "log1p": (-1, 9)}
    within = np.concatenate([rng.uniform(*bounds[word], 400_000), rng.uniform(-1, 1, 400_000)])
    centers = np.concatenate(
        [
            np.arange(-2200, 2200) * np.log(2) / 2,
            2.0 ** np.arange(-30, 30) * np.sqrt(2),
            [1.0],
            np.log([kind.max, kind.smallest_normal, kind.smallest_subnormal]),
        ]
    )
    near = centers[:, np.newaxis] * (1 + eps * np.arange(-20, 21))
    return np.concatenate([anywhere, *(part.astype(dtype).ravel() for part in (denormal, within, near))])


def errors(got, exact):
    """Distance from the exact value in units of the last place; what is not finite must be the same."""
    want = exact.astype(got.dtype)
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    return np.abs(got[finite].astype(exact.dtype) - exact[finite]) / np.spacing(np.abs(want[finite]))


@pytest.mark.parametrize(  # with a fused product and sum, where the host has it; without
    "cpu", ["host", pytest.param("generic", marks=pytest.mark.full)]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("word", ULPS)
def test_errors_are_a_few_units_of_the_last_place(word, dtype, cpu):
    wide = np.float64 if dtype is np.float32 else np.longdouble
    own = 0 if np.finfo(wide).nmant > np.finfo(dtype).nmant else 1  # the error of what it is compared with
    x = inputs(word, dtype)
    with np.errstate(all="ignore"):
        found = errors(apply(word, x, cpu), getattr(np, word)(x.astype(wide)))
    assert found.size > 600_000 and found.max() <= ULPS[word] + own


SPECIAL = {
    "exp": [(-inf, 0.0), (inf, inf), (1e30, inf), (-1e30, 0.0), (0.0, 1.0), (-0.0, 1.0)],
    "tanh": [(inf, 1.0), (-inf, -1.0), (1e30, 1.0), (-1e30, -1.0)],
    "log": [(0.0, -inf), (-0.0, -inf), (-1e-30, nan), (-inf, nan), (inf, inf), (1.0, 0.0)],
    "log1p": [(-1.0, -inf), (-1.5, nan), (-inf, nan), (inf, inf)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("word", ULPS)
def test_special_values_are_those_of_numpy(word, dtype):
    x, want = np.array([*SPECIAL[word], (nan, nan)], dtype).T.copy()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(getattr(np, word)(x), want)
    got = apply(word, x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(want[want == 0]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("word", ["tanh", "log1p"])
def test_of_a_tiny_number_is_the_number(word, dtype):
    kind = np.finfo(dtype)
    x = np.array([0.0, kind.smallest_subnormal, 7 * kind.smallest_subnormal, kind.smallest_normal, 1e-20], dtype)
    x = np.concatenate([x, -x])
    assert apply(word, x).tobytes() == x.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_underflows_gradually(dtype):
    kind = np.finfo(dtype)
    x = np.linspace(np.log(kind.smallest_normal), np.log(kind.smallest_subnormal) - 2, 10_001).astype(dtype)
    steps = apply("exp", x) / kind.smallest_subnormal
    assert np.all(np.diff(steps) <= 0) and len(np.unique(steps)) > 1000 and steps[-1] == 0
    assert np.abs(steps - np.exp(x.astype(np.longdouble)) / kind.smallest_subnormal).max() <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("word", ULPS)
@pytest.mark.parametrize("model", PROCESSORS)
def test_a_loop_becomes_vectors(model, word, dtype):
    """As long as the processor has them, without a call, and with no element taken from or put into a vector.

    What remains of a long vector may go in shorter ones.
    """
    module = str(native.optimised(text(word, dtype), PROCESSORS[model])[0])
    lanes = [int(found) for found in re.findall(r"fmul contract <(\d+) x", module)]
    assert max(lanes) * np.dtype(dtype).itemsize == VECTOR_BYTES[model]
    assert not re.findall(r"call (?!.*@llvm\.)|extractelement|insertelement", module)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_word_is_defined_once_and_nothing_is_declared(dtype):
    assert definitions(["add", "matmul", "sqrt"], dtype) == ""
    text = definitions(iter(["tanh", "exp", "add", "tanh"]), dtype)
    assert re.findall(r"@\w+", text) == ["@xp_exp", "@xp_tanh"]
    assert set(re.findall(r"^\w+ \w+", text, re.MULTILINE)) == {"define internal"}
    assert not re.findall(r"fpto|\b(?:fast|reassoc|nnan|ninf|nsz|arcp|afn)\b", text)
