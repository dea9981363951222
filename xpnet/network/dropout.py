"""Dropout as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xpnet.checks import check_number
from xpnet.kernels.dropout import advance_key, apply_mask, dropout_mask, hash_bits
from xpnet.network.layer import Array, Layer

__all__ = ["Dropout"]

MULTIPLIER = 0x9E3779B9  # odd, so that no two of 2^32 counters are equal; of a layer that is used alone


@dataclass(frozen=True)
class Dropout(Layer):
    """Set each input to 0 with probability `rate` and divide the others by 1 - rate; predictions leave it out.

    rate: from 0 to below 1, cut to whole 2^-32 (a smaller one but 0 is 2^-32). Masks come from the seed of the
    training run, the layer's place and the step: they are the same bit by bit on every device.
    Source: Srivastava et al. (2014), Dropout.
    """

    rate: float

    type: ClassVar[str] = "dropout"
    only_in_training: ClassVar[bool] = True
    is_random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        rate = check_number("Dropout rate", self.rate, at_least=0, below=1, example="Dropout(0.5)")
        object.__setattr__(self, "rate", rate)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is ever dropped."""
        return self.rate == 0.0

    def working(self, training: bool) -> dict[str, str]:
        """The mask, and the bits it is made of."""
        return {"mask": "matrix", "bits": "bits", "spare": "bits"} if training else {}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw {"key": (1, 1) uint32}, for a layer that is used alone; a network counts from the run's seed."""
        return {"key": rng.integers(2**32, size=(1, 1), dtype=np.uint32)}

    def train_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Write X * mask, both (n, batch), into `out`, with a mask drawn for it."""
        hash_bits(xp, arrays["index"], arrays["key"], arrays["bits"], arrays["spare"])
        dropout_mask(xp, arrays["bits"], self.rate, arrays["mask"])
        apply_mask(xp, X, arrays["mask"], out)

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dA: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write dA * mask, both (n, batch), into dX."""
        apply_mask(xp, dA, arrays["mask"], dX)

    def advance_into(self, xp: Any, arrays: dict[str, Array]) -> None:
        """Move the key on by as many counters as a full batch has used."""
        advance_key(xp, arrays["key"], arrays["stride"])

    def forward(self, params: dict[str, Array], X: Array, xp: Any = np) -> tuple[Array, dict[str, Array]]:
        """See `Layer.forward`; the same key gives the same mask."""
        n, batch = X.shape
        counters = (MULTIPLIER * np.arange(n * batch, dtype=np.uint64) % np.uint64(2**32)).astype(np.uint32)
        return super().forward({**params, "index": xp.asarray(counters.reshape(batch, n)).T}, X, xp)

    def advance(self, params: dict[str, Array], trace: dict[str, Array], xp: Any = np) -> None:
        """Move params["key"] on in place, so that the next `forward` draws another mask."""
        n, batch = trace["trace"].shape
        super().advance({**params, "stride": MULTIPLIER * n * batch % 2**32}, trace, xp)
