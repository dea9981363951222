"""A random search in two processes."""

from scipy.stats import loguniform
from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier

X, y = load_digits(return_X_y=True)
space = {"alpha": loguniform(1e-5, 1e-1), "learning_rate_init": loguniform(1e-4, 1e-2), "batch_size": [32, 64, 128]}
model = MLPClassifier(hidden_layer_sizes=(64,), max_iter=60, early_stopping=True, random_state=0)
search = RandomizedSearchCV(model, space, n_iter=4, cv=3, n_jobs=2, random_state=0).fit(X / 16, y)
print({name: f"{value:.6g}" for name, value in search.best_params_.items()}, f"{search.best_score_:.4f}")
