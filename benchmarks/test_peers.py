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

from peers import drawn, picture, report
from peers.__main__ import main
from peers.systems import SYSTEMS, load
from peers.turns import ROOT, disagreement, measure
from peers.worker import Job
from peers.works import KEPT, WORKS, Work, make_data, reference

QUICK = {"rounds": 1, "seconds": 0.001, "threads": 1, "pause": 0.0}
INSTALLED = ("xpnet", "xpnet-calls", "numpy-plain", "numpy-inplace")


def worker(system, before=""):
    """The command line of a worker that runs the statement `before` first."""
    text = f"import sys; {before}\nfrom benchmarks.peers.worker import main\nmain({system!r}, 'cpu')"
    return [sys.executable, "-c", text]


def peers(*arguments):
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_command_measures_and_prints_its_file_again(tmp_path):
    out = tmp_path / "peers.json"
    run = peers(
        "--works",
        "3,5",
        "--systems",
        ",".join(INSTALLED),
        "--rounds",
        "1",
        "--seconds",
        "0.001",
        "--threads",
        "1",
        "--out",
        str(out),
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(out.read_text(encoding="utf-8"))
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


@pytest.mark.full
def test_the_losses_that_are_kept_are_those_of_the_reference():
    for work, losses in KEPT.items():
        assert reference(work, make_data(work)) == pytest.approx(losses, rel=1e-9)


@pytest.mark.parametrize("key", [key for key in WORKS if key not in (7, 10)])  # a float64 step of those takes long
def test_checked_steps_change_the_loss_so_that_agreement_means_something(key):
    losses = reference(WORKS[key], make_data(WORKS[key]))
    assert losses["loss_after"] < 0.98 * losses["loss_before"]


def test_the_picture_has_a_point_a_system_and_work(tmp_path, monkeypatch, capsys):
    file, axes = ROOT / "benchmarks/results/peers-amd-epyc-2-cores.json", []
    monkeypatch.setattr(plots, "save", lambda ax, path: axes.append((ax, path)))
    assert main(["--table", str(file), "--plot", str(tmp_path / "peers.png")]) == 0
    ((ax, path),) = axes
    results = json.loads(file.read_text(encoding="utf-8"))
    assert ax.figure.get_figheight() == 0.75 * len(results["works"]) > 5.5
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
        "from dataclasses import replace; from benchmarks.peers import worker; real = worker.Work.of_json; "
        "worker.Work.of_json = lambda fields: replace(real(fields), **({'lr': 1.0} if fields['batch'] == 1 else {}))"
    )
    diverges = "from benchmarks.peers.systems.numpy_plain import System; System.run = lambda *_: float('nan')"
    raises = "from benchmarks.peers import worker; worker.Job.turn = None"
    commands = {
        "xpnet": worker("xpnet"),
        "dies": worker("numpy-plain", ends),
        "raises": worker("numpy-plain", raises),
        "diverges": worker("numpy-plain", diverges),
        "learns differently": worker("numpy-plain", wrong),
        "torch": worker("torch", "sys.modules['torch'] = None"),
    }
    results = measure(commands, {"3": WORKS[3], "4": WORKS[4]}, **QUICK)
    assert results["left_out"] == {"torch": "torch is not installed"}
    for key, work in results["works"].items():
        failed = {name: said["failed"] for name, said in work["systems"].items() if "failed" in said}
        assert failed["dies"] == "the worker ended with 3: out of memory"
        assert failed["raises"].startswith("TypeError")
        assert failed["diverges"] == "ArithmeticError: the loss is nan after 1 steps"
        assert ("learns differently" in failed) == (key == "3")
        assert work["systems"]["xpnet"]["seconds"]
    assert "the float64 reference has" in results["works"]["3"]["systems"]["learns differently"]["failed"]
    machine = {"date": "today", "cpu": "a CPU", "cores": 2, "system": "an OS", "blas": "a BLAS", "versions": {}}
    text = report.tables({"machine": machine, "settings": QUICK, **results})
    assert "- left out: torch, torch is not installed" in text
    assert "- work 4: dies failed: the worker ended with 3: out of memory" in text


