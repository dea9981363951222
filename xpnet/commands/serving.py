"""xpnet predict RUN --jsonl: rows from stdin, a line of JSON each, answered line by line until stdin ends."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.commands.arguments import UsageError
from xpnet.commands.reading_options import check_stray
from xpnet.commands.report import say
from xpnet.files import json_text, parse_json
from xpnet.network.network import Network
from xpnet.tables.decisions import lines
from xpnet.tables.formats import pandas_for
from xpnet.tables.model import TableModel

LONGEST = 1 << 24  # bytes of a line
Answer = dict[str, Any]


def check_alone(arguments: argparse.Namespace) -> None:
    """Refuse what does not go with --jsonl; raises UsageError."""
    for name in ("input", "out", "drop", "keep"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name} does not go with --jsonl, which reads stdin and writes stdout; leave it out")
    check_stray(arguments, "--jsonl, whose rows are JSON")


def serve(answer: Callable[[Any], Answer]) -> None:
    """Answer each line of stdin by one line, at once; a bad one by {"error": ..., "line": its number}.

    answer: makes predictions of a row, and raises ValueError or TypeError for a bad one.
    The rows a second are told at the end, without the time that was waited for rows.
    """
    n, n_bad, seconds = 0, 0, 0.0
    try:
        for line in _lines():
            begin = time.perf_counter()
            n += 1
            try:
                found = answer(_value(line))
            except (ValueError, TypeError, ArithmeticError) as error:
                n_bad += 1
                found = {"error": one_line(error), "line": n}
            print(json_text(found), flush=True)
            seconds += time.perf_counter() - begin
    finally:
        bad = f", {n_bad} of them bad" if n_bad else ""
        say(f"{n} row{'s' * (n != 1)}{bad}: {n / seconds if seconds else 0.0:,.0f} rows a second")


def _lines() -> Iterator[bytes]:
    """Yield the lines of stdin as they come; of one that is too long its beginning."""
    stream = sys.stdin.buffer
    while line := stream.readline(LONGEST + 1):
        while len(line) > LONGEST and (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
            pass
        yield line


def _value(line: bytes) -> Any:
    if len(line) > LONGEST:
        raise ValueError(f"the line has more than {LONGEST} bytes; a row may have as many; give fewer")
    try:
        return parse_json(line.decode("utf-8-sig").strip())
    except ValueError as error:
        raise ValueError(f"the line is no JSON ({one_line(error, 80)}); it must be a row; write it as JSON") from None


def of_arrays(network: Network, scale: float | None, as_labels: bool) -> Callable[[Any], Answer]:
    """Return what answers rows [number, ...] of a network.

    scale: of bytes; rows of whole numbers are bytes where the training had these.  as_labels: answer labels alone.
    """
    n_inputs, backend = network.architecture.n_inputs, network.backend

    def answer(row: Any) -> Answer:
        X = backend.to_device(_numbers(row, n_inputs, scale, backend.dtype))
        if as_labels:
            return {"label": int(backend.to_host(network.classify(X))[0])}
        return {"outputs": [_finite(value) for value in backend.to_host(network.predict(X))[:, 0]]}

    return answer


def _numbers(row: Any, n_inputs: int, scale: float | None, dtype: Any) -> np.ndarray:
    """Return a row as a column (n_inputs, 1) of the network's type; raises ValueError for what is none."""
    if not isinstance(row, list) or len(row) != n_inputs:
        found = f"a list of {len(row)}" if isinstance(row, list) else shown(row)
        raise ValueError(f"the row is {found}; it must be a list of {n_inputs} numbers; give one for each feature")
    types = set(map(type, row))
    values = np.array(row, np.float64) if types <= {int, float} else np.full(1, np.nan)
    if not np.isfinite(values).all():
        wrong = next(value for value in row if type(value) not in (int, float) or not math.isfinite(value))
        raise ValueError(f"the row has {shown(wrong)}; all its values must be finite numbers; correct it")
    if scale is None or float in types:
        return values.astype(dtype)[:, None]
    if values.min() < 0 or values.max() > 255:
        raise ValueError(
            f"the row goes from {min(row)} to {max(row)}; whole numbers must be bytes, 0 to 255, as those of the "
            "training; write other numbers with a point"
        )
    return values.astype(dtype)[:, None] * np.dtype(dtype).type(scale)


def of_table(model: TableModel, arguments: argparse.Namespace) -> Callable[[Any], Answer]:
    """Return what answers rows {column: value, ...} of a table, by the columns that predict writes.

    What had to be done with a row without having been learnt stands in "notes".
    """
    pandas = pandas_for("a run on a table")
    table, dtype = model.preprocessing, model.network.backend.dtype
    with_scores = not arguments.labels and table.target.task != "regression"

    def answer(row: Any) -> Answer:
        if not isinstance(row, dict) or not row:
            raise ValueError(f"the row is {shown(row)}; it must be an object of columns; write it as {{column: value}}")
        frame = pandas.DataFrame([{name.strip(): value for name, value in row.items()}])
        X, noted = table.encode(frame, dtype)
        found = {} if arguments.proba else model.values(X, arguments.threshold)
        if arguments.proba or with_scores:
            found |= model.probabilities(X) if arguments.proba else model.scores(X)
        notes = {"notes": list(lines(noted))} if noted else {}
        return {name: _finite(values[0]) for name, values in found.items()} | notes

    return answer


def _finite(value: Any) -> Any:
    """Return a value as JSON has it: None for NaN and infinity."""
    value = getattr(value, "item", lambda: value)()
    return None if isinstance(value, float) and not math.isfinite(value) else value
