"""xpnet predict of tables larger than memory: in parts, with the same output and the same words as in one piece."""

from __future__ import annotations

import io
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusals import says
from test_cli import surroundings  # noqa: F401  a fixture that runs by itself

from xpnet.cli import main
from xpnet.commands import apply
from xpnet.tables import parts, writing
from xpnet.tables.table import Reading

N, ROWS = 3000, 1024  # rows of a table, and of a part


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of every kind of column."""
    folder, rng = tmp_path_factory.mktemp("parts"), np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(50, 10, 200).round(2), "rooms": rng.integers(1, 7, 200)})
    frame["town"], frame["zone"] = rng.choice(["Bern", "Zug"], 200), rng.integers(1, 4, 200)
    frame["day"] = pd.date_range("2020-01-01", periods=200).strftime("%Y-%m-%d")
    frame["dear"] = np.where(frame["size"] > 50, "yes", "no")
    frame.to_csv(folder / "t.csv", index=False)
    argv = ["train", str(folder / "t.csv"), "--target", "dear", "--epochs", "2", "--hidden", "4", "--quiet"]
    assert main([*argv, "--categorical", "zone", "--device", "cpu", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def new():
    """Rows of which every part would have other types than the whole: odd cells, gaps and texts at the end."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.arange(N).astype(str), "size": rng.normal(50, 10, N).round(2).astype(str)})
    frame["rooms"], frame["town"] = rng.integers(1, 7, N).astype(str), rng.choice(["Bern", "Zug"], N)
    frame["zone"], frame["day"] = rng.integers(1, 4, N).astype(str), "2020-03-04"
    frame["count"], frame["flag"], frame["more"] = np.arange(N).astype(str), "True", "1"
    changes = {"id": "A7", "size": "?", "rooms": "", "town": "Rom", "zone": "9", "day": "?", "count": "", "flag": ""}
    for name, value in changes.items():
        frame.loc[[N - 5, N - 1], name] = value
    frame.loc[[3, 2 * ROWS], "town"], frame.loc[7, "size"], frame.loc[2 * ROWS + 9, "size"] = "Genf", "1e6", "1e9"
    frame.loc[[5, N - 2], "more"] = ["None", "gas"]
    frame.to_csv("new.csv", index=False)
    return frame


def predict(monkeypatch, capsys, run, name, out, *flags, least):
    """What the command says; the table is read in parts if it has that many bytes."""
    monkeypatch.setattr(apply, "parts_of", lambda *given: parts.parts_of(*given, n_rows=ROWS, least=least))
    argv = ["predict", str(run), name, "--device", "cpu", "--keep", "id,count,flag,more", "--out", out, *flags]
    assert main(argv) == 0
    return capsys.readouterr()


def test_the_output_and_the_words_are_those_of_one_piece(run, new, monkeypatch, capsys):
    whole = predict(monkeypatch, capsys, run, "new.csv", "y.csv", least=1 << 30)
    content = Path("y.csv").read_bytes()
    in_parts = predict(monkeypatch, capsys, run, "new.csv", "y.csv", least=0)
    assert Path("y.csv").read_bytes() == content and in_parts == whole
    assert "size (2, in row 2996 and others): missing values" in whole.err
    assert "town (4, such as 'Genf' in row 4), zone (2, such as '9' in row 2996): categories that are rare" in whole.err
    assert "values of 'size' (such as '1e9' in row 2058) are far outside" in whole.err
    monkeypatch.setattr(sys, "stdin", type("Piped", (io.TextIOWrapper,), {})(io.BytesIO(Path("new.csv").read_bytes())))
    piped = predict(monkeypatch, capsys, run, "-", "-", least=1 << 30)
    assert piped.out.encode() == content


