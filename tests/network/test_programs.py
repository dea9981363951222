"""The page that shows a recorded step shows what is recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import xpnet
from xpnet.cli import main
from xpnet.network import programs

ROOT = Path(__file__).parents[2]
INSIDE = ROOT / "ci/guide/inside.md"


def recorded():
    """What `describe` prints of the 2-3-1 network, without operations and bytes."""
    network = xpnet.Network([2, 3, 1], activation="tanh", loss="squared_error", backend=xpnet.select_backend("cpu"))
    lines = network.training_program(4, xpnet.SGD(), False).describe().splitlines()[1:-1]
    return [re.sub(r"\s+[\d,]+ flop\s+[\d,]+ bytes$", "", line) for line in lines]


def test_the_docstring_shows_the_program_of_a_small_network():
    shown = [line.removeprefix("    ") for line in programs.__doc__.splitlines() if line.startswith("    ")]
    assert shown == recorded()


@pytest.mark.parametrize("page", [ROOT / "README.md", INSIDE], ids=lambda page: page.stem)
def test_a_page_shows_its_beginning_and_its_end(page):
    (shown,) = re.findall(r"^```text\n(phase gradient.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    begin, _, end = shown.partition("...\n")
    printed = "\n".join(recorded()) + "\n"
    assert begin in printed and printed.endswith(end) and begin.count("\n") > 5 < end.count("\n") + 1


def test_the_guide_shows_launches_and_units_as_they_are_printed(capsys):
    network = ["--layers", "2,3,1", "--activation", "tanh", "--loss", "squared_error", "--batch-size", "4"]
    assert main(["describe", *network, "--show", "launches,plan"]) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = re.findall(r"^```text\n((?:---|  1  ).*?)^```$", INSIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(shown) == 2
    for line in "".join(shown).splitlines():
        assert line == "..." or any(each.startswith(line.removesuffix(" ...")) for each in printed), line


def program(optimizer, seed=0, activation="tanh", **options):
    options |= {"activation": activation, "loss": "squared_error", "backend": xpnet.select_backend("cpu")}
    network = xpnet.Network([2, 3, 1], **options)
    return network.training_program(4, optimizer, False, seed)


def test_networks_of_equal_architectures_share_their_programs():
    first = program(xpnet.Adam(0.1, l2_summed=0.5))
    assert program(xpnet.Adam(0.2, l2_summed=0.1), seed=1) is first and first.at(3) is first.at(3)
    others = [program(xpnet.Adam(beta1=0.5, l2_summed=0.5)), program(xpnet.Adam()), program(xpnet.Momentum())]
    others += [program(xpnet.Adam(l2_summed=0.5), seed, dropout=0.5) for seed in (0, 1)]
    assert len({id(one) for one in (first, *others)}) == 6


def test_kernels_of_the_users_which_may_change_are_recorded_each_time():
    slope = 0.5

    def line(xp, Z, out):
        xp.multiply(Z, slope, out=out)

    def line_backward(xp, A, dA, out):
        xp.multiply(dA, slope, out=out)

    own = xpnet.CustomActivation("line", line, line_backward)
    before = program(xpnet.SGD(), activation=own)
    slope = 0.125
    assert "A1 = Z1 * 0.5 " in before.describe()
    assert "A1 = Z1 * 0.125 " in program(xpnet.SGD(), activation=own).describe()

    class Halved(xpnet.SGD):
        def _rule(self, update):
            update.xp.multiply(update.gradient, slope, out=update.gradient)
            super()._rule(update)

    assert program(Halved()) is not program(Halved())
