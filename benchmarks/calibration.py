"""Calibrate the fake GPU of the tests: the same array operations on it and on CuPy, and what differs.

Of each case is compared: the error, or the result's shape, type, contiguity and values; and how often device memory was
allocated, which CuPy's MemoryHook counts. Reads, uploads and launches of single operations are not counted by CuPy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if (tests := str(Path(__file__).resolve().parents[1] / "tests")) not in sys.path:
    sys.path.insert(0, tests)

import fakecupy
import hostcuda

Meter = Callable[[], Any]  # a context manager; what it yields has `allocations` at its end


def arrays(xp: Any) -> dict[str, Any]:
    """Device arrays for the cases: x, y, z (4, 3), s (4, 4), row (1, 3), column (4, 1), f (4, 3) in F order, ..."""
    rng = np.random.default_rng(0)
    made = {name: rng.random((4, 3), dtype=np.float32) + 0.5 for name in "xyz"}
    made |= {"s": rng.random((4, 4), dtype=np.float32), "t": rng.random((4, 4), dtype=np.float32)}
    made |= {"row": np.zeros((1, 3), np.float32), "column": np.zeros((4, 1), np.float32)}
    made |= {"i": np.array([2, 0], np.int64), "far": np.array([5, -1], np.int64)}
    made |= {"u": np.array([1, 2**31, 2**32 - 1], np.uint32), "one": np.ones((1, 1), np.float32)}
    device = {name: xp.asarray(array) for name, array in made.items()}
    device["f"] = xp.asarray(np.ascontiguousarray(made["y"].T)).T
    device["host"] = made["y"]
    return device


def _assigned(array: Any, index: Any, value: Any) -> Any:
    array[index] = value
    return array


def _set(array: Any, value: Any) -> Any:
    array.set(value)
    return array


# Each is given the namespace and the arrays, as attributes.
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "add, out": lambda xp, a: xp.add(a.x, a.y, out=a.z),
    "add, positional out": lambda xp, a: xp.add(a.x, a.y, a.z),
    "add": lambda xp, a: xp.add(a.x, a.y),
    "add of F order": lambda xp, a: xp.add(a.f, a.f),
    "add into F order": lambda xp, a: xp.add(a.x, a.y, out=a.f),
    "add in place": lambda xp, a: xp.add(a.x, a.y, out=a.x),
    "add, another view of out": lambda xp, a: xp.add(a.s.T, a.t, out=a.s),
    "add, the same view of out made twice": lambda xp, a: xp.add(a.s.T, a.t, out=a.s.T),
    "add, halves of the columns": lambda xp, a: xp.add(a.s[:, :2], 1.0, out=a.s[:, 2:]),
    "add, halves of the rows": lambda xp, a: xp.add(a.s[:2], 1.0, out=a.s[2:]),
    "add a row": lambda xp, a: xp.add(a.x, a.row, out=a.z),
    "add a column": lambda xp, a: xp.add(a.x, a.column, out=a.z),
    "add, NumPy array": lambda xp, a: xp.add(a.x, a.host),
    "add, list": lambda xp, a: xp.add(a.x, [1.0, 2.0, 3.0]),
    "add, NumPy array of no dimension": lambda xp, a: xp.add(a.x, np.array(1.0)),
    "add, out of another shape": lambda xp, a: xp.add(a.x, a.y, out=a.s),
    "add, out is NumPy's": lambda xp, a: xp.add(a.x, a.y, out=a.host),
    "add, where=": lambda xp, a: xp.add(a.x, a.y, where=a.z),
    "multiply by a NumPy scalar": lambda xp, a: xp.multiply(a.x, np.float32(2.0)),
    "multiply by a float64 scalar": lambda xp, a: xp.multiply(a.x, np.float64(2.0)),
    "x + NumPy array": lambda xp, a: a.x + a.host,
    "NumPy array + x": lambda xp, a: a.host + a.x,
    "x += y": lambda xp, a: a.x.__iadd__(a.y),
    "greater into floats": lambda xp, a: xp.greater(a.x, 1.0, out=a.z),
    "maximum with a number": lambda xp, a: xp.maximum(a.x, 1.0, out=a.x),
    "exp": lambda xp, a: xp.exp(a.x),
    "log1p, out": lambda xp, a: xp.log1p(a.x, out=a.z),
    "sign, out": lambda xp, a: xp.sign(a.x, out=a.z),
    "divide by zero": lambda xp, a: xp.divide(a.x, a.row),
    "uint32 add wraps": lambda xp, a: xp.add(a.u, 1, out=a.u),
    "uint32 multiply wraps": lambda xp, a: xp.multiply(a.u, a.u),
    "bitwise_xor": lambda xp, a: xp.bitwise_xor(a.u, 5, out=a.u),
    "right_shift": lambda xp, a: xp.right_shift(a.u, 3),
    "np.asarray(x)": lambda xp, a: np.asarray(a.x),
    "np.exp(x)": lambda xp, a: np.exp(a.x),
    "dot, out": lambda xp, a: a.x.T.dot(a.y, a.s[:3, :3].copy()),
    "dot": lambda xp, a: a.x.T.dot(a.y),
    "dot of F order": lambda xp, a: a.f.T.dot(a.f),
    "dot into F order": lambda xp, a: a.x.dot(a.y.T, a.s.T),
    "dot of columns of C order": lambda xp, a: a.s[:, :3].dot(a.y.T, a.t),
    "dot of rows of C order": lambda xp, a: a.s[:3].dot(a.t),
    "dot, one number": lambda xp, a: a.row.dot(a.row.T, a.one),
    "dot of shapes that do not fit": lambda xp, a: a.x.dot(a.y),
    "dot, NumPy array": lambda xp, a: a.x.T.dot(a.host),
    "matmul, out": lambda xp, a: xp.matmul(a.x, a.y.T, out=a.s),
    "matmul into F order": lambda xp, a: xp.matmul(a.x, a.y.T, out=a.s.T),
    "matmul over its operand": lambda xp, a: xp.matmul(a.s, a.t, out=a.s),
    "matmul, out of another shape": lambda xp, a: xp.matmul(a.x, a.y.T, out=a.z),
    "x @ y": lambda xp, a: a.x @ a.y.T,
    "sum along memory, out": lambda xp, a: xp.sum(a.x, axis=1, keepdims=True, out=a.column),
    "sum across memory, out": lambda xp, a: xp.sum(a.x, axis=0, keepdims=True, out=a.row),
    "sum of F order along memory, out": lambda xp, a: xp.sum(a.f, axis=0, keepdims=True, out=a.row),
    "sum of F order across memory, out": lambda xp, a: xp.sum(a.f, axis=1, keepdims=True, out=a.column),
    "sum of all": lambda xp, a: xp.sum(a.x),
    "max along memory": lambda xp, a: xp.max(a.x, axis=1),
    "max across memory, out": lambda xp, a: xp.max(a.x, axis=0, keepdims=True, out=a.row),
    "argmax across memory": lambda xp, a: xp.argmax(a.x, axis=0),
    "take, out": lambda xp, a: xp.take(a.x, a.i, 0, a.z[:2]),
    "take": lambda xp, a: xp.take(a.x, a.i, axis=0),
    "take of F order": lambda xp, a: xp.take(a.f, a.i, axis=0),
    "take out of range wraps": lambda xp, a: xp.take(a.x, a.far, axis=0),
    "take, out of another shape": lambda xp, a: xp.take(a.x, a.i, 0, a.z),
    "take, out of another type": lambda xp, a: xp.take(a.x, a.i, 0, a.u),
    "x[device indices]": lambda xp, a: a.x[a.i],
    "x[slice]": lambda xp, a: a.x[1:3],
    "x[...] = y": lambda xp, a: _assigned(a.x, ..., a.y),
    "x[...] = F order": lambda xp, a: _assigned(a.x, ..., a.f),
    "x[0] = number": lambda xp, a: _assigned(a.x, 0, 7.0),
    "x[...] = row": lambda xp, a: _assigned(a.x, ..., a.row),
    "x[...] = NumPy array": lambda xp, a: _assigned(a.x, ..., a.host),
    "x[...] = another shape": lambda xp, a: _assigned(a.x, ..., a.s),
    "overlapping assignment, backwards": lambda xp, a: _assigned(a.s, ..., a.s[::-1]),
    "fill": lambda xp, a: a.x.fill(3.0) or a.x,
    "get": lambda xp, a: a.x.get(),
    "get of a transposed view": lambda xp, a: a.x.T.get(),
    "get of columns": lambda xp, a: a.s[:, :2].get(),
    "set": lambda xp, a: _set(a.x, a.host),
    "set, another type": lambda xp, a: _set(a.x, a.host.astype(np.float64)),
    "set, another shape": lambda xp, a: _set(a.x, a.host[:2]),
    "set of columns": lambda xp, a: _set(a.s[:, :3], a.host),
    "float of one": lambda xp, a: float(xp.sum(a.one)),
    "float of many": lambda xp, a: float(a.x),
    "bool of many": lambda xp, a: bool(a.x),
    "item of many": lambda xp, a: a.x.item(),
    "reshape": lambda xp, a: a.x.reshape(2, 6),
    "reshape that copies": lambda xp, a: a.x.T.reshape(2, 6),
    "view as bytes": lambda xp, a: a.x.reshape(-1).view(np.uint8),
    "copy of F order": lambda xp, a: a.f.copy(),
    "astype": lambda xp, a: a.x.astype(np.float64),
    "astype of F order": lambda xp, a: a.f.astype(np.float64),
    "astype, nothing to do": lambda xp, a: a.x.astype(np.float32, copy=False),
    "asarray of a device array": lambda xp, a: xp.asarray(a.x),
    "asarray": lambda xp, a: xp.asarray(a.host),
    "asarray of F order": lambda xp, a: xp.asarray(a.host.T),
    "asarray to another type": lambda xp, a: xp.asarray(a.host, dtype=np.float64),
    "array of texts": lambda xp, a: xp.array(["a"]),
    "ascontiguousarray": lambda xp, a: xp.ascontiguousarray(a.x),
    "ascontiguousarray of F order": lambda xp, a: xp.ascontiguousarray(a.f),
    "concatenate": lambda xp, a: xp.concatenate([a.x, a.y]),
    "zeros": lambda xp, a: xp.zeros((3, 2), dtype=np.float32),
    "full": lambda xp, a: xp.full((3, 2), 2.5, dtype=np.float32),
    "arange": lambda xp, a: xp.arange(5, dtype=np.int64),
    "isfinite": lambda xp, a: xp.isfinite(a.x),
    "hash": lambda xp, a: hash(a.x),
}


class _Arrays:
    def __init__(self, xp: Any) -> None:
        self.__dict__.update(arrays(xp))


def hook(cupy: Any) -> Meter:
    """Return the meter of real allocations: a MemoryHook, which CuPy's memory pool calls at each one."""

    class Allocations(cupy.cuda.MemoryHook):
        name = "xpnet calibration"
        allocations = 0

        def malloc_postprocess(self, **of: Any) -> None:
            self.allocations += 1

    return Allocations


