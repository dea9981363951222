"""The ratios of a results file as a picture: how many times as long as xpnet each system takes, work by work."""

from __future__ import annotations

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
    works = list(results["works"].values())
    ax = new_figure(height=max(5.5, 0.75 * len(works))).add_subplot()
    for i, ((name, label), marker, colour) in enumerate(zip(SYSTEMS.items(), MARKERS, COLOURS, strict=False)):
        points = []
        for place, work in enumerate(works):
            said, base = work["systems"].get(name, {}), work["systems"].get(BASE, {})
            if "seconds" in said and "seconds" in base:
                points.append((place + 0.13 * (i - 2), *ratio(said["seconds"], base["seconds"])))
        if points:
            places, middles, lowers, uppers = zip(*points, strict=True)
            spread = [
                [m - low for m, low in zip(middles, lowers, strict=True)],
                [high - m for m, high in zip(middles, uppers, strict=True)],
            ]
            ax.errorbar(middles, places, xerr=spread, fmt=marker, color=colour, label=label, markersize=7, capsize=2)
    ax.axvline(1.0, color="black", linewidth=1)
    ax.set_xscale("log")
    ax.set_yticks(range(len(works)), [_label(work["name"]) for work in works])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.xaxis.set_minor_formatter(lambda value, _: "")
    machine = results["machine"]
    ax.set_xlabel("time of a training step divided by xpnet's: right of the line xpnet is faster")
    ax.set_title(f"{machine['cpu']}, {results['settings']['threads']} threads; bars: quartiles", fontsize="medium")
    ax.grid(axis="x", color="#dddddd")
    legend_beside(ax)
    plots.save(ax, path)


def _label(name: str) -> str:
    """The network and its batch: the two ends of a work's name."""
    parts = name.split(", ")
    return f"{parts[0].split(' ')[0]}\n{parts[-1]}"
