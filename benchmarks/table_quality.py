"""Compare xpnet's defaults on public tables with scikit-learn's models, on the same splits.

    python benchmarks/public_tables.py FOLDER
    python benchmarks/table_quality.py FOLDER --out RESULTS.jsonl
    python benchmarks/table_quality.py --table RESULTS.jsonl
    python benchmarks/table_quality.py FOLDER --models xpnet,tuned --draw 8 --splits 3

`--models` leaves models out, and `--table` joins the files of several calls. Tables that --out has are not done again.
Each split shuffles the rows that have a target, by class where there are classes, and keeps a fifth as test. xpnet gets
the training rows as a CSV file and predicts on the test rows. The others get numbers with medians in gaps, scaled, and
one-hot categories, except HistGradientBoosting, which takes gaps and categories as they are; targets that are numbers
are standardised. The score is the accuracy, or R2 but not below -1. Two models are level on a table if their means
differ by at most 0.01, or by at most two standard errors of the splits' differences.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

if (root := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.insert(0, root)

from xpnet.cli import main as xpnet

XPNET, TUNED, PEERS = "xpnet", "tuned", ("mlp", "boosting", "linear")
DRAWN = (300, 5000)  # rows of tables of which --draw takes some
LEVEL = 0.01  # difference of means up to which two models are level
TEST = 0.2  # part of the rows
DATE = r"^\d{4}[-/]\d|^\d\d?[-/]\d\d?[-/]\d{4}"  # the beginning of a date
MOST_LEVELS = 50  # of a category; the rest is one

Scored = dict[str, Any]  # "score" and "seconds" of a model in one split, or "failure"


def splits(frame: Any, target: str, task: str, n: int) -> list[tuple[Any, Any]]:
    """Return n pairs of training and test rows of a table."""
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    frame = frame[frame[target].notna()]
    kind: Callable[..., Any] = ShuffleSplit
    if task == "classes" and frame[target].value_counts().min() >= 2 and frame[target].nunique() <= TEST * len(frame):
        kind = StratifiedShuffleSplit
    made = kind(n_splits=n, test_size=TEST, random_state=0).split(frame, frame[target])
    return [(frame.iloc[training], frame.iloc[test]) for training, test in made]


def score(task: str, predicted: Any, true: Any) -> float:
    """Return the accuracy, or R2 but not below -1."""
    if task == "classes":
        return float(np.mean([_label(one) == _label(other) for one, other in zip(true, predicted, strict=True)]))
    y, y_hat = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    if not np.isfinite(y_hat).all():
        return -1.0
    with np.errstate(over="ignore"):
        return max(-1.0, float(1 - np.square(y - y_hat).sum() / np.square(y - y.mean()).sum()))


def _label(value: Any) -> str:
    """Name a class: 1, 1.0 and "1" are one, so are True and "True"."""
    with contextlib.suppress(ValueError):
        return repr(float(str(value)))
    return str(value).strip().lower()


def by_xpnet(training: Any, test: Any, target: str, task: str, options: list[str], command: str = "train") -> Scored:
    """Train xpnet by a command and predict by it; the time is that of the command, reading and saving included."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        training.to_csv("training.csv", index=False)
        test.drop(columns=[target]).to_csv("test.csv", index=False)
        began = time.perf_counter()
        code, told = _called([command, "training.csv", "--target", target, *options])
        seconds = time.perf_counter() - began
        if code:
            return {"failure": told}
        (run,) = Path("runs").iterdir()
        code, told = _called(["predict", str(run), "test.csv", "--out", "out.csv"])
        if code:
            return {"failure": told}
        predicted = pd.read_csv("out.csv", keep_default_na=False, dtype=str)[target.strip()]
        return {"score": score(task, predicted, test[target]), "seconds": seconds}


def _called(command: list[str]) -> tuple[int, str]:
    """Run a command of xpnet in this process; returns its exit code and the last line of its stderr."""
    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
        try:
            code = xpnet(command) or 0
        except SystemExit as error:
            code = int(error.code or 0)
    return code, (told.getvalue().strip().splitlines() or [""])[-1]


def features(training: Any, test: Any, target: str) -> tuple[Any, Any, list[str]]:
    """Return the features of both parts and the names of their categories, as a user of scikit-learn prepares them.

    Left out are columns without a name, constants, and texts most of which are different. A date becomes its days, its
    month and its weekday.
    """
    import pandas as pd

    both = pd.concat([training, test]).drop(columns=[target])
    made, categories = {}, []
    for name, column in both.items():
        if str(name).startswith("Unnamed: ") or column.nunique() < 2:
            continue
        if pd.api.types.is_numeric_dtype(column):
            made[name] = column.astype(float)
            continue
        text = column.astype(str).where(column.notna())
        if text.dropna().str.contains(DATE).all():
            dates = pd.to_datetime(text, errors="coerce", format="mixed", utc=True).dt.as_unit("s")
            days = (dates - dates.min()).dt.total_seconds() / 86400
            made |= {name: days, f"{name} month": dates.dt.month, f"{name} weekday": dates.dt.dayofweek}
        elif text.nunique() <= max(20, len(text) / 2):
            made[name] = text
            categories.append(name)
    frame = pd.DataFrame(made)
    return frame.iloc[: len(training)], frame.iloc[len(training) :], categories


