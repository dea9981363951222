"""What is exported: a network on the host, and what its outputs are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import check_number, one_line, shown
from xpnet.network.network import Network
from xpnet.tables.model import TableModel

VALUES, ONE_OF, EACH = "values", "one of", "each"  # what the outputs are: numbers, classes, or labels beside each other


@dataclass(frozen=True)
class Subject:
    """A network and the meaning of its outputs.

    kind: VALUES, ONE_OF (a class a row) or EACH (each label is there or not).  classes: what each label is called.
    is_pair: whether one output stands for the probabilities of two classes, 1 - P and P.
    scale: the factor of rows of bytes, None for a network of other rows.
    table: the model of a table whose raw rows are predicted, None for a network of arrays.
    """

    network: Network
    kind: str = VALUES
    classes: tuple[Any, ...] = ()
    is_pair: bool = False
    scale: float | None = None
    table: TableModel | None = None

    @property
    def n_inputs(self) -> int:
        """Features of a row."""
        return self.network.architecture.n_inputs

    @property
    def n_outputs(self) -> int:
        """Numbers that are predicted for a row."""
        return 2 if self.is_pair else self.network.architecture.n_outputs

    @property
    def threshold(self) -> float:
        """The last layer's output, before the link, above which a single one means the second class."""
        return np.inf if len(self.classes) == 1 else self.network.architecture.loss.threshold

    @property
    def called(self) -> str:
        """What the predictions are: "predictions", "probabilities" or "scores"."""
        if self.kind == VALUES:
            return "predictions"
        return "scores" if self.network.architecture.loss.link is None else "probabilities"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters and running statistics on the host, by their names in model files."""
        network = self.network
        named = {**network.parameters.named, **network.statistics}
        return {name: np.ascontiguousarray(network.backend.to_host(array)) for name, array in named.items()}

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions (n, n_outputs) and places of classes of rows (n, n_inputs), as the network gives them."""
        network = self.network
        if rows.dtype == np.uint8 and self.scale is not None:
            rows = rows.astype(network.backend.dtype) * network.backend.dtype.type(self.scale)
        X = network.backend.to_device(np.asarray(rows, network.backend.dtype)).T
        has_warned, network.has_warned = network.has_warned, True  # of rows that nobody gave
        P, Z = (network.backend.to_host(infer(X)).T for infer in (network.predict, network.forward))
        network.has_warned = has_warned
        return (np.hstack([1 - P, P]) if self.is_pair else P), self.places(Z)

    def places(self, Z: np.ndarray) -> np.ndarray:
        """Return the place of each row's class, or whether each label is there, by outputs Z (n, n_outputs)."""
        if self.kind == EACH:
            return (self.threshold < Z).astype(np.int64)
        return Z.argmax(axis=1) if Z.shape[1] > 1 else (Z[:, 0] > self.threshold).astype(np.int64)


def subject_of(model: Any, scale: float | None = None, classes: Sequence[Any] | None = None) -> Subject:
    """Return what of a Network, a TableModel or a fitted estimator is exported; raises TypeError for anything else.

    scale: the factor of rows of bytes, None for that which the network knows.
    classes: what those of a network are called, None for numbers.  Raises ValueError for another number of them.
    """
    if isinstance(model, Network):
        return _of_network(model, scale, classes)
    if scale is not None or classes is not None:
        raise ValueError(
            f"scale is {shown(scale)} and classes is {shown(classes)}; a {type(model).__name__} has its own; "
            "leave both out"
        )
    table = getattr(model, "model_", model)
    if isinstance(table, TableModel):
        target = table.preprocessing.target
        is_classes = target.task != "regression"
        is_pair = target.task == "binary" and table.network.architecture.loss.link is not None
        return Subject(table.network, ONE_OF if is_classes else VALUES, target.classes, is_pair, None, table)
    network = getattr(model, "network_", None)
    if isinstance(network, Network):
        classes = tuple(getattr(model, "classes_", np.empty(0)).tolist())
        if not classes:
            return Subject(network)
        if model._is_multilabel:
            return Subject(network, EACH, classes)
        one = network.architecture.n_outputs == 1
        return Subject(network, ONE_OF, classes, one and network.architecture.loss.link is not None)
    raise TypeError(
        f"the model is {shown(model)}; it must be a Network, a TableModel or a fitted estimator of xpnet; "
        "pass xpnet.Network.load(file), xpnet.load(run), or call fit first"
    )


def in_quotes(text: object) -> str:
    """Return a text as it may stand in a docstring of Python."""
    return one_line(text, 100).replace("\\", "/").replace('"', "'")


def _of_network(network: Network, scale: float | None, classes: Sequence[Any] | None) -> Subject:
    inputs, loss, n_classes = network.inputs, network.architecture.loss, max(2, network.architecture.n_outputs)
    if scale is None:
        scale = None if inputs is None else inputs.scale
    else:
        scale = check_number("scale", scale, above=0, example="1 / 255")
    if classes is None:
        if loss.targets not in ("distributions", "probabilities", "classes"):
            return Subject(network, scale=scale)
        classes = range(n_classes)
    if len(classes) != n_classes:
        raise ValueError(
            f"classes has {len(classes)} names, the network tells {n_classes} classes apart; give one name for each"
        )
    return Subject(network, ONE_OF, tuple(classes), scale=scale)
