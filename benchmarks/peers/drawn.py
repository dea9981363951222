"""Works drawn at random: shapes that nobody has chosen, and for which no system is tuned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .turns import disagreement
from .works import Work, make_data, reference

MOST_FLOPS = 2e8  # of a step: some milliseconds on two cores
WIDTHS, OUTPUTS, BATCHES, HIDDEN_LAYERS = (2, 1024), (1, 50), (1, 256), (1, 4)  # each from, to
HIDDEN = ("relu", "tanh", "sigmoid")  # what all systems have
LOSSES = ("softmax_cross_entropy", "squared_error")
RATES = tuple(4.0**power for power in range(1, -10, -1))


def draw(n: int, seed: int) -> dict[str, Work]:
    """Return n works, the same for the same seed: "r1", "r2", ...

    Widths of inputs and hidden layers and the batch are log-uniform; the number of hidden layers, the outputs, the
    activation and the loss uniform. Sigmoid outputs go with sigmoid hidden units and squared error, as in the table.
    What takes more than MOST_FLOPS a step, or can be learned at no rate, is drawn again.
    """
    rng = np.random.default_rng(seed)
    works: dict[str, Work] = {}
    while len(works) < n:
        work = _learnable(_shape(rng, f"drawn with seed {seed}"))
        if work is not None:
            works[f"r{len(works) + 1}"] = work
    return works


def _shape(rng: np.random.Generator, origin: str) -> Work:
    """Draw until a step is short enough."""
    while True:
        hidden, loss = str(rng.choice(HIDDEN)), str(rng.choice(LOSSES))
        sizes = [_log_uniform(rng, *WIDTHS) for _ in range(1 + int(rng.integers(*HIDDEN_LAYERS, endpoint=True)))]
        fewest = 2 if loss == "softmax_cross_entropy" else OUTPUTS[0]
        sizes.append(int(rng.integers(fewest, OUTPUTS[1], endpoint=True)))
        output = "sigmoid" if hidden == "sigmoid" and loss == "squared_error" else "identity"
        work = Work(tuple(sizes), hidden, output, loss, _log_uniform(rng, *BATCHES), RATES[0], origin)
        if _flops(work) <= MOST_FLOPS:
            return work


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _flops(work: Work) -> float:
    """Of the products of a step: three a layer, of the first layer two."""
    products = [n_in * n_out for n_in, n_out in zip(work.sizes, work.sizes[1:], strict=False)]
    return 2.0 * work.batch * (3 * sum(products) - products[0])


def _learnable(work: Work) -> Work | None:
    """Return the work at the largest of RATES at which the checked steps are meaningful, or None.

    The loss falls by 1 to 30 per cent there: far from diverging, and enough for agreement to mean something. Float32
    agrees with float64 ten times as closely as a system must, so whoever disagrees cannot blame rounding.
    """
    data = make_data(work)
    for rate in RATES:
        work = replace(work, lr=rate)
        with np.errstate(all="ignore"):  # a rate too large ends in infinities
            losses = reference(work, data)
            fall = 1.0 - losses["loss_after"] / losses["loss_before"]
            if 0.01 < fall < 0.3 and not disagreement(reference(work, data, np.float32), losses, strictness=10.0):
                return work
    return None
