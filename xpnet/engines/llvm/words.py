"""Print each word of a Program on one element as LLVM IR."""

from __future__ import annotations

from xpnet.engines.llvm.text import Function, literal

ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
OF_UINT32 = {"add": "add", "multiply": "mul", "bitwise_xor": "xor"}
MATHEMATICS = ("exp", "log", "log1p", "tanh")  # functions of xpnet, see `xpnet.engines.llvm.mathematics`


def write_word(f: Function, word: str, kind: str, values: list[str], constants: list[bool]) -> str:
    """Print one word on one element; returns its value. kind: type of operands: float, double or i32 (unsigned)."""
    if kind == "i32":
        if word == "greater":
            return f.let(f"uitofp i1 {f.let(f'icmp ugt i32 {values[0]}, {values[1]}')} to {f.real}")
        if word == "right_shift":  # by 32 or more NumPy gives 0; LLVM's is undefined
            if constants[1]:
                return "0" if int(values[1]) > 31 else f.let(f"lshr i32 {values[0]}, {values[1]}")
            test = f.let(f"icmp ult i32 {values[1]}, 32")
            return f.let(f"select i1 {test}, i32 {f.let(f'lshr i32 {values[0]}, {values[1]}')}, i32 0")
        return f.let(f"{OF_UINT32[word]} i32 {values[0]}, {values[1]}")
    if word in ARITHMETIC:
        return f.let(f"{ARITHMETIC[word]} {kind} {values[0]}, {values[1]}")
    if word == "greater":
        return f.let(f"uitofp i1 {f.let(f'fcmp ogt {kind} {values[0]}, {values[1]}')} to {kind}")
    if word in ("maximum", "minimum"):
        return extreme(f, word, *values, value_may_be_nan=not constants[1])
    if word == "abs":
        return f.let(f"call {kind} @llvm.fabs.f{_bits(kind)}({kind} {values[0]})")
    if word == "sqrt":
        return f.let(f"call {kind} @llvm.sqrt.f{_bits(kind)}({kind} {values[0]})")
    if word == "sign":
        zero = literal(0.0)
        above, below = (f.let(f"fcmp {test} {kind} {values[0]}, {zero}") for test in ("ogt", "olt"))
        is_nan = f.let(f"fcmp uno {kind} {values[0]}, {zero}")
        signed = f.let(f"select i1 {is_nan}, {kind} {values[0]}, {kind} {zero}")  # of -0.0 too it is 0.0
        signed = f.let(f"select i1 {below}, {kind} {literal(-1.0)}, {kind} {signed}")
        return f.let(f"select i1 {above}, {kind} {literal(1.0)}, {kind} {signed}")
    assert word in MATHEMATICS, word
    return f.let(f"call {kind} @xp_{word}({kind} {values[0]})")


def extreme(f: Function, word: str, one: str, other: str, *, value_may_be_nan: bool) -> str:
    """Return the larger or the smaller of two values; NaN if one of them is, as in NumPy."""
    zero = literal(0.0)
    if (word, other) == ("maximum", zero):
        # A choice between zero and what a place holds would become a masked store, of 18 cycles on Zen 3, where the
        # result goes back to that place; a sum does not. It also makes -0.0 what NumPy makes of it, 0.0.
        choice = f"select i1 {f.let(f'fcmp olt {f.real} {one}, {zero}')}, {f.real} {zero}, {f.real} {one}"
        return f.let(f"fadd {f.real} {f.let(choice)}, {zero}")
    if value_may_be_nan:
        test = f.let(f"fcmp {'olt' if word == 'minimum' else 'ogt'} {f.real} {one}, {other}")
        test = f.let(f"or i1 {test}, {f.let(f'fcmp uno {f.real} {one}, {one}')}")
    else:
        test = f.let(f"fcmp {'ult' if word == 'minimum' else 'ugt'} {f.real} {one}, {other}")
    return f.let(f"select i1 {test}, {f.real} {one}, {f.real} {other}")


def _bits(kind: str) -> int:
    return 32 if kind == "float" else 64
