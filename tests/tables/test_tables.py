"""The preprocessing of a table: its values against scikit-learn's, its JSON, and new rows of every kind."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, says
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tables.learning import learn, said

from xpnet.tables import files, stored
from xpnet.tables.columns import Numeric
from xpnet.tables.decisions import Decision, lines, refuse
from xpnet.tables.preprocessing import Preprocessing

N = 60
COLOURS = ["red", "green", "blue"]


@pytest.fixture
def frame():
    """Numbers, whole numbers, booleans and text, with a target of each kind."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": rng.normal(120, 30, N),
            "rooms": rng.integers(1, 7, N),
            "colour": rng.choice(COLOURS, N),
            "garden": rng.random(N) < 0.4,
            "price": rng.normal(3e5, 1e4, N),
            "kind": rng.choice(["flat", "house", "villa"], N),
            "sold": rng.choice(["yes", "no"], N),
        }
    )
    return table.set_index(pd.RangeIndex(1, N + 1))


FEATURES = ["size", "rooms", "colour", "garden"]
NUMBERS = ["size", "rooms", "garden"]


def sklearn_features(training, rows, strategy="median"):
    """X (n, n_features) in float64, in the order of the columns."""
    fill = SimpleImputer(strategy=strategy).fit(training[NUMBERS].astype(float))
    scale = StandardScaler().fit(fill.transform(training[NUMBERS].astype(float)))
    numeric = scale.transform(fill.transform(rows[NUMBERS].astype(float)))
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(training[["colour"]].dropna())
    one_hot = encoder.transform(rows[["colour"]])
    if strategy == "mean":
        one_hot[rows["colour"].isna()] = encoder.transform(training[["colour"]].dropna()).mean(axis=0)
    return np.hstack([numeric[:, :2], one_hot, numeric[:, 2:]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_those_of_sklearn_fitted_on_the_training_rows(frame, dtype):
    training, rows = frame[:40], frame[40:]
    table = learn(training[[*FEATURES, "price"]], "price")
    X = table.transform(rows[FEATURES[::-1]], dtype)  # by name, in any order, without the target
    assert X.shape == (table.n_features, 20) == (6, 20)
    assert X.dtype == dtype and X.T.flags.c_contiguous
    np.testing.assert_allclose(X.T, sklearn_features(training, rows), rtol=1e-6, atol=1e-6)
    assert table.decisions == () and table.constant_columns == []


@pytest.fixture
def holes(frame):
    """The same with gaps in numbers, text and booleans, among the first 40 rows and after."""
    table = frame[[*FEATURES, "price"]].copy()
    table.loc[[3, 50], "size"] = np.nan
    table.loc[[5, 55], "colour"] = None
    table["garden"] = table["garden"].astype(object)
    table.loc[[7, 57], "garden"] = None
    return table


def test_gaps_are_medians_with_an_indicator_and_a_category_of_their_own(holes):
    table = learn(holes, "price", training=40)
    X = dict(
        zip(
            ["size", "no size", "rooms", "blue", "green", "red", "no colour", "garden", "no garden"],
            table.transform(holes, np.float64),
            strict=True,
        )
    )
    plain = sklearn_features(holes[:40], holes)
    for place, name in enumerate(["size", "rooms", "blue", "green", "red", "garden"]):
        np.testing.assert_allclose(X[name], plain[:, place], atol=1e-12)
    for column in ("size", "colour", "garden"):
        np.testing.assert_array_equal(X[f"no {column}"], holes[column].isna())
    assert said(table) == [
        ("size", "missing values", "filled in by the median, with a feature that says so", "1"),
        ("colour", "missing categories", "a category of their own", "1"),
        ("garden", "missing values", "filled in by the median, with a feature that says so", "1"),
    ]


def test_gaps_become_the_means_of_the_features_where_that_is_asked_for(holes):
    table = learn(holes, "price", training=40, impute="mean")
    expected = sklearn_features(holes[:40], holes, "mean")
    refuse(table.decisions)  # is no change: it was asked for
    np.testing.assert_allclose(table.transform(holes).T, expected, rtol=1e-6, atol=1e-6)


def test_a_regression_learns_the_standardised_target_and_speaks_in_its_units(frame):
    rows = frame[["size", "rooms", "price"]]
    table = learn(rows, ["price", "rooms"], training=40)
    target = table.target
    assert (target.task, target.n_outputs, target.names) == ("regression", 2, ("price", "rooms"))
    scale = StandardScaler().fit(frame[:40][["price", "rooms"]])
    dataset = table.dataset(rows, np.float64)
    np.testing.assert_allclose(dataset.Y.T, scale.transform(frame[["price", "rooms"]]), rtol=1e-9)
    np.testing.assert_allclose(target.in_units(dataset.Y).T, frame[["price", "rooms"]], rtol=1e-12)
    plain = learn(frame[["size", "rooms"]], "rooms", task="regression", scale_target=False)
    np.testing.assert_array_equal(plain.dataset(frame[["size", "rooms"]]).Y[0], frame["rooms"])


def test_weights_are_a_column(frame):
    rows = frame[["size", "price"]].assign(weight=np.arange(N))
    table = learn(rows, "price", weights="weight")
    assert table.n_features == 1
    np.testing.assert_array_equal(table.dataset(rows).weights, np.arange(N))
    assert table.dataset(rows.drop(columns="weight")).weights is None
    for wrong, text in ((-1, "'-1' in row 1"), (np.nan, "'nan' in row 1"), (np.inf, "'inf' in row 1")):
        spoilt = rows.assign(weight=[wrong, *range(1, N)])
        with refusal(ValueError, "the weights 'weight' have", text.replace("'", ""), "correct it, or remove that row"):
            learn(spoilt, "price", weights="weight")
    with refusal(ValueError, "the weights 'weight' are all 0", "at least one must be above", "give others"):
        learn(rows.assign(weight=0), "price", weights="weight")


# New rows


def noted(table, rows):
    """Return X (n_features, n) and what is warned of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        X = table.transform(rows, np.float64)
    return X, [str(each.message) for each in found]


def test_rows_like_those_of_training_are_taken_without_a_word(holes):
    table = learn(holes, "price", training=40)
    assert noted(table, holes)[1] == []


def test_gaps_that_no_training_row_has_are_medians_and_means_with_a_word(frame):
    table = learn(frame[[*FEATURES, "price"]], "price", training=40)
    rows = frame[:4][FEATURES].astype({"garden": object})
    rows.loc[1, ["size", "garden"]] = None
    rows.loc[[2, 3], "colour"] = None
    X, words = noted(table, rows)
    training, expected = frame[:40], sklearn_features(frame[:40], rows)
    shares = [(training["colour"] == colour).mean() for colour in sorted(COLOURS)]
    expected[1:3, 2:5] = shares
    np.testing.assert_allclose(X.T, expected, atol=1e-12)
    assert words[0].startswith("size (1, in row 1): missing values: no training row has any: taken as ")
    assert "colour (2, in row 2 and others): missing values" in words[1] and len(words) == 3


def test_unknown_categories_are_other_and_counted(frame):
    """There is a feature for them if training rows had rare ones, else they are the mean of all."""
    rows = pd.DataFrame({"x": ["a"] * 150 + ["b"] * 140 + ["c", "d", "e", "f"] * 2 + ["g"] * 2, "y": np.arange(300.0)})
    table = learn(rows)
    X, words = noted(table, pd.DataFrame({"x": ["b", "new", "c", "a"]}))
    np.testing.assert_array_equal(X.T, [[0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 0]])
    assert words == ["x (2, such as 'new' in row 1): categories that are rare in training or unknown: taken as other"]
    assert said(table) == [("x", "categories of fewer than 5 rows", "taken together as other", "5 of 7")]
    table = learn(rows[:290])
    X, words = noted(table, pd.DataFrame({"x": ["b", "new"]}))
    np.testing.assert_allclose(X.T, [[0, 1], [150 / 290, 140 / 290]])
    assert words[0].endswith("taken as the mean of all categories")


def test_cells_that_are_no_numbers_and_infinite_ones_are_missing(frame):
    table = learn(frame[["size", "rooms", "price"]], "price", training=40)
    rows = pd.DataFrame({"size": ["120.5", "big", "1,200"], "rooms": [np.inf, 2, 1e300]})
    X, words = noted(table, rows)
    median = frame[:40]["size"].median()
    filled = pd.DataFrame({"size": [120.5, median, 1200.0], "rooms": [frame[:40]["rooms"].median(), 2, 1e300]})
    scale = StandardScaler().fit(frame[:40][["size", "rooms"]])
    np.testing.assert_allclose(X.T, scale.transform(filled), rtol=1e-12)
    assert words == [
        "size (1, 'big' in row 1): cells that are no numbers: taken as missing",
        "rooms (1, inf in row 0): numbers that are infinite or too large: taken as missing",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(table.transform(rows)).all()  # 1e300 is too large for float32


def test_other_columns_are_ignored_and_the_first_are_named(frame):
    table = learn(frame[["size", "price", "kind"]], "price", drop=("kind",))
    rows = frame[["size"]]
    X, words = noted(table, rows.assign(**{f"c{i}": i for i in range(7)}, kind="?", price="?"))
    np.testing.assert_array_equal(X, table.transform(rows, np.float64))
    assert words == ["7 columns that no training row has: 'c0', 'c1', 'c2', 'c3', 'c4', ...: ignored"]


def test_many_columns_of_new_rows_take_few_lines(frame):
    numbers = pd.DataFrame(np.random.default_rng(0).random((20, 13)), columns=[f"c{i}" for i in range(13)])
    table = learn(numbers.assign(y=range(20)))
    words = noted(table, numbers[:3].assign(**{name: [None, 0.1, place] for place, name in enumerate(numbers)}))[1]
    assert len(words) == 11 and words[-1] == "and 3 more such columns"


def test_all_missing_columns_are_refused_in_one_message(frame):
    table = learn(frame[[*FEATURES, "price"]], "price")
    with refusal(ValueError, "there are no columns 'rooms', 'garden'", "the columns are", "size, colour, Rooms"):
        table.transform(frame[["size", "colour"]].assign(Rooms=1))
    with refusal(ValueError, "there is no column 'rooms', did you mean 'Rooms'?"):
        table.transform(frame[FEATURES].rename(columns={"rooms": "Rooms"}))
    with refusal(ValueError, "two columns", "have the same name", "rename or remove one of them"):
        table.transform(frame.set_axis(["size", "size", *frame.columns[2:]], axis=1))
    with refusal(ValueError, "there is no column 'price'"):
        table.dataset(frame[FEATURES])


def test_classes_of_new_rows_must_be_known(frame):
    frame = frame[["size", "kind"]]
    table = learn(frame, "kind")
    with refusal(
        ValueError,
        "column 'kind' has the class 'tent' in row 1, which no training row has",
        "known are 'flat', 'house', 'villa'",
        "correct it, or train on rows that have it",
    ):
        table.dataset(frame.assign(kind="tent"))
    with refusal(ValueError, "column 'kind' has 60 missing values", "in row 1", "remove these rows, or fill them in"):
        table.dataset(frame.assign(kind=None))


# JSON


@pytest.mark.parametrize("target", ["price", "kind", "sold", "rooms"])
def test_json_gives_the_same_value_to_the_last_bit(holes, frame, target):
    rows = holes.assign(kind=frame["kind"], sold=frame["sold"], day=pd.date_range("2024-01-01", periods=N, freq="37h"))
    rows["paid"] = [f"{i % 7} €" for i in range(N)]
    table = learn(rows, target, weights=None if target == "rooms" else "rooms")
    text = stored.to_json(table)
    assert stored.from_json(text) == table
    json.loads(text, parse_constant=pytest.fail)
    assert len({type(column) for column in table.columns}) == 3 and len(table.decisions) > 3


NO_NUMBERS = "impossible numbers; it must have a finite mean"
STYLE = {"decimal": ".", "unit": "", "is_boolean": False, "is_plain": True}
NUMERIC = {"kind": "numeric", "name": "size", "mean": 1.0, "deviation": 1.0, "fill": 1.0, "has_indicator": False}
NUMERIC["style"] = STYLE
CATEGORY = {"kind": "category", "name": "c", "has_other": False, "has_missing": False, "is_text": True}
DATE = {"kind": "date", "name": "d", "format": "", "fill": 0, "origin": 0, "has_indicator": False}
SPOILED = [
    (lambda found: "no JSON", "JSONDecodeError"),
    (lambda found: "[" * 100_000, "nested deeper than 50 levels"),
    (lambda found: json.dumps([found]), "TypeError"),
    (lambda found: json.dumps({key: value for key, value in found.items() if key != "target"}), "KeyError: 'target'"),
    *(
        (lambda found, change=change: json.dumps(found | change(found)), part)
        for change, part in [
            (lambda found: {"format": 3}, "its format is 3; it must be 2 or 1"),
            (lambda found: {"columns": []}, "names of its columns are missing, give at least one"),
            (lambda found: {"columns": found["columns"] * 2}, "have the same name, give each its own name"),
            (lambda found: {"columns": [NUMERIC | {"mean": "1"}]}, "mean of it is '1'; it must be float"),
            (lambda found: {"columns": [NUMERIC | {"fill": None}]}, "fill of it is None; it must be float"),
            (lambda found: {"columns": [NUMERIC | {"deviation": -1.0}]}, NO_NUMBERS),
            (lambda found: {"columns": [NUMERIC | {"deviation": float("nan")}]}, "deviation of it is nan"),
            (lambda found: {"columns": [NUMERIC | {"kind": "list"}]}, "KeyError"),
            (lambda found: {"columns": [CATEGORY | {"categories": ["a"], "frequencies": []}]}, NO_NUMBERS),
            (
                lambda found: {"columns": [CATEGORY | {"categories": [1], "frequencies": [1.0]}]},
                "it must be tuple[str, ...]",
            ),
            (lambda found: {"columns": [DATE | {"parts": ["hour"], "means": [1], "deviations": [0]}]}, NO_NUMBERS),
            (lambda found: {"columns": [DATE | {"parts": ["era"], "means": [1], "deviations": [1]}]}, NO_NUMBERS),
            (
                lambda found: {"target": found["target"] | {"task": "binary"}},
                "(0, 1, 1) classes, means and deviations, a target of binary needs (2, 0, 0)",
            ),
            (
                lambda found: {"target": found["target"] | {"deviations": [0.0]}},
                "its target is not above 0; it must be a deviation above 0",
            ),
            (lambda found: {"target": found["target"] | {"names": []}}, "names of its columns are missing"),
            (lambda found: {"impute": "mode"}, "impute is 'mode'"),
            (
                lambda found: {"decisions": [{"column": 1, "found": "", "done": ""}]},
                "column of it is 1; it must be str",
            ),
        ]
    ),
]


@pytest.mark.parametrize(("spoil", "part"), SPOILED)
def test_json_that_it_did_not_write(frame, spoil, part):
    found = json.loads(stored.to_json(learn(frame[[*FEATURES, "price"]], "price")))
    with pytest.raises(ValueError) as refusal:
        stored.from_json(spoil(found))
    says(refusal, "it holds no preprocessing of this version", part, "fit it again")


FORMAT_1 = {
    "format": 1,
    "columns": [
        {"name": "size", "mean": 100.0, "deviation": 20.0},
        {"name": "same", "mean": 7.0, "deviation": 0.0},
        {"name": "colour", "categories": ["blue", "red"], "frequencies": [0.25, 0.75]},
    ],
    "target": {"names": ["y"], "task": "binary", "classes": [0, 1], "means": [], "deviations": []},
    "dropped": ["id"],
}


def test_files_of_format_1_are_as_strict_as_they_were():
    """Gaps are refused, or are the means of the features, unknown categories and texts for numbers are refused."""
    table, imputing = (stored.from_json(json.dumps(FORMAT_1 | {"impute": impute})) for impute in (False, True))
    rows = pd.DataFrame({"colour": ["red", "blue"], "size": [80, 110], "same": [7, 8], "y": [1, 0], "id": "a"})
    np.testing.assert_array_equal(table.transform(rows).T, [[-1, 0, 0, 1], [0.5, 0, 1, 0]])
    np.testing.assert_array_equal(table.dataset(rows).labels, [1, 0])
    assert table.text_columns == ["colour"]
    gaps = pd.DataFrame({"size": [None, 100.0], "same": [7, 7], "colour": ["red", None]})
    np.testing.assert_array_equal(imputing.transform(gaps).T, [[0, 0, 0, 1], [0, 0, 0.25, 0.75]])
    for change, part in (
        ({"size": [None, 1.0]}, "column 'size' has missing values (1, in row 0)"),
        ({"colour": [None, "red"]}, "column 'colour' has missing values"),
        ({"colour": "green"}, "has categories that are rare in training or unknown (2, such as 'green'"),
        ({"size": "big"}, "column 'size' has cells that are no numbers (2, such as 'big' in row 0)"),
        ({"size": np.inf}, "column 'size' has numbers that are infinite"),
    ):
        with refusal(ValueError, part, "this run of before does not take", "correct these rows, or train again"):
            table.transform(rows.assign(**change))
    spoilt = json.dumps(FORMAT_1 | {"impute": "mean"})
    with refusal(
        ValueError,
        "no preprocessing of this version",
        "impute is neither true nor false, give one of these",
        "fit it again",
    ):
        stored.from_json(spoilt)


@pytest.mark.parametrize("impute", ["median", "mean"])
def test_a_run_goes_on_only_on_the_rows_that_it_was_fitted_on(holes, impute):
    rows = holes.assign(day=pd.date_range("2024-01-01", periods=N, freq="37h"))
    table = learn(rows, "price", training=40, impute=impute)
    assert table.is_of(rows[:40])
    for change in (
        {"size": rows["size"] + 1},
        {"colour": "red"},
        {"day": rows["day"][1]},
        {"price": rows["price"] + 1},
    ):
        assert not table.is_of(rows[:40].assign(**change))


# Decisions


def test_columns_that_share_a_decision_share_its_line():
    some = [Decision(f"c{i}", "gaps", "filled in", "--drop COLUMN", detail=str(i)) for i in range(7)]
    assert list(lines(some)) == ["c0 (0), c1 (1), c2 (2), c3 (3), c4 (4) and 2 more: gaps: filled in (--drop COLUMN)"]
    with refusal(
        ValueError,
        "--strict allows no change of the data, and 7 would be needed",
        "'c0' has gaps",
        "mend the file, take the options in brackets, or leave --strict out",
    ):
        refuse([*some, Decision("y", "two values", "taken as classes", is_change=False)])


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
    table = learn(rows, drop=tuple(names[100:]))
    named = Preprocessing(
        tuple(Numeric(Name(column.name), column.mean, column.deviation) for column in table.columns),
        table.target,
        tuple(names[100:]),
    )
    assert named.transform(rows).shape == (100, 3)
    assert 0 < Name.compared < 12 * n


def test_whole_numbers_beyond_all_floats_are_infinite(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n" + f"{'9' * 400},1,3\n" + "1,2,2\n2,5,1\n4,4,4\n", encoding="utf-8")
    table = learn(files.read_table(tmp_path / "t.csv").frame)
    assert said(table)[0][:3] == ("a", "infinite numbers", "taken as missing")
    assert len(said(table)[0][3]) < 300
