"""What exports and imports refuse, whether their libraries are installed or not."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet.exporting import onnx_model
from xpnet.exporting.onnx_table import input_types
from xpnet.tables.cells import NumberStyle
from xpnet.tables.columns import Numeric


def small():
    return xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))


@pytest.mark.parametrize(("name", "suffix"), [("onnx", ".onnx")])
def test_an_export_names_the_extra_that_is_missing(name, suffix, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with refusal(ImportError, "needs", "not installed here", f"pip install 'xpnet[{name}]'"):
        xpnet.export(small(), tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


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
