"""What each column is taken for: every cause for which a table was refused before, with its values and its word."""

from __future__ import annotations

import decimal

import numpy as np
import pandas as pd
import pytest
from refusals import refusal
from sklearn.preprocessing import StandardScaler
from tables.learning import learn, said

from xpnet.tables import cells, date_formats, dates, layout
from xpnet.tables.names import names_rows, words_of

N = 60
COUNT = np.arange(N)
Z = np.random.default_rng(1).normal(size=N)


def understood(values, name="x", **options):
    """Return the features (n, n_features) of one column beside another, and what was decided about it."""
    frame = pd.DataFrame({"z": Z, name: values, "y": Z[::-1]})
    frame.index += 1
    table = learn(frame, **options)
    return table.encode(frame, np.float64)[0].T[:, 1:], [each for each in said(table) if each[0] == name]


def standardised(values):
    values = np.asarray(values, np.float64)
    return ((values - values.mean()) / values.std())[:, None]


@pytest.mark.parametrize(
    ("values", "found", "detail"),
    [
        ([None] * N, "no value in any row", ""),
        ([""] * N, "no value in any row", ""),
        ([7] * N, "one value only", ""),
        (["a"] * N, "one value only", ""),
        (["2024-01-01"] * N, "one value only", ""),
        ([f"K{i}" for i in COUNT], "texts that are all different", "such as 'K0'"),
        ([f"some words {i // 2} of {i * i}" for i in COUNT[:58]] + ["a", "a"], "free text", "59 different texts"),
        ([[1]] * N, "values that are neither numbers nor text, such as [1]", ""),
        ([{"a": 1}] * N, "values that are neither numbers nor text, such as {'a': 1}", ""),
        ([b"a"] * N, "values that are neither numbers nor text, such as b'a'", ""),
        ([1 + 2j] * N, "values that are neither numbers nor text", ""),
        ([1.5e308, -1.5e308] * 30, "numbers too far apart", ""),
        ([np.inf, None] * 30, "no finite value in any row", ""),
    ],
)
def test_what_says_nothing_is_left_out(values, found, detail):
    X, ((_, why, done, such),) = understood(values)
    assert X.shape[1] == 0 and done == "left out" and why.startswith(found) and such.startswith(detail)


def test_a_column_without_a_name_is_left_out_and_kept_if_asked_for():
    frame = pd.DataFrame({"Unnamed: 0": Z, "z": Z, "y": Z[::-1]})
    table = learn(frame)
    assert said(table) == [("Unnamed: 0", "no name", "left out", "")] and table.n_features == 1
    assert learn(frame, keep=("Unnamed: 0",)).n_features == 2


@pytest.mark.parametrize(
    ("name", "place", "values", "is_left_out", "word"),
    [
        ("PassengerId", 1, COUNT + 1, True, "named like an identifier"),
        ("customer id", 1, np.random.default_rng(0).permutation(N) * 977, True, "named like an identifier"),
        ("zip_no", 1, [f"{i:05}" for i in COUNT], True, "named like an identifier"),
        ("x", 0, COUNT + 50_000, True, "rise from row to row in the first column"),
        ("x", 0, COUNT[::-1] * 3, True, "rise from row to row in the first column"),
        ("x", 0, np.random.default_rng(0).permutation(N), True, "rise from row to row in the first column"),
        ("x", 1, COUNT + 50_000, False, "whole numbers that rise from row to row"),
        ("year", 0, COUNT + 1900, False, "whole numbers that rise from row to row"),
        ("x", 0, np.random.default_rng(0).permutation(N) * 977, False, None),
        ("x", 0, COUNT + 0.5, False, None),
        ("store_id", 1, COUNT % 7, False, None),
    ],
)
def test_running_numbers_are_left_out_only_if_they_are_named_so_or_first(name, place, values, is_left_out, word):
    frame = pd.DataFrame({"z": Z, "y": Z[::-1]})
    frame.insert(place, name, values)
    table = learn(frame.sample(50, random_state=0))  # the order of the file is that of the index
    assert table.n_features == 2 - is_left_out
    found = [each for each in said(table) if each[0] == name]
    assert [word is not None and word in each[1] for each in found] == [True] * (word is not None)
    assert learn(frame, keep=(name,)).n_features == 2