def can_run_kernels() -> bool:
    """Whether the fake GPU can run generated kernels here: it compiles them for the CPU."""
    return hostcuda.compiler() is not None


def observe(xp: Any, case: Callable[[Any, Any], Any], meter: Meter) -> dict[str, Any]:
    """Run one case and return what is compared, JSON-ready but for `values`."""
    prepared = _Arrays(xp)
    found: dict[str, Any] = {}
    with meter() as cost:
        try:
            result = case(xp, prepared)
        except Exception as error:  # which one is the point
            result, found["error"] = None, type(error).__name__
    found["allocations"] = cost.allocations
    if hasattr(result, "shape"):
        found |= {"shape": list(result.shape), "dtype": str(result.dtype)}
        found |= {"C": bool(result.flags.c_contiguous), "F": bool(result.flags.f_contiguous)}
        result = result.get() if hasattr(result, "get") else result
    if result is not None:
        found["values"] = np.asarray(result)
    return found


def compare(real: Any, meter: Meter) -> dict[str, dict[str, Any]]:
    """Run all cases on the fake GPU and on `real`, whose allocations `meter` counts.

    Returns case -> {"fake", "real", "differs": names of what differs}.
    """
    outcome = {}
    has_cub = "cub" in os.environ.get("CUPY_ACCELERATORS", "cub").split(",")  # as CuPy reads it
    for name, case in CASES.items():
        with fakecupy.counts.measure() as cost:
            fake = observe(fakecupy, case, fakecupy.counts.measure)
        found = observe(real, case, meter)
        differs = _differences(fake, found, cub=has_cub and cost.cub > 0)
        for side in (fake, found):
            side.pop("values", None)
        outcome[name] = {"fake": fake, "real": found, "differs": differs}
    return outcome


def _differences(fake: dict[str, Any], found: dict[str, Any], cub: bool) -> list[str]:
    names = [name for name in ("error", "shape", "dtype", "C", "F") if fake.get(name) != found.get(name)]
    values, wanted = (side.get("values", 0) for side in (fake, found))
    if "shape" not in names and not np.allclose(values, wanted, rtol=1e-5, equal_nan=True):
        names.append("values")
    # Where the fake says that CUB reduces, it says only that CuPy allocates more than the result.
    more = found["allocations"] - fake["allocations"]
    if more <= 0 if cub else more != 0:
        names.append("allocations (CUB)" if cub else "allocations")
    return names


def table(outcome: dict[str, dict[str, Any]]) -> str:
    """Return the differences as Markdown; a sentence if there is none."""
    lines = ["| operation | differs in | fake GPU | CuPy |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {', '.join(said['differs'])} | {said['fake']} | {said['real']} |"
        for name, said in outcome.items()
        if said["differs"]
    ]
    return "\n".join(lines) if len(lines) > 2 else f"all {len(outcome)} operations are alike"
