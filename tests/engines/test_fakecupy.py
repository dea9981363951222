"""The fake GPU refuses what CuPy refuses and counts what a GPU would be asked to do."""

from __future__ import annotations

import sys
import types

import fakecupy as cp
import numpy as np
import pytest
from fakecupy import counts

from xpnet.backend import Backend, probe_gpu, select_backend

FLOAT_WORDS = {
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "minimum",
    "greater",
    "abs",
    "sign",
    "sqrt",
    "exp",
    "log",
    "log1p",
    "tanh",
}
WORDS = {*FLOAT_WORDS, "bitwise_xor", "right_shift"}
HELPERS = {
    "matmul",
    "sum",
    "max",
    "argmax",
    "take",
    "empty",
    "zeros",
    "ones",
    "full",
    "arange",
    "array",
    "asarray",
    "asnumpy",
    "ascontiguousarray",
    "concatenate",
    "from_dlpack",
    "isfinite",
    "all",
    "any",
    "ndarray",
    "cuda",
    "RawModule",
    "RawKernel",
    "get_default_memory_pool",
    "memory",
    "float32",
    "float64",
    "uint8",
    "uint32",
    "int32",
    "int64",
    "intp",
}


def device(array, dtype=np.float32):
    """An array on the fake device, whose making is not counted."""
    before = dict(counts)
    made = cp.asarray(np.asarray(array, dtype=dtype))
    counts.reset()
    counts.update(before)
    return made


def ones(*shape, dtype=np.float32):
    return device(np.ones(shape), dtype)


# The surface


def test_offers_the_words_the_helpers_and_nothing_else():
    public = {name for name in vars(cp) if not name.startswith("_")} - {"annotations", "counts", "Counts"}
    assert public == WORDS | HELPERS
    assert all(getattr(cp, word).__name__ == word for word in WORDS)


@pytest.mark.parametrize("name", ["where", "copyto", "dot", "random", "float16", "clip", "square", "less"])
def test_other_names_do_not_exist(name):
    with pytest.raises(AttributeError):
        getattr(cp, name)


@pytest.mark.parametrize("name", ["tobytes", "ctypes", "mean", "base", "__array_interface__", "__index__"])
def test_other_methods_do_not_exist(name):
    assert not hasattr(ones(2), name)


def test_arrays_take_no_new_attributes_and_no_hash():
    with pytest.raises(AttributeError):
        ones(2).name = "x"
    with pytest.raises(TypeError, match="unhashable"):
        hash(ones(2))


def test_works_as_the_namespace_of_a_backend():
    backend = Backend("cupy", "cuda", cp, np.dtype("float32"))
    x = backend.to_device([[1.0, 2.0]])
    assert backend.owns(x)
    assert not backend.owns(np.ones(1))
    assert x.dtype == np.float32
    assert backend.to_host(x).tolist() == [[1.0, 2.0]]
    assert backend.to_device(x) is x
    backend.synchronize()
    assert counts.synchronizations == 1
    assert "14.2.0" in backend.describe()
    assert sys.modules[type(x).__module__] is cp


def test_passes_the_probe_in_the_place_of_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cp)
    assert probe_gpu() == (cp, "Fake GPU")
    assert select_backend("cuda").xp is cp
    assert isinstance(cp.cuda.runtime.driverGetVersion(), int)
    assert isinstance(cp.cuda.runtime.runtimeGetVersion(), int)


# The border between host and device


@pytest.mark.parametrize(
    "leak",
    [
        np.asarray,
        np.array,
        lambda x: np.array([x]),
        lambda x: np.float32(x[0]),
        memoryview,
        lambda x: np.ones(2, np.float32) + x,
        lambda x: np.testing.assert_allclose(x, 1.0),
    ],
    ids=["asarray", "array", "list", "float32", "memoryview", "radd", "assert_allclose"],
)
def test_numpy_cannot_see_inside(leak):
    with pytest.raises(TypeError):
        leak(ones(2))
    assert counts.reads == 0


