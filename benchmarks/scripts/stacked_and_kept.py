"""A stack of models, kept in a file and read again."""

import io

import joblib
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
network = make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(30,), max_iter=500, random_state=0))
forest = RandomForestClassifier(50, random_state=0)
model = StackingClassifier([("network", network), ("forest", forest)], LogisticRegression(), cv=4)
file = io.BytesIO()
joblib.dump(model.fit(X_train, y_train), file)
file.seek(0)
again = joblib.load(file)
print(f"{again.score(X_test, y_test):.4f}")
print(permutation_importance(again, X_test, y_test, n_repeats=3, random_state=0).importances_mean.round(3))
