"""The runs, models and values that the files here are of, said by the public API alone.

make.py writes them by commit 49e9937, ../test_old_files.py reads them by the present code; both take them from here.
Pickles name the functions here by this module, `written_by_49e9937.cases`, which therefore keeps its name.
"""

from __future__ import annotations

import numpy as np

import xpnet
from xpnet import (
    SGD,
    Activation,
    Adam,
    BatchNorm,
    CustomActivation,
    CustomLoss,
    Dataset,
    Dense,
    Dropout,
    EarlyStopping,
    LayerNorm,
    Momentum,
    Network,
    ReduceOnPlateau,
)


def softsign(xp, Z, out, work):
    """A = Z / (1 + |Z|)."""
    xp.abs(Z, out=work)
    xp.add(work, 1.0, out=work)
    xp.divide(Z, work, out=out)


def softsign_backward(xp, A, dA, out, work):
    """dZ = dA (1 - |A|)^2."""
    xp.abs(A, out=work)
    xp.subtract(1.0, work, out=work)
    xp.multiply(work, work, out=work)
    xp.multiply(dA, work, out=out)


def fourth_power(xp, A, Y, L, dA, work):
    """L = sum over outputs of (A - Y)^4 / 4, dA = (A - Y)^3."""
    xp.subtract(A, Y, out=dA)
    xp.multiply(dA, dA, out=work)
    xp.multiply(dA, work, out=dA)
    xp.multiply(work, work, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, 0.25, out=L)


SOFTSIGN = CustomActivation("softsign", softsign, softsign_backward, scratch=("matrix",), kinks=(0.0,))
FOURTH_POWER = CustomLoss("fourth_power", fourth_power)
FUNCTIONS = {"softsign": SOFTSIGN, "fourth_power": FOURTH_POWER}


def labelled(n, n_features, n_classes, seed=0):
    """Random samples whose class depends on them."""
    rng = np.random.default_rng(seed)
    X = rng.random((n_features, n))
    return Dataset.from_labels(X, np.arange(n_features) @ X // (n_features * (n_features - 1) / 2 / n_classes),
                               n_classes)  # fmt: skip


# --- models ----------------------------------------------------------------------------------------------------------


def _layers():
    return [Dense(4, 5), LayerNorm(5), Activation("gelu"), Dense(5, 4, bias=None), Activation("leaky_relu"),
            Dropout(0.25), Dense(4, 3, init="lecun", bias=0.5), Activation("tanh")]  # fmt: skip


# name: (layers, what else a Network is made of, dtype)
MODELS = {
    "classifier": ([4, 5, 3], {"activation": "sigmoid"}, "float32"),
    "regression": ([4, 6, 5, 3], {"normalization": "batch", "dropout": [0.2, 0.1], "loss": "squared_error"}, "float64"),
    "layers": (_layers(), {"loss": xpnet.Huber(delta=2.0)}, "float32"),
    "own": ([4, 5, 3], {"activation": [SOFTSIGN], "loss": FOURTH_POWER}, "float64"),
}
QUESTIONS = np.random.default_rng(5).standard_normal((4, 6))  # columns to predict for


def model(name):
    """Return a network that has been trained a little, so that running statistics are no round numbers either."""
    layers, options, dtype = MODELS[name]
    network = Network(layers, backend=xpnet.select_backend("cpu", dtype), seed=2, **options)
    xpnet.train(network, labelled(40, 4, 3), SGD(0.1), epochs=2, batch_size=8)
    return network


def answers(network):
    """Return what a network makes of QUESTIONS, JSON-ready."""
    X = network.backend.to_device(QUESTIONS)
    return {"forward": network.forward(X).tolist(), "predict": network.predict(X).tolist(),
            "classify": network.classify(X).tolist()}  # fmt: skip


# --- runs with a checkpoint ------------------------------------------------------------------------------------------


class Last(xpnet.Callback):
    """Keeps the weights at the end of an epoch, before `EarlyStopping` gives back those of the best one."""

    weights = None

    def on_epoch_end(self, record, network):
        self.weights = named(network.parameters)


