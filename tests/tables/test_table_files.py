"""Tables on disk: what a file gives, what is written, and one line for every file that is no table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, says

import xpnet
from xpnet.tables.files import is_table, read_table
from xpnet.tables.writing import write_rows, write_table

PLAIN = b"a,b,y\n1,x,1.5\n2,z,2.5\n"


@pytest.fixture
def read(tmp_path):
    """A function that writes bytes into a file and reads it as a table."""

    def write_and_read(content, name="t.csv", **options):
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name, **options).frame

    return write_and_read


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b",", b", "),
        PLAIN.replace(b"\n", b"\n\n").rstrip(b"\n"),
        b'"a",b,y\n1,"x",1.5\n2,z,2.5\n',
    ],
)
def test_the_same_table_however_it_is_written(read, content):
    frame = read(content)
    assert list(frame.index) == [1, 2]
    assert frame.to_dict("list") == {"a": [1, 2], "b": ["x", "z"], "y": [1.5, 2.5]}


def test_a_field_in_quotes_may_hold_commas_and_line_breaks(read):
    assert list(read(b'a,b\n1,"x, y\nz ""q"""\n2,w\n')["b"]) == ['x, y\nz "q"', "w"]


def test_text_columns_stay_text_and_words_for_missing_are_missing(read):
    frame = read(b"a,b\n01,NA\n2,7\n", text_columns=["a", "not there"])
    assert list(frame["a"]) == ["01", "2"]
    assert frame["b"].isna().tolist() == [True, False]


BLANKS = b" a ,b\t, y\n 1 , x ,\t1.5 \n2\t,z \t,2.5\n3, NA ,\t\n4, , 1 \n"


def test_blanks_at_both_ends_of_names_and_values_do_not_count(read):
    frame = read(BLANKS)
    assert list(frame.columns) == ["a", "b", "y"] and frame["a"].tolist() == [1, 2, 3, 4]
    assert frame["b"].tolist()[:2] == ["x", "z"] and frame["b"].isna().tolist() == [False, False, True, True]
    assert frame["y"].isna().tolist() == [False, False, True, False] and frame["y"].dtype == float
    assert read(b"y,b\nyes,1\nyes ,2\n yes,3\n")["y"].unique().tolist() == ["yes"]
    assert read(BLANKS.replace(b"\n", b"\r\n")).equals(frame)


def test_blanks_within_quotes_do_not_count_either(read):
    frame = read(b'" a ","b" ,c\n" x ", "y, z" ,u\n"x","y ""q"" ", 5" wide \n')
    assert frame.to_dict("list") == {"a": ["x", "x"], "b": ["y, z", 'y "q"'], "c": ["u", '5" wide']}


def test_blanks_of_parquet_do_not_count_either(tmp_path):
    frame = pd.DataFrame({" y ": ["yes", "yes ", None], "c": pd.Categorical(["a ", "b", "a"]), "n": [1, 2, 3]})
    frame.to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet").frame
    assert list(found.columns) == ["y", "c", "n"] and found["n"].tolist() == [1, 2, 3]
    assert found["y"].tolist()[:2] == ["yes", "yes"] and found["y"].isna().tolist() == [False, False, True]
    assert found["c"].tolist() == ["a", "b", "a"] and found["c"].dtype == "category"
    pd.DataFrame({"a": [1], "a ": [2]}).to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").frame) == ["a", "a.1"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("write", ["table", "rows"])
def test_numbers_are_written_with_all_their_digits(tmp_path, dtype, write):
    """Dates in seconds differ far behind the ninth digit."""
    values = np.concatenate([1.7e9 + 20 * np.random.default_rng(0).random(300), [1 / 3, 1e-300, -0.1]]).astype(dtype)
    if write == "table":
        write_table(tmp_path / "t.csv", {"y": values})
    else:
        write_rows(tmp_path / "t.csv", values[:, None], ["y"])
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    header, *lines = text.splitlines()
    assert header == "y" and [dtype(line) for line in lines] == values.tolist()
    assert lines[-1] == "-0.1" and lines[-3] == repr(values[-3].item() if dtype is np.float64 else 0.33333334)


