"""xpnet evaluate and xpnet predict: what a finished run's model makes of data."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend import asked_device
from xpnet.commands import runs
from xpnet.commands.arguments import Several, UsageError, add_device, check_writable, checked, number
from xpnet.commands.data import load_again
from xpnet.commands.image_data import check_images_for, format_of, predict_images, read_other_images
from xpnet.commands.loop_options import add_metrics
from xpnet.commands.reading_options import add_reading, check_stray, from_kept, reading_of
from xpnet.commands.report import metrics_text, say, warnings_said
from xpnet.commands.serving import check_alone, of_arrays, of_table, serve
from xpnet.commands.table_report import importance_of, lines_of, report_of
from xpnet.commands.tables import add_drop, column_names, preprocessing_of, without
from xpnet.commands.wording import width_of, wrapped
from xpnet.data.dataset import Dataset
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.network import Network
from xpnet.recipe.units import measured_on, metrics_for
from xpnet.tables.arrays import open_all_rows
from xpnet.tables.decisions import lines
from xpnet.tables.files import Names, called, each, expanded, is_images, is_table, naming, read_table
from xpnet.tables.formats import ROWS, TABLE, either, example, suffixes
from xpnet.tables.model import TableModel, check_fit, dtype_of
from xpnet.tables.options import check_columns
from xpnet.tables.parts import parts_of
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.remarks import Remarks
from xpnet.tables.writing import (
    check_written,
    is_stdout,
    write_rows,
    write_table,
    write_table_in_parts,
    written_suffixes,
)
from xpnet.training.records import json_line

OF_TABLES = ("importance", "proba", "threshold", "keep")  # options of either command


def add_parsers(commands: Any) -> None:
    """Add both commands to the parser's commands."""
    command = commands.add_parser(
        "evaluate",
        help="measure a run on its data, or on a table",
        allow_abbrev=False,
        usage=f"%(prog)s RUN [{example(TABLE, 'T')}] [OPTIONS]",
    )
    command.word_for = "input"
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument(
        "--input",
        type=checked(expanded),
        action=Several,
        metavar=example(TABLE, "T"),
        help=f"{example(TABLE, 'T')}: rows with their targets, for a run on a table (default: the run's own data)",
    )
    add_drop(command)
    add_reading(command)
    command.add_argument("--data-dir", help="where the data lie now (default: where they were)")
    add_metrics(command)
    command.add_argument(
        "--importance",
        action="store_true",
        help="of a table: by how much accuracy or R2 falls when a column's values are dealt to other rows",
    )
    command.add_argument("--json", action="store_true", help="one JSON line a part")
    add_device(command)
    command.set_defaults(run=run_evaluate)
    command = commands.add_parser(
        "predict",
        help=f"apply a run's model to rows of a table or a {either(suffixes(ROWS))} file",
        allow_abbrev=False,
        usage="%(prog)s RUN INPUT --out OUT [OPTIONS] | %(prog)s RUN --jsonl [OPTIONS]",
    )
    command.word_for, command.word_needed, command.without_word = "input", True, "jsonl"
    command.add_argument("directory", metavar="RUN", help="a run directory")
    command.add_argument(
        "--input",
        type=checked(expanded),
        action=Several,
        metavar=f"{example(ROWS, 'X')}|{example(TABLE, 'T')}",
        help="INPUT: rows (n_samples, n_features), or for a run on a table a table: one, several, a folder; - is stdin",
    )
    add_drop(command)
    add_reading(command)
    for_rows, for_tables = written_suffixes(ROWS), written_suffixes(TABLE)
    command.add_argument(
        "--out",
        metavar="|".join(f"Y{suffix}" for suffix in dict.fromkeys([*for_rows, *for_tables])),
        help=f"where the rows of predictions go: {either(for_rows)}, for a table {either(for_tables)}, or - for stdout",
    )
    command.add_argument(
        "--jsonl",
        action="store_true",
        help="answer rows from stdin, a JSON list of numbers or an object of columns each, line by line on stdout",
    )
    what = command.add_mutually_exclusive_group()
    what.add_argument("--labels", action="store_true", help="write the label of each row, not the outputs")
    what.add_argument("--proba", action="store_true", help="of a table: write the probability of each class alone")
    command.add_argument(
        "--threshold",
        type=number("0.5", above=0),
        metavar="P",
        help="of a table with two classes: the probability from which on a row is of the second (default: 0.5)",
    )
    command.add_argument(
        "--keep",
        type=str,
        action=Several,
        metavar="COLUMN[,COLUMN...]",
        help="of a table: write these columns of the rows too, an identifier say",
    )
    add_device(command)
    command.set_defaults(run=run_predict)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Run `xpnet evaluate`: loss and accuracy on the samples held out and on the test set, or else on all."""
    with warnings_said():
        return _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    run = Path(arguments.directory)
    config = runs.read_config(run)
    network = Network.load(run / runs.MODEL, **place_of(arguments, config))
    table = preprocessing_of(run, config)
    check_images_for(arguments, config["data"])
    _check_table(arguments, network, table)
    parts, training = _parts(arguments, config, network, table)
    for part, dataset in parts.items():
        if dataset is None:
            continue
        measured = measured_on(network, dataset, metrics_for(arguments.metrics, table), table)
        report = {} if table is None else report_of(network, dataset, table, training)
        if table is not None and arguments.importance:
            report["importance"] = importance_of(network, dataset, table)
        if arguments.json:
            told = {"report": report} if report else {}
            print(json_line({"part": part, **measured, **told}), flush=True)
            continue
        accuracy = ""
        if "accuracy" in measured:
            accuracy = f"  accuracy {measured['accuracy']:.4f}  ({measured['correct']} of {measured['n']})"
        print(wrapped(f"{part:<10}  loss {measured['loss']:.4f}{accuracy}{metrics_text(measured)}", sys.stdout, "  "))
        for line in lines_of(report, width_of(sys.stdout)):
            print(line)
    return 0


def _parts(
    arguments: argparse.Namespace, config: dict[str, Any], network: Network, table: Preprocessing | None
) -> tuple[dict[str, Dataset | None], Dataset | None]:
    """Return the data that a run is measured on, by name, and what it was trained on, None with others."""
    if arguments.input is not None and table is not None:
        if any(_is_same(name, config["data"]["dataset"]) for name in each(arguments.input)):
            say(
                f"xpnet: {called(arguments.input)} is what the run was trained on, so this is no score on new rows; "
                f"`xpnet evaluate {arguments.directory}` measures the rows that were held out"
            )
        frame = _raw_rows(arguments, table, config)
        with naming(called(arguments.input)):
            rows, left_out = table.target.known_in(frame)
            for line in lines(left_out):
                say(f"xpnet: {line}")
            measured = table.dataset(rows, network.backend.dtype)
        TableModel(network, table).warn_of_columns(measured.X, rows)
        return {called([Path(name).name for name in each(arguments.input)]): measured}, None
    if arguments.input is not None:
        folder = called(arguments.input)
        return {Path(folder).name: read_other_images(folder, format_of(config["data"]["images"]))}, None
    data = load_again(config["data"], arguments.data_dir, table, str(network.backend.dtype))
    parts = {"validation": data.validation, "test": data.test}
    return parts if any(parts.values()) else {"training": data.training}, data.training


def _is_same(name: str, others: str | Sequence[str]) -> bool:
    """Whether a file is one of others, whatever links lead to it."""
    return os.path.realpath(name) in map(os.path.realpath, each(others))


def run_predict(arguments: argparse.Namespace) -> int:
    """Run `xpnet predict`."""
    with warnings_said():
        return _predict(arguments)


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.proba and arguments.threshold is not None:
        raise UsageError("--threshold decides between classes, and --proba writes none; leave one of them out")
    if arguments.jsonl:
        return _serve(arguments)
    if arguments.out is None:
        raise UsageError("the following arguments are required: --out; name the file to write, or - for stdout")
    out, run = Path(arguments.out), Path(arguments.directory)
    if not is_stdout(out) and _is_same(arguments.out, arguments.input):
        raise UsageError(f"--out {out} is the input itself, which would be overwritten; name another file")
    config = runs.read_config(run)
    table = preprocessing_of(run, config)
    try:
        check_written(out, ROWS if table is None and not is_images(arguments.input) else TABLE)
    except ValueError as error:
        raise UsageError(f"--out {error}") from None
    if not is_stdout(out):
        check_writable("--out", arguments.out)
    network = Network.load(run / runs.MODEL, **place_of(arguments, config))
    check_images_for(arguments, config["data"])
    _check_table(arguments, network, table)
    if table is not None:
        _say_written(_predict_table(arguments, TableModel(network, table), config), out)
        return 0
    if is_images(arguments.input):
        found = predict_images(network, arguments.input, config["data"], arguments.labels)
        write_table(out, found)
        _say_written(len(found["file"]), out)
        return 0
    results = _predictions(network, arguments.input, config["data"].get("scale"), arguments.labels)
    write_rows(out, results, ["label"] if arguments.labels else [f"output_{i}" for i in range(results.shape[1])])
    _say_written(len(results), out)
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    """Answer rows from stdin until it ends."""
    check_alone(arguments)
    run = Path(arguments.directory)
    config = runs.read_config(run)
    table = preprocessing_of(run, config)
    network = Network.load(run / runs.MODEL, **place_of(arguments, config))
    _check_table(arguments, network, table)
    if table is None:
        serve(of_arrays(network, config["data"].get("scale"), arguments.labels))
    else:
        serve(of_table(TableModel(network, table), arguments))
    return 0


def _predict_table(arguments: argparse.Namespace, model: TableModel, config: dict[str, Any]) -> int:
    """Predict a table, in parts if it is large, and return how many rows it has.

    What is to be said of the rows is said once, of all of them.
    """
    table, name = model.preprocessing, called(arguments.input)
    parts = None
    if not table.is_strict:  # which counts what it refuses in all rows
        parts = parts_of(arguments.input, reading_of(arguments, from_kept(config["data"])), table.text_columns)
    frames = iter([_raw_rows(arguments, table, config)]) if parts is None else parts.frames()
    remarks, n_rows = Remarks(model), 0

    def predicted() -> Iterator[dict[str, Any]]:
        nonlocal n_rows
        for frame in frames:
            rows = frame if parts is None else without(frame, arguments.drop, name)
            with naming(name):
                columns = _columns(arguments, model, rows, remarks)
            n_rows += len(rows)
            yield columns

    if parts is None:
        write_table(arguments.out, next(predicted()))
    else:
        write_table_in_parts(arguments.out, predicted())
    remarks.warn()
    return n_rows


def _columns(arguments: argparse.Namespace, model: TableModel, frame: Any, remarks: Remarks) -> dict[str, Any]:
    """Return the columns that predict writes of a table: those to keep, the target, and what each class is given."""
    target = model.preprocessing.target
    kept = column_names(frame, arguments.keep)
    check_columns(frame, kept)
    X = remarks.encode(frame)
    columns = {name: frame[name].to_numpy() for name in kept}
    if arguments.proba:
        return columns | model.probabilities(X)
    values = model.values(X, arguments.threshold)
    columns |= {f"predicted_{name}" if name in kept else name: each for name, each in values.items()}
    return columns if arguments.labels or target.task == "regression" else columns | model.scores(X)


def _check_table(arguments: argparse.Namespace, network: Network, table: Preprocessing | None) -> None:
    """Refuse a table for a run on other data, and a preprocessing that is not this network's."""
    run, is_input = arguments.directory, arguments.input is not None
    if table is None:
        if arguments.drop is not None or (is_input and is_table(arguments.input)):
            given = f"the table {called(arguments.input)}" if is_input and is_table(arguments.input) else "--drop"
            raise UsageError(
                f"{run} was not trained on a table, and {given} goes with one; "
                f"give a {either(suffixes(ROWS))} file of rows, or a run on a table"
            )
        if is_input and arguments.command == "evaluate" and not is_images(arguments.input):
            raise UsageError(
                f"{run} was not trained on a table, and is measured on its own data; leave "
                f"{arguments.input} out, or say where they lie now with --data-dir"
            )
        check_stray(arguments, "a run on other data")
        if getattr(arguments, "labels", False) and runs.predicts_numbers(Path(run)):
            raise UsageError(f"{run} predicts numbers, and --labels writes classes; leave it out")
        for flag in OF_TABLES:
            if getattr(arguments, flag, None) not in (None, False):
                raise UsageError(f"--{flag} goes with a run on a table, and {run} was not trained on one; leave it out")
        return
    if not is_input and arguments.drop is not None:
        raise UsageError("--drop goes with the table of rows to measure; name one, or leave it out")
    if not is_input:
        check_stray(arguments, "the run's own data, which are read as they were")
    check_fit(Path(run) / runs.TABLE, network, table)
    if getattr(arguments, "threshold", None) is not None:
        TableModel(network, table).check_takes_threshold()
    if getattr(arguments, "proba", False):
        TableModel(network, table).check_has_probabilities()


