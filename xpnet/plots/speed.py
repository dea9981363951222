"""Samples per second against the width of a network, from the results of `xpnet bench`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xpnet.plots.figures import COLOURS, MARKERS, legend_beside, new_axes
from xpnet.timing.grid import Result, compare, prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = {("cpu", 0): "--", ("cuda", 0): "-", ("cpu", 1): ":", ("cuda", 1): (0, (4, 2, 1, 2))}  # device, which result
_TITLE_WIDTH = 115  # letters


def samples_per_second(result: Result, ax: Axes | None = None) -> Axes:
    """Draw samples per second against width, both logarithmic: a line for each device and batch size.

    result: of `xpnet.timing.grid.measure`, or of `xpnet.timing.grid.read` for the JSON file of `xpnet bench --out`.
    ax: axes to draw into; the legend stands to the right of them.
    Raises ImportError if matplotlib is needed and not there.
    """
    return _draw([result], ax)


def comparison(a: Result, b: Result, ax: Axes | None = None) -> Axes:
    """Draw the results of two machines into one picture, as `samples_per_second` does; those of b hollow.

    Raises ValueError as `xpnet.timing.grid.compare` does.
    """
    compare(a, b)  # refuses what has nothing in common
    return _draw([a, b], ax)


def _draw(results: Sequence[Result], ax: Axes | None) -> Axes:
    ax = new_axes() if ax is None else ax
    batches = sorted({point["batch"] for result in results for point in result["points"]})
    for number, result in enumerate(results):
        for batch in batches:
            for device in ("cpu", "cuda"):
                _draw_line(ax, result, number if len(results) > 1 else None, device, batch, batches.index(batch))
    _draw_axes(ax, sorted({point["width"] for result in results for point in result["points"]}), results[0])
    legend_beside(ax, handlelength=5.0)
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
    engine = prepared(points[0])
    colour = COLOURS[number % len(COLOURS)]
    ax.plot(
        [point["width"] for point in points],
        [point["samples_per_second"] for point in points],
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        markersize=6.0,
        linewidth=1.6,
        linestyle=_LINES[device, which or 0],
        markerfacecolor="white" if which else colour,
        label=f"{'' if which is None else 'ab'[which] + ': '}{device}{f' {engine}' if engine else ''}, batch {batch:,}",
    )


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
    cores, blas = machine.get("cores"), machine.get("blas")
    parts = [
        machine.get("cpu") or "unknown CPU",
        f"{cores} cores" if cores else "",
        blas or "",
        machine.get("gpu") or "",
    ]
    return ", ".join(part for part in parts if part)
