"""Dataset: what it stores, what it refuses and in which words, and how it is divided and uploaded."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusal, says

import xpnet
from xpnet.data import checks as data_checks
from xpnet.data import dataset as data
from xpnet.data.dataset import Dataset, standardize


def uniform(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).random(shape).astype(dtype)


def test_import_is_light():
    heavy = ["cupy", "pooch", "requests", "tqdm", "safetensors", "scipy", "pandas", "matplotlib", "numba"]
    code = f"import sys, xpnet.data.dataset, xpnet.datasets; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Storage


def test_one_sample_is_one_column_and_contiguous():
    X, Y = uniform(3, 7), uniform(2, 7)
    dataset = Dataset(X, Y)
    assert (dataset.n_features, dataset.n_outputs, dataset.n_samples, len(dataset)) == (3, 2, 7, 7)
    np.testing.assert_array_equal(dataset.X, X)
    np.testing.assert_array_equal(dataset.Y, Y)
    assert dataset.samples.shape == (7, 3) and dataset.samples.flags.c_contiguous
    assert dataset.targets.shape == (7, 2) and dataset.targets.flags.c_contiguous
    assert np.shares_memory(dataset.X, dataset.samples) and np.shares_memory(dataset.Y, dataset.targets)
    assert dataset.weights is None and dataset.scale is None


def test_sample_contiguous_input_is_not_copied_and_stays_writeable():
    rows, targets, weights = uniform(7, 3), uniform(7, 2), uniform(7)
    dataset = Dataset(rows.T, targets.T, weights)
    assert np.shares_memory(dataset.X, rows)
    assert np.shares_memory(dataset.Y, targets)
    assert np.shares_memory(dataset.weights, weights)
    assert rows.flags.writeable and targets.flags.writeable and weights.flags.writeable


def test_stored_arrays_are_read_only_and_attributes_fixed():
    dataset = Dataset(uniform(3, 7), uniform(2, 7), np.ones(7))
    for array in (dataset.X, dataset.Y, dataset.weights, dataset.samples, dataset.targets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError):
        dataset.X = uniform(3, 7)


def test_an_array_that_must_be_copied_is_left_alone():
    X = uniform(3, 7)
    dataset = Dataset(X, uniform(7))
    assert not np.shares_memory(dataset.X, X)
    X[0, 0] = 99
    assert dataset.X[0, 0] != 99 and X.flags.writeable


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("uint8", "uint8"),
        ("float32", "float32"),
        ("float64", "float64"),
        (">f4", "float32"),
        (">f8", "float64"),
        ("longdouble", "float64"),
        ("float16", "float32"),
        ("bool", "float32"),
        ("int8", "float32"),
        ("uint16", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
    ],
)
def test_feature_types(given, stored):
    X = np.array([[0, 1, 1], [1, 0, 1]]).astype(given)
    dataset = Dataset(X, [0.5, 1, 2])
    assert dataset.X.dtype == np.dtype(stored) and dataset.X.dtype.isnative
    np.testing.assert_array_equal(dataset.X, X)


@pytest.mark.parametrize(
    ("Y", "stored"),
    [
        (np.array([0.5, 1.5]), "float64"),
        (np.array([0.5, 1.5], np.float32), "float32"),
        (np.array([0.5, 1.5], np.float16), "float32"),
        (np.array([True, False]), "float32"),
        (np.array([3, -4]), "float32"),
        (np.array([3, 2**24]), "float32"),
        (np.array([3, 2**24 + 1]), "float64"),
        (np.array([-(2**24) - 1, 0]), "float64"),
        (np.array([3, 200], np.uint8), "float32"),
    ],
)
def test_target_types_keep_the_values(Y, stored):
    dataset = Dataset(uniform(3, 2), Y)
    assert dataset.Y.dtype == np.dtype(stored) and dataset.Y.shape == (1, 2)
    np.testing.assert_array_equal(dataset.Y[0], Y)


def test_lists_are_read():
    assert Dataset([[1, 2, 3]], [[4, 5, 6]]).X.shape == (1, 3)


def test_uint8_carries_a_scale():
    X = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert Dataset(X, np.ones(3)).scale == 1 / 255
    assert Dataset(X, np.ones(3), scale=0.5).scale == 0.5


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf])
def test_scale_must_be_a_finite_number_above_zero(scale):
    with pytest.raises(ValueError) as error:
        Dataset(np.zeros((2, 3), np.uint8), np.ones(3), scale=scale)
    says(error, f"scale is {scale!r}", "finite number above 0", "scale=1/255")


def test_scale_is_for_uint8_only():
    with pytest.raises(ValueError) as error:
        Dataset(uniform(2, 3), np.ones(3), scale=0.5)
    says(error, "scale is 0.5", "float32", "uint8 only", "Leave it out")


def test_repr_names_shapes_types_and_extras():
    assert repr(Dataset(uniform(3, 7), uniform(2, 7))) == "Dataset(X (3, 7) float32, Y (2, 7) float32)"
    weighted = Dataset.from_labels(np.zeros((3, 2), np.uint8), [0, 1], weights=np.ones(2))
    text = "Dataset(X (3, 2) uint8 x 0.00392157, Y (2, 2) float32, classes, weights float64)"
    assert repr(weighted) == text


# Refusals


@pytest.mark.parametrize(
    ("X", "Y", "parts"),
    [
        (
            np.zeros((60, 7)),
            np.zeros((10, 60)),
            ["X looks row-wise: X is (60, 7)", "one sample is one column", "pass X.T"],
        ),
        (np.zeros((60, 7)), np.zeros(60), ["X is (60, 7)", "60 samples", "pass X.T"]),
        (
            np.zeros((7, 60)),
            np.zeros((60, 10)),
            ["Y looks row-wise: Y is (60, 10)", "one sample is one column", "pass Y.T"],
        ),
        (np.zeros((60, 7)), np.zeros((60, 10)), ["X is (60, 7)", "Y is (60, 10)", "pass X.T and Y.T"]),
        (
            np.zeros((7, 60)),
            np.zeros((1, 59)),
            ["60 and 59 samples", "one column of Y for each column of X", "Pass as many"],
        ),
        (np.zeros(5), np.zeros(5), ["X is (5,)", "(n_features, n_samples)", "One sample: pass X.reshape(-1, 1)"]),
        (np.zeros((28, 28, 60)), np.zeros(60), ["X is (28, 28, 60)", "X.reshape(-1, 60)"]),
        (np.zeros((60, 28, 28)), np.zeros(60), ["X is (60, 28, 28)", "X.reshape(60, -1).T"]),
        (np.zeros((3, 5)), np.zeros((1, 1, 5)), ["Y is (1, 1, 5)", "(n_outputs, n_samples)", "Y.reshape"]),
        (np.zeros((3, 0)), np.zeros(0), ["X is (3, 0)", "needs at least one sample", "Check the selection or file"]),
        (np.zeros((0, 5)), np.zeros(5), ["X is (0, 5)", "one feature"]),
        (np.zeros((3, 5)), np.zeros((0, 5)), ["Y is (0, 5)", "one output"]),
    ],
)
def test_shapes_that_do_not_fit(X, Y, parts):
    with pytest.raises(ValueError) as error:
        Dataset(X, Y)
    says(error, *parts)


@pytest.mark.parametrize("bad", [np.zeros((2, 3), complex), np.array([["a", "b", "c"]] * 2), np.array([[{}] * 3] * 2)])
def test_only_real_numbers(bad):
    with pytest.raises(TypeError) as error:
        Dataset(bad, np.ones(3))
    says(error, f"X has dtype {bad.dtype}", "real numbers", "np.asarray(X")
    with pytest.raises(TypeError) as error:
        Dataset(uniform(4, 3), bad)
    says(error, f"Y has dtype {bad.dtype}", "real numbers", "np.asarray(Y")


def test_ragged_lists_are_refused():
    with pytest.raises(TypeError) as error:
        Dataset([[1, 2], [3]], [1, 2])
    says(error, "X is a list", "needs an array of real numbers", "Pass a NumPy array")


def test_device_arrays_are_refused():
    on_device = SimpleNamespace(__cuda_array_interface__={})
    with pytest.raises(TypeError) as error:
        Dataset(on_device, [1])
    says(error, "in GPU memory", "host memory", "X.get()")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_located(value):
    X = uniform(5, 40)
    X[4, 17] = X[2, 30] = value
    with pytest.raises(ValueError) as error:
        Dataset(X, np.ones(40))
    says(error, "X holds 2 values", "feature 4, sample 17", "finite", "np.isfinite(X).all(axis=0)")
    Y = uniform(2, 40)
    Y[1, 3] = value
    with pytest.raises(ValueError) as error:
        Dataset(uniform(5, 40), Y)
    says(error, "Y holds 1 value that is", "output 1, sample 3", "np.isfinite(Y)")


def test_nan_is_found_beyond_the_first_block_without_a_full_size_temporary():
    n_features, n_samples = 64, 3 * data_checks.PIECE // 64
    rows = np.zeros((n_samples, n_features), np.float32)
    rows[-1, 63] = rows[-2, 5] = np.nan
    targets = np.zeros(n_samples, np.float32)
    tracemalloc.start()
    with pytest.raises(ValueError) as error:
        Dataset(rows.T, targets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * data_checks.PIECE  # np.isfinite of all would take 3 blocks of one byte an element
    says(error, "X holds 2 values", f"feature 5, sample {n_samples - 2}")


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (np.ones(2), ["weights is (2,)", "needs (3,)", "one weight for each column"]),
        (np.ones((1, 3)), ["weights is (1, 3)", "needs (3,)", "weights.ravel()"]),
        ([1, -2, -3], ["-2.0 at sample 1 (2 such", "at least 0", "weight 0"]),
        ([1, 1, np.nan], ["nan at sample 2", "finite"]),
        ([1, np.inf, 1], ["inf at sample 1", "finite"]),
        ([0, 0, 0], ["all zero", "at least one must be above 0", "Leave weights out"]),
    ],
)
def test_bad_weights(weights, parts):
    with pytest.raises(ValueError) as error:
        Dataset(uniform(2, 3), np.ones(3), weights)
    says(error, *parts)


@pytest.mark.parametrize(("given", "stored"), [("float32", "float32"), ("float64", "float64"), ("uint8", "float32")])
def test_weights_keep_their_float_type(given, stored):
    weights = np.array([0, 1, 2], given)
    dataset = Dataset(uniform(2, 3), np.ones(3), weights)
    assert dataset.weights.dtype == np.dtype(stored)
    np.testing.assert_array_equal(dataset.weights, weights)


# Labels and classes


def test_from_labels_makes_one_hot_columns():
    dataset = Dataset.from_labels(uniform(2, 4), [2, 0, 1, 2])
    expected = [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]]
    np.testing.assert_array_equal(dataset.Y, expected)
    assert dataset.Y.dtype == np.float32 and dataset.is_classification
    np.testing.assert_array_equal(dataset.labels, [2, 0, 1, 2])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.uint64, np.float16, np.float64])
def test_labels_of_any_real_type(dtype):
    labels = np.array([1, 0, 1], dtype)
    dataset = Dataset.from_labels(uniform(2, 3), labels, n_classes=300)
    assert dataset.n_outputs == 300
    np.testing.assert_array_equal(dataset.labels, [1, 0, 1])


def test_n_classes_is_at_least_two():
    assert Dataset.from_labels(uniform(2, 3), [0, 0, 0]).n_outputs == 2
    with pytest.raises(ValueError) as error:
        Dataset.from_labels(uniform(2, 3), [0, 0, 0], n_classes=1)
    says(error, "n_classes is 1", "at least 2", "n_classes=2")
    with pytest.raises(TypeError) as error:
        Dataset.from_labels(uniform(2, 3), [0, 0, 0], n_classes=3.0)
    says(error, "n_classes is 3.0", "whole number", "Pass an int")


def test_from_labels_hands_on_weights_and_scale():
    dataset = Dataset.from_labels(np.zeros((2, 2), np.uint8), [0, 1], weights=[1, 2], scale=0.5)
    assert dataset.scale == 0.5
    np.testing.assert_array_equal(dataset.weights, [1, 2])


@pytest.mark.parametrize(
    ("labels", "n_classes", "kind", "parts"),
    [
        (
            [0, 1, 9, 10],
            10,
            ValueError,
            ["label 10 at sample 3", "n_classes=10 allows 0 to 9", "Pass n_classes=11 or more"],
        ),
        ([0, -1, 1, 1], None, ValueError, ["label -1 at sample 1", "whole numbers from 0", "np.unique"]),
        ([0, 1, 1.5, 1], None, ValueError, ["label 1.5 at sample 2", "whole numbers", "Dataset(X, Y)"]),
        ([0, 1, np.nan, 1], None, ValueError, ["label nan at sample 2", "whole numbers"]),
        ([0, 1, np.inf, 1], None, ValueError, ["label inf at sample 2", "whole numbers"]),
        ([0, 1, 10**9, 1], None, ValueError, ["largest label 1000000000", "GiB", "limit is 1 GiB", "np.unique"]),
        ([0, 1, 1e300, 1], None, ValueError, ["limit is 1 GiB"]),
        ([0, 1, 2, 1], 10**9, ValueError, ["1000000000 classes", "limit is 1 GiB"]),
        (["a", "b", "a", "b"], None, TypeError, ["labels have dtype <U1", "whole numbers", "np.unique"]),
        ([[0, 1, 0, 1]], None, ValueError, ["labels is (1, 4)", "(n_samples,)", "labels.ravel()"]),
        ([], None, ValueError, ["labels is (0,)", "one label a sample"]),
    ],
)
def test_bad_labels(labels, n_classes, kind, parts):
    with pytest.raises(kind) as error:
        Dataset.from_labels(uniform(2, 4), labels, n_classes)
    says(error, *parts)


def test_labels_and_rows_where_columns_are_expected():
    with pytest.raises(ValueError) as error:
        Dataset.from_labels(np.zeros((60, 7)), np.zeros(60, int), n_classes=10)
    says(error, "X is (60, 7); one sample is one column: pass X.T")


@pytest.mark.parametrize(
    ("Y", "expected"),
    [
        ([[1, 0, 0], [0, 1, 1]], True),
        ([[1, 0, 0], [0, 1, 0]], False),  # a column of zeros
        ([[1, 1, 0], [0, 1, 1]], False),  # two ones
        ([[0.9, 0, 1], [0.1, 1, 0]], False),
        ([[2, 0, 1], [-1, 1, 0]], False),
        ([[0, 1, 1]], True),
        ([[0, 1, 2]], False),
    ],
)
def test_is_classification(Y, expected):
    assert Dataset(uniform(2, 3), Y).is_classification is expected


def test_labels_of_one_output_and_without_classes():
    np.testing.assert_array_equal(Dataset(uniform(2, 3), [0, 1, 1]).labels, [0, 1, 1])
    with pytest.raises(ValueError) as error:
        Dataset(uniform(2, 3), [0, 1, 2]).labels  # noqa: B018
    says(error, "Y is (1, 3)", "one-hot", "Dataset.from_labels(X, labels)")


# Parts


def numbered(n_samples, n_classes=3, **more):
    """A dataset whose feature 0 is the sample's number and whose label is that number modulo n_classes."""
    X = np.stack([np.arange(n_samples), np.ones(n_samples)]).astype(np.float32)
    return Dataset.from_labels(X, np.arange(n_samples) % n_classes, n_classes, **more)


