"""Models, checkpoints, runs and pickles that commit 49e9937 wrote load, predict and go on to the same numbers.

The files lie in written_by_49e9937/, where make.py says how they came about and cases.py what they are of. Bits are
asserted where no processor can round otherwise: in what is read, and at the end of runs of whole numbers, and of
one-unit networks, whose products and sums are exact or rounded but once; all else is asserted within a tolerance.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from copies import copy_files
from safetensors import safe_open
from safetensors.numpy import load_file
from written_by_49e9937 import cases

import xpnet
from xpnet.cli import main
from xpnet.network.parameters import random_generator
from xpnet.tables.stored import from_json

FILES = Path(__file__).parent / "written_by_49e9937"
EXPECTED = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning"),  # pickles of another version
]


def agree(found, expected, tolerance=0.0, where="it"):
    """Assert that two JSON values are equal, numbers within a tolerance, relative and absolute; 0 for all bits."""
    if isinstance(expected, dict):
        assert isinstance(found, dict) and list(found) == list(expected), where
        for name, value in expected.items():
            agree(found[name], value, tolerance, f"{where}[{name!r}]")
    elif isinstance(expected, list):
        assert isinstance(found, list) and len(found) == len(expected), where
        for i, value in enumerate(expected):
            agree(found[i], value, tolerance, f"{where}[{i}]")
    elif isinstance(expected, float) and tolerance:
        assert math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance), (where, found, expected)
    else:
        assert found == expected, (where, found, expected)


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases.MODELS)
def test_a_model_loads_and_predicts(name):
    layers, options, dtype = cases.MODELS[name]
    path, backend = FILES / "models" / f"{name}.safetensors", xpnet.select_backend("cpu", dtype)
    network = xpnet.Network.load(path, backend, cases.FUNCTIONS)
    stored = load_file(path)
    assert stored.keys() == {**network.parameters.named, **network.statistics}.keys()
    for key, value in {**network.parameters.named, **network.statistics}.items():
        assert value.dtype == stored[key].dtype and value.tobytes() == stored[key].tobytes()
    assert network.to_spec() == xpnet.Network(layers, backend=backend, **options).to_spec()
    agree(cases.answers(network), EXPECTED["models"][name], {"float64": 1e-12, "float32": 1e-5}[dtype])


@pytest.mark.parametrize("name", cases.MODELS)
def test_a_model_saved_again_is_the_same_file(name, tmp_path):
    path, dtype = FILES / "models" / f"{name}.safetensors", cases.MODELS[name][2]
    network = xpnet.Network.load(path, xpnet.select_backend("cpu", dtype), cases.FUNCTIONS)
    network.save(tmp_path / "m")
    assert metadata(tmp_path / "m") == metadata(path)
    same_tensors(tmp_path / "m", path)


def metadata(path):
    with safe_open(path, framework="numpy") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def same_tensors(a, b):
    one, other = load_file(a), load_file(b)
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype and value.tobytes() == other[key].tobytes(), key


# --- checkpoints -----------------------------------------------------------------------------------------------------


class Witness(xpnet.Callback):
    """Looks at a run as it is taken up, before its first step, and holds it against the checkpoint's file."""

    def __init__(self, run, path):
        self.run, self.path, self.seen = run, path, False

    def on_resume(self, history):
        run, stored, facts = self.run, load_file(self.path), metadata(self.path)["checkpoint"]
        state = run.optimizer.snapshot()
        for name, array in {"owned": run.network.owned, "state": state.state, "keys": state.keys}.items():
            assert array.dtype == stored[name].dtype and array.tobytes() == stored[name].tobytes(), name
        assert (run.optimizer.steps_done, run.optimizer.lr) == (facts["steps_done"], facts["lr"])
        assert list(history) == facts["history"]
        for number, (callback, (name, told)) in enumerate(zip(run.stateful, facts["callbacks"], strict=True)):
            found = callback.state()
            arrays = {key: found.pop(key) for key in list(found) if isinstance(found[key], np.ndarray)}
            assert (type(callback).__name__, found) == (name, told)
            for key, array in arrays.items():
                assert array.tobytes() == stored[f"callbacks.{number}.{key}"].tobytes()
        self.seen = True


