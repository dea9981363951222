"""Model files: what is written, that it is written whole or not at all, and what is refused in which words."""

from __future__ import annotations

import json
import os
import pickle
import stat
import tracemalloc

import numpy as np
import pytest
from refusals import refusal, says
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xpnet import Activation, Dense, Network, select_backend
from xpnet.network import model_file

CPU = select_backend("cpu", "float64")
SPEC = {
    "format": 1,
    "loss": "squared_error",
    "layers": [
        {"type": "dense", "n_in": 4, "n_out": 3, "init": "glorot", "bias": "zeros"},
        {"type": "activation", "name": "tanh"},
        {"type": "dense", "n_in": 3, "n_out": 2, "init": "he", "bias": 0.5},
    ],
}


def tensors(dtype=np.float32, **changes):
    """The tensors of SPEC by name; a change of None leaves one out. Underscores in names stand for dots."""
    shapes = {"layers.0.W": (3, 4), "layers.0.b": (3, 1), "layers.2.W": (2, 3), "layers.2.b": (2, 1)}
    rng = np.random.default_rng(0)
    result = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    result.update({name.replace("_", "."): value for name, value in changes.items()})
    return {name: value for name, value in result.items() if value is not None}


def write(path, spec=SPEC, arrays=None, **metadata):
    """A file as xpnet writes it, or nearly so."""
    text = spec if isinstance(spec, str) else json.dumps(spec)
    save_file(tensors() if arrays is None else arrays, path, {"format": "xpnet", "spec": text, **metadata})
    return path


def refused(path, *parts, error=ValueError):
    """Assert that loading fails in one line that holds the path and these parts."""
    with pytest.raises(error) as caught:
        Network.load(path, CPU)
    says(caught, str(path), *parts)


# Round trip


@pytest.mark.parametrize("init", ["normal", "he"])
def test_a_network_comes_back_equal(backend, tmp_path, init):
    layers = [Dense(4, 6, init=init, bias="normal"), Activation("relu"), Activation("identity"), Dense(6, 3)]
    network = Network(layers, backend=backend, seed=7)
    network.save(tmp_path / "m.safetensors")
    again = Network.load(tmp_path / "m.safetensors", backend)
    assert again.to_spec() == network.to_spec()
    assert again.backend is backend and again.parameters.flat.dtype == backend.dtype
    theta, theta_again = (backend.to_host(net.parameters.flat) for net in (network, again))
    assert np.any(theta) and theta.tobytes() == theta_again.tobytes()
    X = backend.to_device(np.random.default_rng(0).standard_normal((4, 5)))
    np.testing.assert_array_equal(backend.to_host(again.predict(X)), backend.to_host(network.predict(X)))


@pytest.mark.parametrize(("saved", "loaded"), [("float64", "float32"), ("float32", "float64")])
def test_across_dtypes_the_weights_are_rounded_once(tmp_path, saved, loaded):
    network = Network([4, 6, 3], backend=select_backend("cpu", saved), seed=7)
    network.save(tmp_path / "m")
    again = Network.load(tmp_path / "m", select_backend("cpu", loaded))
    np.testing.assert_array_equal(again.parameters.flat, network.parameters.flat.astype(loaded))


