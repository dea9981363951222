"""The printed step: no two threads meet at an element, and what nobody reads is all that is not stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from features import FEATURES, OF_EACH_STRUCTURE, network_of, program_of
from llvm_threads import Text, conflicts
from processors import PROCESSORS
from random_programs import random_program
from refusals import says

from xpnet import SGD, Network, select_backend
from xpnet.engines import choice
from xpnet.engines.choice import make_engine
from xpnet.engines.llvm import native
from xpnet.engines.llvm.plan import make_plan
from xpnet.engines.llvm.run import program_text
from xpnet.engines.llvm.sharing import VECTOR_UNIT, Sharing
from xpnet.engines.llvm.units import CannotPrint
from xpnet.program.calls import Program, RecordingError
from xpnet.program.grouping import launches
from xpnet.program.places import is_read_after, place_of
from xpnet.program.recorder import record
from xpnet.program.sizes import Sizes


def text_of(feature, batch, threads, dtype="float32"):
    program = program_of(feature, network_of(feature, select_backend("cpu", dtype)), batch)
    scales = {name: 1 / 255 if name == "X" and feature.get("uint8") else None for name, _ in program.gathers}
    return program_text(program, dtype, scales, threads=threads).text


@pytest.mark.parametrize("name", OF_EACH_STRUCTURE)
def test_threads_do_not_meet(name):
    """A step and a short one, by what the text reads and writes between waits."""
    for threads in (2, 3) if name == "everything" else (2,):
        text = Text(text_of(FEATURES[name], 4, threads), 4)
        assert conflicts(text.every(list(range(6))[::-1], threads)) == []


MACHINES = {"x86_64": (18, b"\x3e\0"), "aarch64": (18, b"\xb7\0"), "arm64": (4, b"\x0c\0\0\1")}  # of ELF, of Mach-O


@pytest.mark.parametrize(  # the widest; another system; another kind
    "model", ["znver4", *(pytest.param(name, marks=pytest.mark.full) for name in ("apple-m1", "neoverse-n1"))]
)
def test_a_step_compiles_for_the_processor(model):
    """Into an object file that names its architecture."""
    module, machine = native.optimised(text_of({}, 4, 2), PROCESSORS[model])
    place, number = MACHINES[module.triple.split("-")[0]]
    assert machine.emit_object(module)[place : place + len(number)] == number


def test_the_vectors_of_products_are_those_of_the_processor():
    assert native.widest(["+avx2", "+avx512f"]) == 64 and native.widest(["+avx2", "-avx512f"]) == 32


@pytest.mark.full
def test_products_take_the_registers_of_avx_512():
    """Half of its arithmetic would be left otherwise."""

    def with_zmm(vector_bytes):
        return [line for line in small_step("znver4", vector_bytes) if "vfmadd" in line and "%zmm" in line]

    loops = len(with_zmm(32))  # such as exponentials, whose vectors LLVM chooses
    assert len(with_zmm(64)) > loops + 30


@pytest.mark.full
def test_a_relu_in_its_place_is_no_masked_store():
    """Which takes ten times as long on some processors."""
    lines = small_step("x86-64-v3")
    assert any("vmovups" in line for line in lines) and not any("vmaskmov" in line for line in lines)


def small_step(model, vector_bytes=32):
    """The assembly of a step with relu, line by line."""
    network = Network([40, 24, 3], backend=select_backend("cpu", "float32"))
    program = network.training_program(16, SGD(), False)
    text = program_text(program, "float32", {"X": None, "Y": None}, vector_bytes=vector_bytes).text
    module, machine = native.optimised(text, PROCESSORS[model])
    return machine.emit_assembly(module).splitlines()


@pytest.mark.in_turn(batch=[1, 2, 3], width=[1, 5, 20])
def test_threads_with_nothing_to_do(batch, width):
    feature = {
        "hidden": (width, 21 - width),
        "normalization": "layer",
        "dropout": 0.2,
        "weighted": True,
        "options": {"max_norm": 0.5, "clip_norm": 0.1},
        "optimizer": "Adam",
    }
    text = Text(text_of(feature, batch, 2, "float64"), 8)
    assert conflicts(text.every(list(range(batch + batch // 2)), 2)) == []


def test_gathered_samples_and_slots_are_there_when_the_first_call_reads_them():
    """A sum over the batch, by whichever thread has the feature, and a rate that the first thread copies."""

    def build(recorder):
        X, b = recorder.batch_matrix("X", 33), recorder.column_in(recorder.theta, "b", 0, 33)
        recorder.gather("X", X)
        recorder.xp.multiply(recorder.theta, recorder["rate"], out=recorder.theta)
        recorder.xp.sum(X, axis=1, out=b, keepdims=True)

    program = record(build, batch=4, n_parameters=33, slots=("rate",))
    text = Text(program_text(program, "float32", {"X": None}, threads=2).text, 4)
    assert conflicts(text.every(list(range(8)), 2)) == []


def test_a_rows_worker_and_an_elements_worker_are_not_the_same():
    """Lengths of rows, of which threads take halves, then used by an optimizer that cuts at multiples of 16."""

    def build(recorder):
        W = recorder.matrix_in(recorder.theta, "W", 0, (20, 3))
        sums, roots = (recorder.column_in(recorder.flat(f"{name}s", 20), name, 0, 20) for name in ("sum", "root"))
        recorder.xp.sum(W, axis=1, out=sums, keepdims=True)
        recorder.xp.sqrt(sums, out=roots)
        with recorder.phase("update"):
            recorder.xp.add(roots, 1.0, out=roots)

    program = record(build, batch=1, n_parameters=60)
    text = Text(program_text(program, "float32", {}, threads=2).text, 4)
    assert conflicts(text.every([0], 2)) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_only_one_thread_has_the_vectors_to_itself(threads):
    """`noalias` says that nobody else writes there, so that LLVM may move a load to before a wait."""
    assert ("ptr noalias %M" in text_of({}, 4, threads)) == (threads == 1)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_the_parts_of_threads_are_all_of_a_vector_and_nothing_else(threads):
    """No part ends beyond the vector, where the next one begins, or where memory ends."""
    program = record(lambda recorder: None, batch=1, n_parameters=1)
    sharing = Sharing(program, Sizes(program, ()), threads, ())
    for granule in (1, VECTOR_UNIT):
        for n in range(1, 100):
            points = sharing.split_points(n, granule)
            assert (points[0], points[-1], len(points)) == (0, n, threads + 1) and list(points) == sorted(points)


# --- the plan --------------------------------------------------------------------------------------------------------


def plan_of(feature, batch, threads, library_flops=None):
    program = program_of(feature, network_of(feature, select_backend("cpu", "float32")), batch)
    found = launches(program, share=False)
    sizes = Sizes(program, found)
    return make_plan(program, found, sizes, threads=threads, library_flops=library_flops, has_data=True)


@pytest.mark.parametrize("name", OF_EACH_STRUCTURE)
def test_every_call_is_in_one_unit_and_waits_are_those_of_the_text(name):
    for threads in (1, 2):
        plan = plan_of(FEATURES[name], 4, threads)
        calls = [call for unit in plan.units for call in unit.calls]
        biases = [unit.bias for unit in plan.units if unit.bias is not None]
        calls += [call for call in plan.program.calls if any(bias in call.inputs for bias in biases)]
        calls += [plan.program.calls[step.index] for unit in plan.units for step in unit.finish]
        assert {id(call) for call in calls} == {id(call) for call in plan.program.calls}
        n_waits = sum(unit.waits for unit in plan.units) + 1 + (plan.program.accumulate > 1)
        assert text_of(FEATURES[name], 4, threads).count("call void @wait") == n_waits * (threads > 1)
        assert threads > 1 or not any(unit.waits for unit in plan.units)


def test_the_plan_tells_units_owners_and_waits():
    plan = plan_of({"hidden": (60,), "inputs": 70, "loss": "squared_error", "output": "identity"}, 4, 2)
    lines = plan.describe().splitlines()
    assert len(lines) == 2 + len(plan.units) and f"in {len(plan.units)} units, 2 threads" in lines[0]
    assert lines[0].endswith(f"{plan.working.floats:,} floats of working memory")
    forward = next(line for line in lines if "product: " in line)
    assert "gradient" in forward and "with bias" in forward
    updated = [line for line in lines if "updates elements" in line]
    assert len(updated) == 2 and "rows of 60 " in updated[1] and "updates elements 0 to 4199 by 112 rows" in updated[1]
    assert "flat of" in lines[-1] and lines[-1].endswith("0 to 4199") and "except elements" in lines[-1]
    assert [line.split()[1] for line in lines[2:]].count("wait") == sum(unit.waits for unit in plan.units) > 3


def test_the_plan_tells_what_the_library_does():
    """A product that it does has neither a bias nor an update fused into it."""
    plan = plan_of({"hidden": (60,), "inputs": 70}, 4, 1, 2 * 4 * 60 * 70)
    large = [line for line in plan.describe().splitlines() if "by the library" in line]
    assert len(large) == 2 and "1 thread, " in plan.describe()
    assert not any("bias" in line or "updates" in line for line in large)


def test_samples_that_are_read_from_their_middle_on_are_no_threads_own():
    """A product of half of the samples, which lie elsewhere in each thread's copy."""

    def build(recorder):
        X = recorder.batch_matrix("X", 4)
        recorder.gather("X", X)
        half = recorder.matrix_in(X, "half", 4 * 8, (8, 4))
        recorder.xp.matmul(half, half.T, out=recorder.matrix_in(recorder.theta, "product", 0, (8, 8)))

    program = record(build, batch=16, n_parameters=64)
    text = Text(program_text(program, "float64", {"X": None}, threads=2).text, 8)
    assert conflicts(text.every(list(range(32)), 2)) == []


