"""The comparison of the estimators with scikit-learn's fits both, seed by seed, and prints its file again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

if str(Path(__file__).parent) not in sys.path:  # pytest's importlib mode does not put it there
    sys.path.insert(0, str(Path(__file__).parent))

from estimators.__main__ import main

RESULTS = Path(__file__).parent / "results"


def test_both_are_fitted_and_the_table_is_printed_again(tmp_path, capsys):
    out = tmp_path / "estimators.json"
    assert main(["--data", "wine", "--seeds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    runs = json.loads(out.read_text(encoding="utf-8"))["data"]["wine"]["runs"]
    assert [len(runs[library]) for library in ("xpnet", "sklearn")] == [2, 2]
    assert all(run["score"] > 0.9 and run["seconds"] > 0 for found in runs.values() for run in found)
    assert main(["--table", str(out)]) == 0
    assert capsys.readouterr().out == printed and "| wine (178 x 13) |" in printed


@pytest.mark.parametrize("arguments", [["--data", "roses"], ["--seeds", "0"]])
def test_what_cannot_be_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert arguments[1] in capsys.readouterr().err


def test_the_committed_table_is_that_of_its_file(capsys):
    for file in RESULTS.glob("estimators-*.json"):
        assert main(["--table", str(file)]) == 0
        lines = capsys.readouterr().out.splitlines()
        text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
        assert all(line in text for line in lines if line.startswith("| ") and "(" in line and "---" not in line)
