"""What tests of exports share: networks of every kind, rows for them, and how far two predictions lie apart."""

from __future__ import annotations

import numpy as np
import pytest
from features import FEATURES, network_of

import xpnet
from xpnet.exporting.subject import subject_of

_OF_TRAINING = ("optimizer", "option", "weights", "accumulate", "all options", "l2_summed", "a long norm", "smoothing")
NAMES = [name for name in FEATURES if not name.startswith(_OF_TRAINING)]
FEW = ("activation gelu", "loss poisson", "batch normalization", "one layer, one input, one output", "everything")


def every(*few):
    """The names of networks, of which only a few are predicted in the default suite."""
    return [pytest.param(name, marks=() if name in (few or FEW) else pytest.mark.full) for name in NAMES]


def network(name, dtype):
    """A network as after some training: no parameter and no statistic is at its beginning."""
    made, rng = network_of(FEATURES[name], xpnet.select_backend("cpu", dtype)), np.random.default_rng(0)
    for key, array in {**made.parameters.named, **made.statistics}.items():
        array[...] += (rng.random if key.endswith("variance") else rng.standard_normal)(array.shape) * 0.2
    if FEATURES[name].get("uint8"):
        made.inputs = xpnet.network.inputs.InputRange(0.0, 1.0, 1 / 255)
    return made


def rows_for(made, n=1000):
    """Rows (n, n_inputs) that the network takes."""
    rng, shape = np.random.default_rng(1), (n, made.architecture.n_inputs)
    if made.inputs is not None:
        return rng.integers(256, size=shape).astype(np.uint8)
    return (2.0 * rng.standard_normal(shape)).astype(made.backend.dtype)


def expected(made, rows, **about):
    """Predictions (n, n_outputs) and the places of classes, by xpnet."""
    return subject_of(made, **about).predict(rows)


def apart(found, wanted):
    """The largest difference in parts of a row's largest value, or of that of the mean row where it is larger."""
    largest = np.abs(wanted).max(axis=1)
    return float((np.abs(found - wanted).max(axis=1) / np.maximum(largest, largest.mean())).max())


def of_your_own(dtype="float32"):
    """A network with an activation that says the words which xpnet's own do not, softsign in a roundabout way."""

    def forward(xp, Z, out, work):
        """A = Z / (1 + |Z|): \"\"\"softsign\"\"\"\\."""
        xp.multiply(Z, Z, out=work)
        xp.sqrt(work, out=work)
        xp.add(work, 1, out=work)
        xp.log(work, out=work)
        xp.exp(work, out=work)
        xp.divide(1.0, work, out=work)
        xp.subtract(1.0, work, out=work)
        xp.greater(Z, 0.0, out=out)
        xp.subtract(work, out, out=work)
        xp.add(work, out, out=work)
        xp.sign(Z, out=out)
        xp.multiply(out, work, out=out)

    def backward(xp, Z, dA, out):
        xp.abs(Z, out=out)
        xp.add(out, 1.0, out=out)
        xp.multiply(out, out, out=out)
        xp.divide(dA, out, out=out)

    own = xpnet.CustomActivation(
        "softsign", forward, backward, from_input=True, scratch=("matrix",), backward_scratch=()
    )
    backend = xpnet.select_backend("cpu", dtype)
    return xpnet.Network([3, 4, 2], activation=own, loss="squared_error", backend=backend)