def test_a_product_cut_by_columns_does_not_update():
    """A thread has no whole rows of the gradient, and would update them all."""

    def build(recorder):
        gradient = recorder.flat("gradient", 4 * 64)
        A = recorder.matrix_in(recorder.flat("a", 4 * 128), "A", 0, (4, 128))
        B = recorder.matrix_in(recorder.flat("b", 64 * 128), "B", 0, (64, 128))
        recorder.xp.matmul(A, B.T, out=recorder.matrix_in(gradient, "dW", 0, (4, 64)))
        with recorder.phase("update"):
            recorder.xp.subtract(recorder.theta, gradient, out=recorder.theta)

    program = record(build, batch=1, n_parameters=4 * 64)
    text = Text(program_text(program, "float32", {}, threads=2).text, 4)
    assert conflicts(text.every([0], 2)) == []


def printed(seed, threads):
    """A random program's text with one step for each length of the batch; None where it cannot be printed."""
    program = random_program(seed)
    try:
        return program, program_text(program, "float64", {}, threads=threads)
    except CannotPrint as reason:
        assert "depends on the batch length" in str(reason)
        return program, None


@pytest.mark.parametrize(
    ("seed", "threads"),
    [pytest.param(seed, 2 + seed % 2, marks=() if seed < 14 else pytest.mark.full) for seed in range(8, 24)],
)
def test_threads_do_not_meet_in_random_programs(seed, threads):
    program, step = printed(seed, threads)
    if step is None:
        return
    text, harmless = Text(step.text, 8), unused(program)
    for m in range(1, program.capacity + 1):
        if lengths_hold(step, program, m):
            found = conflicts(text.every(list(range(program.capacity + m)), threads))
            assert [element for _, element in found if element not in harmless] == []