def test_parquet_and_its_index(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]}, index=[7, 3])
    frame.to_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet").frame
    assert list(found.index) == [1, 2] and found.to_dict("list") == {"a": [1.5, 2.5], "b": ["x", "y"]}
    frame.rename_axis("key").to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").frame.columns) == ["key", "a", "b"]


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_written_columns_are_read_again(tmp_path, name):
    columns = {"label": np.array(["a, b", "c"]), "p": np.array([0.25, 1 / 3], np.float32)}
    write_table(tmp_path / name, columns)
    found = read_table(tmp_path / name).frame
    assert list(found["label"]) == ["a, b", "c"]
    np.testing.assert_array_equal(found["p"].to_numpy(np.float32), columns["p"])
    assert os.listdir(tmp_path) == [name]  # nothing temporary is left


def test_names_of_tables():
    tables = ("a.csv", "a.CSV", "a.parquet", "a.csv.gz", "a.JSONL.xz", "-", "folder/", ["a", "b"])
    assert [name for name in (*tables, "a.npy", "csv", "a.parquet.gz", "folder") if is_table(name)] == [*tables]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["is empty", "it must have a line of column names", "a row for each sample"]),
        (b"\n\n", ["is empty"]),
        (b"a,b\n", ["a header and no rows", "it must have a row for each sample", "below it"]),
        (b"a,y\n1,\x81\n", ["not UTF-8 or cp1252", "it must be a text", "save it in UTF-8"]),
        (PLAIN.decode().encode("utf-16") + b"x", ["line 1 has a NUL byte"]),
        (PLAIN + b"3,x\0,4\n", ["line 4 has a NUL byte", "no text", "save it as CSV in UTF-8"]),
        (PLAIN + b"3,x\n", ["line 4 has 2 fields and the header 3", "double quotes"]),
        (PLAIN + b"3,x,4,5\n", ["line 4 has 4 fields"]),
        (b"a,y\n1,2,3\n4,5\n", ["line 2 has 3 fields"]),
        (b"a,y\n1,2\n4\n5,6\n", ["line 3 has 1 field and"]),
        (b'"a",y\n1,\n4\n5,6\n', ["line 3 has 1 field and"]),
        (PLAIN + b'3,"x,4\n', ["line 4 has 2 fields"]),
        (b'a,y\n1,"' + b"x" * 200_000 + b",1\n", ["field larger than", "double quote left open"]),
        (b'a,y\n1, "2\n', ["that pandas can read", "EOF inside string", "DataFrame.to_csv(path, index=False)"]),
        (b"\x89PNG\r\n\x1a\n\x01\x02", ["line 3 has the control character"]),
        (b"a,\x01\n1,2\n", [r"line 1 has the control character '\x01'", "no text", "save it as CSV"]),
        (b"a,b\n" + b"1,2\n" * 70_000 + b"1,\0", ["line 70002 has a NUL byte"]),
        (b"PAR1\x15\x04", ["is a binary file of the kind .parquet", "no text", "give it such a name"]),
        (b"\x1f\x8b\x08\0", ["of the kind .csv.gz"]),
        (b"PK\x03\x04\0", ["of the kind .xlsx or .csv.zip"]),
        (b"<!DOCTYPE html>\n<html>\n", ["is HTML or XML", "no table", "save the table itself as CSV"]),
        (
            b"# drawn by hand\na,b\n1,2\n3,4\n",
            [
                "line 1 is a title or a comment ('# drawn by hand')",
                "must be the first line, not line 2",
                "pandas.read_csv(path, skiprows=1)",
            ],
        ),
        (b"Sales\n\na,b,c\n1,2,3\n3,4,5\n", ["line 1 is a title", "not line 3", "skiprows=2"]),
        (b"Sales,,\na,b,c\n1,2,3\n3,4,5\n", ["line 1 is a title", "skiprows=1"]),
        (b"Sales\na,b\n1,2\n3,4\n", ["line 1 is a title", "skiprows=1"]),
        (b"# x, y\n# z\na,b\n1,2\n3,4\n", ["line 1 is a title or a comment ('# x,y')", "skiprows=2"]),
    ],
)
def test_bad_csv(read, content, parts):
    with pytest.raises(ValueError) as refusal:
        read(content)
    says(refusal, "t.csv", *parts)