@pytest.mark.parametrize("name", cases.RUNS)
def test_a_run_goes_on_from_its_checkpoint(name, tmp_path):
    kind, dtype, engine = cases.RUNS[name]
    if engine == "compiled":
        pytest.importorskip("llvmlite")
    path = Path(shutil.copy(FILES / "checkpoints" / f"{name}.safetensors", tmp_path / "run.checkpoint"))
    run, again = kind(dtype, engine), tmp_path / "again"
    witness = Witness(run, path)
    told = run(witness, xpnet.Checkpoint(again, steps=1), resume=path).told()
    assert witness.seen
    same_end(name, told)
    assert kind(dtype, engine)(resume=again).told() | {"last": told["last"]} == told  # a run that has ended
    if kind.ends_with_the_same_bits:  # also where it is begun anew
        same_end(name, kind(dtype, engine)().told())


def same_end(name, told):
    kind, dtype, _ = cases.RUNS[name]
    expected = EXPECTED["checkpoints"][name]
    if kind.ends_with_the_same_bits:  # but for the losses in the history, which are sums of more terms
        for key in ("theta", "last", "averaged", "statistics", "lr", "steps_done"):
            agree(told[key], expected[key], where=key)
    agree(told, expected, TOLERANCE[dtype])


def test_the_arguments_that_a_checkpoint_holds_a_run_to(tmp_path):
    """What a run goes on with is compared by texts, which must stay what they were; an argument of later is fp32."""
    name = "averages-float64-replay"
    kind, dtype, engine = cases.RUNS[name]
    run, again = kind(dtype, engine), tmp_path / "again"
    run(xpnet.Checkpoint(again))
    stored, found = (metadata(path)["checkpoint"] for path in (FILES / "checkpoints" / f"{name}.safetensors", again))
    since = {"precision": "fp32", "threads": None, "scale": None, "reduction": None}
    since |= {"blas_threads": found["fit"]["blas_threads"]}
    assert found["fit"] == {**stored["fit"], **since} and found["format"] == stored["format"]