def numbers(dataset):
    return dataset.X[0].astype(int).tolist()


def test_subset_by_slice_is_a_view_and_by_indices_a_copy():
    dataset = numbered(10, weights=np.arange(10.0))
    part = dataset.subset(slice(-3, None))
    assert numbers(part) == [7, 8, 9] and part.n_outputs == 3
    assert np.shares_memory(part.samples, dataset.samples)
    np.testing.assert_array_equal(part.weights, [7, 8, 9])
    for chosen in ([4, 4, -1, 0], np.array([4, 4, 9, 0], np.uint8)):
        part = dataset.subset(chosen)
        assert numbers(part) == [4, 4, 9, 0]
        np.testing.assert_array_equal(part.labels, [1, 1, 0, 0])
        assert part.samples.flags.c_contiguous and not part.X.flags.writeable
    reverse = dataset.subset(slice(None, None, -1))
    assert numbers(reverse) == list(range(9, -1, -1)) and reverse.samples.flags.c_contiguous


def test_subset_keeps_the_scale_and_finds_classes_anew():
    bytes_ = Dataset(np.arange(8, dtype=np.uint8).reshape(2, 4), [0, 1, 2, 0], scale=0.5)
    assert not bytes_.is_classification
    part = bytes_.subset([0, 1])
    assert part.scale == 0.5 and part.X.dtype == np.uint8 and part.is_classification


