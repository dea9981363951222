"""The recorder: how calls are placed in memory, what it refuses, and what a step costs in calls and FLOPs."""

from __future__ import annotations

import itertools
from itertools import pairwise

import numpy as np
import pytest
from refusals import refusal, says

from xpnet import Activation, BatchNorm, Dense, Dropout, LayerNorm
from xpnet.backend import select_backend
from xpnet.engines.replay import Replay
from xpnet.network.architecture import Architecture
from xpnet.network.losses import SigmoidCrossEntropy, SoftmaxCrossEntropy
from xpnet.network.programs import evaluation_program, inference_program, training_program
from xpnet.program.calls import WORDS, Operand, RecordingError
from xpnet.program.recorder import record
from xpnet.training.optimizers import SGD


def architecture(sizes, activation="relu", output="identity", loss="softmax_cross_entropy"):
    return Architecture.of_sizes(sizes, activation, output, None, loss)


def step_of(sizes, batch, *, weighted=False, **names):
    return training_program(architecture(sizes, **names), batch, SGD(), weighted)


def mixed():
    """One of each layer that works on more than its input and output."""
    layers = (
        Dense(5, 4, bias=None),
        BatchNorm(4),
        Activation("relu"),
        Dropout(0.5),
        Dense(4, 6),
        LayerNorm(6),
        Activation("tanh"),
        Dropout(0.2),
        Dense(6, 3),
    )
    return Architecture(layers, "softmax_cross_entropy")


def buffers(r):
    """One buffer of every form, for calls made by hand; theta has 64 elements."""
    return {
        "r": r,
        "xp": r.xp,
        "theta": r.theta,
        "lr": r["lr"],
        "loss": r["loss"],
        "W": r.matrix_in(r.theta, "W", 0, (2, 3)),
        "b": r.column_in(r.theta, "b", 16, 2),
        "X": r.batch_matrix("X", 3),
        "Z": r.batch_matrix("Z", 2),
        "A": r.batch_matrix("A", 2),
        "row": r.batch_vector("row"),
        "column": r.column_in(r.theta, "column", 32, 2),
        "V": r.matrix_in(r.theta, "V", 18, (2, 3)),
        "M": r.matrix_in(r.theta, "M", 40, (2, 5)),
        "flat": r.flat("flat", 64),
        "key": r.flat("key", 1, "uint32"),
        "number": r.scalar_in(r.flat("two", 2, "uint32"), "number", 1),
        "U": r.batch_matrix("U", 2, "uint32"),
        "U2": r.batch_matrix("U2", 2, "uint32"),
    }


def program_of(code, batch=5):
    """The Program of one line of a kernel, such as "xp.add(Z, b, out=Z)"."""
    return record(lambda r: eval(code, buffers(r)), batch=batch, n_parameters=64, slots=("lr",), results=("loss",))


def call_of(code, batch=5):
    (call,) = program_of(code, batch).calls
    return call


def placed(operand):
    return (operand.buffer.name, operand.shape, operand.transposed) if isinstance(operand, Operand) else operand


# Placement. The expected operands are written by hand: memory is C-ordered and a batch buffer is (batch, features).


