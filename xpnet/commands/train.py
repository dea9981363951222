"""xpnet train: train a network and leave a run directory."""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import xpnet
from xpnet import runs
from xpnet.backend import DTYPES, select_backend
from xpnet.callbacks import Callback, HistoryFile, ProgressBar, Record, json_line
from xpnet.commands.arguments import UsageError, add_device, option, size_list, whole
from xpnet.commands.data import Data, add_data, load_data
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.kernels.losses import LOSSES
from xpnet.memory import Held, describe_plan, memory_plan
from xpnet.network import Network
from xpnet.optimizers import SGD
from xpnet.training import evaluate, train


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser("train", help="train a network and leave a run directory", allow_abbrev=False)
    add_data(command)
    command.add_argument("--layers", type=size_list(2, "784,100,200,10"), metavar="N,N,...",
                         help="sizes (default: 100 and 200 between the data's own)")  # fmt: skip
    command.add_argument("--activation", type=option("activation", ACTIVATIONS), default="relu", metavar="NAME",
                         help=f"of hidden layers: {', '.join(ACTIVATIONS)} (default: %(default)s)")  # fmt: skip
    command.add_argument("--output", type=option("output", ACTIVATIONS), default="identity", metavar="NAME",
                         help="of the last layer (default: %(default)s)")  # fmt: skip
    command.add_argument("--loss", type=option("loss", LOSSES), metavar="NAME",
                         help=f"{', '.join(LOSSES)} (default: softmax_cross_entropy for classes, "
                         "else squared_error)")  # fmt: skip
    command.add_argument("--epochs", type=whole(0), default=20, metavar="N", help="(default: %(default)s)")
    command.add_argument("--batch-size", type=whole(1), default=32, metavar="N", help="(default: %(default)s)")
    command.add_argument("--lr", type=_rate, default=0.1, metavar="RATE", help="learning rate (default: %(default)s)")
    command.add_argument("--seed", type=whole(0), default=0, metavar="N", help="(default: %(default)s)")
    command.add_argument("--dtype", type=option("dtype", DTYPES), default="float32", metavar="NAME",
                         help=f"{' or '.join(DTYPES)} (default: %(default)s)")  # fmt: skip
    command.add_argument(
        "--plan", action="store_true", help="before the run, print every buffer that it will hold, and their sum"
    )
    command.add_argument("--out", metavar="DIR", help="run directory (default: runs/<dataset>-<time>)")
    command.add_argument("--json", action="store_true", help="a JSON line an epoch and a summary line on stdout")
    command.add_argument("--quiet", action="store_true", help="only the summary")
    add_device(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    data = load_data(arguments)
    network = _network(arguments, data)
    optimizer = SGD(arguments.lr)
    if arguments.plan:
        _print_plan(arguments, network, optimizer, data)
    run = runs.create_run(arguments.out, Path(arguments.dataset).stem)
    runs.write_config(run, _config(arguments, network, data))
    (run / runs.HISTORY).touch()
    watch = _Report(arguments.json, arguments.quiet)
    callbacks: list[Callback] = [HistoryFile(run / runs.HISTORY), watch]
    if sys.stderr.isatty() and not arguments.quiet:
        callbacks.insert(0, ProgressBar(sys.stderr))
    with _model_saved_at_the_end(network, run / runs.MODEL):
        if not arguments.quiet:
            _announce(arguments, network, data, run)
        train(network, data.training, optimizer, epochs=arguments.epochs, batch_size=arguments.batch_size,
              seed=arguments.seed, validation=data.validation, callbacks=callbacks)  # fmt: skip
    test = None if data.test is None else evaluate(network, data.test)
    _summary(arguments, watch.records, test, network, run)
    return 0


def _network(arguments: argparse.Namespace, data: Data) -> Network:
    training = data.training
    backend = select_backend(arguments.device, arguments.dtype)
    sizes = arguments.layers or [training.n_features, 100, 200, training.n_outputs]
    if (sizes[0], sizes[-1]) != (training.n_features, training.n_outputs):
        raise UsageError(f"--layers goes from {sizes[0]} to {sizes[-1]}, {arguments.dataset} has {training.n_features} "
                         f"features and {training.n_outputs} {'classes' if training.is_classification else 'outputs'}; "
                         "begin and end with these")  # fmt: skip
    has_classes = training.is_classification and training.n_outputs > 1
    loss = arguments.loss or ("softmax_cross_entropy" if has_classes else "squared_error")
    try:
        return Network(sizes, activation=arguments.activation, output=arguments.output, loss=loss,
                       backend=backend, seed=arguments.seed)  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None


def _announce(arguments: argparse.Namespace, network: Network, data: Data, run: Path) -> None:
    _say(network.backend.describe())
    _say(f"{network.architecture}, {network.architecture.layout.count:,} parameters")
    _say(f"{arguments.dataset}: {data.training.n_samples} training, {data.n_validation} validation samples -> {run}")
    if data.training.is_mapped:
        _say("read and shuffled in blocks: their order and the samples of those held at a time, not a full shuffle")


def _print_plan(arguments: argparse.Namespace, network: Network, optimizer: SGD, data: Data) -> None:
    others = [] if data.test is None else [data.test]
    plan: list[Held] = memory_plan(network, data.training, optimizer, batch_size=arguments.batch_size,
                                   validation=data.validation, others=others)  # fmt: skip
    if arguments.json:
        buffers = [{"name": item.name, "bytes": item.nbytes, "place": item.place} for item in plan]
        print(json.dumps({"plan": buffers, "sum": sum(item.nbytes for item in plan)}), flush=True)
    else:
        print(describe_plan(plan), flush=True)


@contextmanager
def _model_saved_at_the_end(network: Network, path: Path) -> Iterator[None]:
    """Whatever ends the training, a signal too, the weights reached so far become the model."""
    handlers = {
        signal.SIGINT: signal.getsignal(signal.SIGINT),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate),
    }
    hang_up = getattr(signal, "SIGHUP", None)  # a terminal or connection that closes; nohup has it ignored
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        handlers[hang_up] = signal.signal(hang_up, _terminate)
    try:
        yield
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        try:
            network.save(path)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _config(arguments: argparse.Namespace, network: Network, data: Data) -> dict[str, Any]:
    return {
        "xpnet": xpnet.__version__,
        "spec": network.to_spec(),
        "data": {
            **data.source,
            "scale": data.training.scale,
            "n_training": data.training.n_samples,
            "n_validation": data.n_validation,
        },
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "optimizer": {"type": "sgd", "lr": arguments.lr},
        "seed": arguments.seed,
        "backend": {"name": network.backend.name, "device": network.backend.device,
                    "dtype": str(network.backend.dtype), "reason": network.backend.reason},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }  # fmt: skip