def _raw_rows(arguments: argparse.Namespace, table: Preprocessing, config: dict[str, Any]) -> Any:
    reading = reading_of(arguments, from_kept(config["data"]))
    return without(
        read_table(arguments.input, reading, table.text_columns).frame, arguments.drop, called(arguments.input)
    )


def _predictions(network: Network, names: Names, scale: float | None, as_labels: bool) -> np.ndarray:
    """Return rows of predictions, or of one label each, for the rows of files, read in blocks.

    scale: of the training data; uint8 rows are scaled as these were, all others taken as they are.
    """
    rows, backend = open_all_rows(names, network.architecture.n_inputs), network.backend

    def ready(block: np.ndarray) -> Any:
        with np.errstate(over="ignore"):
            values = block.astype(backend.dtype)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{called(names)} holds NaN, infinity or values too large for {backend.dtype}; "
                "remove those rows, or fill them in"
            )
        if scale is not None and rows.dtype == np.uint8:
            values *= backend.dtype.type(scale)
        return backend.to_device(values)

    found = predict_in_blocks(backend, network.classify if as_labels else network.predict, rows, ready)
    return np.ascontiguousarray(found.reshape(-1, len(rows)).T)


def _say_written(n: int, out: Path) -> None:
    """Say how many predictions were written and where, on stderr if they went to stdout."""
    told = f"{n} prediction{'s' * (n != 1)} -> "
    if is_stdout(out):
        say(f"{told}stdout")
    else:
        print(f"{told}{out}")


def place_of(arguments: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    """Return the device asked for now and the float type of the run, as `Network.load` takes them."""
    asked_device(arguments.device)  # refuses what the environment says before the file is read
    return {"device": arguments.device, "dtype": dtype_of(config)}
