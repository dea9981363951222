"""xpnet train: train a network and leave a run directory."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import plots
from xpnet.backend import NO_CUPY, Backend
from xpnet.commands import runs
from xpnet.commands.arguments import UsageError
from xpnet.commands.attempt import (
    DIVERGED,
    begin_again,
    make_attempt,
    may_try_again,
    resume_told,
    say_if_untrained,
    trained,
)
from xpnet.commands.config_file import add_config, kept_options
from xpnet.commands.data import add_data, check_data, describe_labels, load_data, load_samples
from xpnet.commands.defaults import default_rate, resolve, resolve_by_size, resolve_without_validation
from xpnet.commands.ensemble import add_ensemble, check_ensemble, train_others
from xpnet.commands.folds import measure_folds, print_folds, summary_of
from xpnet.commands.loop_options import add_loop, check_stops, count_updates
from xpnet.commands.network_options import add_network, check_network
from xpnet.commands.optimizer_options import add_optimizer, describe_optimizer, make_optimizer
from xpnet.commands.pictures import write_pictures
from xpnet.commands.report import Report, say, warnings_said
from xpnet.commands.resume import add_resume, take_rate
from xpnet.commands.schedule_options import add_schedule, describe_end, describe_schedule, make_plateau, make_rate
from xpnet.commands.split_options import add_judges, may_validate
from xpnet.commands.table_report import lines_of, report_of
from xpnet.commands.tables import describe, keep_preprocessing
from xpnet.commands.together import Together, add_together, together
from xpnet.commands.wording import width_of
from xpnet.data.dataset import Dataset
from xpnet.engines.choice import AUTO, check_engine, check_precision, check_threads
from xpnet.network.network import Network
from xpnet.recipe.attempt import Attempt
from xpnet.recipe.defaults import BEST
from xpnet.recipe.ensemble import Ensemble
from xpnet.recipe.samples import Data
from xpnet.recipe.units import measured_on, metrics_for
from xpnet.tables.decisions import lines
from xpnet.tables.files import called
from xpnet.timing import machine
from xpnet.training.evaluation import check_compatible, measure
from xpnet.training.loop import TrainingDiverged
from xpnet.training.memory_plan import MemoryItem, describe_plan, memory_plan
from xpnet.training.options import ClassNotTrained, TrainOptions
from xpnet.training.records import Moment

SAID_ALREADY = (ClassNotTrained,)  # by decisions, with the names of the classes
LONG_RUN = 10**9  # stands for the number of updates until the data are known


def add_parser(commands: Any) -> None:
    """Add the command to the parser's commands."""
    command = commands.add_parser(
        "train", help="train a network and leave a run directory", usage="%(prog)s [DATA] [OPTIONS]", allow_abbrev=False
    )
    add_config(command)
    add_data(command)
    add_judges(command)
    add_network(command)
    add_optimizer(command)
    add_schedule(command)
    add_loop(command)
    add_ensemble(command.add_argument_group("ensemble"))
    add_together(command.add_argument_group("several processes"))
    group = command.add_argument_group("output")
    group.add_argument(
        "--plan",
        action="store_true",
        help="before the run, print its memory plan: the large buffers that it will hold, and their sum",
    )
    group.add_argument("--out", metavar="DIR", help="run directory (default: runs/<dataset>-<time>)")
    add_resume(group)
    group.add_argument(
        "--plot",
        action="store_true",
        help="at the end draw the run into its directory, as `xpnet plot` does (extra: xpnet[plot])",
    )
    group.add_argument("--json", action="store_true", help="a JSON line an epoch and a summary line on stdout")
    group.add_argument("--quiet", action="store_true", help="only the summary")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; refuses what is wrong for any data before anything is loaded."""
    with warnings_said(SAID_ALREADY), together(arguments) as processes:
        return _run(arguments, processes)


def _run(arguments: argparse.Namespace, processes: Together) -> int:
    take_rate(arguments)
    resolve(arguments)
    check_options(arguments)
    loaded = load_samples(arguments)
    data = resolve_for(arguments, load_data(arguments, loaded))
    attempt = make_attempt(arguments, data)
    check_loaded(arguments, attempt.network, data)
    if arguments.plan:
        _print_plan(arguments, attempt, data)
    processes.meet()

    measured: dict[str, Any] = {}
    if arguments.folds is not None and arguments.resume is None:
        announce = partial(announce_data, arguments, data)
        measured["folds"] = summary_of(measure_folds(arguments, loaded, announce))
        print_folds(arguments, measured["folds"])

    def config_of(attempt: Attempt) -> dict[str, Any]:
        return config_of_run(arguments, attempt, data) | measured

    with processes.open_run(arguments, config_of(attempt)) as (run, resume):
        announce = partial(_announce, arguments, attempt, data, run)
        with trained_into(run, arguments, data, attempt, config_of, resume, announce) as (report, ensemble):
            if not processes.is_follower:
                print_outcome(arguments, data, report, ensemble, run)
    return 0


@contextmanager
def trained_into(
    run: Path,
    arguments: argparse.Namespace,
    data: Data,
    attempt: Attempt,
    config_of: Callable[[Attempt], dict[str, Any]],
    resume: Moment | None = None,
    announce: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Report, Ensemble]]:
    """Train in a run's directory, which has its config, save the model there, and lend the report and the model.

    config_of: returns the config of the run.  resume, announce: as for `trained`.
    """
    keep_preprocessing(run, data.table)
    try:
        report = trained(arguments, data, attempt, run, resume, announce)
    except TrainingDiverged as error:
        if not may_try_again(arguments, data, run):
            raise
        attempt = begin_again(arguments, data, run, error, config_of)
        report = trained(arguments, data, attempt, run, None, lambda: None)
    say_if_untrained(report, arguments)
    with attempt.averaged():
        with resume_told(arguments, run):
            ensemble = train_others(arguments, data, attempt.network)
        if ensemble.network is not attempt.network:
            ensemble.network.save(run / runs.MODEL)
        yield report, ensemble


def print_outcome(arguments: argparse.Namespace, data: Data, report: Report, ensemble: Ensemble, run: Path) -> None:
    """Print how good the model of a run is, and draw its pictures if they are asked for."""
    diverged_at = runs.read_config(run).get(DIVERGED)
    _print_report(arguments, ensemble.network, data)
    judged = _measured(arguments, ensemble.network, data)
    report.summary(*judged, ensemble.network.backend, str(run), diverged_at, str(ensemble))
    if arguments.plot:
        _draw(arguments, report, ensemble.network, data, run)


def _print_report(arguments: argparse.Namespace, network: Network, data: Data) -> None:
    """Print what `xpnet evaluate` tells of a table's model, on the test set or else on the rows held out."""
    judge = data.validation if data.test is None else data.test
    if data.table is None or judge is None or arguments.quiet or arguments.json:
        return
    for line in lines_of(report_of(network, judge, data.table, data.training), width_of(sys.stdout)):
        print(line, flush=True)


