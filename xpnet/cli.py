"""The command line: xpnet train, evaluate, predict, info. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import xpnet
from xpnet import bench, datasets, runs
from xpnet.backend import DEVICES, DTYPES, BackendUnavailable, probe_gpu, select_backend
from xpnet.callbacks import Callback, HistoryFile, ProgressBar, Record, json_line
from xpnet.data import Dataset
from xpnet.datasets.mnist import named_directory
from xpnet.kernels.activations import ACTIVATIONS
from xpnet.losses import LOSSES
from xpnet.model_file import write_aside
from xpnet.network import Network
from xpnet.optimizers import SGD
from xpnet.options import check_option
from xpnet.training import TrainingDiverged, evaluate, train

LOADERS: dict[str, Callable[[str | None], tuple[Dataset, Dataset]]] = {
    "mnist-sample": lambda data_dir: datasets.load_mnist_sample(),
    "mnist": datasets.load_mnist,
    "fashion-mnist": datasets.load_fashion_mnist,
}
# Fraction or number of training samples, the last ones, that are held out for validation.
VALIDATION = {"mnist-sample": "0.1", "mnist": "10000", "fashion-mnist": "10000"}
EXAMPLES = """examples:
  xpnet train                                     784-100-200-10 on the digits inside the package
  xpnet train --dataset mnist --epochs 25         on MNIST, downloaded once (extra: xpnet[download])
  xpnet evaluate runs/mnist-sample-20260131-120000
  xpnet predict runs/mnist-sample-20260131-120000 --input X.npy --out Y.csv
  xpnet info                                      versions, threads, GPU: for a bug report
"""
OK, FAILURE, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class UsageError(Exception):
    """The options do not fit each other."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 failure, 2 usage, 130 interrupted, 143 terminated."""
    # A daemon may start us with stdout or stderr closed; then there is nobody to tell.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return USAGE
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _fail(str(error), USAGE)
    except BrokenPipeError:
        _drop_unwritable_stdout()  # the reader has gone, as with `| head`: nobody is left to tell
        return FAILURE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except Terminated:
        return _fail("terminated", TERMINATED)
    except (ValueError, TypeError, OSError, ImportError, MemoryError, BackendUnavailable, TrainingDiverged) as error:
        _drop_unwritable_stdout()
        return _fail(str(error) or type(error).__name__, FAILURE)