@pytest.mark.parametrize(
    "other",
    [np.ones(2, np.float32), np.array(1.0), [1.0, 1.0], (1.0, 1.0), None, "a"],
    ids=["array", "0-d", "list", "tuple", "None", "str"],
)
@pytest.mark.parametrize(
    "operation",
    [
        lambda x, h: x + h,
        lambda x, h: x - h,
        lambda x, h: x * h,
        lambda x, h: x / h,
        lambda x, h: x // h,
        lambda x, h: x > h,
        lambda x, h: x <= h,
        lambda x, h: x == h,
        lambda x, h: x @ h,
        lambda x, h: x.dot(h),
        lambda x, h: x.__iadd__(h),
        lambda x, h: h * x,
        cp.add,
        cp.maximum,
        lambda x, h: cp.add(h, x),
        cp.matmul,
        lambda x, h: cp.concatenate([x, h]),
    ],
)
def test_host_operands_are_refused(operation, other):
    with pytest.raises(TypeError):
        operation(ones(2), other)


@pytest.mark.parametrize("function", [cp.exp, cp.sum, cp.max, cp.argmax, cp.any, cp.ascontiguousarray])
def test_host_arguments_are_refused(function):
    with pytest.raises(TypeError):
        function(np.ones(2))


def test_a_host_array_is_no_value_to_assign():
    x = ones(2, 3)
    for value in (np.ones((2, 3)), [1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="cannot be used for fill"):
            x[...] = value
    with pytest.raises(ValueError, match="cannot be used for fill"):
        x.fill(np.ones(3))
    x[...] = 2.0
    x[0, 1:] = np.float32(3.0)
    x[1] = ones(3) * 4
    assert x.get().tolist() == [[2, 3, 3], [4, 4, 4]]
    with pytest.raises(ValueError, match="mismatched"):
        x[0] = ones(1, 3)


def test_set_takes_an_array_of_the_same_type_and_shape():
    x = ones(2, 3)
    x.set(np.full((2, 3), 5, np.float32))
    assert (counts.uploads, counts.upload_bytes, counts.allocations) == (1, 24, 0)
    assert x.get().sum() == 30
    for wrong in (np.ones((2, 3)), [1.0]):
        with pytest.raises(TypeError):
            x.set(wrong)
    with pytest.raises(ValueError, match="Shape mismatch"):
        x.set(np.ones(6, np.float32))
    with pytest.raises(RuntimeError, match="non-contiguous"):
        x[:, :2].set(np.ones((2, 2), np.float32))


@pytest.mark.parametrize(
    "call",
    [
        np.exp,
        np.sum,
        lambda x: np.add(x, 1.0),
        lambda x: np.float64(2) * x,
        lambda x: np.matmul(x, x),
        lambda x: np.concatenate([x, x]),
        lambda x: np.add(x, x, out=x),
    ],
)
def test_numpy_functions_dispatch_and_are_counted(call):
    assert isinstance(call(ones(2, 2)), cp.ndarray)
    assert counts.numpy_dispatch == 1


@pytest.mark.parametrize("call", [np.median, lambda x: np.block([x, x]), np.cosh, np.add.reduce])
def test_numpy_functions_outside_the_surface_fail(call):
    with pytest.raises(TypeError):
        call(ones(2, 2))
    assert counts.numpy_dispatch == 1


def test_a_host_array_is_no_out_of_numpy_either():
    with pytest.raises(TypeError):
        np.add(ones(2), 1.0, out=np.ones(2))


# Elementwise functions


def test_values_are_those_of_numpy():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.1, 2, (2, 3, 4)).astype(np.float32)
    x, y = device(a), device(b)
    for word in FLOAT_WORDS:
        ours, theirs = getattr(cp, word), getattr(np, word)
        arguments = (a, b) if theirs.nin == 2 else (a,)
        expected = theirs(*arguments)
        result = ours(*(x, y)[: theirs.nin])
        np.testing.assert_array_equal(result.get(), expected)
        assert result.dtype == expected.dtype
        out = cp.empty((3, 4), cp.float32)
        assert ours(*(x, y)[: theirs.nin], out=out) is out
        assert ours(*(x, y)[: theirs.nin], out) is out
        np.testing.assert_array_equal(out.get(), expected.astype(np.float32))