class Run:
    """A training, by the same arguments each time; after it `network`, `optimizer`, `history` and `stateful` are there.

    stateful: the callbacks that have a state.
    """

    batch_size, epochs, accumulate, metrics = 2, 4, 1, ()
    at = (3, 1)  # epoch and step of the checkpoint
    every = 1  # steps between two checkpoints

    def __init__(self, dtype, engine):
        self.backend, self.engine = xpnet.select_backend("cpu", dtype), engine

    def make(self):
        """Return network, optimizer, training and validation set."""
        raise NotImplementedError

    def __call__(self, *more, resume=None):
        self.network, self.optimizer, training, validation = self.make()
        self.stateful = [EarlyStopping(3), ReduceOnPlateau(self.optimizer, factor=0.5, patience=0)]
        self.last = Last()
        self.history = xpnet.train(
            self.network, training, self.optimizer, epochs=self.epochs, batch_size=self.batch_size, seed=3,
            validation=validation, callbacks=[*self.stateful, self.last, *more], accumulate=self.accumulate,
            metrics=self.metrics, engine=self.engine, resume=resume,
        )  # fmt: skip
        return self

    def told(self):
        """Return where it ended, JSON-ready: floats keep all their bits."""
        averaged = named(self.optimizer.averaged(self.network)) if self.optimizer.ema else None
        return {"theta": named(self.network.parameters), "last": self.last.weights, "averaged": averaged,
                "statistics": {name: value.ravel().tolist() for name, value in self.network.statistics.items()},
                "lr": self.optimizer.lr, "steps_done": self.optimizer.steps_done,
                "history": records(self.history)}  # fmt: skip


class Sums(Run):
    """Two linear outputs of two features, all whole numbers: no product and no sum has more bits than float32 has."""

    ends_with_the_same_bits = True

    def make(self):
        network = Network([2, 2], loss="squared_error", backend=self.backend)
        network.parameters.weights[0] = [[1.0, -2.0], [0.0, 3.0]]
        training = Dataset([[1, 0, -1, 1], [0, 1, 1, -1]], [[2, -1, 0, 1], [1, 1, 0, -3]])
        return network, SGD(0.5), training, Dataset([[1, 0], [1, 1]], [[1, 0], [2, 2]])


class Averages(Sums):
    """The same with momentum, an average of the weights, dropout, and two batches an update."""

    epochs, accumulate, at, every = 3, 2, (2, 2), 2

    def make(self):
        layers = [Dense(2, 2), Dropout(0.5)]
        network = Network(layers, loss="squared_error", backend=self.backend)
        network.parameters.weights[0] = [[1.0, -2.0], [0.0, 3.0]]
        training = Dataset([[1, 0, -1, 1, 1, 0, 0, 1], [0, 1, 1, -1, 0, 1, 1, 0]],
                           [[2, -1, 0, 1, 1, 0, -2, 0], [1, 1, 0, -3, 0, 0, 2, 1]])  # fmt: skip
        optimizer = Momentum(0.25, momentum=0.25, ema=0.5)
        return network, optimizer, training, Dataset([[1, 0], [1, 1]], [[1, 0], [2, 2]])


class Chain(Run):
    """One feature, a power of two, through layers of one unit, in batches of two: nothing can round in two ways.

    A product has one term, or a factor that is a power of two, a sum has two terms, and all else is elementwise, each
    call rounded as IEEE 754 says; so with "replay" the bits are the same wherever, by Adam too.
    """

    ends_with_the_same_bits = True
    epochs, accumulate, at, every = 6, 2, (4, 2), 2

    def make(self):
        layers = [Dense(1, 1, bias=None), BatchNorm(1, eps=0.5), Activation("leaky_relu"), Dropout(0.25)]
        network = Network(layers, loss="squared_error", backend=self.backend)
        network.parameters.weights[0] = [[0.7]]
        x = np.array([1, 2, 0.5, -1, 4, 0.25, -2, 1, 0.5, 2, -0.5, 4.0])
        return network, Adam(0.05, ema=0.9), Dataset([x], [0.3 * x + 0.1]), Dataset([[1, 2, -2]], [[0.4, 0.7, 0.2]])


class Usual(Run):
    """A classifier with hidden units, batch norm and dropout, whose products round as the processor's BLAS does."""

    ends_with_the_same_bits = False
    batch_size, epochs, accumulate, metrics, at, every = 5, 4, 2, ("f1",), (2, 4), 4

    def make(self):
        network = Network([6, 5, 3], normalization="batch", dropout=0.3, backend=self.backend, seed=1)
        return network, Adam(0.01, ema=0.9), labelled(40, 6, 3), labelled(20, 6, 3, seed=1)


