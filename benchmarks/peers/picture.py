"""The ratios of a results file as a picture: how many times as long as xpnet each system takes, work by work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xpnet import plots
from xpnet.plots.figures import COLOURS, MARKERS, legend_beside, new_figure

from .report import BASE, ratio

SYSTEMS = {
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
    "sklearn": "scikit-learn",
    "jax": "JAX, jit",
    "jax-scan": "JAX, scan",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture of what `python -m benchmarks.peers` measured to a PNG or SVG file."""
    works = [
        (_label(work["name"]), {name: said.get("seconds") for name, said in work["systems"].items()})
        for work in results["works"].values()
    ]
    machine = f"{results['machine']['cpu']}, {results['settings']['threads']} threads"
    draw_ratios(works, SYSTEMS, BASE, "a training step", machine, path)


def draw_ratios(
    works: Sequence[tuple[str, Mapping[str, Any]]],
    systems: Mapping[str, str],
    base: str,
    timed: str,
    machine: str,
    path: Path,
) -> None:
    """Write a picture of the times of systems, divided by those of one of them, to a PNG or SVG file.

    works: the label of each, and by system its times, a number a round, or None.  systems: what to call those that are
    drawn.  base: the one that divides.  timed: what was.
    """
    ax = new_figure(height=max(5.5, 0.75 * len(works))).add_subplot()
    for i, ((name, label), marker, colour) in enumerate(zip(systems.items(), MARKERS, COLOURS, strict=False)):
        points = [
            (place + 0.13 * (i - 2), *ratio(times[name], times[base]))
            for place, (_, times) in enumerate(works)
            if times.get(name) and times.get(base)
        ]
        if points:
            places, middles, lowers, uppers = zip(*points, strict=True)
            spread = [
                [m - low for m, low in zip(middles, lowers, strict=True)],
                [high - m for m, high in zip(middles, uppers, strict=True)],
            ]
            ax.errorbar(middles, places, xerr=spread, fmt=marker, color=colour, label=label, markersize=7, capsize=2)
    ax.axvline(1.0, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(works)), [label for label, _ in works])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    ax.set_xlabel(f"time of {timed} divided by xpnet's: right of the line xpnet is faster")
    ax.set_title(f"{machine}; bars: quartiles", fontsize="medium")
    ax.grid(axis="x", color="#dddddd")
    legend_beside(ax)
    plots.save(ax, path)


def _label(name: str) -> str:
    """The network and its batch: the two ends of a work's name."""
    parts = name.split(", ")
    return f"{parts[0].split(' ')[0]}\n{parts[-1]}"