@pytest.mark.parametrize("content", [b"", b"PAR1", PLAIN])
def test_bad_parquet(read, content):
    with pytest.raises(ValueError) as refusal:
        read(content, "t.parquet")
    says(refusal, "t.parquet is not a Parquet file", "that pyarrow can read (", "DataFrame.to_parquet(path)")


def test_no_file_and_no_table(tmp_path):
    with refusal(FileNotFoundError, "there is no file", "t.csv", "name a .csv, .tsv,"):
        read_table(tmp_path / "t.csv")
    with refusal(ValueError, "ends in '.xls'", "it must be a table", ".json, .jsonl, .ndjson or .xlsx file"):
        read_table(tmp_path / "t.xls")


@pytest.mark.parametrize("module", ["pandas", "pyarrow"])
def test_what_is_not_installed_is_named_with_its_extra(tmp_path, module):
    """In another process: nothing here may have imported it already."""

    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    code = f"import sys; sys.modules[{module!r}] = None; from xpnet.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = ["train", str(tmp_path / "t.parquet"), "--target", "a"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    says(
        done.stderr.rstrip("\n"), f"need {module}", "which is not installed", "pip install 'xpnet[data]'", "or give a "
    )


@pytest.mark.parametrize(
    "code",
    [
        "import xpnet.tables.preprocessing",
        "from xpnet.tables import files, writing; writing.write_table('u.parquet', files.read_table('t.csv').frame)",
        "import numpy; from xpnet.tables import writing; writing.write_rows('X.npy', numpy.eye(2), ['a', 'b'])",
    ],
)
def test_reading_a_table_loads_next_to_nothing_of_the_rest(tmp_path, code):
    """In another process: what has been imported here already says nothing."""
    (tmp_path / "t.csv").write_bytes(PLAIN)
    code += "; import sys; print(*(name for name in sys.modules if name.split('.')[0] == 'xpnet'))"
    environment = os.environ | {"PYTHONPATH": str(Path(xpnet.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    others = [name for name in done.stdout.split() if not name.startswith("xpnet.tables")]
    assert "xpnet" in others and set(others) <= {
        "xpnet",
        "xpnet.checks",
        "xpnet.files",
        "xpnet.data",
        "xpnet.data.image_files",
    }


def test_text_that_is_not_utf8_in_parquet_is_refused_when_it_is_read(tmp_path):
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.array([b"x", b"\xff\xfe"], pyarrow.binary()).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), tmp_path / "t.parquet")
    with refusal(
        ValueError, "t.parquet is not a Parquet file", "that pyarrow can read (", "DataFrame.to_parquet(path)"
    ):
        read_table(tmp_path / "t.parquet")


def test_a_name_with_control_characters_is_refused(read):
    with refusal(ValueError, r"the column 'a\x1b[31m'", "has a control character in its name", "rename it"):
        read(b"a\x1b[31m,b\n1,2\n")


def test_a_link_is_read_by_its_own_name(tmp_path):
    """As from the stores of data versioning, whose files are named by their content."""
    (tmp_path / "MD5-0123").write_bytes(PLAIN)
    (tmp_path / "t.csv").symlink_to(tmp_path / "MD5-0123")
    assert read_table(tmp_path / "t.csv").frame["a"].tolist() == [1, 2]
