"""The Programs of a network: how its layers and its loss are recorded for training, evaluation and prediction.

Names in a Program count dense layers from 1, as the books do: Z1 = W1 X + b1, A1 = f(Z1), and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from xpnet.architecture import Architecture
from xpnet.kernels.accuracy import right_class, right_side
from xpnet.kernels.losses import LOSSES, mean_over_batch, weighted_mean_over_batch
from xpnet.kernels.updates import accumulate, accumulated_mean
from xpnet.layers import Dense
from xpnet.parameters import Layout
from xpnet.program import Buffer, Program, Recorder, record


class RecordsUpdate(Protocol):
    """What a Program needs of an optimizer: its slots' names, and the calls of its update."""

    slots: tuple[str, ...]

    def record(self, recorder: Recorder, gradient: Buffer, n_weights: int, matrices: Sequence[Buffer]) -> None:
        """Record the update of theta by the gradient, which may be overwritten.

        n_weights: elements of theta before the biases.  matrices: W (n_out, n_in) of each dense layer.
        """
        ...


def training_program(
    architecture: Architecture, batch: int, optimizer: RecordsUpdate | None, weighted: bool, n_accumulated: int = 1
) -> Program:
    """gather | gradient (forward, loss, backward) | update; without an optimizer it ends at the gradient.

    n_accumulated: batches to an update, by the mean over all their samples: gradient | accumulate | update.

    Results of a step: loss, the SUM over the batch; and weight, the sum of the sample weights, where there are any.
    """
    layout = architecture.layout

    def build(recorder: Recorder) -> None:
        gradient = recorder.flat("gradient", layout.size)
        with recorder.phase("gradient"):
            params = _views(recorder, recorder.theta, layout, "")
            grads = _views(recorder, gradient, layout, "d")
            outputs = _forward(recorder, architecture, params, overwrite=True)
            dA = _loss(recorder, architecture, outputs[-1], weighted, with_accuracy=False)
            _backward(recorder, architecture, params, grads, outputs, dA)
        if optimizer is not None:
            if n_accumulated > 1:
                _accumulate(recorder, gradient, weighted)
            with recorder.phase("update"):
                optimizer.record(recorder, gradient, layout.biases[0], [views["W"] for views in params])

    return record(
        build,
        batch=batch,
        n_parameters=layout.size,
        slots=optimizer.slots if optimizer is not None else (),
        results=("loss", "weight") if weighted else ("loss",),
        accumulate=n_accumulated,
    )


def _accumulate(recorder: Recorder, gradient: Buffer, weighted: bool) -> None:
    """Record the sum over batches, and the mean that an update begins with."""
    xp, total = recorder.xp, recorder.flat("accumulated", gradient.size)
    total_weight = recorder.scalar_in(recorder.flat("accumulated weight", 1), "samples", 0)
    weight = recorder["weight"] if weighted else float(recorder.batch)
    with recorder.phase("accumulate"):
        accumulate(xp, gradient, weight, total, total_weight)
    with recorder.phase("update"):
        accumulated_mean(xp, total, total_weight, gradient)


def evaluation_program(architecture: Architecture, batch: int, weighted: bool, with_accuracy: bool) -> Program:
    """gather | forward and loss; results: loss, weight (weighted), correct and correct_weight (with_accuracy)."""

    def build(recorder: Recorder) -> None:
        with recorder.phase("evaluate"):
            params = _views(recorder, recorder.theta, architecture.layout, "")
            outputs = _forward(recorder, architecture, params, overwrite=True)
            _loss(recorder, architecture, outputs[-1], weighted, with_accuracy)

    results = ["loss"] + ["weight"] * weighted + ["correct"] * with_accuracy
    results += ["correct_weight"] * (weighted and with_accuracy)
    return record(build, batch=batch, n_parameters=architecture.layout.size, results=tuple(results))


def inference_program(architecture: Architecture, batch: int, kind: str) -> Program:
    """forward only; the buffers called output0, output1, ... hold what was asked for.

    kind: "forward" (the last layer's output), "predict" (through the loss's link), "activations" (every layer's).
    """

    def build(recorder: Recorder) -> None:
        params = _views(recorder, recorder.theta, architecture.layout, "")
        with recorder.phase("forward"):
            outputs = _forward(recorder, architecture, params, overwrite=kind != "activations")
            link = LOSSES[architecture.loss].link
            wanted = outputs[1:] if kind == "activations" else outputs[-1:]
            if kind == "predict" and link is not None:
                P = recorder.batch_matrix("P", architecture.n_outputs)
                work = recorder.batch_matrix("work", architecture.n_outputs)
                link(recorder.xp, outputs[-1], P, work, recorder.batch_vector("row"))
                wanted = [P]
        for i, buffer in enumerate(wanted):
            recorder.rename(buffer, f"output{i}")

    return record(build, batch=batch, n_parameters=architecture.layout.size)