def by_peer(name: str, training: Any, test: Any, target: str, task: str) -> Scored:
    """Fit a model of scikit-learn and predict by it; the time is that of preparing and fitting."""
    began = time.perf_counter()
    X, X_test, categories = features(training, test, target)
    y = training[target].map(_label) if task == "classes" else training[target].astype(float)
    if X.shape[1] == 0:
        return {"failure": "no feature"}
    model = _model(name, task, categories, [column for column in X if column not in categories])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps that were not enough, and of categories unseen
        try:
            model.fit(X, y)
            seconds = time.perf_counter() - began
            return {"score": score(task, model.predict(X_test), test[target]), "seconds": seconds}
        except ValueError as error:  # such as a category that is text in one row and a number in another
            return {"failure": str(error)}


def _model(name: str, task: str, categories: list[str], numbers: list[str]) -> Any:
    """Return the pipeline of a peer."""
    from sklearn.compose import TransformedTargetRegressor, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    if name == "boosting":
        ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=250)
        parts = make_column_transformer((ordinal, categories), ("passthrough", numbers))
        kind = HistGradientBoostingClassifier if task == "classes" else HistGradientBoostingRegressor
        model = kind(random_state=0, categorical_features=list(range(len(categories))))
    else:
        one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_LEVELS)
        filled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        parts = make_column_transformer((one_hot, categories), (filled, numbers))
        kinds: dict[tuple[str, str], Any] = {
            ("mlp", "classes"): lambda: MLPClassifier(random_state=0),
            ("mlp", "number"): lambda: MLPRegressor(random_state=0),
            ("linear", "classes"): lambda: LogisticRegression(max_iter=1000),
            ("linear", "number"): Ridge,
        }
        model = kinds[name, task]()
    pipeline = make_pipeline(parts, model)
    return pipeline if task == "classes" else TransformedTargetRegressor(pipeline, transformer=StandardScaler())


def compared(
    facts: dict[str, Any], names: list[str], n_splits: int, most_rows: int, options: list[str]
) -> dict[str, Any]:
    """Score models on the splits of one table.

    facts: the table's line of the index.  names: of the models.  most_rows: a larger table keeps a random part.
    """
    import pandas as pd

    frame = pd.read_csv(facts["plain"], low_memory=False)
    if len(frame) > most_rows:
        frame = frame.sample(most_rows, random_state=0)
    target = next(column for column in frame if column.strip() == facts["target"])
    task = facts["task"]
    models: dict[str, list[Scored]] = {name: [] for name in names}
    for training, test in splits(frame, target, task, n_splits):
        for name, scored in models.items():
            scored.append(
                by_peer(name, training, test, target, task)
                if name in PEERS
                else by_xpnet(training, test, target, task, options, "tune" if name == TUNED else "train")
            )
    return {key: facts[key] for key in ("name", "half", "task")} | {"n_rows": len(frame), "models": models}


def joined(paths: Iterable[Path | None]) -> list[dict[str, Any]]:
    """Return the results in files, those of one table as one; only tables on which every model of any was scored."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        for text in path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else ():
            result = json.loads(text)
            known = found.setdefault(result["name"], result)
            known["models"] |= result["models"]
    names = {name for result in found.values() for name in result["models"]}
    return [result for result in found.values() if set(result["models"]) == names]


def markdown(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table: the mean score of each model on each table, and xpnet's verdict against each peer."""
    peers = peers_in(results)
    rows = [
        f"| table | rows | score | {' | '.join((XPNET, *peers))} | behind |",
        "| --- | ---: | --- |" + " ---: |" * (1 + len(peers)) + " --- |",
    ]
    for result in sorted(results, key=lambda result: result["n_rows"]):
        cells = [f"{scores(result, name).mean():.3f}" for name in (XPNET, *peers)]
        behind = ", ".join(peer for peer in peers if verdict(result, peer) == "behind")
        measure = "accuracy" if result["task"] == "classes" else "R2"
        rows.append(f"| {result['name']} | {result['n_rows']:,} | {measure} | {' | '.join(cells)} | {behind} |")
    return "\n".join([*rows, ""])


def peers_in(results: list[dict[str, Any]]) -> list[str]:
    """Return the models of the results beside xpnet's defaults."""
    return [name for name in (TUNED, *PEERS) if any(name in result["models"] for result in results)]


def scores(result: dict[str, Any], name: str) -> Any:
    """Return a model's score of each split; -1 for what failed."""
    return np.array([scored.get("score", -1.0) for scored in result["models"][name]])


