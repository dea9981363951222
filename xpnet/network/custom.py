"""Custom activations and losses: pairs of kernels, checked against central differences when they are made.

A kernel is a function over an array namespace `xp` that writes into the arrays it receives and calls only the words of
`xpnet.program.calls.WORDS`, each with `out=`; see `xpnet.kernels.activations` and `losses` for examples. Both checks
record the pair as a Program, as a network does, so that a pair that passes runs on every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import select_backend
from xpnet.checks import check_number, check_whole
from xpnet.engines.engine import Engine
from xpnet.engines.replay import Replay
from xpnet.kernels.activations import ACTIVATIONS, ActivationFunction
from xpnet.network.losses import LOSSES, Loss
from xpnet.program.calls import Buffer, Program, RecordingError
from xpnet.program.recorder import Recorder, record

__all__ = ["CustomActivation", "CustomLoss"]

TOLERANCE = 1e-7  # relative error of a correct derivative in float64
_STEP = 1e-5
_BATCH = 16
_DIRECTIONS = 4
_MARGIN = 20.0 * _STEP  # from a kink: more than two steps


@dataclass(frozen=True)
class CustomActivation(ActivationFunction):
    """A custom activation: f = CustomActivation("double", forward, backward), then Activation(f) or activation=f.

    forward(xp, Z, out, *scratch) writes A (n, batch) for Z (n, batch); `out` may be `Z` itself unless from_input.
    backward(xp, A, dA, out, *backward_scratch) writes dZ; with from_input it receives Z instead of A.
    Inputs must not change, unless `out` is Z. `out` (unless it is Z) and scratch must be written before they are read,
    since layers share scratch.
    scratch, backward_scratch, kinks, init: as in `ActivationFunction`.  name: for specs and files, not one of xpnet's.
    The pair is checked at once in float64. Raises ValueError for calls outside the vocabulary, or a relative error of
    the derivative above 1e-7, which the message gives.
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
        backward_scratch: tuple[str, ...] | None = None,
    ) -> None:
        values = {
            "name": name,
            "forward": forward,
            "backward": backward,
            "from_input": from_input,
            "scratch": tuple(scratch),
            "kinks": tuple(kinks),
            "init": init,
            "backward_scratch": tuple(scratch if backward_scratch is None else backward_scratch),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)
        what = f"activation {name!r}"
        _check_name("activation", name, ACTIVATIONS)
        _check_scratch(f"scratch of {what}", self.scratch)
        _check_scratch(f"backward_scratch of {what}", self.backward_scratch)
        for n in (3, 1):
            for in_place in (False,) if self.from_input else (False, True):
                _check_activation(what, self, n, in_place)


@dataclass(frozen=True)
class CustomLoss(Loss):
    """A custom loss: l = CustomLoss("name", pair), then loss=l.

    pair(xp, A, Y, L, dA, work) writes the loss of each sample into L (1, batch) and its gradient by the last layer's
    output A into dA; A, Y, dA and work, for scratch, are (n_out, batch). It must not change A and Y.
    link(xp, A, out, *link_scratch): from A to predictions, None if A is the prediction; with a link the last layer must
    have no activation.  link_scratch: "matrix" (n_out, batch) or "row" (1, batch) for each scratch array of the link;
    by default one of each.
    threshold: separates classes 0 and 1 of a single output A; default 0.5. With a link it is required, and compared
    with A before the link.
    n_outputs: for the check, made at once in float64: targets are columns that sum to 1, half of them one-hot (for one
    output: 0, 1 and between), A is drawn from 0 to 1, from normal numbers and from -10 to 10. Samples whose loss is not
    finite are ignored.
    It has no kinks: `check_gradients` cannot redraw a direction that passes a kink of this loss.
    Raises ValueError for calls outside the vocabulary, or a relative error of the gradient above 1e-7, which the
    message gives.
    """

    name: str
    pair: Callable[..., None]
    link: Callable[..., None] | None = None
    threshold: float | None = None  # type: ignore[assignment]  # never None once made
    n_outputs: int = 3
    link_scratch: tuple[str, ...] = ("matrix", "row")

    def __post_init__(self) -> None:
        _check_name("loss", self.name, LOSSES)
        _check_scratch(f"link_scratch of loss {self.name!r}", self.link_scratch)
        if self.threshold is None and self.link is not None:
            raise ValueError(
                f"loss {self.name!r} has a link and no threshold; give the value at which a single output is cut "
                "before the link, such as threshold=0.0 for a sigmoid"
            )
        threshold = 0.5 if self.threshold is None else self.threshold
        threshold = check_number(f"threshold of loss {self.name!r}", threshold, example="threshold=0.0")
        object.__setattr__(self, "threshold", threshold)
        _check_loss(f"loss {self.name!r}", self, check_whole("n_outputs", self.n_outputs, at_least=1))

    @property
    def output(self) -> str | None:  # type: ignore[override]
        """The last layer's activation: "identity" with a link, else any."""
        return None if self.link is None else "identity"

    @property
    def parameters(self) -> dict[str, Any]:
        """Empty: a spec holds only the name."""
        return {}

    def losses_into(self, xp: Any, A: Any, Y: Any, L: Any, dA: Any, work: Any) -> None:
        """Write the loss of each sample into L (1, batch) and its gradient by A into dA (n_out, batch)."""
        self.pair(xp, A, Y, L, dA, work)

    def to_spec(self) -> str | dict[str, Any]:
        """Return the name; `functions=` supplies the pair."""
        return self.name


