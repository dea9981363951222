"""scikit-learn's MLP estimators, an epoch a call of partial_fit, by SGD without momentum or weight decay.

It draws its own weights and shuffles by itself, so its losses are not compared. MLPRegressor has an identity output:
where the work has a sigmoid there, it does a little less.
"""

from __future__ import annotations

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ..works import N_SAMPLES, Data, Parameters, Work


class System:
    comparable, whole_epochs = False, True

    @staticmethod
    def unusable(device: str) -> str | None:
        return None if device == "cpu" else "scikit-learn works on a CPU"

    def __init__(self, work: Work, data: Data, threads: int, device: str) -> None:
        self.work, self.X = work, data.X
        self.is_classifier = work.loss == "softmax_cross_entropy"
        self.targets = data.Y.argmax(axis=1) if self.is_classifier else data.Y
        if data.Y.shape[1] == 1:
            self.targets = data.Y.ravel()

    def reset(self) -> None:
        work = self.work
        estimator = MLPClassifier if self.is_classifier else MLPRegressor
        self.model = estimator(
            hidden_layer_sizes=work.sizes[1:-1],
            activation={"sigmoid": "logistic"}.get(work.hidden, work.hidden),
            solver="sgd",
            batch_size=work.batch,
            learning_rate="constant",
            learning_rate_init=work.lr,
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            shuffle=True,
            random_state=0,
        )
        self.fit(slice(work.batch))  # the first call draws the weights, which is no part of an epoch

    def fit(self, samples: slice) -> None:
        classes = {"classes": np.arange(self.work.sizes[-1])} if self.is_classifier else {}
        self.model.partial_fit(self.X[samples], self.targets[samples], **classes)

    def run(self, order: np.ndarray) -> float:
        """Train whole epochs, as many as `order` has; returns the sum of the steps' losses."""
        n_epochs = len(order) // N_SAMPLES
        for _ in range(n_epochs):
            self.fit(slice(None))
        return float(sum(self.model.loss_curve_[-n_epochs:])) * N_SAMPLES / self.work.batch

    def parameters(self) -> Parameters:
        return [(W.T, b) for W, b in zip(self.model.coefs_, self.model.intercepts_, strict=True)]

    def versions(self) -> dict[str, str]:
        return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}