@pytest.mark.parametrize(
    ("indices", "kind", "parts"),
    [
        ([0, 10], ValueError, ["index 10", "10 samples", "0 to 9"]),
        ([0, -11], ValueError, ["index -11", "10 samples"]),
        ([], ValueError, ["subset([])", "holds no sample", "choose at least one of the 10"]),
        (slice(5, 5), ValueError, ["slice(5, 5, None)", "holds no sample"]),
        ([0.0, 1.0], TypeError, ["float64", "integers", "np.flatnonzero(mask)"]),
        (np.ones(10, bool), TypeError, ["bool", "np.flatnonzero(mask)"]),
        (3, TypeError, ["shape ()", "[i] for one sample"]),
        ([0, 1], ValueError, ["weights of the 2 samples", "all zero", "Choose other samples"]),
    ],
)
def test_bad_subsets(indices, kind, parts):
    dataset = numbered(10, weights=np.repeat([0.0, 1.0], 5))
    with pytest.raises(kind) as error:
        dataset.subset(indices)
    says(error, *parts)


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize(("fraction", "n_held_out"), [(0.1, 4), (0.5, 20), (0.001, 1), (0.999, 39)])
def test_split_divides_all_samples(fraction, n_held_out, stratify):
    dataset = numbered(40, weights=np.arange(1, 41.0))
    train, held_out = dataset.split(fraction, seed=3, stratify=stratify)
    assert (len(train), len(held_out)) == (40 - n_held_out, n_held_out)
    assert sorted(numbers(train) + numbers(held_out)) == list(range(40))
    assert numbers(train) == sorted(numbers(train))
    np.testing.assert_array_equal(held_out.weights, held_out.X[0] + 1)
    np.testing.assert_array_equal(held_out.labels, held_out.X[0] % 3)


