"""The preprocessing of a table: its values against scikit-learn's, its JSON, and every column that it refuses."""

from __future__ import annotations

import datetime
import decimal
import json

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, says
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from xpnet.tables import columns, files, layout
from xpnet.tables.preprocessing import Preprocessing, fit

N = 60
COLOURS = ["red", "green", "blue"]


@pytest.fixture
def frame():
    """Numbers, whole numbers, booleans, text and a constant, with a target of each kind."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": rng.normal(120, 30, N),
            "rooms": rng.integers(1, 7, N),
            "colour": rng.choice(COLOURS, N),
            "garden": rng.random(N) < 0.4,
            "same": 0.1,
            "price": rng.normal(3e5, 1e4, N),
            "kind": rng.choice(["flat", "house", "villa"], N),
            "sold": rng.choice(["yes", "no"], N),
        }
    )
    return table.set_index(pd.RangeIndex(1, N + 1))


FEATURES = ["size", "rooms", "colour", "garden", "same"]
NUMBERS = ["size", "rooms", "garden", "same"]


def sklearn_features(training, rows, impute=False):
    """X (n, n_features) in float64, in the order of the columns."""
    fill = SimpleImputer().fit(training[NUMBERS].astype(float))
    scale = StandardScaler().fit(fill.transform(training[NUMBERS].astype(float)))
    numeric = scale.transform(fill.transform(rows[NUMBERS].astype(float)))
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(training[["colour"]].dropna())
    one_hot = encoder.transform(rows[["colour"]])
    if impute:
        one_hot[rows["colour"].isna()] = encoder.transform(training[["colour"]].dropna()).mean(axis=0)
    return np.hstack([numeric[:, :2], one_hot, numeric[:, 2:]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_those_of_sklearn_fitted_on_the_training_rows(frame, dtype):
    training, rows = frame[:40], frame[40:]
    table = fit(training[[*FEATURES, "price"]], ["price"])
    X = table.transform(rows[FEATURES[::-1]], dtype)  # by name, in any order, without the target
    assert X.shape == (table.n_features, 20) == (7, 20)
    assert X.dtype == dtype and X.T.flags.c_contiguous
    np.testing.assert_allclose(X.T, sklearn_features(training, rows), rtol=1e-6, atol=1e-6)
    assert table.constant_columns == ["same"]


def test_a_constant_column_has_no_effect_later_either(frame):
    table = fit(frame[["size", "same", "price"]], ["price"])
    X = table.transform(frame[["size"]].assign(same=1e6))
    assert not X[1].any() and X[0].any()


def test_missing_features_become_their_means(frame):
    holes = frame[[*FEATURES, "price"]].copy()
    holes.loc[[3, 50], "size"] = np.nan
    holes.loc[[5, 55], "colour"] = None
    holes["garden"] = holes["garden"].astype(object)
    holes.loc[[7, 57], "garden"] = None
    table = fit(holes[:40], ["price"], impute=True)
    expected = sklearn_features(holes[:40], holes, impute=True)
    np.testing.assert_allclose(table.transform(holes).T, expected, rtol=1e-6, atol=1e-6)


def test_a_regression_learns_the_standardised_target_and_speaks_in_its_units(frame):
    table = fit(frame[:40][["size", "rooms", "price"]], ["price", "rooms"])
    target = table.target
    assert (target.task, target.n_outputs, target.names) == ("regression", 2, ("price", "rooms"))
    scale = StandardScaler().fit(frame[:40][["price", "rooms"]])
    dataset = table.dataset(frame[["size", "rooms", "price"]], np.float64)
    np.testing.assert_allclose(dataset.Y.T, scale.transform(frame[["price", "rooms"]]), rtol=1e-9)
    np.testing.assert_allclose(target.in_units(dataset.Y).T, frame[["price", "rooms"]], rtol=1e-12)
    plain = fit(frame[["size", "rooms"]], ["rooms"], task="regression", scale_target=False)
    np.testing.assert_array_equal(plain.dataset(frame[["size", "rooms"]]).Y[0], frame["rooms"])


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (["yes", "no"] * 30, "binary", ("no", "yes")),
        ([True, False] * 30, "binary", (False, True)),
        ([5, 7] * 30, "binary", (5, 7)),
        ([0.0, 1.0] * 30, "binary", (0, 1)),
        (["c", "a", "b"] * 20, "multiclass", ("a", "b", "c")),
        ([3, 1, 2] * 20, "multiclass", (1, 2, 3)),
        (list(range(60)), "regression", ()),
        ([0.5, 1.5] * 30, "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(target, task, classes):
    frame = pd.DataFrame({"x": np.arange(60.0), "y": target})
    table = fit(frame, ["y"])
    assert (table.target.task, table.target.classes) == (task, classes)
    assert [type(label) for label in table.target.classes] == [type(label) for label in classes]
    if classes:
        labels = [classes.index(value) for value in target]
        dataset = table.dataset(frame)
        assert dataset.is_classification and dataset.n_outputs == table.target.n_outputs == (task == "binary" or 3)
        np.testing.assert_array_equal(dataset.labels, labels)


def test_another_task_than_the_inferred_one():
    frame = pd.DataFrame({"x": np.arange(60.0), "y": [3, 1, 2] * 20})
    assert fit(frame, ["y"], task="regression").target.task == "regression"
    frame["y"] += 0.5
    assert fit(frame, ["y"], task="multiclass").target.classes == (1.5, 2.5, 3.5)


@pytest.mark.parametrize("target", ["price", "kind", "sold"])
def test_json_gives_the_same_value_to_the_last_bit(frame, target):
    table = fit(frame[[*FEATURES, target]], [target], ["same"], impute=True)
    text = table.to_json()
    assert Preprocessing.from_json(text) == table
    json.loads(text, parse_constant=pytest.fail)


NO_NUMBERS = "impossible numbers; it must have a finite mean"
SPOILED = [
    (lambda found: "no JSON", "JSONDecodeError"),
    (lambda found: "[" * 100_000, "nested deeper than 50 levels"),
    (lambda found: json.dumps([found]), "TypeError"),
    (lambda found: json.dumps({key: value for key, value in found.items() if key != "target"}), "KeyError: 'target'"),
    *(
        (lambda found, change=change: json.dumps(found | change(found)), part)
        for change, part in [
            (lambda found: {"format": 2}, "its format is 2; it must be 1"),
            (lambda found: {"columns": []}, "names of its columns are missing or not text; each must be a text"),
            (lambda found: {"columns": found["columns"] * 2}, "have the same name, give each its own name"),
            (lambda found: {"columns": [{"name": "size", "mean": "1", "deviation": 1.0}]}, NO_NUMBERS),
            (lambda found: {"columns": [{"name": "size", "mean": 1.0, "deviation": -1.0}]}, NO_NUMBERS),
            (lambda found: {"columns": [{"name": "size", "mean": 1.0, "deviation": float("nan")}]}, NO_NUMBERS),
            (lambda found: {"columns": [{"name": "c", "categories": ["a"], "frequencies": []}]}, NO_NUMBERS),
            (lambda found: {"columns": [{"name": "c", "categories": [1], "frequencies": [1.0]}]}, NO_NUMBERS),
            (
                lambda found: {"target": found["target"] | {"task": "binary"}},
                "(0, 1, 1) classes, means and deviations, a target of binary needs (2, 0, 0)",
            ),
            (
                lambda found: {"target": found["target"] | {"deviations": [0.0]}},
                "its target is not finite or not above 0; it must be a finite mean",
            ),
            (lambda found: {"target": found["target"] | {"names": []}}, "missing or not text"),
            (lambda found: {"impute": "mean"}, "impute neither true nor false, give one of these"),
        ]
    ),
]


@pytest.mark.parametrize(("spoil", "part"), SPOILED)
def test_json_that_it_did_not_write(frame, spoil, part):
    found = json.loads(fit(frame[[*FEATURES, "price"]], ["price"]).to_json())
    with pytest.raises(ValueError) as refusal:
        Preprocessing.from_json(spoil(found))
    says(refusal, "it holds no preprocessing of this version", part, "fit it again")


# Columns that cannot be features or targets

DATES = pd.date_range("2024-01-01", periods=N)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ([np.nan] + [1.0, 2.0] * 29 + [3.0], ["1 missing value", "in row 1", "--impute mean", "--drop x"]),
        ([None] * N, ["no value in any row", "--drop x"]),
        ([1.0, np.inf] * 30, ["is inf in row 2", "it must be a finite number", "correct it, or remove that row"]),
        ([1.5e308, -1.5e308] * 30, ["from -1.5e+308 to 1.5e+308", "--drop x"]),
        (DATES, ["dates or times", "'2024-01-01 00:00:00'", "--drop x"]),
        (DATES.date, ["dates or times"]),
        (DATES - DATES[0], ["dates or times"]),
        (DATES.to_period("D"), ["dates or times"]),
        (DATES.strftime("%Y-%m-%d"), ["dates or times", "'2024-01-01' in row 1", "year and month"]),
        (DATES.strftime("%d.%m.%Y"), ["dates or times"]),
        ([datetime.time(1)] * N, ["dates or times"]),
        ([f"K{i}" for i in range(N)], ["60 different texts in 60 rows", "names the rows", "--drop x"]),
        (
            [f"{i},234" for i in range(10)] * 6,
            ["numbers as text", "'0,234' in row 1", "thousands separators", "--drop x"],
        ),
        (["1", "2", "3", "?", "5", "6"] * 10, ["numbers as text", "'?' in row 4"]),
        (["1", "2", "3", "1 000", "5", "6"] * 10, ["'1 000' in row 4"]),
        ([1 + 2j] * N, ["complex128", "it must hold numbers", "--drop x"]),
        ([[1]] * N, ["type list"]),
        ([b"a"] * N, ["type bytes"]),
        (["a", 1] * 30, ["type int and str"]),
    ],
)
def test_columns_of_no_use_are_refused_by_name(values, parts):
    frame = pd.DataFrame({"x": values, "z": np.arange(float(N)), "y": np.arange(float(N))})
    frame.index += 1
    with pytest.raises(ValueError) as refusal:
        fit(frame, ["y"])
    says(refusal, "column 'x'", *parts)
    assert fit(frame, ["y"], ["x"]).n_features == 1


def test_a_thousand_categories_are_taken_and_one_more_is_not():
    frame = pd.DataFrame({"x": [f"c{i % 1000}" for i in range(2002)], "y": np.arange(2002.0)})
    assert fit(frame, ["y"]).n_features == 1000
    frame.loc[[7, 8], "x"] = "one more"
    frame.loc[[1007, 1008], "x"] = "c7"
    frame.loc[8, "x"] = "c8"
    with pytest.raises(ValueError, match="1001 different texts in 2002 rows"):
        fit(frame, ["y"])


def test_kinds_of_numbers_and_categories():
    frame = pd.DataFrame(
        {
            "decimals": [decimal.Decimal("1.5"), decimal.Decimal("2.5")] * 30,
            "nullable": pd.array([1, 2] * 30, "Int64"),
            "maybe": pd.array([True, False] * 30, "boolean"),
            "category": pd.Categorical([10, 20] * 30),
            "y": np.arange(60.0),
        }
    )
    X = fit(frame, ["y"]).transform(frame[:2])
    np.testing.assert_allclose(X.T, [[-1, -1, 1, 1, 0], [1, 1, -1, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"y": [1.0, np.nan] * 30}, ["column 'y'", "30 missing values", "in row 2", "remove these rows"]),
        ({"y": [3.0] * N}, ["target 'y' is 3.0 in all 60", "nothing to learn", "give rows with other values"]),
        ({"y": ["a"] * N}, ["target 'y' is 'a'"]),
        ({"y": [f"w{i}" for i in range(N)]}, ["column 'y'", "60 different texts", "name another --target"]),
        ({"y": DATES}, ["column 'y' holds dates", "name another --target"]),
        ({"y": [-np.inf, 1.0] * 30}, ["column 'y' is -inf in row 1"]),
        (
            {"x": [1.0] * N},
            [
                "every column beside the target has one value",
                "nothing to learn from",
                "give more rows, or other columns",
            ],
        ),
        ({"target": ["z"]}, ["there is no column 'z'", "the columns are", "x, y"]),
        ({"target": ["Y"]}, ["no column 'Y'", "did you mean 'y'?"]),
        ({"drop": ["x"]}, ["no column is left", "beside the target y", "there must be at least one feature"]),
        ({"drop": ["y"]}, ["target 'y'", "is also among the columns to drop", "leave it out there"]),
        ({"drop": ["q"]}, ["no column 'q'"]),
        (
            {"y": ["a", "b"] * 30, "task": "regression"},
            ["'y' is text, such as 'a'", "a regression needs numbers", "name one target of classes alone"],
        ),
        (
            {"y": ["a", "b"] * 30, "task": "multiclass"},
            ["'y' has 2 classes", "the task is multiclass", "take --task binary"],
        ),
        ({"y": ["a", "b", "c"] * 20, "task": "binary"}, ["3 classes", "--task multiclass"]),
        ({"task": "sorting"}, ["task is 'sorting'"]),
        ({"v": ["a", "b"] * 30, "target": ["y", "v"]}, ["'v' is text", "one target of classes alone"]),
        (
            {"v": [1, 2] * 30, "target": ["y", "v"], "task": "binary"},
            ["there are 2 targets", "needs one", "take --task regression"],
        ),
    ],
)
def test_targets_and_options_that_cannot_be(change, parts):
    options = {key: change.pop(key) for key in ("target", "drop", "task") if key in change}
    frame = pd.DataFrame({"x": np.arange(float(N)), "y": np.arange(float(N))} | change, pd.RangeIndex(1, N + 1))
    with pytest.raises(ValueError) as refusal:
        fit(frame, **{"target": ["y"], **options})
    says(refusal, *parts)


def test_too_many_classes_of_numbers():
    frame = pd.DataFrame({"x": np.arange(3000.0), "y": np.arange(3000) % 1001})
    with refusal(ValueError, "'y' has 1001 different values", "at most 1000 classes", "take --task regression"):
        fit(frame, ["y"], task="multiclass")


# Raw rows that do not fit


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda f: f.drop(columns="size"), ["no column 'size'"]),
        (lambda f: f.assign(new=1), ["column 'new'", "not trained on", "--drop new"]),
        (lambda f: f.assign(colour="purple"), ["column 'colour'", "'purple' in row 1", "'blue', 'green', 'red'"]),
        (
            lambda f: f.assign(size="12"),
            ["column 'size' holds the text '12' in row 1", "it must hold numbers", "as in the rows that"],
        ),
        (lambda f: f.assign(rooms=["1"] * 4 + ["many"] + ["2"] * (N - 5)), ["'many' in row 5"]),
        (lambda f: f.assign(size=np.inf), ["column 'size' is inf in row 1"]),
        (lambda f: f.assign(size=1e300), ["column 'size' is 1e+300 in row 1", "too large"]),
        (lambda f: f.assign(size=np.nan), ["column 'size'", "60 missing values", "--impute mean"]),
        (lambda f: f.assign(colour=None), ["column 'colour'", "missing"]),
        (
            lambda f: f.set_axis(["size", "size", *f.columns[2:]], axis=1),
            ["two columns", "have the same name", "rename or remove one of them"],
        ),
        (lambda f: f.assign(kind="tent"), ["column 'kind' has the class 'tent' in row 1"]),
        (lambda f: f.assign(kind=None), ["column 'kind'", "target must be known"]),
        (lambda f: f.drop(columns="kind"), ["no column 'kind'"]),
    ],
)
def test_rows_that_do_not_fit(frame, change, parts):
    rows = frame[[*FEATURES, "kind"]]
    table = fit(rows, ["kind"])
    with pytest.raises(ValueError) as refusal:
        table.dataset(change(rows))
    says(refusal, *parts)


def test_dropped_columns_may_be_there_or_not(frame):
    table = fit(frame[[*FEATURES, "price", "kind"]], ["price"], ["kind", "same"])
    rows = frame[["size", "rooms", "colour", "garden"]]
    np.testing.assert_array_equal(table.transform(rows), table.transform(rows.assign(kind="?", same="?", price="?")))


@pytest.mark.parametrize("dtype", ["bool", "boolean", "bool[pyarrow]"])
def test_booleans_of_every_kind_are_the_same_target(frame, dtype):
    table = fit(frame[["size", "garden"]].astype({"garden": dtype}), ["garden"])
    assert table.target.task == "binary" and table.target.classes == (False, True)
    assert all(type(label) is bool for label in table.target.classes)
    np.testing.assert_array_equal(table.target.labels(frame.astype({"garden": dtype})), frame["garden"])


@pytest.mark.parametrize("task", [None, "binary"])
@pytest.mark.parametrize("labels", [[2**53, 2**53 + 1], [-(2**53) - 2, 0]])
def test_classes_that_float64_does_not_tell_apart_are_refused(frame, labels, task):
    table = frame[["size"]].assign(label=np.resize(labels, N))
    with refusal(ValueError, "beyond 9007199254740992", "cannot all be told apart", "take --task regression"):
        fit(table, ["label"], task=task)


def test_a_target_named_twice_is_refused(frame):
    with refusal(ValueError, "a target is named twice", "price, price", "name each once"):
        fit(frame, ["price", "price"])


def test_the_cure_keeps_what_was_dropped_before(frame):
    """Each message can be followed to the letter: the options that it names replace the ones before."""
    rows = frame[["size", "price"]].assign(id=[f"u{i}" for i in range(N)], at="2026-01-01")
    with pytest.raises(ValueError) as refusal:
        fit(rows, ["price"])
    says(refusal, "'id'", "--drop id")
    with pytest.raises(ValueError) as refusal:
        fit(rows, ["price"], ["id"])
    says(refusal, "'at'", "--drop id,at")
    assert fit(rows, ["price"], ["id", "at"]).n_features == 1
    with pytest.raises(ValueError) as refusal:
        fit(frame[["size", "price"]], ["price"]).transform(rows)
    says(refusal, "'id'", "--drop id,at")


@pytest.mark.parametrize(
    ("texts", "are_numbers"),
    [
        (["1,234.5", "$ 1 000", "-$5", "+ 3 %", ".5e-3 €", "1e5", "1'000", "--1", " 1 "], True),
        (["x1", "1 x", "", "1e", "- - 1", "1 $ $", ".", "e5"], False),
    ],
)
def test_numbers_as_text(texts, are_numbers):
    assert [bool(columns.NUMBER.fullmatch(text)) for text in texts] == [are_numbers] * len(texts)


def test_patterns_of_texts_in_files_are_linear():
    """A cubic pattern would take years for a million characters, a quadratic one an hour."""
    for text in ("1" + " " * 10**6 + "x", "1" * 10**6 + "x", " " * 10**6 + "x", "1e" + "1" * 10**6 + "x", "1-" * 10**6):
        patterns = (columns.NUMBER, columns.PLAIN, columns.DATE, layout.NUMBER, layout.DECIMAL, layout.THOUSANDS)
        assert not [pattern for pattern in patterns if pattern.fullmatch(text)]


def test_whole_numbers_beyond_all_floats_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text(f"a,y\n1,2\n{'9' * 400},3\n", encoding="utf-8")
    with pytest.raises(ValueError) as error:
        fit(files.read_table(tmp_path / "t.csv").frame, ["y"])
    assert len(str(error.value)) < 300 and "'a' " in str(error.value)


class Name(str):
    """A name that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)


def test_names_are_not_compared_with_one_another():
    """The comparisons grow with the columns, not with their square."""
    names, n = [Name(f"c{i}") for i in range(200)], 200
    rows = pd.DataFrame(np.random.default_rng(0).random((3, n + 1)), columns=[*map(str, names), "y"])
    Name.compared = 0
    table = fit(rows, ["y"], names[100:])
    named = Preprocessing(
        tuple(columns.Numeric(Name(column.name), column.mean, column.deviation) for column in table.columns),
        table.target,
        tuple(names[100:]),
    )
    assert named.transform(rows).shape == (100, 3)
    assert 0 < Name.compared < 10 * n
