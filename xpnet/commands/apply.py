"""xpnet evaluate and xpnet predict: what a finished run's model makes of data."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import runs
from xpnet.backend import DTYPES, select_backend
from xpnet.callbacks import json_line
from xpnet.commands.arguments import UsageError, add_device
from xpnet.commands.data import load_again, open_rows
from xpnet.commands.loop_options import add_metrics
from xpnet.commands.report import metrics_text
from xpnet.model_file import write_aside
from xpnet.network import Network
from xpnet.options import check_option
from xpnet.training import evaluate

BLOCK = 1 << 14  # rows of a file in memory at a time


def add_parsers(commands: Any) -> None:
    """Add both commands to the parser's commands."""
    command = commands.add_parser("evaluate", help="measure a run on its data", allow_abbrev=False)
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument("--data-dir", help="where the data lie now (default: where they were)")
    add_metrics(command)
    command.add_argument("--json", action="store_true", help="one JSON line a part")
    add_device(command)
    command.set_defaults(run=run_evaluate)
    command = commands.add_parser("predict", help="apply a run's model to rows of a .npy file", allow_abbrev=False)
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument("--input", required=True, metavar="X.npy", help="rows (n_samples, n_features)")
    command.add_argument("--out", required=True, metavar="Y.npy|Y.csv", help="where the rows of predictions go")
    command.add_argument("--labels", action="store_true", help="write the label of each row, not the outputs")
    add_device(command)
    command.set_defaults(run=run_predict)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Run `xpnet evaluate`: loss and accuracy on the samples held out and on the test set, or else on all."""
    config = runs.read_config(arguments.directory)
    network = Network.load(Path(arguments.directory) / runs.MODEL, backend_of(arguments, config))
    data = load_again(config["data"], arguments.data_dir)
    parts = {"validation": data.validation, "test": data.test}
    if not any(parts.values()):
        parts = {"training": data.training}
    for part, dataset in parts.items():
        if dataset is None:
            continue
        measured = evaluate(network, dataset, arguments.metrics)
        if arguments.json:
            print(json_line({"part": part, **measured}), flush=True)
            continue
        accuracy = ""
        if "accuracy" in measured:
            accuracy = f"  accuracy {measured['accuracy']:.4f}  ({measured['correct']} of {measured['n']})"
        print(f"{part:<10}  loss {measured['loss']:.4f}{accuracy}{metrics_text(measured)}")
    return 0


def run_predict(arguments: argparse.Namespace) -> int:
    """Run `xpnet predict`."""
    out = Path(arguments.out)
    if out.suffix not in (".npy", ".csv"):
        raise UsageError(f"--out {out} ends in {out.suffix!r}; name a .npy or a .csv file")
    if out.resolve() == Path(arguments.input).resolve():
        raise UsageError(f"--out {out} is the input itself, which would be overwritten; name another file")
    config = runs.read_config(arguments.directory)
    network = Network.load(Path(arguments.directory) / runs.MODEL, backend_of(arguments, config))
    results = _predictions(network, Path(arguments.input), config["data"].get("scale"), arguments.labels)
    content = io.BytesIO()
    if out.suffix == ".npy":
        np.save(content, results, allow_pickle=False)
    else:
        header = "label" if arguments.labels else ",".join(f"output_{i}" for i in range(results.shape[1]))
        pattern = "%d" if arguments.labels else "%.9g"
        np.savetxt(content, results, delimiter=",", header=header, comments="", fmt=pattern)
    write_aside(out, content.getvalue())
    print(f"{len(results)} predictions -> {out}")
    return 0


def _predictions(network: Network, path: Path, scale: float | None, as_labels: bool) -> np.ndarray:
    """Rows of predictions, or of one label each, for the rows of a file, which is read in blocks.

    scale: of the training data; uint8 rows are scaled as these were, all others taken as they are.
    """
    rows, backend = open_rows(path, network.architecture.n_inputs), network.backend
    n_columns = 1 if as_labels else network.architecture.n_outputs
    results = np.empty((len(rows), n_columns), np.int64 if as_labels else backend.dtype)
    for start in range(0, len(rows), BLOCK):
        with np.errstate(over="ignore"):
            values = rows[start : start + BLOCK].astype(backend.dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"{path} holds NaN, infinity or values too large for {backend.dtype}; "
                             "remove those rows, or fill them in")  # fmt: skip
        if scale is not None and rows.dtype == np.uint8:
            values *= backend.dtype.type(scale)
        X = backend.to_device(values.T)
        outputs = network.classify(X).reshape(1, -1) if as_labels else network.predict(X)
        results[start : start + BLOCK] = backend.to_host(outputs).T
    return results


def backend_of(arguments: argparse.Namespace, config: dict[str, Any]) -> xpnet.Backend:
    """The device asked for now, with the float type of the run."""
    stored = config.get("backend")
    dtype = stored.get("dtype", "float32") if isinstance(stored, dict) else "float32"
    return select_backend(arguments.device, check_option("dtype of the run", dtype, DTYPES))