def test_split_is_decided_by_its_seed():
    dataset = numbered(100)
    assert numbers(dataset.split(0.2, seed=1)[1]) == numbers(dataset.split(0.2, seed=1)[1])
    assert numbers(dataset.split(0.2, seed=1)[1]) != numbers(dataset.split(0.2, seed=2)[1])


def test_split_of_a_count_written_as_a_fraction_is_exact():
    dataset = Dataset(np.zeros((1, 60000), np.uint8), np.zeros(60000))
    assert [len(part) for part in dataset.split(10000 / 60000)] == [50000, 10000]


def test_stratified_split_keeps_proportions_by_largest_remainder():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 33, 17]))
    dataset = Dataset.from_labels(uniform(2, 100), labels)
    _, held_out = dataset.split(0.3, stratify=True)
    # 15, 9.9 and 5.1: the largest remainder gets the one that is left
    assert np.bincount(held_out.labels).tolist() == [15, 10, 5]
    binary = Dataset(uniform(2, 100), (labels == 0).astype(int))
    _, held_out = binary.split(0.1, stratify=True)
    assert np.bincount(held_out.labels).tolist() == [5, 5]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 10000, np.nan])
def test_split_needs_a_fraction(fraction):
    with pytest.raises(ValueError) as error:
        numbered(10).split(fraction)
    says(error, f"fraction is {fraction!r}", "between 0 and 1", "fraction=n / 10")