def test_uint32_wraps_and_shifts():
    x = device([1, 2**32 - 1], np.uint32)
    assert cp.add(x, 1).get().tolist() == [2, 0]
    assert cp.multiply(x, 0x7FEB352D).dtype == np.uint32
    assert cp.right_shift(x, 16).get().tolist() == [0, 65535]
    assert cp.bitwise_xor(x, x, out=x).get().tolist() == [0, 0]
    with pytest.raises(OverflowError):
        cp.add(x, -1)


def test_greater_writes_a_float_mask():
    out = ones(3)
    cp.greater(device([-1.0, 0.0, 1.0]), 0.0, out=out)
    assert out.get().tolist() == [0, 0, 1]


def test_python_numbers_are_weak_and_numpy_numbers_are_not():
    x = ones(3)
    assert (x * 2.0).dtype == cp.add(x, 1).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert cp.multiply(x, np.float64(2), out=x) is x  # silently computed in float64


@pytest.mark.parametrize("keyword", ["where", "order", "subok", "axis", "keepdims", "mode"])
def test_unknown_keywords_are_refused(keyword):
    for call in (cp.add, cp.matmul):
        with pytest.raises(TypeError):
            call(ones(2, 2), ones(2, 2), **{keyword: True})
    assert cp.add(ones(2), 1.0, dtype=cp.float64, casting="safe").dtype == np.float64


def test_out_is_a_device_array_of_the_exact_shape_and_kind():
    x = ones(2, 3)
    for out in (ones(3), ones(1, 3), ones(3, 2), ones(6)):
        with pytest.raises(ValueError, match=r"shape|broadcast"):
            cp.add(x, x, out=out)
    for out in (np.ones((2, 3), np.float32), 1.0, ones(2, 3, dtype=np.uint32)):
        with pytest.raises(TypeError):
            cp.add(x, x, out=out)
    with pytest.raises(ValueError, match="both"):
        cp.add(x, x, x, out=x)
    with pytest.raises(TypeError, match="number of arguments"):
        cp.exp(x, x, x)


def test_results_are_c_ordered_and_nothing_warns():
    x = device(np.full((3, 2), -1.0)).T
    for result in (cp.log(x), cp.divide(x, 0.0), cp.exp(x * -1e9), -x):
        assert result.flags.c_contiguous
        assert not result.flags.f_contiguous
    assert cp.isfinite(cp.log(x)).get().sum() == 0


def test_an_operand_that_overlaps_out_is_copied_unless_it_is_out_itself():
    x = ones(4, 4)
    cp.add(x, 1.0, out=x)
    x += x
    cp.add(x[:2], x[2:], out=x[:2])
    assert counts.named("hidden_copies") == {"add": 1}  # x[:2] twice is two objects
    view = x.T
    cp.exp(view, out=view)
    cp.add(view, 1.0, out=ones(4, 4))
    cp.multiply(x[2:], 2.0, out=x[:2])  # rows lie apart
    assert counts.hidden_copies == 1
    cp.exp(x.T, out=view)
    assert counts.hidden_copies == 2
    cp.multiply(x[:, 2:], 2.0, out=x[:, :2])  # so do columns, but their bounds interlace
    assert counts.hidden_copies == 3


# Products


def test_products_are_those_of_numpy():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    x, y, out = device(a), device(b), device(np.ones((3, 5)))
    for result in (x @ y, cp.matmul(x, y), x.dot(y), cp.matmul(x, y, out=out), x.dot(y, out)):
        np.testing.assert_allclose(result.get(), a @ b, rtol=1e-6)
    assert counts.named("launches") == {"matmul": 3, "dot": 2}
    assert counts.allocations == 3


def test_matmul_takes_out_as_a_keyword_alone():
    x = ones(2, 2)
    with pytest.raises(TypeError):
        cp.matmul(x, x, ones(2, 2))


def test_dot_refuses_an_out_that_is_not_c_contiguous_or_of_another_type():
    x, y = ones(3, 4), ones(4, 5)
    for out in (ones(5, 3).T, ones(3, 10)[:, :5], ones(3, 5, dtype=np.float64)):
        with pytest.raises(ValueError, match=r"C-contiguous|dtype"):
            x.dot(y, out)
    for out in (ones(5, 3), ones(15), ones(3, 6)):
        with pytest.raises(ValueError, match="invalid size"):
            x.dot(y, out)
        with pytest.raises(ValueError, match="invalid size"):
            cp.matmul(x, y, out=out)
    with pytest.raises(TypeError):
        x.dot(y, np.ones((3, 5), np.float32))


