"""What every refusal is held to: found, needed and fix, in one line. A whole run of the suite ends with `unsaid`."""

from __future__ import annotations

import ast
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

import xpnet

SAID: set[str] = set()  # the whole texts of which `says` has asserted found, needed and fix


def says(error, *parts):
    """Assert that an error (as pytest.raises gives it, or its text) holds all these parts, in one line.

    Three parts or more are what was found, what is needed and the fix, which stands in the last clause; one test at
    least of each message gives them.
    """
    text = str(getattr(error, "value", error))
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"
    assert "\n" not in text
    start = max(text.rfind(mark) for mark in ("; ", ". ", ": "))
    start = text.rfind(", ") if start < 0 else start
    if len(parts) >= 3 and any(text.rfind(part) + len(part) > start + 2 for part in parts):
        SAID.add(text)


@contextmanager
def refusal(kind, *parts):
    """Assert that what is done in this context ends in an error of this kind that `says` these parts."""
    with pytest.raises(kind) as error:
        yield
    says(error, *parts)


def unsaid(texts):
    """Return `file:line: words` of every message that the package raises and that none of `texts` is an instance of.

    What only passes on the words of another error has none of its own, and is none of these.
    """
    together = "\n".join(texts)
    return [
        f"{place}: {' ... '.join(words)}"
        for place, words in _messages()
        if not all(word in together for word in words)  # quick, before what is exact
        or not re.search(".*".join(map(re.escape, words)), together)
    ]


@cache
def _messages():
    """Return (place, the words between the values) of each message that is raised, or given to a parser's error."""
    package, found = Path(xpnet.__file__).parent, []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(tree):
            raised = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(raised, ast.Call) or not raised.args:
                continue
            if node is raised and not (isinstance(node.func, ast.Attribute) and node.func.attr == "error"):
                continue
            place = f"{path.relative_to(package)}:{node.lineno}"
            texts = _words(raised.args[0], functions)
            found += [(place, words) for words in texts if sum(map(str.isalpha, "".join(words))) > 4]
    return found


def _words(node, functions):
    """Return the constant parts of a text, a list for each text that a function of the module can return."""
    if isinstance(node, ast.Constant):
        return [[str(node.value)]]
    if isinstance(node, ast.JoinedStr):
        return [[part.value for part in node.values if isinstance(part, ast.Constant)]]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        returns = [part.value for part in ast.walk(functions[node.func.id]) if isinstance(part, ast.Return)]
        return [words for value in returns for words in _words(value, functions)]
    return [[]]