def test_other_bad_splits():
    with pytest.raises(ValueError) as error:
        numbered(1).split(0.5)
    says(error, "has 1 sample", "at least 2", "Add samples")
    with pytest.raises(ValueError) as error:
        Dataset(uniform(2, 9), uniform(9)).split(0.5, stratify=True)
    says(error, "stratify=True needs classes", "Y (1, 9) holds none", "stratify=False")
    with pytest.raises(ValueError) as error:
        numbered(9).split(0.5, seed=-1)
    says(error, "seed is -1", "at least 0", "seed=0")
    with pytest.raises(TypeError) as error:
        numbered(9).split(0.5, seed=None)
    says(error, "seed is None", "whole number", "Pass an int")


def test_batches_in_order_cover_everything_and_the_last_is_short():
    dataset = numbered(10)
    batches = list(dataset.batches(4))
    assert [(X.shape, Y.shape) for X, Y in batches] == [((2, 4), (3, 4)), ((2, 4), (3, 4)), ((2, 2), (3, 2))]
    np.testing.assert_array_equal(np.concatenate([X for X, _ in batches], axis=1), dataset.X)
    np.testing.assert_array_equal(np.concatenate([Y for _, Y in batches], axis=1), dataset.Y)
    assert len(list(dataset.batches(1000))) == 1


