"""The public tables of the benchmarks: the list, the files written of it, and how models are compared on them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

if str(Path(__file__).resolve().parents[1]) not in sys.path:  # where benchmarks/ is
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import first_try, public_tables, table_quality

pd = pytest.importorskip("pandas")


def test_halves_are_apart_and_as_they_were():
    tables = public_tables.tables()
    assert Counter(table.half for table in tables) == {"tuning": 86, "shown": 87}
    assert [table.name for table in tables if table.half == "tuning"][:3] == [
        "scikit-learn-wine",
        "scikit-learn-breast_cancer",
        "scikit-learn-digits",
    ]
    assert len({table.name for table in tables}) == len(tables)
    assert {table.task for table in tables} == {"classes", "number"}


def test_rows_to_predict_are_spoilt_and_lack_the_target():
    frame = pd.DataFrame({"": range(40), "a": ["one", "two"] * 20, "b": np.arange(40.0), "y": [0, 1] * 20})
    rows = public_tables._spoilt(frame, "y", "a seed")
    assert rows.columns[0] == "" and sorted(rows.columns) == ["", "a", "b", "one column more"]
    assert len(rows) == public_tables.ROWS and "never seen before" in {rows.loc[0, "a"], None}
    assert (rows.isna().sum(axis=1) == 1).all()
    pd.testing.assert_frame_equal(rows, public_tables._spoilt(frame, "y", "a seed"))


def _result(name, task, **scores):
    models = {model: [{"score": score, "seconds": 1.0} for score in of_splits] for model, of_splits in scores.items()}
    return {"name": name, "task": task, "models": models}


def test_models_are_level_within_a_hundredth_or_two_standard_errors():
    result = _result(
        "a",
        "classes",
        xpnet=[0.9, 0.8, 0.7, 0.9],
        mlp=[0.905, 0.805, 0.705, 0.905],
        boosting=[0.7, 0.9, 0.6, 0.95],
        linear=[0.95, 0.86, 0.74, 0.96],
    )
    assert [table_quality.verdict(result, peer) for peer in table_quality.PEERS] == ["level", "level", "behind"]
    assert table_quality.ranks(result) == {"xpnet": 3, "mlp": 2, "boosting": 4, "linear": 1}
    assert "behind linear: a" in table_quality.summary([result])


def test_what_failed_counts_as_the_worst():
    result = _result("a", "number", xpnet=[0.5, 0.5], mlp=[0.1, 0.1], boosting=[0.5, 0.5], linear=[-0.2, -0.2])
    result["models"]["mlp"] = [{"failure": "no feature"}] * 2
    assert table_quality.ranks(result) == {"xpnet": 1.5, "mlp": 4, "boosting": 1.5, "linear": 3}
    assert "2 failed" in table_quality.line(result)


def test_files_of_some_models_each_are_joined(tmp_path):
    of_xpnet, of_peers = (tmp_path / f"{name}.jsonl" for name in ("xpnet", "peers"))
    result = _result("a", "classes", xpnet=[0.9, 0.9])
    of_xpnet.write_text(json.dumps(result) + "\n" + json.dumps(result | {"name": "b"}), encoding="utf-8")
    peers = _result("a", "classes", mlp=[0.8, 0.8], boosting=[0.9, 0.9], linear=[0.95, 0.95])
    of_peers.write_text(json.dumps(peers | {"n_rows": 1234}), encoding="utf-8")
    (joined,) = table_quality.joined([of_xpnet, of_peers])  # b was not scored by all
    row = "| a | 1,234 | accuracy | 0.900 | 0.800 | 0.900 | 0.950 | linear |"
    assert row in table_quality.markdown([joined | {"n_rows": 1234}])


def test_one_class_is_one_however_it_is_written():
    assert table_quality.score("classes", ["1.0", "true", " A"], [1, True, "a"]) == 1
    assert table_quality.score("number", ["1", "2", "inf"], [1.0, 2.0, 3.0]) == -1
    assert table_quality.score("number", ["1", "2", "4"], [1.0, 2.0, 3.0]) == pytest.approx(0.5)


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="a spawned process imports it all again")
def test_a_table_of_scikit_learn_trains_and_predicts(tmp_path):
    pytest.importorskip("sklearn")
    (table,) = (table for table in public_tables.tables() if table.name == "scikit-learn-iris")
    facts = public_tables.export(table, tmp_path)
    (tmp_path / "index.jsonl").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    result = first_try.tried(facts, 60.0)
    assert (result["train"], result["predict"]) == (0, 0)
    compared = table_quality.compared(facts, ["xpnet", *table_quality.PEERS], 2, 1000, ["--epochs", "2"])
    assert all("score" in scored for of_model in compared["models"].values() for scored in of_model)