@pytest.mark.parametrize("batch", [5, 1])
@pytest.mark.parametrize(
    ("code", "inputs", "out", "axis"),
    [
        # elementwise: all operands turn with the destination
        ("xp.add(Z, b, out=A)", [("Z", ("B", 2)), ("b", (1, 2))], ("A", ("B", 2)), None),
        ("xp.subtract(Z, row, out=A)", [("Z", ("B", 2)), ("row", ("B", 1))], ("A", ("B", 2)), None),
        ("xp.multiply(Z, lr, out=A)", [("Z", ("B", 2)), ("lr", ())], ("A", ("B", 2)), None),
        ("xp.divide(1.0, Z, out=A)", [1.0, ("Z", ("B", 2))], ("A", ("B", 2)), None),
        ("xp.exp(row, out=row)", [("row", ("B",))], ("row", ("B",)), None),
        ("xp.add(b, column, out=b)", [("b", (2,)), ("column", (2,))], ("b", (2,)), None),
        ("xp.multiply(flat, lr, out=flat)", [("flat", (64,)), ("lr", ())], ("flat", (64,)), None),
        ("xp.multiply(loss, lr, out=loss)", [("loss", (1,)), ("lr", (1,))], ("loss", (1,)), None),
        ("xp.add(U, number, out=U2)", [("U", ("B", 2)), ("number", ())], ("U2", ("B", 2)), None),
        ("xp.add(number, 7, out=number)", [("number", (1,)), 7], ("number", (1,)), None),
        # a matrix of parameters is not turned, and neither is what goes with it
        ("xp.add(W, b, out=V)", [("W", (2, 3)), ("b", (2, 1))], ("V", (2, 3)), None),
        ("xp.multiply(W.T, 2, out=V.T)", [("W^T", (2, 3)), 2], ("V^T", (2, 3)), None),
        # reductions: the result turns with the source
        ("xp.sum(Z, axis=0, keepdims=True, out=row)", [("Z", ("B", 2))], ("row", ("B", 1)), 1),
        ("xp.sum(Z, axis=1, keepdims=True, out=b)", [("Z", ("B", 2))], ("b", (1, 2)), 0),
        ("xp.max(W, axis=1, keepdims=True, out=b)", [("W", (2, 3))], ("b", (2, 1)), 1),
        ("xp.sum(row, axis=1, keepdims=True, out=loss)", [("row", ("B",))], ("loss", (1,)), 0),
        ("xp.sum(flat, axis=0, keepdims=True, out=loss)", [("flat", (64,))], ("loss", (1,)), 0),
        # products turn with the destination: Z = W X is computed as Z^T = X^T W^T
        ("xp.matmul(W, X, out=Z)", [("X^T", ("B", 3)), ("W^T", (2, 3), True)], ("Z", ("B", 2)), None),
        ("xp.matmul(W.T, Z, out=X)", [("Z^T", ("B", 2)), ("W", (2, 3))], ("X", ("B", 3)), None),
        ("xp.matmul(Z, X.T, out=W)", [("Z", ("B", 2), True), ("X^T", ("B", 3))], ("W", (2, 3)), None),
    ],
)
def test_placement(code, inputs, out, axis, batch):
    def numbers(item):
        if not isinstance(item, tuple):
            return item
        name, shape, transposed = item if len(item) == 3 else (*item, False)
        return name, tuple(batch if n == "B" else n for n in shape), transposed

    call = call_of(code, batch)
    assert [placed(item) for item in call.inputs] == [numbers(item) for item in inputs]
    assert placed(call.out) == numbers(out)
    assert call.axis == axis


def test_a_transpose_keeps_the_memory_and_turns_back():
    """CuPy copies an operand that overlaps `out` but is another array, so memory has one place and no second view."""
    program = program_of("(xp.add(X, 1.0, out=X), xp.exp(X.T.T, out=X))")
    for call in program.calls:
        (source,) = call.operands
        assert (source.buffer.offset, source.shape) == (call.out.buffer.offset, call.out.shape)
    assert program.calls[1].text == "X = exp(X)"


NETWORKS = [
    {"sizes": [5, 4, 3], "activation": "sigmoid", "output": "tanh", "loss": "squared_error"},
    {"sizes": [5, 4, 6, 3], "activation": "relu", "loss": "sigmoid_cross_entropy"},
    {"sizes": [5, 3], "loss": "sigmoid_cross_entropy"},
]


def turned(program, replaced=None):
    """What a Program does to memory: word, axis, and each operand's role, shape (sizes replaced) and turns."""

    def role(item):
        shape = tuple((replaced or {}).get(n, n) for n in item.shape)
        return item.buffer.name, item.buffer.form, item.buffer.flipped, shape, item.transposed

    return [(call.word, call.axis, [role(item) for item in (*call.operands, call.out)]) for call in program.calls]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: str(network["sizes"]))