def test_the_picture_has_room_for_works_drawn_at_random(tmp_path, monkeypatch):
    times = {"xpnet": {"seconds": [1.0]}, "jax": {"seconds": [2.0]}}
    names = ["5-3-2 tanh, softmax cross-entropy, batch 7"] * 12
    results = {
        "machine": {"cpu": "a CPU"},
        "settings": {"threads": 1},
        "works": {f"r{i}": {"name": name, "systems": times} for i, name in enumerate(names)},
    }
    axes = []
    monkeypatch.setattr(plots, "save", lambda ax, path: axes.append(ax))
    picture.draw(results, tmp_path / "peers.png")
    (ax,) = axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["5-3-2\nbatch 7"] * 12
    assert ax.figure.get_figheight() == 9
    assert [ax.xaxis.get_major_formatter()(value) for value in (0.1, 1, 100, 1000)] == ["0.1", "1", "100", "1,000"]


def test_drawn_works_are_the_seeds_and_can_be_checked(monkeypatch):
    monkeypatch.setattr(drawn, "MOST_FLOPS", 3e5)  # small ones, so that this is quick
    works = drawn.draw(5, seed=5)
    assert list(works) == [f"r{i}" for i in range(1, 6)]
    assert drawn.draw(2, seed=5) == {key: works[key] for key in ("r1", "r2")}
    assert drawn.draw(1, seed=6)["r1"] != works["r1"]
    for work in works.values():
        *widths, n_outputs = work.sizes
        assert 2 <= len(widths) <= 5 and all(2 <= width <= 1024 for width in widths)
        assert 1 <= n_outputs <= 50 and 1 <= work.batch <= 256
        products = sum(n_in * n_out for n_in, n_out in zip(work.sizes, work.sizes[1:], strict=False))
        assert 4 * work.batch * products <= 3e5  # at least two products a layer
        losses = reference(work, make_data(work))
        assert losses["loss_after"] < 0.99 * losses["loss_before"]
        assert work.origin == "drawn with seed 5"


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error"])
@pytest.mark.parametrize("hidden", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("name", INSTALLED)
def test_every_kind_of_drawn_work_agrees_with_the_reference(name, hidden, loss):
    output = "sigmoid" if (hidden, loss) == ("sigmoid", "squared_error") else "identity"
    work = Work((5, 7, 4, 3), hidden, output, loss, batch=6, lr=0.1, origin="here")
    wanted = reference(work, make_data(work))
    assert wanted["loss_after"] < 0.99 * wanted["loss_before"]
    assert disagreement(Job(load(name), work, 0.001, 1, "cpu").answer, wanted, strictness=10.0) is None


def test_xpnet_is_the_engine_of_a_long_run_and_xpnet_calls_is_replay(monkeypatch):
    pytest.importorskip("llvmlite")
    data = make_data(WORKS[3])
    systems = {name: load(name)(WORKS[3], data, 1, "cpu") for name in ("xpnet", "xpnet-calls")}
    assert {name: system.cost()["engine"] for name, system in systems.items()} == {
        "xpnet": "Compiled",
        "xpnet-calls": "Replay",
    }
    assert "llvmlite" in systems["xpnet"].versions()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert load("xpnet")(WORKS[3], data, 1, "cpu").cost()["engine"] == "Replay"


def test_first_steps_begin_with_empty_code_caches_and_again_with_what_the_first_left():
    counts_files = """import os, pathlib
from benchmarks.peers import worker
def first_step(*_):
    folder = pathlib.Path(os.environ['XPNET_CACHE'])
    folder.mkdir(parents=True, exist_ok=True)
    count = len(list(folder.iterdir()))
    (folder / str(count)).touch()
    return 1000.0 * count
worker.first_step = first_step"""
    raises = "from benchmarks.peers import worker; worker.first_step = None"
    commands = {"counts": worker("numpy-plain", counts_files), "raises": worker("numpy-plain", raises)}
    results = measure(commands, {"3": WORKS[3]}, **QUICK, first_steps=2)
    systems = results["works"]["3"]["systems"]
    assert systems["raises"]["failed"].startswith("the first step of a new process: TypeError")
    times = systems["counts"]["first_step"]
    assert [len(times[kind]) for kind in ("cold", "again")] == [2, 2]
    for kind, least in (("cold", 0.0), ("again", 1000.0)):
        assert all(least < one["imported"] < one["started"] < least + 100.0 for one in times[kind])


def test_command_times_works_drawn_at_random_and_first_steps():
    run = peers(
        "--works",
        "3",
        "--random",
        "1",
        "--random-seed",
        "17",
        "--systems",
        "xpnet",
        "--rounds",
        "1",
        "--seconds",
        "0.001",
        "--threads",
        "1",
        "--first-steps",
        "1",
    )
    assert run.returncode == 0, run.stderr
    (work,) = drawn.draw(1, seed=17).values()
    assert run.stdout.count(f"| r1. {work} |") == run.stdout.count(f"| 3. {WORKS[3]} |") == 4
    assert "from the library's import" in run.stdout and "from the start of the process" in run.stdout


def test_tables_name_the_best_peer_and_tell_first_steps_in_milliseconds():
    cold, again = ({"started": 2.0 * since, "imported": since} for since in (0.4, 0.1))
    systems = {
        "xpnet": {"seconds": [1.0, 2.0, 4.0], "first_step": {"cold": [cold], "again": [again]}, "engine": "E"},
        "numpy-inplace": {"seconds": [0.1, 0.1, 0.1]},
        "torch": {"seconds": [9.0, 8.0, 7.0]},
        "jax": {"seconds": [2.0, 6.0, 8.0]},
        "sklearn": {"failed": "it did"},
    }
    works = {"r1": {"name": "a shape", "systems": systems, "limits": []}}
    machine = {"date": "today", "cpu": "a CPU", "cores": 2, "system": "an OS", "blas": "a BLAS", "versions": {}}
    results = {"machine": machine, "settings": QUICK, "works": works, "left_out": {}}
    text = report.tables(results)
    assert "| 2.00 (2.00 to 2.50) | failed | jax: 2.00 (2.00 to 2.50) |" in text
    assert "| r1. a shape | 400 (100) |" in text and "| r1. a shape | 800 (200) |" in text
    assert "xpnet's engine is E" in text
    assert report.best_peer({"systems": {"xpnet": {"seconds": [1.0]}, "numpy-plain": {"seconds": [1.0]}}}) is None


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
        (["--random", "-1"], "not a whole number of at least 0"),
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


def test_the_picture_of_epochs_has_what_was_measured(monkeypatch, capsys):
    file, axes = ROOT / "benchmarks/results/epochs-amd-epyc-2-cores.json", []
    monkeypatch.setattr(plots, "save", lambda ax, path: axes.append(ax))
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import epochs

    monkeypatch.setattr(sys, "argv", ["epochs", "--table", str(file), "--plot", "epochs.png"])
    assert epochs.main() == 0
    (ax,) = axes
    results = json.loads(file.read_text(encoding="utf-8"))
    assert capsys.readouterr().out.splitlines()[2].startswith("| 784-15-10 (50, 50) | ")
    times = next(iter(results["microseconds"].values()))
    for container, name in zip(ax.containers, epochs.DRAWN, strict=True):
        assert container.lines[0].get_xdata()[0] == report.ratio(times[name], times["compiled"])[0]
    assert ax.get_yticklabels()[5].get_text() == "20-64-64-1\n10,000 samples, batch 256"
