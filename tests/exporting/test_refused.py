"""What exports and imports refuse, whether their libraries are installed or not."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from forms import apart
from refusals import refusal

import xpnet
from xpnet.exporting import keras_layers, onnx_model
from xpnet.exporting.onnx_table import input_types, random_rows
from xpnet.tables.cells import NumberStyle
from xpnet.tables.columns import Numeric


def small():
    return xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))


@pytest.mark.parametrize(("name", "suffix"), [("onnx", ".onnx"), ("keras", ".keras")])
def test_an_export_names_the_extra_that_is_missing(name, suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with refusal(ImportError, "needs", "not installed", f"pip install 'xpnet[{name}]'"):
        xpnet.export(small(), tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def test_rows_of_a_table_name_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with refusal(ImportError, "an export of a table's rows needs pandas", "not installed", "pip install 'xpnet[data]'"):
        random_rows(None, 1, None)


def test_an_opset_that_onnx_does_not_know():
    onnx = SimpleNamespace(__version__="1.16", defs=SimpleNamespace(onnx_opset_version=lambda: 21))
    with refusal(ValueError, "opset is 22", "onnx 1.16 knows 18 to 21", "take one of these"):
        onnx_model._check_opset(onnx, 22)
    with refusal(ValueError, "opset is 17", "it must be at least 18", "Pass opset=18 or more"):
        onnx_model._check_opset(onnx, 17)
    with refusal(ValueError, "opset is 19, which goes with onnx", "is of c", "leave opset out"):
        xpnet.export(small(), "model.h", opset=19)


def test_a_graph_that_differs_or_does_not_run(monkeypatch):
    with refusal(ValueError, "differs from xpnet's predictions by 0.5", "it may by 1e-12", "to numpy or c"):
        onnx_model._check_difference(0.5, "float64")
    with pytest.raises(ValueError, match="by nan"):
        onnx_model._check_difference(np.nan, "float32")

    def session(*arguments, **options):
        raise RuntimeError("opset 28 is\nunder development")

    found = SimpleNamespace(__version__="1.17", SessionOptions=SimpleNamespace, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", found)
    with refusal(ValueError, "onnxruntime 1.17 does not take", "(opset 28 is under development)", "take the opset 18"):
        onnx_model._runtime(SimpleNamespace(SerializeToString=bytes))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert onnx_model._runtime(None) is None


def test_columns_that_a_graph_cannot_read():
    column = Numeric("weight", style=NumberStyle(unit="kg", is_plain=False))
    with refusal(ValueError, "column 'weight' holds numbers as text", "a graph takes numbers", "--drop weight"):
        input_types(SimpleNamespace(is_strict=False, columns=[column]))
    with refusal(ValueError, "the run is of format 1", "a graph must take any row", "train it again"):
        input_types(SimpleNamespace(is_strict=True))


def linear():
    return {"0.weight": np.ones((4, 3), "f"), "0.bias": np.zeros(4, "f")}


class Sequential:
    """A module as PyTorch's looks from outside."""

    def __init__(self, *children):
        self.children = children

    def named_children(self):
        return [(str(i), child) for i, child in enumerate(self.children)]


def module(kind, **settings):
    return type(kind, (), settings)()


def test_modules_of_torch_that_are_refused():
    with refusal(TypeError, "the module is a int", "it must be an nn.Sequential", "pass model.net, say"):
        xpnet.from_torch(3)
    with refusal(ValueError, "layer 0 is PReLU, which xpnet has not", "it must be Linear", "replace it"):
        xpnet.from_torch(Sequential(module("PReLU")))
    with refusal(ValueError, "layer 0 is ELU with alpha=2.0", "xpnet has alpha=1.0 alone", "train with ELU(alpha=1.0)"):
        xpnet.from_torch(Sequential(module("ELU", alpha=2.0)))
    dense = module("Linear", weight=np.ones((4, 4)), bias=None)
    with refusal(ValueError, "has softmax before its end", "must be the last layer", "take another activation"):
        xpnet.from_torch(Sequential(dense, module("Softmax", dim=1), dense))
    with refusal(
        ValueError, "ends in softmax and loss is 'hinge'", "must be 'softmax_cross_entropy'", "leave loss out"
    ):
        xpnet.from_torch(Sequential(dense, module("Softmax", dim=1)), loss="hinge")
    assert xpnet.from_torch(Sequential(dense, module("Softmax"))).backend.dtype == np.float64


