"""xpnet report: one page about a run, or about several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xpnet
from xpnet import plots
from xpnet.commands import runs
from xpnet.commands.arguments import UsageError, add_device, check_writable
from xpnet.commands.finished import Finished, read_finished
from xpnet.commands.pictures import judge_of, pictures
from xpnet.commands.report import warnings_said
from xpnet.commands.table_report import report_of
from xpnet.files import write_atomically
from xpnet.plots.figures import encoded, smaller
from xpnet.recipe.units import measured_on, metrics_for
from xpnet.reports import Subject, check_one_task, report_page

SUFFIXES = (".html", ".htm")
SHOWN = {  # of the pictures that `xpnet plot` draws: the words for them
    "confusion": "Confusion matrix",
    "roc": "ROC",
    "precision-recall": "Precision and recall",
    "calibration": "Calibration",
    "mistakes": "Worst mistakes",
    "regions": "Decision regions",
    "misclassified": "Misclassified samples",
    "predicted": "Predicted against true values",
    "residuals": "Residuals",
}


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "report",
        help="one page about finished runs of a task (extra: xpnet[plot])",
        allow_abbrev=False,
        usage="%(prog)s RUN [RUN ...] --out REPORT.html [OPTIONS]",
    )
    command.add_argument("directories", metavar="RUN", nargs="+", help="run directories, of one task")
    command.add_argument("--out", metavar="REPORT.html", required=True, help="where the page goes")
    command.add_argument("--data-dir", help="where the data lie now (default: where they were)")
    add_device(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command: write the page, and print its path."""
    out = Path(arguments.out)
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out is {out}, and a report is a page of HTML; name a file such as {out.stem}.html")
    check_writable("--out", arguments.out)
    names = list(dict.fromkeys(name.rstrip("/") or name for name in arguments.directories))
    for name in names:
        runs.read_config(name)  # refuses what is no run before all else
    plots.new_axes()  # refuses a missing matplotlib before anything is loaded
    found = [read_finished(name, arguments) for name in names]
    for name, each in zip(names, found, strict=True):
        _check_trained(name, each)
    check_one_task([_named(each) for each in found])
    with warnings_said():
        page = report_page([_measured(each) for each in found], xpnet.__version__)
    write_atomically(out, page.encode("utf-8", "backslashreplace"))
    print(out, flush=True)
    return 0


def _check_trained(name: str, found: Finished) -> None:
    if not any(record["epoch"] for record in found.history):
        raise ValueError(
            f"{name} never trained, its {runs.HISTORY} has the untrained network alone; a report needs an epoch; "
            f"continue it: xpnet train --resume {name} --epochs 20"
        )


def _named(found: Finished) -> Subject:
    return Subject(str(found.directory), found.config, found.history, found.network, found.table)


def _measured(found: Finished) -> Subject:
    """Return the subject with what its data tell."""
    network, data, table = found.network, found.data, found.table
    if data is None:
        told = "its data are not where they were; here is what needs none"
        return Subject(str(found.directory), found.config, found.history, network, table, note=told)
    parts = {"validation": data.validation, "test": data.test}
    parts = parts if any(parts.values()) else {"training": data.training}
    metrics = metrics_for(found.config.get("options", {}).get("metrics") or [], table)
    measured = {
        part: measured_on(network, dataset, metrics, table) for part, dataset in parts.items() if dataset is not None
    }
    details = {} if table is None else report_of(network, judge_of(data)[1], table, data.training)
    return Subject(
        str(found.directory), found.config, found.history, network, table, measured, details, list(_pictures(found))
    )


def _pictures(found: Finished) -> Iterator[tuple[str, bytes]]:
    for name, ax in pictures(found.history, found.network, found.data):
        kind, _, number = name.partition("-") if name.startswith(("predicted", "residuals")) else (name, "", "")
        if kind in SHOWN:
            smaller(ax)
            yield f"{SHOWN[kind]}{f' of target {number}' if number else ''}", encoded(ax.figure, ".svg")