def test_running_numbers_as_text_are_left_out_by_the_same_rule():
    texts = [f"{i:03d}" for i in COUNT]
    table = learn(pd.DataFrame({"n": texts, "z": Z, "m": texts, "y": Z}))
    assert [column.name for column in table.columns] == ["z", "m"]
    assert table.decisions[0].found == "whole numbers that rise from row to row in the first column"
    dressed = learn(pd.DataFrame({"n": [f"{i} kg" for i in COUNT], "z": Z, "y": Z}))
    assert [column.name for column in dressed.columns] == ["n", "z"]


def test_a_running_number_is_better_than_no_feature():
    table = learn(pd.DataFrame({"x": COUNT, "name": [f"n{i}" for i in COUNT], "y": Z}))
    assert [column.name for column in table.columns] == ["x"]
    assert said(table)[0][2] == "taken as numbers, as no other column is left"


@pytest.mark.parametrize(
    ("name", "words", "is_identifier"),
    [
        ("CustomerID", ["customer", "id"], True),
        ("customer_id", ["customer", "id"], True),
        ("Row Names", ["row", "names"], True),
        ("rownames", ["rownames"], True),
        ("UUID", ["uuid"], True),
        ("No.", ["no"], True),
        ("RowNumber", ["row", "number"], True),
        ("humid", ["humid"], False),
        ("paid", ["paid"], False),
        ("idle", ["idle"], False),
        ("", [], False),
    ],
)
def test_names_of_identifiers(name, words, is_identifier):
    assert (words_of(name), names_rows(name)) == (words, is_identifier)


# Numbers as text


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (lambda i: f"{i * 1234:,}", COUNT * 1234),
        (lambda i: f"$ {i * 1234:,}.50", COUNT * 1234 + 0.5),
        (lambda i: f"-{i}.5 €", -COUNT - 0.5),
        (lambda i: f"({i}.25)" if i % 2 else f"{i}.25", np.where(COUNT % 2, -1, 1) * (COUNT + 0.25)),
        (lambda i: f"{i}%", COUNT / 100),
        (lambda i: f"{i * 1000 // 7:,}".replace(",", " "), COUNT * 1000 // 7),
        (lambda i: f"{i * 1000 // 7:,}".replace(",", "'"), COUNT * 1000 // 7),
        (lambda i: f"{i},5", COUNT + 0.5),
        (lambda i: f"{i}.000,25", COUNT * 1000 + 0.25),
        (lambda i: f"{i} kg", COUNT),
        (lambda i: f"{i}.5mph", COUNT + 0.5),
        (lambda i: f"USD {i}", COUNT),
    ],
)
def test_numbers_as_text_are_read(text, values):
    frame = pd.DataFrame({"z": Z, "x": [text(i) for i in COUNT], "y": Z})
    table = learn(frame)
    X = table.transform(frame, np.float64)
    np.testing.assert_allclose(X[1:].T, standardised(values), atol=1e-9)
    assert table.text_columns == ["x"]
    (_, found, done, example) = next(each for each in said(table) if each[0] == "x")
    assert (found, done) == ("numbers as text", "read as numbers") and " is " in example
    np.testing.assert_array_equal(table.transform(frame[5:6], np.float64), X[:, 5:6])  # the style is that of training


@pytest.mark.parametrize(
    ("texts", "style", "expected"),
    [
        (
            [
                "1,234.5",
                "$ 1 000",
                "-$5",
                "+ 3 %",
                ".5e-3",
                "1e5",
                "1'000",
                "(7)",
                "€3",
                "\u22125.5",
                "$\u22121e\u22122",
            ],
            cells.NumberStyle(),
            [1234.5, 1000, -5, 0.03, 0.0005, 1e5, 1000, -7, 3, -5.5, -0.01],
        ),
        (["1.234,5", "1 000", "1,234", "5 %"], cells.NumberStyle(","), [1234.5, 1000, 1.234, 0.05]),
        (
            ["x1", "1 x", "", "1e", "- - 1", "1 $ $", ".", "e5", "12,34", "1,2345", "--1", "1" * 41],
            cells.NumberStyle(),
            [np.nan] * 12,
        ),
    ],
)
def test_styles_of_numbers(texts, style, expected):
    np.testing.assert_allclose(cells.parsed(pd.Series(texts, dtype="string"), style), expected)


