"""A grid of widths and penalties over a pipeline."""

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = load_breast_cancer(return_X_y=True)
pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=100, random_state=0))
grid = {"mlpclassifier__hidden_layer_sizes": [(20,), (50,), (20, 20)], "mlpclassifier__alpha": [1e-4, 1e-2, 1.0]}
search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
print(search.best_params_, f"{search.best_score_:.4f}")
for mean in search.cv_results_["mean_test_score"]:
    print(f"{mean:.4f}")
