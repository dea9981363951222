"""The central page of xpnet: a step of a network, recorded from the kernels as a list of calls, the Program.

`training_program` runs the kernels of one step once, with a recorder instead of NumPy, and so collects the calls that
engines then run. For a 2-3-1 network with tanh, squared error and SGD, batch 4, it records the following. The phase
"gradient" is forward, loss and backward; each kernel's name stands before its equation, each call before the shape of
its result:

    gather   X (2, 4) <- X[order]
    gather   Y (1, 4) <- Y[order]
    phase gradient
        affine: Z = W A + b: the weighted input of a layer.
               Z1 = W1 @ X                  (3, 4)
               Z1 = Z1 + b1                 (3, 4)
        tanh: A = tanh(Z): the hyperbolic tangent.
               A1 = tanh(Z1)                (3, 4)
        affine: Z = W A + b: the weighted input of a layer.
               Z2 = W2 @ A1                 (1, 4)
               Z2 = Z2 + b2                 (1, 4)
        squared_error: L = 1/2 sum over outputs of (A - Y)^2, dA = A - Y, for each sample.
               dZ2 = Z2 - Y                 (1, 4)
               work = dZ2 * dZ2             (1, 4)
               L = sum(work)                (1, 4)
               L = L * 0.5                  (1, 4)
        mean_over_batch: total = sum of L over the batch, dA = dA / batch: the loss and the gradient of its mean.
               loss = sum(L)                (1, 1)
               dZ2 = dZ2 * 0.25             (1, 4)
        affine_backward: db = sum of dZ over the batch, dW = dZ A^T, dA = W^T dZ: the gradients of an affine map.
               db2 = sum(dZ2)               (1, 1)
               dA1 = W2^T @ dZ2             (3, 4)
               dW2 = dZ2 @ A1^T             (1, 3)
        tanh_backward: dZ = dA * (1 - A^2): the derivative of tanh, from its output.
               dZ1 = A1 * A1                (3, 4)
               dZ1 = 1 - dZ1                (3, 4)
               dZ1 = dZ1 * dA1              (3, 4)
        affine_backward: db = sum of dZ over the batch, dW = dZ A^T, dA = W^T dZ: the gradients of an affine map.
               db1 = sum(dZ1)               (3, 1)
               dW1 = dZ1 @ X^T              (3, 2)
    phase update
        sgd: theta = theta - lr * gradient: stochastic gradient descent.
               gradient = gradient * lr     (256,)
               theta = theta - gradient     (256,)

`network.training_program(4, xpnet.SGD(), weighted=False).describe()` prints it, with FLOPs and bytes. Names count
dense layers from 1, as in the books: Z1 = W1 X + b1, A1 = f(Z1). `evaluation_program` and `inference_program` record
evaluation and prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np

from xpnet.kernels.accuracy import right_class, right_side
from xpnet.kernels.dropout import advance_key, shifted_key
from xpnet.kernels.losses import mean_over_batch, weighted_mean_over_batch
from xpnet.kernels.shards import (
    mean_over_shards,
    merged_statistics,
    share_of_statistics,
    sum_over_shard,
    tell,
    weighted_sum_over_shard,
)
from xpnet.kernels.updates import accumulate, accumulated_mean, forget_weight
from xpnet.network.architecture import Architecture
from xpnet.network.layer import Layer, check_batch
from xpnet.network.parameters import ArrayPlace, random_generator
from xpnet.program.calls import Buffer, Program
from xpnet.program.recorder import Recorder, record
from xpnet.program.shards import Shards

_MOST_KEPT = 64  # Programs recorded last
_TOTALS = ("loss", "samples", "weight")  # of a shard, behind its gradient and its statistics
# batch, slots, results, batches per update, shards
_How = tuple[int, tuple[str, ...], tuple[str, ...], int, Shards | None]


class RecordsUpdate(Protocol):
    """The part of an optimizer that a Program needs: names of slots and results, and the calls of its update."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of what the host fills before each update."""
        ...

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what the host reads after each update."""
        ...

    @property
    def alike(self) -> RecordsUpdate | None:
        """What records the same update, equal to that of optimizers with equal options; None if others may change."""
        ...

    def record(
        self,
        recorder: Recorder,
        gradient: Buffer,
        n_weights: int,
        matrices: Sequence[Buffer],
        weight: Buffer | float = 1.0,
    ) -> None:
        """Record the update of theta by the gradient, which may be overwritten.

        n_weights: elements of theta before the biases.  matrices (n_out, n_in): the weights.
        weight: samples of the update, or the sum of their weights.
        """
        ...


def training_program(
    architecture: Architecture,
    batch: int,
    optimizer: RecordsUpdate | None,
    weighted: bool,
    seed: int = 0,
    n_accumulated: int = 1,
    shards: Shards | None = None,
) -> Program:
    """Record gather | gradient (forward, loss, backward) | update; without an optimizer it ends at the gradient.

    weighted: whether samples have weights.  seed: of dropout's masks.  Masks and running statistics change from step to
    step only with an optimizer.
    n_accumulated: batches per update, by the mean over all their samples: gradient | accumulate | update.
    shards: the cut of the batch, where the step is computed shard by shard: gradient of a shard | merge | update.
    Results of a step: loss, the SUM over the batch; if weighted, weight, the sum of the sample weights; and those of
    the optimizer's update.
    Raises ValueError if a layer needs a larger batch, also for a smaller one (`Program.at`).
    """
    slots, told = ((), ()) if optimizer is None else (optimizer.slots, optimizer.results)
    results = ("loss", *(["weight"] if weighted else []), *told)
    alike = None if optimizer is None else optimizer.alike
    is_random = any(layer.is_random for layer in architecture.layers)
    make = _recorded if optimizer is not None and alike is None else _program
    options = {"optimizer": alike or optimizer, "weighted": weighted, "seed": seed if is_random else 0}
    options["n_accumulated"] = n_accumulated
    if shards is None:
        return make(_step, (batch, slots, results, n_accumulated, None), architecture, **options)
    how = shards.size, slots, results, n_accumulated, shards
    return make(_step_of_shards, how, architecture, **options, shards=shards)


def _program(build: Callable[..., None], how: _How, architecture: Architecture, **options: Any) -> Program:
    """Return the Program that `build(recorder, architecture, **options)` records, kept if it was recorded lately.

    Nothing of a Program changes, so that networks of equal architectures share it. A user's kernels may change.
    """
    make = _kept if architecture.is_built_in else _recorded
    return make(build, how, architecture, **options)


def _recorded(build: Callable[..., None], how: _How, architecture: Architecture, **options: Any) -> Program:
    layout, (batch, slots, results, accumulated, shards) = architecture.layout, how
    return record(
        partial(build, architecture=architecture, **options),
        batch=batch,
        n_parameters=layout.size,
        n_statistics=layout.n_statistics,
        slots=slots,
        results=results,
        accumulate=accumulated,
        shards=shards,
    )


@lru_cache(maxsize=_MOST_KEPT)
def _kept(build: Callable[..., None], how: _How, architecture: Architecture, **options: Any) -> Program:
    return _recorded(build, how, architecture, **options)


def _step(
    recorder: Recorder,
    architecture: Architecture,
    optimizer: RecordsUpdate | None,
    weighted: bool,
    seed: int,
    n_accumulated: int,
) -> None:
    """Record a training step."""
    layout = architecture.layout
    gradient = recorder.flat("gradient", layout.size)
    recorder.pad(gradient)
    with recorder.phase("gradient"):
        arrays = _arrays(recorder, architecture)
        grads = _views(recorder, gradient, architecture, layout.places, "d")
        outputs = _forward(recorder, architecture, arrays, overwrite=True, seed=seed)
        dA = _loss(recorder, architecture, outputs[-1], weighted, with_accuracy=False)
        _backward(recorder, architecture, arrays, grads, outputs, dA)
        if optimizer is not None:
            for layer, works_on in zip(architecture.layers, arrays, strict=True):
                if not layer.is_identity:
                    layer.advance_into(recorder.xp, works_on)
    if optimizer is None:
        recorder.output(gradient)
    else:
        weight = recorder["weight"] if weighted else float(recorder.batch)
        _update(recorder, architecture, optimizer, arrays, gradient, weight, n_accumulated)


def _update(
    recorder: Recorder,
    architecture: Architecture,
    optimizer: RecordsUpdate,
    arrays: list[dict[str, Any]],
    gradient: Buffer,
    weight: Buffer | float,
    n_accumulated: int,
) -> None:
    """Record the update by a batch's mean gradient, or by that of the batches accumulated."""
    layout = architecture.layout
    total_weight = _accumulate(recorder, gradient, weight) if n_accumulated > 1 else None
    with recorder.phase("update"):
        matrices = [arrays[place.layer][place.name] for place in layout.matrices]
        optimizer.record(recorder, gradient, layout.n_weights, matrices, total_weight or weight)
        if total_weight is not None:
            forget_weight(recorder.xp, total_weight)