def test_products_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="matmul of"):
        cp.matmul(ones(3, 4), ones(3, 4))
    with pytest.raises(ValueError, match="dot of"):
        ones(3, 4).dot(ones(2)[0])


def test_a_product_copies_operands_that_are_not_whole():
    x, out = ones(4, 6), ones(4, 4)
    for whole in (x.T[:, 1:3].T, x[1:3], x.T):  # rows of a C-ordered array, columns of an F-ordered one
        whole.T.dot(whole)
    assert counts.hidden_copies == 0
    cp.matmul(x[:, :4], x[:, 2:].T, out=out)
    assert counts.named("hidden_copies") == {"matmul operand": 2}
    cp.matmul(x, x.T.astype(cp.float64))
    assert counts.hidden_copies == 3


def test_matmul_copies_an_out_that_is_not_c_ordered_or_overlaps():
    x = ones(3, 3)
    transposed = cp.empty((3, 3), cp.float32).T
    cp.matmul(x, x, out=transposed)
    assert counts.named("hidden_copies") == {"matmul out": 1}
    x.dot(ones(3, 3), x)
    cp.matmul(ones(3, 4), ones(4, 3), out=x)
    assert transposed.T.get().sum() == 27
    assert counts.named("hidden_copies") == {"matmul out": 1, "dot out": 1}


def test_a_product_of_one_element_goes_to_cub():
    cp.matmul(ones(1, 4), ones(4, 1), out=ones(1, 1))
    assert (counts.cub, counts.allocations) == (1, 0)


# Reductions and the gather


def test_reductions_keep_the_axis_and_write_to_out():
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    x, column, row = device(a), cp.empty((3, 1), cp.float32), cp.empty((1, 4), cp.float32)
    with counts.measure() as cost:
        cp.sum(x, axis=1, keepdims=True, out=column)
        cp.max(x, axis=0, keepdims=True, out=row)
    assert (cost.launches, cost.allocations, cost.hidden_copies) == (2, 0, 0)
    assert cost.cub == 1  # the sum runs along contiguous memory
    assert column.get().ravel().tolist() == a.sum(1).tolist()
    assert row.get().ravel().tolist() == a.max(0).tolist()
    assert cp.argmax(x, axis=0).get().tolist() == [2, 2, 2, 2]
    assert x.sum().shape == x.max().shape == x.argmax().shape == cp.any(x).shape == cp.all(x).shape == ()
    for wrong in (ones(3), ones(1, 3), ones(4, 1)):
        with pytest.raises(ValueError, match=r"dimension|shape|broadcast"):
            cp.sum(x, axis=1, keepdims=True, out=wrong)
    with pytest.raises(TypeError):
        cp.sum(x, axis=1, out=np.ones(3, np.float32))


@pytest.mark.parametrize("keyword", ["where", "initial", "mode"])
@pytest.mark.parametrize("function", [cp.sum, cp.max, cp.argmax, cp.all, cp.any])
def test_reductions_refuse_unknown_keywords(function, keyword):
    with pytest.raises(TypeError):
        function(ones(3), **{keyword: 1})


def test_max_takes_no_dtype():
    with pytest.raises(TypeError):
        cp.max(ones(3), dtype=cp.float32)


def test_take_wraps_and_knows_no_mode():
    x = device(np.arange(6).reshape(3, 2))
    rows, out = device([0, 4, -1], np.int64), ones(3, 2)
    assert cp.take(x, rows, axis=0, out=out) is out
    assert out.get().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert x[rows].get().tolist() == x.take(rows, 0).get().tolist() == out.get().tolist()
    for indices in ([0], np.array([0]), ones(2)):
        with pytest.raises(TypeError):
            cp.take(x, indices, axis=0)
    with pytest.raises(TypeError):
        cp.take(x, rows, axis=0, mode="clip")
    with pytest.raises(ValueError, match="shape mismatch"):
        cp.take(x, rows, axis=0, out=ones(2, 3))
    with pytest.raises(TypeError, match="dtype mismatch"):
        cp.take(x, rows, axis=0, out=ones(3, 2, dtype=np.float64))


