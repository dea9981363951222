"""xpnet describe: each level of a step is the library's own text, of the options, a run or a model file."""

from __future__ import annotations

import numpy as np
import pytest
from test_cli import refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.commands.describe import SHOWN
from xpnet.engines.cuda.text import Data, cuda_source
from xpnet.engines.llvm.engine import text_for
from xpnet.program.grouping import describe as describe_launches
from xpnet.program.places import describe as describe_memory

OPTIONS = ["--layers", "4,6,3", "--optimizer", "adam", "--l2", "0.1", "--batch-size", "5", "--dropout", "0.2"]


def program_and_backend(seed=0):
    backend = xpnet.select_backend("cpu")
    network = xpnet.Network([4, 6, 3], activation="relu", dropout=0.2, loss="softmax_cross_entropy", backend=backend)
    return network.training_program(5, xpnet.Adam(0.1, l2=0.1), False, seed), backend


def described(capsys, *words):
    assert main(["describe", *map(str, words)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("threads", [1, 2])
def test_every_level_is_the_librarys_text(capsys, threads):
    """Alone it can be piped into a file; LLVM's is what the engine would compile."""
    program, backend = program_and_backend()
    compiled = text_for(program, backend, {"X": None, "Y": None}, threads)
    expected = {
        "program": program.describe(),
        "memory": describe_memory(program),
        "launches": describe_launches(program),
        "plan": compiled.plan.describe(),
        "llvm": compiled.text,
        "cuda": cuda_source(program, backend.dtype, Data({"X": backend.dtype, "Y": backend.dtype})).text,
    }
    for name, text in expected.items():
        out = described(capsys, *OPTIONS, "--threads", threads, "--show", name)
        assert out.rstrip("\n") == text.rstrip("\n"), name
    assert set(expected) | {"assembly"} == set(SHOWN)


def test_by_default_it_goes_from_the_program_to_the_plan(capsys):
    lines = described(capsys).splitlines()
    heads = [line.split()[1].rstrip(":") for line in lines if line.startswith("--- ")]
    assert heads == ["program", "launches", "plan"] and "Z1 = W1 @ X" in lines[6]
    assert "gather   X (784, 32) <- X[order]" in lines


def test_one_output_has_a_loss_that_goes_with_it(capsys):
    assert "squared_error" in described(capsys, "--layers", "2,3,1", "--show", "program")


def test_accumulated_steps_have_an_update_apart(capsys):
    out = described(capsys, *OPTIONS, "--accumulate", "3", "--show", "program,llvm")
    assert "an update every 3 steps" in out and "define internal void @update" in out


@pytest.mark.full
def test_assembly_is_made_of_the_text(capsys):
    pytest.importorskip("llvmlite")
    out = described(capsys, "--layers", "2,3,1", "--show", "assembly")
    assert "\nrun:\n" in out and "ret" in out and "define internal" not in out


def test_assembly_without_llvmlite_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llvmlite.binding", None)
    refused(capsys, ["describe", "--layers", "2,3,1", "--show", "assembly"], "llvmlite", "pip install 'xpnet[jit]'")


def run_of(options, capsys, tmp_path):
    """The directory of a run with these options, of no epoch."""
    run = tmp_path / "run"
    assert main(["train", *options.split(), "--epochs", "0", "--quiet", "--out", str(run)]) == 0
    capsys.readouterr()
    return run


def test_a_run_is_described_by_its_own_options(capsys, tmp_path):
    run = run_of("--layers 784,6,10 --optimizer adam --batch-size 7 --dtype float64", capsys, tmp_path)
    out = described(capsys, run, "--show", "program,cuda")
    assert "W1 @ X" in out and "(6, 7)" in out and "adam" in out and "typedef double real;" in out
    message = str(run), "sets --batch-size, --layers;", "leave --batch-size, --layers out"
    refused(capsys, ["describe", run, "--layers", "4,3", "--batch-size", "9"], *message, code=2)


@pytest.mark.full
def test_a_run_of_weighted_bytes_is_described_so(capsys, tmp_path):
    """Its samples are scaled as they are gathered, its weights gathered too; without a run neither is."""
    run = run_of("--layers 784,3,10 --class-weight balanced --batch-size 7", capsys, tmp_path)
    out = described(capsys, run, "--show", "program,llvm,cuda")
    assert "weighted_mean_over_batch" in out and "x i8>" in out and "const unsigned char* data0" in out
    bytes_alone = described(capsys, run / "model.safetensors", "--show", "program,llvm,cuda")
    assert "weighted_mean" not in bytes_alone and "x i8>" in bytes_alone and "const unsigned char* data0" in bytes_alone
    plain = described(capsys, "--layers", "784,3,10", "--show", "program,llvm,cuda")
    assert "weighted_mean" not in plain and "x i8>" not in plain and "unsigned char" not in plain


def test_the_memory_is_told_buffer_by_buffer(capsys):
    lines = described(
        capsys, "--layers", "2,3,1", "--batch-size", "4", "--dropout", "0.5", "--show", "memory"
    ).splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert [head[:2] for head in heads] == ["T:", "M:", "U:"]
    words = [line.split(maxsplit=1) for line in lines]
    assert ["T[0]", "W1 (3, 2)"] in words and ["T[64]", "W2 (1, 3)"] in words
    assert any(place.startswith("M[") and what == "X (2, 4)" for place, what in words)


def test_a_model_file_is_described_with_the_optimizer_asked_for(capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    xpnet.Network([4, 6, 3], activation="tanh", loss="squared_error", backend=xpnet.select_backend("cpu")).save(path)
    out = described(capsys, "--model", path, "--optimizer", "lion", "--show", "program")
    assert "tanh" in out and "lion" in out and "(6, 32)" in out
    message = str(path), "sets --activation;", "leave --activation out"
    refused(capsys, ["describe", path, "--activation", "elu"], *message, code=2)


def test_what_cannot_be_described_is_refused(capsys, tmp_path):
    refused(
        capsys, ["describe", "nowhere"], "nowhere is", "neither a run directory nor a model file", "`xpnet train` makes"
    )
    message = "--engine is none", "of the options of xpnet describe", "xpnet describe --help lists them"
    refused_by_parser(capsys, ["describe", "--engine", "compiled"], *message)
    refused(capsys, ["describe", tmp_path], "is not a run directory", "config.json")
    refused(capsys, ["describe", "--layers", "4,3", "--dropout", "0.5"], "--dropout works on hidden layers", code=2)
    refused(capsys, ["describe", "--momentum", "0.9"], "--momentum goes with", "not with sgd", code=2)
    refused_by_parser(capsys, ["describe", "--show", "pln"], "show is 'pln'", "did you mean 'plan'?")
    refused_by_parser(capsys, ["describe", "--threads", "0"], "'0' is too small", "at least 1")


def test_nothing_is_read_of_the_data(capsys, monkeypatch):
    monkeypatch.setattr(np, "load", None)
    described(capsys, "--layers", "2,3,2")
