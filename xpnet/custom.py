"""Activations and losses of one's own: a pair of kernels, held against central differences when it is made.

A kernel is a function over an array namespace `xp` that writes into the arrays it is given and says nothing but the
words of `xpnet.program.WORDS`, each with `out=`; `xpnet.kernels.activations` and `losses` show how they look. Both
checks record the pair as a Program, as a network does, so what passes here runs on every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import select_backend
from xpnet.executors.replay import Replay
from xpnet.kernels.activations import ACTIVATIONS, ActivationFunction
from xpnet.losses import LOSSES, Loss
from xpnet.options import check_whole
from xpnet.program import Program, Recorder, RecordingError, record

TOLERANCE = 1e-7  # relative error of a right derivative in float64
_STEP = 1e-5
_BATCH = 16
_DIRECTIONS = 4


@dataclass(frozen=True)
class CustomActivation(ActivationFunction):
    """An activation of one's own: CustomActivation("double", forward, backward), then Activation(it) or activation=it.

    forward(xp, Z, out, *scratch) writes A (n, batch) for Z (n, batch); `out` may be `Z` itself unless from_input.
    backward(xp, A, dA, out, *scratch) writes dZ; with from_input it is given Z in place of A.
    scratch, kinks, init: as in `ActivationFunction`.  name: in specs and files, none of xpnet's own.
    The pair is checked at once in float64. Raises ValueError where it leaves the vocabulary, or where the derivative
    is off by more than 1e-7, which is said with the error measured.
    """

    name: str = ""

    def __init__(
        self,
        name: str,
        forward: Callable[..., None],
        backward: Callable[..., None],
        *,
        from_input: bool = False,
        scratch: tuple[str, ...] = (),
        kinks: tuple[float, ...] = (),
        init: str = "glorot",
    ) -> None:
        values = {"name": name, "forward": forward, "backward": backward, "from_input": from_input,
                  "scratch": tuple(scratch), "kinks": tuple(kinks), "init": init}  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)
        what = f"activation {name!r}"
        _check_name("activation", name, ACTIVATIONS)
        if not set(self.scratch) <= {"matrix", "row"}:
            raise ValueError(f"scratch of {what} is {scratch!r}; needed is a tuple of 'matrix' and 'row'")
        for n in (3, 1):
            _check_activation(what, self, n)


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A loss of one's own: CustomLoss("name", pair), then loss=it.

    pair(xp, A, Y, L, dA, work) writes the loss of each sample into L (1, batch) and its gradient by the last layer's
    output A into dA, which like A, Y and work, for scratch, is (n_out, batch); it leaves A and Y as they are.
    link(xp, A, out, work, row): from A to predictions, None where A is one; with a link the last layer must have no
    activation.  threshold: where a single output A is cut into classes 0 and 1.
    n_outputs: for the check, which is made at once in float64: targets are columns that sum to 1, half of them one-hot
    (for one output: 0, 1 and between), A is drawn from 0 to 1 and, where the loss is finite, from normal numbers.
    Raises ValueError where the pair leaves the vocabulary, or where the gradient is off by more than 1e-7, which is
    said with the error measured.
    """

    name: str
    pair: Callable[..., None]
    link: Callable[..., None] | None = None
    threshold: float = 0.5
    n_outputs: int = 3

    def __post_init__(self) -> None:
        _check_name("loss", self.name, LOSSES)
        _check_loss(f"loss {self.name!r}", self, check_whole("n_outputs", self.n_outputs, at_least=1))

    @property
    def output(self) -> str | None:  # type: ignore[override]
        """A link stands in for the last layer's activation."""
        return None if self.link is None else "identity"

    @property
    def parameters(self) -> dict[str, Any]:
        """None that a spec could hold."""
        return {}

    def losses_into(self, xp: Any, A: Any, Y: Any, L: Any, dA: Any, work: Any) -> None:
        """Write the loss of each sample into L (1, batch) and its gradient by A into dA (n_out, batch)."""
        self.pair(xp, A, Y, L, dA, work)

    def to_spec(self) -> str | dict[str, Any]:
        """The name; `functions=` gives the pair back."""
        return self.name