def test_a_batch_of_one_turns_as_a_larger_one_does(network, weighted):
    """(1, 1), (n, 1) and (1, m) arrays are C- and F-ordered at once: only a declared orientation can be the same."""
    one, seven = (step_of(batch=batch, weighted=weighted, **network) for batch in (1, 7))
    assert turned(one) == turned(seven, {7: 1})
    assert turned(one) == turned(seven.at(1))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: str(network["sizes"]))
def test_one_output_turns_as_more_outputs_do(network):
    *sizes, _ = network["sizes"]
    one, three = (step_of(**{**network, "sizes": [*sizes, n_out]}, batch=7) for n_out in (1, 3))
    assert turned(one) == turned(three, {3: 1})


def test_every_operand_lies_c_ordered_in_its_buffer():
    """An executor binds buffer.size elements from buffer.offset as `shape`, then transposes a product's operand."""
    for call in step_of([5, 4, 3], 7).calls:
        for item in (*call.operands, call.out):
            assert np.prod(item.shape, dtype=int) == item.buffer.size
            assert not item.transposed or (call.word == "matmul" and item is not call.out)


# Refusals: each names what was found and what is needed


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        # operands
        ("xp.multiply(Z, __import__('numpy').float64(2), out=Z)", ["multiply", "float64", "Python numbers", "float("]),
        ("xp.multiply(Z, True, out=Z)", ["multiply", "bool", "Python numbers", "use float(...)"]),
        ("xp.add(Z, __import__('numpy').ones(2), out=Z)", ["add", "ndarray", "Buffers"]),
        ("xp.add(Z, None, out=Z)", ["add", "NoneType", "Buffers"]),
        ("xp.add(1.0, 2.0, out=Z)", ["add", "numbers only", "buffers of one kind"]),
        ("xp.add(Z, out=Z)", ["add", "1 operands", "takes 2"]),
        ("xp.exp(Z, Z, out=Z)", ["exp", "2 operands", "takes 1"]),
        ("xp.exp(Z, out=None)", ["exp", "NoneType", "must be a Buffer"]),
        # shapes
        ("xp.add(Z, X, out=Z)", ["add", "X (3, 5)", "does not fit", "Z (2, 5)"]),
        ("xp.add(Z, flat, out=Z)", ["add", "flat (64,)", "does not fit", "Z (2, 5)"]),
        ("xp.add(row, b, out=row)", ["add", "b (2, 1)", "does not fit", "row (1, 5)"]),
        ("xp.add(Z, Z, out=row)", ["add", "Z (2, 5)", "does not fit", "row (1, 5)"]),
        ("xp.multiply(row, 1.0, out=loss)", ["multiply", "row (1, 5)", "does not fit", "loss (1, 1)"]),
        ("xp.matmul(W, Z, out=A)", ["matmul", "W (2, 3) times Z (2, 5)", "A (2, 5)"]),
        ("xp.matmul(W, X, out=X)", ["matmul", "W (2, 3) times X (3, 5)", "X (3, 5)"]),
        ("xp.matmul(W, b, out=A)", ["matmul", "matrices", "'b'"]),
        ("xp.matmul(W, X, out=row)", ["matmul", "matrices", "'row'"]),
        ("xp.matmul(W, 2.0, out=A)", ["matmul", "matrices", "2.0"]),
        (
            "xp.sum(Z, axis=0, keepdims=True, out=b)",
            ["sum", "Z (2, 5)", "axis 0", "(1, 5)", "b", "(2, 1)", "make out like that"],
        ),
        ("xp.max(Z, axis=1, keepdims=True, out=A)", ["max", "(2, 1)", "A", "matrix"]),
        # orientation: W lies as it is seen, a batch buffer the other way round
        ("xp.add(M, Z, out=M)", ["add", "Z (2, 5)", "M (2, 5)", "not lie in memory like", "same orientation"]),
        ("xp.multiply(Z, M, out=Z)", ["M (2, 5)", "Z (2, 5)", "not lie in memory like", "same orientation"]),
        # reductions keep their axis
        ("xp.sum(Z, axis=0, out=row)", ["sum", "keepdims=True", "keepdims=False"]),
        ("xp.sum(Z, keepdims=True, out=row)", ["sum", "axis=0 or axis=1", "axis=None"]),
        ("xp.sum(Z, axis=-1, keepdims=True, out=b)", ["sum", "axis=0 or axis=1", "axis=-1"]),
        ("xp.sum(Z, axis=2, keepdims=True, out=b)", ["sum", "axis=0 or axis=1", "axis=2"]),
        ("xp.sum(2.0, axis=0, keepdims=True, out=row)", ["sum", "numbers only"]),
        ("xp.sum(row, axis=0, keepdims=True, out=row)", ["sum", "row (1, 5)", "reduces nothing", "axis=1"]),
        # a result beside what it is made of
        ("xp.abs(r.flat_in(flat, 'v', 2, 4), out=r.flat_in(flat, 'w', 0, 4))", ["v (4,)", "memory", "w (4,)", "other"]),
        ("xp.divide(flat, r.scalar_in(flat, 'v', 2), out=flat)", ["v (1, 1)", "shares memory", "flat (64,)"]),
        ("xp.matmul(r.matrix_in(flat, 'S', 0, (2, 2)), Z, out=Z)", ["Z (2, 5)", "shares memory", "another buffer"]),
        # kinds
        ("xp.add(U, Z, out=U)", ["add", "one kind", "float", "uint32"]),
        ("xp.add(U, 1, out=Z)", ["add", "uint32 to float", "Z"]),
        ("xp.exp(U, out=U)", ["exp", "uint32 to uint32", "U"]),
        ("xp.bitwise_xor(Z, 1, out=Z)", ["bitwise_xor", "float to float", "Z"]),
        ("xp.greater(U, 1, out=U2)", ["greater", "uint32 to uint32", "U2"]),
        ("xp.sum(U, axis=0, keepdims=True, out=row)", ["sum", "uint32 to float", "row"]),
        # a number that uint32 cannot hold: NumPy would cut 0.5 to 0, CuPy would refuse
        ("xp.add(U, 0.5, out=U)", ["add", "0.5", "uint32"]),
        ("xp.add(U, -1, out=U)", ["add", "-1", "uint32"]),
        ("xp.bitwise_xor(U, 2**32, out=U)", ["bitwise_xor", "4294967296", "uint32"]),
        # buffers
        ("r.batch_matrix('X', 3)", ["'X'", "already", "another name"]),
        ("r.flat('lr', 3)", ["'lr'", "already", "another name"]),
        ("r.rename(X, 'Z')", ["'Z'", "already", "another name"]),
        ("b.T", ["b", "vector", "only a matrix"]),
    ],
)
def test_refusals(code, parts):
    with pytest.raises(RecordingError) as error:
        program_of(code)
    says(error, *parts)