def unused(program):
    """Numbers that a call writes as a vector of one element: a thread without an element reads them to no end."""
    calls = [call for call in program.calls if call.out.buffer.size == 1]
    return {
        place_of(program, call.out.buffer)[:2]
        for call in calls
        if any(operand.shape == () and operand.buffer.overlaps(call.out.buffer) for operand in call.operands)
    }


def lengths_hold(step, program, m):
    try:
        return step.sizes.hold_for(program.at(m))
    except RecordingError:
        return False


@pytest.mark.parametrize(
    ("name", "n_spare"),
    [
        ("weights", 0),
        ("dropout, batch normalization, Adam", 0),
        ("option max_norm", 1),  # rows of weights after an update of theta: cut alike, which the plan does not see
    ],
)
def test_without_any_of_the_waits_they_would_meet(name, n_spare):
    """So the check above notices a wait that is left out: what is before it and what is after it are then at once."""
    text = Text(text_of(FEATURES[name] | {"hidden": (24, 20), "inputs": 18, "outputs": 17}, 4, 2), 4)
    every, spare = text.every(list(range(8)), 2), []
    assert len(every[0]) > 10
    n_step = (len(every[0]) - 1) // 2  # waits of a step; the last of all is for whoever reads the results
    for i in range(1, n_step + 1):
        at_once = [[tuple(one | other for one, other in zip(*phases[i - 1 : i + 1], strict=True))] for phases in every]
        spare += [i] * (not conflicts(at_once))
    assert len(spare) <= n_spare


# --- what is stored --------------------------------------------------------------------------------------------------


def in_phases(program: Program, n_update: int, accumulate: int) -> Program:
    """The last calls as an update, which does not follow every step, and some views as results and slots."""
    n = len(program.calls) - n_update
    calls = [replace(call, phase="update" if i >= n else "gradient") for i, call in enumerate(program.calls)]
    scalars = [
        name
        for name, buffer in program.buffers.items()
        if buffer.form == "scalar" and buffer.kind == "float" and buffer.offset >= program.n_owned
    ]
    return replace(program, calls=tuple(calls), accumulate=accumulate, results=tuple(scalars[:1]))


