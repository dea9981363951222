"""Folders of images in the commands: trained on, measured, and predicted by file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from refusals import says

import xpnet
from xpnet.cli import main
from xpnet.datasets import load_images
from xpnet.network.network import Network

SHORT = ["--device", "cpu", "--epochs", "2", "--hidden", "8", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images of two classes to train and to test on, and a run on them."""
    path, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, n in (("train", 20), ("test", 5)):
        for name, low in (("dark", 0), ("light", 128)):
            (path / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(low, low + 128, size=(6, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(path / part / name / f"{i}.png")
    argv = ["train", path / "train", "--test", path / "test", "--out", path / "run", "--plot", *SHORT]
    assert main(list(map(str, argv))) == 0
    return path


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def refused(capsys, argv, *parts, code=2):
    assert main([*argv, "--device", "cpu"]) == code
    err = capsys.readouterr().err
    says(err.rstrip("\n"), *parts)


def test_a_folder_of_classes_is_trained_on_and_measured(folder, capsys):
    config = json.loads((folder / "run" / "config.json").read_text())
    kept = {"height": 6, "width": 4, "channels": 1, "classes": ["dark", "light"]}
    assert config["optimizer"]["type"] == "adam"
    images = config["data"]["images"]
    assert {name: images[name] for name in kept} == kept and config["data"]["split"]["kind"] == "stratify"
    assert (folder / "run" / "confusion.png").exists() and (folder / "run" / "images.png").exists()
    network, (test, _) = Network.load("run/model.safetensors", device="cpu"), load_images("test")
    expected = xpnet.evaluate(network, test)
    for argv in (["evaluate", "run"], ["evaluate", "run", "test"]):
        assert main([*argv, "--device", "cpu", "--json"]) == 0
        part = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert part["part"] == "test" and part["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert main(["train", "train", "--validation", "test", "--out", "other", *SHORT]) == 0
    assert "validation accuracy" in capsys.readouterr().out


def test_predictions_are_by_file_in_the_names_of_the_classes(folder, capsys):
    network, (test, _) = Network.load("run/model.safetensors", device="cpu"), load_images("test")
    assert main(["predict", "run", "test", "--out", "p.csv", "--device", "cpu"]) == 0
    found = pd.read_csv("p.csv")
    assert found["file"].tolist() == [f"test/{name}/{i}.png" for name in ("dark", "light") for i in range(5)]
    P = network.predict(test.X.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(found[["probability_dark", "probability_light"]].to_numpy().T, P, rtol=1e-5)
    assert found["label"].tolist() == np.array(["dark", "light"])[P.argmax(0)].tolist()
    assert main(["predict", "run", "test/light/1.png", "--labels", "--out", "-", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["file,label", f"test/light/1.png,{found['label'][6]}"]


def test_a_digit_is_recognised_by_a_run_on_mnist(capsys):
    assert main(["train", "--out", "digits", *SHORT]) == 0
    _, test = xpnet.datasets.load_mnist_sample()
    Image.fromarray(np.uint8(255 - test.X[:, 7].reshape(28, 28))).save("digit.png")
    capsys.readouterr()
    assert main(["predict", "digits", "digit.png", "--out", "-", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    network = Network.load("digits/model.safetensors", device="cpu")
    P = network.predict(test.X[:, 7:8].astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(pd.read_csv(pd.io.common.StringIO(out)).iloc[0, 2:].astype(float), P[:, 0], rtol=1e-4)
    assert "it is made a negative" in err
    refused(capsys, ["evaluate", "digits", "test"], "was not trained on a folder", "test/ is one", "leave it out, or")


def test_what_does_not_go_with_images_is_refused(folder, capsys):
    rows = np.zeros((8, 24), np.float32)
    np.save("X.npy", rows)
    np.save("Y.npy", np.arange(8) % 2)
    assert main(["train", "X.npy", "--labels", "Y.npy", "--out", "rows", *SHORT]) == 0
    pd.DataFrame({"x": range(9), "y": range(9)}).to_csv("t.csv", index=False)
    capsys.readouterr()
    image = "test/dark/0.png"
    out = ["--out", "q.csv"]
    refused(
        capsys, ["predict", "rows", image, *out], "was not trained on images", f"{image} is one", "a run on a folder"
    )
    refused(capsys, ["train", "--image-size", "8"], "--image-size goes with a folder", "not with mnist", "leave it out")
    refused(capsys, ["train", image], f"{image} is an image", "it must be a folder that holds", "name that folder")
    refused(capsys, ["train", "train", "--test", "t.csv"], "--test is t.csv", "it must be a folder that", "name one")
    refused(capsys, ["train", "train", "--target", "y"], "--target goes with a table", "train/", "leave it out")
    refused(capsys, ["predict", "run", "no.png", *out], "there is no file", "no.png", "or a folder of images", code=1)
    (folder / "bad.png").write_bytes(b"junk")
    parts = "1 of 2 files cannot be read", "bad.png is no image", "save it as PNG, or remove it"
    refused(capsys, ["predict", "run", image, "bad.png", *out], *parts, code=1)
    assert not (folder / "q.csv").exists()


def test_images_that_were_renamed_are_refused_where_some_were_held_out(folder, capsys):
    names = folder / "train/dark/0.png", folder / "train/dark/zz.png"
    names[0].rename(names[1])
    try:
        parts = "holds other images than those of the run", "those held out cannot be told", "restore them, or train"
        refused(capsys, ["evaluate", "run"], *parts, code=1)
    finally:
        names[1].rename(names[0])
    assert main(["evaluate", "run", "--device", "cpu"]) == 0


def test_a_config_that_is_not_that_of_the_images_is_refused(folder, capsys):
    path = folder / "run" / "config.json"
    content = path.read_text()
    config = json.loads(content)
    argv = ["predict", "run", "test/dark/0.png", "--out", "q.csv"]
    try:
        for changed, parts in (
            ({"classes": 3}, ("it has the classes 3", "train again", "or restore config.json")),
            ({"height": "x"}, ("height is 'x'", "it must be a whole number", "or restore config.json")),
            ({"height": 7}, ("the images have 28 pixels", "the network takes 24 inputs", "or train again")),
        ):
            config["data"]["images"] |= changed
            path.write_text(json.dumps(config))
            refused(capsys, argv, *parts, code=1)
            config = json.loads(content)
    finally:
        path.write_text(content)