@pytest.mark.parametrize("word", ["where", "argmax", "square", "float32", "empty", "copyto"])
def test_words_outside_the_list_are_refused(word):
    with refusal(AttributeError, f"'{word}' is not a word of the Program", "the words are add, ", "matmul"):
        program_of(f"xp.{word}")


def test_the_list_of_words_is_a_decision():
    """Every engine must know every word: a longer list is a decision, and changes the design."""
    assert " ".join(sorted(WORDS)) == (
        "abs add bitwise_xor divide exp greater log log1p matmul max maximum minimum multiply right_shift "
        "sign sqrt subtract sum tanh"
    )


# uint32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uint32_wraps_as_on_every_device(dtype):
    """The hash that dropout will use, against Python integers modulo 2^32."""

    def build(r):
        x, mask, key, xp = r.batch_matrix("x", 3, "uint32"), r.batch_matrix("mask", 3), r.flat("key", 1, "uint32"), r.xp
        spare = r.batch_matrix("spare", 3, "uint32")
        for factor in (0x7FEB352D, 0x846CA68B):
            xp.right_shift(x, 16, out=spare)
            xp.bitwise_xor(x, spare, out=x)
            xp.multiply(x, factor, out=x)
        xp.greater(x, 2**31, out=mask)
        xp.add(key, 0x9E3779B9, out=key)

    engine = Replay(record(build, batch=4, n_parameters=0), select_backend("cpu", dtype), np.empty(0, dtype))
    start = [[0, 1, 2, 3], [2**16, 2**31, 2**32 - 1, 12345], [7, 77, 777, 7777]]
    engine.feed(4, x=np.array(start, np.uint32), key=np.array([2**32 - 1], np.uint32))
    engine.execute(4)
    expected = start
    for factor in (0x7FEB352D, 0x846CA68B):
        expected = [[((v ^ (v >> 16)) * factor) % 2**32 for v in row] for row in expected]
    assert engine.read("x", 4).tolist() == expected
    assert engine.read("mask", 4).tolist() == [[float(v > 2**31) for v in row] for row in expected]
    assert engine.read("key", 4).tolist() == [0x9E3779B8]


