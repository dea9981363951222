"""Draw a network as a graph: units as circles, weights as lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpnet.checks import check_whole, one_line
from xpnet.network.layers import Activation, Dense
from xpnet.network.network import Network
from xpnet.plots.figures import BLUE, GREY, VERMILION, legend_beside, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_THINNEST, _THICKEST = 0.3, 5.0  # lines, in points
_UNIT_SIZE = 170.0
_ARROW = 0.28  # length, in distances of layers
_NAME_ROOM, _LONGEST = 0.25, 18  # beside the units, in parts of the width; letters of a name
_SPACIOUS = 6  # columns that leave room for captions of the usual size


@dataclass(frozen=True)
class _Column:
    """The units of a layer that are drawn: their indices and heights; `gap` is where others are left out."""

    n: int
    units: np.ndarray
    heights: np.ndarray
    gap: float | None

    @classmethod
    def of(cls, n: int, most: int) -> _Column:
        if n <= most:
            return cls(n, np.arange(n), (n - 1) / 2.0 - np.arange(n), None)
        above = most // 2  # one place of `most` is the gap's
        below = most - 1 - above
        units = np.concatenate([np.arange(above), np.arange(n - below, n)])
        places = (most - 1) / 2.0 - np.arange(most)
        return cls(n, units, np.delete(places, above), float(places[above]))


def network_graph(
    network: Network,
    ax: Axes | None = None,
    *,
    most: int = 11,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> Axes:
    """Draw a network, trained or not, from its inputs on the left to its outputs on the right.

    A line is a weight, or from a circle marked 1 a bias: blue above 0 and vermilion below, as wide as it is large
    beside the largest drawn. Other layers stand by name under the dense layer that they follow.
    most: units of a layer that are drawn; of a wider one those in the middle are left out, their place dotted.
    inputs, outputs: names of all of them, None for none.
    Raises ImportError without matplotlib where ax is None, ValueError for `most` below 3.
    """
    most = check_whole("most", most, at_least=3)
    architecture = network.architecture
    ax = new_axes() if ax is None else ax
    columns = [_Column.of(n, most) for n in (architecture.n_inputs, *(layer.n_out for _, layer in architecture.dense))]
    top = max(column.heights[0] for column in columns) + 1.2
    _draw_weights(ax, network, columns, top)
    _draw_units(ax, columns)
    _draw_biases(ax, network, top)
    _draw_arrows(ax, columns)
    _write_names(ax, columns[0], inputs, -_ARROW, "right")
    _write_names(ax, columns[-1], outputs, len(columns) - 1 + _ARROW, "left")
    ax.set_xticks(range(len(columns)), _captions(network, columns))  # as ticks, so that room is made for them
    ax.tick_params(length=0.0, labelsize=min(10.0, 10.0 * _SPACIOUS / len(columns)))
    ax.yaxis.set_visible(False)
    ax.set_frame_on(False)
    room = [0.2 if names is None else _NAME_ROOM * len(columns) for names in (inputs, outputs)]
    ax.set_xlim(-_ARROW - room[0], len(columns) - 1 + _ARROW + room[1])
    ax.set_ylim(0.5 - top, top + 0.5)
    return ax


def _draw_weights(ax: Axes, network: Network, columns: Sequence[_Column], top: float) -> None:
    """Draw a collection of lines for each dense layer, and the legend that says what they mean."""
    from matplotlib.collections import LineCollection

    drawn = []
    for x, (W, b) in enumerate(zip(network.parameters.weights, network.parameters.biases, strict=True)):
        before, after = columns[x], columns[x + 1]
        values = network.backend.to_host(W)[np.ix_(after.units, before.units)]
        starts = before.heights
        if b is not None:
            values = np.hstack([values, network.backend.to_host(b)[after.units]])
            starts = np.append(starts, top)
        lines = [((x, start), (x + 1, end)) for end in after.heights for start in starts]
        drawn.append((lines, values.ravel()))
    largest = max(float(abs(values).max()) for _, values in drawn)
    for lines, values in drawn:
        widths = _THINNEST + (_THICKEST - _THINNEST) * abs(values) / (largest or 1.0)
        colours = np.where(values > 0.0, BLUE, np.where(values < 0.0, VERMILION, GREY))
        ax.add_collection(LineCollection(lines, linewidths=widths, colors=list(colours), alpha=0.75, zorder=1))
    ax.plot([], [], color=BLUE, linewidth=3.0, label="weight above 0")
    ax.plot([], [], color=VERMILION, linewidth=3.0, label="weight below 0")
    ax.plot([], [], color="black", linewidth=_THICKEST, label=f"size {largest:.3g}, the largest")
    ax.plot([], [], color="black", linewidth=(_THINNEST + _THICKEST) / 2, label=f"size {largest / 2:.3g}")
    ax.plot([], [], color=GREY, linewidth=_THINNEST, label="0")
    if any(b is not None for b in network.parameters.biases):
        ax.plot(
            [],
            [],
            linestyle="none",
            color="black",
            marker="o",
            markersize=10.0,
            markerfacecolor="white",
            markeredgecolor="black",
            label="bias, from a constant 1",
        )
    legend_beside(ax, labelspacing=0.9)


def _draw_units(ax: Axes, columns: Sequence[_Column]) -> None:
    for x, column in enumerate(columns):
        ax.scatter(np.full(len(column.units), x), column.heights, s=_UNIT_SIZE, color="black", zorder=3)
        if column.gap is not None:
            ax.scatter(np.full(3, x), column.gap + np.array([0.25, 0.0, -0.25]), s=9.0, color="black", zorder=3)


def _draw_biases(ax: Axes, network: Network, top: float) -> None:
    for x, b in enumerate(network.parameters.biases):
        if b is not None:
            ax.scatter([x], [top], s=_UNIT_SIZE, color="white", edgecolors="black", zorder=3)
            ax.text(x, top, "1", ha="center", va="center", fontsize="small", zorder=4)


def _draw_arrows(ax: Axes, columns: Sequence[_Column]) -> None:
    """Draw an arrow into every input and one out of every output."""
    last = len(columns) - 1
    ends = [((-_ARROW, y), (-0.06, y)) for y in columns[0].heights]
    ends += [((last + 0.06, y), (last + _ARROW, y)) for y in columns[-1].heights]
    for start, end in ends:
        style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 1.2, "shrinkA": 0.0, "shrinkB": 0.0}
        ax.annotate("", xy=end, xytext=start, arrowprops=style)


def _write_names(ax: Axes, column: _Column, names: Sequence[str] | None, x: float, side: str) -> None:
    """Write the names of units that are drawn beside their arrows."""
    if names is None:
        return
    for unit, y in zip(column.units, column.heights, strict=True):
        ax.text(x, y, f" {one_line(names[unit], _LONGEST)} ", ha=side, va="center", fontsize="small")


def _captions(network: Network, columns: Sequence[_Column]) -> list[str]:
    """Return the captions of the columns: size, layers that follow, and how many units are drawn."""
    parts = [[f"{columns[0].n:,} input{'s' * (columns[0].n != 1)}"]]
    for layer in network.layers:
        if isinstance(layer, Dense):
            parts.append([f"dense {layer.n_out:,}"])
        else:
            parts[-1].append(layer.name if isinstance(layer, Activation) else layer.type.replace("_", " "))
    for lines, column in zip(parts, columns, strict=True):
        if column.gap is not None:
            lines.append(f"({len(column.units)} drawn)")
    return ["\n".join(lines) for lines in parts]