def _step_of_shards(
    recorder: Recorder,
    architecture: Architecture,
    optimizer: RecordsUpdate,
    weighted: bool,
    seed: int,
    n_accumulated: int,
    shards: Shards,
) -> None:
    """Record a training step by shards: the sums of one go into the message, and the update follows that of all.

    message: gradient, running statistics, loss, number of samples and sum of weights, of a shard or of all.
    """
    layout, xp, n_samples = architecture.layout, recorder.xp, float(recorder.batch)
    n, n_statistics = layout.size, layout.n_statistics
    message = recorder.flat("message", n + n_statistics + 2 + weighted)
    gradient = recorder.flat_in(message, "gradient", 0, n)
    names = _TOTALS[: 2 + weighted]
    totals = [recorder.scalar_in(message, f"total {name}", n + n_statistics + i) for i, name in enumerate(names)]
    weight = totals[-1]
    with recorder.phase("gradient"):
        arrays = _arrays(recorder, architecture)
        grads = _views(recorder, gradient, architecture, layout.places, "d")
        outputs = _forward(recorder, architecture, arrays, overwrite=True, seed=seed, shards=shards)
        L, w, dA = _sample_losses(recorder, architecture, outputs[-1], weighted)
        if w is not None:
            weighted_sum_over_shard(xp, L, w, dA, weight)
        sum_over_shard(xp, L, n_samples, *totals[:2])
        _backward(recorder, architecture, arrays, grads, outputs, dA)
        if n_statistics:
            _share_of_statistics(recorder, architecture, arrays, recorder.flat_in(message, "sums", n, n_statistics))
        for works_on in arrays:
            if "offset" in works_on:  # of the next shard
                advance_key(xp, works_on["offset"], works_on["shard_stride"])
    with recorder.phase("merge"):
        mean_over_shards(xp, gradient, weight)
        if n_statistics:
            merged_statistics(xp, recorder["sums"], totals[1], recorder.statistics)
        for layer, works_on in zip(architecture.layers, arrays, strict=True):
            if "offset" in works_on:
                layer.advance_into(xp, works_on | {"key": works_on["step_key"]})
                shifted_key(xp, works_on["first"], 0, works_on["offset"])
        tell(xp, totals[0], recorder["loss"])
        if weighted:
            tell(xp, weight, recorder["weight"])
    _update(recorder, architecture, optimizer, arrays, gradient, weight, n_accumulated)


