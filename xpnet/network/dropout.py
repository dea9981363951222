"""Dropout as a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xpnet.checks import check_number
from xpnet.kernels.dropout import advance_key, apply_mask, dropout_mask, hash_bits
from xpnet.network.layer import Array, Layer

__all__ = ["Dropout"]

MULTIPLIER = 0x9E3779B9  # of a layer used alone; odd, so that all 2^32 counters differ


@dataclass(frozen=True)
class Dropout(Layer):
    """Set each input to 0 with probability `rate` and divide the others by 1 - rate; inactive in predictions.

    rate: at least 0 and below 1, rounded down to a multiple of 2^-32 (but above 0 at least 2^-32). Masks depend on the
    seed of the training run, the layer's position and the step, and are equal bit by bit on every device.
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
        """Return the forms of the mask and of its random bits."""
        return {"mask": "matrix", "bits": "bits", "spare": "bits"} if training else {}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw {"key": (1, 1) uint32}, for a layer used alone; a network counts from the run's seed."""
        return {"key": rng.integers(2**32, size=(1, 1), dtype=np.uint32)}

    def train_into(self, xp: Any, arrays: dict[str, Array], X: Array, out: Array) -> None:
        """Draw a mask and write X * mask, both (n, batch), into `out`."""
        hash_bits(xp, arrays["index"], arrays["key"], arrays["bits"], arrays["spare"])
        dropout_mask(xp, arrays["bits"], self.rate, arrays["mask"])
        apply_mask(xp, X, arrays["mask"], out)

    def backward_into(
        self, xp: Any, arrays: dict[str, Array], trace: Array, dA: Array, grads: dict[str, Array], dX: Array | None
    ) -> None:
        """Write dA * mask, both (n, batch), into dX."""
        apply_mask(xp, dA, arrays["mask"], dX)

    def advance_into(self, xp: Any, arrays: dict[str, Array]) -> None:
        """Advance the key by the counters of a full batch."""
        advance_key(xp, arrays["key"], arrays["stride"])

    def forward(self, params: dict[str, Array], X: Array, xp: Any = np) -> tuple[Array, dict[str, Array]]:
        """See `Layer.forward`; the same key gives the same mask."""
        n, batch = X.shape
        counters = (MULTIPLIER * np.arange(n * batch, dtype=np.uint64) % np.uint64(2**32)).astype(np.uint32)
        return super().forward({**params, "index": xp.asarray(counters.reshape(batch, n)).T}, X, xp)

    def advance(self, params: dict[str, Array], trace: dict[str, Array], xp: Any = np) -> None:
        """Advance params["key"] in place, so that the next `forward` draws another mask."""
        n, batch = trace["trace"].shape
        super().advance({**params, "stride": MULTIPLIER * n * batch % 2**32}, trace, xp)
