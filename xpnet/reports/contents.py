"""What the tables of a report say: results, settings, the model's card, its features."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xpnet.reports.subject import Subject
from xpnet.tables.columns import Category, Numeric
from xpnet.tables.decisions import lines
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.records import lower_is_better, measures_of

Rows = list[list[str]]
MOST_LISTED = 10  # categories that are named
NONE = "–"


def number(value: Any) -> str:
    """Return a value of a table as text, numbers with four digits or more."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}" if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else value  # folders are nobody else's business
    if isinstance(value, list):
        return ", ".join(map(number, value))
    return json.dumps(value, ensure_ascii=False)


def results(subjects: Sequence[Subject]) -> tuple[Rows, list[tuple[int, int]]]:
    """Return a row for each score and each time, a cell for each run, and the places of the best scores."""
    rows, best = Rows(), list[tuple[int, int]]()
    chosen = [_chosen(subject) for subject in subjects]
    for name in measures_of(chosen):
        _add(rows, best, f"{name}, of the epoch chosen", [record.get(name) for record in chosen], lower_is_better(name))
    parts = dict.fromkeys(part for subject in subjects for part in subject.measured)
    for part in parts:
        names = dict.fromkeys(name for subject in subjects for name in subject.measured.get(part, {}))
        for name in names:
            values = [subject.measured.get(part, {}).get(name) for subject in subjects]
            lower = None if name in ("n", "correct") else lower_is_better(name)
            _add(rows, best, f"{part}: {name}", values, lower)
    for name, told in _times(subjects).items():
        _add(rows, best, name, told)
    return rows, best if len(subjects) > 1 else []


def _add(rows: Rows, best: list[tuple[int, int]], name: str, values: Sequence[Any], lower: bool | None = None) -> None:
    numbers = [value for value in values if isinstance(value, float) and math.isfinite(value)]
    if lower is not None and len(numbers) > 1:
        most = (min if lower else max)(numbers)
        best += [(len(rows), column) for column, value in enumerate(values, 1) if value == most]
    rows.append([name, *map(number, values)])


def _chosen(subject: Subject) -> dict[str, Any]:
    """Return the record of the epoch whose weights the model has."""
    last = subject.history[-1]
    epoch = last.get("chosen_epoch", last["epoch"])
    return next((record for record in subject.history if record["epoch"] == epoch), last)


def _times(subjects: Sequence[Subject]) -> dict[str, list[Any]]:
    """Return what was run and how long it took, with the machine, by name."""
    found: dict[str, list[Any]] = {}
    for subject in subjects:
        history, last = subject.history, subject.history[-1]
        seconds = float(sum(record.get("seconds") or 0.0 for record in history))
        steps = sum(record.get("steps") or 0 for record in history)
        machine, backend = subject.config.get("machine", {}), subject.config.get("backend", {})
        told = {
            "epochs": last["epoch"],
            "epoch chosen": last.get("chosen_epoch", last["epoch"]),
            "ended": last.get("stopped", "after the epochs asked for"),
            "steps": steps,
            "seconds of training": seconds,
            "steps a second": float(round(steps / seconds)) if seconds else None,
            "engine": last.get("engine"),
            "threads": last.get("threads"),
            "precision": last.get("precision"),
            "device": last.get("device", backend.get("device", "")).partition(": ")[0],
            "processor": machine.get("cpu", "not recorded"),
            "cores": machine.get("cores"),
            "system": machine.get("system"),
            "BLAS": machine.get("blas"),
        }
        for name, value in told.items():
            found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def settings(subjects: Sequence[Subject]) -> tuple[Rows, Rows]:
    """Return the settings in which runs differ, and those that they share, a row each."""
    specs = [_settings_of(subject) for subject in subjects]
    differ, shared = Rows(), Rows()
    for name in dict.fromkeys(name for spec in specs for name in spec):
        values = [spec.get(name) for spec in specs]
        told = list(map(number, values))
        (shared if len(set(told)) == 1 else differ).append([name, *(told[:1] if len(set(told)) == 1 else told)])
    return differ, shared


def _settings_of(subject: Subject) -> dict[str, Any]:
    config, data = subject.config, subject.config["data"]
    network = {"network": str(subject.network.architecture), "parameters": subject.network.architecture.layout.count}
    found = {"data": data.get("dataset"), **network, **config.get("options", {})}
    found |= {"training rows": data.get("n_training"), "rows held out": data.get("n_validation")}
    versions = {f"version of {name}": version for name, version in config.get("versions", {}).items()}
    return {**found, "version of xpnet": config.get("xpnet"), **versions}