def test_batches_shuffled_by_a_seed_keep_samples_together():
    dataset = numbered(10, weights=np.arange(1, 11.0))
    batches = list(dataset.batches(3, seed=5))
    order = np.concatenate([X[0] for X, _, _ in batches]).astype(int)
    assert sorted(order) == list(range(10)) and list(order) != list(range(10))
    np.testing.assert_array_equal(np.concatenate([Y.argmax(axis=0) for _, Y, _ in batches]), order % 3)
    np.testing.assert_array_equal(np.concatenate([weights for _, _, weights in batches]), order + 1)
    again = np.concatenate([X[0] for X, _, _ in dataset.batches(3, seed=5)])
    np.testing.assert_array_equal(order, again)


@pytest.mark.parametrize("seed", [None, 0])
def test_batches_of_bytes_come_scaled(seed):
    dataset = Dataset(np.array([[0, 51, 255]], np.uint8), np.ones(3))
    ((X, _),) = dataset.batches(3, seed)
    assert X.dtype == np.float32
    np.testing.assert_allclose(np.sort(X[0]), [0, 0.2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("batch_size", "seed", "kind", "parts"),
    [
        (0, None, ValueError, ["batch_size is 0", "at least 1", "batch_size=1"]),
        (2.0, None, TypeError, ["batch_size is 2.0 (float)", "whole number", "Pass an int"]),
        (True, None, ValueError, ["batch_size is True"]),
        (2, -1, ValueError, ["seed is -1", "at least 0"]),
    ],
)
def test_batches_refuse_at_the_call(batch_size, seed, kind, parts):
    with pytest.raises(kind) as error:
        numbered(10).batches(batch_size, seed)
    says(error, *parts)


# standardize


def test_standardize_uses_the_mean_and_deviation_of_train():
    X, other = uniform(4, 50, dtype=np.float64), uniform(4, 20, dtype=np.float64, seed=1)
    train, test = standardize(Dataset(X, np.ones(50)), Dataset(other, np.zeros(20), np.ones(20)))
    mean, deviation = X.mean(axis=1, keepdims=True), X.std(axis=1, keepdims=True)
    np.testing.assert_allclose(train.X, (X - mean) / deviation, atol=1e-13)
    np.testing.assert_allclose(test.X, (other - mean) / deviation, atol=1e-13)
    assert train.X.dtype == np.float64
    np.testing.assert_array_equal(test.Y, np.zeros((1, 20)))
    np.testing.assert_array_equal(test.weights, np.ones(20))


def test_standardize_always_returns_a_tuple():
    result = standardize(Dataset(uniform(4, 50), np.ones(50)))
    assert isinstance(result, tuple) and len(result) == 1 and result[0].X.dtype == np.float32


def test_standardize_only_centres_a_constant_feature():
    constant = np.full(1001, 0.1)  # its mean, summed, is not exactly 0.1
    X = np.stack([constant, np.arange(1001.0)])
    (train, test) = standardize(Dataset(X, np.ones(1001)), Dataset([[0.6], [500.0]], [1]))
    np.testing.assert_array_equal(train.X[0], 0)
    np.testing.assert_allclose(test.X[:, 0], [0.5, 0])


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e160, 4e307])
def test_standardize_in_every_unit(unit):
    """Neither sums nor squares leave the range of floats."""
    X = np.array([[1.0, 2.0, 3.0, 4.0], [-4.0, 4.0, 4.0, -4.0]])
    (found,) = standardize(Dataset(unit * X, np.ones(4)))
    np.testing.assert_allclose(found.X, [np.array([-3, -1, 1, 3]) / np.sqrt(5), [-1, 1, 1, -1]], rtol=1e-12)


def test_standardize_scales_bytes_first():
    X = np.random.default_rng(0).integers(0, 256, (3, 100), dtype=np.uint8)
    floats = Dataset((X / 255).astype(np.float64), np.ones(100))
    from_bytes, from_floats = standardize(Dataset(X, np.ones(100)), floats)
    assert from_bytes.X.dtype == np.float32 and from_bytes.scale is None
    np.testing.assert_allclose(from_bytes.X, from_floats.X, atol=1e-6)


