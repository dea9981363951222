"""What a command checks or reads, it checks or reads once, however many of its parts need it."""

from __future__ import annotations

import numpy as np
import pytest
from test_cli import idx_folder, surroundings  # noqa: F401  fixtures, one of which runs by itself

import xpnet
from xpnet.cli import main
from xpnet.training.checkpoint import load_checkpoint

SMALL = ["--epochs", "1", "--layers", "784,10", "--validation", "5", "--quiet"]


@pytest.fixture
def count(monkeypatch):
    """A function that makes each place where a name stands count its calls, and returns the list of them."""

    def counted(*places):
        calls = []

        def standing_for(function):
            def call(*arguments, **named):
                calls.append(arguments)
                return function(*arguments, **named)

            return call

        for place in places:
            module, _, name = place.rpartition(".")
            function = getattr(__import__(module, fromlist=[name]), name)
            monkeypatch.setattr(place, standing_for(function))
        return calls

    return counted


@pytest.mark.parametrize("command", [["train", *SMALL], ["find-lr", "--layers", "784,10", "--steps", "10"]])
def test_options_and_the_folder_of_the_data_are_looked_at_once(count, idx_folder, command):  # noqa: F811
    options = count("xpnet.commands.data.check_table")  # a part of check_data, whoever calls that
    folders = count("xpnet.commands.data.named_directory", "xpnet.datasets.mnist.named_directory")
    main([*command, "--dataset", "mnist", "--data-dir", str(idx_folder)])
    assert len(options) == len(folders) == 1
    main(["train", "--dataset", "mnist", "--data-dir", str(idx_folder), *SMALL, "--out", "run"])
    folders.clear()
    assert main(["evaluate", "run"]) == 0
    assert len(folders) == 1


def test_targets_are_looked_through_once_for_each_part_of_the_data(count, idx_folder):  # noqa: F811
    found = count("xpnet.training.evaluation._check_targets")
    argv = ["train", "--dataset", "mnist", "--data-dir", str(idx_folder), *SMALL, "--metrics", "f1"]
    assert main([*argv, "--out", "run"]) == 0
    sizes = [Y.shape[1] for _, Y, name in found]
    assert sorted(sizes) == [5, 10, 15]  # validation, test, training
    found.clear()
    assert main(["evaluate", "run"]) == 0
    assert sorted(Y.shape[1] for _, Y, name in found) == [5, 10]


def test_data_that_fit_one_network_are_looked_at_again_for_another():
    dataset = xpnet.Dataset(np.eye(3), np.array([0.0, 0.5, 2.0]))
    backend = xpnet.select_backend("cpu")
    xpnet.evaluate(xpnet.Network([3, 1], loss="squared_error", backend=backend), dataset)
    for part in (dataset, dataset.subset([0, 2])):
        for sizes, loss, found in (
            ([3, 1], "sigmoid_cross_entropy", "needs targets from 0 to 1"),
            ([4, 1], "squared_error", "the network expects 4"),
            ([3, 2], "squared_error", "the network expects 2"),
        ):
            with pytest.raises(ValueError, match=found):
                xpnet.evaluate(xpnet.Network(sizes, loss=loss, backend=backend), part)


def test_a_checkpoint_is_read_once(count):
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.random((60, 6), dtype=np.float32))
    np.save("Y.npy", rng.integers(0, 3, 60))
    argv = ["train", "X.npy", "--labels", "Y.npy", "--layers", "6,3", "--quiet", "--epochs"]
    assert main([*argv, "4", "--out", "whole"]) == main([*argv, "2", "--out", "run"]) == 0
    opened = count("safetensors.safe_open")
    parsed = count("xpnet.training.checkpoint._moment")
    assert main(["train", "--resume", "run", "--epochs", "4"]) == 0
    assert len(parsed) == 1
    assert [str(path) for path, *_ in opened if "checkpoint" in str(path)] == ["run/checkpoint.safetensors"]
    models = [xpnet.Network.load(f"{run}/model.safetensors").owned for run in ("whole", "run")]
    np.testing.assert_array_equal(*models)


def test_train_goes_on_from_a_moment_as_from_its_file(tmp_path):
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset.from_labels(rng.random((4, 30)), rng.integers(0, 3, 30), 3)

    def run(epochs, resume=None, lr=0.1):
        network = xpnet.Network([4, 3], backend=xpnet.select_backend("cpu"))
        checkpoint = xpnet.Checkpoint(tmp_path / "c")
        xpnet.train(network, dataset, xpnet.SGD(lr), epochs=epochs, callbacks=[checkpoint], resume=resume)
        return network.owned

    run(2)
    moment = load_checkpoint(tmp_path / "c")
    assert moment.path == tmp_path / "c"
    with pytest.raises(ValueError, match="c belongs to a run within or after epoch 2, and epochs is 1"):
        run(1, moment)
    np.testing.assert_array_equal(run(4, moment), run(4))
