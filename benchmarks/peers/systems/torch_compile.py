"""PyTorch, torch.compile: gather, loss, gradient and update of a step are one compiled graph."""

from __future__ import annotations

import numpy as np
import torch

from ..works import Data, Parameters, Work, initial_parameters
from .torch_eager import loss_of, set_threads, targets


class System:
    comparable, whole_epochs = True, False

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        set_threads(threads)
        self.work, self.X, self.Y = work, torch.from_numpy(data.X), targets(work, data)
        self.layers = [(torch.from_numpy(W), torch.from_numpy(b)) for W, b in initial_parameters(work)]
        activations = {"sigmoid": torch.sigmoid, "relu": torch.relu, "identity": lambda Z: Z}

        def loss(layers, x, y):
            for i, (W, b) in enumerate(layers):
                name = work.hidden if i < len(layers) - 1 else work.output
                x = activations[name](torch.nn.functional.linear(x, W, b))
            return loss_of(work, x, y)

        def step(layers, total, X, Y, samples):
            x, y = X.index_select(0, samples), Y.index_select(0, samples)
            gradients, value = torch.func.grad_and_value(loss)(layers, x, y)
            for layer, gradient in zip(layers, gradients, strict=True):
                for parameter, slope in zip(layer, gradient, strict=True):
                    parameter.sub_(slope, alpha=work.lr)
            total.add_(value)

        self.step = torch.compile(step, fullgraph=True, dynamic=False)

    def reset(self) -> None:
        for (W, b), (initial_W, initial_b) in zip(self.layers, initial_parameters(self.work), strict=True):
            W.copy_(torch.from_numpy(initial_W))
            b.copy_(torch.from_numpy(initial_b))

    def run(self, order: np.ndarray) -> float:
        step, layers, X, Y = self.step, self.layers, self.X, self.Y
        total = torch.zeros(())
        with torch.no_grad():  # the gradient is taken inside the graph
            for samples in torch.from_numpy(order).split(self.work.batch):
                step(layers, total, X, Y, samples)
        return float(total)

    def parameters(self) -> Parameters:
        return [(W.numpy().copy(), b.numpy().copy()) for W, b in self.layers]

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}
