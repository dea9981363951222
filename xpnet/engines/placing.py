"""Choose the CPU or a GPU for a run, by counts of its Program: operations and launches of a step, and the steps.

Nothing is timed, so the same run has the same device every time. A step on a GPU takes its launches at least, whatever
they compute: a small one is faster on the CPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xpnet.backend import Backend, BackendUnavailable, select_backend
from xpnet.engines.choice import AUTO, ENGINES, FULL
from xpnet.program.calls import Program
from xpnet.program.grouping import launches

# Estimated, as no GPU has been measured: operations a second of a CPU, and seconds of a launch and of a GPU's start.
CPU_FLOPS = 1e11
LAUNCH_SECONDS = 4e-6
START_SECONDS = 2.0


def place(
    program: Program, dtype: Any, n_steps: int | None = None, engine: str = AUTO, precision: str = FULL
) -> Backend:
    """Return the backend for a run of a Program, its reason saying the counts that decided.

    n_steps: of the run; None for many.  engine, precision: as for `xpnet.train`; what they need decides first.
    """
    devices = {device for name, row in ENGINES.items() if engine in (AUTO, name) for device in row.devices}
    if precision != FULL:
        devices &= {device for row in ENGINES.values() if precision in row.precisions for device in row.devices}
    suits, reason = _suits_gpu(program, n_steps)
    if "cpu" not in devices:
        suits, reason = True, "this engine or precision needs a GPU"
    elif "cuda" not in devices:
        suits, reason = False, "this engine or precision needs the CPU"
    cpu = replace(select_backend("cpu", dtype), reason=f"{AUTO}: {reason}")
    if not suits:
        return cpu
    try:
        gpu = select_backend("cuda", dtype)
    except BackendUnavailable as failure:
        return replace(cpu, reason=str(failure))
    return replace(gpu, reason=f"{AUTO}: {reason}; {gpu.reason}")


def _suits_gpu(program: Program, n_steps: int | None) -> tuple[bool, str]:
    """Return whether a GPU would be faster, and why."""
    flops = program.flops
    told, seconds = f"{flops / 1e6:,.3g} MFLOP a step", flops / CPU_FLOPS
    if seconds < LAUNCH_SECONDS:
        return False, f"{told} take less time than a launch on a GPU (estimated)"
    n_launches = len(launches(program)) + 1
    gained = seconds - n_launches * LAUNCH_SECONDS
    if gained < 0:
        least = n_launches * LAUNCH_SECONDS * CPU_FLOPS / 1e6
        return False, f"{told}, and a GPU is faster from some {least:,.2g} MFLOP in {n_launches} launches (estimated)"
    if n_steps is not None and n_steps * gained < START_SECONDS:
        least = START_SECONDS / gained
        return False, f"{n_steps:,} steps of {told}, and a GPU's start is repaid by some {least:,.0f} (estimated)"
    return True, f"{told} in {n_launches} launches (estimated to be faster)"