def _check_name(kind: str, name: Any, taken: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"the name of the {kind} is {name!r}; it must be a text, such as 'mine'")
    if name in taken:
        raise ValueError(f"the {kind} {name!r} is one of xpnet's own; give yours another name")


def _check_scratch(what: str, forms: Any) -> None:
    if not isinstance(forms, tuple) or not set(forms) <= {"matrix", "row"}:
        raise ValueError(f"{what} is {forms!r}; it must be a tuple of 'matrix' and 'row'")


def _scratch(recorder: Recorder, name: str, forms: tuple[str, ...], n: int) -> list[Buffer]:
    made = {"matrix": lambda label: recorder.batch_matrix(label, n), "row": recorder.batch_vector}
    return [made[form](f"{name}{i}") for i, form in enumerate(forms)]


def _check_activation(what: str, function: ActivationFunction, n: int, in_place: bool) -> None:
    """Check the sum of G * f(Z) of each sample against central differences, using the calls of a step."""

    def build(recorder: Recorder) -> None:
        xp = recorder.xp
        Z = recorder.batch_matrix("Z", n)
        A = recorder.rename(Z, "A") if in_place else recorder.batch_matrix("A", n)
        dA, dZ = recorder.batch_matrix("dA", n), recorder.batch_matrix("dZ", n)
        with recorder.phase("forward"):
            function.forward(xp, Z, A, *_scratch(recorder, "scratch", function.scratch, n))
        with recorder.phase("backward"):
            scratch = _scratch(recorder, "backward_scratch", function.backward_scratch, n)
            function.backward(xp, Z if function.from_input else A, dA, dZ, *scratch)

    signature = "forward(xp, Z, out, *scratch) and backward(xp, A or Z, dA, out, *backward_scratch)"
    engine = _engine(what, build, signature, ("A", "dZ"))
    rng = np.random.default_rng(0)
    G = rng.standard_normal((n, _BATCH))

    def value(Z: np.ndarray) -> np.ndarray:
        _start(engine, Z=Z, dA=G)
        engine.execute(_BATCH, "forward")
        if not in_place:
            _check_kept(what, engine, "forward", Z=Z)
        return np.array((G * engine.read("A", _BATCH)).sum(axis=0))

    def gradient(Z: np.ndarray) -> np.ndarray:
        value(Z)
        trace = "Z" if function.from_input else "A"
        kept = np.array(engine.read(trace, _BATCH))
        engine.execute(_BATCH, "backward")
        _check_kept(what, engine, "backward", **{trace: kept})
        return np.array(engine.read("dZ", _BATCH))

    for i, Z in enumerate(_inputs(function.kinks, n, rng)):
        error = _largest_error(value, Z, gradient(Z), rng, skip=i > 0)
        if error is not None:
            _refuse(what, "backward", error)


