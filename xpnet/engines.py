"""Choose the engine that runs a Program: by the device it is to run on, and by how long the run will be."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from xpnet.backend import Backend
from xpnet.executors.compiled import Compiled, threads_for
from xpnet.executors.grouped import Grouped
from xpnet.executors.replay import Replay
from xpnet.llvm.step import CannotPrint
from xpnet.options import check_option
from xpnet.program import Program

ENGINES = ("auto", "replay", "compiled")

# What a run of steps gains and costs, measured: see benchmarks/README.md.
GAIN_SECONDS = 0.5e-6  # a recorded call, each step, that is not made from Python
COMPILE_SECONDS = (0.2, 0.012)  # of any Program, and of each of its calls
MOST_SAMPLES = 4096  # a step: of more, columns are added up in better order by NumPy, and calls cost nothing


def choose_engine(engine: str, program: Program, backend: Backend, n_steps: int) -> str:
    """Return "replay" or "compiled" for a run of so many steps; on a GPU "grouped".

    engine: "auto", or the name of one. "auto" compiles if that repays, by the number of steps and of the Program's
    calls alone, so that the same training takes the same engine every time; and if llvmlite is there.
    Raises ValueError for another name or device, ImportError if compiled code is asked for and llvmlite is not there.
    """
    check_option("engine", engine, ENGINES)
    if backend.device != "cpu":
        if engine == "compiled":
            raise ValueError(f"engine is 'compiled', which is code for the CPU, and the backend is {backend.device}; "
                             "use engine='auto', or a backend of select_backend('cpu')")  # fmt: skip
        return "grouped" if engine == "auto" else engine
    if engine != "auto":
        if engine == "compiled" and find_spec("llvmlite") is None:
            raise ImportError("engine is 'compiled', which needs llvmlite, and that is not installed. "
                              "Run: pip install 'xpnet[jit]', or use engine='replay'")  # fmt: skip
        return engine
    base, each = COMPILE_SECONDS
    n_calls = len(program.calls)
    repays = n_steps * n_calls * GAIN_SECONDS > base + each * n_calls
    is_there = repays and program.capacity <= MOST_SAMPLES and find_spec("llvmlite") is not None
    return "compiled" if is_there else "replay"


def make_engine(
    program: Program, backend: Backend, owned: Any, data: Mapping[str, tuple[Any, float | None]] | None = None,
    engine: str = "",
) -> Replay:  # fmt: skip
    """Return an engine for a Program on that backend; the first arguments are those of `Replay`.

    engine: what `choose_engine` said; "" for the one that needs no preparation. What cannot be compiled, such as a
    kernel of a user's own may be, is replayed, with a warning.
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
