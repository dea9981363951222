"""PyTorch, eager: nn.Sequential, autograd and torch.optim.SGD. Classes are given as labels, as its users do."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..works import Data, Parameters, Work, initial_parameters

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "identity": nn.Identity}


def set_threads(threads: int) -> None:
    torch.set_num_threads(threads)


def targets(work: Work, data: Data) -> torch.Tensor:
    """Return Y, or the labels where the loss is cross-entropy."""
    return torch.from_numpy(data.Y if work.loss == "squared_error" else data.Y.argmax(axis=1))


def loss_of(work: Work, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if work.loss == "squared_error":
        return functional.mse_loss(output, target, reduction="sum") * (0.5 / work.batch)
    return functional.cross_entropy(output, target)


class System:
    comparable, whole_epochs = True, False

    def __init__(self, work: Work, data: Data, threads: int) -> None:
        set_threads(threads)
        self.work, self.X, self.Y = work, torch.from_numpy(data.X), targets(work, data)
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(zip(work.sizes, work.sizes[1:], strict=False)):
            name = work.hidden if i < len(work.sizes) - 2 else work.output
            layers += [
                nn.Linear(n_in, n_out),
                {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "identity": nn.Identity}[name](),
            ]
        self.linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.model = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=work.lr)

    def reset(self) -> None:
        with torch.no_grad():
            for linear, (W, b) in zip(self.linears, initial_parameters(self.work), strict=True):
                linear.weight.copy_(torch.from_numpy(W))
                linear.bias.copy_(torch.from_numpy(b))

    def run(self, order: np.ndarray) -> float:
        work, model, optimizer, X, Y = self.work, self.model, self.optimizer, self.X, self.Y
        total = torch.zeros(())
        for samples in torch.from_numpy(order).split(work.batch):
            loss = loss_of(work, model(X.index_select(0, samples)), Y.index_select(0, samples))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return float(total)

    def parameters(self) -> Parameters:
        return [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in self.linears]

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}