def test_standardize_over_several_blocks(monkeypatch):
    X = uniform(3, 50, dtype=np.float64)
    (whole,) = standardize(Dataset(X, np.ones(50)))
    monkeypatch.setattr(data, "PIECE", 10)
    (blocks,) = standardize(Dataset(X, np.ones(50)))
    np.testing.assert_allclose(blocks.X, whole.X, atol=1e-13)


def test_standardize_needs_the_same_features():
    with pytest.raises(ValueError) as error:
        standardize(Dataset(uniform(4, 5), np.ones(5)), Dataset(uniform(3, 5), np.ones(5)))
    says(error, "others[0] has 3 features", "train has 4", "Pass datasets made from the same columns")


# upload


def fake_backend(device="cpu", dtype=np.float32):
    """NumPy behind the three attributes that upload uses; as "cuda" it copies always, as a device would."""
    dtype = np.dtype(dtype)

    def to_device(array, dtype_wanted=None):
        dtype_wanted = dtype if dtype_wanted is None else dtype_wanted
        return np.array(array, dtype_wanted) if device == "cuda" else np.asarray(array, dtype_wanted)

    return SimpleNamespace(device=device, dtype=dtype, to_device=lambda array, dtype=None: to_device(array, dtype))


def test_upload_to_the_cpu_copies_nothing_and_counts_nothing():
    dataset = Dataset(uniform(3, 7), uniform(2, 7), uniform(7))
    uploaded = dataset.upload(fake_backend())
    assert uploaded.X.shape == (7, 3) and uploaded.Y.shape == (7, 2) and uploaded.weights.shape == (7, 1)
    assert np.shares_memory(uploaded.X, dataset.samples)
    assert np.shares_memory(uploaded.Y, dataset.targets)
    # relative weights: means are the same, and no scale of them leaves float32's range
    np.testing.assert_allclose(uploaded.weights[:, 0], dataset.weights / dataset.weights.mean(), rtol=1e-6)
    assert (uploaded.n_samples, uploaded.nbytes, uploaded.scale) == (7, 0, None)


