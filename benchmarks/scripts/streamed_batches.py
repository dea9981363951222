"""Rows that come in parts, by partial_fit."""

import numpy as np
from sklearn.datasets import make_classification
from sklearn.neural_network import MLPClassifier

X, y = make_classification(20_000, 30, n_informative=12, n_classes=4, random_state=0)
model = MLPClassifier(hidden_layer_sizes=(64, 32), random_state=0)
for turn in range(5):
    for start in range(0, 16_000, 1_000):
        part = slice(start, start + 1_000)
        model.partial_fit(X[part], y[part], classes=np.arange(4))
    print(turn, f"{model.loss_:.4f}", f"{model.score(X[16_000:], y[16_000:]):.4f}")
