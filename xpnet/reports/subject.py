"""A run as a report shows it, and what runs must have in common to stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from xpnet.network.network import Network
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.records import History


@dataclass(frozen=True)
class Subject:
    """A finished run, read from its files and measured again on its data.

    name: what the page calls it.  config: of its config.json.  history: of its history.jsonl.
    table: the preprocessing of a run on a table.
    measured: what `evaluate` returned on each part of the data, {} without the data.
    details: what `xpnet evaluate` tells of a table's model: targets or classes.
    pictures: (caption, the picture as an SVG file) of each.  note: why something is missing, "" if nothing is.
    """

    name: str
    config: dict[str, Any]
    history: History
    network: Network
    table: Preprocessing | None = None
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    pictures: Sequence[tuple[str, bytes]] = ()
    note: str = ""

    @cached_property
    def task(self) -> str:
        """What the run learnt, in words."""
        if self.table is None:
            architecture = self.network.architecture
            kind = {"numbers": "regression"}.get(architecture.loss.targets, "classification")
            n_in, n_out = architecture.n_inputs, architecture.n_outputs
            return f"{kind} with {n_in} input{'s' * (n_in != 1)} and {n_out} output{'s' * (n_out != 1)}"
        target = self.table.target
        names = ", ".join(target.names)
        if target.task == "regression":
            return f"regression of {names}"
        return f"{target.task} classification of {names} into {', '.join(map(str, target.classes))}"


def check_one_task(subjects: Sequence[Subject]) -> None:
    """Refuse runs of different tasks, whose numbers cannot stand in one table; raises ValueError."""
    first = subjects[0]
    for other in subjects[1:]:
        if other.task != first.task:
            raise ValueError(
                f"{first.name} is {first.task}, and {other.name} is {other.task}; runs side by side must have one "
                f"task; report them apart: xpnet report {other.name} --out report.html"
            )
