"""A table's preprocessing as a part of an ONNX graph: an input a column, raw rows in, features out.

Numbers are float64 (batch, 1), NaN where missing; texts are strings, "" where missing; dates are whole numbers of
microseconds since 1970, the least int64 where missing, as NumPy's datetime64[us] is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.exporting.onnx_graph import Graph
from xpnet.tables import cells
from xpnet.tables.columns import Category, Numeric
from xpnet.tables.dates import DAY, PARTS, Date, moments
from xpnet.tables.formats import pandas_for
from xpnet.tables.kinds import Encoding
from xpnet.tables.preprocessing import Preprocessing

_ML = "ai.onnx.ml"
_NUMBERS, _TEXTS, _DATES = np.float64, np.object_, np.int64  # types of inputs
_UNKNOWN, _MISSING = -2, -1


def input_types(table: Preprocessing) -> dict[str, Any]:
    """Return the type of each input by name; raises ValueError for a column that a graph cannot read."""
    if table.is_strict:
        raise ValueError(
            "the run is of format 1, which refuses gaps and unknown categories; a graph must take any row; "
            "train it again"
        )
    return {column.name: _type_of(column) for column in table.columns}


def _type_of(column: Encoding) -> Any:
    if isinstance(column, Date):
        return _DATES
    if isinstance(column, Category):
        return _TEXTS if _codes_of(column) is None else _NUMBERS
    style = column.style
    if style.is_plain:
        return _NUMBERS
    if style.is_boolean:
        return _TEXTS
    raise ValueError(
        f"the column {shown(column.name)} holds numbers as text (decimal sign {shown(style.decimal)}, unit "
        f"{shown(style.unit)}), and a graph takes numbers; train on a table in which they are numbers, or leave the "
        f"column out with --drop {column.name}"
    )


def _codes_of(column: Category) -> list[float] | None:
    """Return the categories of a column of numbers, None where they are texts."""
    if column.is_text:
        return None
    try:
        codes = [float(text) for text in column.categories]
    except ValueError:  # such as True
        return None
    return codes if len(set(codes)) == len(codes) and np.isfinite(codes).all() else None


def add_columns(graph: Graph, table: Preprocessing) -> str:
    """Append what makes features (batch, n_features) of the inputs of a table."""
    parts, inputs = list[str](), [graph.free(column.name) for column in table.columns]
    for column, raw in zip(table.columns, inputs, strict=True):
        if isinstance(column, Numeric):
            features = _add_numeric(graph, column, raw)
        elif isinstance(column, Category):
            features = _add_category(graph, column, raw)
        else:
            features = _add_date(graph, column, raw)
        parts += features
    return graph.add("Concat", *parts, axis=1)


def _add_numeric(graph: Graph, column: Numeric, raw: str) -> list[str]:
    """See `Numeric.encode_into`."""
    if not column.style.is_plain:
        words = {form: value for word, value in cells.BOOLEANS.items() for form in (word, word.upper(), word.title())}
        place = graph.add("Max", _add_places(graph, raw, words), _whole(graph, -1))  # the last one for all others
        raw = graph.add("Gather", graph.constant([*words.values(), np.nan], np.float64), place, axis=0)
    deviation = column.deviation or np.inf
    scaled = graph.add("Div", graph.add("Sub", raw, _double(graph, column.mean)), _double(graph, deviation))
    size = graph.cast(graph.add("Abs", graph.cast(scaled, graph.dtype)), np.float64)
    largest = _double(graph, float(np.finfo(graph.dtype).max))
    filled = graph.add("Not", graph.add("LessOrEqual", size, largest))  # NaN is not, as infinity
    fill = _double(graph, (column.fill - column.mean) / deviation)
    features = [graph.cast(graph.add("Where", filled, fill, scaled), graph.dtype)]
    return [*features, graph.cast(filled, graph.dtype)] if column.has_indicator else features


def _add_category(graph: Graph, column: Category, raw: str) -> list[str]:
    """See `Category.encode_into`."""
    n, codes = len(column.categories), _codes_of(column)
    if codes is None:
        places = _add_places(graph, raw, dict.fromkeys(column.categories))
        known = graph.add("Equal", places, graph.constant([range(n)], np.int64))
        missing = graph.add("Equal", places, _whole(graph, _MISSING))
    else:
        known = graph.add("Equal", raw, graph.constant([codes], np.float64))
        missing = graph.add("IsNaN", raw)
    ones = graph.cast(known, graph.dtype)
    n_beside = column.n_features - n
    if n_beside:
        row = graph.add(
            "Mul", graph.add("ReduceMax", ones, _axis(graph), keepdims=1), graph.constant([[0.0] * n_beside])
        )
        ones = graph.add("Concat", ones, row, axis=1)
    is_known = graph.add("Greater", graph.add("ReduceMax", ones, _axis(graph), keepdims=1), graph.constant(0.0))
    mean = [*column.frequencies, *[0.0] * n_beside]
    other = [*[0.0] * n, 1.0, *[0.0] * (n_beside - 1)] if column.has_other else mean
    absent = [*[0.0] * (column.n_features - 1), 1.0] if column.has_missing else mean
    beside = graph.add("Where", missing, graph.constant([absent]), graph.constant([other]))
    return [graph.add("Where", is_known, ones, beside)]


def _add_places(graph: Graph, raw: str, texts: Iterable[str]) -> str:
    """Append the place of each text among others, _MISSING for an empty one, _UNKNOWN for any other."""
    keys = [*texts, ""]
    values = [*range(len(keys) - 1), _MISSING]
    return graph.add("LabelEncoder", raw, domain=_ML, keys_strings=keys, values_int64s=values, default_int64=_UNKNOWN)


def _add_date(graph: Graph, column: Date, raw: str) -> list[str]:
    """See `Date.encode_into`: the calendar of whole numbers.

    Source: Hinnant, chrono-Compatible Low-Level Date Algorithms, civil_from_days.
    """

    def whole(operator: str, *inputs: str | int) -> str:
        return graph.add(operator, *(each if isinstance(each, str) else _whole(graph, each) for each in inputs))

    missing = graph.add("Equal", raw, _whole(graph, np.iinfo(np.int64).min))
    when = graph.add("Where", missing, _whole(graph, column.fill), raw)
    in_day = whole("Mod", when, DAY)  # at least 0
    days = whole("Div", whole("Sub", when, in_day), DAY)
    of_march = whole("Add", days, 719_468)  # days since 1 March of the year 0, in eras of 400 years
    in_era = whole("Mod", of_march, 146_097)
    era = whole("Div", whole("Sub", of_march, in_era), 146_097)
    leap = whole(
        "Sub",
        whole("Add", whole("Sub", in_era, whole("Div", in_era, 1460)), whole("Div", in_era, 36_524)),
        whole("Div", in_era, 146_096),
    )
    year = whole("Div", leap, 365)
    before = whole("Sub", whole("Add", whole("Mul", year, 365), whole("Div", year, 4)), whole("Div", year, 100))
    in_year = whole("Sub", in_era, before)
    month = whole("Div", whole("Add", whole("Mul", in_year, 5), 2), 153)  # 0 is March
    first = whole("Div", whole("Add", whole("Mul", month, 153), 2), 5)
    is_next = graph.cast(whole("Greater", month, 9), np.int64)
    found = {
        "year": whole("Add", whole("Add", year, whole("Mul", era, 400)), is_next),
        "month": whole("Sub", whole("Add", month, 3), whole("Mul", is_next, 12)),
        "day": whole("Add", whole("Sub", in_year, first), 1),
        "weekday": whole("Mod", whole("Add", days, 3), 7),
    }
    values = {part: graph.cast(value, np.float64) for part, value in found.items()}
    values["hour"] = graph.add("Div", graph.cast(in_day, np.float64), _double(graph, DAY / 24))
    elapsed = graph.cast(whole("Sub", when, column.origin), np.float64)
    values["elapsed"] = graph.add("Div", elapsed, _double(graph, DAY))
    assert set(values) == set(PARTS)
    features = []
    for part, mean, deviation in zip(column.parts, column.means, column.deviations, strict=True):
        scaled = graph.add("Div", graph.add("Sub", values[part], _double(graph, mean)), _double(graph, deviation))
        features.append(graph.cast(scaled, graph.dtype))
    return [*features, graph.cast(missing, graph.dtype)] if column.has_indicator else features


def _double(graph: Graph, value: float) -> str:
    return graph.constant(value, np.float64)


def _whole(graph: Graph, value: int) -> str:
    return graph.constant(value, np.int64)


def _axis(graph: Graph) -> str:
    return graph.constant([1], np.int64)


def feeds_of(table: Preprocessing, frame: Any) -> dict[str, np.ndarray]:
    """Return the inputs (n, 1) of a graph for the rows of a frame, by name."""
    found = {}
    for column, kind in zip(table.columns, input_types(table).values(), strict=True):
        cells_of = frame[column.name]
        if kind is _DATES:
            assert isinstance(column, Date)
            values = moments(cells_of, column.format)[0].astype("M8[us]").astype(np.int64)
        elif kind is _TEXTS:
            codes, texts = cells.different(cells_of)
            values = np.append(texts.to_numpy(object), "")[codes]
        else:
            values = cells.numbers(cells_of)[0]
        found[column.name] = values.reshape(-1, 1)
    return found


def random_rows(table: Preprocessing, n: int, rng: np.random.Generator) -> Any:
    """Return a frame of rows such as the table's, with gaps, infinite numbers and unknown categories."""
    pandas = pandas_for("an export of a table's rows")
    return pandas.DataFrame({column.name: _random_cells(column, n, rng) for column in table.columns})


def _random_cells(column: Encoding, n: int, rng: np.random.Generator) -> Any:
    nothing: Any = None
    gaps = rng.random(n) < 0.1
    if isinstance(column, Date):
        spread = 400 * DAY * (column.origin >= DAY) + DAY
        when = column.fill + rng.integers(-spread, spread, n)
        return np.where(gaps, np.datetime64("NaT", "us"), when.astype("M8[us]"))
    if isinstance(column, Numeric):
        if not column.style.is_plain:
            return np.where(gaps, nothing, rng.choice(["yes", "no", "Y", "FALSE"], n))
        values = rng.normal(column.mean, column.deviation or 1.0, n)
        values[rng.random(n) < 0.02] = np.inf
        return np.where(gaps, np.nan, values)
    codes = _codes_of(column)
    if codes is not None:
        return np.where(gaps, np.nan, rng.choice([*codes, max(codes) + 1], n))
    return np.where(gaps, nothing, rng.choice(np.array([*column.categories, "none of these"], object), n))