def _share_of_statistics(
    recorder: Recorder, architecture: Architecture, arrays: list[dict[str, Any]], out: Buffer
) -> None:
    """Record what a shard alone would make of the running statistics, and its share of the mean over all shards."""
    layout, xp = architecture.layout, recorder.xp
    own = recorder.flat("statistics of the shard", layout.n_statistics)
    xp.multiply(recorder.statistics, 1.0, out=own)
    views = _views(recorder, own, architecture, layout.statistics, "own ")
    for layer, works_on, statistics in zip(architecture.layers, arrays, views, strict=True):
        if statistics:
            layer.advance_into(xp, works_on | statistics)
    share_of_statistics(xp, own, float(recorder.batch), out)


def _accumulate(recorder: Recorder, gradient: Buffer, weight: Buffer | float) -> Buffer:
    """Record the sum over batches and the mean before the update; return the sum of the weights."""
    xp, total = recorder.xp, recorder.flat("accumulated", gradient.size)
    total_weight = recorder.scalar_in(recorder.flat("accumulated weight", 1), "samples", 0)
    with recorder.phase("accumulate"):
        accumulate(xp, gradient, weight, total, total_weight)
    with recorder.phase("update"):
        accumulated_mean(xp, total, total_weight, gradient)
    return total_weight


def evaluation_program(
    architecture: Architecture, batch: int, weighted: bool, with_accuracy: bool, seed: int | None = None
) -> Program:
    """Record gather | forward and loss; results: loss, weight (weighted), correct and correct_weight (with_accuracy).

    seed: None for the forward pass of predictions; a number for that of a training step with that seed.
    """

    results = ["loss"] + ["weight"] * weighted + ["correct"] * with_accuracy
    results += ["correct_weight"] * (weighted and with_accuracy)
    how = batch, (), tuple(results), 1, None
    return _program(_evaluation, how, architecture, weighted=weighted, with_accuracy=with_accuracy, seed=seed)


def _evaluation(
    recorder: Recorder, architecture: Architecture, weighted: bool, with_accuracy: bool, seed: int | None
) -> None:
    """Record forward and loss."""
    with recorder.phase("evaluate"):
        arrays = _arrays(recorder, architecture)
        outputs = _forward(recorder, architecture, arrays, overwrite=True, seed=seed)
        _loss(recorder, architecture, outputs[-1], weighted, with_accuracy)


