"""Print each word of a Program on one element as LLVM IR."""

from __future__ import annotations

from xpnet.engines.llvm.text import Function, literal

ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
OF_UINT32 = {"add": "add", "multiply": "mul", "bitwise_xor": "xor"}
MATHEMATICS = ("exp", "log", "log1p", "tanh")  # functions of xpnet, see `xpnet.engines.llvm.mathematics`


OF_VECTORS = (*ARITHMETIC, "maximum", "minimum")  # words that can be printed on vectors


def write_word(f: Function, word: str, kind: str, values: list[str], constants: list[bool]) -> str:
    """Print one word on one element; returns its value.

    kind: type of operands: float, double or i32 (unsigned); or a vector of floats, for the words `OF_VECTORS`.
    """
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
        return extreme(f, word, *values, value_may_be_nan=not constants[1], kind=kind)
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


def extreme(f: Function, word: str, one: str, other: str, *, value_may_be_nan: bool, kind: str = "") -> str:
    """Return the larger or the smaller of two values, of the function's float type or of another kind.

    It is NaN if one of them is, as in NumPy.
    """
    kind = kind or f.real
    zero, test = repeated(literal(0.0), kind), kind.replace(f.real, "i1")
    if (word, other) == ("maximum", zero):
        # A choice between zero and what a place holds would become a masked store, of 18 cycles on Zen 3, where the
        # result goes back to that place; a sum does not. It also makes -0.0 what NumPy makes of it, 0.0.
        choice = f"select {test} {f.let(f'fcmp olt {kind} {one}, {zero}')}, {kind} {zero}, {kind} {one}"
        return f.let(f"fadd {kind} {f.let(choice)}, {zero}")
    if value_may_be_nan:
        is_it = f.let(f"fcmp {'olt' if word == 'minimum' else 'ogt'} {kind} {one}, {other}")
        is_it = f.let(f"or {test} {is_it}, {f.let(f'fcmp uno {kind} {one}, {one}')}")
    else:
        is_it = f.let(f"fcmp {'ult' if word == 'minimum' else 'ugt'} {kind} {one}, {other}")
    return f.let(f"select {test} {is_it}, {kind} {one}, {kind} {other}")


def repeated(number: str, kind: str) -> str:
    """Return a literal of a float type as a value of that kind: itself, or a vector of it."""
    if not kind.startswith("<"):
        return number
    return f"splat ({kind.split()[-1][:-1]} {number})"


def _bits(kind: str) -> int:
    return 32 if kind == "float" else 64
