"""Every public object through copy, deepcopy, pickle and the pickles of joblib's processes."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle

import numpy as np
import pandas
import pandas as pd
import pytest
from tables.learning import learn

import xpnet
from xpnet import Dataset, Network
from xpnet.engines.choice import make_engine
from xpnet.tables.options import ColumnOptions
from xpnet.tables.preprocessing import fit
from xpnet.tables.splitting import Split
from xpnet.tables.table import Reading
from xpnet.tables.tasks import fit_target

try:
    import cloudpickle  # which joblib 1.6 depends on
except ImportError:  # and those before have in them
    from joblib.externals import cloudpickle

WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: cloudpickle.loads(cloudpickle.dumps(value)),
}
each_way = pytest.mark.parametrize("way", WAYS)


def twice(xp, Z, out):
    xp.multiply(Z, 2.0, out=out)


def twice_backward(xp, A, dA, out):
    xp.multiply(dA, 2.0, out=out)


def square(xp, A, Y, L, dA, work):
    xp.subtract(A, Y, out=dA)
    xp.multiply(dA, dA, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, 0.5, out=L)


def data(n=24):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3, n))
    return Dataset.from_labels(X, (X[0] > 0).astype(int), weights=rng.random(n) + 0.5)


def trained(epochs=2):
    """A network with all that it can hold, and an optimizer that has been used."""
    backend = xpnet.select_backend("cpu", "float64")
    network = Network([3, 5, 2], dropout=0.2, normalization="batch", backend=backend)
    optimizer = xpnet.Adam(xpnet.Cosine(0.05, 40), ema=0.9, l2_summed=0.1)
    xpnet.train(network, data(), optimizer, epochs=epochs, batch_size=8)
    return network, optimizer


def table_model():
    frame = pandas.DataFrame({"size": [1.0, 2.0, 4.0], "price": [3.0, 1.0, 2.0]})
    table = fit(frame, fit_target(frame, ["price"], ColumnOptions()))
    return xpnet.TableModel(Network([1, 1], loss="squared_error", device="cpu"), table)


def instances():
    """An instance of each public class that has any, by the class's name."""
    network, optimizer = trained()
    schedule = {
        "lr": 0.1,
        "total_steps": 9,
        "factor": 0.5,
        "every": 3,
        "steps": 3,
        "after": xpnet.Constant(0.1),
        "power": 0.5,
    }
    made = {
        "Activation": xpnet.Activation("relu"),
        "Backend": network.backend,
        "BackendUnavailable": xpnet.BackendUnavailable("none"),
        "BatchNorm": xpnet.BatchNorm(3),
        "Budget": xpnet.Budget(steps=3),
        "Callback": xpnet.Callback(),
        "Checkpoint": xpnet.Checkpoint("run.checkpoint"),
        "CustomActivation": xpnet.CustomActivation("twice", twice, twice_backward),
        "CustomLoss": xpnet.CustomLoss("square", square),
        "Dataset": data(),
        "Dense": xpnet.Dense(3, 2),
        "DeviceFull": xpnet.DeviceFull("the run needs more"),
        "Dropout": xpnet.Dropout(0.2),
        "EarlyStopping": xpnet.EarlyStopping(3),
        "History": xpnet.History([{"epoch": 0}]),
        "HistoryFile": xpnet.HistoryFile("history.jsonl"),
        "Huber": xpnet.Huber(2.0),
        "KeepBest": xpnet.KeepBest(),
        "LayerNorm": xpnet.LayerNorm(3),
        "Network": network,
        "RateSearch": xpnet.find_lr(network, data(), xpnet.SGD(), n_steps=12, batch_size=8),
        "ReduceOnPlateau": xpnet.ReduceOnPlateau(xpnet.SGD()),
        "SigmoidCrossEntropy": xpnet.SigmoidCrossEntropy(),
        "SoftmaxCrossEntropy": xpnet.SoftmaxCrossEntropy(0.1),
        "TableModel": table_model(),
        "StopAtScore": xpnet.StopAtScore(0.9),
        "TrainingDiverged": xpnet.TrainingDiverged("far", "go back"),
    }
    for name in xpnet.__all__:
        kind = getattr(xpnet, name)
        if name in ("MLflow", "TensorBoard"):  # made only where their libraries are, in a job of their own
            continue
        if inspect.isclass(kind) and name not in made and not inspect.isabstract(kind):
            wanted = inspect.signature(kind).parameters.values()
            made[name] = kind(*(schedule[p.name] for p in wanted if p.default is p.empty and p.kind != p.VAR_KEYWORD))
    for name, value in list(made.items()):
        if isinstance(value, xpnet.Optimizer):  # used ones
            xpnet.train(network, data(), value, epochs=1, batch_size=8)
            made[f"a used {name}"] = value
    return made | {
        "a program": network.training_program(8, optimizer, True),
        "parameters": network.parameters,
        "an architecture": network.architecture,
        "weights": network.parameters.weights,
        "a plateau of a used optimizer": xpnet.ReduceOnPlateau(xpnet.SGD()),
        **xpnet.metrics.METRICS,
    }


