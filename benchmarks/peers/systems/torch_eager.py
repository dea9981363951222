"""PyTorch, eager: nn.Sequential, autograd and torch.optim.SGD. Classes are given as labels, as its users do."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..works import Data, Parameters, Work, initial_parameters


def unusable(device: str) -> str | None:
    """Return why PyTorch cannot work on that device, or None."""
    if device == "cuda" and not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA GPU"
    return None


def set_up(threads: int) -> None:
    """Set the threads of the CPU, and products of float32 in float32, not TF32."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")


def tensors(work: Work, data: Data, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return X, and Y or the labels where the loss is cross-entropy, on the device."""
    Y = data.Y if work.loss == "squared_error" else data.Y.argmax(axis=1)
    return torch.from_numpy(data.X).to(device), torch.from_numpy(Y).to(device)


def loss_of(work: Work, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if work.loss == "squared_error":
        return functional.mse_loss(output, target, reduction="sum") * (0.5 / work.batch)
    return functional.cross_entropy(output, target)


class System:
    comparable, whole_epochs = True, False
    unusable = staticmethod(unusable)

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        set_up(threads)
        self.work, self.device = work, device
        self.X, self.Y = tensors(work, data, device)
        layers: list[nn.Module] = []
        for i, (n_in, n_out) in enumerate(zip(work.sizes, work.sizes[1:], strict=False)):
            name = work.hidden if i < len(work.sizes) - 2 else work.output
            layers += [
                nn.Linear(n_in, n_out, device=device),
                {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "identity": nn.Identity}[name](),
            ]
        self.linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self.model = nn.Sequential(*(layer for layer in layers if not isinstance(layer, nn.Identity)))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=work.lr)
        self.total = torch.zeros((), device=device)

    def reset(self) -> None:
        with torch.no_grad():
            for linear, (W, b) in zip(self.linears, initial_parameters(self.work), strict=True):
                linear.weight.copy_(torch.from_numpy(W))
                linear.bias.copy_(torch.from_numpy(b))

    def step(self, samples: torch.Tensor) -> None:
        """One update; the loss goes into the total."""
        loss = loss_of(self.work, self.model(self.X.index_select(0, samples)), self.Y.index_select(0, samples))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach()

    def run(self, order: np.ndarray) -> float:
        self.total.zero_()
        step = self.step
        for samples in torch.from_numpy(order).to(self.device).split(self.work.batch):
            step(samples)
        return float(self.total)  # waits for the device

    def parameters(self) -> Parameters:
        return [
            (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
            for layer in self.linears
        ]

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}