def verdict(result: dict[str, Any], peer: str) -> str:
    """Return whether xpnet is "ahead" of a peer, "level" or "behind"."""
    difference = scores(result, XPNET) - scores(result, peer)
    mean = difference.mean()
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    if abs(mean) <= max(LEVEL, 2 * error):
        return "level"
    return "ahead" if mean > 0 else "behind"


def ranks(result: dict[str, Any]) -> dict[str, float]:
    """Return the rank of each model by its mean score, from 1; equal ones share theirs."""
    means = {name: scores(result, name).mean() for name in result["models"]}
    return {
        name: 1
        + sum(other > mean for other in means.values())
        + (sum(other == mean for other in means.values()) - 1) / 2
        for name, mean in means.items()
    }


def line(result: dict[str, Any]) -> str:
    """Return the row of one table: mean scores, seconds, failures."""
    cells = []
    for name, scored in result["models"].items():
        seconds = np.mean([each["seconds"] for each in scored if "seconds" in each] or [np.nan])
        failed = (
            f" {sum('failure' in each for each in scored)} failed" if any("failure" in each for each in scored) else ""
        )
        cells.append(f"{name} {scores(result, name).mean():6.3f} {seconds:5.1f} s{failed}")
    return f"{result['name']:40} {result['task']:8}" + "  ".join(cells)


def summary(results: list[dict[str, Any]]) -> str:
    """Return the counts of wins, the mean ranks and mean scores, and the tables on which a linear model is ahead."""
    rows = [f"{len(results)} tables"]
    peers = peers_in(results)
    for peer in peers:
        found = [verdict(result, peer) for result in results]
        counts = ", ".join(f"{found.count(word)} {word}" for word in ("ahead", "level", "behind"))
        rows.append(f"xpnet against {peer}: {counts}")
    of_all = [ranks(result) for result in results]
    for name in (XPNET, *peers):
        cells = [f"mean rank {np.mean([each[name] for each in of_all]):.2f}"]
        for task, measure in (("classes", "accuracy"), ("number", "R2")):
            if found := [scores(result, name).mean() for result in results if result["task"] == task]:
                cells.append(f"mean {measure} {np.mean(found):.3f} of {len(found)}")
        times = [each["seconds"] for result in results for each in result["models"][name] if "seconds" in each]
        rows.append(f"{name}: {', '.join(cells)}, median of {np.median(times or [np.nan]):.1f} s")
    if "linear" in peers:
        behind = [result["name"] for result in results if verdict(result, "linear") == "behind"]
        rows.append(f"behind linear: {', '.join(behind) or 'none'}")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Compare the models, or print the summary of an earlier comparison."""
    parser = argparse.ArgumentParser(description="compare xpnet's defaults with scikit-learn's models on public tables")
    parser.add_argument("folder", type=Path, nargs="?", help="what public_tables.py wrote")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="RESULTS.jsonl", help="print the table of what --out wrote"
    )
    parser.add_argument(
        "--models",
        default=",".join((XPNET, *PEERS)),
        metavar="NAME,...",
        help=f"(default: %(default)s); {TUNED} is `xpnet tune`",
    )
    parser.add_argument("--out", type=Path, help="a line of JSON a table, as soon as it is compared")
    parser.add_argument("--half", choices=["tuning", "shown", "both"], default="shown", help="(default: %(default)s)")
    parser.add_argument("--splits", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--rows", type=int, default=10_000, help="of which a larger table keeps a part (%(default)s)")
    low, high = DRAWN
    drawn = f"of the tables of {low} to {high} rows N that a seed draws"
    parser.add_argument("--draw", type=int, metavar="N", help=drawn)
    parser.add_argument("--only", default="", help="tables whose name has this text")
    parser.add_argument("--options", default="", help='of `xpnet train`, such as "--lr 0.01"; without, its defaults')
    options = parser.parse_args(arguments)
    if options.table is not None:
        results = joined(options.table)
        print(markdown(results))
        print(summary(results))
        return 0
    if options.folder is None:
        parser.error("a FOLDER of tables is needed, or --table")
    os.environ.setdefault("XPNET_CACHE", "")
    results = []
    names, done = options.models.split(","), {result["name"] for result in joined([options.out])}
    index = [json.loads(text) for text in (options.folder / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    if options.draw is not None:
        fitting = [
            facts for facts in index if low <= facts["n_rows"] <= high and options.half in (facts["half"], "both")
        ]
        index = [fitting[i] for i in np.random.default_rng(0).permutation(len(fitting))[: options.draw]]
    for facts in sorted(index, key=lambda facts: min(facts["n_rows"], options.rows)):
        if options.only in facts["name"] and options.half in (facts["half"], "both") and facts["name"] not in done:
            results.append(compared(facts, names, options.splits, options.rows, shlex.split(options.options)))
            print(line(results[-1]), flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    if set(names) == {XPNET, *PEERS}:
        print(summary(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