def _drop_unwritable_stdout() -> None:
    """What stdout cannot take now (reader gone, disk full) must not fail again when Python flushes at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print(f"xpnet: {' '.join(message.split())}", file=sys.stderr)
    return code


# --- train -----------------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    training, test = LOADERS[arguments.dataset](arguments.data_dir)
    training, validation = _hold_out(training, arguments.validation or VALIDATION[arguments.dataset])
    backend = select_backend(arguments.device, arguments.dtype)
    sizes = arguments.layers or [training.n_features, 100, 200, training.n_outputs]
    if (sizes[0], sizes[-1]) != (training.n_features, training.n_outputs):
        raise UsageError(f"--layers goes from {sizes[0]} to {sizes[-1]}, {arguments.dataset} has {training.n_features} "
                         f"features and {training.n_outputs} classes; begin and end with these")  # fmt: skip
    try:
        network = Network(sizes, activation=arguments.activation, output=arguments.output, loss=arguments.loss,
                          backend=backend, seed=arguments.seed)  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
    optimizer = SGD(arguments.lr)
    run = runs.create_run(arguments.out, arguments.dataset)
    runs.write_config(run, _config(arguments, network, training, validation))
    (run / runs.HISTORY).touch()
    watch = _Report(arguments.json, arguments.quiet)
    callbacks: list[Callback] = [HistoryFile(run / runs.HISTORY), watch]
    if sys.stderr.isatty() and not arguments.quiet:
        callbacks.insert(0, ProgressBar(sys.stderr))
    with _model_saved_at_the_end(network, run / runs.MODEL):
        if not arguments.quiet:
            n_held_out = 0 if validation is None else validation.n_samples
            _say(backend.describe())
            _say(f"{network.architecture}, {network.architecture.layout.count:,} parameters")
            _say(f"{arguments.dataset}: {training.n_samples} training, {n_held_out} validation samples -> {run}")
        train(network, training, optimizer, epochs=arguments.epochs, batch_size=arguments.batch_size,
              seed=arguments.seed, validation=validation, callbacks=callbacks)  # fmt: skip
    _summary(arguments, watch.records, evaluate(network, test), network, run)
    return OK


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


def _hold_out(dataset: Dataset, text: str) -> tuple[Dataset, Dataset | None]:
    """Split off the last N samples, or the last fraction; "0" for none."""
    wanted = float(text)
    count = round(wanted * dataset.n_samples) if wanted < 1.0 else int(wanted)
    if count >= dataset.n_samples:
        raise UsageError(f"--validation {text} of {dataset.n_samples} samples leaves none to train on; give fewer")
    if count == 0:
        return dataset, None
    border = dataset.n_samples - count
    return dataset.subset(slice(0, border)), dataset.subset(slice(border, dataset.n_samples))


def _config(
    arguments: argparse.Namespace, network: Network, training: Dataset, validation: Dataset | None
) -> dict[str, Any]:
    data_dir = None
    if arguments.dataset != "mnist-sample":  # that one lies in the package
        data_dir = named_directory(arguments.dataset, arguments.data_dir)
    return {
        "xpnet": xpnet.__version__,
        "spec": network.to_spec(),
        "data": {
            "dataset": arguments.dataset,
            "data_dir": None if data_dir is None else str(data_dir.resolve()),
            "scale": training.scale,
            "n_training": training.n_samples,
            "n_validation": 0 if validation is None else validation.n_samples,
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
    arguments: argparse.Namespace, records: list[Record], test: dict[str, Any], network: Network, run: Path
) -> None:
    last = records[-1]
    seconds = sum(record["seconds"] for record in records)
    steps = sum(record["steps"] for record in records)
    rate = steps / seconds if seconds else 0.0
    if arguments.json:
        line = {
            "val_accuracy": last.get("val_accuracy"), "test_accuracy": test.get("accuracy"),
            "train_loss": last["train_loss"], "seconds": seconds, "steps_per_second": rate,
            "backend": network.backend.name, "run": str(run),
        }  # fmt: skip
        print(json_line(line), flush=True)
        return
    accuracy = f"validation accuracy {last['val_accuracy']:.4f}, " if "val_accuracy" in last else ""
    print(f"{accuracy}test accuracy {test['accuracy']:.4f} ({test['correct']} of {test['n']}), "
          f"{seconds:.1f} s of training, {rate:,.0f} steps/s -> {run}")  # fmt: skip


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


# --- evaluate, predict, info -----------------------------------------------------------------------------------------


def _evaluate(arguments: argparse.Namespace) -> int:
    config = runs.read_config(arguments.directory)
    network = Network.load(Path(arguments.directory) / runs.MODEL, _backend_of(arguments, config))
    data = config["data"]
    name = check_option("dataset of the run", data.get("dataset"), LOADERS)
    training, test = LOADERS[name](arguments.data_dir or data.get("data_dir"))
    n_validation = data.get("n_validation", 0)
    if n_validation >= training.n_samples:
        raise ValueError(f"n_validation of the run is {n_validation}, {name} has {training.n_samples} samples; "
                         "restore config.json, or name the run's data with --data-dir")  # fmt: skip
    _, validation = _hold_out(training, str(n_validation))
    parts = {"test": test} if validation is None else {"validation": validation, "test": test}
    for part, dataset in parts.items():
        measured = evaluate(network, dataset)
        if arguments.json:
            print(json_line({"part": part, **measured}), flush=True)
        else:
            print(f"{part:<10}  loss {measured['loss']:.4f}  accuracy {measured['accuracy']:.4f}  "
                  f"({measured['correct']} of {measured['n']})")  # fmt: skip
    return OK


def _predict(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if out.suffix not in (".npy", ".csv"):
        raise UsageError(f"--out {out} ends in {out.suffix!r}; name a .npy or a .csv file")
    config = runs.read_config(arguments.directory)
    network = Network.load(Path(arguments.directory) / runs.MODEL, _backend_of(arguments, config))
    X = _read_rows(Path(arguments.input), network, config["data"].get("scale"))
    device_X = network.backend.to_device(X.T)
    if arguments.labels:
        rows = network.backend.to_host(network.classify(device_X)).reshape(-1, 1)
        header = "label"
    else:
        rows = network.backend.to_host(network.predict(device_X)).T
        header = ",".join(f"output_{i}" for i in range(rows.shape[1]))
    content = io.BytesIO()
    if out.suffix == ".npy":
        np.save(content, np.ascontiguousarray(rows), allow_pickle=False)
    else:
        pattern = "%d" if arguments.labels else "%.9g"
        np.savetxt(content, rows, delimiter=",", header=header, comments="", fmt=pattern)
    write_aside(out, content.getvalue())
    print(f"{len(rows)} predictions -> {out}")
    return OK


def _read_rows(path: Path, network: Network, scale: float | None) -> np.ndarray:
    """Read a .npy file of rows (n_samples, n_features); uint8 rows are scaled as the training data were."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; --input takes a .npy file of rows")
    try:
        # Mapped, since a header may declare more than the file and the memory hold.
        rows = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # a hostile header fails in many ways: SyntaxError, TokenError, MemoryError, ...
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is not a whole .npy file of numbers ({cause}); write it with np.save(path, X)"
        ) from None
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiub":
        raise ValueError(f"{path} does not hold one array of real numbers; write it with np.save(path, X)")
    n_features, dtype = network.architecture.n_inputs, network.backend.dtype
    if rows.ndim != 2 or rows.shape[1] != n_features or not len(rows):
        raise ValueError(f"{path} is {rows.shape}, the network needs rows (n_samples, {n_features}); "
                         "reshape it with X.reshape(len(X), -1), or transpose it")  # fmt: skip
    with np.errstate(over="ignore"):
        values = rows.astype(dtype)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path} holds NaN, infinity or values too large for {dtype}; remove those rows, or fill them in"
        )
    return values * dtype.type(scale) if scale is not None and rows.dtype == np.uint8 else values


