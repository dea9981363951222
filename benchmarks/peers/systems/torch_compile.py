"""PyTorch, torch.compile: gather, loss, gradient and update of a step are one compiled graph.

On a GPU with mode="reduce-overhead", which runs it as a CUDA graph.
"""

from __future__ import annotations

import numpy as np
import torch

from ..works import Data, Parameters, Work, initial_parameters
from .torch_eager import loss_of, set_up, tensors, unusable


class System:
    comparable, whole_epochs = True, False
    unusable = staticmethod(unusable)

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        set_up(threads)
        self.work, self.device = work, device
        self.X, self.Y = tensors(work, data, device)
        self.total = torch.zeros((), device=device)
        self.layers = [
            (torch.from_numpy(W).to(device), torch.from_numpy(b).to(device)) for W, b in initial_parameters(work)
        ]
        if device == "cuda":  # or each step would copy them into the CUDA graph's memory, or have no CUDA graph
            for tensor in (self.X, self.Y, self.total, *(tensor for layer in self.layers for tensor in layer)):
                torch._dynamo.mark_static_address(tensor)
        activations = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "identity": lambda Z: Z}

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

        torch._dynamo.reset()  # forgets the previous work; after eight it would refuse to compile
        mode = "reduce-overhead" if device == "cuda" else None
        self.step = torch.compile(step, fullgraph=True, dynamic=False, mode=mode)

    def reset(self) -> None:
        for (W, b), (initial_W, initial_b) in zip(self.layers, initial_parameters(self.work), strict=True):
            W.copy_(torch.from_numpy(initial_W))
            b.copy_(torch.from_numpy(initial_b))

    def run(self, order: np.ndarray) -> float:
        step, layers, total, X, Y = self.step, self.layers, self.total, self.X, self.Y
        total.zero_()
        with torch.no_grad():  # the gradient is taken inside the graph
            for samples in torch.from_numpy(order).to(self.device).split(self.work.batch):
                step(layers, total, X, Y, samples)
        return float(total)

    def parameters(self) -> Parameters:
        return [(W.cpu().numpy().copy(), b.cpu().numpy().copy()) for W, b in self.layers]

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def cost(self) -> dict[str, int]:
        """How often PyTorch made no CUDA graph of what it compiled; above 0, reduce-overhead reduced little."""
        from torch._dynamo.utils import counters

        return {"cudagraph_skips": counters["inductor"]["cudagraph_skips"]}
