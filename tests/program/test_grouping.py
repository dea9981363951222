"""Calls joined into launches: how many there are, and that none is joined that must wait for another."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest
from features import FEATURES, OF_EACH_STRUCTURE, network_of, program_of

import xpnet
from xpnet.network.programs import evaluation_program, inference_program
from xpnet.program.grouping import LONG_LINE, LONG_VECTOR, describe, launches
from xpnet.program.recorder import record

ROOT = Path(__file__).resolve().parents[2]
GATHER = 1  # every step has one launch more, which is no call
BENCHMARK = [784, 100, 200, 10]


def step_of(optimizer, sizes=BENCHMARK, batch=32, weighted=False, **network):
    backend = xpnet.select_backend("cpu")
    return xpnet.Network(sizes, backend=backend, **network).training_program(batch, optimizer, weighted)


def program(build, batch=4, n_parameters=0):
    def in_gradient(recorder):
        with recorder.phase("gradient"):
            build(recorder, recorder.xp)

    return record(in_gradient, batch=batch, n_parameters=n_parameters)


def kinds(found):
    return [[group.kind for group in launch.groups] for launch in found]


def texts(recorded):
    return [
        [[recorded.calls[step.index].text for step in group.steps] for group in launch.groups]
        for launch in launches(recorded)
    ]


# --- how many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 32, 256, 257, 1024, 8192])
@pytest.mark.parametrize(
    ("optimizer", "network", "n_calls", "n_launches"),
    [
        (xpnet.SGD, {}, 35, 16),
        (xpnet.Adam, {}, 51, 17),
        (xpnet.Adam, {"dropout": 0.2, "normalization": "batch"}, 137, 17),
    ],
    ids=["sgd", "adam", "adam, dropout, batch norm"],
)
def test_a_step_of_the_benchmark_network_takes_as_many_launches_at_every_batch(
    optimizer, network, n_calls, n_launches, batch
):
    recorded = step_of(optimizer(0.1), batch=batch, **network)
    found = launches(recorded)
    assert len(recorded.calls) == n_calls
    assert GATHER + len(found) == n_launches
    assert sum(launch.is_product for launch in found) == 8


def test_the_guides_table_of_launches():
    text = (Path(__file__).resolve().parents[2] / "ci/guide/inside.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| ([^|]+) \| (\d+) \| \d+ \|$", text, re.MULTILINE))
    norms = {"dropout": 0.2, "normalization": "batch"}
    steps = {
        "SGD": step_of(xpnet.SGD(0.1), batch=8192),
        "Adam": step_of(xpnet.Adam(0.1), batch=8192),
        "Adam, dropout and batch normalization": step_of(xpnet.Adam(0.1), batch=8192, **norms),
        "the same, three hidden layers (784-100-200-100-10)": step_of(
            xpnet.Adam(0.1), [784, 100, 200, 100, 10], batch=8192, **norms
        ),
        "Adam, layer normalization": step_of(xpnet.Adam(0.1), batch=8192, normalization="layer"),
        "SGD with `clip_norm`": step_of(xpnet.SGD(0.1, clip_norm=1.0), batch=8192),
    }
    assert said == {name: str(GATHER + len(launches(program))) for name, program in steps.items()}


def test_a_batch_of_one_and_one_output_have_as_many_launches():
    """Extents of 1 say nothing about the way a buffer lies; its declaration does."""
    assert kinds(launches(step_of(xpnet.SGD(0.1), batch=1))) == kinds(launches(step_of(xpnet.SGD(0.1), batch=32)))
    one, ten = (step_of(xpnet.SGD(0.1), [9, 4, n], loss="squared_error") for n in (1, 10))
    assert kinds(launches(one)) == kinds(launches(ten))


def test_evaluation_and_prediction():
    architecture = xpnet.Network(BENCHMARK, backend=xpnet.select_backend("cpu")).architecture
    evaluation = launches(evaluation_program(architecture, 1000, False, True))
    assert kinds(evaluation)[:5] == [["product"], ["element"], ["product"], ["element"], ["product"]]
    assert len(evaluation) == 8  # then who is right, a sample a worker, and how many; the losses, and their sum
    assert [kind for (kind,) in kinds(launches(inference_program(architecture, 1000, "predict")))][-1] == "row"


# --- which -----------------------------------------------------------------------------------------------------------


def test_the_sum_for_the_biases_joins_the_backward_of_the_activation():
    found = texts(step_of(xpnet.SGD(0.1)))
    assert [["dZ1 = A1 > 0", "dZ1 = dZ1 * dA1", "db1 = sum(dZ1)"]] in found


def test_groups_that_do_not_touch_each_other_share_a_launch():
    found = texts(step_of(xpnet.SGD(0.1)))
    assert [["loss = sum(L)"], ["dZ3 = dZ3 * 0.03125", "db3 = sum(dZ3)"]] in found


def test_a_part_of_a_vector_that_was_written_begins_a_new_launch():
    def build(recorder, xp):
        theta = recorder.theta
        xp.multiply(theta, 2.0, out=theta)
        W = recorder.matrix_in(theta, "W", 0, (2, 3))
        xp.multiply(W, 2.0, out=W)

    assert kinds(launches(program(build, n_parameters=8))) == [["element"], ["element"]]


def test_parts_that_overlap_stay_apart():
    """The workers are as many; but what one writes, another one reads."""

    def build(recorder, xp):
        flat = recorder.flat("v", 8)
        a, b, c = (recorder.flat_in(flat, name, start, 4) for name, start in (("a", 0), ("b", 2), ("c", 4)))
        xp.multiply(a, 2.0, out=a)
        xp.add(b, 1.0, out=b)
        xp.add(c, 1.0, out=c)

    assert texts(program(build)) == [[["a = a * 2"]], [["b = b + 1"]], [["c = c + 1"]]]


def test_a_number_that_others_read_is_not_written_among_them():
    def build(recorder, xp):
        flat = recorder.flat("v", 4)
        one = recorder.scalar_in(flat, "one", 2)
        xp.add(one, 1.0, out=one)
        xp.sum(flat, axis=0, keepdims=True, out=recorder.scalar_in(recorder.flat("memory", 1), "sum", 0))

    assert texts(program(build)) == [[["one = one + 1"]], [["sum = sum(v)"]]]


def test_a_broadcast_of_what_was_written_begins_a_new_launch():
    """A worker an element writes A; then all need the row sums of A, and those are made by a worker a row."""

    def build(recorder, xp):
        A, B, total = recorder.batch_matrix("A", 3), recorder.batch_matrix("B", 3), recorder.flat("sums", 3)
        column = recorder.column_in(total, "column", 0, 3)
        row = recorder.batch_vector("row")
        xp.exp(A, out=A)
        xp.sum(A, axis=1, keepdims=True, out=column)  # a feature a worker
        xp.add(A, column, out=B)  # may stay with them
        xp.sum(B, axis=0, keepdims=True, out=row)  # a sample a worker
        xp.multiply(row, 2.0, out=row)

    assert texts(program(build)) == [
        [["A = exp(A)", "column = sum(A)", "B = A + column"]],
        [["row = sum(B)", "row = row * 2"]],
    ]


def test_a_later_group_moves_ahead_only_of_what_it_lets_alone():
    def build(recorder, xp):
        A, B, C = (recorder.batch_matrix(name, 3) for name in "ABC")
        one = recorder.scalar_in(recorder.flat("memory", 1), "one", 0)
        W = recorder.matrix_in(recorder.flat("weights", 9), "W", 0, (3, 3))
        xp.multiply(A, one, out=A)
        xp.matmul(W, A, out=B)
        xp.add(one, 1.0, out=one)  # after A was multiplied by it: not in its launch
        xp.exp(C, out=C)  # nobody else's: in the first

    assert kinds(launches(program(build))) == [["element", "element"], ["product"], ["single"]]


@pytest.mark.parametrize(
    ("size", "teams", "parts"),
    [
        (LONG_LINE, [[1, 1]], [["whole"], ["whole", "whole"]]),
        (LONG_LINE + 1, [[1, 256]], [["whole"], ["whole", "whole"]]),
        (LONG_VECTOR, [[1, 256]], [["whole"], ["whole", "whole"]]),
        (LONG_VECTOR + 1, [[256, 256]], [["whole", "partial"], ["final", "whole"]]),
    ],
)
def test_a_long_sum_is_that_of_a_team_and_a_longer_one_of_many_with_what_precedes_it(size, teams, parts):
    def build(recorder, xp):
        flat = recorder.flat("v", size)
        total = recorder.scalar_in(recorder.flat("memory", 1), "total", 0)
        xp.multiply(flat, flat, out=flat)
        xp.sum(flat, axis=0, keepdims=True, out=total)
        xp.sqrt(total, out=total)

    found = launches(program(build))
    assert [[launch.groups[0].team for launch in found]] == teams
    assert [[step.part for step in launch.groups[0].steps] for launch in found] == parts
    assert {group.team for launch in launches(program(build), share=False) for group in launch.groups} == {1}


def test_long_columns_and_rows_are_walked_by_teams_in_the_launches_of_short_ones():
    def build(recorder, xp):
        A, row = recorder.batch_matrix("A", 300), recorder.batch_vector("row")
        column = recorder.column_in(recorder.flat("memory", 300), "column", 0, 300)
        xp.exp(A, out=A)
        xp.sum(A, axis=1, keepdims=True, out=column)
        xp.multiply(column, 0.5, out=column)
        xp.subtract(A, column, out=A)
        xp.max(A, axis=0, keepdims=True, out=row)
        xp.add(A, row, out=A)

    short, long = (launches(program(build, batch=batch)) for batch in (LONG_LINE, LONG_LINE + 1))
    assert kinds(short) == kinds(long) == [["column"], ["row"]]
    teams = [[launch.groups[0].team for launch in found] for found in (short, long)]
    assert teams == [[1, 32], [32, 32]]  # of 300 features each row is long


def test_few_columns_and_long_rows_have_a_block_each():
    def teams(rows, columns):
        def build(recorder, xp):
            A = recorder.matrix_in(recorder.theta, "A", 0, (rows, columns))
            for B, name, size in ((A.T, "column", columns), (A, "row", rows)):
                out = recorder.column_in(recorder.flat(f"{name}s", size), name, 0, size)
                xp.sum(B, axis=1, keepdims=True, out=out)

        found = launches(program(build, n_parameters=rows * columns))
        return {group.kind: group.team for launch in found for group in launch.groups}

    assert teams(300, 64) == {"column": 256, "row": 1} and teams(300, 65) == {"column": 32, "row": 1}
    assert teams(9, 2048) == {"column": 1, "row": 32} and teams(9, 2049) == {"column": 1, "row": 256}


def test_describe_says_launches_groups_and_calls():
    recorded = step_of(xpnet.SGD(0.1))
    lines = describe(recorded).splitlines()
    assert lines[0] == "batch 32, 35 calls in 15 launches and the gather"
    assert lines[1:3] == ["  1  gradient", "       product: Z1 = W1 @ X"]
    assert lines[-2:] == [" 15  update", "       element: gradient = gradient * lr; theta = theta - gradient"]
    assert sum(line.count(";") + 1 for line in lines if line.startswith("       ")) == 35


def test_phases_stay_apart():
    recorded = step_of(xpnet.Adam(0.1))
    assert [launch.phase for launch in launches(recorded)][-2:] == ["update", "update"]
    assert launches(recorded, "update") == launches(recorded)[-2:]


@pytest.mark.parametrize("batch", [2, 7])
@pytest.mark.parametrize("name", OF_EACH_STRUCTURE)
def test_every_call_is_there_once_and_after_those_it_depends_on(name, batch):
    """Independent of the rule: by bytes alone, of any two calls that touch the same memory the order must be kept."""
    recorded = program_of(FEATURES[name], network_of(FEATURES[name], xpnet.select_backend("cpu")), batch)
    found = launches(recorded)
    places = {
        step.index: (i, j, k)
        for i, launch in enumerate(found)
        for j, group in enumerate(launch.groups)
        for k, step in enumerate(group.steps)
    }
    steps = [step for launch in found for group in launch.groups for step in group.steps if step.part != "partial"]
    assert sorted(step.index for step in steps) == list(range(len(recorded.calls)))

    def bytes_of(operand):
        start = operand.buffer.offset
        return operand.buffer.kind, range(start, start + operand.buffer.size)

    def meet(one, other):
        (kind, a), (other_kind, b) = bytes_of(one), bytes_of(other)
        return kind == other_kind and a.start < b.stop and b.start < a.stop

    for (i, first), (j, second) in combinations(enumerate(recorded.calls), 2):
        touches = [meet(first.out, operand) for operand in (*second.operands, second.out)]
        touches += [meet(second.out, operand) for operand in first.operands]
        if any(touches) and first.phase == second.phase:
            assert places[i] < places[j]
            assert places[i][:2] == places[j][:2] or places[i][0] < places[j][0], "not in one launch, apart"
