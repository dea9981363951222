"""Convert frozen dataclasses to JSON-ready dicts and back: Dropout(0.5) is {"type": "dropout", "rate": 0.5}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from xpnet.checks import check_option, shown


def values_of(value: Any) -> dict[str, Any]:
    """Return the values that a dataclass was made with, by field."""
    return {name: getattr(value, name) for name in defaults_of(type(value))}


def defaults_of(made: Any) -> dict[str, Any]:
    """Return the default of each field that a dataclass is made with; MISSING where it has none."""
    return {field.name: field.default for field in fields(made) if field.init}


def from_spec(made: Any, spec: Mapping[Any, Any], key: str, what: str) -> Any:
    """Return made(**spec), a dataclass.

    key: the entry of the spec that names the class; left out.  what: for messages, such as "dense layer".
    Raises ValueError for a key that is no field, a field that is missing, or a bad value.
    """
    defaults = defaults_of(made)
    for found in spec:
        check_option(f"key of a {what}", found, (key, *defaults))
    needed = [name for name, default in defaults.items() if default is MISSING]
    if any(name not in spec for name in needed):
        raise ValueError(f"the {what} {shown(spec)} lacks a key; it needs {' and '.join(needed)}")
    try:
        return made(**{name: value for name, value in spec.items() if name != key})
    except TypeError as error:  # a wrong type in a spec is a bad value
        raise ValueError(str(error)) from None
