"""scikit-learn's own checks judge the estimators: every one, and none is expected to fail or may skip.

A check that both estimators must pass is made of the classifier; of the regressor too with -m full.
Without SCIPY_ARRAY_API in the environment (see conftest.py), or without pandas and polars, some would skip.
"""

from __future__ import annotations

import unittest
import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

from xpnet import MLPClassifier, MLPRegressor


def checks(kind):
    """The checks of an estimator by their names; one name may have several, of other arguments."""
    return [
        (check.func.__name__, estimator, check) for estimator, check in estimator_checks_generator(kind(max_iter=100))
    ]


OF_THE_CLASSIFIER, OF_THE_REGRESSOR = checks(MLPClassifier), checks(MLPRegressor)
OF_BOTH = {name for name, *_ in OF_THE_CLASSIFIER} & {name for name, *_ in OF_THE_REGRESSOR}


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}", marks=marks)
        for name, estimator, check, marks in [
            *((*check, ()) for check in OF_THE_CLASSIFIER),
            *((*check, [pytest.mark.full] * (check[0] in OF_BOTH)) for check in OF_THE_REGRESSOR),
        ]
    ],
)
def test_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            check(estimator)
        except (unittest.SkipTest, pytest.skip.Exception) as skipped:
            pytest.fail(f"the check skipped: {skipped}")
