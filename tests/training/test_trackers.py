"""What the callbacks TensorBoard and MLflow write, read back by these libraries; and what is said without them."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet import SGD, Checkpoint, Dataset, Network

RNG = np.random.default_rng(0)
DATASET = Dataset(RNG.standard_normal((3, 40)), RNG.standard_normal((1, 40)))


def network():
    return Network([3, 4, 1], loss="squared_error", device="cpu")


def trained(callback, **options):
    return xpnet.train(network(), DATASET, SGD(0.1), epochs=3, callbacks=[callback], **options)


@pytest.mark.parametrize("name", ["TensorBoard", "MLflow"])
def test_a_missing_package_is_named_before_the_training(name, monkeypatch):
    package = name.lower()
    for module in [package, *(found for found in sys.modules if found.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    with refusal(ImportError, f"{name}(", "which is missing", f"pip install 'xpnet[{package}]'"):
        getattr(xpnet, name)("here")


def test_event_files_hold_every_number_of_every_record(tmp_path):
    event_files = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(event_files, reason="the extra tensorboard brings it")
    history = trained(xpnet.TensorBoard(tmp_path / "run"), validation=DATASET)
    found = reader.EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    assert {"train_loss", "val_loss", "seconds", "steps"} <= {*found.Tags()["tensors"]}
    assert not {"epoch", "engine", "device"} & {*found.Tags()["tensors"]}
    for name in ("train_loss", "val_loss"):
        events = found.Tensors(name)
        assert [event.step for event in events] == [0, 1, 2, 3]
        values = [event.tensor_proto.float_val[0] for event in events]
        np.testing.assert_allclose(values, history.column(name), rtol=1e-6)
    with refusal(TypeError, "folder is 3", "TensorBoard("):
        xpnet.TensorBoard(3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of what MLflow is made of
def test_mlflow_gets_a_run_with_its_numbers(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow brings it")
    monkeypatch.chdir(tmp_path)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    history = trained(xpnet.MLflow("digits", run="first", store=store))
    client = mlflow.MlflowClient(tracking_uri=store)
    (experiment,) = [each for each in client.search_experiments() if each.name == "digits"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "first" and run.info.status == "FINISHED"
    assert run.data.params["network"].startswith("3-4-1 relu") and run.data.params["parameters"] == "21"
    metrics = client.get_metric_history(run.info.run_id, "train_loss")
    assert [metric.step for metric in metrics] == [0, 1, 2, 3]
    np.testing.assert_allclose([metric.value for metric in metrics], history.column("train_loss"))

    class Break(xpnet.Callback):
        def on_epoch_end(self, record, network):
            if record["epoch"] == 1:
                raise RuntimeError("on purpose")

    tracker, path = xpnet.MLflow("digits", store=store), tmp_path / "checkpoint.safetensors"
    net, optimizer = network(), SGD(0.1)
    with pytest.raises(RuntimeError, match="on purpose"):
        callbacks = [tracker, Checkpoint(path), Break()]
        xpnet.train(net, DATASET, optimizer, epochs=3, callbacks=callbacks)
    states = {each.info.status for each in client.search_runs([experiment.experiment_id])}
    assert states == {"FINISHED", "FAILED"} and path.exists()
    xpnet.train(net, DATASET, optimizer, epochs=3, callbacks=[tracker, Checkpoint(path)], resume=path)
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and {each.info.status for each in runs} == {"FINISHED"}
    for each in runs:
        steps = [metric.step for metric in client.get_metric_history(each.info.run_id, "train_loss")]
        assert sorted(set(steps)) == [0, 1, 2, 3] and all(map(math.isfinite, each.data.metrics.values()))
