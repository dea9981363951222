"""PyTorch, the eager step captured by hand in one CUDA graph, as the documentation's "CUDA semantics" has it."""

from __future__ import annotations

import numpy as np
import torch

from ..works import Data, Work
from . import torch_eager


class System(torch_eager.System):
    @staticmethod
    def unusable(device: str) -> str | None:
        return "a CUDA graph needs a CUDA GPU" if device == "cpu" else torch_eager.unusable(device)

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        super().__init__(work, data, threads, device)
        self.samples = torch.arange(work.batch, device=device)  # the graph's input, always in this memory
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(self.samples)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # so that the gradients are made in the graph's own memory
        with torch.cuda.graph(self.graph):
            self.step(self.samples)

    def run(self, order: np.ndarray) -> float:
        self.total.zero_()
        for samples in torch.from_numpy(order).to(self.device).split(self.work.batch):
            self.samples.copy_(samples)
            self.graph.replay()
        return float(self.total)
