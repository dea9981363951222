"""`MLPClassifier` and `MLPRegressor`: xpnet behind scikit-learn's interface, with scikit-learn's names and meanings.

They need the extra: pip install 'xpnet[sklearn]'. What they share is in `xpnet.estimators.base`.
Threads: compiled steps take at most as many as BLAS. A search with n_jobs=n runs in joblib's processes (loky), which
give each BLAS 1/n of the cores; with another joblib backend, limit them with threadpoolctl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from xpnet.estimators.base import BaseMLP, is_stochastic
from xpnet.estimators.bridge import take_over
from xpnet.estimators.data import outputs_for_rows, side_of
from xpnet.estimators.inputs import rows_to_predict
from xpnet.estimators.settings import OUT_ACTIVATIONS, check_class_weight, loss_of_kind
from xpnet.estimators.undo import as_before_on_failure
from xpnet.kernels.activations import log_softmax, sigmoid, softplus
from xpnet.network.losses import Loss
from xpnet.training.metrics import r2

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]


def from_sklearn(fitted: Any, device: str = "cpu") -> Any:
    """Return xpnet's estimator with the settings, weights and predictions of scikit-learn's fitted one.

    fitted: an MLPClassifier or MLPRegressor of sklearn.neural_network.  device: as for the estimators.
    """
    check_is_fitted(fitted)
    kind = MLPClassifier if is_classifier(fitted) else MLPRegressor
    return take_over(kind(**fitted.get_params(), device=device), fitted)


def _binarizer_of(y: np.ndarray) -> LabelBinarizer:
    """Return scikit-learn's binarizer of the labels y, fitted; raises ValueError for what is not classes."""
    classes = np.unique(y) if _is_plain(y) else y
    if 2 * len(classes) > len(y):  # of so many classes scikit-learn warns
        check_classification_targets(y)
        return LabelBinarizer().fit(y)
    binarizer = LabelBinarizer()  # its own fit looks for the kind of the labels, whatever they are, three times
    binarizer.classes_, binarizer.sparse_input_ = classes, False
    binarizer.y_type_ = "multiclass" if len(classes) > 2 else "binary"
    return binarizer


def _is_plain(y: np.ndarray) -> bool:
    """Whether y holds a label a sample, of a type that has nothing else."""
    return y.ndim == 1 and y.dtype.kind in "biuU"


def _has_probabilities(estimator: Any) -> bool:
    loss = loss_of_kind(estimator.loss, False)
    return (loss if isinstance(loss, str) else loss.name) in OUT_ACTIVATIONS or estimator.loss == "log_loss"


