"""The rows that stand for a product of factors: nothing that they promise is missing, and they stay the same."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from chosen import cases, in_share, in_turn, pairwise, spread

FACTORS = {"a": "xyz", "b": [0, 1], "c": [None, {"unhashable": []}, 2.0, "last"], "d": [False, True]}


def test_every_pair_of_values_is_in_a_row_and_the_rows_are_few():
    rows = pairwise(**FACTORS)
    for (i, one), (j, other) in combinations(enumerate(FACTORS.values()), 2):
        assert all(any(row[i] is a and row[j] is b for row in rows) for a, b in product(one, other))
    assert 12 <= len(rows) <= 14 < 48
    assert rows == pairwise(**FACTORS)


def test_every_value_has_its_turn_and_no_two_factors_go_in_step():
    rows = in_turn(a=range(8), b=[0, 1], c=[0, 1], d="xyz")
    assert [row[0] for row in rows] == list(range(8))
    assert [{row[i] for row in rows} for i in (1, 2, 3)] == [{0, 1}, {0, 1}, set("xyz")]
    assert len({row[1:3] for row in rows}) == 4
    assert rows == in_turn(a=range(8), b=[0, 1], c=[0, 1], d="xyz")


@pytest.mark.parametrize("choose", ["pairwise", "in_turn"])
def test_the_rest_of_the_product_is_marked_full(choose):
    chosen, every = cases(choose, FACTORS, full=False), cases(choose, FACTORS, full=True)
    assert every[: len(chosen)] == chosen and not any(case.marks for case in chosen)
    assert [case.marks[0].name for case in every[len(chosen) :]] == ["full"] * (48 - len(chosen))
    rows = [case.values for case in every]
    assert all(rows.count(row) == 1 for row in product(*FACTORS.values()))


@pytest.mark.pairwise(name="ab", number=[1, 2])
def test_the_mark_gives_a_test_its_rows_on_each_backend(name, number, backend):
    assert name in "ab" and number in (1, 2) and backend.device in ("cpu", "cuda")


def test_shares_are_all_of_the_tests_and_have_none_in_common(request):
    items = request.session.items
    shares = [{item.nodeid for item in items if in_share(item.nodeid, f"{k}/3")} for k in (1, 2, 3)]
    assert set().union(*shares) == {item.nodeid for item in items} and sum(map(len, shares)) == len(items)


@pytest.mark.parametrize("share", ["0/3", "4/3", "1", "1/x", "1/0"])
def test_shares_that_cannot_be_are_refused(share):
    with pytest.raises(pytest.UsageError, match="needed is K/N with K from 1 to N, such as 3/8"):
        in_share("tests/a.py::b", share)


def test_some_of_many_cases_are_spread_over_all():
    assert list(spread(range(10, 14), 4)) == [10, 11, 12, 13] and spread(range(20), 6) == [0, 3, 7, 11, 15, 19]
    assert spread([5, 8], 6) == [5, 8]