# Memory


@pytest.mark.parametrize(
    "program",
    [
        step_of([5, 4, 3], 7),
        step_of([2, 9, 6, 1], 3, activation="sigmoid", output="sigmoid", loss="squared_error", weighted=True),
        evaluation_program(architecture([5, 4, 3]), 7, True, True),
        inference_program(architecture([5, 4, 3]), 7, "activations"),
        training_program(mixed(), 7, SGD(), True),
        evaluation_program(mixed(), 7, True, True),
    ],
    ids=["training", "weighted training", "evaluation", "activations", "mixed training", "mixed evaluation"],
)
def test_buffers_start_on_64_bytes_and_do_not_overlap(program):
    singles = set(program.slots + program.results)
    ends = {"float": program.n_floats, "uint32": program.n_uints}
    found = [buffer for name, buffer in program.buffers.items() if name not in singles]
    for buffer in found:
        assert buffer.offset * 4 % 64 == 0, buffer.name
    # W1, dW1, running_mean1, key1, ... are views of these
    containers = {"theta", "gradient", "statistics", "keys1", "keys2"}
    containers |= {name for name in program.buffers if name.endswith(" memory")}
    for i, one in enumerate(program.buffers.values()):
        assert one.offset >= 0 and one.offset + one.size <= ends[one.kind]
        for other in list(program.buffers.values())[:i]:
            if one.kind != other.kind or one.name in containers or other.name in containers:
                continue
            apart = one.offset + one.size <= other.offset or other.offset + other.size <= one.offset
            renamed = (one.offset, one.shape, one.flipped) == (other.offset, other.shape, other.flipped)
            assert apart or renamed, f"{one.name} overlaps {other.name}"


def test_only_overwritten_outputs_share_memory():
    """relu may lie where Z was; anything that a later call still reads may not."""
    program = step_of([5, 4, 3], 7)
    places = {}
    for name, buffer in program.buffers.items():
        if buffer.form == "matrix" and buffer.flipped:
            places.setdefault(buffer.offset, []).append(name)
    assert [names for names in places.values() if len(names) > 1] == [["Z1", "A1"]]
    layers = (Dense(5, 3), Activation("sigmoid"), Activation("tanh"))  # the sigmoid's backward reads its output
    twice = training_program(Architecture(layers, "squared_error"), 7, None, False).buffers
    assert twice["Z1"].offset == twice["A1"].offset != twice["A1'"].offset
    everything = inference_program(architecture([5, 4, 3]), 7, "activations").buffers
    assert len({everything[name].offset for name in ("output0", "output1", "output2")}) == 3


def test_theta_leads_and_slots_and_results_follow_side_by_side():
    """Executors find slots and results as one slice each: a step copies them in one go."""
    program = step_of([5, 4, 3], 7, weighted=True)
    assert program.buffers["theta"].offset == 0 and program.buffers["theta"].size == program.n_owned
    assert program.slots == ("lr",) and program.results == ("loss", "weight")
    offsets = [program.buffers[name].offset for name in ("lr", "loss", "weight")]
    assert offsets == [program.n_owned + i for i in range(3)]


