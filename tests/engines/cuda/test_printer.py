"""The CUDA text: what may enter it, and that its numbers are those that NumPy and CuPy compute with."""

from __future__ import annotations

import re

import numpy as np
import pytest
from features import FEATURES, network_of, optimizer_of, program_of

import xpnet
from xpnet import select_backend
from xpnet.engines.cuda import text as cuda_text
from xpnet.engines.cuda.chunk import chunk_source
from xpnet.engines.cuda.text import BLOCK, Data, blocks, cuda_source, gather_workers
from xpnet.program.calls import WORDS
from xpnet.program.grouping import PARTS, launches, partial_sums, threads
from xpnet.program.recorder import record

NUMBERS = [0.1, -0.1, 1.0, -1.0, 3, 0, 1e-30, 1e30, 1 / 3, 2**24 + 1, 1e-45, 65504.0]


def one_call(say, batch=4):
    def build(recorder):
        with recorder.phase("gradient"):
            say(recorder, recorder.xp)

    return record(build, batch=batch, n_parameters=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_rounded_as_numpy_rounds_it(number, dtype):
    def say(recorder, xp):
        A = recorder.batch_matrix("A", 2)
        xp.multiply(A, number, out=A)

    text = cuda_source(one_call(say), dtype, Data({})).text
    (found,) = re.findall(r"\* \(([-+.e\d]+)f?\);", text)
    A = np.ones(1, dtype)
    assert dtype(found) == (A * number)[0]
    assert ("f);" in text) == (dtype is np.float32)


@pytest.mark.parametrize("word", sorted(set(WORDS) - {"matmul"}))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_word_is_said(word, dtype):
    kind = "uint32" if word in ("bitwise_xor", "right_shift") else "float"

    def say(recorder, xp):
        A = recorder.batch_matrix("A", 2, kind)
        inputs = [A] * WORDS[word]
        reduces = word in ("sum", "max")
        out = recorder.batch_vector("row") if reduces else recorder.batch_matrix("B", 2, kind)
        getattr(xp, word)(*inputs, out=out, **({"axis": 0, "keepdims": True} if reduces else {}))
        recorder.output(out)

    (kernel,) = cuda_source(one_call(say), dtype, Data({})).kernels
    stored = re.findall(r"[MU]\[place\d \+ w\] = (v\d+);", kernel.text)
    assert len(stored) == 1 and re.search(rf"\b{stored[0]}\b (\+)?= (?!0;)", kernel.text)


def test_products_are_for_a_library_unless_their_result_may_be_one_number():
    program = program_of({}, network_of({}, select_backend("cpu")), 8)
    source = cuda_source(program, np.float32, Data({}))
    printed = [kernel is not None for kernel in source.kernels]
    assert printed == [not launch.is_product for launch in source.launches] and len(printed) == len(launches(program))
    one = program_of(FEATURES["one wide"], network_of(FEATURES["one wide"], select_backend("cpu")), 8)
    source = cuda_source(one, np.float32, Data({}))
    products = [kernel for launch, kernel in zip(source.launches, source.kernels, strict=True) if launch.is_product]
    assert any(kernel is not None for kernel in products) and any(kernel is None for kernel in products)
    always = {kernel.text.startswith("// For a batch of one only:") for kernel in products if kernel is not None}
    assert always == {True, False}  # db and dW are one number at any batch, Z only at one
    named = [(i, kernel.name) for i, kernel in enumerate(source.kernels, 1) if kernel is not None]
    assert all(name == f"kernel{i}" for i, name in named)  # as `describe` numbers the launches


def test_no_name_of_the_user_enters_the_text():
    """Nor one of a buffer: what is compiled is made of words known here, and of numbers."""
    name = 'x"); system("rm'
    double = xpnet.CustomActivation(
        name, lambda xp, Z, out: xp.multiply(Z, 2.0, out=out), lambda xp, A, dA, out: xp.multiply(dA, 2.0, out=out)
    )
    network = xpnet.Network([4, 5, 3], activation=double, backend=select_backend("cpu"))
    program, data = network.training_program(8, xpnet.SGD(0.1), False), Data({"X": "uint8", "Y": "f4"})
    text = cuda_source(program, np.float32, data).text
    known = re.findall(
        r"\w+",
        """
        extern C global void static inline device const return if for typedef int long unsigned char float real uint32
        integer larger smaller sign block blockIdx blocks workers threadIdx x w i m t T M U a b order rows_in rows_out
        capacity float4 uchar4 y z v
        kernel gather fabsf sqrtf expf logf log1pf tanhf f e""",
    )
    for found in set(re.findall(r"[A-Za-z_]\w*", text)):
        plain = found.strip("_")
        assert plain in known or re.fullmatch(r"(kernel|v|data|scale|place|to)\d+|number\d+_\d+", plain), found


def test_no_kernel_adds_by_atomics():
    """So two runs agree bit for bit; the barrier of a grid counts blocks, in whole numbers."""
    for name in ("everything", "dropout, batch normalization, Adam", "a long norm"):
        program = program_of(FEATURES[name], network_of(FEATURES[name], select_backend("cpu")), 300)
        data = dict.fromkeys(("X", "Y", "weights"), "f4")
        assert "atom" not in cuda_source(program, np.float32, Data(data)).text
        added = re.findall(r"(?:atom|red)\.\S+", chunk_source(program, np.float32, Data(data)).text)
        assert added == ["atom.acq_rel.gpu.global.add.u32", "red.release.gpu.global.add.u32"]


def test_what_depends_on_the_batch_is_an_argument():
    program = program_of({}, network_of({}, select_backend("cpu")), 8)
    full, short = cuda_source(program, np.float32, Data({})), cuda_source(program.at(7), np.float32, Data({}))
    assert {kernel.name: kernel.numbers for kernel in full.kernels if kernel and kernel.numbers} != {}
    assert cuda_source(program, np.float32, Data({})).sizes.hold_for(program.at(3)) and cuda_source(
        program, np.float32, Data({})
    ).sizes.hold_for(program.at(1))
    assert full.launches == short.launches  # what is joined does not depend on it
    assert "1.25e-01" not in full.text and "0.125" not in full.text


@pytest.mark.parametrize(
    "name",
    [
        *("dropout, batch normalization, Adam", "accumulate, weights", "one wide"),
        *(pytest.param(name, marks=pytest.mark.full) for name in ("everything", "all options")),
    ],
)
def test_one_text_serves_every_capacity(name):
    """Up to 256 samples, 8,192, and more: from these on teams add up, and several. Nor does the seed change it."""
    network = network_of(FEATURES[name], select_backend("cpu"))

    def text_of(capacity, seed=0):
        feature = FEATURES[name]
        options = optimizer_of(feature), feature.get("weighted", False), seed, feature.get("accumulate", 1)
        data = dict.fromkeys(("X", "Y", "weights"), "f4")
        return cuda_source(network.training_program(capacity, *options), np.float32, Data(data)).text

    assert len({text_of(3), text_of(8), text_of(256), text_of(8, seed=1)}) == 1
    assert len({text_of(8), text_of(257), text_of(1024), text_of(8192), text_of(8193), text_of(60000)}) == 3


def test_of_too_many_places_none_is_an_argument(monkeypatch):
    """CUDA takes 4 KiB of arguments; more places are numbers in a text of this capacity alone."""
    program = program_of({}, network_of({}, select_backend("cpu")), 8)
    source = cuda_source(program, np.float32, Data({}))
    most = max(len(kernel.places) for kernel in source.kernels if kernel)
    assert most > 1 and "place1" in source.text
    monkeypatch.setattr(cuda_text, "_MOST_PLACES", most - 1)
    fewer = cuda_source(program, np.float32, Data({}))
    for before, after in zip(source.kernels, fewer.kernels, strict=True):
        if before is not None:
            kept = len(before.places) < most
            assert after.places == (before.places if kept else ())
            assert (after.text == before.text) == kept


def test_a_batch_that_cannot_be_shorter_is_taken_as_it_is():
    """A batch norm needs two samples, so there is no second recording to compare with."""
    feature = FEATURES["batch normalization"]
    program = program_of(feature, network_of(feature, select_backend("cpu")), 2)
    assert "i < 2;" in cuda_source(program, np.float32, Data({})).text
    assert cuda_source(program, np.float32, Data({})).sizes.hold_for(program)


def test_threads_and_blocks():
    program = program_of({"hidden": (300, 5)}, network_of({"hidden": (300, 5)}, select_backend("cpu")), 8)
    first = next(launch for launch in launches(program) if not launch.is_product)  # bias and activation
    assert [threads(program, group) for group in first.groups] == [8 * 300]
    assert [threads(program.at(3), group) for group in first.groups] == [3 * 300]
    assert blocks([8 * 300]) == -(-8 * 300 // BLOCK) and blocks([1, 1]) == 2 and blocks([0, 257]) == 2


def test_long_sums_ask_for_memory():
    long = {"hidden": (200, 50), "options": {"clip_norm": 0.1}}
    assert partial_sums(program_of(long, network_of(long, select_backend("cpu")), 8)) == PARTS
    assert partial_sums(program_of({}, network_of({}, select_backend("cpu")), 8)) == 0


@pytest.mark.parametrize(
    ("n", "dtype", "kind", "moved"),
    [
        (8, np.float32, np.float32, "const float4 v = ((const float4*)data0)[order[(long long)t * capacity + w / 2]"),
        (8, np.float32, np.uint8, "((float4*)(M + to0))[w] = {v.x * scale0, v.y * scale0, v.z * scale0, v.w * scale0}"),
        (6, np.float64, np.float64, "const double2 v = ((const double2*)data0)[order[(long long)t * capacity + w / 3]"),
        (6, np.float32, np.float32, "M[to0 + w] = data0[order[(long long)t * capacity + w / 6] * 6 + w % 6];"),
    ],
)
def test_samples_are_moved_by_vectors_where_they_are_aligned(n, dtype, kind, moved):
    network = xpnet.Network([n, 3], backend=select_backend("cpu"))
    program, types = network.training_program(8, xpnet.SGD(0.1), False), {"X": kind, "Y": dtype}
    one_by_one = cuda_source(program, dtype, Data(types, is_aligned=False)).text
    assert moved in cuda_source(program, dtype, Data(types)).text and " v = " not in one_by_one
    at_once = 4 if "float4" in moved else 2 if "double2" in moved else 1
    workers = [gather_workers(program, data, dtype, 5, 0)[0] for data in (Data(types), Data(types, is_aligned=False))]
    assert workers == [5 * n // at_once, 5 * n]
