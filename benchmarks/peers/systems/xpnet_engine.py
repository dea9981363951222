"""xpnet as `xpnet.train` runs it when there is much to do: a long run's engine, on a whole chunk of steps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import xpnet
from xpnet.backend import Backend, BackendUnavailable
from xpnet.engines.choice import choose_engine, make_engine
from xpnet.program.calls import Program

from ..works import Data, Parameters, Work, initial_parameters

LONG_RUN = 10**6  # steps that repay any compiling


class System:
    comparable, whole_epochs = True, False

    @staticmethod
    def make_engine(
        program: Program, backend: Backend, owned: Any, data: Mapping[str, tuple[Any, float | None]]
    ) -> Any:
        """Return the engine that a long run of the Program takes."""
        return make_engine(program, backend, owned, data, choose_engine("auto", program, backend, LONG_RUN))

    @staticmethod
    def unusable(device: str) -> str | None:
        try:
            xpnet.select_backend(device)
        except BackendUnavailable as failure:
            return str(failure)
        return None

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        self.work = work
        backend = xpnet.select_backend(device, "float32")
        self.network = xpnet.Network(
            list(work.sizes), activation=work.hidden, output=work.output, loss=work.loss, backend=backend
        )
        self.optimizer = xpnet.SGD(lr=work.lr)
        self.program = self.network.training_program(work.batch, self.optimizer, False)
        arrays = {"X": (backend.to_device(data.X), None), "Y": (backend.to_device(data.Y), None)}
        self.engine = self.make_engine(self.program, backend, self.network.owned, arrays)

    def reset(self) -> None:
        ours, to_device = self.network.parameters, self.network.backend.to_device
        for W, b, (initial_W, initial_b) in zip(ours.weights, ours.biases, initial_parameters(self.work), strict=True):
            W[...], b[...] = to_device(initial_W), to_device(initial_b[:, None])

    def run(self, order: np.ndarray) -> float:
        rows = self.optimizer.slot_rows(len(order) // self.work.batch)
        return float(self.engine.run(order, rows).sum()) / self.work.batch

    def parameters(self) -> Parameters:
        ours, to_host = self.network.parameters, self.network.backend.to_host
        return [(to_host(W).copy(), to_host(b).ravel().copy()) for W, b in zip(ours.weights, ours.biases, strict=True)]

    def versions(self) -> dict[str, str]:
        xp = self.network.backend.xp
        llvmlite = sys.modules.get("llvmlite")  # only if the engine has taken it
        compiler = {"llvmlite": llvmlite.__version__} if llvmlite else {}
        return {"xpnet": xpnet.__version__, "numpy": np.__version__, xp.__name__: xp.__version__, **compiler}

    def cost(self) -> dict[str, Any]:
        """Return the FLOPs of a step and its calls, counted from the Program, and the engine that makes them."""
        calls = self.program.calls
        return {"flops": sum(call.flops for call in calls), "calls": len(calls), "engine": type(self.engine).__name__}
