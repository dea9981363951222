"""Short texts as sparse TF-IDF rows."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

rng = np.random.default_rng(0)
words = np.array([f"word{i}" for i in range(3_000)])
shares = rng.dirichlet(np.full(len(words), 0.05), size=4)
labels = rng.integers(4, size=1_200)
texts = [" ".join(rng.choice(words, 12, p=0.3 * shares[label] + 0.7 / len(words))) for label in labels]
model = make_pipeline(
    TfidfVectorizer(), MLPClassifier(hidden_layer_sizes=(32,), max_iter=30, early_stopping=True, random_state=0)
)
print(*(f"{score:.4f}" for score in cross_val_score(model, texts, labels, cv=3)))
