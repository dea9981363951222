"""Which rows are held out, by each rule: counts and places that can be told without the code."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from refusals import refusal

from xpnet.tables.decisions import lines
from xpnet.tables.splitting import KINDS, Split, folds, held_out, kind_and_column, said_of_rows, usual_count, values_of

LABELS = np.repeat([0, 1, 2, 3], [60, 30, 9, 1])


def test_a_shuffled_split_is_a_fixed_rule_of_the_seed():
    mask = held_out(Split("shuffle", 10, seed=3), 100)
    expected = np.random.default_rng(3).permutation(100)[:10]
    assert np.flatnonzero(mask).tolist() == sorted(expected.tolist())
    assert (mask == held_out(Split("shuffle", 10, seed=3), 100)).all()
    assert (mask != held_out(Split("shuffle", 10, seed=4), 100)).any()


def test_a_stratified_split_takes_the_same_part_of_each_class():
    for seed in range(5):
        mask = held_out(Split("stratify", 20, seed), 100, LABELS)
        assert np.bincount(LABELS[mask], minlength=4).tolist() == [12, 6, 2, 0]  # a class of one row is trained on
        mask = held_out(Split("stratify", 4, seed), 100, LABELS)
        assert np.bincount(LABELS[mask], minlength=4).tolist() == [2, 1, 1, 0]
    mask = held_out(Split("stratify", 50), 100, np.repeat(np.arange(50), 2))
    assert mask.reshape(50, 2).sum(axis=1).tolist() == [1] * 50
    assert held_out(Split("stratify", 20), 100).sum() == 20  # without classes: shuffled


def test_the_last_rows():
    assert held_out(Split("last", 3), 10).tolist() == [False] * 7 + [True] * 3
    assert held_out(Split("last", 0), 10).sum() == 0


def test_groups_are_whole_and_about_as_many_rows_as_asked_for():
    groups = np.repeat(np.arange(20), 5)
    np.random.default_rng(0).shuffle(groups)
    chosen = set()
    for seed in range(5):
        mask = held_out(Split("group", 22, seed, "g"), 100, values=groups)
        assert not set(groups[mask]) & set(groups[~mask]) and mask.sum() == 20
        chosen.add(tuple(sorted(set(groups[mask]))))
    assert len(chosen) > 1
    uneven = np.repeat([0, 1], [90, 10])  # neither is near to 5 rows: the smaller one
    assert held_out(Split("group", 5, column="g"), 100, values=uneven).tolist() == (uneven == 1).tolist()
    assert held_out(Split("group", 95, column="g"), 100, values=uneven).sum() in (10, 90)  # one is left to train on
    with refusal(ValueError, "'g' has one group only", "needs two", "split by shuffle"):
        held_out(Split("group", 5, column="g"), 10, values=np.zeros(10))


def test_the_latest_rows_are_held_out_and_one_time_is_on_one_side():
    times = np.array([5.0, 1, 2, 5, 4, 3, 5, np.nan, 0, 2])
    assert np.flatnonzero(held_out(Split("time", 3, column="t"), 10, values=times)).tolist() == [0, 3, 6]
    assert np.flatnonzero(held_out(Split("time", 1, column="t"), 10, values=times)).tolist() == [0, 3, 6]
    assert np.flatnonzero(held_out(Split("time", 4, column="t"), 10, values=times)).tolist() == [0, 3, 4, 6]
    with refusal(ValueError, "'t' has one time only", "needs two", "split by shuffle"):
        held_out(Split("time", 1, column="t"), 3, values=np.array([1, 1, np.nan]))
    with refusal(ValueError, "'t' has no time", "needs two", "split by shuffle"):
        held_out(Split("time", 1, column="t"), 3, values=np.full(3, np.nan))


def test_columns_of_groups_and_times():
    frame = pd.DataFrame({"g": ["b", None, "a", "b", None], "n": [3, 1, 2, 5, 4]}, index=range(1, 6))
    groups = values_of(Split("group", 1, column="g"), frame)
    assert groups[0] == groups[3] and groups[1] == groups[4] and len(set(groups.tolist())) == 3
    assert values_of(Split("time", 1, column="n"), frame).tolist() == [3, 1, 2, 5, 4]
    frame["d"] = ["2024-03-02", "2023-12-31 12:00", "2024-01-01", "never", None]
    times = values_of(Split("time", 1, column="d"), frame)
    assert ((times[:3] - times[1]) / 1e6).tolist() == [61.5 * 86400, 0.0, 43200.0] and np.isnan(times[3:]).all()
    frame["e"] = ["02.03.2024", "31.12.2023", "01.01.2024", "05.01.2024", None]  # the day first
    assert np.argsort(values_of(Split("time", 1, column="e"), frame)).tolist() == [1, 2, 3, 0, 4]
    assert values_of(Split("shuffle", 1), frame) is None
    frame["f"] = ["1,000", "7", "12", "?", None]
    np.testing.assert_array_equal(values_of(Split("time", 1, column="f"), frame), [1000, 7, 12, np.nan, np.nan])
    frame["f"] = np.nan
    assert np.isnan(values_of(Split("time", 1, column="f"), frame)).all()
    with refusal(ValueError, "'g' holds no times", "'b' in row 1", "name another column"):
        values_of(Split("time", 1, column="g"), frame)
    with refusal(ValueError, "the column of --split group is 'h'", "choose one of 'g', 'n', 'd'"):
        values_of(Split("group", 1, column="h"), frame)


@pytest.mark.parametrize(("n_rows", "n_held"), [(1, 0), (4, 0), (5, 1), (10, 2), (30, 6), (31, 3), (150, 15)])
def test_how_many_are_held_out_unless_it_is_said(n_rows, n_held):
    assert usual_count(n_rows) == n_held


@pytest.mark.parametrize("kind", ["shuffle", "stratify", "group"])
def test_folds_share_the_rows_out(kind):
    values = np.arange(100) // 4
    parts = list(folds(Split(kind, 10, 1, "g" if kind == "group" else None), 5, 100, LABELS, values))
    assert (np.sum(parts, axis=0) == 1).all()
    assert [part.sum() for part in parts] == [20] * 5
    if kind == "stratify":
        counts = np.array([np.bincount(LABELS[part], minlength=4) for part in parts])
        assert (counts[:, :2] == [12, 6]).all() and sorted(counts[:, 2]) == [1, 2, 2, 2, 2]
    if kind == "group":
        assert all(not set(values[part]) & set(values[~part]) for part in parts)


def test_folds_that_cannot_be():
    with refusal(ValueError, "split is time t", "which keeps their order", "take shuffle or group"):
        next(folds(Split("time", 1, column="t"), 3, 10))
    with refusal(ValueError, "5 folds need as many groups", "and there are 2", "take fewer folds"):
        next(folds(Split("group", 1, column="g"), 5, 10, values=np.arange(10) % 2))


def test_what_is_said_of_few_rows_and_of_classes_on_one_side():
    names, labels = ["a", "b", "c", "d"], LABELS
    mask = held_out(Split("stratify", 20), 100, labels)
    (line,) = lines(said_of_rows(Split("stratify", 20), mask, labels, names))
    assert line == "target 'd': only in rows to train on (1 row)"
    mask = held_out(Split("last", 10), 100, labels)
    assert list(lines(said_of_rows(Split("last", 10), mask, labels, names))) == [
        "target 'a', 'b': only in rows to train on (90 rows) (--split stratify)",
        "target 'c', 'd': only in rows held out (10 rows) (--split stratify)",
    ]
    assert list(lines(said_of_rows(Split("shuffle", 2), np.arange(10) < 2, None, []))) == [
        "10 rows: a score on the 2 held out is mostly chance (--folds 5 measures on all)"
    ]
    (line,) = lines(said_of_rows(Split("shuffle", 0), np.zeros(3, bool), None, []))
    assert line == "3 rows: all are trained on, and no score tells what the model is worth"
    assert said_of_rows(Split("shuffle", 0), np.zeros(300, bool), None, []) == []
    times, mask = np.where(np.arange(100) % 10, np.arange(100.0), np.nan), np.arange(100) > 90
    (line,) = lines(said_of_rows(Split("time", 9, column="day"), mask, None, [], times))
    assert line == "day (10): rows whose time is not known: trained on, none held out"


def test_a_split_as_text_and_as_json():
    assert kind_and_column("group  a patient ") == ("group", "a patient")
    assert kind_and_column("stratify") == ("stratify", None)
    for split in (Split("group", 3, 4, "x"), Split("last", 0)):
        assert Split.from_spec(json.loads(json.dumps(split.to_spec()))) == split
    assert [str(Split(kind, 1, 0, "x" if kind in ("group", "time") else None)) for kind in KINDS] == [
        "shuffle",
        "stratify",
        "group x",
        "time x",
        "last",
    ]
    with refusal(ValueError, "split is 'group'", "needs a column", "write group COLUMN"):
        kind_and_column("group")
    with refusal(ValueError, "split is 'last x'", "takes no column", "write last alone"):
        kind_and_column("last x")
    with refusal(ValueError, "split is 'shufle'", "did you mean 'shuffle'?"):
        kind_and_column("shufle")


@pytest.mark.parametrize(
    "spec",
    [
        *(3, [], {}, {"kind": "x", "n_held_out": 1}, {"kind": "last"}, {"kind": "last", "n_held_out": -1}),
        *({"kind": "last", "n_held_out": 1.0}, {"kind": "time", "n_held_out": 1}, {"kind": "last", "n_held_out": True}),
        *({"kind": "last", "n_held_out": 1, "column": "x"}, {"kind": "last", "n_held_out": 1, "more": 1}),
    ],
)
def test_a_split_of_a_file_that_is_none(spec):
    with refusal(ValueError, "split is", "it must be null, or hold kind", "train again, or restore it"):
        Split.from_spec(spec)


def test_a_split_that_leaves_nothing():
    with refusal(ValueError, "10 of 10 rows would be held out", "leave one to train on", "hold out fewer"):
        held_out(Split("shuffle", 10), 10)
