"""A regression with a scaled target, scored by cross-validation."""

from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold, cross_validate
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = load_diabetes(return_X_y=True)
network = MLPRegressor(hidden_layer_sizes=(30, 30), alpha=1.0, max_iter=200, random_state=1)
model = make_pipeline(StandardScaler(), TransformedTargetRegressor(network, transformer=StandardScaler()))
scores = cross_validate(
    model, X, y, cv=KFold(5, shuffle=True, random_state=0), scoring=("r2", "neg_mean_absolute_error")
)
print(f"R2 {scores['test_r2'].mean():.4f}, mean absolute error {-scores['test_neg_mean_absolute_error'].mean():.3f}")