def card(subject: Subject) -> Rows:
    """Return the fields of a model card (Mitchell et al. 2019): a row each."""
    config, data, last = subject.config, subject.config["data"], subject.history[-1]
    split, n_held_out = data.get("split") or {}, data.get("n_validation", 0)
    layout = subject.network.architecture.layout
    seed, epoch = config.get("seed"), last.get("chosen_epoch", last["epoch"])
    rule = " ".join(str(split[key]) for key in ("kind", "column") if split.get(key) is not None)
    n_networks = config.get("options", {}).get("ensemble", 1)
    return [
        ["task", subject.task],
        ["data", f"{number(data.get('dataset'))}, {number(data.get('n_training'))} training rows"],
        ["held out", f"{number(n_held_out)} rows, by the rule {rule or 'last'}"],
        ["inputs", _inputs(subject)],
        ["network", f"{subject.network.architecture}, {layout.count:,} parameters, {subject.network.backend.dtype}"],
        ["training", f"{_spelled(config.get('optimizer', {}))}, batches of {config.get('batch_size')}, seed {seed}"],
        ["weights", f"of epoch {epoch} of {last['epoch']}" if n_networks == 1 else _mean_of(n_networks)],
        ["made with", f"xpnet {config.get('xpnet')}, {_spelled(config.get('versions', {}))}"],
        ["use", "to predict rows like those of the training; others are warned of, and predicted all the same"],
        [
            "judged on",
            "test rows, which had no part in the training"
            if "test" in subject.measured
            else "rows held out, by which the epoch was chosen: it looks better on them than it is"
            if n_held_out
            else "the training rows, which says nothing of new ones",
        ],
        ["not known", "how it does on groups of rows, on rows of another time or place, and whether it is fair"],
    ]


def _mean_of(n: int) -> str:
    return f"the mean of {n} networks and, of a table, a linear one; epochs, curves and times are those of the first"


def _inputs(subject: Subject) -> str:
    n = subject.network.architecture.n_inputs
    if subject.table is None:
        return f"{n:,} numbers a row"
    n_columns = len(subject.table.columns)
    return f"{n_columns} column{'s' * (n_columns != 1)}, as {n:,} feature{'s' * (n != 1)}"


def _spelled(spec: dict[str, Any]) -> str:
    name = [str(spec["type"])] if "type" in spec else []
    return ", ".join([*name, *(f"{key} {number(value)}" for key, value in spec.items() if key != "type")])


def features(table: Preprocessing) -> tuple[Rows, list[str]]:
    """Return a row for each column of a table, and lines that say what was decided about them."""
    return [list(_column(column)) for column in table.columns], list(lines(table.decisions))


def _column(column: Any) -> Iterator[str]:
    yield column.name
    if isinstance(column, Category):
        shares = sorted(zip(column.frequencies, column.categories, strict=True), reverse=True)
        named = [f"{name} {share:.0%}" for share, name in shares[:MOST_LISTED]]
        more = [f"{len(shares) - MOST_LISTED} more"] * (len(shares) > MOST_LISTED)
        kind, told = "categories", ", ".join([*named, *more])
    elif isinstance(column, Numeric):
        gaps = f", {column.fill:.4g} where missing" if column.has_indicator else ""
        kind, told = "numbers", f"mean {column.mean:.4g}, deviation {column.deviation:.4g}{gaps}"
    else:
        kind, told = "dates", ", ".join(column.parts)
    yield from (kind, str(column.n_features), told)


def details(found: dict[str, Any]) -> Iterator[tuple[list[str], Rows]]:
    """Yield (head, rows) of the tables of a table's model: errors of each target, or scores of each class."""
    for name, models in found.get("targets", {}).items():
        errors = list(next(iter(models.values())))
        yield (
            [name, *errors],
            [[model, *(number(values[error]) for error in errors)] for model, values in models.items()],
        )
    if found.get("classes"):
        columns = list(next(iter(found["classes"].values())))
        yield ["class", *columns], [[name, *map(number, scores.values())] for name, scores in found["classes"].items()]
    others = {"always": "always the most frequent class", "least_squares": "least squares on the classes"}
    rows = [[told, number(found[key]["accuracy"])] for key, told in others.items() if key in found]
    if "calibration_error" in found:
        rows.append(["the probability of the class predicted is off by", number(found["calibration_error"])])
    if rows:
        yield ["beside it", "accuracy or error"], rows
