"""Files of plain rows: one, several or a folder of them is the same data set."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from refusals import refusal

import xpnet
from xpnet.cli import main
from xpnet.data import feed
from xpnet.data.parts import JoinedRows
from xpnet.tables import arrays, stored_rows
from xpnet.tables.arrays import load_rows
from xpnet.tables.files import check_one_kind, kind_of
from xpnet.tables.formats import IMAGES, ROWS, TABLE

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(90, 4)).astype(np.float32), RNG.integers(3, size=90)
CUTS = {"0": slice(0, 31), "1": slice(31, 33), "2": slice(33, 90)}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """X.npy and Y.npy, in pairs of parts too, and each alone."""
    monkeypatch.chdir(tmp_path)
    for folder in ("pairs", "rows", "targets", "whole"):
        os.mkdir(folder)
    for name, rows in CUTS.items():
        np.save(f"pairs/X-{name}.npy", X[rows])
        np.save(f"pairs/y-{name}.npy", Y[rows])
        np.save(f"rows/{name}.npy", X[rows])
        np.save(f"targets/{name}.npy", Y[rows])
    np.save("whole/X.npy", X)
    np.save("whole/Y.npy", Y)


FORMS = {
    "pairs": ("pairs",),
    "folders": ("rows/", "targets"),
    "pattern": ("pairs/X-*.npy", "whole/Y.npy"),
    "list": ([f"rows/{name}.npy" for name in CUTS], "pairs/y-*.npy"),
    "whole": ("whole",),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_hold_the_same_samples(form, monkeypatch):
    dataset = load_rows(*FORMS[form], weights="pairs/y-*.npy")
    assert not dataset.is_mapped and dataset.X.tobytes() == X.T.tobytes()
    assert dataset.labels.tolist() == Y.tolist() and dataset.weights.tolist() == Y.tolist()
    monkeypatch.setattr(arrays, "POOL_BYTES", 100)
    large = load_rows(*FORMS[form])
    assert large.is_mapped and repr(large) == repr(load_rows("whole/X.npy", "whole/Y.npy"))
    assert np.array_equal(np.asarray(large.X), X.T)
    part = large.subset(slice(20, 70))
    assert part.is_mapped and np.array_equal(np.asarray(part.X), X[20:70].T)
    assert np.array_equal(large.subset([80, 3, -1]).X, X[[80, 3, -1]].T)


def test_parts_train_to_the_bits_of_the_whole_file(monkeypatch):
    monkeypatch.setattr(feed, "BLOCK_BYTES", 16 * 28)
    monkeypatch.setattr(feed, "POOL_BYTES", 3 * 16 * 28)
    monkeypatch.setattr(arrays, "POOL_BYTES", 0)
    found = []
    for form in ("pairs", "whole"):
        network = xpnet.Network([4, 5, 3], device="cpu", seed=1)
        dataset = load_rows(*FORMS[form])
        options = {"epochs": 2, "batch_size": 8, "engine": "replay"}
        history = xpnet.train(network, dataset, xpnet.SGD(0.1), validation=dataset.subset(slice(25, 90)), **options)
        found.append((network.owned.tobytes(), history[-1]["val_loss"]))
    assert found[0] == found[1]


class Part(np.ndarray):
    """Rows that note how many were read of them."""

    def __array_finalize__(self, obj):
        self.read = getattr(obj, "read", [])

    def __getitem__(self, chosen):
        found = super().__getitem__(chosen)
        self.read.append(len(found))
        return np.asarray(found)


def test_rows_are_read_where_they_are_indexed():
    parts = [X[rows].copy().view(Part) for rows in CUTS.values()]
    for part in parts:
        part.read = []
    rows = JoinedRows(parts)
    assert (rows.shape, len(rows), rows.nbytes, rows.T.shape) == (X.shape, 90, X.nbytes, X.T.shape)
    assert np.array_equal(rows[2:5], X[2:5]) and [part.read for part in parts] == [[3], [], []]
    assert np.array_equal(rows[30:40], X[30:40]) and [part.read for part in parts] == [[3, 1], [2], [7]]
    assert np.array_equal(rows[[89, 0, 32, -1]], X[[89, 0, 32, -1]])
    assert [part.read for part in parts] == [[3, 1, 1], [2, 1], [7, 2]]
    assert np.array_equal(rows[50:20:-7], X[50:20:-7]) and rows[5:5].shape == (0, 4)
    assert np.array_equal(rows.between(slice(30, 60))[1:5], X[31:35])


def test_a_folder_of_rows_is_a_data_set_of_the_command_line(capsys, tmp_path):
    options = ["--epochs", "2", "--engine", "replay", "--quiet", "--hidden", "5"]
    given = {"pairs": ["pairs"], "folders": ["rows", "--labels", "targets"]}
    given["whole"] = ["whole/X.npy", "--labels", "whole/Y.npy"]
    for name, words in given.items():
        assert main(["train", *words, "--out", f"run-{name}", *options]) == 0
    found = [(tmp_path / f"run-{name}" / "model.safetensors").read_bytes() for name in given]
    assert found[0] == found[1] == found[2]
    for name, words in {"pairs": ["pairs"], "rows": ["rows/0.npy", "rows/1.npy", "rows/2.npy"]}.items():
        assert main(["predict", "run-whole", *words, "--out", f"{name}.csv"]) == 0
    assert main(["predict", "run-whole", "whole/X.npy", "--out", "whole.csv"]) == 0
    texts = [(tmp_path / f"{name}.csv").read_text() for name in ("pairs", "rows", "whole")]
    assert texts[0] == texts[1] == texts[2]
    assert main(["train", "--resume", "run-pairs", "--epochs", "3", "--quiet"]) == 0
    assert main(["evaluate", "run-pairs"]) == 0 and "(9" not in capsys.readouterr().err


def test_files_that_do_not_go_together_are_named():
    np.save("rows/3.npy", X[:, :3])
    with refusal(ValueError, "rows/3.npy holds float32 (n, 3)", "must be alike", "with the same columns and type"):
        load_rows("rows", "targets")
    np.save("rows/3.npy", X.astype(np.float64))
    with refusal(ValueError, "3.npy holds float64 (n, 4) and rows/0.npy holds float32 (n, 4)", "alike", "same columns"):
        load_rows("rows", "targets")
    np.save("targets/2.npy", Y[33:80])
    with refusal(ValueError, "rows/2.npy has 57 rows and targets/2.npy has 47", "one target for each", "both files"):
        load_rows([f"rows/{name}.npy" for name in CUTS], "targets")
    os.remove("pairs/y-1.npy")
    with refusal(ValueError, "X-1.npy stands alone", "it needs y-1.npy", "write that file, or name the targets apart"):
        load_rows("pairs")
    os.remove("pairs/X-0.npy")
    with refusal(ValueError, "y-0.npy stands alone", "it needs X-0.npy", "write that file"):
        load_rows("pairs")
    with refusal(ValueError, "rows/ holds no pair", "where no targets are named", "name them"):
        load_rows("rows")
    with refusal(ValueError, "whole/X.npy holds no pair", "where no targets are named", "name them"):
        load_rows("whole/X.npy")
    with refusal(ValueError, "whole/Y.npy is (90,)", "it must be rows (n_samples, n_features)", "or transpose it"):
        load_rows("whole/Y.npy", "whole/Y.npy")
    np.save("c.npy", X.astype(complex))
    with refusal(ValueError, "c.npy holds complex128", "one array of real numbers", "write it with np.save(path, X)"):
        load_rows("c.npy", "whole/Y.npy")
    os.mkdir("empty")
    with refusal(ValueError, "empty/ holds no rows", "it must hold .npy files", "name another folder"):
        load_rows("rows/0.npy", "empty")


def test_mixed_and_empty_folders_are_refused(capsys):
    with open("pairs/t.csv", "w", encoding="utf-8") as file:
        file.write("a\n1\n")
    os.mkdir("empty")
    of_one_kind = ["data must be of one kind", "name the files of one of them"]
    with refusal(ValueError, "pairs/: tables (.csv", "plain rows (.npy) lie together", *of_one_kind):
        check_one_kind("pairs/")
    with refusal(ValueError, "X.npy and 1 more: tables (.csv", *of_one_kind):
        check_one_kind(["whole/X.npy", "pairs/t.csv"])
    with refusal(ValueError, "empty/ holds no data", "it must hold tables (.csv", "name another folder"):
        check_one_kind("empty/")
    assert main(["train", "pairs", "--target", "a"]) == main(["train", "empty"]) == 1
    assert [line.partition(" ")[0] for line in capsys.readouterr().err.splitlines()] == ["xpnet:"] * 2


@pytest.fixture
def parquet():
    """The rows in files of Parquet with groups of 20 rows, and with the classes and weights as columns."""
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=Y, weight=Y + 1.0)
    os.mkdir("stored")
    for name, rows in CUTS.items():
        frame[rows].to_parquet(f"stored/{name}.parquet", index=False, row_group_size=20)
    return frame


def test_parquet_files_of_numbers_are_rows(parquet, monkeypatch):
    dataset = load_rows("stored", "kind", "weight")
    assert dataset.X.tobytes() == X.T.tobytes() and dataset.labels.tolist() == Y.tolist()
    assert dataset.weights.tolist() == (Y + 1.0).tolist() and not dataset.is_mapped
    monkeypatch.setattr(arrays, "POOL_BYTES", 0)
    read, get = [], stored_rows.StoredFile.rows
    monkeypatch.setattr(
        stored_rows.StoredFile, "rows", lambda *given: read.append((given[0].path[-9], given[1])) or get(*given)
    )
    large = load_rows("stored/*.parquet", "kind", "weight")
    assert large.is_mapped and np.array_equal(np.asarray(large.X), X.T)
    read.clear()
    assert np.array_equal(large.samples[18:25], X[18:25]) and read == [("0", 0), ("0", 1)]
    read.clear()
    part = large.subset(slice(53, 80))
    assert read == [] and np.array_equal(part.samples[[2, 0]], X[[55, 53]]) and set(read) == {("2", 1)}
    whole = load_rows("whole/X.npy", "whole/Y.npy", "whole/Y.npy")
    assert repr(whole.subset(slice(None))).split(" X")[0] == repr(large).split(" X")[0]


def test_parquet_files_that_hold_other_things_are_named(parquet):
    with refusal(ValueError, "targets is None", "they must be names of columns", "targets='COLUMN'"):
        load_rows("stored")
    with refusal(ValueError, "stored/0.parquet has no column 'size'", "it has", "name one of them"):
        load_rows("stored", "size")
    parquet.assign(a=1).to_parquet("stored/1.parquet", index=False)
    with refusal(ValueError, "1.parquet has int64 in column 'a'", "has float", "must be alike", "with the same types"):
        load_rows("stored", "kind")
    parquet.assign(a="x").to_parquet("stored/1.parquet", index=False)
    with refusal(ValueError, "string in column 'a'", "must hold numbers", "leave the column out", "TableClassifier"):
        load_rows("stored", "kind")
    parquet.drop(columns="a").to_parquet("stored/1.parquet", index=False)
    with refusal(ValueError, "1.parquet lacks 'a'", "must have the same", "leave one out"):
        load_rows("stored", "kind")
    parquet[:0].to_parquet("none.parquet", index=False)
    with refusal(ValueError, "none.parquet holds no rows", "one for each sample", "or name others"):
        load_rows("none.parquet", "kind")
    parquet.assign(a=np.nan).to_parquet("gaps.parquet", index=False)
    with refusal(ValueError, "gaps.parquet and its column 'kind': X holds 90 values that are NaN", "must be finite"):
        load_rows("gaps.parquet", "kind")
    with open("bad.parquet", "w", encoding="utf-8") as file:
        file.write("no table")
    with refusal(ValueError, "bad.parquet is not a Parquet file that pyarrow can read", "DataFrame.to_parquet(path)"):
        load_rows("bad.parquet", "kind")
    parquet.to_csv("t.csv")
    with refusal(ValueError, "t.csv is no file of rows", "a .npy or .parquet file", "xpnet train FILE --target COLUMN"):
        load_rows("t.csv", "kind")


def test_notes_beside_rows_or_images_are_no_tables():
    with open("pairs/README.txt", "w", encoding="utf-8") as file:
        file.write("rows of flowers\n")
    open("pairs/curve.png", "wb").close()
    assert kind_of("pairs/") == ROWS and load_rows("pairs").n_samples == 90
    check_one_kind("pairs/")
    for name in ("rose", "tulip"):
        os.makedirs(f"flowers/{name}")
        open(f"flowers/{name}/1.png", "wb").close()
    os.rename("pairs/README.txt", "flowers/LICENSE.TXT")
    assert kind_of("flowers/") == IMAGES
    check_one_kind("flowers/")
    os.rename("flowers/LICENSE.TXT", "flowers/t.csv")
    assert kind_of("flowers/") == TABLE
    os.mkdir("text")
    os.rename("flowers/t.csv", "text/t.txt")
    os.rename("flowers/rose", "text/pictures")
    assert kind_of("text/") == TABLE


def test_what_is_no_rows_is_refused_with_its_cure():
    for given, held in ((X, "ndarray"), ([], "no name"), ([X], "ndarray")):
        with refusal(TypeError, f"given {held}", "it needs names of files or of a folder", "Dataset(X.T, Y.T)"):
            load_rows(given, "whole/Y.npy")
    texts, numbered = np.array(["a", "b"] * 45), "number the classes with X = np.unique("
    np.save("whole/Y.npy", texts)
    with refusal(ValueError, "whole/Y.npy holds <U1", "it must hold one array of real numbers", numbered):
        load_rows("whole/X.npy", "whole/Y.npy")
    np.save("whole/Y.npy", texts.astype(object))
    with refusal(ValueError, "whole/Y.npy is not a whole .npy file of numbers", "Python objects", numbered):
        load_rows("whole/X.npy", "whole/Y.npy")
    np.save("whole/Y.npy", X + 1j)
    with refusal(ValueError, "holds complex64", "one array of real numbers", "write it with np.save(path, X)"):
        load_rows("whole/X.npy", "whole/Y.npy")
    np.savez("t.npz", X=X, Y=Y)
    os.rename("t.npz", "whole/Y.npy")
    with refusal(ValueError, "not a whole .npy file", "it holds several arrays", "write it with np.save(path, X)"):
        load_rows("whole/X.npy", "whole/Y.npy")
    with open("whole/Y.npy", "w", encoding="utf-8") as file:
        file.write("1,2,3\n")
    with refusal(ValueError, "not a whole .npy file", "(it begins with other bytes)", "write it with np.save(path, X)"):
        load_rows("whole/X.npy", "whole/Y.npy")


def test_gaps_and_counts_of_targets_are_named_with_their_cure():
    gaps = np.where(Y == 2, np.nan, Y)
    for targets, keep in ((gaps, "np.isfinite(Y[:, None])"), (gaps[:, None], "np.isfinite(Y)")):
        np.save("whole/Y.npy", targets)
        with refusal(ValueError, "whole/Y.npy: Y holds", "all must be finite", f"keep = {keep}.all(axis=1); X[keep]"):
            load_rows("whole/X.npy", "whole/Y.npy")
    for targets in (Y[:80], X[:80], np.zeros(0, int)):
        np.save("whole/Y.npy", targets)
        counts = f"whole/X.npy has 90 rows and whole/Y.npy has {len(targets)}"
        with refusal(ValueError, counts, "there must be one target for each row", "write both files again"):
            load_rows("whole/X.npy", "whole/Y.npy")
    np.save("whole/Y.npy", Y[None])
    assert load_rows("whole/X.npy", "whole/Y.npy").labels.tolist() == Y.tolist()


def test_a_name_that_stands_twice_in_a_folder_is_refused():
    np.save("pairs/x-1.npy", X)
    if len(os.listdir("pairs")) == 7:  # where names that differ by a capital are two files
        with refusal(
            ValueError,
            "pairs/ holds names that differ by a capital",
            "must be there once",
            "remove one of them, or name",
        ):
            load_rows("pairs")