@pytest.mark.in_turn(seed=range(8, 24), accumulate=[1, 3])
def test_what_is_not_stored_is_not_read(seed, accumulate):
    """Element by element, through steps with and without an update, and a short last one; then a run more."""
    program = in_phases(random_program(seed), 8, accumulate)
    try:
        short = in_phases(program.at(max(1, program.capacity - 1)), 8, accumulate)
    except RecordingError:
        short = program
    lost = {"float": np.zeros(program.n_floats, bool), "uint32": np.zeros(program.n_uints, bool)}

    def part(buffer):
        return lost[buffer.kind][buffer.offset : buffer.offset + buffer.size]

    n_lost = 0
    for n_steps in (5, 2):
        for t in range(1, n_steps + 1):
            last = t == n_steps
            for index, call in enumerate((short if last else program).calls):
                if call.phase == "update" and t % accumulate and not last:
                    continue
                assert not any(part(operand.buffer).any() for operand in call.operands), call.text
                stored = is_read_after(program, program.calls[index].out.buffer, index)
                part(call.out.buffer)[...] = not stored
                n_lost += not stored
        assert not lost["float"][: program.n_owned].any()
        assert not any(part(program.buffers[name]).any() for name in program.results)
    assert n_lost or seed != 8


# --- the text --------------------------------------------------------------------------------------------------------


def test_the_same_program_has_the_same_text_and_names_do_not_enter_it():
    feature = FEATURES["everything"]
    assert text_of(feature, 8, 2) == text_of(feature, 8, 2)

    def build(recorder, name):
        with recorder.phase("gradient"):
            column = recorder.column_in(recorder.theta, name, 0, 3)
            recorder.xp.exp(column, out=column)

    texts = [
        program_text(record(lambda r, name=name: build(r, name), batch=2, n_parameters=3), "float64", {}).text
        for name in ("b", 'b"\n}\ndefine void @run() { ret void }\n; %é')
    ]
    assert texts[0] == texts[1] and "é" not in texts[0]


def test_what_cannot_be_printed_is_said(float64_cpu, monkeypatch):
    """Numbers of uint32 calls, and products' columns, that depend on the batch length."""

    def of_uint32(recorder):
        U = recorder.batch_matrix("U", 3, "uint32")
        recorder.xp.add(U, recorder.batch, out=U)

    def of_columns(recorder):
        W = recorder.flat("W", 64)
        A = recorder.matrix_in(W, "A", 0, (2, 3))
        B = recorder.matrix_in(W, "B", 16, (3, recorder.batch))
        recorder.xp.matmul(A, B, out=recorder.matrix_in(W, "C", 48, (2, recorder.batch)))

    def of_rows(recorder):
        gradient, B = recorder.flat("gradient", 64), recorder.matrix_in(recorder.flat("b", 64), "B", 0, (8, 16))
        A = recorder.matrix_in(recorder.flat("a", 64), "A", 0, (recorder.batch, 8))
        recorder.xp.matmul(A, B, out=recorder.matrix_in(gradient, "dW", 0, (recorder.batch, 16)))
        with recorder.phase("update"):
            recorder.xp.subtract(recorder.theta, gradient, out=recorder.theta)

    def of_flat(recorder):
        part = recorder.flat_in(recorder.theta, "part", 0, recorder.batch)
        recorder.xp.add(part, 1.0, out=part)

    monkeypatch.setattr(choice, "threads_for", lambda *counts: 2)
    said = {
        of_uint32: ("U = U + 4", "has a number that depends on the batch length"),
        of_columns: ("C = A @ B", "has as many features as the batch has samples"),
        of_rows: ("dW = A @ B", "has as many rows as the batch has samples, and theta is updated by it"),
        of_flat: ("part = ", "is on flat vectors as long as the batch"),
    }
    for build, (found, reason) in said.items():
        with pytest.warns(UserWarning, match="cannot be compiled") as warned:
            program = record(build, batch=4, n_parameters=64)
            engine = make_engine(program, float64_cpu, float64_cpu.zeros(64), engine="compiled")
        says(str(warned[0].message), found, reason, "this cannot be compiled, engine='replay' runs it")
        assert engine.name == "replay"


def test_each_unit_is_told_above_its_code_and_comments_decide_nothing():
    """By its number in the plan, its kind and its words; the level of optimisation is that of the text without them."""
    text, plan = text_of({"hidden": (3,), "inputs": 2}, 4, 1), plan_of({"hidden": (3,), "inputs": 2}, 4, 1)
    units = [line for line in text.splitlines() if line.startswith("  ; unit ")]
    assert [unit.split(": ", 1)[1] for unit in units[:2]] == ["product: matmul"] * 2 and len(units) == len(plan.units)
    commented = text + "  ; a comment\n" * native._LONG_TEXT
    assert native._speed_level(commented) == native._speed_level(text) == 3
    assert native._speed_level(text + "declare\n" * native._LONG_TEXT) == 1