def _backend_of(arguments: argparse.Namespace, config: dict[str, Any]) -> xpnet.Backend:
    """The device asked for now, with the float type of the run."""
    stored = config.get("backend")
    dtype = stored.get("dtype", "float32") if isinstance(stored, dict) else "float32"
    return select_backend(arguments.device, check_option("dtype of the run", dtype, DTYPES))


def _info(arguments: argparse.Namespace) -> int:
    lines = {
        "xpnet": xpnet.__version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "numpy": np.__version__,
        "blas": bench.blas(),
        "threads": f"{os.cpu_count()} cores; {bench.threads()}",
    }
    try:
        cupy, gpu = probe_gpu()
        runtime = cupy.cuda.runtime
        lines["cupy"] = cupy.__version__
        lines["cuda"] = f"driver {runtime.driverGetVersion()}, runtime {runtime.runtimeGetVersion()}"
        lines["gpu"] = f"{gpu}, probe passed"
    except BackendUnavailable as error:
        lines["gpu"] = f"none: {error}"
    try:
        lines["device"] = f"{select_backend().device} (auto; set XPNET_DEVICE or --device to choose)"
    except (ValueError, BackendUnavailable) as error:
        lines["device"] = f"none: {error}"
    for name, text in lines.items():
        print(f"{name:<8} {text}")
    return OK