@pytest.mark.parametrize(
    "words", [("yes", "no"), ("Y", "N"), ("T", "F"), ("True", "false"), ("YES", "n"), (True, False)]
)
def test_words_for_yes_and_no_are_1_and_0(words):
    X, decisions = understood([words[int(i % 3 > 0)] for i in COUNT])
    np.testing.assert_allclose(X, standardised(COUNT % 3 == 0))
    assert [each[2] for each in decisions] == ["taken as 1 and 0"] * (words[0] is not True)


def test_booleans_beside_an_odd_cell_are_read_as_they_were_learnt():
    table = learn(pd.DataFrame({"x": [True, False, False] * 20, "y": Z}))
    X, noted = table.encode(pd.DataFrame({"x": ["True", "FALSE", "no", "maybe", "f"]}), np.float64)
    np.testing.assert_allclose(X[0], standardised([1, 0, 0] * 20)[[0, 1, 1, 1, 1], 0])
    assert [note.detail for note in noted] == ["2, such as 'maybe' in row 3"]


def test_booleans_are_read_in_other_words_too():
    table = learn(pd.DataFrame({"x": ["yes", "no", "no"] * 20, "y": Z}))
    X = table.transform(pd.DataFrame({"x": ["YES", "true", "N", "f"]}), np.float64)
    np.testing.assert_allclose(X[0], standardised([1, 0, 0] * 20)[[0, 0, 1, 1], 0])
    np.testing.assert_array_equal(table.transform(pd.DataFrame({"x": [True, True, False, False]}), np.float64), X)


@pytest.mark.parametrize(
    ("odd", "n"), [("?", 1), ("?", 20), ("n/a", 5), ("Total: 60 rows", 1), ("see note", 2), ("-", 3)]
)
def test_an_odd_cell_among_numbers_is_missing_and_named(odd, n):
    values = [odd if i < n else str(i) for i in COUNT[::-1]]
    X, ((_, found, done, detail),) = understood(values)
    present = np.where(COUNT[::-1] < n, np.nan, COUNT[::-1])
    filled = np.where(np.isnan(present), np.nanmedian(present), present)
    np.testing.assert_allclose(X, np.hstack([standardised(filled), np.isnan(present)[:, None]]))
    assert (found, done) == ("cells that are no numbers", "taken as missing")
    assert detail == f"{n}, {'such as ' * (n > 1)}{odd!r} in row {61 - n}"


@pytest.mark.parametrize("texts", [["0", "1", "2", "3", "4+"], ["1", "2", "3", "3a"], ["10-20", "20-30", "30-40"]])
def test_texts_beside_few_numbers_are_categories(texts):
    X, decisions = understood([texts[i % len(texts)] for i in COUNT])
    np.testing.assert_array_equal(X, np.eye(len(texts))[COUNT % len(texts)])
    beside = [("x", "numbers beside texts", "taken as categories", f"such as {texts[-1]!r}")]
    assert decisions == (beside if texts[0].isdigit() else [])


@pytest.mark.parametrize("text", ["1.0.{}", "10.0.0.{}", "555 123{}", "A/{}", "{}-2"])
def test_versions_addresses_and_codes_are_categories(text):
    X, _ = understood([text.format(i % 4) for i in COUNT])
    np.testing.assert_array_equal(X, np.eye(4)[COUNT % 4])


def test_infinite_numbers_are_missing():
    X, decisions = understood([np.inf if i == 3 else i * 1.5 for i in COUNT])
    present = np.where(COUNT == 3, np.median(np.delete(COUNT, 3)) * 1.5, COUNT * 1.5)
    np.testing.assert_allclose(X, np.hstack([standardised(present), (COUNT == 3)[:, None]]))
    assert decisions == [("x", "infinite numbers", "taken as missing", "1, inf in row 4")]


# Categories