def test_the_safetensors_library_reads_named_tensors_and_the_spec(backend, tmp_path):
    network = Network.from_spec(SPEC, backend=backend, seed=3)
    network.save(tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert sorted(found) == ["layers.0.W", "layers.0.b", "layers.2.W", "layers.2.b"]
    for i, name in enumerate(["layers.0", "layers.2"]):
        np.testing.assert_array_equal(found[f"{name}.W"], backend.to_host(network.parameters.weights[i]))
        np.testing.assert_array_equal(found[f"{name}.b"], backend.to_host(network.parameters.biases[i]))
        assert found[f"{name}.W"].dtype == backend.dtype
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert {key: json.loads(value) for key, value in metadata.items()} == {"spec": SPEC}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_file_written_by_the_safetensors_library_is_read(tmp_path, dtype):
    arrays = tensors(dtype)
    network = Network.load(write(tmp_path / "m", arrays=arrays), CPU)
    X = np.random.default_rng(1).standard_normal((4, 5))
    W0, b0, W2, b2 = (arrays[name].astype(np.float64) for name in sorted(arrays))
    np.testing.assert_allclose(network.forward(X), (np.tanh(X.T @ W0.T + b0.T) @ W2.T + b2.T).T, rtol=0, atol=1e-12)


def test_a_loaded_network_is_independent_of_its_file(tmp_path):
    path = write(tmp_path / "m")
    network = Network.load(path, CPU)
    kept = network.parameters.flat.copy()
    path.write_bytes(b"\0" * path.stat().st_size)  # a memory-mapped tensor would change with it
    np.testing.assert_array_equal(network.parameters.flat, kept)
    network.parameters.flat[...] += 1.0


# Whole or not at all


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("old", [b"what was there before", None], ids=["old", "new"])
def test_a_save_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, failing, error, old):
    path = tmp_path / "m.safetensors"
    if old is not None:
        path.write_bytes(old)

    def fail(*args, **keywords):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)):
        Network.from_spec(SPEC, backend=CPU).save(path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({path.name: old} if old is not None else {})


def test_the_file_is_synced_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(os.fstat(handle).st_size), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    Network.from_spec(SPEC, backend=CPU).save(tmp_path / "m")
    assert calls[:2] == [(tmp_path / "m").stat().st_size, "replace"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        Network.from_spec(SPEC, backend=CPU).save(tmp_path / "m")
        assert os.umask(umask) == umask  # saving left it alone
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == mode


def test_saving_replaces_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")
    network = Network.from_spec(SPEC, backend=CPU)
    network.save(str(path))  # a str will do
    network.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    Network.load(str(path), CPU)


@pytest.mark.parametrize("where", ["missing/m.safetensors", "."], ids=["no-directory", "is-directory"])
def test_saving_where_nothing_can_be_written_names_the_place(tmp_path, where):
    with pytest.raises(OSError) as caught:
        Network.from_spec(SPEC, backend=CPU).save(tmp_path / where)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir()) and not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


# Refused


@pytest.mark.parametrize("name", ["missing.safetensors", "."], ids=["missing", "directory"])
def test_there_must_be_a_file(tmp_path, name):
    refused(tmp_path / name, "there is no model file", "`Network.save`", error=FileNotFoundError)


def test_truncated_anywhere(tmp_path):
    path = write(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for length in sorted({*range(0, 24), *range(24, len(whole), 37), *range(len(whole) - 9, len(whole))}):
        path.write_bytes(whole[:length])
        refused(path, "not a whole safetensors file", "save the model again")
    path.write_bytes(whole + b"\0")
    refused(path, "not a whole safetensors file")


def test_flipped_bits_raise_nothing_but_value_error(tmp_path):
    path = write(tmp_path / "m.safetensors")
    whole = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in range(0, header, 3):  # behind the header lie weights, and any weights will do
        changed = whole.copy()
        changed[position] ^= 0x15
        path.write_bytes(changed)
        try:
            Network.load(path, CPU)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)


class Hostile:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 5])
def test_a_pickle_is_not_opened(tmp_path, protocol):
    path = tmp_path / "m.safetensors"
    path.write_bytes(pickle.dumps(Hostile(str(tmp_path / "made")), protocol))
    refused(path, "not a whole safetensors file")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 64, b"\xff" * 64, b"PK\x03\x04 not a model", b"#!/bin/sh\nexit 1\n", b"\x93NUMPY\x01\x00v\x00{}\n"],
    ids=["empty", "zeros", "ones", "zip", "script", "npy"],
)
def test_not_safetensors(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    refused(path, "not a whole safetensors file", "save the model again")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "xpnet"}])
def test_safetensors_without_our_spec(tmp_path, metadata):
    save_file(tensors(), tmp_path / "m", metadata)
    refused(tmp_path / "m", "not an xpnet model", "it has no spec", "`Network.save`")


def changed(**changes):
    return {**SPEC, **changes}