def of_tables():
    """What understands the columns of a table, and what is known of a table and of its split."""
    n = np.arange(12)
    frame = pd.DataFrame({"a": n * 1.5, "b": np.resize(["x", "y"], 12), "t": pd.date_range("2024-01-31", periods=12)})
    frame["y"] = np.where(n % 3, "no", "yes")
    table = learn(frame)
    return [table, table.target, *table.columns, Reading(separator=";"), Split("shuffle", 3, 7), ColumnOptions()]


def test_what_is_known_of_a_table_is_copied_every_way():
    made = of_tables()
    assert {type(value).__name__ for value in made} >= {"Preprocessing", "Target", "Numeric", "Category", "Date"}
    for value in made:
        for way, copied in WAYS.items():
            assert copied(value) == value, way


@each_way
def test_callbacks_that_have_watched_watch_on_as_copies(way, tmp_path):
    """Each keeps what it has seen, and still says that it only watches."""
    network = trained()[0]
    kept = [xpnet.KeepBest(), xpnet.EarlyStopping(3), xpnet.Budget(steps=99), xpnet.ReduceOnPlateau(xpnet.SGD())]
    kept += [xpnet.Checkpoint(tmp_path / "c"), xpnet.HistoryFile(tmp_path / "h"), xpnet.StopAtScore(2.0, "val_loss")]
    xpnet.train(network, data(), xpnet.SGD(), epochs=2, batch_size=8, validation=data(), callbacks=kept)
    for callback in kept:
        found = WAYS[way](callback)
        assert found.only_watches == callback.only_watches == (not isinstance(callback, xpnet.ReduceOnPlateau))
        states = [each.state() | {"spent": 0} for each in (found, copy.deepcopy(callback))]  # a clock goes on
        assert pickle.dumps(states[0]) == pickle.dumps(states[1])


def test_every_public_object_is_copied_every_way():
    made = instances()
    public = {name for name in xpnet.__all__ if inspect.isclass(getattr(xpnet, name))}
    assert public - {"Optimizer", "Schedule", "MLflow", "TensorBoard"} <= made.keys()
    for name, value in made.items():
        for way, copied in WAYS.items():
            found = copied(value)
            assert type(found) is type(value), (name, way)
            assert repr(found) == repr(value) or " at 0x" in repr(value), (name, way)


@each_way
def test_a_copied_network_is_one_and_is_apart(way, tmp_path):
    network, _ = trained()
    X = data().X
    before, engine = (
        network.predict(X),
        make_engine(network.training_program(8, None, False), network.backend, network.owned),
    )
    found = WAYS[way](network)
    np.testing.assert_array_equal(found.predict(X), before)
    assert np.shares_memory(found.owned, found.parameters.flat)
    for name, view in {**found.parameters.named, **found.statistics}.items():
        assert np.shares_memory(found.owned, view) and not np.shares_memory(network.owned, view), name
    found.save(tmp_path / "model.safetensors")
    loaded = Network.load(tmp_path / "model.safetensors", network.backend)
    np.testing.assert_array_equal(loaded.predict(X), before)
    xpnet.train(found, data(), xpnet.SGD(0.5), epochs=1, batch_size=8)
    np.testing.assert_array_equal(network.predict(X), before)
    assert abs(found.predict(X) - before).max() > 1e-3
    found.save(tmp_path / "model.safetensors")  # what it has in memory, it writes
    loaded = Network.load(tmp_path / "model.safetensors", network.backend)
    np.testing.assert_array_equal(loaded.predict(X), found.predict(X))
    assert np.shares_memory(engine.memory.owned, network.owned)
    assert found.inputs == network.inputs and found.inputs is not None


