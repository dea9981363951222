"""Pictures of a classifier: the confusion matrix, samples that are images with predictions, first-layer weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_whole
from xpnet.data.dataset import Dataset
from xpnet.network.network import Network
from xpnet.plots.figures import BLUE, VERMILION, new_axes
from xpnet.plots.planes import class_names, spaced
from xpnet.training import metrics
from xpnet.training.evaluation import check_compatible, outputs, threshold_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COUNTED = 20  # classes that are few enough for a number in each cell
_NAMED = 50  # and for names beside the rows and columns
_COLUMNS = 10  # images beside each other, at most
_WITHIN = 0.995  # of the weights are within the ends of the colours
_TEXT_ROOM, _GAP = 0.36, 0.12  # above an image, of its longer side; beside it, of its width
DARK_IS_HIGH = "gray_r"  # as ink on paper
_LONG = 11  # letters over an image, from which they are drawn smaller


def confusion_matrix(
    network: Network, dataset: Dataset, ax: Axes | None = None, *, names: Sequence[str] | None = None
) -> Axes:
    """Draw how many samples of each true class (row) are predicted as each class (column).

    The shade is the share of the row. The counts are those of `xpnet.training.metrics.confusion_matrix`, weights if the
    data set has them.  names: of the classes.
    Raises ValueError for a data set that the network cannot take or that holds no classes.
    """
    check_compatible(network, dataset, "the data set")
    labels = _called(dataset, names)
    P = outputs(network, dataset, network.forward)
    counts = metrics.confusion_matrix(P, dataset.Y, dataset.weights, threshold=threshold_of(network))
    of_row = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, of_row, out=np.zeros_like(counts), where=of_row > 0.0)
    ax = new_axes(6.6) if ax is None else ax
    image = ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    ax.figure.colorbar(image, ax=ax, label="share of the true class")
    if len(counts) <= _COUNTED:
        for (row, column), count in np.ndenumerate(counts):
            ax.text(
                column,
                row,
                _counted(count),
                ha="center",
                va="center",
                fontsize="small",
                color="white" if share[row, column] > 0.5 else "black",
            )
    if len(counts) <= _NAMED:
        slanted: dict[str, Any] = {"rotation": 45.0, "ha": "right", "rotation_mode": "anchor"}
        size = min(10.0, 200.0 / len(labels))
        ax.set_xticks(range(len(labels)), labels, fontsize=size, **(slanted if max(map(len, labels)) > 3 else {}))
        ax.set_yticks(range(len(labels)), labels, fontsize=size)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    ax.set_title(f"accuracy {np.trace(counts) / counts.sum():.4f} on {dataset.n_samples:,} samples")
    return ax


def digits(
    network: Network,
    dataset: Dataset,
    ax: Axes | None = None,
    *,
    n: int = 40,
    shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
    cmap: str = DARK_IS_HIGH,
) -> Axes:
    """Draw samples as images, each under its class; where the network is wrong, as "true → predicted" in a frame.

    n: how many, evenly spaced over the set.  shape: (height, width) of an image, with 3 behind them of red, green and
    blue; None for a grey square.  names: of the classes.  cmap: matplotlib's, of grey images: "gray" for photos.
    Raises ValueError for a data set that the network cannot take, that holds no classes or no such images.
    """
    shown = _images_of(network, dataset, shape).subset(spaced(dataset.n_samples, n))
    predicted = outputs(network, shown, network.classify)
    called = _called(dataset, names)
    texts = [
        called[true] if true == said else f"{called[true]} → {called[said]}"
        for true, said in zip(shown.labels, predicted, strict=True)
    ]
    ax = _image_axes(shown.n_samples) if ax is None else ax
    _draw_images(ax, _images(shown.samples, shape), texts, predicted != shown.labels, cmap=cmap)
    ax.set_title("class of each; in a frame: true → predicted")
    return ax


def worst_mistakes(
    network: Network,
    dataset: Dataset,
    ax: Axes | None = None,
    *,
    n: int = 40,
    shape: tuple[int, ...] | None = None,
    names: Sequence[str] | None = None,
    cmap: str = DARK_IS_HIGH,
) -> Axes:
    """Draw the misclassified samples as images, the surest mistakes first, each as "true → predicted".

    The surest has the largest margin of the output for the class predicted over that for the true one, which stands
    beside the classes.  n: the most to draw.  shape, names, cmap: as for `digits`.
    Raises ValueError as `digits` does.
    """
    n = check_whole("n", n, at_least=1)
    labels = _images_of(network, dataset, shape).labels
    predicted = outputs(network, dataset, network.classify)
    excess = _excess(outputs(network, dataset, network.predict), labels, predicted)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[np.argsort(-excess[wrong], kind="stable")[:n]]
    ax = _image_axes(max(1, len(chosen))) if ax is None else ax
    found = f"{len(wrong):,} of {dataset.n_samples:,} samples are misclassified"
    if not len(chosen):
        ax.set_axis_off()
        ax.set_title(found)
        return ax
    called = _called(dataset, names)
    texts = [f"{called[labels[i]]} → {called[predicted[i]]}  {excess[i]:.2f}" for i in chosen]
    _draw_images(ax, _images(dataset.subset(chosen).samples, shape), texts, np.ones(len(chosen), bool), cmap=cmap)
    ax.set_title(f"{found}\nthe {len(chosen)} surest: true → predicted, and the margin of the two predictions")
    return ax


def first_layer_weights(
    network: Network, ax: Axes | None = None, *, n: int = 40, shape: tuple[int, ...] | None = None
) -> Axes:
    """Draw the weights of each of the first layer's units as an image, blue above 0 and vermilion below.

    The colours end at the size that 99.5 % of the weights drawn do not exceed.
    n: how many units, evenly spaced.  shape: (height, width) of an image, None for a square.
    Raises ValueError where the inputs are no such images.
    """
    W = network.backend.to_host(network.parameters.weights[0])
    units = spaced(len(W), n)
    images = _images(W[units], shape)
    ax = _image_axes(len(units)) if ax is None else ax
    from matplotlib.colors import LinearSegmentedColormap

    limit = float(np.quantile(abs(images), _WITHIN)) or 1.0  # few large ones must not pale all others
    colours = LinearSegmentedColormap.from_list("sign", [VERMILION, "white", BLUE])
    image = _draw_images(
        ax, images, [f"{unit}" for unit in units], np.zeros(len(units), bool), cmap=colours, vmin=-limit, vmax=limit
    )
    ax.figure.colorbar(image, ax=ax, label="weight", extend="both", extendfrac=0.03, fraction=0.03, aspect=30)
    ax.set_title(f"weights of the first layer, {len(units)} of {len(W)} units by number")
    return ax


def _called(dataset: Dataset, names: Sequence[str] | None) -> list[str]:
    """Return what each class is called: its name, or its number."""
    return [name.removeprefix("class ") if names is None else name for name in class_names(dataset, names)]


def _counted(count: float) -> str:
    """Format a number of samples whole, a sum of weights to 4 digits."""
    return f"{count:.0f}" if count and count == int(count) else f"{count:.4g}" if count else "·"


def _images_of(network: Network, dataset: Dataset, shape: tuple[int, ...] | None) -> Dataset:
    """Return the data set; refuses one that is not classes of images that the network takes."""
    check_compatible(network, dataset, "the data set")
    _image_shape(dataset.n_features, shape)
    class_names(dataset, None)
    return dataset


def _image_shape(n_features: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    side = math.isqrt(n_features)
    if shape is None:
        if side * side != n_features:
            raise ValueError(
                f"there are {n_features} features, which are no square image; give its height and width: shape=(28, 28)"
            )
        return side, side
    if (len(shape) != 2 and shape[2:] != (3,)) or math.prod(shape) != n_features:
        raise ValueError(
            f"shape is {shape!r} and there are {n_features} features; give a height and a width whose "
            f"product is {n_features}: shape=(1, {n_features})"
        )
    return check_whole("height", shape[0], at_least=1), check_whole("width", shape[1], at_least=1), *shape[2:]


def _images(rows: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    return rows.reshape(len(rows), *_image_shape(rows.shape[1], shape))


def _excess(P: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return by how much each sample's output for the class predicted exceeds that for the true one; P of `predict`."""
    if len(P) == 1:
        return np.where(predicted == labels, 0.0, abs(P[0] - labels))
    columns = np.arange(P.shape[1])
    return np.asarray(P[predicted, columns] - P[labels, columns])