# What lies in checkpoints/ as NAME-DTYPE-ENGINE.safetensors.
RUNS = {
    f"{kind.__name__.lower()}-{dtype}-{engine}": (kind, dtype, engine)
    for kind, dtype, engine in [
        (Sums, "float64", "replay"), (Sums, "float32", "replay"),
        (Averages, "float64", "replay"), (Averages, "float32", "replay"), (Averages, "float64", "compiled"),
        (Chain, "float64", "replay"), (Chain, "float32", "replay"),
        (Usual, "float64", "replay"),
    ]
}  # fmt: skip


def records(history):
    """Return the records without what another machine, or another turn, has otherwise."""
    left_out = ("seconds", "bytes_uploaded", "threads")
    return [{name: value for name, value in record.items() if name not in left_out} for record in history]


# --- the command line ------------------------------------------------------------------------------------------------

# Runs by `xpnet train`, with what it was given; those of KILLED are as a kill just after that epoch and step left them.
TRAIN = {
    "classes": ["--dataset", "rows.npy", "--labels", "classes.npy", "--layers", "4,5,3", "--optimizer", "nadam", "--lr",
                "0.02", "--normalization", "layer", "--dropout", "0.2", "--batch-size", "8", "--validation", "12",
                "--metrics", "f1", "--epochs", "3", "--seed", "4"],
    "numbers": ["--dataset", "line.npy", "--labels", "targets.npy", "--layers", "1,1,1", "--activation", "leaky_relu",
                "--optimizer", "adam", "--lr", "0.03", "--dropout", "0.25", "--batch-size", "1", "--accumulate", "2",
                "--schedule", "plateau", "--plateau-patience", "0", "--patience", "5", "--validation", "4",
                "--epochs", "5", "--seed", "3", "--dtype", "float64", "--checkpoint-every", "6"],
    "houses": ["houses.csv", "--target", "price", "--drop", "name", "--impute", "mean", "--layers", "6,5,1",
               "--optimizer", "rmsprop", "--lr", "0.01", "--ema", "0.9", "--normalization", "batch", "--batch-size",
               "8", "--validation", "8", "--epochs", "5", "--checkpoint-every", "3"],
    "kinds": ["houses.csv", "--target", "kind", "--drop", "name,garden", "--layers", "3,4,3", "--loss",
              "softmax_cross_entropy", "--label-smoothing", "0.1", "--lr", "0.3", "--batch-size", "8", "--validation",
              "8", "--epochs", "6"],
}  # fmt: skip
COMMON = ["--device", "cpu", "--engine", "replay", "--quiet"]
KILLED = {"numbers": (3, 6), "houses": (3, 1)}
MORE_EPOCHS = {"classes": "4"}  # runs that have ended, and go on
EVALUATE = {"classes": [], "numbers": [], "houses": [], "kinds": ["houses.csv", "--metrics", "f1"]}
PREDICT = {"classes": "rows.npy", "numbers": "line.npy", "houses": "new.csv", "kinds": "prices.csv"}


def _houses():
    """Return whole numbers, whose means and deviations over the 32 training rows are the same anywhere."""
    rng = np.random.default_rng(8)
    lines = ["name,kind,size,rooms,garden,price"]
    for i in range(40):
        kind, size, rooms = ("flat", "house", "villa")[int(rng.integers(3))], int(rng.integers(3, 20)) * 10, i % 4 + 1
        garden = "" if i % 4 else f"{int(rng.integers(2)) * 4}"
        lines.append(f"{i:03}x,{kind},{size},{rooms},{garden},{size * 3 + rooms * 20 + len(kind) * 50}")
    return "\n".join(lines) + "\n"


def tables():
    """Return the tables by the names of their files: new.csv and prices.csv have no targets, and another order."""
    return {"houses.csv": _houses(), "new.csv": "rooms,garden,kind,size\n2,4,villa,90\n1,,flat,45\n4,0,house,160\n",
            "prices.csv": "price,rooms,size\n500,2,90\n300,1,45\n"}  # fmt: skip


