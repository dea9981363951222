"""Choose the engine that runs a Program: by the device it is to run on, and by how long the run will be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from xpnet.backend import Backend
from xpnet.checks import check_option
from xpnet.engines.cuda.engine import Grouped
from xpnet.engines.engine import Engine
from xpnet.engines.llvm.engine import Compiled, threads_for
from xpnet.engines.llvm.native import check_llvm
from xpnet.engines.llvm.units import CannotPrint
from xpnet.engines.replay import Replay
from xpnet.program.calls import Program

ENGINES = ("auto", "replay", "compiled")

# What a run of steps gains and costs, measured: see benchmarks/README.md.
GAIN_SECONDS = (0.5e-6, 5e-12)  # of each recorded call of a step, and of each of its operations,
MOST_FLOPS = 1e8  # up to so many: products of more are a library's on either engine
COMPILE_SECONDS = (0.7, 0.008)  # of any Program, and of each of its calls
MOST_SAMPLES = 4096  # a step: of more, columns are added up in better order by NumPy, and calls cost nothing


def check_engine(engine: str, device: str) -> str:
    """Return `engine` if it is "auto", or the name of an engine that this device and this installation have.

    Raises ValueError for another name or device, ImportError if compiled code is asked for and llvmlite is not there.
    """
    check_option("engine", engine, ENGINES)
    if engine == "compiled" and device != "cpu":
        raise ValueError(
            f"engine is 'compiled', which is code for the CPU, and the device is {device}; "
            "leave it out, or take select_backend('cpu')"
        )
    if engine == "compiled":
        check_llvm()
    return engine


def choose_engine(engine: str, program: Program, backend: Backend, n_steps: int) -> str:
    """Return "replay" or "compiled" for a run of so many steps; for "auto" on a GPU "grouped".

    engine: "auto", or the name of one, checked by `check_engine`. "auto" compiles if that repays, by the number of
    steps and of the Program's calls alone, so that the same training takes the same engine every time; and if llvmlite
    is there.
    """
    if check_engine(engine, backend.device) != "auto":
        return engine
    if backend.device != "cpu":
        return "grouped"
    n_calls, flops = len(program.calls), sum(call.flops for call in program.calls)
    gain = GAIN_SECONDS[0] * n_calls + GAIN_SECONDS[1] * min(flops, MOST_FLOPS)
    repays = n_steps * gain > COMPILE_SECONDS[0] + COMPILE_SECONDS[1] * n_calls
    return "compiled" if repays and program.capacity <= MOST_SAMPLES and _can_compile() else "replay"


def go_on_with(engine: str, found: Any, backend: Backend) -> str:
    """Return the engine for a run that goes on from one that `found` ran: for "auto" that one, if the device has it.

    Two engines round in other places, so that with another one it would not end with the same bits.
    Raises ImportError if it was compiled and llvmlite is not there.
    """
    if engine != "auto" or found not in ("replay", "compiled") or (found == "compiled" and backend.device != "cpu"):
        return engine
    try:
        return check_engine(found, backend.device)
    except ImportError as error:
        raise ImportError(f"the run to go on with was compiled, and {error}") from None


def make_engine(
    program: Program,
    backend: Backend,
    owned: Any,
    data: Mapping[str, tuple[Any, float | None]] | None = None,
    engine: str = "",
) -> Engine:
    """Return an engine for a Program on that backend; the first arguments are those of `Memory`.

    engine: what `choose_engine` said; "" for the one that needs no preparation, as single steps, measures and
    predictions have it. What cannot be compiled, such as a kernel of a user's own may be, is replayed, with a warning.
    """
    if engine == "compiled":
        try:
            return Compiled(program, backend, owned, data, threads_for(program, backend))
        except CannotPrint as reason:
            warnings.warn(f"{reason}: this cannot be compiled, engine='replay' runs it", stacklevel=2)
            return Replay(program, backend, owned, data)
    if engine == "grouped" or (not engine and backend.device != "cpu"):
        return Grouped(program, backend, owned, data)
    return Replay(program, backend, owned, data)


def told(engine: Engine) -> dict[str, Any]:
    """Return what a record says of the engine: its name, and the threads of one that has its own."""
    return {"engine": engine.name} | ({"threads": engine.threads} if isinstance(engine, Compiled) else {})


def _can_compile() -> bool:
    try:
        check_llvm()
    except ImportError:
        return False
    return True
