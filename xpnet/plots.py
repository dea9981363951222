"""Pictures of results, by matplotlib (extra: xpnet[plot]).

Every function draws into the axes it is given, or into new ones, and returns them. Nothing is shown and no state of
pyplot is used, so a machine without a display will do.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.grid import Result, compare
from xpnet.lr_finder import RateSearch
from xpnet.model_file import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")

# Okabe and Ito's palette for all kinds of colour vision (Color Universal Design, 2008) without its yellow, too pale
# for a line on white. A batch size also has a marker of its own: 7 colours and 8 markers make 56 pairs.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = {("cpu", 0): "--", ("cuda", 0): "-", ("cpu", 1): ":", ("cuda", 1): (0, (4, 2, 1, 2))}  # device, which result
_TITLE_WIDTH = 115  # letters


def new_axes() -> Axes:
    """Return axes in a figure of their own; raises ImportError, naming the extra, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "pictures need matplotlib, which is not installed. Run: pip install 'xpnet[plot]', or leave --plot out."
        ) from None
    return Figure(figsize=(9.0, 5.5), layout="constrained").add_subplot()


def samples_per_second(result: Result, ax: Axes | None = None) -> Axes:
    """Draw samples per second against width, both logarithmic: a line for each device and batch size.

    result: of `xpnet.grid.measure`.  ax: axes to draw into; the legend stands to the right of them.
    Raises ImportError if matplotlib is needed and not there.
    """
    return _draw([result], ax)


def comparison(a: Result, b: Result, ax: Axes | None = None) -> Axes:
    """Draw the results of two machines into one picture, as `samples_per_second` does; those of b hollow.

    Raises ValueError as `xpnet.grid.compare` does.
    """
    compare(a, b)  # refuses what has nothing in common
    return _draw([a, b], ax)


def rate_search(search: RateSearch, ax: Axes | None = None) -> Axes:
    """Draw the smoothed loss against the learning rate, which is logarithmic, and mark the suggestion.

    search: of `xpnet.find_lr`.  ax: axes to draw into.
    Raises ImportError if matplotlib is needed and not there.
    """
    ax = new_axes() if ax is None else ax
    ax.plot(search.lrs, search.losses, color=_COLOURS[0], linewidth=1.6, label="smoothed loss")
    if search.suggestion is not None:
        ax.axvline(search.suggestion, color=_COLOURS[1], linestyle="--", label=f"suggestion {search.suggestion:.2g}")
    lowest = int(search.losses.argmin()) if len(search.losses) else 0
    height = float(np.ptp(search.losses[: lowest + 1])) if lowest else 0.0
    if height > 0.0:  # where the loss runs away it leaves the picture, or its fall would be too small to see
        ax.set_ylim(search.losses[lowest] - 0.1 * height, search.losses[lowest] + 1.6 * height)
    ax.set_xscale("log")
    ax.grid(True, alpha=0.3)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.legend()
    return ax


def save(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the picture as PNG or SVG, as the name ends, whole or not at all."""
    content = io.BytesIO()
    figure: Any = ax.figure
    figure.savefig(content, format=check_suffix(path)[1:], dpi=150)
    write_aside(path, content.getvalue())


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a picture's name; raises ValueError for one that is not in SUFFIXES."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {Path(path).suffix!r}; name a {' or a '.join(SUFFIXES)} file")
    return suffix


def _draw(results: Sequence[Result], ax: Axes | None) -> Axes:
    ax = new_axes() if ax is None else ax
    batches = sorted({point["batch"] for result in results for point in result["points"]})
    for number, result in enumerate(results):
        for batch in batches:
            for device in ("cpu", "cuda"):
                _draw_line(ax, result, number if len(results) > 1 else None, device, batch, batches.index(batch))
    _draw_axes(ax, sorted({point["width"] for result in results for point in result["points"]}), results[0])
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize="small", handlelength=5.0)
    machines = [_machine(result["machine"]) for result in results]
    if len(results) > 1:
        machines = [f"{letter}: {text}" for letter, text in zip("ab", machines, strict=True)]
    ax.set_title("\n".join(textwrap.fill(text, _TITLE_WIDTH) for text in machines), loc="left", fontsize="small")
    return ax


def _draw_line(ax: Axes, result: Result, which: int | None, device: str, batch: int, number: int) -> None:
    points = [p for p in result["points"] if (p["device"], p["batch"]) == (device, batch)]
    if not points:
        return
    points.sort(key=lambda point: point["width"])
    colour = _COLOURS[number % len(_COLOURS)]
    ax.plot(
        [point["width"] for point in points], [point["samples_per_second"] for point in points],
        color=colour, marker=_MARKERS[number % len(_MARKERS)], markersize=6.0, linewidth=1.6,
        linestyle=_LINES[device, which or 0], markerfacecolor="white" if which else colour,
        label=f"{'' if which is None else 'ab'[which] + ': '}{device}, batch {batch:,}",
    )  # fmt: skip


def _draw_axes(ax: Axes, widths: list[int], result: Result) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    rotation = 45 if len(widths) > 8 else 0
    ax.set_xticks(widths, [str(width) for width in widths], rotation=rotation)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(True, alpha=0.3)
    ax.set_xlabel(f"width of the two hidden layers ({result['features']}-width-width-10, {result['dtype']})")
    ax.set_ylabel("samples per second of training")


def _machine(machine: dict[str, Any]) -> str:
    """The machine in a line; what a file leaves out is left out here."""
    cores, blas = machine.get("cores"), machine.get("blas")
    parts = [
        machine.get("cpu") or "unknown CPU",
        f"{cores} cores" if cores else "",
        blas or "",
        machine.get("gpu") or "",
    ]
    return ", ".join(part for part in parts if part)