def test_state_dicts_that_are_refused():
    gap = {"2.weight": np.ones((2, 4), "f")}
    with refusal(ValueError, "does not tell activations", "this one has 1 layers", "activation='relu', say"):
        xpnet.from_torch(linear() | gap)
    with refusal(ValueError, "activation has 2 names for 1 gaps", "one name for all", "or one for each"):
        xpnet.from_torch(linear() | gap, activation=["relu", "relu"])
    with pytest.raises(ValueError, match=r"activation is 'rely'.*did you mean 'relu'"):
        xpnet.from_torch(linear() | gap, activation="rely")
    with refusal(ValueError, "the state_dict has 'weight'", "are such as '0.weight'", "model.net.state_dict() say"):
        xpnet.from_torch({"weight": np.ones((2, 3), "f")})
    with refusal(ValueError, "the state_dict is empty", "it must hold a layer", "pass module.state_dict()"):
        xpnet.from_torch({})
    with refusal(ValueError, "layer 0 of the state_dict has weight (4, 3, 2)", "it must be of Linear", "replace it"):
        xpnet.from_torch({"0.weight": np.ones((4, 3, 2), "f")})
    with refusal(ValueError, "weight (4, 3), bias (3,)", "it must be of Linear", "replace it"):
        xpnet.from_torch({"0.weight": np.ones((4, 3), "f"), "0.bias": np.ones(3, "f")})
    with refusal(ValueError, "'x' among its weights", "must be arrays of numbers", "pass module.state_dict()"):
        xpnet.from_torch({"0.weight": "x"})
    spoilt = linear() | {"0.weight": np.full((4, 3), np.nan, "f")}
    with refusal(ValueError, "W of layer 0 holds NaN", "all weights must be finite", "train the module again"):
        xpnet.from_torch(spoilt)
    with pytest.raises(ValueError, match=r"Dense\(5, 2\) follows a layer with 4 outputs"):
        xpnet.from_torch(linear() | {"1.weight": np.ones((2, 5), "f")})


def test_files_of_torch_that_are_refused(tmp_path):
    path, page = xpnet.export(small(), tmp_path / "model.safetensors")
    assert apart(xpnet.from_torch(path).predict(X := np.ones((3, 2), "f")), small().predict(X)) == 0.0
    compile(page.read_text(encoding="utf-8"), page, "exec")
    with refusal(FileNotFoundError, "there is no file", "nowhere.safetensors", "`xpnet export --to torch` writes one"):
        xpnet.from_torch(tmp_path / "nowhere.safetensors")
    content = path.read_bytes()
    (tmp_path / "model.pt").write_bytes(content)
    with refusal(ValueError, "model.pt is no .safetensors file", "can run code", "weights_only=True"):
        xpnet.from_torch(tmp_path / "model.pt")
    bad = tmp_path / "bad.safetensors"
    for cut in (0, 7, 100, len(content) - 1):
        bad.write_bytes(content[:cut])
        with refusal(ValueError, "bad.safetensors is not", "a whole safetensors file", "save it again"):
            xpnet.from_torch(bad)
    bad.write_bytes(content.replace(b'\\"n_out\\": 4', b'\\"n_out\\": 5'))
    with refusal(ValueError, "the weight of layer 0 has 12 numbers", "file needs 15", "export the network again"):
        xpnet.from_torch(bad)
    bad.write_bytes(content.replace(b'\\"dense\\"', b'\\"dance\\"'))
    with pytest.raises(ValueError, match=r"bad\.safetensors: layer type is 'dance'"):
        xpnet.from_torch(bad)
    bad.write_bytes(content[:-4] + np.float32(np.nan).tobytes())
    with refusal(ValueError, "W of layer 0 holds NaN", "all weights must be finite", "train the module again"):
        xpnet.from_torch(bad)
    small().save(tmp_path / "own.safetensors")
    with refusal(ValueError, "is a network of xpnet", "must be the state_dict of a module", "xpnet.Network.load("):
        xpnet.from_torch(tmp_path / "own.safetensors")


