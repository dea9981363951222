"""The loop nest of a group: what shares a loop, where a worker finds each operand, and what is read again."""

from __future__ import annotations

import pytest
from features import FEATURES, OF_EACH_STRUCTURE, network_of, program_of

from xpnet import select_backend
from xpnet.program.grouping import launches, leader
from xpnet.program.loops import loop_nest
from xpnet.program.recorder import record
from xpnet.program.sizes import Sizes


def nests(program, *, share=False):
    """The nests of a Program's groups that are no products."""
    found = launches(program, share=share)
    sizes = Sizes(program, found)
    return [loop_nest(program, sizes, group) for launch in found for group in launch.groups if group.kind != "product"]


def softmax(recorder):
    """exp(Z - max) / sum, each sample by itself; samples are rows of memory."""
    xp, Z = recorder.xp, recorder.batch_matrix("Z", 5)
    largest, total = recorder.batch_vector("largest"), recorder.batch_vector("total")
    xp.max(Z, axis=0, out=largest, keepdims=True)
    xp.subtract(Z, largest, out=Z)
    xp.exp(Z, out=Z)
    xp.sum(Z, axis=0, out=total, keepdims=True)
    xp.divide(Z, total, out=Z)


def test_what_needs_a_sum_begins_another_loop():
    (nest,) = nests(record(softmax, batch=4, n_parameters=1))
    assert nest.kind == "row" and nest.n_columns == "5"
    assert [segment.extent for segment in nest.segments] == ["5", "5", "5"]
    words = [[statement.call.word for statement in segment.statements] for segment in nest.segments]
    assert words == [["max"], ["subtract", "exp", "sum"], ["divide"]]
    assert [[statement.call.word for statement in segment.totals] for segment in nest.segments] == [
        ["max"],
        ["sum"],
        [],
    ]


def test_items_say_whether_they_change_from_turn_to_turn():
    (nest,) = nests(record(softmax, batch=4, n_parameters=1))
    subtract = nest.statements[1]
    Z, largest = subtract.inputs
    assert (Z.role, Z.varies, largest.role, largest.varies) == ("matrix", True, "along columns", False)
    assert Z.key == subtract.out.key and largest.key == nest.statements[0].out.key != Z.key
    assert [item.operand.buffer.name for item in nest.segments[1].fixed] == ["largest"]


@pytest.mark.parametrize("axis", [0, 1])
def test_along_a_column_it_is_the_other_vector_that_changes(axis):
    def build(recorder):
        A, b, w = recorder.batch_matrix("A", 5), recorder.flat("b", 5), recorder.batch_vector("w")
        out = recorder.column_in(b, "column", 0, 5) if axis else recorder.batch_vector("out")
        recorder.xp.multiply(A, w, out=A)
        recorder.xp.add(A, recorder.column_in(recorder.theta, "bias", 0, 5), out=A)
        recorder.xp.sum(A, axis=axis, out=out, keepdims=True)

    (nest,) = nests(record(build, batch=4, n_parameters=5))
    vectors = {item.operand.buffer.name: item.varies for each in nest.statements for item in each.items}
    assert nest.kind == ("column" if axis else "row")
    assert vectors == {"A": True, "w": axis == 1, "bias": axis == 0}
    assert [segment.extent for segment in nest.segments] == ["m" if axis else "5"]


def test_parts_of_a_long_sum_lie_apart():
    def build(recorder):
        recorder.xp.sum(recorder.theta, axis=0, out=recorder["total"], keepdims=True)

    partial, final = nests(record(build, batch=1, n_parameters=9000, results=("total",)), share=True)
    assert (partial.kind, final.kind) == ("part", "single")
    assert partial.statements[0].out.place == final.statements[0].items[0].place
    assert partial.statements[0].out.place.memory == "sums" and final.segments[0].extent == "1024"
    assert partial.statements[0].items[0].varies and not partial.statements[0].out.varies


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("name", OF_EACH_STRUCTURE)
def test_nests_hold_all_statements_in_order(name, share):
    """A loop holds calls of one length, of single numbers one sum, and none reads a total that stands before it."""
    program = program_of(FEATURES[name], network_of(FEATURES[name], select_backend("cpu")), 4)
    for nest in nests(program, share=share):
        indices = [statement.step.index for statement in nest.statements]
        assert indices == sorted(indices)
        for segment in nest.segments:
            assert segment.extent is not None or not segment.totals
            totals = set()
            for statement in segment.statements:
                assert not any(item.place in totals for item in statement.items)
                totals |= {statement.out.place} if statement.accumulates else set()
            if nest.kind == "single" and segment.extent is not None:
                assert len(segment.statements) == 1
            for statement in segment.statements:
                is_walked = nest.kind == "part" or len(leader(statement.call).shape) == 2
                assert statement.accumulates or segment.extent is None or is_walked


def test_what_nobody_reads_again_is_told():
    """What the loss has read, and its scratch; theta is the network's, and A1 waits for the backward pass."""
    program = program_of({}, network_of({}, select_backend("cpu")), 4)
    found = {}
    for nest in nests(program):
        for statement in nest.statements:
            found[statement.out.operand.buffer.name] = nest.is_read_after(statement.out, nest.statements)
    assert found["theta"] and found["loss"] and found["A1"] and not found["Z3"] and not found["work"]
