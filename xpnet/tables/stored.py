"""A preprocessing as JSON: plain numbers and text, exact, never pickle.

Format 2 is what `to_json` writes. Format 1, of before, had numbers and categories alone, and is read as strict.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from xpnet.checks import check_option, one_line, shown
from xpnet.files import parse_json
from xpnet.tables.cells import LONGEST, NumberStyle
from xpnet.tables.columns import Category, Numeric
from xpnet.tables.dates import PARTS, Date
from xpnet.tables.decisions import Decision
from xpnet.tables.kinds import Encoding
from xpnet.tables.options import IMPUTE, TASKS
from xpnet.tables.preprocessing import Preprocessing
from xpnet.tables.target import Target

FORMAT = 2
_KINDS = {"numeric": Numeric, "category": Category, "date": Date}
# How the annotations of fields are held against values.
_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int and abs(value) < 2**63,
    "float": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value),
    "Any": lambda value: isinstance(value, (str, int, float)),
    "NumberStyle": is_dataclass,
    "Decision": is_dataclass,
    "Encoding": is_dataclass,
    "Target": is_dataclass,
}


def to_json(table: Preprocessing) -> str:
    """Return a preprocessing as JSON, its numbers exact."""
    kinds = {made: kind for kind, made in _KINDS.items()}
    found = asdict(table)
    columns = [{"kind": kinds[type(column)], **asdict(column)} for column in table.columns]
    return json.dumps({"format": FORMAT, **found, "columns": columns}, indent=1)


def from_json(text: str) -> Preprocessing:
    """Read what `to_json` wrote, by this version or before; raises ValueError in one line for anything else."""
    try:
        found = parse_json(text)
        if found["format"] not in (1, FORMAT):
            raise ValueError(f"its format is {shown(found['format'])}; it must be {FORMAT} or 1")
        made = _of_format_1(found) if found["format"] == 1 else _of_format_2(found)
        _check(made)
        return made
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"it holds no preprocessing of this version ({type(error).__name__}: {one_line(error)}); it must be what "
            "xpnet writes: fit it again"
        ) from None


def _of_format_1(found: dict[str, Any]) -> Preprocessing:
    names, task, *lists = (found["target"][name] for name in ("names", "task", "classes", "means", "deviations"))
    if type(found["impute"]) is not bool:
        raise ValueError("impute is neither true nor false, give one of these")
    columns = [
        Category(each["name"], tuple(each["categories"]), tuple(each["frequencies"]))
        if "categories" in each
        else Numeric(each["name"], each["mean"], each["deviation"], each["mean"])
        for each in found["columns"]
    ]
    return Preprocessing(
        tuple(columns),
        Target(tuple(names), task, *map(tuple, lists)),
        tuple(found["dropped"]),
        "mean" if found["impute"] else None,
        is_strict=True,
    )


def _of_format_2(found: dict[str, Any]) -> Preprocessing:
    target: dict[str, Any] = dict(found["target"])
    target["styles"] = [NumberStyle(**style) for style in target["styles"]]
    target["decisions"] = [Decision(**each) for each in target["decisions"]]
    target = {key: tuple(value) if isinstance(value, list) else value for key, value in target.items()}
    apart = ("format", "columns", "target", "dropped", "decisions")
    rest = {key: value for key, value in found.items() if key not in apart}
    return Preprocessing(
        tuple(map(_column_of, found["columns"])),
        Target(**target),
        dropped=tuple(found["dropped"]),
        decisions=tuple(Decision(**each) for each in found["decisions"]),
        **rest,
    )


def _column_of(found: dict[str, Any]) -> Encoding:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    kind = _KINDS[values.pop("kind")]
    if kind is Numeric:
        values["style"] = NumberStyle(**values["style"])
    made: Encoding = kind(**values)
    return made


def _check_types(made: Any) -> None:
    """Refuse a dataclass with a field of another type than its annotation, in the dataclasses within it too."""
    for field in fields(made):
        value, kind = getattr(made, field.name), str(field.type)
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            if is_dataclass(item):
                _check_types(item)
        is_right = _TYPES.get(kind.removeprefix("tuple[").removesuffix(", ...]"), lambda item: True)
        if kind.startswith("tuple") != isinstance(value, tuple) or not all(map(is_right, items)):
            raise ValueError(f"{field.name} of it is {shown(value)}; it must be {kind}")


def _check(made: Preprocessing) -> None:
    """Refuse what `to_json` could not have written."""
    _check_types(made)
    target, names = made.target, [column.name for column in made.columns]
    every = [*names, *target.names, *made.dropped]
    if not names or not target.names:
        raise ValueError("the names of its columns are missing, give at least one feature and one target")
    if len(set(every)) != len(every):
        raise ValueError("two of its columns have the same name, give each its own name")
    check_option("task", target.task, TASKS)
    n_classes = {"regression": 0, "binary": 2}.get(target.task, max(3, len(target.classes)))
    n_scales = len(target.names) if target.task == "regression" else 0
    found, needed = tuple(map(len, (target.classes, target.means, target.deviations))), (n_classes, n_scales, n_scales)
    if found != needed:
        raise ValueError(f"it has {found} classes, means and deviations, a target of {target.task} needs {needed}")
    for column in made.columns:
        if not _is_right(column):
            raise ValueError(
                f"its column {shown(column.name)} has impossible numbers; it must have a finite mean and a "
                "deviation of at least 0, or a finite frequency for each text"
            )
    if not all(value > 0 for value in target.deviations):
        raise ValueError("the scale of its target is not above 0; it must be a deviation above 0")
    if made.impute is not None:
        check_option("impute", made.impute, IMPUTE)


def _is_right(column: Encoding) -> bool:
    """Whether the numbers of a column fit each other."""
    if isinstance(column, Numeric):
        return column.deviation >= 0 and column.style.decimal in (".", ",") and len(column.style.unit) <= LONGEST
    if isinstance(column, Category):
        return len(column.categories) == len(column.frequencies) > 0
    right = len(column.parts) == len(column.means) == len(column.deviations) and set(column.parts) <= set(PARTS)
    return right and all(value > 0 for value in column.deviations)