def test_functions_of_your_own_go_to_no_other_library(tmp_path):
    def forward(xp, Z, out):
        xp.multiply(Z, 2.0, out=out)

    def backward(xp, A, dA, out):
        xp.multiply(dA, 2.0, out=out)

    own, backend = xpnet.CustomActivation("twice", forward, backward), xpnet.select_backend("cpu")
    made = xpnet.Network([3, 4, 2], activation=own, backend=backend)
    with refusal(
        ValueError, "layer 1 is 'twice', a function of your own", "other libraries have not", "another activation"
    ):
        xpnet.export(made, tmp_path / "model.safetensors")

    def pair(xp, A, Y, L, dA, work):
        xp.subtract(A, Y, out=dA)
        xp.multiply(dA, dA, out=work)
        xp.sum(work, axis=0, keepdims=True, out=L)
        xp.multiply(dA, 2.0, out=dA)

    def linked(xp, A, Y, L, dA, work):
        xp.exp(A, out=dA)
        xp.subtract(dA, Y, out=work)
        xp.multiply(dA, work, out=dA)
        xp.multiply(dA, 2.0, out=dA)
        xp.multiply(work, work, out=work)
        xp.sum(work, axis=0, keepdims=True, out=L)

    def link(xp, A, out, *scratch):
        xp.exp(A, out=out)

    loss = xpnet.CustomLoss("of rates", linked, link=link, threshold=0.0)
    for suffix, library in ((".safetensors", "PyTorch"), (".keras", "Keras")):
        with refusal(ValueError, "the loss 'of rates' has a link of your own", f"{library} has not", "another loss"):
            xpnet.export(xpnet.Network([3, 4], loss=loss, backend=backend), tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())
    made = xpnet.Network([3, 4], loss=xpnet.CustomLoss("squares", pair), backend=backend)
    path, _ = xpnet.export(made, tmp_path / "model.safetensors")
    assert (xpnet.from_torch(path).predict(X := np.ones((3, 2), "f")) == made.predict(X)).all()


class Model:
    """A model as Keras's looks from outside."""

    def __init__(self, *layers, kind="Sequential"):
        self.kind, self.found = kind, layers

    def __new__(cls, *layers, kind="Sequential"):
        return object.__new__(type(kind, (cls,), {}))

    @property
    def layers(self):
        return [SimpleNamespace(name=str(i), get_weights=lambda w=w: w) for i, (*_, w) in enumerate(self.found)]

    def get_config(self):
        layers = [
            {"class_name": kind, "config": {"name": str(i), **config}} for i, (kind, config, _) in enumerate(self.found)
        ]
        return {"layers": layers}


WEIGHTS = [np.ones((3, 4), "f"), np.zeros(4, "f")]


def test_models_of_keras_that_are_refused():
    dense = ("Dense", {}, WEIGHTS)
    made = xpnet.from_keras(Model(("Rescaling", {"scale": 0.5}, []), dense, ("Softmax", {}, [])))
    assert str(made.architecture.loss) == "softmax_cross_entropy" and made.inputs.scale == 0.5
    with refusal(TypeError, "the model is a int", "it must be a keras.Sequential", "pass one of these"):
        xpnet.from_keras(3)
    with refusal(ValueError, "the model is a 'Functional'", "must be a Sequential", "keras.Sequential(model.layers)"):
        xpnet.from_keras(Model(dense, kind="Functional"))
    with refusal(ValueError, "layer '0' is 'Conv1D', which xpnet has not", "must be Dense", "replace it"):
        xpnet.from_keras(Model(("Conv1D", {}, [])))
    with refusal(ValueError, "layer '1' has the activation 'gelu'", "must be one of linear", "train with one of these"):
        xpnet.from_keras(Model(dense, ("Activation", {"activation": "gelu"}, [])))
    with refusal(ValueError, "layer '1' is ELU with alpha=2.0", "has alpha=1.0 alone", "train with ELU(alpha=1.0)"):
        xpnet.from_keras(Model(dense, ("ELU", {"alpha": 2.0}, [])))
    with refusal(
        ValueError, "layer '0', Dense, has arrays (3, 4)", "it needs a matrix and a bias", "save the model again"
    ):
        xpnet.from_keras(Model(("Dense", {}, WEIGHTS[:1])))
    with refusal(
        ValueError, "layer '1', BatchNormalization, has arrays none", "it needs gamma", "save the model again"
    ):
        xpnet.from_keras(Model(dense, ("BatchNormalization", {}, [])))


