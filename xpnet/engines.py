"""Choose the engine that runs a Program: by the device it is to run on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpnet.backend import Backend
from xpnet.executors.grouped import Grouped
from xpnet.executors.replay import Replay
from xpnet.program import Program


def make_engine(
    program: Program, backend: Backend, owned: Any, data: Mapping[str, tuple[Any, float | None]] | None = None
) -> Replay:
    """Return the engine for a Program on that backend; the arguments are those of `Replay`."""
    engine = Replay if backend.device == "cpu" else Grouped
    return engine(program, backend, owned, data)