def test_an_index_from_the_host_is_an_upload_nobody_wrote():
    x = ones(3, 2)
    for index in (np.array([0, 1]), [0, 1]):
        assert x[index].shape == (2, 2)
    assert (counts.hidden_copies, counts.uploads, counts.upload_bytes) == (2, 2, 32)
    for mask in (x > 0, np.ones((3, 2), bool), True, (slice(None), [0])):
        with pytest.raises(TypeError):
            x[mask]
    with pytest.raises(TypeError):
        x[device([0], np.int64)] = 1.0
    with pytest.raises(IndexError):
        x[3]


# Views


def test_views_share_memory_and_cost_nothing():
    x = device(np.arange(12).reshape(3, 4))
    views = [x.T, x[1], x[1, 2], x[:, 1:], x[..., None], x.reshape(4, 3), x.reshape((2, -1)), x.view("u4")]
    for view in views:
        assert isinstance(view, cp.ndarray)
        assert 0 <= view.data.ptr - x.data.ptr < x.nbytes
    assert not counts  # not one thing was counted
    x[1, 2] = 50.0
    assert float(x.T[2, 1]) == 50.0
    assert x.T is not x.T
    assert (len(x), x.shape, x.size, x.ndim, x.nbytes, x.itemsize) == (3, (3, 4), 12, 2, 48, 4)


def test_flags_tell_the_order():
    x = ones(3, 4)
    assert [(v.flags.c_contiguous, v.flags.f_contiguous) for v in (x, x.T, x[:, :2], x[:1])] == [
        (True, False),
        (False, True),
        (False, False),
        (True, True),
    ]


def test_reshape_copies_where_no_view_will_do():
    ones(3, 4).T.reshape(12)
    assert counts.named("hidden_copies") == {"reshape": 1}


def test_assigning_copies_an_overlapping_source_unless_both_are_contiguous():
    x = device(np.arange(4))
    x[...] = x
    x[1:] += 1.0
    assert counts.hidden_copies == 0
    x[...] = x[::-1]
    assert counts.named("hidden_copies") == {"setitem": 1}
    assert x.get().tolist() == [4, 3, 2, 0]
    x[1:] = x[:-1]  # one range of memory to another: CUDA leaves open what comes of it
    assert x.get()[0] == 4 and np.isnan(x.get()[1:]).all()


# Counts


def test_uploads_and_allocations():
    x = cp.asarray(np.ones((2, 3), np.float32), dtype=np.float64)
    assert (counts.uploads, counts.upload_bytes) == (counts.allocations, counts.allocation_bytes) == (1, 48)
    assert cp.asarray(x) is cp.asarray(x, dtype="float64") is x.astype(float, copy=False) is x
    assert (counts.uploads, counts.allocations) == (1, 1)
    cp.asarray(x, dtype=cp.float32)
    cp.array(x)
    assert (counts.uploads, counts.allocations) == (1, 3)
    cp.asarray([1.0])
    cp.asarray(2)
    assert (counts.uploads, counts.allocations) == (3, 5)
    with pytest.raises(ValueError, match="Unsupported dtype"):
        cp.asarray(np.array(["a"]))


def test_an_upload_copies_and_keeps_f_order():
    host = np.ones((2, 3), np.float32)
    x, f = cp.asarray(host), cp.asarray(host.T)
    host[...] = 0.0
    assert x.get().sum() == 6
    assert f.flags.f_contiguous
    assert cp.asarray(np.ones((4, 4))[:, :2]).flags.c_contiguous


def test_every_way_to_the_host_is_a_read():
    x, zero = ones(2, 3), device(6.0)
    ways = [
        lambda: x.get(),
        lambda: cp.asnumpy(x),
        lambda: repr(x),
        lambda: float(zero),
        lambda: int(zero),
        lambda: bool(zero),
        lambda: zero.item(),
        lambda: f"{zero:.2f}",
        lambda: iter(x),
        lambda: 6 in [zero],
    ]
    for n, way in enumerate(ways, start=1):
        way()
        assert counts.reads == n
    assert counts.read_bytes == 3 * x.nbytes + 5 * zero.nbytes + 1  # `in` reads one boolean
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(ValueError, match="size 1"):
        x.item()
    with pytest.raises(TypeError, match="0-d"):
        iter(zero)
    assert counts.reads == len(ways)
    assert cp.asnumpy(np.ones(2)).sum() == 2
    assert counts.reads == len(ways)


