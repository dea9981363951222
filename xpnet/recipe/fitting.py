"""A model of a table's rows from memory, as `xpnet train` makes one of a file by its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from xpnet.backend import DTYPES
from xpnet.checks import check_number, check_option, check_whole
from xpnet.network.network import Network
from xpnet.parallel.communicator import Communicator
from xpnet.recipe.attempt import LOWER, Attempt, attempt_that_ends
from xpnet.recipe.defaults import BATCH_SIZE, BEST, OF_TABLES, by_size, left_out, rate_of_tables
from xpnet.recipe.ensemble import FASTER, with_others
from xpnet.recipe.samples import Data, TableSamples
from xpnet.tables.decisions import Decision, lines
from xpnet.tables.model import TableModel
from xpnet.tables.options import ColumnOptions
from xpnet.tables.preprocessing import Preprocessing, fit
from xpnet.tables.splitting import count_of, held_out, said_of_rows, usual_count, usual_split
from xpnet.tables.target import Target
from xpnet.tables.tasks import fit_target, with_target
from xpnet.training.callbacks import EarlyStopping, KeepBest
from xpnet.training.optimizers import OPTIMIZERS
from xpnet.training.options import ClassNotTrained

OF_LOOP = ("epochs", "batch_size", "seed", "communicator", "reduction")  # options that are keywords of the loop


@dataclass(frozen=True)
class FitOptions:
    """What is asked of a fit, with the names and defaults of `xpnet train`; None for a default.

    hidden: sizes of the hidden layers.  dropout: a rate, or one each.  ensemble: networks to train.
    validation: rows to hold out, a share below 1 or their number.  columns: what is asked of them.
    communicator, reduction: the processes that fit together, and how they add, as in `xpnet.train`.
    Raises TypeError or ValueError for a value that no fit can have.
    """

    hidden: int | Sequence[int] | None = None
    dropout: float | Sequence[float] | None = None
    epochs: int | None = None
    patience: int | None = None
    batch_size: int = BATCH_SIZE
    lr: float | None = None
    ensemble: int | None = None
    validation: float | None = None
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    communicator: Communicator | None = None
    reduction: str | None = None
    columns: ColumnOptions = field(default_factory=ColumnOptions)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("patience", 0), ("ensemble", 1), ("batch_size", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), at_least=least)
        if self.lr is not None:
            check_number("lr", self.lr, above=0, example="0.003")
        if self.validation is not None:
            check_number("validation", self.validation, at_least=0, example="0.1")
        check_option("dtype", self.dtype, DTYPES)

    def n_held_out(self, n_rows: int) -> int:
        """Return how many of the rows are held out; raises ValueError for a part that cannot be."""
        if self.validation is None:
            return usual_count(n_rows)
        count = count_of(self.validation, n_rows)
        if self.validation > 0 and count == 0:
            raise ValueError(f"validation is {self.validation}, none of {n_rows} rows; give more, or 0 for none")
        if count == 0 and self.patience:
            raise ValueError(
                f"patience is {self.patience}, and no rows are held out to watch; leave it out, or give validation=0.1"
            )
        return count

    def resolved(self, training_rows: int, is_validated: bool) -> tuple[dict[str, Any], list[Decision]]:
        """Return all options by name, the defaults filled in, and what is said of these."""
        given = {"optimizer": None, "end_with": None, **vars(self)}
        found = left_out(given, OF_TABLES, is_validated)
        options = given | found
        changed, said = by_size(options, found, training_rows)
        options |= changed
        hidden = options["hidden"]
        sizes = hidden if isinstance(hidden, Sequence) and not isinstance(hidden, str) else [hidden]
        options["hidden"] = [check_whole("hidden", size, at_least=1) for size in sizes]
        options["lr"] = rate_of_tables(options["optimizer"]) if self.lr is None else float(self.lr)
        return options, said


def fit_table(
    frame: Any, names: Sequence[str], task: str, options: FitOptions
) -> tuple[TableModel, tuple[Decision, ...]]:
    """Return a model of the columns named, and what was decided; warns of rows without a target, which are left out.

    frame: of pandas.  Raises ValueError for columns that cannot be learnt from, TrainingDiverged if that happens twice.
    """
    rows, left = with_target(frame, names, task)
    for line in lines(left):
        warnings.warn(line, stacklevel=4)
    asked = replace(options.columns, task=task)

    def fitted(rows: Any, target: Target, decisions: tuple[Decision, ...]) -> Preprocessing:
        return fit(rows, target, asked, decisions)

    samples = TableSamples("", rows, fit_target(rows, names, asked), fitted, options.dtype, left)
    split = usual_split(options.n_held_out(samples.n), options.seed, samples.labels)
    mask = held_out(split, samples.n, samples.labels)
    (training, *rest), table, _ = samples.cut([~mask, mask] if mask.any() else [~mask])
    assert table is not None
    data = Data(training, rest[0] if rest else None, None, {}, split, table)
    said = said_of_rows(split, mask, samples.labels, samples.classes)
    network, more = _trained(data, options)
    return TableModel(network, table), (*table.decisions, *said, *more)


def _trained(data: Data, options: FitOptions) -> tuple[Network, list[Decision]]:
    """Return the network of all trainings, and what was decided for them."""
    chosen, said = options.resolved(data.training.n_samples, data.validation is not None)

    def lower() -> None:
        found, done = f"diverged at the learning rate {chosen['lr']:g}", "it began again at a tenth of it"
        said.append(Decision("", f"the training {found}", done, "", False))
        chosen["lr"] *= LOWER

    def make(seed: int, is_linear: bool) -> Attempt:
        changed = {"hidden": [], "dropout": None, "lr": FASTER * chosen["lr"]} if is_linear else {}
        return _attempt(chosen | changed | {"seed": seed}, data)

    def tell(called: str, record: dict[str, Any] | None) -> None:
        if record is None:
            said.append(Decision("", f"{called} diverged", "it is left out", "", False))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ClassNotTrained)  # said, with its name, by said_of_rows
        first = attempt_that_ends(lambda: make(options.seed, False), lower, data)
        ensemble = with_others(first.network, chosen["ensemble"], options.seed, make, data, tell)
    if str(ensemble):
        said.append(Decision("", "several trainings", str(ensemble), "", False))
    return ensemble.network, said


def _attempt(chosen: dict[str, Any], data: Data) -> Attempt:
    """Return what the options, with nothing left out, make for these data."""
    sizes = [data.training.n_features, *chosen["hidden"], data.training.n_outputs]
    network = Network(
        sizes,
        activation="relu",
        loss=data.default_loss,
        dropout=chosen["dropout"][0] if np.shape(chosen["dropout"]) == (1,) else chosen["dropout"],
        device=chosen["device"],
        dtype=chosen["dtype"],
        seed=chosen["seed"],
    )
    optimizer = OPTIMIZERS[chosen["optimizer"]](chosen["lr"])
    patience = chosen["patience"]
    stops = [EarlyStopping(patience) if patience else KeepBest()] if chosen["end_with"] == BEST else []
    return Attempt(network, optimizer, {name: chosen[name] for name in OF_LOOP}, stops=stops)
