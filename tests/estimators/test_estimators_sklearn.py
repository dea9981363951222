"""scikit-learn's own checks judge the estimators: every one, and none is expected to fail or may skip.

A few of them are made by themselves, all with -m full: ci/run does that.
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


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{kind.__name__}-{name}", marks=[pytest.mark.full] * (number % 6 > 0))
        for kind in (MLPClassifier, MLPRegressor)
        for number, (name, estimator, check) in enumerate(checks(kind))
    ],
)
def test_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            check(estimator)
        except (unittest.SkipTest, pytest.skip.Exception) as skipped:
            pytest.fail(f"the check skipped: {skipped}")
