"""What is found out of a table as text, against values written by hand and against pandas."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from refusals import refusal

from xpnet.tables import text
from xpnet.tables.decisions import lines
from xpnet.tables.files import read_table
from xpnet.tables.table import Reading

ROWS = "name{0}size{0}price\nÄhre{0}1{0}2{1}5\nb c{0}20{0}-0{1}125\n{0}{0}1000{1}0\n"
VALUES = {"name": ["Ähre", "b c", None], "size": [1, 20, None], "price": [2.5, -0.125, 1000]}


@pytest.fixture
def read(tmp_path):
    """A function that writes bytes into a file and reads it."""

    def write_and_read(content, *options, name="t.csv", **named):
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name, *options, **named)

    return write_and_read


def values(table):
    """The columns as lists, None for what is missing."""
    return {
        name: [None if pd.isna(value) else value for value in column]
        for name, column in table.frame.to_dict("list").items()
    }


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
@pytest.mark.parametrize(("separator", "called"), [(",", None), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_separators_are_found_out_and_said(read, name, separator, called):
    table = read(ROWS.format(separator, ".").encode(), name=name)
    assert values(table) == VALUES and list(table.frame.index) == [1, 2, 3]
    assert table.reading == Reading(separator, ".")
    said = [f"{called} between fields: they separate columns (--separator SIGN)"] if called else []
    assert list(lines(table.decisions)) == said and not any(decision.is_change for decision in table.decisions)


def test_a_separator_may_be_given(read):
    assert values(read(ROWS.format(":", ".").encode(), Reading(separator=":"))) == VALUES
    table = read(b"a,b;c\nx,y;3\n", Reading(separator=";"))
    assert list(table.frame) == ["a,b", "c"] and not table.decisions


def test_a_separator_within_fields_is_none(read):
    table = read(b'a;b\n"x; y, z";1,5\n"u, v; w";2,5\n')
    assert values(table) == {"a": ["x; y, z", "u, v; w"], "b": [1.5, 2.5]}
    assert values(read(b"note,n\nx; y; z,1\nw,2\nu; v,3\n"))["n"] == [1, 2, 3]
    assert list(read(b"first name,b\nx y,1\nz w,2\n").frame) == ["first name", "b"]


def test_texts_with_blanks_below_one_name_are_one_column(read):
    """Of a run on two columns, the rows to predict may have a date alone."""
    table = read(b"date\n2010/06/22 02:00:00\n2010/10/20 07:00:00\n2010/11/07 01:00:00\n")
    assert list(table.frame) == ["date"] and table.frame["date"][1] == "2010/06/22 02:00:00"
    assert list(read(b'"x"\n"1" 5\n"2" 6\n"3" 8\n').frame) == ["Unnamed: 0", "x"]  # of R, with names of rows


def test_blanks_separate_where_nothing_else_does(read):
    table = read(b'"len" "kind"\n"1"  4.2 "a b"\n"2" 11.5 "c"\n')  # as R's write.table writes
    assert values(table) == {"Unnamed: 0": [1, 2], "len": [4.2, 11.5], "kind": ["a b", "c"]}
    assert [decision.found for decision in table.decisions] == ["blanks between fields", "one name fewer than fields"]
    with refusal(ValueError, "line 3 has 1 field and the header 2"):
        read(b"a b\n1 2\n3\n4 5\n", Reading(separator=" "))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_decimal_comma_is_found_out_and_said(read, separator):
    table = read(ROWS.format(separator, ",").encode())
    assert values(table) == VALUES and table.reading == Reading(separator, ",")
    assert list(lines(table.decisions))[-1] == "numbers such as 1,5: the comma is their decimal sign (--decimal .)"


@pytest.mark.parametrize(
    ("fields", "decimal"),
    [
        (("1,5", "2,25"), ","),
        (("1,250", "0,5"), ","),
        (("1.250", "2,5"), ","),  # the first has a separator of thousands
        (("1,250", "2,500"), None),  # thousands, or not: it cannot be told
        (("1,250", "2.5"), "."),
        (("1.5", "2"), "."),
        (("1", "2"), None),
        (("01.02.2024", "x,y"), None),
    ],
)
def test_the_decimal_sign_by_what_numbers_have(read, fields, decimal):
    table = read(f"a;b\n{fields[0]};x\n{fields[1]};y\n".encode())
    assert table.reading.decimal == decimal
    if decimal is None:
        assert [str(value) for value in table.frame["a"]] == list(fields)


def test_a_decimal_sign_may_be_given(read):
    assert read(b"a;b\n1,250;x\n2,500;y\n", Reading(decimal=",")).frame["a"].tolist() == [1.25, 2.5]
    table = read(b"a;b\n1,5;x\n2,5;y\n", Reading(decimal="."))
    assert table.frame["a"].tolist() == ["1,5", "2,5"]
    assert read(b'a,b\n"1,5",x\n"2,5",y\n').frame["a"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("encoding", "mark", "found"),
    [
        ("utf-8", b"", None),
        ("utf-8", b"\xef\xbb\xbf", None),
        ("utf-16-le", b"\xff\xfe", "utf-16-le"),
        ("utf-16-be", b"\xfe\xff", "utf-16-be"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("latin-1", b"", "cp1252"),
        ("cp1252", b"", "cp1252"),
    ],
)
def test_encodings_are_found_out_and_said(read, encoding, mark, found):
    content = mark + ROWS.format(";", ",").encode(encoding)
    table = read(content)
    assert values(table) == values(read(content, table.reading)) == values(read(content, Reading(encoding=found)))
    assert values(table) == VALUES
    said = [f"a text that is not UTF-8: read as {found} (--encoding NAME)"] if found else []
    assert list(lines(table.decisions))[: len(said)] == said and len(table.decisions) == 2 + len(said)


def test_an_encoding_may_be_given(read):
    content = "a,b\n1,ż\n2,€\n".encode("cp1250")
    assert read(content, Reading(encoding="cp1250")).frame["b"].tolist() == ["ż", "€"]
    assert read("a,b\n1,ż\n".encode("utf-16"), Reading(encoding="utf-16")).frame["b"].tolist() == ["ż"]
    with refusal(ValueError, "t.csv is not ascii", "it must be a text", "name its encoding with --encoding"):
        read(content, Reading(encoding="ascii"))


def test_what_is_not_utf8_may_come_late(read):
    table = read(b"a,b\n" + b"1,x\n" * 100_000 + "2,é\n".encode("cp1252"))
    assert table.frame["b"].iloc[-1] == "é" and table.reading.encoding == "cp1252" and len(table.frame) == 100_001


@pytest.mark.parametrize(
    ("suffix", "packed"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zip", None)]
)
def test_compressed_tables(tmp_path, read, suffix, packed):
    content = ROWS.format("\t", ".").encode()
    if packed is None:
        with zipfile.ZipFile(tmp_path / "z", "w") as archive:
            archive.writestr("__MACOSX/._t.tsv", b"\0")
            archive.writestr("folder/t.tsv", content)
        packed = lambda content: (tmp_path / "z").read_bytes()  # noqa: E731
    assert values(read(packed(content), name=f"t.tsv.{suffix}")) == VALUES
    with refusal(ValueError, f"is not a whole .{suffix} file", "it must be complete", "copy or write it again"):
        read(packed(content)[:-20], name=f"t.tsv.{suffix}")


def test_an_archive_of_a_text_needs_no_second_suffix(tmp_path):
    with zipfile.ZipFile(tmp_path / "T.ZIP", "w") as archive:
        archive.writestr("t.csv", ROWS.format("\t", "."))
    assert values(read_table(tmp_path / "T.ZIP")) == VALUES


@pytest.mark.parametrize("names", [[], ["a.csv", "b.csv"]])
def test_an_archive_must_hold_one_table(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"a\n1\n")
    found = f"t.csv.zip holds {len(names)} files"
    with refusal(ValueError, found, "it must hold one table", "unpack it, and name the table's file"):
        read_table(tmp_path / "t.csv.zip")


def test_an_archive_with_a_password_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", b"a\n1\n")

    def open_one(self, name):
        raise RuntimeError("File 't.csv' is encrypted, password required for extraction")

    monkeypatch.setattr(zipfile.ZipFile, "open", open_one)
    with refusal(ValueError, "t.csv.zip cannot be unpacked", "it must be open", "unpack it"):
        read_table(tmp_path / "t.csv.zip")


def test_stdin_is_a_table(monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(ROWS.format(";", ",").encode("utf-16")), "utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    assert values(read_table("-")) == VALUES
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a,b\n1,2\n3\n"), "utf-8"))
    with refusal(ValueError, "stdin: line 3 has 1 field"):
        read_table("-")
    monkeypatch.setattr(piped, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", piped)
    with refusal(ValueError, "stdin is a terminal", "out of another command", "cat T.csv | xpnet"):
        read_table("-")


@pytest.mark.parametrize(
    ("content", "names", "found"),
    [
        (b",a\n5,1\n6,2\n", ["Unnamed: 0", "a"], []),
        (b"a,,b\n5,1,2\n6,2,3\n", ["a", "Unnamed: 1", "b"], []),
        (b"a,b\n5,1,2\n6,2,3\n", ["Unnamed: 0", "a", "b"], ["one name fewer than fields"]),
        (b"a,b\n5,1,\n6,2,\n", ["a", "b"], []),  # a separator ends each row
        (b"a,b,\n5,1\n6,2\n", ["a", "b"], []),
        (b"a,b,\n5,1,\n6,2,\n", ["a", "b", "Unnamed: 2"], []),
        (b"a,b,a,a\n5,1,2,3\n6,2,3,4\n", ["a", "b", "a.1", "a.2"], ["another column is called 'a' too"] * 2),
        (b"#a,b\n5,1\n6,2\n", ["#a", "b"], []),
    ],
)
def test_names_of_columns(read, content, names, found):
    table = read(content)
    assert list(table.frame) == names and table.frame.iloc[:, 0].tolist() == [5, 6]
    assert [decision.found for decision in table.decisions] == found


def test_texts_for_missing_values(read):
    content = b"a,b\n?,x\n-999,.\n3,?\n"
    assert values(read(content, Reading(na_values=("?", "-999")))) == {"a": [None, None, 3], "b": ["x", ".", None]}
    assert values(read(b"a,b\n? ,x\n 5,y\n", Reading(na_values=("?",)))) == {"a": [None, 5], "b": ["x", "y"]}


def test_a_column_whose_end_is_text_keeps_the_digits_of_its_beginning(read):
    """pandas reads a large file in parts, each with types of its own."""
    table = read(b"a,b\n" + b"01,2\n" * 100_000 + b"x1,2\n")
    assert set(table.frame["a"]) == {"01", "x1"} and table.frame["b"].sum() == 200_002


def test_rows_are_read_one_by_one_only_where_they_may_be_short(read, monkeypatch):
    """The slow way names the line; without a missing value at the end of a row there is none to name."""
    seen = []
    monkeypatch.setattr(text, "_check_rows", lambda source, layout: seen.append(len(layout.names)))
    read(b'a,b\n"1",2\n,4\n')
    read(b"a,b,c\n1,2,\n1,,\n,4,NA\n")
    read(b"a;b;c\n1;2;\n")
    read(b'a,b\n"1",\n"x, y",4\n')
    assert seen == []
    read(b"a,b\n1,\n2\n")
    assert seen == [2]


def test_as_pandas_reads_it(read):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((500, 4)), columns=list("abcd"))
    frame["e"], frame["f"], frame["g"] = (
        rng.integers(0, 9, 500),
        rng.choice(["x, y", 'say "z"', "w\nv"], 500),
        [True, False] * 250,
    )
    frame.loc[rng.random(500) < 0.2, ["a", "f"]] = np.nan
    content = frame.to_csv(index=False).encode()
    pd.testing.assert_frame_equal(
        read(content).frame.reset_index(drop=True), pd.read_csv(io.BytesIO(content)), check_exact=True
    )


def test_none_is_a_category_and_missing_among_numbers(tmp_path):
    path = tmp_path / "T.csv"
    path.write_text("improved,n,both\nNone,1,None\nSome,None,a\nMarked,2.5,\n")
    frame = read_table(path).frame
    assert frame["improved"].tolist() == ["None", "Some", "Marked"]
    assert frame["n"].dtype == float and frame["n"].fillna(-1).tolist() == [1, -1, 2.5]
    assert frame["both"].isna().tolist() == [False, False, True]
    assert read_table(path, Reading(na_values=("None",))).frame["improved"].isna().tolist() == [True, False, False]
