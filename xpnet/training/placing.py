"""Move a network whose device is open to the one that suits a run, before its first step."""

from __future__ import annotations

from typing import Any

from xpnet.engines.choice import AUTO, ENGINES, engine_facts
from xpnet.engines.engine import Engine
from xpnet.engines.placing import place
from xpnet.network.network import Network
from xpnet.program.calls import Program
from xpnet.training.optimizers import Optimizer, Snapshot
from xpnet.training.records import Moment


def settle(network: Network, optimizer: Optimizer, program: Program, n_steps: int, engine: str, precision: str) -> None:
    """Move a network whose device is open, and the optimizer's state, to the device that suits the run.

    program, n_steps, engine, precision: as for `xpnet.engines.placing.place`.
    """
    if not network.device_is_open:
        return
    before, backend = network.backend, place(program, network.backend.dtype, n_steps, engine, precision)
    if backend.device == before.device:
        network.backend = backend  # for its reason
        return
    left = optimizer.snapshot().packed()
    network.move(backend)
    if left[0] is network:
        optimizer.restore(Snapshot.unpacked(*left))


def run_facts(network: Network, engine: Engine) -> dict[str, Any]:
    """Return what a record says of the engine and, if it was chosen, of the device: which, and why."""
    return engine_facts(engine) | ({"device": network.backend.describe()} if network.device_is_open else {})


def deciding_engine(engine: str, moment: Moment | None) -> str:
    """Return the engine that decides on the device: the one asked for, or for "auto" that of the run to resume."""
    found = AUTO if moment is None else moment.fit.get("engine")
    return str(found) if engine == AUTO and found in ENGINES else engine
