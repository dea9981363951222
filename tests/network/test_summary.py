"""The table of a network, at a prompt and in a notebook."""

from __future__ import annotations

import pytest
from refusals import refusal

import xpnet
from xpnet import Activation, BatchNorm, Dense, Dropout, Network, summary
from xpnet.cli import main
from xpnet.network.programs import inference_program
from xpnet.network.summary import layer_flops

TABLE = """\
3-4-2 relu batch_norm dropout, softmax_cross_entropy; float64 on cpu
layer       outputs  weights  parameters  FLOPs
inputs            3
dense             4    4 x 3          12     24
batch_norm        4                    8     24
relu              4                           4
dropout           4
dense             2    2 x 4          10     18
sum                                   30     70"""


def network(**options):
    options |= {"loss": "softmax_cross_entropy", "device": "cpu", "dtype": "float64"}
    return Network([3, 4, 2], dropout=0.5, normalization="batch", **options)


def test_the_table_has_a_row_a_layer_and_their_sums():
    """2 operations for a weight; each other call, as of a bias or a relu, counts its elements."""
    assert repr(summary(network())) == str(summary(network())) == TABLE


def test_operations_are_those_of_the_recorded_prediction():
    deep = Network([Dense(5, 7, bias=None), BatchNorm(7), Activation("tanh"), Dropout(0.2), Dense(7, 3)])
    program_flops = inference_program(deep.architecture, 1, "forward").flops
    assert sum(layer_flops(deep.architecture)) == program_flops
    assert sum(layer_flops(Network([4, 2]).architecture)) == 2 * 4 * 2 + 2


def test_a_notebook_gets_the_same_cells():
    html = network()._repr_html_()
    for line in TABLE.splitlines()[1:]:
        for cell in line.split("  "):
            assert f">{cell.strip()}<" in html or not cell.strip()
    assert html.startswith("<table><caption>3-4-2 relu") and html.count("<tr>") == 8


def test_info_prints_the_network_of_a_run_and_of_a_file(tmp_path, capsys):
    network().save(tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert main(["info", str(path)]) == 0
        assert capsys.readouterr().out == TABLE.replace("float64", "float32") + "\n"
    assert main(["info", str(tmp_path / "none")]) == 1
    assert "there is no model file" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_told(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main([flag])
    assert ended.value.code == 0 and capsys.readouterr().out == f"xpnet {xpnet.__version__}\n"


def test_what_is_no_network_is_refused():
    with refusal(TypeError, "network is 'runs/a' (str)", "it must be a Network", "pass xpnet.Network.load(file)"):
        summary("runs/a")
