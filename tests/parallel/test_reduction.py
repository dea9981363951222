"""The cut of a step into shards, and their sum: one order, whoever computed them."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import Ranks
from refusals import refusal

from xpnet.parallel.communicator import Single
from xpnet.parallel.reduction import FAST, SHARDS, Reduction, check_ranks, subtrees
from xpnet.program.shards import shards_of


def tree_sum(rows):
    """The sum of rows in the order of a binary tree, written as the recursion that defines it."""
    if len(rows) == 1:
        return rows[0]
    half = 1 << (len(rows) - 1).bit_length() - 1
    return tree_sum(rows[:half]) + tree_sum(rows[half:])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8])
def test_messages_are_added_in_the_order_of_a_tree(n):
    rows = np.random.default_rng(n).normal(size=(SHARDS, 11)).astype(np.float32) ** 9

    def work(communicator):
        reduction = Reduction(communicator)
        shards, message = reduction.shards(40), np.empty(11, np.float32)
        total = reduction.over(shards, message, np)
        for _ in range(2):  # a second step finds nothing of the first
            for number in range(shards.first, shards.last):
                message[...] = rows[number]
                total.add(number)
            total.finish()
        return message, communicator.sent

    found = Ranks(n).run(work)
    for message, _ in found:
        assert message.tobytes() == tree_sum(rows).tobytes()
    if n in (
        2,
        4,
        8,
    ):  # one sum each: in a step all elements go to others twice, but the own part, as in any all-reduce
        assert sum(sent for _, sent in found) == 2 * 2 * (n - 1) * 11


def test_another_order_gives_other_bits():
    rows = np.random.default_rng(3).normal(size=(SHARDS, 11)).astype(np.float32) ** 9
    assert tree_sum(rows).tobytes() != sum(rows).tobytes()


def test_the_library_adds_where_the_reduction_is_fast():
    def work(communicator):
        reduction = Reduction(communicator, FAST)
        shards = reduction.shards(10)
        message = np.full(3, float(communicator.rank))
        total = reduction.over(shards, message, np)
        total.add(shards.first)
        total.finish()
        return shards.own(10), message.tolist()

    assert Ranks(3).run(work) == [([(0, 4)], [3.0] * 3), ([(4, 8)], [3.0] * 3), ([(8, 10)], [3.0] * 3)]


def test_shards_are_a_cut_of_the_step():
    for batch in (1, 5, 8, 20, 33):
        for n in (1, batch // 2 or 1, batch):
            for ranks in (1, 2, 3, 8):
                cut = [bounds for rank in range(ranks) for bounds in shards_of(batch, SHARDS, rank, ranks).own(n)]
                samples = [i for start, end in cut for i in range(start, end)]
                assert len(cut) == SHARDS and samples == list(range(n))
                sizes = {end - start for start, end in cut} - {0}
                assert sizes == shards_of(batch, SHARDS, 0, ranks).sizes(n)


def test_subtrees_are_the_largest_whole_ones():
    assert subtrees(0, 8) == [(0, 8)] and subtrees(4, 8) == [(4, 4)]
    assert subtrees(2, 5) == [(2, 2), (4, 1)] and subtrees(5, 8) == [(5, 1), (6, 2)] and subtrees(3, 3) == []


def test_ranks_without_work_are_refused():
    ranks = type("Many", (Single,), {"size": 9})()
    with refusal(ValueError, "9 processes", "8 shards of a step", "or take reduction='fast'"):
        check_ranks(Reduction(ranks), 100)
    with refusal(ValueError, "9 processes", "a step has 1 sample", "give more samples a step"):
        check_ranks(Reduction(ranks, FAST), 1)
    check_ranks(Reduction(ranks, FAST), 9)
