"""Write normalization.json beside this file: five training steps of torch's BatchNorm1d and LayerNorm in float64.

Run with torch installed: python tests/golden/make_normalization.py. Arrays are columns, one sample each.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

N, BATCH, STEPS = 4, 6, 5


def main() -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    result = {"torch": torch.__version__, "momentum": 0.2, "eps": 1e-3}
    batch_norm = torch.nn.BatchNorm1d(N, eps=1e-3, momentum=0.2)
    layer_norm = torch.nn.LayerNorm(N, eps=1e-3)
    for name, module in (("batch_norm", batch_norm), ("layer_norm", layer_norm)):
        with torch.no_grad():
            module.weight.copy_(torch.rand(N) + 0.5)
            module.bias.copy_(torch.randn(N))
        result[name] = {"gamma": column(module.weight), "beta": column(module.bias), "steps": []}
        for step in range(STEPS):
            X = torch.randn(BATCH - step % 2, N) * 3 + torch.arange(float(N))  # rows; every other batch is short
            X.requires_grad_()
            dY = torch.randn(X.shape)
            module.zero_grad()
            Y = module(X)
            Y.backward(dY)
            values = {"X": X, "dY": dY, "Y": Y, "dX": X.grad}
            record = {key: value.detach().T.tolist() for key, value in values.items()}
            record |= {"dgamma": column(module.weight.grad), "dbeta": column(module.bias.grad)}
            if name == "batch_norm":
                record["running_mean"] = column(module.running_mean)
                record["running_variance"] = column(module.running_var)
            result[name]["steps"].append(record)
    module = batch_norm.eval()
    X = torch.randn(BATCH, N)
    result["batch_norm"]["inference"] = {"X": X.T.tolist(), "Y": module(X).detach().T.tolist()}
    Path(__file__).with_name("normalization.json").write_text(json.dumps(result, indent=0) + "\n", encoding="utf-8")


def column(vector: torch.Tensor) -> list[list[float]]:
    return vector.detach().reshape(-1, 1).tolist()


if __name__ == "__main__":
    main()