def _views(recorder: Recorder, flat: Buffer, layout: Layout, prefix: str) -> list[dict[str, Buffer]]:
    """{"W": ..., "b": ...} of each dense layer in theta, or in the gradient."""
    return [
        {
            "W": recorder.matrix_in(flat, f"{prefix}W{i + 1}", layout.weights[i], shape),
            "b": recorder.column_in(flat, f"{prefix}b{i + 1}", layout.biases[i], shape[0]),
        }
        for i, shape in enumerate(layout.shapes)
    ]


def _numbering(architecture: Architecture) -> list[int]:
    """For each layer the number of dense layers up to and with it."""
    numbers, count = [], 0
    for layer in architecture.layers:
        count += isinstance(layer, Dense)
        numbers.append(count)
    return numbers


def _forward(
    recorder: Recorder, architecture: Architecture, params: list[dict[str, Buffer]], overwrite: bool
) -> list[Buffer]:
    """Record the forward pass; returns X and the output of every layer.

    A layer may write over its input if no backward reads that: A1 = relu(Z1) lies where Z1 was.
    """
    X = recorder.batch_matrix("X", architecture.n_inputs)
    recorder.gather("X", X)
    outputs, size = [X], architecture.n_inputs
    before: Any = None
    for layer, number in zip(architecture.layers, _numbering(architecture), strict=True):
        size = layer.output_size(size)
        if layer.is_identity:
            outputs.append(outputs[-1])
            continue
        name = _free_name(recorder, f"{'Z' if isinstance(layer, Dense) else 'A'}{number}")
        may_overwrite = overwrite and not layer.needs_input and before is not None and not before.needs_output
        out = recorder.rename(outputs[-1], name) if may_overwrite else recorder.batch_matrix(name, size)
        layer.forward_into(recorder.xp, params[number - 1], outputs[-1], out)
        outputs.append(out)
        before = layer
    return outputs


def _loss(recorder: Recorder, architecture: Architecture, A: Buffer, weighted: bool, with_accuracy: bool) -> Buffer:
    """Record the loss and what is counted; returns its gradient by the last layer's output, of the batch's mean."""
    xp, n_outputs = recorder.xp, architecture.n_outputs
    loss = LOSSES[architecture.loss]
    Y = recorder.batch_matrix("Y", n_outputs)
    recorder.gather("Y", Y)
    L = recorder.batch_vector("L")
    dA = recorder.batch_matrix(f"d{A.name}", n_outputs)
    work = recorder.batch_matrix("work", n_outputs)
    w = recorder.batch_vector("w") if weighted else None
    if w is not None:
        recorder.gather("weights", w)
    if with_accuracy:
        right = recorder.batch_vector("right")
        if n_outputs == 1:
            right_side(xp, A, Y, loss.threshold, work, dA, right)
        else:
            right_class(xp, A, Y, work, right)
        xp.sum(right, axis=1, keepdims=True, out=recorder["correct"])
        if w is not None:
            xp.multiply(right, w, out=right)
            xp.sum(right, axis=1, keepdims=True, out=recorder["correct_weight"])
    loss.pair(xp, A, Y, L, dA, work)
    if w is None:
        mean_over_batch(xp, L, dA, recorder["loss"])
    else:
        weighted_mean_over_batch(xp, L, w, dA, recorder["loss"], recorder["weight"])
    return dA


def _backward(
    recorder: Recorder,
    architecture: Architecture,
    params: list[dict[str, Buffer]],
    grads: list[dict[str, Buffer]],
    outputs: list[Buffer],
    gradient: Buffer,
) -> None:
    """Record the backward pass, from the gradient by the last output down to the first layer's parameters."""
    numbers = _numbering(architecture)
    for i in range(len(architecture.layers) - 1, -1, -1):
        layer, number, inputs = architecture.layers[i], numbers[i], outputs[i]
        if layer.is_identity:
            continue
        dX = None  # nobody needs the gradient by the data
        if i > 0:
            dX = recorder.batch_matrix(_free_name(recorder, f"d{inputs.name}"), inputs.shape[0])
        trace = inputs if layer.needs_input else outputs[i + 1]
        layer.backward_into(recorder.xp, params[number - 1], trace, gradient, grads[number - 1], dX)
        if dX is not None:
            gradient = dX


def _free_name(recorder: Recorder, name: str) -> str:
    while name in recorder:  # such as a second activation after one dense layer
        name += "'"
    return name
