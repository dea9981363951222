"""Write optimizers.json: 20 steps of torch.optim, and of optax for Lion, in float64 on given gradients.

It needs torch, jax and optax; the tests need none of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import optax
import torch

N_STEPS, KEPT = 20, (1, 2, 20)
# name: (torch's optimizer, its arguments, xpnet's optimizer, its arguments, (clip function, limit) or None)
CASES = {
    "sgd": ("SGD", {"lr": 0.1}, "SGD", {"lr": 0.1}, None),
    "sgd_l2": ("SGD", {"lr": 0.1, "weight_decay": 0.3}, "SGD", {"lr": 0.1, "l2": 0.3}, None),
    "sgd_clip_value": ("SGD", {"lr": 0.1}, "SGD", {"lr": 0.1, "clip_value": 0.5}, ("clip_grad_value_", 0.5)),
    "sgd_clip_norm": ("SGD", {"lr": 0.1}, "SGD", {"lr": 0.1, "clip_norm": 2.0}, ("clip_grad_norm_", 2.0)),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}, "Momentum", {"lr": 0.1, "momentum": 0.9}, None),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}, "Nesterov", {"lr": 0.1, "momentum": 0.8}, None),
    "adagrad": ("Adagrad", {"lr": 0.05, "eps": 1e-3}, "AdaGrad", {"lr": 0.05, "eps": 1e-3}, None),
    "adagrad_defaults": ("Adagrad", {}, "AdaGrad", {}, None),
    "rmsprop": (
        "RMSprop",
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-2},
        "RMSProp",
        {"lr": 0.02, "alpha": 0.9, "eps": 1e-2},
        None,
    ),
    "rmsprop_defaults": ("RMSprop", {}, "RMSProp", {}, None),
    "adam": (
        "Adam",
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-2},
        "Adam",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-2},
        None,
    ),
    "adam_defaults": ("Adam", {}, "Adam", {}, None),
    "adam_l2": ("Adam", {"weight_decay": 0.1}, "Adam", {"l2": 0.1}, None),
    "adamw": ("AdamW", {"lr": 0.05, "weight_decay": 0.2}, "AdamW", {"lr": 0.05, "weight_decay": 0.2}, None),
    "adamw_defaults": ("AdamW", {}, "AdamW", {}, None),
    "nadam": (
        "NAdam",
        {"lr": 0.05, "betas": (0.8, 0.95), "momentum_decay": 0.1},
        "NAdam",
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "momentum_decay": 0.1},
        None,
    ),
    "nadam_defaults": ("NAdam", {}, "NAdam", {}, None),
}


def run(
    name: str,
    arguments: dict,
    clip: tuple[str, float] | None,
    start: torch.Tensor,
    gradients: torch.Tensor,
    decay: float,
) -> list[list[float]]:
    """theta after the steps of KEPT; the rate of step t is lr * decay^t."""
    theta = start.clone().requires_grad_()
    optimizer = getattr(torch.optim, name)([theta], **arguments)
    lr, kept = optimizer.param_groups[0]["lr"], []
    for t, gradient in enumerate(gradients):
        theta.grad = gradient.clone()
        if clip is not None:
            getattr(torch.nn.utils, clip[0])([theta], clip[1])
        optimizer.param_groups[0]["lr"] = lr * decay**t
        optimizer.step()
        if t + 1 in KEPT:
            kept.append(theta.tolist())
    return kept


LION = {
    "lion": ({"b1": 0.9, "b2": 0.95}, {"lr": 0.05, "beta1": 0.9, "beta2": 0.95}),
    "lion_decay": (
        {"b1": 0.8, "b2": 0.99, "weight_decay": 0.2},
        {"lr": 0.05, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.2},
    ),
}


def run_lion(arguments: dict, lr: float, start: torch.Tensor, gradients: torch.Tensor, decay: float) -> list:
    """As `run`, by optax, which torch leaves Lion to."""
    optimizer = optax.lion(lambda t: lr * decay**t, **{"weight_decay": 0.0, **arguments})
    theta, kept = jax.numpy.asarray(start.numpy()), []
    state = optimizer.init(theta)
    for t, gradient in enumerate(gradients.numpy()):
        step, state = optimizer.update(jax.numpy.asarray(gradient), state, theta)
        theta = optax.apply_updates(theta, step)
        if t + 1 in KEPT:
            kept.append(theta.tolist())
    return kept


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)  # NAdam keeps the product of its momenta in the default type
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(7, generator=generator, dtype=torch.float64)
    gradients = torch.randn(N_STEPS, 7, generator=generator, dtype=torch.float64)
    gradients[:, 2] = 0.0  # as between two views of theta
    gradients[:, 3] *= 1e-4
    cases = {}
    for key, (name, arguments, ours, our_arguments, clip) in CASES.items():
        lr = getattr(torch.optim, name)([torch.zeros(1)], **arguments).defaults["lr"]
        cases[key] = {
            "optimizer": ours,
            "arguments": our_arguments,
            "lr": lr,
            "theta": {f"{decay:g}": run(name, arguments, clip, start, gradients, decay) for decay in (1.0, 0.9)},
        }
    for key, (arguments, ours) in LION.items():
        cases[key] = {
            "optimizer": "Lion",
            "arguments": ours,
            "lr": ours["lr"],
            "theta": {f"{decay:g}": run_lion(arguments, ours["lr"], start, gradients, decay) for decay in (1.0, 0.9)},
        }
    golden = {
        "torch": torch.__version__,
        "optax": optax.__version__,
        "steps": KEPT,
        "start": start.tolist(),
        "gradients": gradients.tolist(),
        "cases": cases,
    }
    Path(__file__).with_name("optimizers.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