def _inputs(kinks: tuple[float, ...], n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return inputs Z (n, _BATCH): normal numbers, numbers from -10 to 10, and both sides of each kink."""
    shape = (n, _BATCH)
    inputs = [2.0 * rng.standard_normal(shape), _wide(shape, rng)]
    sides = np.where(np.indices(shape).sum(axis=0) % 2 == 0, 1.0, -1.0)
    inputs += [kink + sides * rng.uniform(0.01, 1.0, shape) for kink in kinks]
    for kink in kinks:
        inputs = [np.where(abs(Z - kink) < _MARGIN, kink + np.copysign(_MARGIN, Z - kink), Z) for Z in inputs]
    return inputs


def _wide(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return numbers from -10 to 10, one in each of as many equal parts."""
    size = shape[0] * shape[1]
    return np.array(20.0 * rng.permutation(np.arange(size) + rng.random(size)).reshape(shape) / size - 10.0)


def _check_loss(what: str, loss: CustomLoss, n: int) -> None:
    """Check the loss of each sample against central differences along random directions."""

    def build(recorder: Recorder) -> None:
        names = ("A", "Y", "dA", "work")
        A, Y, dA, work = (recorder.batch_matrix(name, n) for name in names)
        with recorder.phase("loss"):
            loss.losses_into(recorder.xp, A, Y, recorder.batch_vector("L"), dA, work)
        if loss.link is not None:
            with recorder.phase("link"):
                scratch = _scratch(recorder, "scratch", loss.link_scratch, n)
                loss.link(recorder.xp, A, recorder.batch_matrix("P", n), *scratch)

    written = ("L", "dA") if loss.link is None else ("L", "dA", "P")
    signature = "pair(xp, A, Y, L, dA, work) and link(xp, A, out, *link_scratch)"
    engine = _engine(what, build, signature, written)
    rng = np.random.default_rng(0)
    Y = rng.uniform(0.1, 0.9, (n, _BATCH))
    classes = rng.integers(max(n, 2), size=_BATCH // 2)  # soft and one-hot targets
    Y = Y / Y.sum(axis=0) if n > 1 else Y
    Y[:, ::2] = np.eye(n)[:, classes] if n > 1 else classes

    def value(A: np.ndarray) -> np.ndarray:
        _start(engine, A=A, Y=Y)
        engine.execute(_BATCH, "loss")
        return np.array(engine.read("L", _BATCH)[0])

    def gradient(A: np.ndarray) -> np.ndarray:
        value(A)
        _check_kept(what, engine, "pair", A=A, Y=Y)
        return np.array(engine.read("dA", _BATCH))

    inside = rng.uniform(0.1, 0.9, (n, _BATCH))  # where logarithms are defined
    for A in (inside, 2.0 * rng.standard_normal((n, _BATCH)), _wide((n, _BATCH), rng)):
        error = _largest_error(value, A, gradient(A), rng, skip=True)
        if error is not None:
            _refuse(what, "gradient", error)
        elif A is inside:
            raise ValueError(
                f"{what} is finite for no sample of the check, A from 0.1 to 0.9 and targets from 0 to 1; "
                "the pair must be finite there and read dA, L and work only after it has written them"
            )
    if loss.link is not None:
        _start(engine, A=inside)
        engine.execute(_BATCH, "link")
        _check_kept(what, engine, "link", A=inside)
        if np.isnan(engine.read("P", _BATCH)).any():
            raise ValueError(
                f"the link of {what} gives NaN for A from 0.1 to 0.9; it must be defined "
                "there and read out and scratch only after it has written them"
            )


def _engine(what: str, build: Callable[[Recorder], None], signature: str, written: tuple[str, ...]) -> Engine:
    """Record a pair and bind it to NumPy in float64; refuse a pair that cannot be recorded."""
    try:
        program: Program = record(build, batch=_BATCH, n_parameters=0)
    except (AttributeError, TypeError, RecordingError) as error:
        raise ValueError(
            f"{what} cannot be recorded: {error}; it must be {signature}, in the words of "
            "xpnet.program.calls.WORDS with out="
        ) from error
    missing = [name for name in written if name not in {call.out.buffer.name for call in program.calls}]
    if missing:
        raise ValueError(f"{what} writes nothing into {' and '.join(missing)}; it must be {signature}, with out=")
    backend = select_backend("cpu", "float64")
    return Replay(program, backend, backend.zeros(0))


def _start(engine: Engine, **inputs: np.ndarray) -> None:
    """Feed the inputs; all other memory is NaN, which exposes reads before writes."""
    for name in engine.program.buffers:
        engine.read(name, _BATCH)[...] = np.nan
    engine.feed(_BATCH, **inputs)


def _check_kept(what: str, engine: Engine, part: str, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if not np.array_equal(engine.read(name, _BATCH), array, equal_nan=True):
            raise ValueError(
                f"the {part} of {what} writes into {name}, which must stay as it is; write into out (of "
                "a loss: dA and work) and the scratch given"
            )


def _largest_error(
    value: Callable[[np.ndarray], np.ndarray], x: np.ndarray, gradient: np.ndarray, rng: np.random.Generator, skip: bool
) -> float | None:
    """Return the largest error of v . gradient as slope along random directions v, relative to the largest slope.

    value: a function of x that returns one number per sample, (n_samples,).  x, gradient (n, n_samples).
    skip: whether to ignore samples whose value or slope is not finite; returns None if none is left.
    Slopes are Richardson's extrapolation of central differences over h and 2h, whose error is of order h^4, so that
    steep functions pass. Source: Press et al., Numerical Recipes, section 5.7.
    Slopes below 1/100 of the values are lost in rounding, so the error is relative to at least that.
    """
    V, h = rng.standard_normal((_DIRECTIONS, *x.shape)), _STEP
    values = value(x)
    with np.errstate(all="ignore"):
        slopes = np.array(
            [
                (8.0 * (value(x + h * v) - value(x - h * v)) - (value(x + 2.0 * h * v) - value(x - 2.0 * h * v)))
                / (12.0 * h)
                for v in V
            ]
        )
        expected = (V * gradient).sum(axis=1)
        errors = abs(slopes - expected)
    kept = np.isfinite(values) & np.isfinite(slopes).all(axis=0) if skip else np.ones(len(values), dtype=bool)
    if not kept.any():
        return None
    sizes = (abs(slopes[:, kept]).max(), abs(expected[:, kept]).max(), 0.01 * abs(values[kept]).max(), 1e-12)
    return float(errors[:, kept].max() / np.max(sizes))


def _refuse(what: str, part: str, error: float) -> None:
    if not error <= TOLERANCE:  # NaN too
        unwritten = "; NaN also comes from out or scratch that is read before it is written" if np.isnan(error) else ""
        raise ValueError(
            f"the {part} of {what} disagrees with central differences: relative error {error:.1e}, "
            f"allowed is at most {TOLERANCE:g}; correct one of the two{unwritten}"
        )
