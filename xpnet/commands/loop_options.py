"""The options of the training loop: how long, in what batches, what is measured."""

from __future__ import annotations

import argparse

from xpnet.commands.arguments import name_list, whole
from xpnet.data import Dataset
from xpnet.metrics import METRICS
from xpnet.network import Network
from xpnet.normalization import BatchNorm


def add_loop(command: argparse.ArgumentParser) -> None:
    """Add the options of the loop."""
    group = command.add_argument_group("loop")
    group.add_argument("--epochs", type=whole(0), default=20, metavar="N", help="(default: %(default)s)")
    add_batch_size(group)
    group.add_argument("--accumulate", type=whole(1), default=1, metavar="K",
                       help="batches to an update (default: %(default)s)")  # fmt: skip
    add_metrics(group)


def add_batch_size(command: argparse._ActionsContainer) -> None:
    """Add --batch-size."""
    command.add_argument("--batch-size", type=whole(1), default=32, metavar="N",
                         help="samples a step (default: %(default)s)")  # fmt: skip


def add_metrics(command: argparse._ActionsContainer) -> None:
    """Add --metrics."""
    command.add_argument("--metrics", type=name_list("metrics", METRICS), default=[], metavar="NAME[,NAME...]",
                         help=f"measured at the end beside loss and accuracy: {', '.join(METRICS)}")  # fmt: skip


def count_updates(arguments: argparse.Namespace, network: Network, training: Dataset) -> int:
    """How many updates all epochs will make."""
    batch = min(arguments.batch_size, training.n_samples)
    n_steps, short = divmod(training.n_samples, batch)
    # a single sample left over is no batch to a BatchNorm, and `train` leaves it out
    n_steps += short > any(isinstance(layer, BatchNorm) for layer in network.layers)
    return arguments.epochs * -(-n_steps // arguments.accumulate)