def _image_axes(n: int) -> Axes:
    return new_axes(9.0, 0.7 + 1.1 * -(-n // _COLUMNS))


def _draw_images(ax: Axes, images: np.ndarray, texts: Sequence[str], framed: np.ndarray, **options: Any) -> Any:
    """Draw images (n, height, width), or (n, height, width, 3) of bytes, as one picture, each under its text.

    Returns matplotlib's image.
    """
    from matplotlib.patches import Rectangle

    n, height, width, *channels = images.shape
    n_columns = min(_COLUMNS, n)
    n_rows = -(-n // n_columns)
    room, gap = math.ceil(_TEXT_ROOM * max(height, width)), math.ceil(_GAP * width)
    mosaic = np.full((n_rows * (height + room), n_columns * (width + gap), *channels), 1.0 if channels else np.nan)
    size = "small" if max(map(len, texts)) <= _LONG else "x-small"
    ax.set_axis_off()
    for number, (image, text, is_framed) in enumerate(zip(images, texts, framed, strict=True)):
        row, column = divmod(number, n_columns)
        top, left = row * (height + room) + room, column * (width + gap)
        mosaic[top : top + height, left : left + width] = image / 255.0 if channels else image
        colour = VERMILION if is_framed else "black"
        ax.text(
            left + (width - 1) / 2,
            top - 1 - 0.05 * height,
            text,
            ha="center",
            va="bottom",
            fontsize=size,
            color=colour,
            weight="bold" if is_framed else "normal",
        )
        if is_framed:
            ax.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.5))
    drawn = ax.imshow(mosaic, **{"cmap": DARK_IS_HIGH, "interpolation": "nearest", **options})
    ax.set_xlim(-1.5, mosaic.shape[1] + 0.5)
    ax.set_ylim(mosaic.shape[0] + 0.5, -0.5)
    return drawn
