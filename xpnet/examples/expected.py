"""How an example ends: the number it reached beside the range that was measured."""

from __future__ import annotations


def compare(name: str, value: float, low: float, high: float) -> float:
    """Print the value, the range to expect and whether the one lies in the other; return the value."""
    verdict = "as expected" if low <= value <= high else "NOT as expected"
    print(f"{name}: {value:.4g}; expect {low:g} to {high:g}: {verdict}")
    return value