@each_way
def test_copied_parameters_stay_in_one_vector(way):
    network, _ = trained()
    found = WAYS[way](network.parameters)
    found.weights[0][...] = 7.0
    assert found.flat[0] == found.named["layers.0.W"][0, 0] == 7.0
    assert (network.parameters.flat[0] == 7.0) == (way == "copy")  # a copy of the outside alone


@pytest.mark.in_turn(way=list(WAYS), steps=[False, True])
def test_a_network_goes_on_with_its_copied_optimizer(way, steps):
    """To the bit, schedule, averages and masks of dropout too."""

    def go_on(network, optimizer):
        if steps:
            for part in (slice(0, 8), slice(8, 24)):
                xpnet.step(network, optimizer, data().X[:, part], data().Y[:, part].astype(float))
        else:
            xpnet.train(network, data(), optimizer, epochs=2, batch_size=8)
        return [network.owned, optimizer.averaged(network).flat, optimizer.snapshot().state, optimizer.steps_done]

    network, optimizer = trained()
    if steps:
        xpnet.step(network, optimizer, data().X, data().Y.astype(float))
    pair = {"callback": xpnet.ReduceOnPlateau(xpnet.SGD()), "o": optimizer, "n": network}
    found = WAYS["deepcopy" if way == "copy" else way](pair)
    copied = (network, copy.copy(optimizer)) if way == "copy" else (found["n"], found["o"])
    gc.collect()
    if way == "copy":  # the same network: it goes on from here with either
        kept = network.owned.copy(), network.step_keys
        expected = [np.copy(item) for item in go_on(network, optimizer)]
        network.owned[...], network.step_keys = kept
    else:
        expected = go_on(network, optimizer)
    for one, other in zip(go_on(*copied), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@each_way
def test_an_optimizer_copied_alone_starts_fresh_with_another_network(way):
    _, optimizer = trained()
    found = WAYS[way](optimizer)
    network, other = Network([3, 2], backend=xpnet.select_backend("cpu", "float64")), xpnet.Adam(0.05, l2_summed=0.1)
    twin = copy.deepcopy(network)
    found.lr = 0.05
    for trained_one, used in ((network, found), (twin, other)):
        xpnet.train(trained_one, data(), used, epochs=1, batch_size=8)
    np.testing.assert_array_equal(network.owned, twin.owned)


@each_way
def test_a_copied_program_runs_for_every_batch(way):
    network, optimizer = trained()
    found = WAYS[way](network.training_program(8, optimizer, True, seed=3))
    assert found.at(5).describe() == network.training_program(8, optimizer, True, seed=3).at(5).describe()


@each_way
def test_a_copied_data_set_cannot_be_written(way):
    found = WAYS[way](data())
    for array in (found.X, found.Y, found.weights):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_what_lay_on_a_gpu_comes_back_on_the_cpu_where_there_is_none(fake_gpu):
    network = Network([3, 2], backend=fake_gpu)
    text = pickle.dumps(network)
    with pytest.warns(UserWarning, match="pickled on a GPU continues on the CPU"):
        found = pickle.loads(text)
    assert found.backend.device == "cpu" and found.backend.dtype == fake_gpu.dtype
    np.testing.assert_array_equal(found.owned, fake_gpu.to_host(network.owned))
    copied = copy.deepcopy(network)
    assert copied.backend is fake_gpu
    np.testing.assert_array_equal(fake_gpu.to_host(copied.owned), fake_gpu.to_host(network.owned))