def _check_name(kind: str, name: Any, taken: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of the {kind} is {name!r}; needed is a text, such as 'mine'")
    if name in taken:
        raise ValueError(f"the {kind} {name!r} is one of xpnet's own; give yours another name")


def _check_activation(what: str, function: ActivationFunction, n: int) -> None:
    """Hold sum of G * f(Z) of each sample against central differences, through the calls that a step would make."""

    def build(recorder: Recorder) -> None:
        xp = recorder.xp
        Z = recorder.batch_matrix("Z", n)
        A = recorder.batch_matrix("A", n) if function.from_input else recorder.rename(Z, "A")
        dA, dZ = recorder.batch_matrix("dA", n), recorder.batch_matrix("dZ", n)
        scratch = [
            recorder.batch_matrix(f"scratch{i}", n) if form == "matrix" else recorder.batch_vector(f"scratch{i}")
            for i, form in enumerate(function.scratch)
        ]
        function.forward(xp, Z, A, *scratch)
        function.backward(xp, Z if function.from_input else A, dA, dZ, *scratch)

    signature = "forward(xp, Z, out, *scratch) and backward(xp, A or Z, dA, out, *scratch)"
    engine = _engine(what, build, signature, ("A", "dZ"))
    rng = np.random.default_rng(0)
    Z, G = 2.0 * rng.standard_normal((n, _BATCH)), rng.standard_normal((n, _BATCH))
    dZ = _run(engine, {"Z": Z, "dA": G}, "dZ")

    def value(Z: np.ndarray) -> np.ndarray:
        return np.asarray((G * _run(engine, {"Z": Z, "dA": G}, "A")).sum(axis=0))

    _refuse(what, "backward", _largest_error(value, Z, dZ, rng))


def _check_loss(what: str, loss: CustomLoss, n: int) -> None:
    """Hold the loss of each sample against central differences along random directions."""

    def build(recorder: Recorder) -> None:
        names = ("A", "Y", "dA", "work")
        A, Y, dA, work = (recorder.batch_matrix(name, n) for name in names)
        loss.losses_into(recorder.xp, A, Y, recorder.batch_vector("L"), dA, work)
        if loss.link is not None:
            loss.link(recorder.xp, A, recorder.batch_matrix("P", n), work, recorder.batch_vector("row"))

    written = ("L", "dA") if loss.link is None else ("L", "dA", "P")
    signature = "pair(xp, A, Y, L, dA, work) and link(xp, A, out, work, row)"
    engine = _engine(what, build, signature, written)
    rng = np.random.default_rng(0)
    Y = rng.uniform(0.1, 0.9, (n, _BATCH))
    classes = rng.integers(max(n, 2), size=_BATCH // 2)  # soft and hard targets in turn
    Y = Y / Y.sum(axis=0) if n > 1 else Y
    Y[:, ::2] = np.eye(n)[:, classes] if n > 1 else classes
    for A, may_be_undefined in (
        (rng.uniform(0.1, 0.9, (n, _BATCH)), False),  # where a logarithm is defined, too
        (2.0 * rng.standard_normal((n, _BATCH)), True),
    ):
        dA = _run(engine, {"A": A, "Y": Y}, "dA")
        if not (np.array_equal(engine.read("A", _BATCH), A) and np.array_equal(engine.read("Y", _BATCH), Y)):
            raise ValueError(f"{what} writes into A or Y; both must stay as they are: use dA and work for scratch")

        def value(A: np.ndarray) -> np.ndarray:
            return np.array(_run(engine, {"A": A, "Y": Y}, "L")[0])

        if may_be_undefined and not np.isfinite(value(A)).all():
            continue
        _refuse(what, "gradient", _largest_error(value, A, dA, rng))


def _engine(what: str, build: Callable[[Recorder], None], signature: str, written: tuple[str, ...]) -> Replay:
    """Record a pair and bind it to NumPy in float64; refuse what cannot be recorded."""
    try:
        program: Program = record(build, batch=_BATCH, n_parameters=0)
    except (AttributeError, TypeError, RecordingError) as error:
        raise ValueError(f"{what} cannot be recorded: {error}; needed is {signature}, in the words of "
                         "xpnet.program.WORDS with out=") from error  # fmt: skip
    missing = [name for name in written if name not in {call.out.buffer.name for call in program.calls}]
    if missing:
        raise ValueError(f"{what} writes nothing into {' and '.join(missing)}; needed is {signature}, with out=")
    backend = select_backend("cpu", "float64")
    return Replay(program, backend, backend.zeros(0))


def _run(engine: Replay, inputs: dict[str, np.ndarray], wanted: str) -> np.ndarray:
    engine.feed(_BATCH, **inputs)
    with np.errstate(all="ignore"):
        engine.execute(_BATCH)
    return np.array(engine.read(wanted, _BATCH))


def _largest_error(
    value: Callable[[np.ndarray], np.ndarray], x: np.ndarray, gradient: np.ndarray, rng: np.random.Generator
) -> float:
    """Largest difference of slopes (value(x + h v) - value(x - h v)) / 2h and v . gradient, relative to the largest.

    value: one number a sample (n_samples,).  x, gradient (n, n_samples).
    """
    errors, sizes = [], [1e-12]
    for _ in range(_DIRECTIONS):
        v = rng.standard_normal(x.shape)
        slope = (value(x + _STEP * v) - value(x - _STEP * v)) / (2.0 * _STEP)
        expected = (v * gradient).sum(axis=0)
        errors.append(np.abs(slope - expected).max())
        sizes += [np.abs(slope).max(), np.abs(expected).max()]
    return float(np.max(errors) / np.max(sizes))


def _refuse(what: str, part: str, error: float) -> None:
    if not error <= TOLERANCE:  # NaN too
        raise ValueError(f"the {part} of {what} disagrees with central differences: relative error {error:.1e}, "
                         f"needed is at most {TOLERANCE:g}; correct one of the two")  # fmt: skip
