"""The target of a table: rows without one, the task of every kind of target, and what cannot be one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from refusals import refusal
from tables.learning import learn, said

from xpnet.tables.options import ColumnOptions
from xpnet.tables.tasks import fit_target, is_count, with_target

N = 60
Z = np.random.default_rng(1).normal(size=N)


def framed(values, **more):
    return pd.DataFrame({"x": np.resize(Z, len(values)), "y": values} | more, pd.RangeIndex(1, len(values) + 1))


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 30, "binary", ("no", "yes")),
        ([True, False] * 30, "binary", (False, True)),
        (pd.array([True, False] * 30, "boolean"), "binary", (False, True)),
        (pd.array([True, False] * 30, "bool[pyarrow]"), "binary", (False, True)),
        ([True, False, None] * 20, "binary", (False, True)),
        ([5, 7] * 30, "binary", (5, 7)),
        ([0.0, 1.0] * 30, "binary", (0, 1)),
        ([0.5, 1.5] * 30, "binary", (0.5, 1.5)),
        (["1", "2"] * 30, "binary", (1, 2)),
        (["c", "a", "b"] * 20, "multiclass", ("a", "b", "c")),
        (["0", "1", "2", "4+"] * 15, "multiclass", ("0", "1", "2", "4+")),
        (pd.Categorical([3, 1, 2] * 20), "multiclass", ("1", "2", "3")),
        ([3, 1, 2] * 20, "multiclass", (1, 2, 3)),
        ([3.0, 1.0, 2.0] * 20, "multiclass", (1, 2, 3)),
        ([3, 1, 2, None] * 15, "multiclass", (1, 2, 3)),
        ([4, 6, 8] * 3, "multiclass", (4, 6, 8)),
        (list(range(12)) * 5, "multiclass", tuple(range(12))),
        (list(range(13)) * 4, "regression", ()),
        (list(range(60)), "regression", ()),
        ([0.5, 1.5, 2.5] * 20, "regression", ()),
        (["$1,200", "$900", "$1,000"] + [f"${i}" for i in range(57)], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(target, task, classes):
    frame = framed(target)
    table = learn(frame)
    assert (table.target.task, table.target.classes) == (task, classes)
    assert [type(label) for label in table.target.classes] == [type(label) for label in classes]
    if classes:
        rows = frame[frame["y"].notna()]
        present = [str(value) if isinstance(classes[0], str) else float(value) for value in rows["y"]]
        labels = [list(classes).index(value) for value in present]
        dataset = table.dataset(rows)
        assert dataset.is_classification and dataset.n_outputs == table.target.n_outputs
        np.testing.assert_array_equal(dataset.labels, labels)


COUNTS = np.random.default_rng(0).poisson(1.6, 800)
RARE = np.repeat(np.arange(10), [300, 170, 160, 90, 60, 35, 22, 11, 5, 1])


@pytest.mark.parametrize(
    ("values", "is_one"),
    [
        (COUNTS, True),
        (RARE, True),
        (np.random.default_rng(0).poisson(4, 900), True),
        (np.repeat(np.arange(1, 10), [80, 60, 50, 30, 20, 12, 8, 5, 2]), True),
        (np.repeat(range(10), 50), False),  # digits
        (np.repeat([1, 2, 3], 50), False),  # iris
        (np.repeat([1, 2, 3, 5, 6, 7], [70, 76, 17, 13, 9, 29]), False),  # glass
        (np.repeat([3, 4, 5, 6, 7, 8], [10, 53, 681, 638, 199, 18]), False),  # wine
        (np.repeat(range(4), [1210, 384, 69, 65]), False),  # car
        (np.repeat([0, 1, 2, 3, 4], [10, 20, 30, 40, 50]), False),
    ],
)
def test_counts_are_told_from_codes_of_classes(values, is_one):
    assert is_count(*np.unique(values, return_counts=True)) == is_one
    frame = framed(np.random.default_rng(3).permutation(values))
    table = learn(frame)
    assert table.target.task == ("regression" if is_one else "multiclass")
    ((column, found, done, _),) = said(table)
    lowest, highest, n = min(values), max(values), len(set(values))
    assert (column, found) == ("y", f"whole numbers of {n} different values, {lowest} to {highest}")
    assert done.startswith("taken as counts, a regression" if is_one else "taken as classes")
    other = learn(frame, task="multiclass" if is_one else "regression")
    assert other.target.task != table.target.task and other.decisions == ()


def test_many_whole_numbers_of_which_some_are_rare_are_no_classes():
    """Years at school, say, whose frequencies have two humps."""
    values = np.repeat(np.arange(1, 13), [3, 9, 20, 30, 25, 20, 15, 60, 30, 25, 40, 10])
    table = learn(framed(np.random.default_rng(3).permutation(values)))
    assert table.target.task == "regression"
    assert said(table)[0][2] == "taken as numbers, a regression, as some are rare"
    assert learn(framed(values % 10)).target.task == "multiclass"


def test_rows_without_target_are_left_out_and_counted():
    frame = framed([None, "?", np.inf, *range(57)])
    rows, decisions = with_target(frame, ["y"])
    assert list(rows.index) == list(range(4, 61))
    assert [(each.found, each.done, each.detail) for each in decisions] == [
        ("rows without target", "left out", "1"),
        ("rows whose target is no number", "left out", "1, '?' in row 2"),
        ("rows whose target is infinite", "left out", "1"),
    ]
    table = learn(frame)
    again, _ = table.target.known_in(frame)
    pd.testing.assert_frame_equal(again, rows)
    np.testing.assert_allclose(table.target.in_units(table.dataset(rows).Y), [np.arange(57.0)], atol=1e-5)
    several = framed(np.arange(60.0), v=[None, *range(59)])
    several.loc[5, "y"] = None
    assert list(with_target(several, ["y", "v"])[0].index) == [2, 3, 4, *range(6, 61)]
    texts = framed(["a", "", "b"] * 20)
    rows, (decision,) = with_target(texts, ["y"])
    assert len(rows) == 40 and (decision.found, decision.detail) == ("rows without target", "20")


def test_odd_texts_are_classes_where_classes_are_asked_for():
    values = [*map(str, range(15))] * 4
    values[7] = "none"
    assert learn(framed(values)).target.task == "regression"
    assert "none" in learn(framed(values), task="multiclass").target.classes
    fewer = framed(["0", "1", "2", "4+"] * 15)
    table = learn(fewer, task="regression")
    assert [each[1:3] for each in said(table)][:1] == [("rows whose target is no number", "left out")]
    assert table.target.means == (pytest.approx(1.0),)


def test_classes_are_those_of_all_rows_and_the_scale_is_that_of_the_training_rows():
    frame = framed(["a"] * 20 + ["b"] * 20 + ["c"] * 20)
    assert learn(frame, training=30).target.classes == ("a", "b", "c")
    frame = framed(np.arange(60) * 1.5)
    target = learn(frame, training=30).target
    assert (target.means, target.deviations) == ((21.75,), (pytest.approx(np.std(np.arange(30) * 1.5)),))


def test_another_task_than_the_inferred_one():
    frame = framed([3, 1, 2] * 20)
    assert learn(frame, task="regression").target.task == "regression"
    frame["y"] += 0.5
    assert learn(frame, task="multiclass").target.classes == (1.5, 2.5, 3.5)


@pytest.mark.parametrize(
    ("values", "options", "parts"),
    [
        ([3.0] * N, {}, ["target 'y' is 3 in all 60 rows", "nothing to learn", "give rows with other values"]),
        ([3.5] * N, {"task": "regression"}, ["target 'y' is 3.5 in all 60 rows"]),
        (["a"] * N, {}, ["target 'y' is 'a'"]),
        ([None] * N, {}, ["target 'y' has no value in any row", "fill it in", "or name another --target"]),
        ([np.inf, -np.inf, None] * 20, {}, ["target 'y' has no finite value in any row", "or name another --target"]),
        ([f"w{i}" for i in range(N)], {}, ["60 different texts in 60 rows", "classes that repeat", "name another --t"]),
        (
            pd.date_range("2024-01-01", periods=N),
            {},
            ["holds dates or times", "turn them into numbers", "name another"],
        ),
        ([[1]] * N, {}, ["holds values that are neither numbers nor text, such as '[1]'"]),
        ([1e308, -1e308] * 30 + [0.5], {}, ["target 'y' goes from -1e+308 to 1e+308", "too far", "another --target"]),
        (
            ["a", "b"] * 30,
            {"task": "regression"},
            ["'y' is text, such as 'a'", "a regression needs numbers", "name one target of classes alone"],
        ),
        (
            ["a", "b"] * 30,
            {"task": "multiclass"},
            ["'y' has 2 classes", "the task is multiclass", "take --task binary"],
        ),
        (["a", "b", "c"] * 20, {"task": "binary"}, ["3 classes", "--task multiclass"]),
        ([1, 2] * 30, {"task": "sorting"}, ["task is 'sorting'"]),
        ([1, 2] * 30, {"target": "z"}, ["there is no column 'z'", "the columns are", "x, y"]),
        ([1, 2] * 30, {"target": "Y"}, ["no column 'Y'", "did you mean 'y'?"]),
        ([1, 2] * 30, {"target": ["y", "y"]}, ["a target is named twice", "'y', 'y'", "name each once"]),
        (["a", "b"] * 30, {"target": ["x", "y"]}, ["'y' is text", "one target of classes alone"]),
        (
            [1, 2] * 30,
            {"target": ["x", "y"], "task": "binary"},
            ["there are 2 targets", "needs one", "take --task regression"],
        ),
        (
            np.arange(N * 50) % 1001,
            {"task": "multiclass"},
            ["'y' has 1001 different values", "at most 1000 classes", "take --task regression"],
        ),
    ],
)
def test_targets_that_cannot_be(values, options, parts):
    with refusal(ValueError, *parts):
        learn(framed(values), **options)


def test_no_row_has_all_targets():
    frame = framed([1.5, None] * 30, v=[None, 1.5] * 30)
    with refusal(ValueError, "no row has all of the targets 'y', 'v'", "name fewer", "or fill them in"):
        with_target(frame, ["y", "v"])


@pytest.mark.parametrize("task", [None, "binary"])
@pytest.mark.parametrize("labels", [[2**53, 2**53 + 1], [-(2**53) - 2, 0]])
def test_classes_that_float64_does_not_tell_apart_are_refused(labels, task):
    frame = framed(np.resize(labels, N))
    with refusal(ValueError, "beyond 9007199254740992", "cannot all be told apart", "take --task regression"):
        fit_target(frame, ["y"], ColumnOptions(task=task))


def test_cells_of_a_target_that_are_no_numbers():
    table = learn(framed([f"${i}" for i in range(N)]))
    frame = framed(["$1", "many"])
    with refusal(
        ValueError,
        "column 'y' has cells that are no numbers (1, 'many' in row 2)",
        "the target must be known",
        "remove these rows, or fill them in",
    ):
        table.dataset(frame)


def test_names_of_a_file_are_quoted_in_part_and_do_nothing_to_a_terminal():
    frame = pd.DataFrame(np.ones((2, 3)), columns=["a", "b\x1b[31m", "y" + "x" * 5000])
    with pytest.raises(ValueError, match="is no column 'y'") as error:
        with_target(frame, ["y"])
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_other_rows_whose_target_is_no_number_are_refused_by_their_cells():
    frame = pd.DataFrame({"x": Z, "y": Z})
    target = learn(frame).target
    with refusal(
        ValueError, "'y' has no number in any row (60, such as 'txt' in row 0)", "fill it in", "another --target"
    ):
        target.known_in(frame.assign(y="txt"))
