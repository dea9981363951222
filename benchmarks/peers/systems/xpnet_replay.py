"""xpnet on the CPU: the Program of a training step, run by Replay on whole chunks as `xpnet.train` does."""

from __future__ import annotations

import numpy as np

import xpnet
from xpnet.executors.replay import Replay

from ..works import Data, Parameters, Work, initial_parameters


class System:
    comparable, whole_epochs = True, False

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        self.work = work
        backend = xpnet.select_backend("cpu", "float32")
        self.network = xpnet.Network(
            list(work.sizes), activation=work.hidden, output=work.output, loss=work.loss, backend=backend
        )
        self.optimizer = xpnet.SGD(lr=work.lr)
        self.program = self.network.training_program(work.batch, self.optimizer, False)
        arrays = {"X": (data.X, None), "Y": (data.Y, None)}
        self.engine = Replay(self.program, backend, self.network.parameters.flat, arrays)

    def reset(self) -> None:
        ours = self.network.parameters
        for W, b, (initial_W, initial_b) in zip(ours.weights, ours.biases, initial_parameters(self.work), strict=True):
            W[...], b[...] = initial_W, initial_b[:, None]

    def run(self, order: np.ndarray) -> float:
        rows = self.optimizer.slot_rows(len(order) // self.work.batch)
        return float(self.engine.run(order, rows).sum()) / self.work.batch

    def parameters(self) -> Parameters:
        ours = self.network.parameters
        return [(W.copy(), b.ravel().copy()) for W, b in zip(ours.weights, ours.biases, strict=True)]

    def versions(self) -> dict[str, str]:
        return {"xpnet": xpnet.__version__, "numpy": np.__version__}

    def cost(self) -> dict[str, int]:
        """FLOPs of a step and its calls, counted from the Program."""
        return {"flops": sum(call.flops for call in self.program.calls), "calls": len(self.program.calls)}