def first_layer(**changes):
    return changed(layers=[{**SPEC["layers"][0], **changes}, *SPEC["layers"][1:]])


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("{", ["its spec is not readable JSON", "`Network.save`"]),
        ("[" * 100_000, ["its spec is not readable JSON", "`Network.save`"]),
        ("[]", ["the spec is a list", "it must be a dict with format, loss and layers"]),
        ("null", ["the spec is a NoneType", "it must be a dict"]),
        (changed(colour="red"), ["key of the spec is 'colour'", "'format', 'loss', 'layers'"]),
        (changed(format=2), ["format 2", "this version reads format 1"]),
        (changed(loss="squared"), ["loss is 'squared'", "'squared_error', 'softmax_cross_entropy'"]),
        (changed(layers={}), ["layers of the spec is {}", "it must be a list of dicts"]),
        (changed(layers=[]), ["first layer must be Dense", "begin with Dense(n_in, n_out)"]),
        (changed(layers=[3]), ["a layer of the spec is 3", "it must be a dict such as"]),
        (changed(layers=[{"type": "conv"}]), ["layer type is 'conv'", "'dense', 'activation'"]),
        (changed(layers=[{"type": ["dense"]}]), ["layer type is ['dense']", "'dense', 'activation'"]),
        (first_layer(units=3), ["key of a dense layer is 'units'", "'n_in', 'n_out', 'init', 'bias'"]),
        (changed(layers=[{"type": "dense", "n_in": 4}]), ["lacks a key", "n_in and n_out"]),
        (first_layer(n_in=5), ["layers.0.W", "(3, 4)", "(3, 5)"]),
        (first_layer(n_out=5), ["Dense(3, 2) follows a layer with 5 outputs", "write Dense(5, 2)"]),
        (first_layer(n_in=0), ["n_in is 0", "at least 1"]),
        (first_layer(n_in=-4), ["n_in is -4", "at least 1"]),
        (first_layer(n_in="4"), ["n_in is '4'", "must be a whole number"]),
        (first_layer(n_in=4.0), ["n_in is 4.0", "must be a whole number"]),
        (first_layer(n_in=True), ["n_in is True"]),
        (first_layer(init="hee"), ["init is 'hee'", "did you mean 'he'?"]),
        (first_layer(bias=float("nan")), ["bias is nan", "it must be a finite number"]),
        (first_layer(bias=10**400), ["its spec is not readable JSON", "`Network.save`"]),
        (
            changed(loss="softmax_cross_entropy", layers=[{"type": "dense", "n_in": 4, "n_out": 1}]),
            ["softmax_cross_entropy on 1 output", "sigmoid_cross_entropy"],
        ),
    ],
)
def test_a_spec_that_cannot_be(tmp_path, spec, parts):
    refused(write(tmp_path / "m.safetensors", spec), *parts)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"layers_0_W": np.zeros((3, 5), "f4")},
            ["layers.0.W is F32 (3, 5)", "needs F32 or F64 (3, 4)", "use a file that `Network.save` wrote"],
        ),
        ({"layers_0_W": np.zeros((4, 3), "f4")}, ["layers.0.W is F32 (4, 3)", "needs F32 or F64 (3, 4)"]),
        ({"layers_0_W": np.zeros(12, "f4")}, ["layers.0.W is F32 (12,)", "needs F32 or F64 (3, 4)"]),
        ({"layers_2_b": np.zeros((1, 2), "f4")}, ["layers.2.b is F32 (1, 2)", "needs F32 or F64 (2, 1)"]),
        ({"layers_2_b": np.zeros((2, 1), "f2")}, ["layers.2.b is F16 (2, 1)", "needs F32 or F64 (2, 1)"]),
        ({"layers_2_b": np.zeros((2, 1), "i8")}, ["layers.2.b is I64 (2, 1)", "needs F32 or F64 (2, 1)"]),
        ({"layers_2_b": None}, ["missing ['layers.2.b']", "not expected []", "`Network.save`"]),
        ({"layers_1_W": np.zeros((2, 1), "f4")}, ["missing []", "not expected ['layers.1.W']", "`Network.save`"]),
        ({"layers_0_W": np.full((3, 4), np.nan, "f4")}, ["0.W holds NaN or infinity", "finite", "train the model"]),
        ({"layers_2_b": np.array([[0.0], [np.inf]], "f4")}, ["layers.2.b holds NaN or infinity", "train the model"]),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, changes, parts):
    refused(write(tmp_path / "m.safetensors", arrays=tensors(**changes)), *parts)


def test_a_shape_that_does_not_fit_comes_with_a_way_out(tmp_path):
    arrays = tensors(layers_0_W=np.zeros((3, 5), "f4"))
    refused(write(tmp_path / "m.safetensors", arrays=arrays), "use a file that `Network.save` wrote")


def test_weights_beyond_float32_are_refused_by_a_float32_network(tmp_path):
    path = write(tmp_path / "m.safetensors", arrays=tensors(np.float64, layers_0_W=np.full((3, 4), 1e300)))
    Network.load(path, CPU)
    with refusal(ValueError, f"{path}: tensor layers.0.W", "too large for float32", "select_backend(dtype='float64')"):
        Network.load(path, select_backend("cpu", "float32"))


def wide(n_in, n_out):
    return {"format": 1, "loss": "squared_error", "layers": [{"type": "dense", "n_in": n_in, "n_out": n_out}]}


@pytest.mark.parametrize(
    ("n_in", "n_out", "parts"),
    [
        (10**12, 10**12, ["the network has", "xpnet can index 2,147,483,647"]),
        (2**31, 1, ["the network has", "xpnet can index 2,147,483,647"]),
        (10**4000, 10**4000, ["its spec is not readable JSON"]),
        (4_000, 5_000, ["layers.0.W is F32 (1, 1)", "(5000, 4000)"]),
        (1, 3_000_000, ["layers.0.W is F32 (1, 1)", "(3000000, 1)"]),
    ],
    ids=["absurd", "one-too-many", "thousands-of-digits", "within-limits", "many-outputs"],
)
def test_absurd_widths_in_a_tiny_file_cost_nothing(tmp_path, n_in, n_out, parts):
    one = np.zeros((1, 1), "f4")
    path = write(tmp_path / "m.safetensors", wide(n_in, n_out), {"layers.0.W": one, "layers.0.b": one})
    refused(path, *parts)  # once before, so that imports are not measured
    tracemalloc.start()
    try:
        refused(path, *parts)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_header_that_declares_more_than_the_file_holds_costs_nothing(tmp_path):
    header = {
        "__metadata__": {"format": "xpnet", "spec": json.dumps(wide(40_000, 50_000))},
        "layers.0.W": {"dtype": "F32", "shape": [50_000, 40_000], "data_offsets": [0, 8_000_000_000]},
        "layers.0.b": {"dtype": "F32", "shape": [50_000, 1], "data_offsets": [8_000_000_000, 8_000_200_000]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)
    refused(path)
    tracemalloc.start()
    try:
        refused(path, "not a whole safetensors file", "save the model again")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    model_file.write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]