@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A feed-forward network that classifies: scikit-learn's MLPClassifier, and more.

    Parameters that scikit-learn has too have its meanings and defaults. Others, and other values:
    activation: also xpnet's names and a list of one name a hidden layer.  solver: also adamw, nadam, lion, rmsprop and
    adagrad.  scoring: the scorer of early stopping and validation, a name or a callable; None for accuracy.
    loss: "log_loss", "hinge", or a value such as SoftmaxCrossEntropy(smoothing=0.1).
    class_weight: "balanced", a dict of weights by class, or None.
    device: "cpu", "cuda" or "auto".  dtype: "float32" or "float64"; None takes that of X.
    dropout: a rate, or a list of one a hidden layer.  weight_decay: of adamw and lion.
    schedule: "cosine", "one_cycle" (up to max_iter), or a value of `xpnet.training.schedules` in place of
    learning_rate.
    callbacks: instances of `xpnet.Callback`; those of scikit-learn 1.9 are set by `set_callbacks`.
    engine: "auto", "replay" or "compiled", what runs the steps of fit, as in `xpnet.train`, by max_iter epochs.
    partial_fit, whose calls are few steps each, and "lbfgs" are always replayed.
    precision: "fp32", or "tf32" on a CUDA GPU, of the products of fit's steps, as in `xpnet.train`.
    deterministic: what repeats on a GPU whatever else it does, as in `xpnet.train`; not of "lbfgs" and partial_fit.
    communicator, reduction: the processes that fit together, and how they add, as in `xpnet.train`; not by "lbfgs".
    Two differences: "adaptive" acts in fit, not in partial_fit; and settings of the solver that were changed count from
    the next partial_fit on.
    Attributes as in scikit-learn; network_ is the `Network`.  loss_curve_ is the mean loss of each epoch with the
    penalty of alpha.  A pickle of an estimator on a GPU loads without one, on the CPU, with a warning.
    """

    loss: str | Loss = "log_loss"
    class_weight: Any = None

    @available_if(is_stochastic)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Any:
        """Train for one epoch over these samples, continuing from the last call or fit, and return self.

        classes: all labels that will ever occur; needed at the first call, unless y is multilabel.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight is 'balanced', and partial_fit cannot know how many samples of each class "
                "will come; pass a dict of weights, such as class_weight={0: 1.0, 1: 5.0}"
            )
        with as_before_on_failure(self, hasattr(self, "network_")):
            self._know_classes(y, classes)
            return self._partial_fit(X, y, sample_weight)

    def _know_classes(self, y: Any, classes: Any) -> None:
        """Take the classes of a first partial_fit, or refuse others than those that there are."""
        if not hasattr(self, "network_"):
            if side_of(y) == "cpu" and type_of_target(y).startswith("multilabel"):
                classes = y  # its columns are the labels
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit: classes=np.unique(all_y)")
            self._binarizer = LabelBinarizer().fit(classes)
            self.classes_ = self._binarizer.classes_
        elif (
            classes is not None
            and not self._is_multilabel
            and not np.array_equal(self.classes_, unique_labels(classes))
        ):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                f"{self.classes_!r}; give these, or leave classes out"
            )

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on rows X and labels y; where a sample has several labels, all must be right."""
        return self._score(accuracy_score, X, y, sample_weight)

    def decision_function(self, X: Any) -> Any:
        """Return the last layer's outputs before the link, above 0 for yes: (n_samples, n_classes), or (n_samples,)
        of two classes, on the side of X."""
        self._check_fitted()
        outputs = (
            outputs_for_rows(self.network_, rows_to_predict(self, X), linked=False)
            - self.network_.architecture.loss.threshold
        )
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class (n_samples, n_classes), or of each label, on the side of X."""
        self._check_fitted()
        if self._is_multiclass or self._is_multilabel:
            return outputs_for_rows(self.network_, rows_to_predict(self, X), linked=True)
        xp, Z = self._log_odds(X)
        with np.errstate(over="ignore"):  # exp(-Z) may be infinite, and the probability 0
            sigmoid(xp, Z, Z)
        return Z

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`, also where a probability rounds to 0.

        Of several labels a sample probabilities above one half have the logarithm of what they round to, as in
        scikit-learn, whose tests ask for it: the highest is then the same label here and in `predict_proba`.
        """
        xp, Z = self._log_odds(X)
        if self._is_multiclass:
            log_softmax(xp, Z.T, Z.T, xp.empty(Z.T.shape, dtype=Z.dtype), xp.empty((1, len(Z)), dtype=Z.dtype))
            return Z
        above = Z > 0
        softplus(xp, -Z, Z)  # log sigmoid(Z) = -log(1 + exp(-Z))
        if self._is_multilabel and above.any():
            Z[above] = -xp.log(self.predict_proba(X)[above])
        return -Z

    def _log_odds(self, X: Any) -> tuple[Any, Any]:
        """Return the array library of X, and what the link makes probabilities of, of two classes for each of them."""
        self._check_fitted()
        Z = outputs_for_rows(self.network_, rows_to_predict(self, X), linked=False)
        xp = np if side_of(Z) == "cpu" else self.network_.backend.xp
        is_binary = not (self._is_multiclass or self._is_multilabel)
        return xp, xp.concatenate([-Z, Z], axis=1) if is_binary else Z

    def _targets(self, y: np.ndarray, new_classes: bool) -> np.ndarray:
        if new_classes:
            self._binarizer = _binarizer_of(y)
            self.classes_ = self._binarizer.classes_
            return self._coded(y)
        if _is_plain(y) and not self._is_multilabel and np.isin(y, self.classes_).all():
            return self._coded(y)  # without scikit-learn's functions, each of which looks for the kind of y
        check_classification_targets(y)
        if type_of_target(y).startswith("multilabel") != self._is_multilabel:
            begun, found = ("several", "one") if self._is_multilabel else ("one", "several")
            raise ValueError(
                f"y is {y.shape}, {found} label{'s' * (found != 'one')} a sample, and "
                f"{type(self).__name__} was fitted with {begun}; give y as then, or fit a new one"
            )
        if unknown := sorted(set(unique_labels(y).tolist()) - set(self.classes_.tolist())):
            raise ValueError(
                f"`y` has classes not in `self.classes_`: {unknown}; {type(self).__name__} was fitted with "
                f"{self.classes_}. Fit a new one, or name all classes at the first partial_fit"
            )
        return self._coded(y)

    def _check_same_classes(self, y: np.ndarray) -> None:
        if self._is_multilabel or y.ndim > 1:  # other columns are refused with the targets
            return
        if not _is_plain(y):
            check_classification_targets(y)
        found = np.unique(y)
        if not np.array_equal(found, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {found}; give rows of the same classes, or pass "
                "warm_start=False"
            )

    def _coded(self, y: np.ndarray) -> np.ndarray:
        """Return the network's targets (n_samples, n_outputs) of labels that are all known."""
        if self._is_multilabel:
            Y = self._binarizer.transform(y)
            return np.asarray(Y.toarray() if hasattr(Y, "toarray") else Y)
        codes = np.searchsorted(self.classes_, y)[:, None]  # all are among them
        return (codes == np.arange(len(self.classes_))).astype(np.int64) if self._is_multiclass else codes

    def _weighted(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return weights
        given = self.class_weight
        check_class_weight(given, None if self._is_multilabel else self.classes_)
        if not (isinstance(given, str) or self._is_multilabel):  # a batch need not have every class
            given = dict(zip(self.classes_, compute_class_weight(given, classes=self.classes_, y=y), strict=True))
        by_class: np.ndarray = compute_sample_weight(given, y)
        weighted = by_class if weights is None else by_class * weights
        if not weighted.any():
            raise ValueError(
                f"class_weight is {given!r}, with which all {len(y)} samples have the weight 0; needed is one above 0: "
                "give a class that is there more, or leave class_weight out"
            )
        return weighted

    def _check_loss(self, loss: Loss) -> None:
        wrong = None
        if loss.targets == "counts":
            wrong = "is for counts, not for classes"
        elif self._is_multilabel and loss.targets == "distributions":
            wrong = "is for one class among several, and y has several labels a sample"
        elif self._is_multiclass and loss.name == "sigmoid_cross_entropy":
            wrong = "is for yes-or-no outputs, whose probabilities do not add up to 1, and y has one class a sample"
        if wrong is not None:
            raise ValueError(f"loss {loss.name} {wrong}; use loss='log_loss'")

    @property
    def _is_multiclass(self) -> bool:
        return bool(self._binarizer.y_type_ == "multiclass")

    @property
    def _is_multilabel(self) -> bool:
        return str(self._binarizer.y_type_).startswith("multilabel")

    def _predicted(self, X: Any) -> Any:
        outputs, is_host = outputs_for_rows(self.network_, X, linked=False), side_of(X) == "cpu"
        loss, xp = self.network_.architecture.loss, np if is_host else self.network_.backend.xp
        if self._is_multilabel:
            return (outputs > loss.threshold).astype(np.int64)
        if self._is_multiclass:
            labels = outputs.argmax(axis=1)
        else:  # a single class is label 0
            labels = (outputs[:, 0] > loss.threshold).astype(np.int64) * (len(self.classes_) - 1)
        if is_host or self.classes_.dtype.kind not in "iuf":
            return self.classes_[self.network_.backend.to_host(labels)]
        return xp.asarray(self.classes_).take(labels)

    def _judged(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        """Return the accuracy; where a sample has several labels, all must be right."""
        right = (predicted == y).reshape(len(y), -1).all(axis=1)
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A feed-forward network for numbers, one or several a sample: scikit-learn's MLPRegressor, and more.

    loss: "squared_error", "poisson", "absolute_error", "huber", or a value such as Huber(delta=2.0) or a `CustomLoss`.
    The squared error of several outputs is their sum, also in loss_curve_; scikit-learn trains on the same gradient and
    reports the mean over the outputs. The poisson loss is without the part that the targets alone decide, which
    scikit-learn's has. scoring=None is R^2. By position hidden_layer_sizes comes first, where scikit-learn 1.7 has loss
    before it. All others: see `MLPClassifier`.
    """

    @available_if(is_stochastic)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train for one epoch over these samples, continuing from the last call or fit, and return self."""
        with as_before_on_failure(self, hasattr(self, "network_")):
            return self._partial_fit(X, y, sample_weight)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 on rows X and targets y, the mean over the outputs."""
        return self._score(r2_score, X, y, sample_weight)

    def _check_loss(self, loss: Loss) -> None:
        if loss.targets == "classes":
            raise ValueError(
                f"loss {loss.name} is for classes, not for numbers; use loss='squared_error', or xpnet.MLPClassifier"
            )

    def _targets(self, y: np.ndarray, new_classes: bool) -> np.ndarray:
        return y.reshape(len(y), -1)

    def _predicted(self, X: Any) -> Any:
        outputs = outputs_for_rows(self.network_, X, linked=True)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    def _judged(self, predicted: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
        return r2(predicted.reshape(len(y), -1).T, y.reshape(len(y), -1).T, weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
