"""Keras: load_model opens what is exported, which predicts what the network does, and networks come back."""

from __future__ import annotations

import os

import numpy as np
import pytest
from forms import NAMES, apart, expected, network, rows_for
from refusals import refusal

import xpnet

if "KERAS_BACKEND" not in os.environ:
    pytest.skip("the job keras of ci/run chooses Keras's back end", allow_module_level=True)
keras = pytest.importorskip("keras", reason="the extra keras brings it")
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:keras")
layers = keras.layers
ROWS = np.random.default_rng(0).standard_normal((100, 4)).astype("f")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_predicts_what_the_network_does_and_comes_back(name, dtype, tmp_path):
    made = network(name, dtype)
    if "gelu" in str(made.architecture):
        with refusal(
            ValueError, "is 'gelu', which Keras has no layer for", "to onnx, numpy or c", "another activation"
        ):
            xpnet.export(made, tmp_path / "model.keras")
        assert not list(tmp_path.iterdir())
        return
    rows, (P, _) = rows_for(made), expected(made, rows_for(made))
    (path,) = xpnet.export(made, tmp_path / "model.keras")
    model = keras.models.load_model(path)
    assert apart(model.predict(rows, verbose=0), P) < 1e-6
    for source in (path, model):
        back = xpnet.from_keras(source)
        assert back.backend.dtype == dtype and apart(expected(back, rows)[0], P) < 1e-6


MODELS = {
    "of others": [
        layers.Dense(5, activation="relu"),
        layers.BatchNormalization(scale=False),
        layers.ELU(),
        layers.Dropout(0.3),
        layers.Dense(6, use_bias=False),
        layers.LayerNormalization(center=False),
        layers.ReLU(),
        layers.Dense(3, activation="swish"),
        layers.Dense(2),
        layers.Softmax(),
    ],
    "yes or no": [layers.Dense(5), layers.LeakyReLU(negative_slope=0.01), layers.Dense(1, activation="sigmoid")],
    "bytes": [layers.Rescaling(1 / 255), layers.Dense(2, activation="hard_sigmoid")],
}


def model_of(name):
    model = keras.Sequential([keras.Input((4,)), *MODELS[name]])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1.0, each.shape).astype("f") for each in model.get_weights()])
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_others_predicts_the_same(name, tmp_path):
    model = model_of(name)
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        back = xpnet.from_keras(source)
        rows = np.arange(400, dtype=np.uint8).reshape(100, 4) if name == "bytes" else ROWS
        assert apart(expected(back, rows)[0], model.predict(rows, verbose=0)) < 1e-6
    assert (
        str(back.architecture.loss)
        == {"of others": "softmax_cross_entropy", "yes or no": "sigmoid_cross_entropy", "bytes": "squared_error"}[name]
    )


def test_models_that_xpnet_has_not():
    with refusal(ValueError, "is 'PReLU', which xpnet has not", "must be Dense", "replace it"):
        xpnet.from_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.PReLU()]))
    with refusal(ValueError, "has the activation 'gelu'", "it must be one of linear", "train with one of these"):
        xpnet.from_keras(keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="gelu")]))
    x = keras.Input((4,))
    with refusal(ValueError, "the model is a 'Functional'", "must be a Sequential", "keras.Sequential(model.layers)"):
        xpnet.from_keras(keras.Model(x, layers.Dense(2)(x)))
