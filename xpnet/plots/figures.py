"""New axes, files of pictures, and the colours that all pictures share, by matplotlib (extra: xpnet[plot]).

No state of pyplot is used, so a machine without a display will do.
"""

from __future__ import annotations

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

# Okabe and Ito's palette for all kinds of colour vision (Color Universal Design, 2008) without its yellow, too pale
# for a line on white. Markers repeat what colours say: 7 colours and 8 markers make 56 pairs.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LISTED = 26  # entries that fit beside the axes
BLUE, VERMILION, GREY = COLOURS[0], COLOURS[1], "#767676"  # right, positive; wrong, negative; neither


def new_figure(width: float = 9.0, height: float = 5.5) -> Figure:
    """Return an empty figure, sizes in inches; raises ImportError, naming the extra, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib, which is not installed. Run: pip install 'xpnet[plot]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float = 9.0, height: float = 5.5) -> Axes:
    """Return axes in a new figure, which a notebook shows; raises ImportError, naming the extra, without matplotlib.

    width, height: of the figure in inches.
    """
    figure = new_figure(width, height)
    ax: Any = figure.add_subplot()
    ax._repr_png_ = partial(encoded, figure)  # what a notebook shows of the last value of a cell
    return ax


def smaller(ax: Axes, width: float = 6.0) -> None:
    """Make a picture that is wider than `width` inches so narrow, its letters as large as before: for a phone."""
    figure: Any = ax.figure
    now, height = figure.get_size_inches()
    if now > width:
        figure.set_size_inches(width, height * width / now)


def encoded(figure: Any, suffix: str = ".png", dpi: int = 150) -> bytes:
    """Return the figure as the content of a file.  suffix: one of SUFFIXES."""
    content = io.BytesIO()
    figure.savefig(content, format=suffix[1:], dpi=dpi)
    return content.getvalue()


def save(ax: Axes, path: str | os.PathLike[str]) -> None:
    """Write the picture as PNG or SVG, as the name ends, whole or not at all; raises ValueError for another name."""
    write_atomically(path, encoded(ax.figure, check_suffix(path)))


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a picture's name; raises ValueError for one that is not in SUFFIXES."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in {Path(path).suffix!r}; name a {' or a '.join(SUFFIXES)} file")
    return suffix


def legend_beside(ax: Axes, **options: Any) -> None:
    """Put the legend to the right of the axes, where it covers nothing; of many entries the first ones and the last."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > _LISTED:
        from matplotlib.lines import Line2D

        rest = len(labels) - (_LISTED - 1)
        handles[_LISTED - 2 : -1] = [Line2D([], [], linestyle="none")]
        labels[_LISTED - 2 : -1] = [f"({rest} more)"]
    ax.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize="small", **options
    )