class _Report(Callback):
    """Writes each record to stdout as a table row, or as a line of JSON."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.records: list[Record] = []

    def on_epoch_end(self, record: Record, network: Network) -> None:
        self.records.append(record)
        if self.as_json:
            print(json_line(record), flush=True)
        elif not self.quiet:
            if record["epoch"] == 0:
                print("epoch  train_loss  val_loss  val_acc  steps/s  seconds", flush=True)
            print(_row(record), flush=True)


def _row(record: Record) -> str:
    rate = record["steps"] / record["seconds"] if record["seconds"] else 0.0
    cells = [f"{record['epoch']:>5}", _loss_cell(record["train_loss"], 10)]
    cells.append(_loss_cell(record["val_loss"], 8) if "val_loss" in record else f"{'-':>8}")
    cells.append(f"{record['val_accuracy']:>7.4f}" if "val_accuracy" in record else f"{'-':>7}")
    cells.append(f"{rate:>7,.0f}" if rate else f"{'-':>7}")
    return "  ".join([*cells, f"{record['seconds']:>7.2f}"])


def _loss_cell(loss: float, width: int) -> str:
    return f"{loss:>{width}.4f}" if loss < 1000 else f"{loss:>{width}.1e}"


def _summary(
    arguments: argparse.Namespace, records: list[Record], test: dict[str, Any] | None, network: Network, run: Path
) -> None:
    last = records[-1]
    seconds = sum(record["seconds"] for record in records)
    steps = sum(record["steps"] for record in records)
    rate = steps / seconds if seconds else 0.0
    if arguments.json:
        line = {
            "val_accuracy": last.get("val_accuracy"), "test_accuracy": (test or {}).get("accuracy"),
            "train_loss": last["train_loss"], "seconds": seconds, "steps_per_second": rate,
            "backend": network.backend.name, "run": str(run),
        }  # fmt: skip
        print(json_line(line), flush=True)
        return
    parts = []
    if "val_accuracy" in last:
        parts.append(f"validation accuracy {last['val_accuracy']:.4f}")
    elif "val_loss" in last:
        parts.append(f"validation loss {last['val_loss']:.6g}")
    if test is not None:
        parts.append(f"test accuracy {test['accuracy']:.4f} ({test['correct']} of {test['n']})")
    parts += [f"{seconds:.1f} s of training", f"{rate:,.0f} steps/s -> {run}"]
    print(", ".join(parts))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _rate(text: str) -> float:
    try:
        return SGD(float(text)).lr
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0, such as 0.1") from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
