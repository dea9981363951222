"""xpnet as `xpnet.train` runs it: the engine that it takes for the device, on a whole chunk of steps."""

from __future__ import annotations

import numpy as np

import xpnet
from xpnet.backend import BackendUnavailable
from xpnet.engines import make_engine

from ..works import Data, Parameters, Work, initial_parameters


class System:
    comparable, whole_epochs = True, False
    make_engine = staticmethod(make_engine)

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
        return {"xpnet": xpnet.__version__, "numpy": np.__version__, xp.__name__: xp.__version__}

    def cost(self) -> dict[str, int]:
        """FLOPs of a step and its calls, counted from the Program."""
        return {"flops": sum(call.flops for call in self.program.calls), "calls": len(self.program.calls)}
