"""Measure a network on a data set: check that the set fits, and compute loss, accuracy and metrics.

`xpnet.training.loop` runs a `Validator` after each epoch; `measure` takes names of `xpnet.training.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from xpnet.checks import check_option
from xpnet.data.dataset import Dataset
from xpnet.data.feed import Feed, Whole, feed_of
from xpnet.engines.choice import blas_threads, make_engine
from xpnet.engines.engine import Engine
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.inference import warn_of_inputs
from xpnet.network.inputs import InputRange
from xpnet.network.losses import Loss
from xpnet.network.network import Network
from xpnet.network.programs import evaluation_program
from xpnet.program.calls import BATCH
from xpnet.training.metrics import METRICS

__all__ = ["evaluate"]


def evaluate(network: Network, dataset: Dataset, metrics: Iterable[str] = ()) -> dict[str, Any]:
    """Return {"loss", "n"} over a data set, {"accuracy", "correct"} where its targets are classes, and the metrics.

    loss and accuracy are means, weighted where the data set has weights; correct and n are counts. A sample whose true
    class scores no higher than another counts as wrong here; `classify` and the metrics take the first of equal ones.
    metrics: names of functions in `xpnet.training.metrics`, such as ("roc_auc", "f1"); NaN if a prediction is not
    finite. Raises ValueError for an unknown one.  It is never compiled for the CPU, so the
    result does not depend on the engine of the training.
    """
    check_compatible(network, dataset, "dataset")
    return Validator(network, dataset, metrics).evaluate()


def input_range(dataset: Dataset) -> InputRange | None:
    """Return the range of a data set's features; None where they would have to be read from a file or a GPU."""
    scale = dataset.scale
    if scale is not None:
        return InputRange(0.0, 255 * scale, scale)
    if dataset.is_mapped or not isinstance(dataset.samples, np.ndarray):
        return None
    return InputRange(float(dataset.samples.min()), float(dataset.samples.max()))


