"""End an example: print its number beside the range measured, or the mistake that stops it, in one line.

A range holds for the example's seed. It is wider than what a few other seeds and BLAS kernels gave, because long
trainings amplify rounding, and narrow enough to exclude a network that does not learn.
"""

from __future__ import annotations

import argparse
from typing import NoReturn


def compare(name: str, value: float, low: float, high: float) -> float:
    """Print the value, the range to expect and whether it holds the value; return the value."""
    verdict = "as expected" if low <= value <= high else "NOT as expected"
    print(f"{name}: {value:.4g}; expect {low:g} to {high:g}: {verdict}")
    return value


def stop(parser: argparse.ArgumentParser, error: Exception) -> NoReturn:
    """End the program with the error in one line on stderr and exit status 1, as the `xpnet` command does."""
    parser.exit(1, f"{parser.prog}: {' '.join(str(error).split())}\n")