def test_exports_to_keras_that_are_refused(tmp_path, monkeypatch):
    made = xpnet.Network([3, 4, 2], activation="gelu", backend=xpnet.select_backend("cpu"))
    with refusal(
        ValueError, "layer 1 is 'gelu', which Keras has no layer for", "to onnx, numpy or c", "another activation"
    ):
        xpnet.export(made, tmp_path / "model.keras")
    (tmp_path / "keras.py").write_text("raise ImportError('no back end')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with refusal(ImportError, "Keras cannot be imported (no back end)", "it needs a back end", "'xpnet[keras]'"):
        xpnet.export(small(), tmp_path / "model.keras")
    assert "KERAS_BACKEND" not in os.environ


def keras_zip(path, config, weights=b""):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)


def test_files_of_keras_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"

    def opened(file, mode):
        if not file.read():
            raise OSError("file signature not found")
        return Group(layers=Group(dense=Group(vars=Group(**{"0": kernel}))))

    class Group(dict):
        def get(self, name, getlink):
            return HardLink() if name in self else None

    class HardLink:
        pass

    class Kernel(SimpleNamespace):
        def __getitem__(self, key):
            return self.array

    kernel = Kernel(array=WEIGHTS[0], external=None, is_virtual=False)
    h5py = SimpleNamespace(File=opened, Group=Group, HardLink=HardLink, Dataset=Kernel)
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    with refusal(FileNotFoundError, "there is no file", "model.keras", "`xpnet export --to keras` writes one"):
        xpnet.from_keras(path)
    for content in (b"", b"PK\x03\x04 is no archive"):
        path.write_bytes(content)
        with refusal(ValueError, "model.keras is not", "a whole .keras file", "save the model again"):
            xpnet.from_keras(path)
    keras_zip(path, '{"class_name": "Sequential", "config": {}}')
    with refusal(ValueError, "is not a whole .keras file", "file signature not found", "save the model again"):
        xpnet.from_keras(path)
    monkeypatch.setattr(keras_layers, "AT_MOST", 10)
    with refusal(
        ValueError, "not a whole .keras file (its config.json", "has more than 10 bytes", "save the model again"
    ):
        xpnet.from_keras(path)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    keras_zip(path, '{"class_name": "Sequential", "config": {}}', b"h5")
    with refusal(ValueError, "the config of", "model.keras is none of a model (KeyError", "save it again"):
        xpnet.from_keras(path)
    config = {"layers": [{"class_name": "Dense", "config": {"name": "d", "use_bias": False}}]}
    keras_zip(path, json.dumps({"class_name": "Sequential", "config": config}), b"h5")
    assert xpnet.from_keras(path).architecture.n_inputs == 3
    for array in (np.full((3, 4), np.nan), np.ones((3, 4), int)):
        kernel.array = array
        with refusal(ValueError, "array 0 of layer 'd'", "all weights must be finite floats", "train the model again"):
            xpnet.from_keras(path)
    kernel.array, kernel.external = WEIGHTS[0], [("/etc/passwd", 0, 8)]  # never followed
    with pytest.raises(ValueError, match="layer 'd', Dense, has arrays none"):
        xpnet.from_keras(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with refusal(ImportError, "a .keras file needs h5py", "not installed", "pip install 'xpnet[keras]'"):
        xpnet.from_keras(path)
