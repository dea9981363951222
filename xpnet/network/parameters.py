"""Keep parameters in one flat vector, and draw their initial values.

`Layout` gives the place of each weight matrix, bias and other parameter in the vector; `Parameters` is such a vector
with its views. Gradients have the same layout, so that an update rule is a few calls for the whole network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from xpnet.checks import check_whole

_PADDED_TO = 64  # elements, to a multiple of which each array takes up the vector
MAXIMUM_SIZE = 2**31 - 1  # the largest 32-bit index; 8 GiB of float32

Shape = tuple[int, int]


@dataclass(frozen=True)
class ArrayPlace:
    """The place of a layer's array in a flat vector.

    layer: index of the layer.  name: in the layer, such as "W".  offset: of its first element.
    """

    layer: int
    name: str
    shape: Shape
    offset: int

    @property
    def path(self) -> str:
        """The name in a model file, such as "layers.0.W"."""
        return f"layers.{self.layer}.{self.name}"

    def view(self, flat: Any) -> Any:
        """Return the array as a view of the vector."""
        n_rows, n_columns = self.shape
        return flat[self.offset : self.offset + n_rows * n_columns].reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """The places of all arrays: weight matrices first, then b, gamma and beta, each on a 64-element boundary.

    places: of the parameters, layer by layer.  n_weights: the end of the matrices, to which weight decay applies.
    size: length of the parameters' vector, theta.  statistics, n_statistics: places and length of the running
    statistics, in a region that follows theta; their offsets count from its start.
    """

    places: tuple[ArrayPlace, ...]
    n_weights: int
    size: int
    statistics: tuple[ArrayPlace, ...] = ()
    n_statistics: int = 0

    @classmethod
    def of(
        cls,
        matrices: Iterable[Mapping[str, Shape]],
        columns: Iterable[Mapping[str, Shape]],
        statistics: Iterable[Mapping[str, Shape]] = (),
    ) -> Layout:
        """Lay out arrays of these names and shapes, layer by layer; raises ValueError if too large to index."""
        weights, n_weights = _placed(matrices, 0)
        others, size = _placed(columns, n_weights)
        kept, n_statistics = _placed(statistics, 0)
        total = size + n_statistics
        if total > MAXIMUM_SIZE:
            found = f"{total:,}" if total < 10**18 else "more than 10**18"
            raise ValueError(
                f"the network has {found} parameters, xpnet can index {MAXIMUM_SIZE:,}; make its layers narrower"
            )
        by_layer = tuple(sorted((*weights, *others), key=lambda place: place.layer))  # stable: W before b
        return cls(by_layer, n_weights, size, kept, n_statistics)

    @property
    def matrices(self) -> tuple[ArrayPlace, ...]:
        """The places of the weight matrices, at the start of the vector."""
        return tuple(place for place in self.places if place.offset < self.n_weights)

    @property
    def count(self) -> int:
        """Number of parameters, without the padding between them."""
        return sum(math.prod(place.shape) for place in self.places)


def _placed(arrays: Iterable[Mapping[str, Shape]], position: int) -> tuple[tuple[ArrayPlace, ...], int]:
    """ArrayPlace arrays, layer by layer, one after another from `position`; returns their end."""
    places = []
    for layer, shapes in enumerate(arrays):
        for name, shape in shapes.items():
            places.append(ArrayPlace(layer, name, shape, position))
            position += -(-math.prod(shape) // _PADDED_TO) * _PADDED_TO
    return tuple(places), position


class _Views(list[Any]):
    """A list whose items can be written into but not replaced, so that all stay views of the flat vector."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self[index][...] = value


class Parameters:
    """A flat vector (size,) with a view of every parameter: weight matrices (n_out, n_in), columns (n, 1).

    flat: the vector; the few elements between two views are zero and stay zero.
    weights[l], biases[l]: writable views of W and b of dense layer l; None is the bias of a layer without one.
    named: every view by its name in a model file, such as "layers.0.W" or "layers.1.gamma".
    """

    def __init__(self, layout: Layout, flat: Any) -> None:
        self.layout = layout
        self._flat = flat
        self.named = {place.path: place.view(flat) for place in layout.places}
        matrices = layout.matrices
        columns = {place.layer: self.named[place.path] for place in layout.places if place not in matrices}
        self.weights = _Views(self.named[place.path] for place in matrices)
        self.biases = _Views(columns.get(place.layer) for place in matrices)

    def __reduce__(self) -> Any:
        return Parameters, (self.layout, self._flat)  # views are made anew, of the same vector

    @property
    def flat(self) -> Any:
        """The vector itself; write into it with `flat[...] = `."""
        return self._flat

    def __repr__(self) -> str:
        by_layer = groupby(self.layout.places, key=lambda place: place.layer)
        shapes = ", ".join(" ".join(f"{place.name}{place.shape}" for place in places) for _, places in by_layer)
        return f"Parameters({shapes}; {self.layout.count:,} {self.flat.dtype})"


def random_generator(seed: int, purpose: int) -> np.random.Generator:
    """Return a generator on the host, so that every device gets the same numbers; `purpose` separates the streams.

    Purposes: 0 initial weights, 1 order of the samples, 2 masks of dropout.
    Raises ValueError or TypeError for a bad seed.
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


# Standard deviation of the normal distribution of a weight.
# glorot: Glorot and Bengio (2010), eq. 12.  he: He et al. (2015), eq. 10.
# lecun: LeCun et al. (1998), Efficient BackProp, section 4.6; the same rule as Nielsen's, required by selu.
# normal: 1.  inverse_sqrt: Nielsen, chapter 3, "Weight initialization".
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
    W = rng.standard_normal((n_out, n_in))
    W *= WEIGHT_INITIALISERS[init](n_in, n_out)
    return W


def draw_biases(bias: str | float, n_out: int, rng: np.random.Generator) -> np.ndarray:
    """Return b (n_out, 1) in float64: zeros, standard normal, or a constant."""
    if bias == "normal":
        return rng.standard_normal((n_out, 1))
    return np.full((n_out, 1), 0.0 if bias == "zeros" else float(bias))