@pytest.mark.full
def test_parquet(run, new, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    frame = pd.read_csv("new.csv").assign(count=np.r_[np.arange(N - 1.0), np.nan], flag=True)
    frame["size"] = pd.to_numeric(frame["size"], errors="coerce")
    frame.astype({"count": "Int64"}).to_parquet("types.parquet")
    import pyarrow
    import pyarrow.parquet

    count = pyarrow.array([*range(N - 1), None])
    table = pyarrow.Table.from_pandas(frame.drop(columns="count"), preserve_index=False).append_column("count", count)
    pyarrow.parquet.write_table(table, "new.parquet", row_group_size=700)
    for name in ("new.parquet", "types.parquet"):
        found = []
        for least, out in ((1 << 30, "y.csv"), (0, "y.csv"), (1 << 30, "y.parquet"), (0, "y.parquet")):
            told = predict(monkeypatch, capsys, run, name, out, least=least)
            found.append((Path(out).read_bytes() if out == "y.csv" else pd.read_parquet(out), told))
        assert found[0] == found[1] and found[2][1] == found[3][1]
        pd.testing.assert_frame_equal(found[2][0], found[3][0])


def test_few_rows_are_held(run, new, monkeypatch, capsys):
    """Each part is gone before the next but one is read, and is written before it."""
    alive, written, read, write = [], [], parts.Parts.frames, writing.write_atomically

    def frames(self):
        for frame in read(self):
            assert len(frame) <= ROWS and sum(each() is not None for each in alive) <= 1
            assert len(written) == len(alive)
            alive.append(weakref.ref(frame))
            yield frame

    def spied(content):
        for part in content:
            written.append(len(part))
            yield part

    monkeypatch.setattr(parts.Parts, "frames", frames)
    monkeypatch.setattr(writing, "write_atomically", lambda path, content: write(path, spied(content)))
    pd.concat([new] * 3).to_csv("many.csv", index=False)
    predict(monkeypatch, capsys, run, "many.csv", "y.csv", least=0)
    assert len(alive) == len(written) == -(-3 * N // ROWS) and sum(written) == Path("y.csv").stat().st_size
    assert len(pd.read_csv("y.csv")) == 3 * N


def test_nothing_is_left_of_a_table_that_cannot_be_read(run, new, monkeypatch, capsys):
    monkeypatch.setattr(apply, "parts_of", lambda *given: parts.parts_of(*given, n_rows=ROWS, least=0))
    text = Path("new.csv").read_text(encoding="utf-8")
    argv = ["predict", str(run), "bad.csv", "--device", "cpu", "--out", "y.csv"]
    for content, told in (
        (text + "1,2\n", f"line {N + 2} has 2 fields and the header 9"),
        (text + "1," * 20 + "2\n", f"line {N + 2} has 21 fields and the header 9"),
        (text.replace("town", "city", 1), "there is no column 'town'"),
        (text.splitlines()[0] + "\n", "has a header and no rows"),
    ):
        Path("bad.csv").write_text(content, encoding="utf-8")
        before = sorted(Path().iterdir())
        assert main(argv) == 1
        assert told in capsys.readouterr().err
        assert sorted(Path().iterdir()) == before
    Path("bad.csv").write_bytes(text.replace("Genf", "Zürich").encode("cp1252"))
    assert main([*argv, "--encoding", "utf-8"]) == 1
    says(capsys.readouterr().err.strip(), "bad.csv is not utf-8", "it must be a text", "save it in UTF-8")
    assert main(argv) == 0
    assert "Zürich" in capsys.readouterr().err


def test_what_is_read_in_parts(new):
    Path("folder").mkdir()
    assert parts.parts_of("new.csv", Reading(), ()) is None  # small
    for names in ("folder/", ["new.csv", "new.csv"], "new.xlsx", "nothing.csv"):
        assert parts.parts_of(names, Reading(), (), least=0) is None
    found = parts.parts_of("new.csv", Reading(), ["zone"], n_rows=ROWS, least=0)
    assert found is not None and [len(frame) for frame in found.frames()] == [ROWS, ROWS, N - 2 * ROWS]
    whole = pd.concat(found.frames())
    assert list(whole.index) == list(range(1, N + 1)) and list(whole["id"]) == list(new["id"])
    assert whole["count"].dtype == np.float64 and list(whole["more"].iloc[[0, 5, N - 2]]) == ["1", "None", "gas"]
