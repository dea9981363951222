"""A frozen dataclass as a JSON-ready dict, and back: {"type": "dropout", "rate": 0.5} is Dropout(rate=0.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from xpnet.checks import check_option


def values_of(value: Any) -> dict[str, Any]:
    """Return what a dataclass was made with, by the names of its fields."""
    return {name: getattr(value, name) for name in defaults_of(type(value))}


def defaults_of(made: Any) -> dict[str, Any]:
    """Return the default of each field that a dataclass is made with; MISSING where one must be given."""
    return {field.name: field.default for field in fields(made) if field.init}


def from_spec(made: Any, spec: Mapping[Any, Any], key: str, what: str) -> Any:
    """Return made(**spec), a dataclass, without the key that says which class it is.

    what: for messages, such as "dense layer".
    Raises ValueError for a key that is no field, a field that is missing, or a value that cannot be.
    """
    defaults = defaults_of(made)
    for found in spec:
        check_option(f"key of a {what}", found, (key, *defaults))
    needed = [name for name, default in defaults.items() if default is MISSING]
    if any(name not in spec for name in needed):
        raise ValueError(f"the {what} {spec} lacks a key; needed: {' and '.join(needed)}")
    try:
        return made(**{name: value for name, value in spec.items() if name != key})
    except TypeError as error:  # a value of the wrong type is a bad spec, not a bug of the caller's
        raise ValueError(str(error)) from None
