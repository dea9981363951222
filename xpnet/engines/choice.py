"""Choose the engine that runs a Program, by its device and by the length of the run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.checks import check_option
from xpnet.cores import usable_cores
from xpnet.engines.blas import numpy_gemm
from xpnet.engines.cuda.engine import Cuda
from xpnet.engines.cuda.launching import COMPUTE_TYPES
from xpnet.engines.engine import Engine
from xpnet.engines.llvm.engine import LEAST_FLOPS, Compiled
from xpnet.engines.llvm.forward import ForwardCode, forward_text
from xpnet.engines.llvm.native import check_llvm
from xpnet.engines.llvm.thread_choice import MANY, threads_for
from xpnet.engines.llvm.units import CannotPrint
from xpnet.engines.replay import Replay
from xpnet.parallel.reduction import FAST, FIXED, Reduction
from xpnet.program.calls import Program

AUTO = "auto"
MOST_THREADS = 256  # that run a step together; more than a machine has
FULL = "fp32"  # the precision that every engine has: products of numbers as they are
PRECISIONS = tuple(COMPUTE_TYPES)

# Gain and cost of compiling a run, from `benchmarks/auto.py` on two cores of an AMD EPYC. Elsewhere they differ, but a
# choice by the clock would not be the same twice.
GAIN_SECONDS = (1.7e-6, 6e-12, 6e-10)  # per recorded call of a step, per FLOP, and per number of its samples
MOST_FLOPS = 1e8  # of a step up to this number: larger products go to a library on either engine
COMPILE_SECONDS = (0.7, 0.004)  # per Program, and per recorded call
MOST_SAMPLES = 4096  # per step: with more, NumPy sums columns in a better order and calls cost next to nothing


@dataclass(frozen=True)
class EngineKind:
    """An engine and the facts that the choice depends on.

    name: as in its class.  make: its class, or a function that calls it; the arguments are those of `Memory`.
    devices: those that it runs on.  about: its description in the help.
    check: raises ImportError if a library that it needs is not installed.
    repays(program, n_steps, n_programs): whether a run repays its preparation; None for an engine without.
    threads(program, backend, steps): how many run a step together, by the steps of a call; None for an engine without
        threads of its own.
    is_asked_for: whether the user can name it.
    precisions: of its products, in float32; with more than FULL, `make` takes the argument precision.
    """

    name: str
    make: Callable[..., Engine]
    devices: tuple[str, ...]
    about: str
    check: Callable[[], object] = lambda: None
    repays: Callable[[Program, int, int], bool] | None = None
    threads: Callable[[Program, Backend, int], int] | None = None
    is_asked_for: bool = True
    precisions: tuple[str, ...] = (FULL,)


def _compiled(
    program: Program, backend: Backend, owned: Any, data: Any, threads: int | None = None, **more: Any
) -> Engine:
    try:
        return Compiled(program, backend, owned, data, threads or threads_for(program, backend, MANY), **more)
    except RuntimeError as error:  # possible on untried systems: see the README's limits
        raise CannotPrint(f"LLVM has {' '.join(str(error).split())}") from error


def _compiling_repays(program: Program, n_steps: int, n_programs: int) -> bool:
    return program.capacity <= MOST_SAMPLES and repays(Counts.of(program), n_steps, n_programs)


@dataclass(frozen=True)
class Counts:
    """What a step's time by either engine is estimated from.

    calls: recorded.  numbers: of the samples that are gathered.
    """

    calls: int
    flops: float
    numbers: int

    @classmethod
    def of(cls, program: Program) -> Counts:
        """Return those of a Program."""
        return cls(len(program.calls), program.flops, sum(buffer.size for _, buffer in program.gathers))


def repays(counts: Counts, n_steps: int, n_programs: int) -> bool:
    """Decide by counts alone whether a run repays compiling, so that the same training is always compiled.

    n_programs: that are compiled, of about as many calls.
    """
    return n_steps * _gain(counts) > n_programs * _cost(counts)


def compiling_gain(program: Program) -> float:
    """Return the seconds that a compiled step gains, by its counts."""
    return _gain(Counts.of(program))


def compiling_cost(program: Program) -> float:
    """Return the seconds that compiling takes, by the count of calls."""
    return _cost(Counts.of(program))


def _gain(counts: Counts) -> float:
    by_call, by_flop, by_number = GAIN_SECONDS
    return by_call * counts.calls + by_flop * min(counts.flops, MOST_FLOPS) + by_number * counts.numbers


def _cost(counts: Counts) -> float:
    return COMPILE_SECONDS[0] + COMPILE_SECONDS[1] * counts.calls


# Engines by name. Of those that run on a device and repay their preparation, "auto" takes the last.
ENGINES: dict[str, EngineKind] = {
    row.name: row
    for row in (
        EngineKind(Replay.name, Replay, ("cpu", "cuda"), "calls NumPy or CuPy for each part of a step"),
        EngineKind(
            Compiled.name,
            _compiled,
            ("cpu",),
            "runs machine code made for this network (on a CPU; extra: xpnet[jit])",
            check=check_llvm,
            repays=_compiling_repays,
            threads=lambda program, backend, steps: threads_for(program, backend, steps),
        ),
        EngineKind(Cuda.name, Cuda, ("cuda",), "runs generated GPU kernels", is_asked_for=False, precisions=PRECISIONS),
    )
}


def engine_names(*devices: str) -> tuple[str, ...]:
    """Return the names of the engines that a user can choose, on these devices or on any."""
    return tuple(name for name, row in ENGINES.items() if row.is_asked_for and set(devices) <= set(row.devices))


def check_engine(engine: str, device: str) -> str:
    """Return `engine` if it is "auto" or the name of an engine that runs on this device and is installed.

    Raises ValueError for another name or device, ImportError for a missing library.
    """
    if check_option("engine", engine, (AUTO, *engine_names())) == AUTO:
        return engine
    row = ENGINES[engine]
    if device not in row.devices:
        raise ValueError(
            f"engine is {engine!r}, which runs on {' and '.join(row.devices)}, and the device is {device}; "
            f"leave it out, or take device={row.devices[0]!r}"
        )
    row.check()
    return engine


def threads_of(engine: str, program: Program, backend: Backend, steps: int, asked: Any = None) -> int | None:
    """Return the threads that run a step together, None if the engine has none of its own.

    steps: of a call of the engine.
    asked: by the user, or those of the run to resume, which sums then round alike with; ignored if no such number.
    """
    count = ENGINES[engine].threads
    if count is None:
        return None
    is_number = isinstance(asked, int) and 1 <= asked <= MOST_THREADS
    return asked if is_number else count(program, backend, steps)


def blas_threads(program: Program, backend: Backend, found: Any = None) -> int | None:
    """Return the threads of NumPy's products in a run, whose sums round by them; None where that is not known.

    Where no product of a step is large enough for more, it is one: the others stay awake while they wait for work, so
    that on a busy machine each product takes the time of a turn of another process.
    found: those of the run to resume.
    """
    gemm = numpy_gemm(backend.dtype) if backend.device == "cpu" else None
    if gemm is None:
        return None
    own = gemm.own_threads()
    if isinstance(found, int):
        return min(max(found, 1), own)
    is_large = any(call.word == "matmul" and call.flops >= LEAST_FLOPS for call in program.calls)
    return own if is_large else 1


def check_threads(threads: int | None, engine: str, backend: Backend) -> int | None:
    """Return the number of threads that a user asked for, if the engine, of that name or "auto", can have it.

    Raises ValueError for a GPU, and where NumPy's products do not tell how they take a number.
    """
    if threads is None:
        return None
    if threads > MOST_THREADS:
        raise ValueError(f"threads is {threads}; it must be {MOST_THREADS} at most: threads={usable_cores()}")
    if backend.device != "cpu":
        raise ValueError(
            f"threads is {threads} and the steps run on the {backend.device} by {engine}; "
            "needed is the CPU: leave threads out, or take device='cpu'"
        )
    if engine != AUTO and ENGINES[engine].threads is None and numpy_gemm(backend.dtype) is None:
        raise ValueError(
            f"threads is {threads} and {engine} computes by NumPy's products, whose library is not OpenBLAS; "
            "set its threads by a variable such as OMP_NUM_THREADS, or take engine='compiled'"
        )
    return threads


def check_precision(precision: str, engine: str, backend: Backend) -> str:
    """Return `precision` if the engine, of that name or what "auto" may be, has products of it.

    Raises ValueError for any other.
    """
    check_option("precision", precision, PRECISIONS)
    row = ENGINES[unprepared(backend.device) if engine == AUTO else engine]
    if precision == FULL or (precision in row.precisions and backend.dtype == np.float32):
        return precision
    raise ValueError(
        f"precision is {precision!r} and the steps run on the {backend.device} in {backend.dtype} by {row.name}; "
        f"needed are a CUDA GPU, float32 and engine={AUTO!r}: leave precision out, or take device='cuda'"
    )


def check_deterministic(engine: str, backend: Backend, precision: str, reduction: str | None) -> None:
    """Refuse what `deterministic` excludes.  reduction: of several processes, None for one.  Raises ValueError."""
    on_gpu = backend.device != "cpu"
    for name, found, is_excluded, needed in (
        ("reduction", reduction, reduction == FAST, f"sums of one order, {FIXED!r}"),
        ("precision", precision, precision != FULL, f"products in full, {FULL!r}"),
        ("engine", engine, on_gpu and engine == Replay.name, f"products by a handle of their own, {AUTO!r}"),
    ):
        if is_excluded:
            raise ValueError(f"deterministic is True and {name} is {found!r}; needed are {needed}: leave {name} out")


def choose_engine(engine: str, program: Program, backend: Backend, n_steps: int, n_programs: int = 1) -> str:
    """Return the name of the engine for a run of n_steps steps.

    n_programs: that the run prepares, a step's and that of its validation.
    engine: "auto", or the name of one, checked by `check_engine`. "auto" takes an engine that needs preparation if it
    is installed and the run repays it.
    """
    if check_engine(engine, backend.device) != AUTO:
        return engine
    return next(
        name
        for name, row in reversed(ENGINES.items())
        if backend.device in row.devices
        and (row.repays is None or (row.repays(program, n_steps, n_programs) and _is_installed(row)))
    )


def engine_to_resume(engine: str, found: Any, backend: Backend) -> str:
    """Return the engine that continues a run of the engine `found`: for "auto" the same one, if the device has it.

    Engines round differently, so that with another one the run would not end with the same bits.
    Raises ImportError if a library that the engine needs is missing.
    """
    if engine != AUTO or found not in engine_names(backend.device):
        return engine
    try:
        return check_engine(found, backend.device)
    except ImportError as error:
        raise ImportError(f"the run to resume had engine={found!r}, and {error}") from None


def make_engine(
    program: Program,
    backend: Backend,
    owned: Any,
    data: Mapping[str, tuple[Any, float | None]] | None = None,
    engine: str = "",
    precision: str = FULL,
    threads: int | None = None,
    blas_threads: int | None = None,
    reduction: Reduction | None = None,
    deterministic: bool = False,
) -> Engine:
    """Return an engine for a Program on that backend; the first arguments are those of `Memory`.

    engine: a name from `choose_engine`; "" for the engine without preparation, which runs single steps, measures and
    predictions.  precision: of the products, checked by `check_precision`.  threads: from `threads_of`.
    blas_threads: from the function of that name; None for as many as NumPy's products have.
    reduction: adds the shards of a step, where the Program is recorded for them.  deterministic: on a GPU, as in
    `xpnet.train`.
    A Program that cannot be compiled is replayed, with a warning: a custom kernel may contain calls that no printer
    supports, and LLVM may refuse a text on an untried system.
    """
    row = ENGINES[engine or unprepared(backend.device)]
    given: dict[str, Any] = {"precision": None if precision == FULL else precision, "threads": threads}
    given |= {"blas_threads": blas_threads, "reduction": reduction}
    given["deterministic"] = True if deterministic and row.name == Cuda.name else None
    options = {name: value for name, value in given.items() if value is not None}
    try:
        return row.make(program, backend, owned, data, **options)
    except CannotPrint as reason:
        warnings.warn(f"{reason}: this cannot be compiled, engine={Replay.name!r} runs it", stacklevel=2)
        return Replay(program, backend, owned, data, blas_threads=blas_threads, reduction=reduction)


def forward_code(program: Program, backend: Backend) -> ForwardCode | None:
    """Return the machine code of an `inference_program` with one output; None where there can be none."""
    if not _is_installed(ENGINES[Compiled.name]):
        return None
    try:
        text = forward_text(program, backend)
        return None if text is None else ForwardCode.of(program, backend, text)
    except (CannotPrint, RuntimeError):  # as for `make_engine`
        return None


def unprepared(device: str) -> str:
    """Return the name of the engine that needs no preparation on a device."""
    return next(name for name, row in reversed(ENGINES.items()) if device in row.devices and row.repays is None)


def engine_facts(engine: Engine) -> dict[str, Any]:
    """Return the facts about an engine for a record: its name and what it has of threads, precision, deterministic."""
    facts = {name: getattr(engine, name, None) for name in ("threads", "precision", "deterministic")}
    return {"engine": engine.name} | {name: fact for name, fact in facts.items() if fact is not None}


def _is_installed(row: EngineKind) -> bool:
    try:
        row.check()
    except ImportError:
        return False
    return True