def test_float_and_uint32_buffers_live_in_arenas_of_their_own():
    program = program_of("xp.add(U, 1, out=U2)")
    assert program.buffers["key"].offset == 0 and program.buffers["U"].offset == 32
    assert program.n_uints == 64 and program.buffers["number"].offset == 16 + 1


@pytest.mark.parametrize(("n_parameters", "n_statistics"), [(64, 0), (64, 64), (3, 5)])
def test_state_follows_what_the_network_owns_and_leads_the_keys(n_parameters, n_statistics):
    """Theta, statistics and state are neighbours whenever they were asked for, so that a snapshot is a copy each."""

    def build(r):
        X = r.batch_matrix("X", 2)
        r.xp.multiply(X, 2.0, out=X)
        r.flat("before", 7)
        r.state("m", 5)
        r.flat("mask", 3, kind="uint32")
        r.state("key", 1, kind="uint32")
        r.state("v", 20)

    program = record(build, batch=4, n_parameters=n_parameters, n_statistics=n_statistics, slots=("lr",))
    buffers = program.buffers
    assert program.n_owned == n_parameters + n_statistics and buffers["statistics"].offset == n_parameters
    assert program.state_offset == -(-program.n_owned // 16) * 16
    assert (buffers["m"].offset, buffers["v"].offset) == (program.state_offset, program.state_offset + 16)
    assert program.n_state == 48 and buffers["lr"].offset == program.state_offset + 48
    assert (buffers["key"].offset, program.n_keys, buffers["mask"].offset) == (0, 16, 16)
    places = [(b.offset, b.offset + b.size) for b in buffers.values() if b.kind == "float" and b.size]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(sorted(places)))
    assert {name: b.offset for name, b in program.at(2).buffers.items()} == {n: b.offset for n, b in buffers.items()}


def test_constants_are_listed_and_hold_their_place():
    def build(r):
        r.batch_matrix("before", 2, "uint32")
        index = r.constant("index", 3, 2**32 - 2, 5)
        r.xp.bitwise_xor(index, 1, out=r.batch_matrix("out", 3, "uint32"))

    program = record(build, batch=4, n_parameters=0)
    for some in (program, program.at(2)):
        (constant,) = some.constants
        assert (constant.size, constant.start, constant.multiplier) == (12, 2**32 - 2, 5)
        assert constant.buffer.shape == (3, some.batch) and constant.buffer.offset == 16
    assert "constant index (3, 4) = 4294967294 + k * 5" in program.describe()


@pytest.mark.parametrize("network", [mixed()], ids=["mixed"])
def test_layers_that_keep_arrays_turn_alike_for_any_batch(network):
    two, seven = (training_program(network, batch, SGD(), True) for batch in (2, 7))
    assert turned(two) == turned(seven, {7: 2}) == turned(seven.at(2))
    assert {n: b.offset for n, b in seven.buffers.items()} == {n: b.offset for n, b in seven.at(2).buffers.items()}


# The same Program on fewer samples


@pytest.mark.parametrize("m", [1, 3, 6])
def test_at_uses_the_same_memory_for_fewer_samples(m):
    full = step_of([5, 4, 3], 7, weighted=True)
    short = full.at(m)
    assert (short.batch, short.capacity) == (m, 7)
    assert (short.n_floats, short.n_uints, short.slots) == (full.n_floats, full.n_uints, full.slots)
    assert short.buffers.keys() == full.buffers.keys()
    for name, buffer in full.buffers.items():
        other = short.buffers[name]
        assert (other.offset, other.flipped, other.form) == (buffer.offset, buffer.flipped, buffer.form)
        assert other.shape == ((buffer.shape[0], m) if buffer.flipped else buffer.shape)
    assert turned(short) == turned(full, {7: m})


def test_a_short_batch_is_averaged_over_its_own_samples():
    def factors(program):
        calls = [call for call in program.calls if call.kernel == "mean_over_batch"]
        return [call.inputs[1] for call in calls if call.word == "multiply"]

    program = step_of([5, 4, 3], 7)
    assert factors(program) == [1 / 7] and factors(program.at(2)) == [1 / 2]
    assert factors(program.at(2).at(7)) == [1 / 7]