def test_upload_keeps_bytes_and_casts_the_rest():
    dataset = Dataset(np.zeros((3, 7), np.uint8), np.ones(7))
    uploaded = dataset.upload(fake_backend(dtype=np.float64))
    assert uploaded.X.dtype == np.uint8 and np.shares_memory(uploaded.X, dataset.samples)
    assert uploaded.Y.dtype == np.float64 and uploaded.weights is None and uploaded.scale == 1 / 255


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("X_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("weights", [None, np.ones(7)])
def test_upload_to_a_device_counts_the_bytes(dtype, X_dtype, weights):
    dataset = Dataset(np.zeros((3, 7), X_dtype), np.ones((2, 7)), weights)
    uploaded = dataset.upload(fake_backend("cuda", dtype))
    arrays = [array for array in (uploaded.X, uploaded.Y, uploaded.weights) if array is not None]
    assert uploaded.nbytes == sum(array.nbytes for array in arrays)
    assert all(array.flags.c_contiguous for array in arrays)


# Class weights


LABELS = [0, 0, 0, 1, 2, 2, 0, 2, 0, 0]


@pytest.mark.parametrize(
    ("class_weight", "weights"),
    [
        # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=LABELS), of scikit-learn 1.9
        ("balanced", [0.5555555555555556, 3.3333333333333335, 1.1111111111111112]),
        ({1: 5.0}, [1, 5, 1]),
        ({0: 0.5, 2: 0}, [0.5, 1, 0]),
        ([1, 2.5, 3], [1, 2.5, 3]),
    ],
    ids=str,
)
def test_class_weights(class_weight, weights):
    dataset = Dataset.from_labels(np.ones((2, 10)), LABELS)
    found = dataset.with_class_weight(class_weight)
    np.testing.assert_allclose(found.weights, np.array(weights)[LABELS], rtol=1e-15)
    assert dataset.weights is None and np.shares_memory(found.X, dataset.X)
    halves = Dataset.from_labels(np.ones((2, 10)), LABELS, weights=np.full(10, 0.5)).with_class_weight(class_weight)
    np.testing.assert_allclose(halves.weights, found.weights / 2, rtol=1e-15)


def test_balanced_classes_weigh_the_same():
    """Sample weights count as repetitions, and a class that does not occur has no part."""
    w = np.array([1, 2, 0, 1, 1, 1, 3, 1, 1, 1], float)
    weighted = Dataset.from_labels(np.ones((2, 10)), LABELS, 4, weights=w).with_class_weight("balanced").weights
    sums = np.bincount(LABELS, weighted)
    np.testing.assert_allclose(sums, w.sum() / 3, rtol=1e-15)
    huge = Dataset.from_labels(np.ones((2, 10)), LABELS, 4, weights=1e307 * w).with_class_weight("balanced").weights
    np.testing.assert_allclose(huge, 1e307 * weighted, rtol=1e-12)  # though their sum is beyond all floats
    one_output = Dataset(np.ones((2, 4)), [0, 1, 1, 1]).with_class_weight("balanced").weights
    np.testing.assert_allclose(one_output, [2, 2 / 3, 2 / 3, 2 / 3], rtol=1e-15)
    np.testing.assert_array_equal(
        one_output, Dataset(np.ones((2, 4)), [0, 1, 1, 1]).with_class_weight([2, 2 / 3]).weights
    )


@pytest.mark.parametrize(
    ("class_weight", "parts"),
    [
        ("balansed", ["class_weight is 'balansed'", "did you mean 'balanced'?"]),
        ({1: float("nan")}, ["class_weight[1] is nan", "finite number of at least 0", "class_weight={1: 1.0}"]),
        ([1, -2.5, 1], ["class_weight[1] is -2.5", "of at least 0"]),
        ({3: 1.0}, ["class_weight has the label 3", "Y holds the labels 0 to 2", "leave it out"]),
        ({"a": 1.0}, ["the label 'a'", "0 to 2"]),
        ([1, 2], ["class_weight is (2,)", "it must be (3,)", "pass a dict"]),
        ([1, -2, 1], ["weight"]),
        ({0: float("nan")}, ["weight"]),
        ({0: 0, 1: 0, 2: 0}, ["weight", "zero"]),
    ],
    ids=str,
)
def test_class_weights_that_cannot_be(class_weight, parts):
    with pytest.raises(ValueError) as error:
        Dataset.from_labels(np.ones((2, 10)), LABELS).with_class_weight(class_weight)
    says(error, *parts)
    with pytest.raises(ValueError) as error:
        Dataset(np.ones((2, 3)), [0.5, 1, 2]).with_class_weight(class_weight)
    says(error, "holds no classes", "Dataset.from_labels")


@pytest.mark.filterwarnings("ignore")
def test_what_a_masked_array_hides_is_not_used():
    """NumPy's own functions leave hidden values out; a conversion would show them."""
    hidden = np.ma.masked_greater(np.arange(6.0).reshape(2, 3), 4.0)
    shown = np.ma.masked_array(np.arange(6.0).reshape(2, 3))
    network = xpnet.Network([2, 1], loss="squared_error", backend=xpnet.select_backend("cpu", "float64"))
    estimator = xpnet.MLPRegressor((2,), max_iter=1).fit(np.zeros((3, 2)), np.arange(3.0))
    plain = np.zeros((2, 3))
    for use in (
        lambda array: Dataset(array, array),
        lambda array: Dataset(plain, array),
        lambda array: Dataset(plain, plain, array[1]),
        lambda array: Dataset.from_labels(plain, array[1]),
        network.predict,
        lambda array: xpnet.metrics.METRICS["r2"].function(array, plain),
        lambda array: xpnet.functional.loss(array, plain),
        lambda array: xpnet.MLPRegressor((2,), max_iter=1).fit(array.T, np.arange(3.0)),
        lambda array: xpnet.MLPRegressor((2,), max_iter=1).fit(plain.T, array[1]),
        lambda array: estimator.predict(array.T),
        lambda array: estimator.fit(plain.T, plain[0], validation=(plain.T, array[1])),
    ):
        use(shown)
        with refusal(
            ValueError, "is a masked array that hides 1 value", "must be numbers to use", "leave these samples out"
        ):
            use(hidden)