def _draw(arguments: argparse.Namespace, report: Report, network: Network, data: Data, run: Path) -> None:
    """Write the pictures of the run and print their paths, with --json on stderr."""
    for path in write_pictures(run, ".png", report.records, network, data):
        if arguments.json and not arguments.quiet:
            say(str(path))
        elif not arguments.quiet:
            print(path, flush=True)


def resolve_for(arguments: argparse.Namespace, data: Data) -> Data:
    """Set the defaults again that depend on the data; returns these with what is said of it."""
    if data.validation is None:
        resolve_without_validation(arguments)
    if data.table is None and data.images is None:
        return data
    return replace(data, said=[*data.said, *resolve_by_size(arguments, data.training.n_samples)])


def check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that are wrong for any data; raises UsageError."""
    check_data(arguments)
    check_network(arguments)
    check_stops(arguments)
    check_ensemble(arguments)
    check_engine(arguments.engine, "cpu")  # the device is known later
    lr = make_rate(arguments, default_rate(arguments), LONG_RUN if arguments.epochs else 0)
    optimizer = make_optimizer(arguments, lr)
    make_plateau(arguments, optimizer, may_validate(arguments))
    if arguments.plot:
        plots.new_axes()  # refuses a missing matplotlib now, not when all epochs are over


def check_loaded(arguments: argparse.Namespace, network: Network, data: Data) -> None:
    """Refuse what these data do not allow, metrics too, before the first epoch and not after the last."""
    check_compatible(network, data.training, called(arguments.dataset))
    check_engine(arguments.engine, network.backend.device)
    check_precision(arguments.precision, arguments.engine, network.backend)
    check_threads(arguments.threads, arguments.engine, network.backend)
    judge = data.validation if data.test is None else data.test
    if arguments.metrics and judge is None:
        raise UsageError("--metrics are measured on samples held out, and there are none; give some with --validation")
    if judge is not None:
        try:
            measure(network, judge, arguments.metrics)
        except ValueError as error:
            raise UsageError(f"--metrics {','.join(arguments.metrics)}: {error}") from None


def _measured(
    arguments: argparse.Namespace, network: Network, data: Data
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the measures of validation and test set with the weights that were saved."""
    metrics = metrics_for(arguments.metrics, data.table)

    def measured(dataset: Dataset | None) -> dict[str, Any] | None:
        return None if dataset is None else measured_on(network, dataset, metrics, data.table)

    return measured(data.validation), measured(data.test)


