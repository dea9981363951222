"""Searches of scikit-learn's that back ends of joblib's spread over processes."""

from __future__ import annotations

from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score

import xpnet

X, Y = make_classification(300, 8, random_state=0)
GRID = {"hidden_layer_sizes": [(4,), (8,)], "alpha": [1e-4, 1e-2]}


def model():
    return xpnet.MLPClassifier(max_iter=3, random_state=0, engine="replay")


def searches():
    """The scores of every kind of search, and the weights of the best model."""
    grid = GridSearchCV(model(), GRID, cv=2).fit(X, Y)
    drawn = RandomizedSearchCV(model(), GRID, n_iter=2, cv=2, random_state=1).fit(X, Y)
    crossed = cross_val_score(model(), X, Y, cv=3)
    scores = [*grid.cv_results_["mean_test_score"], *drawn.cv_results_["mean_test_score"], *crossed]
    return scores, grid.best_estimator_.network_.owned.tobytes()