def test_reading_an_array_that_is_not_c_ordered_copies_it_first():
    assert ones(2, 3).T.get().flags.c_contiguous
    assert counts.named("hidden_copies") == {"get": 1}


def test_a_call_with_out_allocates_nothing_and_one_without_does():
    x = ones(8)
    cp.exp(x, out=x)
    x *= 2.0
    assert (counts.allocations, counts.launches) == (0, 2)
    cp.exp(x)
    x + 1.0
    assert (counts.allocations, counts.allocation_bytes) == (2, 64)
    assert counts.named("launches") == {"exp": 2, "multiply": 1, "add": 1}


def test_everything_that_runs_a_kernel_is_a_launch_by_its_name():
    x = ones(2)
    x[:1] = x[1:]
    x[...] = 1.0
    cp.concatenate([x.copy(), x.astype(cp.float64)])
    cp.take(cp.zeros(3), cp.arange(2), axis=0)
    expected = {"copy": 2, "fill": 2, "astype": 1, "concatenate": 1, "take": 1, "arange": 1}
    assert counts.named("launches") == expected
    assert counts.launches == 8
    assert counts.allocations == 6


def test_measure_counts_its_block_alone():
    x = ones(2)
    cp.exp(x)
    with counts.measure() as cost:
        cp.exp(x)
        cp.exp(x, out=x)
    assert (cost.launches, cost.allocations, cost.reads) == (2, 1, 0)
    assert cost.named("launches") == {"exp": 2}
    assert counts.launches == 3
    counts.reset()
    assert counts.launches == 0
    with pytest.raises(AttributeError, match="nothing named"):
        _ = counts.launch


def test_what_nobody_wrote_is_poisoned():
    assert np.isnan(cp.empty((2, 3)).get()).all()
    assert np.isnan(cp.empty(2, cp.float32).get()).all()
    assert cp.empty(2, cp.uint32).get().tolist() == [0xA5A5A5A5] * 2
    assert cp.empty((), cp.uint8).item() == 0xA5
    assert counts.allocations == 4


def test_makers_and_the_rest():
    assert cp.zeros(2).dtype == cp.ones((2,)).dtype == np.float64
    assert cp.full((2,), 3, cp.uint8).get().tolist() == [3, 3]
    assert cp.arange(3, dtype=cp.int32).get().tolist() == [0, 1, 2]
    assert cp.concatenate([ones(1), ones(2)]).shape == (3,)
    x = ones(2, 3)
    assert cp.ascontiguousarray(x) is x
    assert cp.ascontiguousarray(x.T).flags.c_contiguous
    assert x.copy().data.ptr != x.data.ptr
    assert [float(-x[0, 0]), float(x[0, 0] // 2), float(3 - x[0, 0])] == [-1, 0, 2]
    assert isinstance(cp.cuda, types.SimpleNamespace)


# The fixtures


def test_backend_fixture(backend, request):
    user = np.ones((2, 3))
    x = backend.to_device(user)
    assert backend.owns(x)
    assert x.dtype == backend.dtype
    if "cpu-readonly" in request.node.name:
        with pytest.raises(ValueError, match="read-only"):
            x[...] = 0.0
    user[...] = 2.0  # the user's own array stays writeable
    assert counts.uploads == ("fake-gpu" in request.node.name)


def test_single_fixtures(fake_gpu, float64_cpu):
    assert fake_gpu.xp is cp
    assert fake_gpu.dtype == np.float32
    assert float64_cpu.dtype == np.float64
    assert not counts


def test_from_dlpack_takes_what_lies_on_the_device_and_copies_nothing():
    x = ones(2, 3)
    with counts.measure() as cost:
        y = cp.from_dlpack(x)
    assert y.data.ptr == x.data.ptr and y.__dlpack_device__() == (2, 0) and not cost
    with pytest.raises(TypeError, match="does not lie on the GPU"):
        cp.from_dlpack(np.ones(2))
