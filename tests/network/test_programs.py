"""The page that shows a recorded step shows what is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import xpnet
from xpnet.network import programs

README = Path(__file__).parents[2] / "README.md"


def recorded():
    """What `describe` prints of the 2-3-1 network, without operations and bytes."""
    network = xpnet.Network([2, 3, 1], activation="tanh", loss="squared_error", backend=xpnet.select_backend("cpu"))
    lines = network.training_program(4, xpnet.SGD(), False).describe().splitlines()[1:-1]
    return [re.sub(r"\s+[\d,]+ flop\s+[\d,]+ bytes$", "", line) for line in lines]


def test_the_docstring_shows_the_program_of_a_small_network():
    shown = [line.removeprefix("    ") for line in programs.__doc__.splitlines() if line.startswith("    ")]
    assert shown == recorded()


def test_the_readme_shows_its_beginning_and_its_end():
    (shown,) = re.findall(r"^```text\n(phase gradient.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    begin, _, end = shown.partition("...\n")
    printed = "\n".join(recorded()) + "\n"
    assert begin in printed and printed.endswith(end) and begin.count("\n") > 5 < end.count("\n") + 1