def test_rare_categories_and_those_beyond_a_hundred_are_other():
    """In the order of their frequency; a table of few rows keeps what has few."""
    rows = [f"c{i % 110:03}" for i in range(2200)] + [f"c{i:03}" for i in range(5, 100)]
    frame = pd.DataFrame({"x": rows, "z": np.arange(len(rows)) * 1.5, "y": np.arange(len(rows)) / 7})
    table = learn(frame)
    kept = [f"c{i:03}" for i in (*range(5), *range(5, 100))]
    assert list(table.columns[0].categories) == kept and table.n_features == 102
    assert said(table)[0] == ("x", "many categories", "taken together as other", "10 of 110")
    X, _ = table.encode(pd.DataFrame({"x": ["c004", "c109"], "z": 0}), np.float64)
    assert X[4, 0] == X[100, 1] == 1 and X[:101].sum() == 2
    assert learn(frame, categorical=("x",)).n_features == 111


def test_numbers_as_categories_and_categories_as_numbers():
    X, _ = understood([10.0, 20.0, 30.0] * 20, categorical=("x",))
    np.testing.assert_array_equal(X, np.eye(3)[COUNT % 3])
    frame = pd.DataFrame({"z": Z, "x": [10, 20, 30] * 20, "y": Z})
    table = learn(frame, categorical=("x",))
    assert table.columns[1].categories == ("10", "20", "30") and table.text_columns == []
    for values in ([10, 30], [10.0, 30.0], ["10", "30"]):
        np.testing.assert_array_equal(
            table.transform(pd.DataFrame({"x": values, "z": 0})).T[:, 1:], [[1, 0, 0], [0, 0, 1]]
        )
    X, ((_, found, _, detail),) = understood(["a", "b", "3", "4"] * 15, numeric=("x",))
    np.testing.assert_array_equal(X[:, 1], COUNT % 4 < 2)
    assert found == "cells that are no numbers" and detail == "30, such as 'a' in row 1"


@pytest.mark.parametrize("learnt", [["1.0", "2.0", None], ["1", "2", None], [1.0, 2.0, None], ["1.00", "2", "x"]])
def test_whole_numbers_with_and_without_a_point_are_one_category(learnt):
    table = learn(pd.DataFrame({"z": Z, "x": learnt * 20, "y": Z}), categorical=("x",))
    for values in (["1", "2", "1.5"], ["1.0", "2.00", "1.5"], [1.0, 2.0, 1.5]):
        X, noted = table.encode(pd.DataFrame({"x": values, "z": 0}))
        np.testing.assert_array_equal(X[1:3, :2], np.eye(2))
        assert [note.detail for note in noted] == [f"1, {values[2]!r} in row 2"]


def test_free_text_that_is_kept_is_categories():
    frame = pd.DataFrame({"x": ["a", "b"] * 5 + [f"w{i}" for i in range(290)], "z": np.arange(300) / 7})
    frame["y"] = frame["z"]
    assert learn(frame).n_features == 1
    assert learn(frame, keep=("x",)).n_features == 1 + 3  # and other
    assert understood([f"w{i}" for i in COUNT], keep=("x",))[0].shape[1] == N


def test_kinds_of_typed_columns():
    frame = pd.DataFrame(
        {
            "decimals": [decimal.Decimal("1.5"), decimal.Decimal("2.5")] * 30,
            "nullable": pd.array([1, 2] * 30, "Int64"),
            "maybe": pd.array([True, False] * 30, "boolean"),
            "category": pd.Categorical([10, 20] * 30),
            "duration": pd.to_timedelta([12, 36] * 30, "h"),
            "arrow": pd.array([1.5, 2.5] * 30, "double[pyarrow]"),
            "mixed": pd.Series(["a", 1] * 30, dtype=object),
            "interval": pd.arrays.IntervalArray.from_tuples([(0, 1), (1, 2)] * 30),
            "y": np.arange(60.0),
        }
    )
    table = learn(frame)
    X = table.transform(frame[:2])
    np.testing.assert_allclose(
        X.T, [[-1, -1, 1, 1, 0, -1, -1, 0, 1, 1, 0], [1, 1, -1, 0, 1, 1, 1, 1, 0, 0, 1]], rtol=1e-6
    )
    assert table.columns[4].mean == 1.0  # days


# Dates


PARTS = ("year", "month", "day", "weekday", "hour", "elapsed")