def _described(backend: Backend) -> str:
    """Say what computes, and why where the machine has a GPU: without one there is no choice to explain."""
    is_explained = machine.has_gpu() or not backend.reason.startswith((NO_CUPY, f"{AUTO}: "))
    return backend.describe() if is_explained else replace(backend, reason="").describe()


def _announce(arguments: argparse.Namespace, attempt: Attempt, data: Data, run: Path) -> None:
    network, optimizer = attempt.network, attempt.optimizer
    if arguments.quiet:
        return
    say(_described(network.backend))
    say(f"{network.architecture}, {network.architecture.layout.count:,} parameters, {optimizer}")
    counts = f"{data.training.n_samples} training, {data.n_validation} validation samples"
    say(f"{called(arguments.dataset)}: {counts} -> {run}")
    end = describe_end(arguments, optimizer, count_updates(arguments, network, data.training))
    if end is not None:
        say(end)
    if arguments.folds is None or arguments.resume is not None:  # before the folds otherwise
        announce_data(arguments, data)
    if data.training.is_mapped:
        say("read and shuffled in blocks: their order and the samples of those held at a time, not a full shuffle")


def announce_data(arguments: argparse.Namespace, data: Data) -> None:
    """Say what was decided about the data."""
    if arguments.quiet:
        return
    for line in lines(data.said):
        say(line)
    labels = describe_labels(data)
    if labels is not None:
        say(labels)
    for line in () if data.table is None else describe(data.table):
        say(line)


def _print_plan(arguments: argparse.Namespace, attempt: Attempt, data: Data) -> None:
    others = [] if data.test is None else [data.test]
    plan: list[MemoryItem] = memory_plan(
        attempt.network,
        data.training,
        attempt.optimizer,
        batch_size=arguments.batch_size,
        validation=data.validation,
        others=others,
        accumulate=arguments.accumulate,
        early_stopping=arguments.end_with == BEST,
        reduction=TrainOptions(0, communicator=arguments.communicator, reduction=arguments.reduction).adding,
    ).items
    if arguments.json:
        buffers = [{"name": item.name, "bytes": item.nbytes, "place": item.place} for item in plan]
        print(json.dumps({"plan": buffers, "sum": sum(item.nbytes for item in plan)}), flush=True)
    else:
        print(describe_plan(plan, width_of(sys.stdout)), flush=True)


def config_of_run(arguments: argparse.Namespace, attempt: Attempt, data: Data) -> dict[str, Any]:
    """Return the config of a run, ready for JSON."""
    network, optimizer = attempt.network, attempt.optimizer
    return {
        "xpnet": xpnet.__version__,
        "spec": network.to_spec(),
        "data": {
            **data.source,
            "scale": data.training.scale,
            "n_training": data.training.n_samples,
            "n_validation": data.n_validation,
            "split": data.split.to_spec(),
        },
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "optimizer": describe_optimizer(optimizer, default_rate(arguments))
        | describe_schedule(optimizer, attempt.plateau),
        "seed": arguments.seed,
        "options": kept_options(arguments, data.source),
        "backend": {
            "name": network.backend.name,
            "device": network.backend.device,
            "dtype": str(network.backend.dtype),
            "reason": network.backend.reason,
        },
        "machine": machine.hardware(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
