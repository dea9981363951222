"""Print exp, tanh, log and log1p as LLVM IR: straight-line arithmetic, which LLVM vectorises inside any loop.

There are no calls, branches, tables or declarations, and no conversion of a float to an integer, which is undefined
beyond the integer's range. The only flag is `contract`: a product and the sum after it may round once where the target
has such an instruction. Special values are NumPy's.

The polynomials are Taylor's series, shortened by Chebyshev's polynomials (Lanczos 1956, Applied Analysis, chapter 7).
The reductions are those of fdlibm (Sun Microsystems 1993; e_exp.c, s_tanh.c, e_log.c, s_log1p.c) without its branches.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

__all__ = ["definitions"]

# ln 2 in two parts (Moshier, Cephes, exp.c). The first has 15 bits: times an exponent it is exact, in float32 too.
_LN2_HIGH, _LN2_LOW = 6.93145751953125e-1, 1.42860682030941723212e-6


def definitions(words: Iterable[str], dtype: Any) -> str:
    """Return the IR of one internal function per word: `@xp_exp`, `@xp_tanh`, `@xp_log`, `@xp_log1p`.

    words: those of a Program; words that need no function are ignored.
    dtype: np.float32 (`float @xp_exp(float)`) or np.float64 (`double @xp_exp(double)`).
    """
    kind = _FLOAT if np.dtype(dtype) == np.float32 else _DOUBLE
    texts = []
    for word in sorted(set(words) & set(_FUNCTIONS)):
        code = _Code(kind)
        result = _FUNCTIONS[word](code, "%x")
        head = f"define internal {kind.name} @xp_{word}({kind.name} %x) alwaysinline {{"
        texts.append("\n".join([head, *code.lines, f"  ret {kind.name} {result}", "}", ""]))
    return "\n".join(texts)


@dataclass(frozen=True)
class _Kind:
    """A float type of IEEE 754.

    mantissa: stored bits.  exp_range: beyond it e^x is 0 or infinite.  tanh_range: beyond it tanh x is 1.
    exp_terms, log_terms: terms of the polynomials.
    """

    name: str
    bits: str
    mantissa: int
    bias: int
    exp_range: tuple[float, float]
    tanh_range: float
    exp_terms: int
    log_terms: int

    @property
    def sign_bit(self) -> int:
        return -(1 << (self.mantissa + self.bias.bit_length() + 1))

    def bits_of(self, value: float) -> int:
        """Return the stored bits of a positive number."""
        return int.from_bytes(struct.pack(">f" if self.name == "float" else ">d", value))


_FLOAT = _Kind("float", "i32", 23, 127, (-104.0, 89.0), 10.0, exp_terms=5, log_terms=3)
_DOUBLE = _Kind("double", "i64", 52, 1023, (-746.0, 710.0), 20.0, exp_terms=10, log_terms=7)


@dataclass
class _Code:
    """Collects instructions; each method adds one and returns the name of its result."""

    kind: _Kind
    lines: list[str] = field(default_factory=list)

    def add(self, a: str | float, b: str | float) -> str:
        return self._float("fadd contract", a, b)

    def subtract(self, a: str | float, b: str | float) -> str:
        return self._float("fsub contract", a, b)

    def multiply(self, a: str | float, b: str | float) -> str:
        return self._float("fmul contract", a, b)

    def divide(self, a: str | float, b: str | float) -> str:
        return self._float("fdiv", a, b)

    def integer(self, operation: str, a: str | int, b: str | int) -> str:
        """Apply add, sub, and, or, shl or lshr to the bits of floats."""
        return self._new(f"{operation} {self.kind.bits} {a}, {b}")

    def bits(self, a: str) -> str:
        return self._new(f"bitcast {self.kind.name} {a} to {self.kind.bits}")

    def real(self, bits: str) -> str:
        return self._new(f"bitcast {self.kind.bits} {bits} to {self.kind.name}")

    def choose(self, a: str, relation: str, b: float, then: str | float, otherwise: str | float) -> str:
        """Select `then` where `a relation b`, which NaN never satisfies."""
        name = self.kind.name
        condition = self._new(f"fcmp {relation} {name} {a}, {self._number(b)}")
        return self._new(f"select i1 {condition}, {name} {self._number(then)}, {name} {self._number(otherwise)}")

    def horner(self, x: str, coefficients: Sequence[float]) -> str:
        """Evaluate the polynomial with these coefficients, the constant first."""
        total: str | float = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            total = self.add(self.multiply(total, x), coefficient)
        return str(total)

    def _float(self, operation: str, a: str | float, b: str | float) -> str:
        return self._new(f"{operation} {self.kind.name} {self._number(a)}, {self._number(b)}")

    def _number(self, value: str | float) -> str:
        """Return a float exactly, as LLVM reads it: the bits of a double, even for type float."""
        if isinstance(value, str):
            return value
        rounded = np.float32(value) if self.kind.name == "float" else value
        return f"0x{struct.pack('>d', rounded).hex().upper()}"

    def _new(self, instruction: str) -> str:
        name = f"%v{len(self.lines) + 1}"
        self.lines.append(f"  {name} = {instruction}")
        return name


@cache
def _shortened(series: tuple[float, ...], n_terms: int, domain: tuple[float, float]) -> Sequence[float]:
    """Return the coefficients of a shorter polynomial that is nearly as good on the domain.

    Each turn removes the highest power by subtracting a multiple of Chebyshev's polynomial, which on the domain is the
    smallest polynomial with that power.
    """
    for n in range(len(series) - 1, n_terms - 1, -1):
        small = Chebyshev.basis(n, domain=domain).convert(kind=Polynomial).coef
        series = tuple(c - series[n] / small[n] * t for c, t in zip(series[:n], small[:n], strict=True))
    return tuple(float(c) for c in series)


def _exp_parts(code: _Code, x: str) -> tuple[str, str]:
    """Return integer bits that end in n + 2 bias, and p, where e^x = 2^n (1 + p) and |x - n ln 2| <= ln 2 / 2.

    Adding 1.5 * 2^mantissa rounds to an integer and leaves it in the last bits.
    """
    kind = code.kind
    shift = 1.5 * 2.0**kind.mantissa + 2 * kind.bias
    shifted = code.add(code.multiply(x, 1 / math.log(2)), shift)
    n = code.subtract(shifted, shift)
    r = code.subtract(x, code.multiply(n, _LN2_HIGH))
    r = code.subtract(r, code.multiply(n, _LN2_LOW))
    series = tuple(1 / math.factorial(k) for k in range(2, 20))
    q = code.horner(r, _shortened(series, kind.exp_terms, (-math.log(2) / 2, math.log(2) / 2)))
    p = code.add(code.multiply(r, code.multiply(r, q)), r)  # e^r - 1, whose relative error is small near 0 too
    return code.bits(shifted), p


def _exp(code: _Code, x: str) -> str:
    """Compute e^x with 2^n as a product of two powers, so that the result underflows gradually."""
    kind = code.kind
    low, high = kind.exp_range
    x = code.choose(x, "olt", low, low, x)
    x = code.choose(x, "ogt", high, high, x)
    bits, p = _exp_parts(code, x)
    half = code.integer("lshr", bits, 1)
    one, other = (
        code.real(code.integer("shl", exponent, kind.mantissa)) for exponent in (half, code.integer("sub", bits, half))
    )
    return code.multiply(code.add(code.multiply(one, p), one), other)


def _tanh(code: _Code, x: str) -> str:
    """Compute t / (t + 2) with t = e^(2|x|) - 1 (s_tanh.c), and the sign of x."""
    kind = code.kind
    sign = code.integer("and", code.bits(x), kind.sign_bit)
    size = code.real(code.integer("and", code.bits(x), ~kind.sign_bit))
    size = code.choose(size, "ogt", kind.tanh_range, kind.tanh_range, size)
    bits, p = _exp_parts(code, code.add(size, size))
    power = code.real(code.integer("sub", code.integer("shl", bits, kind.mantissa), kind.bits_of(1.0)))
    t = code.add(code.multiply(power, p), code.subtract(power, 1.0))
    result = code.divide(t, code.add(t, 2.0))
    return code.real(code.integer("or", code.bits(result), sign))


def _log_of(code: _Code, u: str, correction: str | float, unit: str | float) -> str:
    """Compute log(u) + correction for a u that is not denormal, with NumPy's special values.

    u = 2^k (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2), and log(1 + f) = 2 artanh(s), s = f / (2 + f).
    unit: 2^mantissa + the stored exponent of k = 0.
    """
    kind = code.kind
    root = kind.bits_of(math.sqrt(0.5))
    bits = code.integer("add", code.bits(u), kind.bits_of(1.0) - root)
    exponent = code.integer("lshr", bits, kind.mantissa)
    exponent = code.integer("or", exponent, (kind.bias + kind.mantissa) << kind.mantissa)  # 2^mantissa + exponent
    k = code.subtract(code.real(exponent), unit)
    rest = code.integer("and", bits, (1 << kind.mantissa) - 1)
    f = code.subtract(code.real(code.integer("add", rest, root)), 1.0)
    s = code.divide(f, code.add(f, 2.0))
    z = code.multiply(s, s)
    coefficients = _shortened(tuple(2 / k for k in range(3, 41, 2)), kind.log_terms, (0, (math.sqrt(2) - 1) ** 4))
    series = code.multiply(z, code.horner(z, coefficients))
    # 2 artanh(s) = f - f^2 / 2 + s (f^2 / 2 + series): f is exact, and the rounding of s matters little (e_log.c).
    half_square = code.multiply(code.multiply(f, 0.5), f)
    small = code.add(code.multiply(k, _LN2_LOW), correction)
    small = code.add(code.multiply(s, code.add(half_square, series)), small)
    small = code.subtract(code.subtract(half_square, small), f)
    result = code.subtract(code.multiply(k, _LN2_HIGH), small)
    result = code.choose(u, "olt", math.inf, result, u)  # infinity and NaN stay
    result = code.choose(u, "olt", 0.0, math.nan, result)
    return code.choose(u, "oeq", 0.0, -math.inf, result)


def _log(code: _Code, x: str) -> str:
    kind = code.kind
    least, lift = 2.0 ** (1 - kind.bias), kind.mantissa + 2  # a denormal number is lifted by 2^lift
    unit = 2.0**kind.mantissa + kind.bias
    u = code.choose(x, "olt", least, code.multiply(x, 2.0**lift), x)
    # x + -0.0 is x: LLVM drops the addition.
    return _log_of(code, u, -0.0, code.choose(x, "olt", least, unit + lift, unit))


def _log1p(code: _Code, x: str) -> str:
    """Compute log(u) + (rounding error of u = 1 + x) / u (s_log1p.c), and the sign of x, for -0.0."""
    kind = code.kind
    u = code.add(x, 1.0)
    lost = code.subtract(x, code.subtract(u, 1.0))
    result = _log_of(code, u, code.divide(lost, u), 2.0**kind.mantissa + kind.bias)
    sign = code.integer("and", code.bits(x), kind.sign_bit)
    return code.real(code.integer("or", code.bits(result), sign))


_FUNCTIONS = {"exp": _exp, "log": _log, "log1p": _log1p, "tanh": _tanh}
