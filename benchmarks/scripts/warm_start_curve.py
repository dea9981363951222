"""A validation curve epoch by epoch, by a warm start with max_iter=1."""

import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

warnings.filterwarnings("ignore", category=ConvergenceWarning)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)
model = MLPClassifier(
    hidden_layer_sizes=(50,), solver="sgd", learning_rate_init=0.1, max_iter=1, warm_start=True, random_state=0
)
for epoch in range(60):
    model.fit(X_train, y_train)
    if epoch % 10 == 9:
        print(epoch, f"{model.loss_:.4f}", f"{model.score(X_train, y_train):.4f}", f"{model.score(X_test, y_test):.4f}")