# --- run directories -------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the runs and their data, in which the commands are given."""
    for folder in ("runs", "data"):
        copy_files(FILES / folder, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    return tmp_path


def command(capsys, *words):
    """Run a command that must succeed; returns what it prints and what it says."""
    capsys.readouterr()
    assert main(words) == 0, capsys.readouterr().err
    return capsys.readouterr()


def kept(run):
    """Return the records of a run, and its other texts without the folder in which the commands are given."""
    history = [json.loads(line) for line in Path(run, "history.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {path.name: path.read_text(encoding="utf-8") for path in Path(run).glob("*.json")}
    return history, {name: text.replace(f"{Path.cwd()}{os.sep}", "") for name, text in texts.items()}


def same_run(run, tolerance):
    expected = EXPECTED["runs"][run]
    network = xpnet.Network.load(Path(run, "model.safetensors"), xpnet.select_backend("cpu", "float64"))
    if tolerance == 0.0:
        agree(cases.named(network.parameters), expected["theta"])
    found = {"theta": cases.named(network.parameters), "history": cases.records(kept(run)[0])}
    agree(found, expected, tolerance or 1e-12)


def measured(capsys, run, tolerance):
    """Hold what evaluate and predict say against what they said."""
    out = command(capsys, "evaluate", run, *cases.EVALUATE[run], "--json").out
    found = [json.loads(line) for line in out.splitlines()]
    for part in found:
        part.pop("report", None)  # which nothing said then
    agree(found, EXPECTED["evaluate"][run], tolerance)
    command(capsys, "predict", run, cases.PREDICT[run], "--out", "out.csv")
    found, expected = cells(Path("out.csv").read_text(encoding="utf-8").splitlines()), cells(EXPECTED["predict"][run])
    agree(found, expected, tolerance)


def cells(lines):
    return [[float(cell) if cell[0] in "-0123456789" else cell for cell in line.split(",")] for line in lines]


@pytest.mark.parametrize("run", [name for name in cases.TRAIN if name not in cases.KILLED])
def test_a_run_that_has_ended(here, capsys, run):
    measured(capsys, run, 1e-5)
    before = kept(run)
    shutil.copytree(run, "before")
    assert "nothing is left to train" in command(capsys, "train", "--resume", run, "--quiet").err
    assert kept(run) == before
    for name in ("model", "checkpoint"):
        same_tensors(f"before/{name}.safetensors", f"{run}/{name}.safetensors")
    if run in cases.MORE_EPOCHS:
        command(capsys, "train", "--resume", run, "--epochs", cases.MORE_EPOCHS[run], "--quiet")
        same_run(run, 1e-4)


@pytest.mark.parametrize("run", cases.KILLED)
def test_a_run_that_was_killed(here, capsys, run):
    assert sorted(path.stem for path in Path(run).glob("*.safetensors")) == ["checkpoint"]
    configs = kept(run)[1]
    epoch, step = cases.KILLED[run]
    err = command(capsys, "train", "--resume", run, "--quiet").err
    assert f"{run} continues with epoch {epoch}, after step {step}" in err
    is_exact = run == "numbers"
    same_run(run, 0.0 if is_exact else 1e-4)
    assert kept(run)[1] == configs  # table.json too
    measured(capsys, run, 1e-8 if is_exact else 1e-4)


@pytest.mark.parametrize("run", cases.TRAIN)
def test_a_run_is_repeated_by_its_config(here, capsys, run):
    command(capsys, "train", "--config", f"{run}/config.json", "--out", "again", "--quiet")
    (found, texts), (expected, expected_texts) = kept("again"), kept(run)
    configs = [json.loads(text.pop("config.json")) for text in (texts, expected_texts)]
    for config in configs:
        del config["versions"], config["xpnet"]
        config.pop("machine", None)
    added, expected_config = configs[0], configs[1]
    for name, value in {"precision": "fp32", "split": "last", "dropout": [0.0], "patience": 0, "ensemble": 1}.items():
        expected_config["options"].setdefault(name, value)  # what options that came later did then
    ends_with = "best" if expected_config["options"]["patience"] else "last"
    expected_config["options"]["end-with"] = ends_with
    expected_config["data"]["split"] = {"kind": "last", "n_held_out": expected_config["data"]["n_validation"]}
    expected_config["data"]["split"] |= {"seed": added["seed"], "column": None}
    added["data"].pop("reading", None)  # how a table was read
    for config in configs:
        config["data"] = {name: value for name, value in config["data"].items() if value is not None}
    assert configs[0] == configs[1] and texts.keys() == expected_texts.keys()
    for name, text in texts.items():  # table.json, of the format of today
        now, before = (from_json(each) for each in (text, expected_texts[name]))
        columns = [
            replace(each, fill=old.fill) if hasattr(each, "fill") else each
            for each, old in zip(now.columns, before.columns, strict=True)
        ]
        assert (tuple(columns), now.target) == (before.columns, replace(before.target, styles=now.target.styles))
    agree(cases.records(found)[: len(expected)], cases.records(expected), 1e-4)


# --- pickles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def orders_of_0_1(monkeypatch):
    """The estimators draw the orders of xpnet 0.1, whose seeds were drawn first; now they draw scikit-learn's."""

    class Drawn(np.random.RandomState):
        def __init__(self, seed):
            super().__init__(seed)
            self.order_seed = self.randint(2**31 - 1)

    for module in ("base", "together"):  # of partial_fit and of fit
        monkeypatch.setattr(f"xpnet.estimators.{module}.check_random_state", Drawn)
    monkeypatch.setattr("xpnet.estimators.fitting.ScikitOrders", lambda rng: random_generator(rng.order_seed, 1))


@pytest.mark.parametrize("name", EXPECTED["estimators"])
def test_an_estimator_says_what_it_said_and_goes_on(name, orders_of_0_1):
    model = pickle.loads((FILES / "pickles" / f"{name}.pickle").read_bytes())
    expected = EXPECTED["estimators"][name]
    found = cases.said(model)
    agree(found["theta"], expected["now"]["theta"], where=name)
    last = model[-1] if hasattr(model, "steps") else model
    tolerance = {"float64": 1e-12, "float32": 1e-5}[str(last.network_.backend.dtype)]
    agree(found, expected["now"], tolerance, name)
    if name not in cases.GO_ON:
        return
    cases.GO_ON[name](model)
    found = cases.said(model)
    if name in cases.END_WITH_THE_SAME_BITS:
        agree(found["theta"], expected["then"]["theta"], where=name)
    for facts in (found, expected["then"]):  # partial_fit told its loss without the penalty of alpha
        del facts["loss"], facts["loss_curve"]
    agree(found, expected["then"], TOLERANCE[str(last.network_.backend.dtype)], name)
