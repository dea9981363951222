"""scikit-learn's own checks judge the estimators: every one, and none is expected to fail or may skip.

Without SCIPY_ARRAY_API in the environment (see conftest.py), or without pandas and polars, some would skip.
"""

from __future__ import annotations

import unittest
import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet import MLPClassifier, MLPRegressor


@parametrize_with_checks([MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_check(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            check(estimator)
        except (unittest.SkipTest, pytest.skip.Exception) as skipped:
            pytest.fail(f"the check skipped: {skipped}")