def test_at_the_full_batch_is_the_program_itself():
    program = step_of([5, 4, 3], 7)
    assert program.at(7) is program


@pytest.mark.parametrize("m", [0, 8, -1])
def test_at_refuses_a_batch_that_does_not_fit(m):
    with refusal(ValueError, f"batch is {m}, ", "hold 1 to 7 samples", f"record it with batch={m}"):
        step_of([5, 4, 3], 7).at(m)


# Phases, counts, FLOPs


def test_phases():
    program = step_of([5, 4, 3], 7)
    assert program.phases == ("gradient", "update")
    assert [call.kernel for call in program.calls if call.phase == "update"] == ["sgd", "sgd"]
    assert training_program(architecture([5, 4, 3]), 7, None, False).phases == ("gradient",)
    assert evaluation_program(architecture([5, 4, 3]), 7, False, True).phases == ("evaluate",)


def test_phases_may_be_nested():
    def build(r):
        row = r.batch_vector("row")
        with r.phase("outer"):
            r.xp.exp(row, out=row)
            with r.phase("inner"):
                r.xp.log(row, out=row)
            r.xp.abs(row, out=row)

    program = record(build, batch=2, n_parameters=0)
    assert [call.phase for call in program.calls] == ["outer", "inner", "outer"]
    assert program.phases == ("outer", "inner")


@pytest.mark.parametrize(
    ("network", "n_calls"),
    [
        # forward 3 x 2 + 2 relu; softmax cross-entropy 11; mean 2; backward 3 + 3 + 2, relu 2 x 2; sgd 2
        ({"sizes": [784, 100, 200, 10]}, 35),
        # forward 3 x 2 + 3 x 5 sigmoid; squared error 4; mean 2; backward 3 + 3 + 2, sigmoid 3 x 3; sgd 2
        ({"sizes": [2, 9, 6, 1], "activation": "sigmoid", "output": "sigmoid", "loss": "squared_error"}, 43),
        # no hidden layer: forward 2; cross-entropy 11; mean 2; backward 2; sgd 2
        ({"sizes": [784, 10]}, 19),
        # sigmoid cross-entropy is 15: 8 for the sum's terms, its sum, 5 for the sigmoid, the difference
        ({"sizes": [784, 1], "loss": "sigmoid_cross_entropy"}, 22),
    ],
    ids=lambda value: str(value["sizes"]) if isinstance(value, dict) else str(value),
)
def test_calls_of_a_step(network, n_calls):
    """On a GPU each is a launch, on a CPU about a microsecond: this number is the step's fixed cost."""
    assert len(step_of(batch=32, **network).calls) == n_calls


@pytest.mark.parametrize(
    ("activation", "n_calls"),
    [  # forward and backward
        ("relu", 1 + 2),
        ("leaky_relu", 2 + 3),
        ("elu", 7 + 3),
        ("selu", 12 + 6),
        ("sigmoid", 4 + 3),
        ("tanh", 1 + 3),
        ("softplus", 4 + 5),
        ("silu", 5 + 9),
        ("gelu", 9 + 17),
        ("hard_sigmoid", 4 + 5),
        ("log_softmax", 6 + 4),
    ],
)
def test_calls_of_an_activation(activation, n_calls):
    with_it, without = (len(step_of([5, 4, 3], 7, activation=name).calls) for name in (activation, "identity"))
    assert with_it - without == n_calls


@pytest.mark.parametrize(
    ("loss", "n_calls"),
    [
        ("squared_error", 4),
        ("softmax_cross_entropy", 11),
        ("sigmoid_cross_entropy", 14),
        ("absolute_error", 4),
        ("huber", 9),
        ("poisson", 6),
        ("hinge", 8),
        (SoftmaxCrossEntropy(0.1), 15),
        (SigmoidCrossEntropy(0.1), 18),
    ],
    ids=str,
)
def test_calls_of_a_loss(loss, n_calls):
    # affine 2, mean 2, affine_backward 2, sgd 2
    assert len(step_of([5, 3], 7, loss=loss).calls) - 8 == n_calls


