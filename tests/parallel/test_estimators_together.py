"""Estimators that several processes fit together, as threads of this one."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from ranks import Ranks
from refusals import refusal
from sklearn.base import clone

import xpnet

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(90, 4)), RNG.integers(3, size=90)
FRAME = pd.DataFrame({"size": X[:, 0], "kind": np.where(X[:, 1] > 0, "a", "b")})


@pytest.fixture(autouse=True)
def quiet():
    """Fits of few epochs warn, each in its thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fitted(comm, random_state=3, **more):
    options = {"max_iter": 4, "early_stopping": True, "engine": "replay", "reduction": "fixed", **more}
    model = clone(xpnet.MLPClassifier((6,), random_state=random_state, communicator=comm, **options)).fit(X, Y)
    scores = model.loss_curve_, model.validation_scores_, model.best_validation_score_, model.n_iter_, model.t_
    return model.network_.owned.tobytes(), scores


def test_a_fit_is_that_of_one_process():
    alone = fitted(None)
    assert len(alone[1][0]) == 4 == len(alone[1][1])
    assert Ranks(2).run(fitted) == [alone, alone]
    drawn = Ranks(2).run(lambda comm: fitted(comm, random_state=None))
    assert drawn[0] == drawn[1] != alone


def test_a_divergence_ends_every_fit():
    def work(comm):
        with pytest.raises(xpnet.TrainingDiverged) as error:
            fitted(comm, solver="sgd", learning_rate_init=1e300, early_stopping=False)
        return str(error.value)

    first, second = Ranks(2).run(work)
    assert first == second and "non-finite parameter weights" in first


@pytest.mark.full
def test_a_table_is_fitted_together():
    def work(comm):
        options = {"epochs": 3, "ensemble": 2, "reduction": "fixed", "random_state": 1}
        model = xpnet.TableClassifier(communicator=comm, **options).fit(FRAME, Y)
        return model.predict_proba(FRAME).tobytes()

    assert Ranks(2).run(work) == [work(None)] * 2


def test_what_one_process_computes_is_refused_to_several():
    def lbfgs(comm):
        with refusal(ValueError, "2 processes", "solver 'lbfgs' is computed by one", "or communicator=None"):
            fitted(comm, solver="lbfgs", early_stopping=False)
        with refusal(ValueError, "2 processes", "partial_fit is computed by one", "or communicator=None"):
            xpnet.MLPClassifier(communicator=comm).partial_fit(X, Y, classes=[0, 1, 2])
        return True

    assert Ranks(2).run(lbfgs) == [True, True]
