"""The comparison with other systems: it checks what it times, and says what it could not time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from xpnet import plots

if str(Path(__file__).parent) not in sys.path:  # pytest's importlib mode does not put it there
    sys.path.insert(0, str(Path(__file__).parent))

from peers import report
from peers.__main__ import main
from peers.systems import SYSTEMS
from peers.turns import ROOT, disagreement, measure
from peers.works import WORKS, make_data, reference

QUICK = {"rounds": 1, "seconds": 0.001, "threads": 1, "pause": 0.0}
INSTALLED = ("xpnet", "numpy-plain", "numpy-inplace")


def worker(system, before=""):
    """The command line of a worker that runs the statement `before` first."""
    text = f"import sys; {before}\nfrom benchmarks.peers.worker import main\nmain({system!r}, 'cpu')"
    return [sys.executable, "-c", text]


def peers(*arguments):
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_command_measures_and_prints_its_file_again(tmp_path):
    out = tmp_path / "peers.json"
    run = peers("--works", "3,5", "--systems", ",".join(INSTALLED), "--rounds", "1", "--seconds", "0.001",
                "--threads", "1", "--out", str(out))  # fmt: skip
    assert run.returncode == 0, run.stderr
    results = json.loads(out.read_text())
    for key in ("3", "5"):
        systems = results["works"][key]["systems"]
        assert list(systems) == list(INSTALLED)
        assert all(len(said["seconds"]) == 1 and said["seconds"][0] > 0 for said in systems.values())
        wanted = reference(WORKS[int(key)], make_data(WORKS[int(key)]))
        for said in systems.values():
            assert {name: said[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
        (limits,) = results["works"][key]["limits"]
        assert limits["flops"] > 0 and limits["bytes"] > 0 and systems["xpnet"]["flops"] > 0
        share = 100 * systems["xpnet"]["flops"] / systems["xpnet"]["seconds"][0] / limits["flops"]
        assert f"| {share:.1f}% ({share:.1f}% to {share:.1f}%) |" in run.stdout
    assert {"date", "cpu", "cores", "system", "blas", "versions"} <= set(results["machine"])
    for key in (3, 5):
        assert run.stdout.count(f"| {key}. {WORKS[key]} |") == 2  # once with times, once with ratios
    assert peers("--table", str(out)).stdout == run.stdout


@pytest.mark.parametrize("key", [key for key in WORKS if key not in (7, 10)])  # a float64 step of those takes long
def test_checked_steps_change_the_loss_so_that_agreement_means_something(key):
    losses = reference(WORKS[key], make_data(WORKS[key]))
    assert losses["loss_after"] < 0.98 * losses["loss_before"]


def test_the_picture_has_a_point_a_system_and_work(tmp_path, monkeypatch, capsys):
    file, axes = ROOT / "benchmarks/results/peers-amd-epyc-2-cores.json", []
    monkeypatch.setattr(plots, "save", lambda ax, path: axes.append((ax, path)))
    assert main(["--table", str(file), "--plot", str(tmp_path / "peers.png")]) == 0
    ((ax, path),) = axes
    results = json.loads(file.read_text())
    assert path == tmp_path / "peers.png" and len(ax.get_yticks()) == len(results["works"])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["PyTorch", "torch.compile", "scikit-learn", "JAX, jit", "JAX, scan"]
    first = results["works"]["1"]["systems"]
    middle = report.ratio(first["torch"]["seconds"], first["xpnet"]["seconds"])[0]
    assert ax.containers[0].lines[0].get_xdata()[0] == middle
    with pytest.raises(SystemExit):
        main(["--plot", "alone.png"])
    assert "give both" in capsys.readouterr().err


def test_whatever_cannot_be_timed_is_named():
    ends = "import os; print('out of memory', file=sys.stderr); os._exit(3)"
    wrong = (
        "import dataclasses; from benchmarks.peers.works import WORKS; WORKS[3] = dataclasses.replace(WORKS[3], lr=1)"
    )
    raises = "from benchmarks.peers import worker; worker.Job.turn = None"
    commands = {
        "xpnet": worker("xpnet"),
        "dies": worker("numpy-plain", ends),
        "raises": worker("numpy-plain", raises),
        "learns differently": worker("numpy-plain", wrong),
        "torch": worker("torch", "sys.modules['torch'] = None"),
    }
    results = measure(commands, [3, 4], **QUICK)
    assert results["left_out"] == {"torch": "torch is not installed"}
    for key, work in results["works"].items():
        failed = {name: said["failed"] for name, said in work["systems"].items() if "failed" in said}
        assert failed["dies"] == "the worker ended with 3: out of memory"
        assert failed["raises"].startswith("TypeError")
        assert ("learns differently" in failed) == (key == "3")
        assert work["systems"]["xpnet"]["seconds"]
    assert "the float64 reference has" in results["works"]["3"]["systems"]["learns differently"]["failed"]
    machine = {"date": "today", "cpu": "a CPU", "cores": 2, "system": "an OS", "blas": "a BLAS", "versions": {}}
    text = report.tables({"machine": machine, "settings": QUICK, **results})
    assert "- left out: torch, torch is not installed" in text
    assert "- work 4: dies failed: the worker ended with 3: out of memory" in text


def test_ratio_is_the_median_of_the_rounds_ratios():
    # ratios 2, 4, 1, 3, 5: not the ratio of the medians, 6 / 2
    system, base = [2.0, 4.0, 6.0, 9.0, 10.0], [1.0, 1.0, 6.0, 3.0, 2.0]
    assert report.ratio(system, base) == (3.0, 2.0, 4.0)
    assert report.ratio([6.0], [2.0]) == (3.0, 3.0, 3.0)


def test_losses_that_are_not_numbers_disagree():
    wanted = {"loss_sum": 2.0, "loss_before": 1.0, "loss_after": 0.5}
    assert disagreement(wanted, wanted) is None
    assert disagreement({}, wanted) is None  # a system with weights of its own
    assert "loss_after" in disagreement({**wanted, "loss_after": float("nan")}, wanted)
    assert "loss_sum" in disagreement({**wanted, "loss_sum": 2.003}, wanted)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--works", "11"], "'11' is none of 1, 2, 3"),
        (["--systems", "numpy"], f"'numpy' is none of {', '.join(SYSTEMS)}"),
        (["--rounds", "0"], "not a whole number of at least 1"),
        (["--seconds", "nan"], "not a number of seconds above 0"),
        (["--threads", "100000"], "cores"),
        (["--out", "nowhere/peers.json"], "there is no directory nowhere"),
        (["--table", "nowhere.json"], "nowhere.json is not a file that --out wrote"),
    ],
)
def test_mistakes_are_answered_in_a_line(arguments, said, capsys):
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse's way
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err