def test_scratch_is_shared_by_the_layers_of_one_width_and_costs_others_nothing():
    selu, relu = (step_of([5, 4, 4, 6, 3], 7, activation=name) for name in ("selu", "relu"))
    assert {name for name in selu.buffers if "scratch" in name} == {"scratch1 4", "scratch1 6"}
    assert not [name for name in relu.buffers if "scratch" in name]
    assert selu.n_floats - relu.n_floats == 32 + 48  # 4 and 6 rows of 7 samples, on 64 bytes each


def test_an_input_that_a_backward_reads_is_kept():
    for activation, shared in (("elu", True), ("silu", False), ("softplus", False), ("gelu", False)):
        found = step_of([5, 4, 3], 7, activation=activation).buffers
        assert (found["Z1"].offset == found["A1"].offset) == shared


@pytest.mark.parametrize("sizes", [[784, 100, 200, 10], [5, 3], [6, 5, 4]])
@pytest.mark.parametrize("batch", [1, 32])
def test_flops_of_the_products(sizes, batch):
    """Forward, dW and dX cost 2 n_in n_out batch each; nobody needs the first layer's dX."""
    products = [call for call in step_of(sizes, batch).calls if call.word == "matmul"]
    layers = [2 * n_in * n_out * batch for n_in, n_out in pairwise(sizes)]
    assert sum(call.flops for call in products) == 3 * sum(layers) - layers[0]
    assert len(products) == 3 * len(layers) - 1


def test_flops_and_bytes_of_other_calls():
    assert (call_of("xp.add(Z, b, out=Z)").flops, call_of("xp.add(Z, b, out=Z)").bytes) == (10, 4 * (10 + 2 + 10))
    reduction = call_of("xp.sum(Z, axis=0, keepdims=True, out=row)")
    assert (reduction.flops, reduction.bytes) == (10, 4 * (10 + 5))
    assert call_of("xp.matmul(W, X, out=Z)").bytes == 4 * (6 + 15 + 10)
    assert call_of("xp.multiply(Z, lr, out=A)").bytes == 4 * (10 + 1 + 10)


def test_describe_is_a_page_to_read():
    program = step_of([784, 100, 10], 32)
    lines = program.describe().splitlines()
    assert lines[0].startswith(f"batch 32, {len(program.calls)} calls a step")
    assert lines[1] == "gather   X (784, 32) <- X[order]"
    text = "\n".join(lines)
    for equation in (
        "    affine: Z = W A + b: the weighted input of a layer.",
        "    relu: A = max(Z, 0): the rectified linear unit; NaN stays NaN.",
        "    affine_backward: db = sum of dZ over the batch, dW = dZ A^T, dA = W^T dZ:",
        "    sgd: theta = theta - lr * gradient: stochastic gradient descent.",
    ):
        assert equation in text
    assert [line for line in lines if line.startswith("phase")] == ["phase gradient", "phase update"]
    (product,) = [line for line in lines if "Z1 = W1 @ X" in line]
    flops, size = 2 * 100 * 784 * 32, 4 * (100 * 784 + 784 * 32 + 100 * 32)
    assert "(100, 32)" in product and f"{flops:,} flop" in product and f"{size:,} bytes" in product
    assert any("dW2 = dZ2 @ A1^T" in line for line in lines)
    assert any("theta = theta - gradient" in line for line in lines)
    assert sum(" flop " in line for line in lines) == len(program.calls)
    total, moved = sum(call.flops for call in program.calls), sum(call.bytes for call in program.calls)
    assert lines[-1] == f"sum: {total:,} flop, {moved:,} bytes a step"


def test_describe_prints_numbers_as_they_are():
    """A hash constant or a small factor rounded to six digits would be another number."""
    assert "U = U * 2146121005" in program_of("xp.multiply(U, 0x7FEB352D, out=U)").describe()