def arrays():
    """Return the arrays that the runs were trained on, by the names of their files."""
    rng = np.random.default_rng(6)
    rows, line = (
        rng.random((60, 4), dtype=np.float32),
        2.0 ** rng.integers(-2, 3, (28, 1)) * rng.choice([-1, 1], (28, 1)),
    )
    return {"rows.npy": rows, "classes.npy": (rows @ [1, 2, 3, 0] // 2).astype(np.int64),
            "line.npy": line, "targets.npy": 0.4 * line + 0.3 * abs(line) + 0.2}  # fmt: skip


# --- estimators, pickled ---------------------------------------------------------------------------------------------

_RNG = np.random.default_rng(7)
FEATURES = _RNG.standard_normal((40, 3))
TARGETS = FEATURES @ [[1.0, 0.5], [-0.5, 0.2], [0.3, 0.0]] + 0.1 * _RNG.standard_normal((40, 2))
LABELS = np.array(["low", "middle", "high"])[np.digitize(TARGETS[:, 0], [-0.5, 0.5])]
LINE = np.array([[1, 2, 0.5, -1, 4, 0.25, -2, 1, 0.5, 2, -0.5, 4.0]]).T


def estimators():
    """Return fitted estimators by name, from scratch."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from xpnet import MLPClassifier, MLPRegressor

    first = slice(0, 20)
    stopping = MLPClassifier((6,), early_stopping=True, validation_fraction=0.25, dropout=0.1, max_iter=6,
                             learning_rate_init=0.05, random_state=0)  # fmt: skip
    regressor = MLPRegressor((5, 4), ["tanh", "relu"], solver="sgd", learning_rate="invscaling", max_iter=5,
                             random_state=0)  # fmt: skip
    lbfgs = MLPRegressor((4,), solver="lbfgs", max_iter=8, random_state=0)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((4,), batch_size=10, max_iter=4, solver="lion",
                                                             class_weight={"low": 2.0}, random_state=0))  # fmt: skip
    own = MLPRegressor((4,), SOFTSIGN, loss=FOURTH_POWER, schedule=xpnet.Step(0.01, every=10), batch_size=8, max_iter=3,
                       callbacks=[xpnet.Budget(steps=30)], warm_start=True, random_state=0)  # fmt: skip
    classifier = MLPClassifier((6,), solver="nadam", dropout=0.2, batch_size=7, random_state=0)
    chain = MLPRegressor((1,), batch_size=1, dropout=0.25, alpha=0.01, learning_rate_init=0.05, random_state=3)
    return {
        "stopping": stopping.fit(FEATURES.astype(np.float32), LABELS),
        "regressor": regressor.fit(FEATURES.astype(np.float32), TARGETS),
        "lbfgs": lbfgs.fit(FEATURES, TARGETS[:, 0]),
        "pipeline": pipeline.fit(FEATURES, LABELS),
        "own": own.fit(FEATURES.astype(np.float32), TARGETS),
        "classifier": classifier.partial_fit(FEATURES[first], LABELS[first], classes=np.unique(LABELS)),
        "chain": chain.partial_fit(LINE, 0.3 * LINE[:, 0] + 0.1),
    }


def _classifier_goes_on(model):
    for part in (slice(20, 40), slice(5, 30)):
        model.partial_fit(FEATURES[part], LABELS[part])


def _chain_goes_on(model):
    for _ in range(3):
        model.partial_fit(LINE, 0.3 * LINE[:, 0] + 0.1)


# Those that are trained further after they were loaded, and how. A step of "chain" is that of `Chain`, of one sample.
GO_ON = {
    "regressor": lambda model: model.partial_fit(FEATURES.astype(np.float32), TARGETS),
    "own": lambda model: model.fit(FEATURES.astype(np.float32), TARGETS),
    "classifier": _classifier_goes_on,
    "chain": _chain_goes_on,
}
END_WITH_THE_SAME_BITS = ("chain",)


def said(model):
    """Return what a fitted estimator says, and its parameters with all their bits, JSON-ready."""
    last = model[-1] if hasattr(model, "steps") else model
    questions = FEATURES[:8].astype(last.network_.backend.dtype) if last.n_features_in_ == 3 else LINE
    found = {"predict": model.predict(questions).tolist(), "n_iter": last.n_iter_, "t": last.t_, "loss": last.loss_,
             "loss_curve": list(last.loss_curve_), "scores": list(last.validation_scores_ or []),
             "theta": named(last.network_.parameters)}  # fmt: skip
    if hasattr(model, "predict_proba"):
        found["predict_proba"] = model.predict_proba(questions).tolist()
    return found


def named(parameters):
    """Return parameters as lists by name: JSON keeps all bits of a float."""
    return {name: value.ravel().tolist() for name, value in parameters.named.items()}
