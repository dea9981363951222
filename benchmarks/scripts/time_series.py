"""The next value of a series from its last 24, by L-BFGS."""

import numpy as np
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import TimeSeriesSplit
from sklearn.neural_network import MLPRegressor

rng = np.random.default_rng(0)
hours = np.arange(2_000)
series = np.sin(hours * 2 * np.pi / 24) + 0.5 * np.sin(hours * 2 * np.pi / 168) + 0.1 * rng.standard_normal(2_000)
X = np.lib.stride_tricks.sliding_window_view(series, 24)[:-1]
y = series[24:]
for train, test in TimeSeriesSplit(4).split(X):
    model = MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", alpha=0.1, max_iter=150, random_state=0)
    print(f"{mean_absolute_error(y[test], model.fit(X[train], y[train]).predict(X[test])):.4f}")
