"""Tables of other formats than text, and several files as one, against frames that pandas and pyarrow wrote."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from refusals import refusal

from xpnet.tables import formats, sources
from xpnet.tables.files import absolute_names, called, expanded, read_table, stem_of
from xpnet.tables.table import Reading

FRAME = pd.DataFrame(
    {
        "a": [1.5, np.nan, -3.25],
        "b": ["x", "y z", None],
        "c": [2**53 + 1, 0, -7],
        "d": [True, False, True],
        "code": ["01", "2", "1.50"],
    }
)
WRITERS = {
    "t.parquet": lambda path: FRAME.to_parquet(path),
    "t.feather": lambda path: FRAME.to_feather(path),
    "t.json": lambda path: FRAME.to_json(path, orient="records"),
    "t.json.gz": lambda path: FRAME.to_json(path, orient="records"),
    "columns.json": lambda path: FRAME.to_json(path, orient="columns"),
    "lines.json": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "t.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "t.ndjson.gz": lambda path: path.write_bytes(
        gzip.compress("".join(json.dumps(row) + "\r\n" for row in json.loads(FRAME.to_json(orient="records"))).encode())
    ),
    "indented.json": lambda path: FRAME.to_json(path, orient="records", indent=2),
}


@pytest.mark.parametrize("name", WRITERS)
def test_formats_give_the_values_back(tmp_path, name):
    WRITERS[name](tmp_path / name)
    table = read_table(tmp_path / name)
    assert list(table.frame) == list(FRAME) and list(table.frame.index) == [1, 2, 3] and not table.decisions
    for column in FRAME:
        found, expected = table.frame[column], FRAME[column]
        assert found.isna().tolist() == expected.isna().tolist()
        assert found.dropna().tolist() == expected.dropna().tolist(), column


def test_excel(tmp_path):
    frame = FRAME.assign(c=[20, 0, -7], day=pd.to_datetime(["2024-01-02", "2024-02-29", "2023-12-31"]))
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    table = read_table(tmp_path / "t.xlsx")
    assert list(table.frame) == list(frame) and not table.decisions
    for column in frame:
        assert table.frame[column].dropna().tolist() == frame[column].dropna().tolist(), column
    with pd.ExcelWriter(tmp_path / "t.xlsx") as book:
        FRAME[["a", "b"]].to_excel(book, sheet_name="Data")
        FRAME.to_excel(book, sheet_name="Other")
    table = read_table(tmp_path / "t.xlsx", text_columns=["a"])
    assert list(table.frame) == ["Unnamed: 0", "a", "b"] and table.frame["a"].dropna().tolist() == ["1.5", "-3.25"]
    assert [(each.found, each.done) for each in table.decisions] == [("2 sheets", "the first, 'Data', is read")]


def test_rows_and_columns_of_excel_without_a_value_do_not_count(tmp_path):
    rows = [["a", "b", None], [1, 2, None], [None, None, None], [3, 4, None], [None, None, None]]
    pd.DataFrame(rows).to_excel(tmp_path / "t.xlsx", index=False, header=False)
    assert read_table(tmp_path / "t.xlsx").frame.to_dict("list") == {"a": [1, 3], "b": [2, 4]}
    pd.DataFrame([["Sales", None, None], *[[*row[:2], 5] for row in rows]]).to_excel(
        tmp_path / "t.xlsx", index=False, header=False
    )
    parts = [
        "t.xlsx: the first row has names for 1 of 3 columns",
        "it must hold the names",
        "remove the rows above these",
    ]
    with refusal(ValueError, *parts):
        read_table(tmp_path / "t.xlsx")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.parquet", b"PAR1"),
        ("t.feather", b"ARROW1\0\0"),
        ("t.json", b'[{"a": 1}, {"a"'),
        ("t.json", b"7"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n'),
        ("t.jsonl", b'{"a": "\xff"}\n'),
        ("t.xlsx", b"PK\x03\x04"),
        ("t.xlsx", b"a,b\n1,2\n"),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with refusal(ValueError, f"{name} is not a", "file that", "can read (", "write it with DataFrame.to_"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", ["t.json", "t.xlsx", "t.parquet", "t.feather"])
def test_values_that_stand_for_missing(tmp_path, name):
    frame = pd.DataFrame({"a": [-999, 2, 3], "b": ["x", "?", " z "]})
    if name == "t.json":
        frame.to_json(tmp_path / name, orient="records")
    else:
        getattr(frame, f"to_{name[2:].replace('xlsx', 'excel')}")(tmp_path / name)
    found = read_table(tmp_path / name, Reading(na_values=("?", "-999"))).frame
    assert found["a"].isna().tolist() == [True, False, False] and found["b"].isna().tolist() == [False, True, False]
    assert found["b"].iloc[2] == "z"


def test_text_columns_of_json_are_text(tmp_path):
    (tmp_path / "t.json").write_text('[{"a": 1, "b": 2}, {"a": "x", "b": 3}]', encoding="utf-8")
    assert read_table(tmp_path / "t.json", text_columns=["b"]).frame["b"].tolist() == ["2", "3"]


# Several files


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Three files of one table, of two formats and with columns in two orders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/p1.csv").write_text("a,b\n1,01\n2,02\n", encoding="utf-8")
    (tmp_path / "parts/p2.csv").write_text("b;a\nx1;3,5\n", encoding="utf-8")
    pd.DataFrame({"a": [4.0], "b": ["07"]}).to_parquet("parts/p3.parquet")
    return [f"parts/p{i}.{suffix}" for i, suffix in ((1, "csv"), (2, "csv"), (3, "parquet"))]


def test_several_files_are_one_table(parts):
    expected = {"a": [1, 2, 3.5, 4], "b": ["01", "02", "x1", "07"]}
    for names in (parts, "parts", "parts/"):
        table = read_table(names)
        assert table.frame.to_dict("list") == expected and list(table.frame.index) == [1, 2, 3, 4]
        assert table.reading == Reading() and len(table.decisions) == 2
    assert read_table(parts[:1]).frame["b"].tolist() == [1, 2]


def test_files_of_other_columns_are_refused(parts, tmp_path):
    (tmp_path / "parts/p4.csv").write_text("a,c,d\n1,2,3\n", encoding="utf-8")
    with refusal(
        ValueError, "p4.csv lacks 'b' and has in addition 'c', 'd'", "must have the same", "leave one out, or rename"
    ):
        read_table("parts")


def test_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/.hidden.csv").write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "empty/notes.md").write_text("a\n", encoding="utf-8")
    with refusal(ValueError, "empty holds no table", "it must hold .csv", "name another folder"):
        read_table(tmp_path / "empty")
    FRAME.assign(year=[2020, 2021, 2020]).to_parquet(tmp_path / "t.parquet", partition_cols=["year"])
    found = read_table(tmp_path / "t.parquet").frame
    assert sorted(zip(found["code"], map(int, found["year"]), strict=True)) == [
        ("01", 2020),
        ("1.50", 2020),
        ("2", 2021),
    ]


def test_names_of_several_files(parts, tmp_path):
    assert expanded("parts/p*.csv") == ["parts/p1.csv", "parts/p2.csv"]
    assert expanded("parts/p3*") == "parts/p3.parquet" and expanded("parts") == "parts/" and expanded("-") == "-"
    (tmp_path / "a[1].csv").write_text("a\n1\n", encoding="utf-8")
    assert expanded("a[1].csv") == "a[1].csv"
    with refusal(ValueError, "no file fits 'q*.csv'", "name files that are there", "or leave out"):
        expanded("q*.csv")
    assert [called(name) for name in (parts, "a.csv", "-")] == ["parts/p1.csv and 2 more", "a.csv", "stdin"]
    assert [stem_of(name) for name in (parts, "x/a.csv.gz", "-", "parts/", "mnist")] == [
        "p1",
        "a",
        "stdin",
        "parts",
        "mnist",
    ]
    folder = str(tmp_path.resolve())
    assert absolute_names("-") == "-" and absolute_names("parts/") == f"{folder}/parts/"
    assert absolute_names(["a.csv", "b.csv"]) == [f"{folder}/a.csv", f"{folder}/b.csv"]


# Small files of much


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
def test_a_file_that_unpacks_to_more_than_is_read_at_once_is_refused(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(sources, "AT_MOST", 12)
    for content, is_read in ((b"a,b\n1,2\n3,4\n", True), (b"a,b\n1,2\n3,45\n", False)):
        path = tmp_path / f"t{is_read}.csv.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("t.csv", content)
        else:
            path.write_bytes({"gz": gzip, "bz2": bz2, "xz": lzma}[suffix].compress(content))
        if is_read:
            assert read_table(path).frame["b"].tolist() == [2, 4]
            continue
        with refusal(ValueError, f"{path} unpacks to more than 12 bytes", "may unpack to as many", "unpack it"):
            read_table(path)


def test_a_workbook_that_unpacks_to_more_than_is_read_at_once_is_refused(tmp_path, monkeypatch):
    FRAME.to_excel(tmp_path / "t.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "t.xlsx") as archive:
        n_bytes = sum(len(archive.read(name)) for name in archive.namelist())
    monkeypatch.setattr(formats, "AT_MOST", n_bytes)
    assert len(read_table(tmp_path / "t.xlsx").frame) == len(FRAME)
    monkeypatch.setattr(formats, "AT_MOST", n_bytes - 1)
    found = f"t.xlsx unpacks to {n_bytes} bytes"
    with refusal(ValueError, found, f"may unpack to {n_bytes - 1}", "save the sheet as CSV"):
        read_table(tmp_path / "t.xlsx")


def test_a_pipe_that_does_not_end_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "AT_MOST", 10)
    monkeypatch.setattr(
        sources.sys, "stdin", SimpleNamespace(isatty=lambda: False, buffer=io.BytesIO(b"a,b\n1,2\n3,4\n"))
    )
    with refusal(ValueError, "stdin has more than 10 bytes", "may have as many", "write them to a file"):
        read_table("-")