def date_features(when, parts=PARTS):
    """Return the parts of moments by pandas and scikit-learn."""
    when = pd.Series(when).reset_index(drop=True)
    clock = when.dt.hour + when.dt.minute / 60 + when.dt.second / 3600 + when.dt.microsecond / 3.6e9
    found = pd.DataFrame(
        {
            "year": when.dt.year,
            "month": when.dt.month,
            "day": when.dt.day,
            "weekday": when.dt.day_of_week,
            "hour": clock,
            "elapsed": (when - when.min()) / pd.Timedelta(days=1),
        }
    )
    return StandardScaler().fit_transform(found[list(parts)].astype(float))


DAYS = pd.Series(pd.date_range("2023-12-20", periods=N, freq="25h"))
WHOLE = DAYS.dt.normalize()
NO_HOUR = ("year", "month", "day", "weekday", "elapsed")


@pytest.mark.parametrize(
    ("values", "when", "parts", "format"),
    [
        (DAYS, DAYS, PARTS, ""),
        (DAYS.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"), DAYS, PARTS, ""),
        (DAYS.dt.strftime("%Y-%m-%dT%H:%M:%S"), DAYS, PARTS, "ISO8601"),
        (DAYS.dt.strftime("%Y-%m-%d %H:%M"), DAYS, PARTS, "ISO8601"),
        (DAYS.dt.strftime("%d/%m/%Y %H:%M"), DAYS, PARTS, "%d/%m/%Y %H:%M"),
        (DAYS.dt.strftime("%m/%d/%Y %I:%M %p"), DAYS, PARTS, "%m/%d/%Y %I:%M %p"),
        (WHOLE.dt.strftime("%Y-%m-%d"), WHOLE, NO_HOUR, "ISO8601"),
        (WHOLE.dt.strftime("%Y/%m/%d"), WHOLE, NO_HOUR, "%Y/%m/%d"),
        (WHOLE.dt.strftime("%d/%m/%Y"), WHOLE, NO_HOUR, "%d/%m/%Y"),
        (WHOLE.dt.strftime("%m/%d/%Y"), WHOLE, NO_HOUR, "%m/%d/%Y"),
        (WHOLE.dt.strftime("%d.%m.%Y"), WHOLE, NO_HOUR, "%d.%m.%Y"),
        (WHOLE.dt.strftime("%d-%m-%y"), WHOLE, NO_HOUR, "%d-%m-%y"),
        (WHOLE.dt.strftime("%d-%b-%Y"), WHOLE, NO_HOUR, "%d-%b-%Y"),
        (WHOLE.dt.strftime("%B %d, %Y"), WHOLE, NO_HOUR, "%B %d, %Y"),
        (WHOLE.dt.strftime("%a, %d %b %Y"), WHOLE, NO_HOUR, "%a, %d %b %Y"),
        (WHOLE.dt.strftime("%Y%m%d"), WHOLE, NO_HOUR, None),
        (WHOLE.dt.date, WHOLE, NO_HOUR, ""),
        (WHOLE.dt.to_period("D"), WHOLE, NO_HOUR, ""),
    ],
)
def test_dates_become_their_parts_as_far_as_they_vary(values, when, parts, format):
    name = "date" if format is None else "x"
    values = values.astype(int) if format is None else values
    X, ((_, found, done, detail),) = understood(values, name)
    np.testing.assert_allclose(X, date_features(when, parts), atol=1e-9)
    assert (found, done) == ("dates or times", f"taken as {', '.join(parts)}")
    assert detail == {"": "", "ISO8601": "", None: "as %Y%m%d"}.get(format, f"as {format}")


MONTHS = pd.Series(pd.date_range("2019-01-01", periods=N, freq="MS"))
QUARTERS = pd.Series(pd.date_range("1980-01-01", periods=N, freq="QS"))
TIMES = pd.Series(pd.to_datetime([f"1970-01-01 {i % 24:02}:{i:02}" for i in COUNT]))


@pytest.mark.parametrize(
    ("values", "when", "parts"),
    [
        (MONTHS.dt.strftime("%Y-%m"), MONTHS, ("year", "month", "elapsed")),
        (MONTHS.dt.strftime("%b-%Y"), MONTHS, ("year", "month", "elapsed")),
        (MONTHS.dt.strftime("%m/%Y"), MONTHS, ("year", "month", "elapsed")),
        ([f"{1980 + i // 4}-Q{i % 4 + 1}" for i in COUNT], QUARTERS, ("year", "month", "elapsed")),
        (TIMES.dt.strftime("%H:%M"), TIMES, ("hour",)),
        (TIMES.dt.time, TIMES, ("hour",)),
    ],
)
def test_months_quarters_and_times_of_day(values, when, parts):
    np.testing.assert_allclose(understood(values)[0], date_features(when, parts), atol=1e-9)


def test_missing_and_odd_dates_are_the_middle_one_with_an_indicator():
    values = WHOLE.dt.strftime("%Y-%m-%d").tolist()
    values[3], values[9] = None, "soon"
    X, decisions = understood(values)
    when = WHOLE.drop([3, 9])
    filled = WHOLE.copy()
    filled[[3, 9]] = when.sort_values().iloc[(len(when) - 1) // 2]
    np.testing.assert_allclose(X, np.hstack([date_features(filled, NO_HOUR), np.isin(COUNT, [3, 9])[:, None]]))
    assert [each[1:] for each in decisions[1:]] == [
        ("cells that are no dates", "taken as missing", "1, 'soon' in row 10"),
        ("missing dates", "filled in by the middle date, with a feature that says so", "1"),
    ]


def test_one_date_or_none_says_whether_there_is_one():
    X, ((_, _, done, _), _) = understood(["2024-01-01", None] * 30)
    np.testing.assert_array_equal(X, (COUNT % 2)[:, None])
    assert done == "taken as given or missing, as all are the same"


@pytest.mark.parametrize("odd", [None, "?"])
def test_dates_as_whole_numbers_are_read_however_they_are_written(odd):
    whole = WHOLE.dt.strftime("%Y%m%d").astype(int)
    texts = whole.astype(str).where(COUNT != 3, odd)
    for values in (texts, texts.where(COUNT == 3, texts + ".0"), whole.astype(float).where(COUNT != 3)):
        frame = pd.DataFrame({"date": values, "z": Z, "y": Z})
        table = learn(frame)
        X, noted = table.encode(frame, np.float64)
        filled = WHOLE.where(COUNT != 3, WHOLE.drop(3).sort_values().iloc[(N - 2) // 2])
        np.testing.assert_allclose(X.T[:, :-2], date_features(filled, NO_HOUR), atol=1e-9)
        assert all(note.detail == "1, '?' in row 3" for note in noted)
        for again in (whole, whole.astype(float), whole.astype(str), whole.astype(str) + ".0"):
            found, noted = table.encode(pd.DataFrame({"date": again, "z": Z}), np.float64)
            np.testing.assert_array_equal(np.delete(found, 3, axis=1), np.delete(X, 3, axis=1))
            assert noted == []


def test_dates_that_fit_two_ways_are_said():
    values = [f"{i % 12 + 1:02}/{i // 12 + 1:02}/2020" for i in COUNT]
    _, ((_, _, _, detail),) = understood(values)
    assert detail == "as %m/%d/%Y, which could be %d/%m/%Y too"


def test_moments_in_a_zone_are_read_in_utc_whether_typed_or_texts():
    local = pd.Series(pd.date_range("2024-01-01", periods=N, freq="37h", tz="Europe/Berlin"))
    frame = pd.DataFrame({"z": Z, "x": local, "y": Z})
    expected = date_features(local.dt.tz_convert("UTC").dt.tz_localize(None), PARTS)
    for values in (local, local.astype(str), local.astype(object)):
        X = learn(frame.assign(x=values)).encode(frame.assign(x=local.astype(str)), np.float64)[0]
        np.testing.assert_allclose(X.T[:, 1:], expected, atol=1e-9)


def test_dates_of_other_types_and_gaps_in_new_rows():
    frame = pd.DataFrame({"x": WHOLE.dt.strftime("%d/%m/%Y"), "y": Z})
    table = learn(frame)
    X = table.transform(frame, np.float64)
    np.testing.assert_array_equal(table.transform(pd.DataFrame({"x": WHOLE}), np.float64), X)
    with pytest.warns(UserWarning, match="x .1, in row 0.: missing values: no training row has any: taken as the mid"):
        found = table.transform(pd.DataFrame({"x": [None, "21/12/2023"]}), np.float64)
    middle = int(np.argsort(WHOLE, kind="stable")[(N - 1) // 2])
    np.testing.assert_array_equal(found[:, 0], X[:, middle])
    with pytest.warns(UserWarning, match="x .1, 'soon' in row 0.: cells that are no dates: taken as missing"):
        np.testing.assert_array_equal(table.transform(pd.DataFrame({"x": ["soon"]}), np.float64)[:, 0], X[:, middle])
    typed = learn(pd.DataFrame({"x": WHOLE, "y": Z}))
    np.testing.assert_array_equal(typed.transform(frame[["x"]], np.float64), X)


def test_columns_that_are_named_as_dates():
    seconds = (DAYS.astype("M8[s]").astype("int64")).tolist()
    for values, when, parts in (
        (seconds, DAYS, PARTS),
        ([second * 1000 for second in seconds], DAYS, PARTS),
        (WHOLE.dt.strftime("%Y%m%d").astype(int), WHOLE, NO_HOUR),
        (COUNT + 1950, pd.Series(pd.to_datetime([f"{i + 1950}-01-01" for i in COUNT])), ("year", "elapsed")),
    ):
        X, decisions = understood(values, date=("x",))
        np.testing.assert_allclose(X, date_features(when, parts), atol=1e-9)
        assert decisions == []


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("2024-01-31", ["ISO8601", "%Y-%m-%d"]),
        ("31.1.2024", ["%d.%m.%Y", "%m.%d.%Y"]),
        ("1/2/2024", ["%m/%d/%Y", "%d/%m/%Y"]),
        ("10:30:05", ["%H:%M:%S"]),
        ("2024", []),
        ("10", []),
        ("May", []),
        ("1-2", []),
        ("x 1/2/2024", []),
        ("1" * 50, []),
    ],
)
def test_formats_of_dates(text, formats):
    assert date_formats.formats_of(text) == formats


def test_options_about_columns_that_do_not_fit():
    frame = pd.DataFrame({"x": Z, "z": Z, "y": Z})
    for options, parts in (
        ({"drop": ("q", "zz")}, ["there are no columns 'q', 'zz', did you mean 'z'?", "the columns are", "x, z, y"]),
        ({"drop": ("x",), "date": ("x",)}, ["column 'x' is named", "both for --date and for --drop", "name it once"]),
        ({"drop": ("x", "x")}, ["column 'x' is named", "twice", "name it once"]),
        ({"drop": ("y",)}, ["column 'y' is named", "both for --drop and for the target", "name it once"]),
        ({"drop": ("x",), "keep": ("x",)}, ["column 'x' is named", "both for --keep and for --drop", "name it once"]),
        ({"weights": "y"}, ["both for --weights and for the target"]),
        ({"impute": "mode"}, ["impute is 'mode'", "'median', 'mean'"]),
        ({"drop": ("x", "z")}, ["no column is left beside the target y", "there must be", "at least one feature"]),
    ):
        with refusal(ValueError, *parts):
            learn(frame, **options)
    with refusal(
        ValueError,
        "every column beside the target has one value",
        "nothing to learn from",
        "give more rows, or other columns",
    ):
        learn(frame.assign(x=1, z=2))
    with refusal(
        ValueError,
        "no column is left to learn from beside the target y",
        "x (such as 'n0'): texts that are",
        "or keep one with --keep COLUMN",
    ):
        learn(frame.assign(x=[f"n{i}" for i in COUNT], z=2))


def test_patterns_of_texts_in_files_are_linear():
    """A cubic pattern would take years for a million characters, a quadratic one an hour."""
    for text in ("1" + " " * 10**6 + "x", "1" * 10**6 + "x", " " * 10**6 + "x", "1e" + "1" * 10**6 + "x", "1-" * 10**6):
        texts = pd.Series([text], dtype="string")
        assert np.isnan(cells.parsed(texts, cells.NumberStyle(unit="kg"))).all()
        assert not [each for each in (layout.NUMBER, layout.DECIMAL, layout.THOUSANDS) if each.fullmatch(text)]
        assert cells.number_style(texts, np.ones(1, int)) is None and dates.read_dates(texts, np.ones(1, int)) is None
