"""xpnet train --folds K: how a training does on rows that it has not seen, over all rows in turn, before the run."""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from xpnet.commands.arguments import UsageError
from xpnet.commands.attempt import lower_rate, make_attempt
from xpnet.commands.data import Loaded, weighed
from xpnet.commands.defaults import resolve_without_validation
from xpnet.commands.ensemble import train_others
from xpnet.commands.report import figure, say
from xpnet.commands.split_options import count_of
from xpnet.commands.wording import wrapped
from xpnet.recipe.attempt import attempt_that_ends
from xpnet.recipe.samples import Data
from xpnet.recipe.units import measured_on, metrics_for
from xpnet.tables.splitting import LAST, SHUFFLE, STRATIFY, Split, folds, held_out, kind_and_column
from xpnet.training.records import json_line

COUNTS = ("n", "correct")  # of what `evaluate` returns, no measures

Measured = dict[str, list[float]]


def measure_folds(arguments: argparse.Namespace, loaded: Loaded, announce: Callable[[], None]) -> Measured:
    """Train as the options say on all folds but one, measure that one, and so for each; returns the measures by name.

    Of the rows to train on some are held out as in the run itself, so that a fold has no say in its own training.
    announce: says what was decided about the data, when the first fold is there.
    Raises UsageError for folds that these data cannot have.
    """
    found: Measured = {}
    data_of_folds = _data_of_folds(arguments, loaded)
    for number in range(1, arguments.folds + 1):
        own = argparse.Namespace(**vars(arguments))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the run itself will say them
            data = next(data_of_folds)
            if number == 1:
                announce()
            if data.validation is None:
                resolve_without_validation(own)
            measured = _measure(own, data)
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
        if not arguments.quiet:
            told = ", ".join(f"{name} {figure(value)}" for name, value in measured.items())
            say(f"fold {number} of {arguments.folds}: {told}")
    return found


def summary_of(measured: Measured) -> dict[str, dict[str, Any]]:
    """Return mean, deviation (of a sample) and values of each measure, ready for JSON; None for NaN."""
    found = {}
    for name, values in measured.items():
        numbers = (float(np.mean(values)), float(np.std(values, ddof=1)))
        mean, deviation, *each = (value if math.isfinite(value) else None for value in (*numbers, *values))
        found[name] = {"mean": mean, "deviation": deviation, "values": each}
    return found


def print_folds(arguments: argparse.Namespace, summary: dict[str, dict[str, Any]]) -> None:
    """Print the summary of the folds as one line, or as one of JSON."""
    if arguments.json:
        print(json_line({"folds": arguments.folds, **summary}), flush=True)
        return
    parts = []
    for name, each in summary.items():
        mean, deviation = (math.nan if value is None else value for value in (each["mean"], each["deviation"]))
        parts.append(f"{name} {figure(mean)} ({figure(deviation)})")
    print(wrapped(f"{arguments.folds} folds, mean (deviation): {', '.join(parts)}", sys.stdout, "  "), flush=True)


def _measure(arguments: argparse.Namespace, data: Data) -> dict[str, float]:
    """Train on a fold's training rows and return the measures of the fold, which is the test set."""
    assert data.test is not None
    attempt = attempt_that_ends(partial(make_attempt, arguments, data), partial(lower_rate, arguments), data)
    with attempt.averaged():
        network = train_others(argparse.Namespace(**vars(arguments) | {"quiet": True}), data, attempt.network).network
        metrics = metrics_for(arguments.metrics, data.table)
        measured = measured_on(network, data.test, metrics, data.table)
    return {name: value for name, value in measured.items() if name not in COUNTS}


def _data_of_folds(arguments: argparse.Namespace, loaded: Loaded) -> Iterator[Data]:
    """Yield the data of each fold: the rows to train on, those held out of them, and the fold as the test set."""
    samples = loaded.samples
    if samples.is_large:
        raise UsageError(
            f"--folds {arguments.folds} takes samples from anywhere, and {samples.name}, which is large, is read in "
            "blocks; leave --folds out"
        )
    kind, column = kind_and_column(arguments.split)
    labels = samples.labels
    if kind == LAST:  # the default of these data; one that is asked for has been refused
        kind = SHUFFLE if labels is None else STRATIFY
    split = Split(kind, 0, arguments.seed, column)
    values = samples.values(split)
    try:
        masks = list(folds(split, arguments.folds, samples.n, labels, values))
    except ValueError as error:
        raise UsageError(f"--folds {arguments.folds}: {error}") from None
    for fold in masks:
        rest = np.flatnonzero(~fold)
        inner = replace(split, n_held_out=count_of(arguments, samples.name, len(rest)))
        parts = [None if each is None else each[rest] for each in (labels, values)]
        try:
            chosen = held_out(inner, len(rest), *parts)
        except ValueError as error:
            raise UsageError(
                f"--folds {arguments.folds}: of the rows beside a fold {error}; or leave --folds out"
            ) from None
        training, validation = np.zeros((2, samples.n), bool)
        training[rest[~chosen]], validation[rest[chosen]] = True, True
        masks_of_fold = [training, fold, validation] if validation.any() else [training, fold]
        (trained_on, test, *more), table, _ = samples.cut(masks_of_fold)
        data = Data(trained_on, more[0] if more else None, test, loaded.source, inner, table, loaded.labels_dtype)
        yield weighed(arguments, data)
