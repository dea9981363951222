"""scikit-learn's callbacks, set by `set_callbacks`, on the fits of the estimators."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from xpnet import MLPClassifier, accelerate
from xpnet.accelerate.report import REPORT

callback = pytest.importorskip("sklearn.callback", reason="public since scikit-learn 1.9")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
SETTINGS = {"hidden_layer_sizes": (5,), "random_state": 0, "learning_rate_init": 0.02, "max_iter": 4}
WEIGHTS = np.linspace(0.5, 1.5, 150)


class Recorder:
    """A callback that keeps what it is told.  stop_after: epoch at whose end it ends the fit."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.said, self.probabilities, self.stop_after = [], [], stop_after

    def setup(self, estimator, context):
        self.said.append(("setup", context.max_subtasks))

    def teardown(self, estimator, context):
        self.said.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X, y, metadata):
        self.said.append(("begin", context.task_name, context.task_id))
        self.given = X, y, metadata

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.said.append(("end", context.task_name, context.task_id))
        if hasattr(fitted_estimator, "predict_proba"):
            self.probabilities.append(fitted_estimator.predict_proba(X))
        return self.stop_after is not None and context.task_id == self.stop_after


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_each_epoch_is_a_task_with_the_estimator_as_it_is_then(solver):
    recorder, name = Recorder(), "iteration" if solver == "lbfgs" else "epoch"
    model = MLPClassifier(solver=solver, **SETTINGS).set_callbacks(recorder).fit(X, Y, sample_weight=WEIGHTS)
    tasks = [(what, name, i) for i in range(4) for what in ("begin", "end")]
    left = [(what, name, 4) for what in ("begin", "end")] if solver == "lbfgs" else []
    around = [("setup", 4 + bool(left)), ("begin", "fit", 0)], [("end", "fit", 0), "teardown"]
    assert recorder.said == [*around[0], *tasks, *left, *around[1]]
    assert recorder.given[0] is X and recorder.given[1] is Y and recorder.given[2] == {"sample_weight": WEIGHTS}
    for i, found in enumerate([*recorder.probabilities[:-1]], start=1):
        plain = MLPClassifier(solver=solver, **SETTINGS | {"max_iter": i}).fit(X, Y, sample_weight=WEIGHTS)
        np.testing.assert_allclose(found, plain.predict_proba(X), rtol=1e-12)
    np.testing.assert_array_equal(recorder.probabilities[-1], model.predict_proba(X))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_that_asks_for_it_ends_the_fit(solver, recwarn):
    recorder = Recorder(stop_after=1)
    model = MLPClassifier(solver=solver, **SETTINGS).set_callbacks(recorder).fit(X, Y)
    assert model.n_iter_ == 2 and recorder.said[-1] == "teardown" and not list(recwarn)
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & vars(model).keys()


def test_callbacks_come_through_pipelines_and_go_after_refusals():
    monitor = callback.ScoringMonitor(scoring="accuracy")
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SETTINGS))
    pipeline[-1].set_callbacks(monitor)
    pipeline.fit(X, Y)
    assert [row["accuracy"] for row in monitor.get_logs().data][-1] == pipeline.score(X, Y)
    through = Recorder()
    pipeline[-1].set_callbacks()
    pipeline.set_callbacks(through).fit(X, Y)
    assert ("end", "epoch", 3) in through.said and through.said.count("teardown") == 1
    recorder = Recorder()
    model = MLPClassifier(**SETTINGS | {"batch_size": 3}).set_callbacks(recorder)
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), Y)
    assert recorder.said[-1] == "teardown" and vars(clone(model))["_skl_callbacks"] == [recorder]
    with pytest.raises(TypeError, match="FitCallback"):
        model.set_callbacks(3)
    assert pickle.loads(pickle.dumps(model.fit(X, Y))).n_iter_ == 4


def test_scikit_learn_draws_its_progress_bar(capsys):
    pytest.importorskip("rich", reason="the extra test-company brings it")
    MLPClassifier(**SETTINGS).set_callbacks(callback.ProgressBar()).fit(X, Y)
    assert "MLPClassifier - fit" in (out := capsys.readouterr().out) and "100%" in out


def test_callbacks_under_accelerate_are_not_left_to_scikit_learn(monkeypatch):
    """Whose MLPs have none."""
    assert not hasattr(TheirClassifier, "set_callbacks")
    recorder = Recorder()
    model = accelerate.classes.MLPClassifier(**SETTINGS).set_callbacks(recorder)
    np.testing.assert_array_equal(copy.copy(model.fit(X, Y)).predict_proba(X), recorder.probabilities[-1])
    with pytest.raises(ValueError, match="momentum is"):
        model.set_params(momentum=1.0, solver="sgd").fit(X, Y)
    REPORT.__init__()
