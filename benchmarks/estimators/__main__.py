"""`python -m benchmarks.estimators`: fit both libraries and print the table; `--table FILE.json` prints it again."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet.files import write_atomically
from xpnet.timing import machine

SETTINGS: dict[str, Any] = {"hidden_layer_sizes": (100,), "max_iter": 200}  # otherwise their common defaults
LIBRARIES = ("xpnet", "sklearn")


def data_sets() -> dict[str, tuple[str, Callable[[], tuple[np.ndarray, np.ndarray]]]]:
    """Return name -> (task, function that makes X (n_samples, n_features) and y (n_samples,))."""
    from sklearn import datasets

    return {
        "iris": ("classification", lambda: datasets.load_iris(return_X_y=True)),
        "digits": ("classification", lambda: datasets.load_digits(return_X_y=True)),
        "wine": ("classification", lambda: datasets.load_wine(return_X_y=True)),
        "breast cancer": ("classification", lambda: datasets.load_breast_cancer(return_X_y=True)),
        "diabetes": ("regression", lambda: datasets.load_diabetes(return_X_y=True)),
        "synthetic classes": (
            "classification",
            lambda: datasets.make_classification(2000, 20, n_informative=10, n_classes=4, random_state=0),
        ),
        "synthetic regression": ("regression", lambda: datasets.make_friedman1(2000, 10, noise=1.0, random_state=0)),
    }


def fit(
    library: str, task: str, X: np.ndarray, y: np.ndarray, seed: int, engine: str = "auto", early_stopping: bool = False
) -> dict[str, float]:
    """Fit on three quarters of the samples and score on the rest; the seed determines both and the first weights.

    engine: of xpnet.
    """
    from sklearn import neural_network
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    split = {"test_size": 0.25, "random_state": seed, "stratify": y if task == "classification" else None}
    X_train, X_test, y_train, y_test = train_test_split(X, y, **split)
    scaler = StandardScaler().fit(X_train)
    if task == "regression":
        mean, deviation = y_train.mean(), y_train.std()
        y_train, y_test = (y_train - mean) / deviation, (y_test - mean) / deviation
    home: Any = xpnet if library == "xpnet" else neural_network
    name = "MLPClassifier" if task == "classification" else "MLPRegressor"
    own = {"device": "cpu", "engine": engine} if library == "xpnet" else {}
    model = getattr(home, name)(**SETTINGS, **own, early_stopping=early_stopping, random_state=seed)
    X_train, X_test = (scaler.transform(array).astype(np.float32) for array in (X_train, X_test))
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both warn that 200 epochs are not enough
        model.fit(X_train, y_train)
    seconds = time.perf_counter() - started
    return {"score": float(model.score(X_test, y_test)), "seconds": seconds, "epochs": int(model.n_iter_)}


def measure(names: list[str], seeds: int, how: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Fit each data set with both libraries, one after the other, seed by seed.

    how: the further arguments of `fit`.
    """
    found: dict[str, Any] = {}
    for name in names:
        task, make = data_sets()[name]
        X, y = make()
        runs: dict[str, list[dict[str, float]]] = {library: [] for library in LIBRARIES}
        for library in LIBRARIES:
            fit(library, task, X, y, 0, **how)  # imports, and what is done once, compiling too
        for seed in range(seeds):
            for library in LIBRARIES if seed % 2 == 0 else LIBRARIES[::-1]:
                runs[library].append(fit(library, task, X, y, seed, **how))
            say(f"{name}, seed {seed}: " + ", ".join(f"{library} {runs[library][-1]}" for library in LIBRARIES))
        found[name] = {"task": task, "shape": list(X.shape), "runs": runs}
    return found


def table(results: dict[str, Any]) -> str:
    """Return the results of a file as Markdown."""
    machine, settings = results["machine"], results["settings"]
    text = (
        f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['blas']}; scikit-learn "
        f"{results['sklearn']}, xpnet {results['xpnet']}, engine {settings.get('engine', 'auto')}"
        f"{', early stopping' * settings.get('early_stopping', False)}; seeds 0 to {settings['seeds'] - 1}."
    )
    lines = [
        "| data (samples x features) | xpnet | scikit-learn | difference ± standard error | fit, xpnet "
        "| fit, scikit-learn | scikit-learn's time / xpnet's (quartiles) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in results["data"].items():
        ours, theirs = (found["runs"][library] for library in LIBRARIES)
        scores = [[run["score"] for run in runs] for runs in (ours, theirs)]
        differences = [a - b for a, b in zip(*scores, strict=True)]
        error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
        seconds = [[run["seconds"] for run in runs] for runs in (ours, theirs)]
        ratios = [b / a for a, b in zip(*seconds, strict=True)]
        lower, middle, upper = np.quantile(ratios, [0.25, 0.5, 0.75])
        lines.append(
            f"| {name} ({found['shape'][0]:,} x {found['shape'][1]}) | {statistics.mean(scores[0]):.4f} "
            f"| {statistics.mean(scores[1]):.4f} | {statistics.mean(differences):+.4f} ± {error:.4f} "
            f"| {1e3 * statistics.median(seconds[0]):,.0f} ms | {1e3 * statistics.median(seconds[1]):,.0f} ms "
            f"| {middle:.2f} ({lower:.2f} to {upper:.2f}) |"
        )
    return "\n".join([text, "", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="paired runs of each data set (default 10)")
    parser.add_argument("--data", default="", help="names, separated by commas (default: all)")
    parser.add_argument("--engine", default="auto", help="of xpnet, whose compiling is not timed (default auto)")
    parser.add_argument("--early-stopping", action="store_true", help="in both libraries")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--table", type=Path, help="print the table of such a file, and fit nothing")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(table(json.loads(options.table.read_text(encoding="utf-8"))))
        return 0
    import sklearn

    names = [name.strip() for name in options.data.split(",") if name.strip()] or list(data_sets())
    unknown = [name for name in names if name not in data_sets()]
    if unknown or options.seeds < 1:
        parser.error(
            f"there is no data set {unknown[0]!r}; there are {', '.join(data_sets())}"
            if unknown
            else f"--seeds is {options.seeds}; it must be at least 1"
        )
    how = {"engine": options.engine, "early_stopping": options.early_stopping}
    results = {
        "machine": machine.facts(xpnet.__version__),
        "xpnet": xpnet.__version__,
        "sklearn": sklearn.__version__,
        "settings": {"seeds": options.seeds, **how, **SETTINGS},
        "data": measure(names, options.seeds, how, lambda line: print(line, file=sys.stderr, flush=True)),
    }
    print(table(results))
    if options.out is not None:
        write_atomically(options.out, (json.dumps(results, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