def inference_program(architecture: Architecture, batch: int, kind: str, seed: int | None = None) -> Program:
    """Record the forward pass; the buffers output0, output1, ... hold the results.

    kind: "forward" (the last layer's output), "predict" (through the loss's link), "activations" (every layer's).
    seed: as for `evaluation_program`.
    """

    return _program(_inference, (batch, (), (), 1, None), architecture, kind=kind, seed=seed)


def _inference(recorder: Recorder, architecture: Architecture, kind: str, seed: int | None) -> None:
    """Record the forward pass."""
    arrays = _arrays(recorder, architecture)
    with recorder.phase("forward"):
        outputs = _forward(recorder, architecture, arrays, overwrite=kind != "activations", seed=seed)
        link = architecture.loss.link
        wanted = outputs[1:] if kind == "activations" else outputs[-1:]
        if kind == "predict" and link is not None:
            P = recorder.batch_matrix("P", architecture.n_outputs)
            link(
                recorder.xp, outputs[-1], P, *_scratch(recorder, architecture.loss.link_scratch, architecture.n_outputs)
            )
            wanted = [P]
    for i, buffer in enumerate(wanted):
        recorder.output(buffer, f"output{i}")


def _arrays(recorder: Recorder, architecture: Architecture) -> list[dict[str, Any]]:
    """Return each layer's parameters and running statistics by name."""
    layout = architecture.layout
    params = _views(recorder, recorder.theta, architecture, layout.places, "")
    statistics = _views(recorder, recorder.statistics, architecture, layout.statistics, "")
    return [one | other for one, other in zip(params, statistics, strict=True)]


def _views(
    recorder: Recorder, flat: Buffer, architecture: Architecture, places: tuple[ArrayPlace, ...], prefix: str
) -> list[dict[str, Any]]:
    """Return {"W": ..., "b": ...} of each layer in theta, in the gradient or in the statistics."""
    numbers, matrices = _numbering(architecture), set(architecture.layout.matrices)
    views: list[dict[str, Any]] = [{} for _ in numbers]
    for place in places:
        name = _free_name(recorder, f"{prefix}{place.name}{numbers[place.layer]}")
        if place in matrices:
            view = recorder.matrix_in(flat, name, place.offset, place.shape)
        else:
            view = recorder.column_in(flat, name, place.offset, place.shape[0])
        views[place.layer][place.name] = view
    return views


def _working(recorder: Recorder, layer: Layer, n: int, number: int, training: bool) -> dict[str, Buffer]:
    """Return the working arrays of a layer of n features, by name."""
    made: dict[str, Buffer] = {}
    for name, form in layer.working(training).items():
        label = _free_name(recorder, f"{name}{number}")
        if form == "row":
            made[name] = recorder.batch_vector(label)
        elif form == "column":
            made[name] = recorder.column_in(recorder.flat(f"{label} memory", n), label, 0, n)
        else:
            made[name] = recorder.batch_matrix(label, n, "uint32" if form == "bits" else "float")
    return made


def _counter(
    recorder: Recorder, masks: np.random.Generator, n: int, number: int, shards: Shards | None
) -> dict[str, Any]:
    """Return the counters of a random layer of n features: of each element, of the step, and the stride of a step.

    The stride is that of a full batch, so that a step's counters depend only on its number.
    shards: of the batch; then the key is that of the next shard, step_key that of the step.
    """
    start, multiplier = (int(value) for value in masks.integers(2**32, size=2))
    multiplier |= 1  # odd, so that all 2^32 counters differ
    keys = recorder.state(_free_name(recorder, f"keys{number}"), 1, "uint32")

    def samples(name: str, count: int) -> Buffer:
        return recorder.number(_free_name(recorder, f"{name}{number}"), multiplier * n * count % 2**32)

    index = recorder.constant(_free_name(recorder, f"index{number}"), n, start, multiplier)
    key = recorder.scalar_in(keys, _free_name(recorder, f"key{number}"), 0)
    if shards is None:
        return {"index": index, "key": key, "stride": samples("stride", recorder.capacity)}
    before = shards.first * shards.size
    name = _free_name(recorder, f"shard key{number}")
    return {
        "index": index,
        "step_key": key,
        "key": recorder.scalar_in(recorder.flat(f"memory of {name}", 1, "uint32"), name, 0),
        "stride": samples("stride", shards.batch),
        "first": samples("first", before),
        "offset": samples("offset", before),
        "shard_stride": samples("shard stride", shards.size),
    }


def _numbering(architecture: Architecture) -> list[int]:
    """Return, for each layer, the number of layers with weights up to and including it."""
    numbers, count = [], 0
    for layer in architecture.layers:
        count += bool(layer.matrices)
        numbers.append(count)
    return numbers