class Evaluator:
    """Evaluates one data set repeatedly.

    like: the engine of a training, whose kind measures too if it needs preparation; None for one without.
    threads: of NumPy's products, None for as many as pay.  deterministic: on a GPU, as in `xpnet.train`.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        feed: Feed,
        like: Engine | None = None,
        threads: int | None = None,
        deterministic: bool = False,
    ) -> None:
        with_accuracy = dataset.is_classification
        batch = min(BATCH, dataset.n_samples)
        program = evaluation_program(network.architecture, batch, "weights" in feed.sources, with_accuracy)
        # Threads are those of an engine that is prepared for a Program.
        together = getattr(like, "threads", None)
        name, backend = "" if like is None or together is None else like.name, network.backend
        by_blas = blas_threads(program, backend) if threads is None else threads
        self.engine = make_engine(
            program,
            backend,
            network.owned,
            feed.sources,
            name,
            threads=together,
            blas_threads=by_blas,
            deterministic=deterministic,
        )
        self._feed = feed

    @property
    def bytes_uploaded(self) -> int:
        """Bytes that evaluations have sent to a GPU so far."""
        return self.engine.bytes_uploaded

    def evaluate(self) -> dict[str, Any]:
        """Return what `xpnet.evaluate` returns, for the network's weights as they are now."""
        program = self.engine.program
        totals = np.zeros(len(program.results))
        for order in self._feed.parts(None, batch=program.capacity):
            totals += self.engine.run(order, np.empty((-(-len(order) // program.capacity), 0))).sum(axis=0)
        return self.measures(totals)

    def measures(self, totals: np.ndarray) -> dict[str, Any]:
        """Return what `xpnet.evaluate` returns, from the sums (n_results,) of the Program's results."""
        n_samples, program = self._feed.n_samples, self.engine.program
        sums = dict(zip(program.results, totals.tolist(), strict=True))
        total_weight = sums.get("weight", float(n_samples))
        measured: dict[str, Any] = {"loss": sums["loss"] / total_weight, "n": n_samples}
        if "correct" in sums:
            measured["accuracy"] = sums.get("correct_weight", sums["correct"]) / total_weight
            measured["correct"] = round(sums["correct"])
        return measured


class Validator:
    """Measures loss, accuracy where it applies and metrics of one data set repeatedly.

    like, threads: see `Evaluator`.
    """

    def __init__(
        self,
        network: Network,
        dataset: Dataset,
        metrics: Iterable[str] = (),
        like: Engine | None = None,
        threads: int | None = None,
        beside: int = 0,
        deterministic: bool = False,
    ) -> None:
        """beside: see `feed_of`.  deterministic: see `Evaluator`."""
        self._network, self._dataset, self._metrics = network, dataset, check_metrics(metrics)
        warn_of_inputs(network, lambda: input_range(dataset))
        self._feed = feed_of(dataset, network.backend, BATCH, beside=beside)
        self._evaluator = Evaluator(network, dataset, self._feed, like, threads, deterministic)

    @property
    def bytes_uploaded(self) -> int:
        """Bytes that have gone to a GPU so far, those of the data set included."""
        return self._feed.bytes_uploaded + self._evaluator.bytes_uploaded

    @property
    def engine(self) -> Engine | None:
        """The engine that measures loss and accuracy, None if its data are read in blocks."""
        return self._evaluator.engine if isinstance(self._feed, Whole) else None

    def evaluate(self, sums: np.ndarray | None = None) -> dict[str, Any]:
        """Return what `xpnet.evaluate` returns, for the network's weights as they are now.

        sums (n_steps, n_results): what the engine has measured of them already.
        """
        evaluator = self._evaluator
        measured = evaluator.evaluate() if sums is None else evaluator.measures(sums.sum(axis=0))
        more = measure(self._network, self._dataset, self._metrics, self._feed)
        return measured | {name: value for name, value in more.items() if name not in measured}


def check_metrics(metrics: Iterable[str]) -> list[str]:
    """Return the names as a list; raises ValueError for an unknown one, TypeError for a single text."""
    if isinstance(metrics, str):
        raise TypeError(f"metrics is the text {metrics!r}; it must be a list of names: metrics=({metrics!r},)")
    return [check_option("metric", name, METRICS) for name in metrics]


def measure(network: Network, dataset: Dataset, metrics: Iterable[str], feed: Feed | None = None) -> dict[str, Any]:
    """Return {name: value} of metrics on the network's predictions, weighted where the data set has weights.

    metrics: names of `xpnet.training.metrics.METRICS`. Those of classes judge the last layer's output, before any link,
    as `Network.classify` and the accuracy do: a single output is cut at the loss's threshold.
    feed: of the data set, where there is one already.
    A metric is NaN if an output is not finite, so that training continues; `xpnet.training.metrics` itself refuses it.
    Raises ValueError for an unknown name.
    """
    names = check_metrics(metrics)
    if not names:
        return {}
    feed = feed_of(dataset, network.backend, BATCH) if feed is None else feed
    loss = network.architecture.loss
    measured: dict[str, Any] = {}
    fetched: dict[Any, np.ndarray] = {}
    for name in names:
        cuts = METRICS[name].takes_threshold
        infer = network.forward if cuts or loss.link is None else network.predict
        if infer not in fetched:
            fetched[infer] = outputs(network, dataset, infer, feed)
        if not np.isfinite(fetched[infer]).all():
            measured[name] = float("nan")
            continue
        cut = {"threshold": threshold_of(network)} if cuts else {}
        measured[name] = METRICS[name].function(fetched[infer], dataset.Y, dataset.weights, **cut)
    return measured


def outputs(network: Network, dataset: Dataset, infer: Callable[[Any], Any], feed: Feed | None = None) -> np.ndarray:
    """Return the outputs of a method of the network for all samples, in their order, on the host.

    infer: such as network.predict, (n_outputs, n_samples), or network.classify, (n_samples,).
    feed: of the data set, where there is one already.
    """
    feed = feed_of(dataset, network.backend, BATCH) if feed is None else feed
    backend = network.backend

    def ready(rows: Any) -> Any:
        if scale is None:
            return rows
        scaled = rows.astype(backend.dtype)
        scaled *= scale
        return scaled

    parts = []
    for order in feed.parts(None, batch=BATCH):  # n, n + 1, n + 2, ...
        rows, scale = feed.sources["X"]
        parts.append(predict_in_blocks(backend, infer, rows[order[0] : order[-1] + 1], ready, BATCH))
    return np.concatenate(parts, axis=-1)


def threshold_of(network: Network) -> float:
    """Return the threshold between classes 0 and 1 of a single output, before any link, rounded as outputs are."""
    return float(network.backend.dtype.type(network.architecture.loss.threshold))


def check_compatible(network: Network, dataset: Dataset, name: str) -> None:
    """Refuse a data set that this network and its loss cannot take; its samples are checked once only."""
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"{name} is a {type(dataset).__name__}; it must be a Dataset: Dataset(X, Y) or "
            "Dataset.from_labels(X, labels)"
        )
    architecture = network.architecture
    asked = (architecture.n_inputs, architecture.n_outputs, architecture.loss.targets)
    if asked in dataset.meets:
        return
    for what, found, needed in (
        ("features", dataset.n_features, architecture.n_inputs),
        ("outputs", dataset.n_outputs, architecture.n_outputs),
    ):
        if found != needed:
            end = "first" if what == "features" else "last"
            raise ValueError(
                f"{name} has {found} {what}, the network expects {needed}; make a network whose {end} size is {found}"
            )
    _check_targets(architecture.loss, dataset.Y, name)
    dataset.meets.add(asked)


def _check_targets(loss: Loss, Y: np.ndarray, name: str) -> None:
    """Refuse targets for which the loss is undefined."""
    if loss.targets == "numbers":
        return
    if loss.targets == "counts":
        if Y.min() < 0.0:
            raise ValueError(
                f"{loss.name} needs targets of at least 0, {name} has {Y.min():g}; use loss='squared_error'"
            )
        return
    if Y.min() < 0.0 or Y.max() > 1.0:
        raise ValueError(
            f"{loss.name} needs targets from 0 to 1, {name} has {Y.min():g} to {Y.max():g}; "
            "use labels of classes, or loss='squared_error'"
        )
    if loss.targets == "classes" and not ((Y == 0.0) | (Y == 1.0)).all():
        raise ValueError(
            f"{loss.name} needs targets 0 and 1 only, {name} has others between; "
            "use labels of classes, or loss='sigmoid_cross_entropy'"
        )
    if loss.targets == "distributions" and abs(Y.sum(axis=0) - 1.0).max() > 1e-3:
        raise ValueError(
            f"{loss.name} needs the targets of each sample to sum to 1, those of {name} do not; "
            "use labels of classes, or loss='sigmoid_cross_entropy'"
        )