# --- options ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xpnet", description="Train feed-forward networks on NumPy or CuPy.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"xpnet {xpnet.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a network and leave a run directory", allow_abbrev=False))
    command = commands.add_parser("evaluate", help="measure a run on its data", allow_abbrev=False)
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument("--data-dir", help="where the data lie now (default: where they were)")
    command.add_argument("--json", action="store_true", help="one JSON line a part")
    _add_device(command)
    command.set_defaults(run=_evaluate)
    command = commands.add_parser("predict", help="apply a run's model to rows of a .npy file", allow_abbrev=False)
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument("--input", required=True, metavar="X.npy", help="rows (n_samples, n_features)")
    command.add_argument("--out", required=True, metavar="Y.npy|Y.csv", help="where the rows of predictions go")
    command.add_argument("--labels", action="store_true", help="write the label of each row, not the outputs")
    _add_device(command)
    command.set_defaults(run=_predict)
    command = commands.add_parser("info", help="print versions, threads and the GPU probe", allow_abbrev=False)
    command.set_defaults(run=_info)
    return parser


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", type=_option("dataset", LOADERS), default="mnist-sample", metavar="NAME",
                         help=f"{', '.join(LOADERS)} (default: %(default)s)")  # fmt: skip
    command.add_argument("--data-dir", help="folder with the four IDX files (default: $XPNET_DATA, else download)")
    command.add_argument("--layers", type=_sizes, metavar="N,N,...", help="sizes (default: 784,100,200,10)")
    command.add_argument("--activation", type=_option("activation", ACTIVATIONS), default="relu", metavar="NAME",
                         help=f"of hidden layers: {', '.join(ACTIVATIONS)} (default: %(default)s)")  # fmt: skip
    command.add_argument("--output", type=_option("output", ACTIVATIONS), default="identity", metavar="NAME",
                         help="of the last layer (default: %(default)s)")  # fmt: skip
    command.add_argument("--loss", type=_option("loss", LOSSES), default="softmax_cross_entropy", metavar="NAME",
                         help=f"{', '.join(LOSSES)} (default: %(default)s)")  # fmt: skip
    command.add_argument("--epochs", type=_whole(0), default=20, metavar="N", help="(default: %(default)s)")
    command.add_argument("--batch-size", type=_whole(1), default=32, metavar="N", help="(default: %(default)s)")
    command.add_argument("--lr", type=_rate, default=0.1, metavar="RATE", help="learning rate (default: %(default)s)")
    command.add_argument("--validation", type=_part, metavar="N|FRACTION",
                         help="training samples to hold out, the last ones; 0 for none "
                         "(default: 0.1 of mnist-sample, 10000 of the others)")  # fmt: skip
    command.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="(default: %(default)s)")
    command.add_argument("--dtype", type=_option("dtype", DTYPES), default="float32", metavar="NAME",
                         help=f"{' or '.join(DTYPES)} (default: %(default)s)")  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="run directory (default: runs/<dataset>-<time>)")
    command.add_argument("--json", action="store_true", help="a JSON line an epoch and a summary line on stdout")
    command.add_argument("--quiet", action="store_true", help="only the summary")
    _add_device(command)
    command.set_defaults(run=_train)


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", type=_option("device", DEVICES), metavar="NAME",
                         help=f"{', '.join(DEVICES)} (default: $XPNET_DEVICE, else auto)")  # fmt: skip


def _option(name: str, choices: Any) -> Callable[[str], str]:
    def convert(text: str) -> str:
        try:
            return check_option(name, text, choices)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _whole(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 15 or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return convert


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) < 2 or not all(re.fullmatch("[1-9][0-9]{0,9}", part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of sizes; write them as 784,100,200,10")
    return [int(part) for part in parts]


def _rate(text: str) -> float:
    try:
        return SGD(float(text)).lr
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0, such as 0.1") from None


def _part(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0.0 <= value < 1.0 or (value >= 1.0 and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of samples nor a fraction below 1")
    return text


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
