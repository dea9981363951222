"""The options of the training loop: how long, in what batches, what is measured."""

from __future__ import annotations

import argparse

from xpnet.callbacks import EarlyStopping
from xpnet.commands.arguments import UsageError, name_list, whole
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
    group.add_argument("--early-stopping", type=whole(1), metavar="EPOCHS",
                       help="end after so many epochs without a better --monitor; the model is that of the "
                       "best one")  # fmt: skip
    group.add_argument("--monitor", metavar="NAME", help="what --early-stopping looks at: train_loss, val_loss, "
                       "val_accuracy or val_ and one of --metrics (default: val_loss, train_loss where nothing is "
                       "held out)")  # fmt: skip


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


def make_stopping(arguments: argparse.Namespace, is_validated: bool) -> list[EarlyStopping]:
    """The callback that --early-stopping asks for, if it does; raises UsageError for options that do not go with it."""
    if arguments.early_stopping is None:
        if arguments.monitor is not None:
            raise UsageError("--monitor goes with --early-stopping EPOCHS; add it, or leave --monitor out")
        return []
    if arguments.ema is not None:
        raise UsageError("--early-stopping keeps the weights of the best epoch and --ema the average of all; "
                         "leave one of them out")  # fmt: skip
    monitor = arguments.monitor or ("val_loss" if is_validated else "train_loss")
    return [EarlyStopping(arguments.early_stopping, monitor)]
