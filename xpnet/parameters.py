"""Weights and biases as one flat vector, and how they are drawn.

`Layout` says where each weight matrix and bias vector lies in the vector; `Parameters` is such a vector with its views.
Gradients have the same layout, so an update rule is a few calls for the whole network. Layers come next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.options import check_whole

ALIGNMENT = 64
MAXIMUM_SIZE = 2**31 - 1  # what a 32-bit index reaches; 8 GiB of float32


@dataclass(frozen=True)
class Layout:
    """Where each dense layer's W and b lie in a flat vector: all W first, then all b, each on a 64-element boundary.

    shapes: (n_out, n_in) of each dense layer.  weights, biases: offset of each.  size: length of the vector.
    """

    shapes: tuple[tuple[int, int], ...]
    weights: tuple[int, ...]
    biases: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, shapes: Iterable[tuple[int, int]]) -> Layout:
        """Lay out dense layers of these (n_out, n_in); raises ValueError if they are too large to index."""
        shapes = tuple(shapes)
        offsets, position = [], 0
        for length in [n_out * n_in for n_out, n_in in shapes] + [n_out for n_out, _ in shapes]:
            offsets.append(position)
            position += -(-length // ALIGNMENT) * ALIGNMENT
        if position > MAXIMUM_SIZE:
            found = f"{position:,}" if position < 10**18 else "more than 10**18"
            raise ValueError(
                f"the network has {found} parameters, xpnet can index {MAXIMUM_SIZE:,}; make its layers narrower"
            )
        return cls(shapes, tuple(offsets[: len(shapes)]), tuple(offsets[len(shapes) :]), position)

    @property
    def count(self) -> int:
        """Number of parameters, without the padding between them."""
        return sum(n_out * n_in + n_out for n_out, n_in in self.shapes)


class _Views(list[Any]):
    """A list whose items are written into and never replaced, so that none can part from the flat vector."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self[index][...] = value


class Parameters:
    """One flat vector (size,) with a view on every weight matrix (n_out, n_in) and bias vector (n_out, 1).

    flat: the vector; the few elements between two views are zero and stay zero.
    weights[l], biases[l]: writable views of dense layer l.
    """

    def __init__(self, layout: Layout, flat: Any) -> None:
        self.layout = layout
        self._flat = flat
        self.weights = _Views(
            flat[start : start + n_out * n_in].reshape(n_out, n_in)
            for start, (n_out, n_in) in zip(layout.weights, layout.shapes, strict=True)
        )
        self.biases = _Views(
            flat[start : start + n_out].reshape(n_out, 1)
            for start, (n_out, _) in zip(layout.biases, layout.shapes, strict=True)
        )

    @property
    def flat(self) -> Any:
        """The vector itself; write into it with `flat[...] = `."""
        return self._flat

    def __repr__(self) -> str:
        shapes = ", ".join(f"W{shape} b({shape[0]}, 1)" for shape in self.layout.shapes)
        return f"Parameters({shapes}; {self.layout.count:,} {self.flat.dtype})"


def random_generator(seed: int, purpose: int) -> np.random.Generator:
    """A generator on the host, so that every device sees the same numbers; `purpose` keeps the streams apart.

    Purposes: 0 initial weights, 1 order of the samples.  Raises ValueError or TypeError for a bad seed.
    """
    return np.random.default_rng([check_whole("seed", seed, at_least=0), purpose])


def _standard_normal(n_in: int, n_out: int) -> float:
    return 1.0


def _inverse_sqrt(n_in: int, n_out: int) -> float:
    return 1.0 / math.sqrt(n_in)


def _glorot(n_in: int, n_out: int) -> float:
    return math.sqrt(2.0 / (n_in + n_out))


def _he(n_in: int, n_out: int) -> float:
    return math.sqrt(2.0 / n_in)


# Standard deviation of the normal distribution that a weight is drawn from.
# glorot: Glorot and Bengio (2010), eq. 12.  he: He et al. (2015), eq. 10.
# lecun: LeCun et al. (1998), Efficient BackProp, section 4.6; the same rule as Nielsen's, asked for by selu.
# normal: as in tutorial 000.  inverse_sqrt: Nielsen, chapter 3, "Weight initialization".
WEIGHT_INITIALISERS = {
    "normal": _standard_normal,
    "inverse_sqrt": _inverse_sqrt,
    "glorot": _glorot,
    "he": _he,
    "lecun": _inverse_sqrt,
}
BIAS_INITIALISERS = ("zeros", "normal")  # or any finite number: that constant


def draw_weights(init: str, n_in: int, n_out: int, rng: np.random.Generator) -> np.ndarray:
    """Draw W (n_out, n_in) in float64 from N(0, s^2), s given by the initialiser's name."""
    return rng.standard_normal((n_out, n_in)) * WEIGHT_INITIALISERS[init](n_in, n_out)


def draw_biases(bias: str | float, n_out: int, rng: np.random.Generator) -> np.ndarray:
    """Return b (n_out, 1) in float64: zeros, standard normal, or a constant."""
    if bias == "normal":
        return rng.standard_normal((n_out, 1))
    return np.full((n_out, 1), 0.0 if bias == "zeros" else float(bias))
