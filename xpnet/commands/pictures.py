"""The pictures of a finished run, those that apply to its network and data, as files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import plots
from xpnet.commands.runs import inside
from xpnet.data.dataset import Dataset
from xpnet.datasets.images import ImageFormat
from xpnet.network.layers import Activation
from xpnet.network.network import Network
from xpnet.recipe.samples import Data
from xpnet.tables.preprocessing import Preprocessing
from xpnet.training.evaluation import outputs
from xpnet.training.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_OUTPUTS = 4  # of a regression that are drawn


def write_pictures(
    folder: Path, suffix: str, history: Sequence[Record], network: Network, data: Data | None
) -> Iterator[Path]:
    """Write the pictures into `folder` one by one, yielding the path of each.  suffix: one of `plots.SUFFIXES`."""
    for name, ax in pictures(history, network, data):
        path = inside(folder, f"{name}{suffix}")
        plots.save(ax, path)
        yield path


def pictures(history: Sequence[Record], network: Network, data: Data | None) -> Iterator[tuple[str, Axes]]:
    """Yield name and axes of each picture that applies, with samples of the data that the network was judged on."""
    yield "loss", plots.loss_curve(history)
    if plots.score_names(history):
        yield "scores", plots.score_curve(history)
    table = None if data is None else data.table
    features, targets = (None, None) if table is None else (table.feature_names, table.target.output_names)
    yield "network", plots.network_graph(network, inputs=features, outputs=targets)
    for layer in dict.fromkeys(layer for layer in network.layers if isinstance(layer, Activation)):
        if "row" not in layer.scratch:  # such as log_softmax, which has no curve
            yield f"activation-{layer.name}", plots.activation(layer.name)
    if data is None:
        return
    part, dataset = judge_of(data)
    if not dataset.is_classification:
        yield from _of_numbers(part, network, dataset, data.table)
        return
    classes = data.table.target.classes if data.table is not None else data.images.classes if data.images else None
    names = None if classes is None else [str(label) for label in classes]
    for name, ax in _classified(network, dataset, names, features, data.images):
        ax.set_title(f"{part}: {title}" if (title := ax.get_title()) else part)
        yield name, ax
    is_grey = _holds_images(dataset) if data.images is None else data.images.channels == 1
    if is_grey:
        shape = None if data.images is None else _shape_of(data.images)
        yield "weights", plots.first_layer_weights(network, shape=shape)


def _classified(
    network: Network,
    dataset: Dataset,
    names: Sequence[str] | None,
    inputs: Sequence[str] | None,
    images: ImageFormat | None,
) -> Iterator[tuple[str, Axes]]:
    """Yield the pictures of a classifier.  names, inputs: of the classes and the features, where they are known."""
    yield "confusion", plots.confusion_matrix(network, dataset, names=names)
    loss = network.architecture.loss
    P = outputs(network, dataset, network.predict)
    if (
        (loss.link is not None or loss.targets != "numbers")
        and len(set(dataset.labels.tolist())) > 1
        and np.isfinite(P).all()
    ):
        curves = {"roc": plots.roc_curve, "precision-recall": plots.precision_recall_curve}
        curves |= {"calibration": plots.calibration_curve} if loss.link is not None else {}
        for name, curve in curves.items():
            yield name, curve(P, dataset.Y, names=names, weights=dataset.weights)
    if dataset.n_features == 2:
        axes = None if inputs is None else [f"{name} (standardised)" for name in inputs]
        yield "samples", plots.scatter(dataset, names=names, feature_names=axes)
        yield "regions", plots.decision_regions(network, dataset, names=names, feature_names=axes)
        yield "misclassified", plots.misclassified(network, dataset, feature_names=axes)
    if images is not None:
        form: dict[str, Any] = {"shape": _shape_of(images), "names": names, "cmap": "gray"}
        yield "images", plots.digits(network, dataset, **form)
        yield "mistakes", plots.worst_mistakes(network, dataset, **form)
    elif _holds_images(dataset):
        yield "digits", plots.digits(network, dataset)
        yield "mistakes", plots.worst_mistakes(network, dataset)


def _of_numbers(
    part: str, network: Network, dataset: Dataset, table: Preprocessing | None
) -> Iterator[tuple[str, Axes]]:
    """Yield the pictures of a regression, for each of its first outputs, a table's in units and by name."""
    P, Y = outputs(network, dataset, network.predict), dataset.Y
    names = [f"output {i}" for i in range(len(Y))]
    if table is not None:
        P, Y, names = table.target.in_units(P), table.target.in_units(Y), list(table.target.names)
    if not np.isfinite(P).all():
        return
    for i, name in enumerate(names[:MOST_OUTPUTS]):
        number = f"-{i + 1}" if len(names) > 1 else ""
        for called, draw in (("predicted", plots.predicted_against_true), ("residuals", plots.residuals)):
            ax = draw(P[i], Y[i], name=name)
            ax.set_title(f"{part}: {ax.get_title()}")
            yield f"{called}{number}", ax


def judge_of(data: Data) -> tuple[str, Dataset]:
    """Return the name of the data to judge by, and the data: test set, else validation set, else training set."""
    if data.test is not None:
        return "test set", data.test
    return ("training set", data.training) if data.validation is None else ("validation set", data.validation)


def _shape_of(images: ImageFormat) -> tuple[int, ...]:
    return images.height, images.width, *((images.channels,) if images.channels > 1 else ())


def _holds_images(dataset: Dataset) -> bool:
    """Whether the samples are bytes that make a square: pixels."""
    return dataset.scale is not None and math.isqrt(dataset.n_features) ** 2 == dataset.n_features > 1