def _forward(
    recorder: Recorder,
    architecture: Architecture,
    arrays: list[dict[str, Any]],
    overwrite: bool,
    seed: int | None,
    shards: Shards | None = None,
) -> list[Buffer]:
    """Record the forward pass; returns X and the output of every layer, and adds their working arrays to `arrays`.

    A layer overwrites its input if no backward reads that: A1 = relu(Z1) lies where Z1 was.
    seed: of dropout's masks in training; None for the forward pass of predictions.  shards: of the batch.
    """
    masks = None if seed is None else random_generator(seed, 2)
    if masks is not None:
        check_batch(architecture.layers, recorder.batch)
    X = recorder.batch_matrix("X", architecture.n_inputs)
    recorder.gather("X", X)
    outputs, size = [X], architecture.n_inputs
    before: Any = None
    for layer, works_on, number in zip(architecture.layers, arrays, _numbering(architecture), strict=True):
        size = layer.output_size(size)
        if layer.is_identity or (layer.only_in_training and masks is None):
            outputs.append(outputs[-1])
            continue
        name = _free_name(recorder, f"{'Z' if layer.matrices else 'A'}{number}")
        may_overwrite = overwrite and not layer.needs_input and before is not None and not before.needs_output
        out = recorder.rename(outputs[-1], name) if may_overwrite else recorder.batch_matrix(name, size)
        works_on["scratch"] = _scratch(recorder, layer.scratch, size)
        if masks is not None:
            works_on["backward_scratch"] = _scratch(recorder, layer.backward_scratch, size)
        works_on |= _working(recorder, layer, size, number, masks is not None)
        if masks is not None and layer.is_random:
            works_on |= _counter(recorder, masks, size, number, shards)
            if shards is not None:
                shifted_key(recorder.xp, works_on["step_key"], works_on["offset"], works_on["key"])
        forward_into = layer.forward_into if masks is None else layer.train_into
        forward_into(recorder.xp, works_on, outputs[-1], out)
        outputs.append(out)
        before = layer
    return outputs


def _loss(recorder: Recorder, architecture: Architecture, A: Buffer, weighted: bool, with_accuracy: bool) -> Buffer:
    """Record the loss and the counts; returns the gradient of the batch's mean by the last layer's output."""
    xp = recorder.xp
    L, w, dA = _sample_losses(recorder, architecture, A, weighted, with_accuracy)
    if w is None:
        mean_over_batch(xp, L, dA, recorder["loss"])
    else:
        weighted_mean_over_batch(xp, L, w, dA, recorder["loss"], recorder["weight"])
    return dA


def _sample_losses(
    recorder: Recorder, architecture: Architecture, A: Buffer, weighted: bool, with_accuracy: bool = False
) -> tuple[Buffer, Buffer | None, Buffer]:
    """Record the loss of each sample and the counts; returns losses, weights and the gradient of each loss."""
    xp, n_outputs = recorder.xp, architecture.n_outputs
    loss = architecture.loss
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
    loss.losses_into(xp, A, Y, L, dA, work)
    return L, w, dA


def _backward(
    recorder: Recorder,
    architecture: Architecture,
    arrays: list[dict[str, Any]],
    grads: list[dict[str, Any]],
    outputs: list[Buffer],
    gradient: Buffer,
) -> None:
    """Record the backward pass, from the gradient by the last output down to the first layer's parameters."""
    for i in range(len(architecture.layers) - 1, -1, -1):
        layer, inputs = architecture.layers[i], outputs[i]
        if layer.is_identity:
            continue
        dX = None  # the gradient by the data is not needed
        if i > 0:
            dX = recorder.batch_matrix(_free_name(recorder, f"d{inputs.name}"), inputs.shape[0])
        trace = inputs if layer.needs_input else outputs[i + 1]
        layer.backward_into(recorder.xp, arrays[i], trace, gradient, grads[i], dX)
        if dX is not None:
            gradient = dX


def _scratch(recorder: Recorder, forms: tuple[str, ...], size: int) -> list[Buffer]:
    """Return scratch arrays; all kernels of one width share them, since each uses them at another time."""
    buffers = []
    for i, form in enumerate(forms):
        name = f"scratch{1 + forms[:i].count(form)} {size if form == 'matrix' else form}"
        if name in recorder:
            buffers.append(recorder[name])
        else:
            buffers.append(recorder.batch_matrix(name, size) if form == "matrix" else recorder.batch_vector(name))
    return buffers


def _free_name(recorder: Recorder, name: str) -> str:
    while name in recorder:  # such as a second activation after one dense layer
        name += "'"
    return name
