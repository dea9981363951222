"""What it costs to add one of a kind: in a copy of the package, these files are edited, and all else knows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from copies import copy_files

import xpnet

# For each kind, the files and in them what is written in front of what.
EDITS = {
    "optimizer": {
        "kernels/updates.py": {
            "def momentum(": """def toy(xp, theta, gradient, lr, reach):
    xp.sign(gradient, out=gradient)
    xp.multiply(gradient, lr, out=gradient)
    xp.multiply(gradient, reach, out=gradient)
    xp.subtract(theta, gradient, out=theta)


"""
        },
        "training/optimizers.py": {
            '"Optimizer"': '"Toy", ',
            "class Momentum(": '''class Toy(Optimizer):
    """Steps of one length."""

    def __init__(self, lr=0.01, reach=2.0, weight_decay=0.0, **options):
        super().__init__(lr, **options)
        self.reach, self.weight_decay = reach, weight_decay

    def _rule(self, update):
        update.decay(self.weight_decay)
        updates.toy(update.xp, update.theta, update.gradient, update.lr, self.reach)


''',
            '    "adam": Adam,\n': '    "toy": Toy,\n',
        },
        "__init__.py": {"RMSProp": "Toy "},
    },
    "schedule": {
        "training/schedules.py": {
            '"WarmUp"': '"Halves", ',
            "@dataclass(frozen=True)\nclass InverseScaling": '''@dataclass(frozen=True)
class Halves(Schedule):
    """lr / 2^floor(t / total_steps * times)."""

    lr: float
    total_steps: int
    times: float = 4.0

    def values(self, first_step, n_steps):
        return self.lr / 2.0 ** np.floor(_counted(first_step, n_steps) / self.total_steps * self.times)


''',
            '    "warm-up": WarmUp,\n': '    "by-halves": Halves,\n',
        },
        "__init__.py": {"Step WarmUp": "Halves "},
    },
    "loss": {
        "kernels/losses.py": {
            "def rate(": """def scaled(xp, A, Y, L, dA, work, factor):
    xp.subtract(A, Y, out=dA)
    xp.multiply(dA, dA, out=work)
    xp.sum(work, axis=0, keepdims=True, out=L)
    xp.multiply(L, factor, out=L)
    xp.multiply(dA, 2.0 * factor, out=dA)


"""
        },
        "network/losses.py": {
            "@dataclass(frozen=True)\nclass Poisson": '''@dataclass(frozen=True)
class Scaled(Loss):
    """The squared error times a factor."""

    factor: float = 1.5

    name = "scaled"
    kernel = staticmethod(kernels.scaled)


''',
            "        Poisson,\n": "        Scaled,\n",
        },
    },
    "layer": {
        "network/mixing.py": {
            "": '''"""A layer with a matrix and a column of its own."""

from dataclasses import dataclass

import numpy as np

from xpnet.kernels.affine import affine, affine_backward
from xpnet.network.layer import Layer

__all__ = ["Mixing"]


@dataclass(frozen=True)
class Mixing(Layer):
    """Y = V X + c, V square."""

    n: int
    scale: float = 1.0

    type = "mixing"
    matrices = ("V",)
    needs_input = True
    least_batch = 3

    def parameter_shapes(self):
        return {"V": (self.n, self.n), "c": (self.n, 1)}

    def initialize(self, rng):
        return {"V": self.scale * rng.standard_normal((self.n, self.n)), "c": np.zeros((self.n, 1))}

    def forward_into(self, xp, arrays, X, out):
        affine(xp, arrays["V"], arrays["c"], X, out)

    def backward_into(self, xp, arrays, trace, dA, grads, dX):
        affine_backward(xp, arrays["V"], trace, dA, grads["V"], grads["c"], dX)
'''
        },
        "network/layers.py": {
            "from xpnet.network.normalization import": "from xpnet.network.mixing import Mixing\n",
            "Dropout, BatchNorm, LayerNorm)": "Mixing, ",
        },
        "__init__.py": {'    "network.network": ': '    "network.mixing": "Mixing",\n'},
    },
    "activation": {
        "kernels/activations.py": {
            "@dataclass(frozen=True)\nclass ActivationFunction": """def half(xp, Z, out):
    xp.multiply(Z, 0.5, out=out)


def half_backward(xp, A, dA, out):
    xp.multiply(dA, 0.5, out=out)


""",
            '    "softplus": ': '    "half": ActivationFunction(half, half_backward),\n',
        }
    },
    "engine": {
        "engines/toy.py": {
            "": '''"""An engine that must be prepared."""

from xpnet.engines.replay import Replay


class Toy(Replay):
    """Replays, under a name of its own."""

    name = "toy"
'''
        },
        "engines/choice.py": {
            "from xpnet.program.calls": "from xpnet.engines.toy import Toy\n",
            "        EngineKind(Cuda": (
                '        EngineKind(Toy.name, Toy, ("cpu",), "replays", repays=lambda *n: n[1] > 50),\n'
            ),
        },
    },
}
MOST = {"optimizer": 3, "schedule": 2, "loss": 2, "layer": 3, "activation": 1, "engine": 2}

USED = """
import json, warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

import xpnet
from xpnet.cli import main
from xpnet.network.losses import loss_of
from xpnet.training.schedules import schedule_of

warnings.simplefilter("error")
rng, found = np.random.default_rng(0), {"file": xpnet.__file__}
np.save("X.npy", rng.standard_normal((40, 3)))
np.save("y.npy", rng.integers(0, 2, 40))
np.save("t.npy", rng.standard_normal((40, 2)))


def trained(name, *options, labels="y.npy"):
    command = ["train", "--dataset", "X.npy", "--labels", labels, "--layers", "3,4,2", "--epochs", "2", "--quiet"]
    assert main([*command, "--out", name, *options]) == 0
    config = json.loads(Path(name, "config.json").read_text())
    return config, [json.loads(line) for line in Path(name, "history.jsonl").read_text().splitlines()]


def helped(command):
    with redirect_stdout(StringIO()) as out:
        try:
            main([command, "--help"])
        except SystemExit:
            pass
    return " ".join(out.getvalue().split())


def fitted(kind="MLPClassifier", labels="y.npy", **settings):
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return getattr(xpnet, kind)(4, max_iter=2, **settings).fit(np.load("X.npy"), np.load(labels))


help = helped("train")
config, _ = trained("optimizer", "--optimizer", "toy", "--reach", "3", "--weight-decay", "0.1", "--max-norm", "1")
assert main(["find-lr", "--dataset", "X.npy", "--labels", "y.npy", "--layers", "3,2", "--optimizer", "toy"]) in (0, 1)
found["optimizer"] = {
    "config": config["optimizer"],
    "help": "adam" in help and "--reach X (default: 2 of toy)" in help,
    "estimator": repr(fitted(solver="toy", weight_decay=0.2)._optimizer),
    "public": xpnet.Toy(reach=4.0).reach,
}
config, _ = trained("schedule", "--schedule", "by-halves", "--times", "2", "--warmup", "1")
found["schedule"] = {
    "config": config["optimizer"]["schedule"],
    "read back": repr(schedule_of(config["optimizer"]["schedule"])),
    "help": "by-halves (4): times" in help and "by-halves: steps of the whole course" in help,
    "estimator": repr(fitted(schedule="by_halves")._optimizer.schedule),
    "public": repr(xpnet.Halves(0.1, 8)),
}
config, _ = trained("loss", "--loss", "scaled", "--scaled-factor", "2.5", labels="t.npy")
network = xpnet.Network.load("loss/model.safetensors")
found["loss"] = {
    "config": config["spec"]["loss"],
    "file": repr(network.architecture.loss),
    "read back": repr(loss_of(config["spec"]["loss"])),
    "help": "--scaled-factor X scaled (1.5)" in help,
    "estimator": repr(fitted("MLPRegressor", "t.npy", loss="scaled").network_.architecture.loss),
}
backend = xpnet.select_backend("cpu", "float64")
layers = [xpnet.Dense(3, 4), xpnet.Mixing(4, 0.3), xpnet.Activation("half"), xpnet.Dense(4, 2)]
network = xpnet.Network(layers, loss="squared_error", backend=backend)
X, Y = rng.standard_normal((3, 9)), rng.standard_normal((2, 9))
error = xpnet.check_gradients(network, X, Y)
xpnet.train(network, xpnet.Dataset(X, Y), xpnet.SGD(0.01, max_norm=0.5), epochs=1, batch_size=3)
network.save("layer")
read = xpnet.Network.load("layer", backend)
description = network.training_program(4, xpnet.SGD(l2=0.1), False).describe()
try:
    xpnet.step(network, xpnet.SGD(), X[:, :2], Y[:, :2])
except ValueError as refused:
    message = str(refused)
found["layer"] = {
    "gradient": error < 1e-7,
    "norms": max(np.linalg.norm(W, axis=1).max() for W in network.parameters.weights),
    "matrices": [list(W.shape) for W in network.parameters.weights],
    "columns": [b is network.parameters.named[f"layers.{i}.{name}"] for b, i, name in zip(
        network.parameters.biases, (0, 1, 3), "bcb", strict=True)],
    "spec": read.to_spec()["layers"][1],
    "read back": bool((read.predict(X) == network.predict(X)).all()),
    "numbers": "V2" in description and "Z2" in description and "W3" in description,
    "refused": message,
}
config, _ = trained("activation", "--activation", "half")
found["activation"] = {"spec": config["spec"]["layers"][1], "help": "half" in help}
found["engine"] = {
    "few steps": trained("few", "--engine", "auto")[1][-1]["engine"],
    "many steps": trained("many", "--batch-size", "1")[1][-1]["engine"],
    "by name": trained("named", "--engine", "toy")[1][-1]["engine"],
    "estimator": fitted(engine="toy").n_iter_,
    "help": "toy replays" in help and "or toy," in helped("bench"),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a user of a copy that has one more of each kind finds."""
    copy = tmp_path_factory.mktemp("copy")
    copy_files(Path(xpnet.__file__).parent, copy / "xpnet")
    for edits in EDITS.values():
        for name, written in edits.items():
            path = copy / "xpnet" / name
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            for before, new in written.items():
                assert before in text, (name, before)
                text = text.replace(before, new + before, 1)
            path.write_text(text, encoding="utf-8")
    (copy / "here").mkdir()
    environment = os.environ | {"PYTHONPATH": str(copy), "XPNET_DEVICE": "cpu"}
    command = [sys.executable, "-c", USED]
    done = subprocess.run(command, cwd=copy / "here", env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert Path(result.pop("file")).is_relative_to(copy)
    return result


@pytest.mark.parametrize("kind", EDITS)
def test_few_files_are_edited(kind):
    assert len(EDITS[kind]) <= MOST[kind]


@pytest.mark.full
def test_a_new_optimizer(found):
    of_the_rule = {"lr": 0.01, "reach": 3.0, "weight_decay": 0.1}
    assert found["optimizer"] == {
        "config": {"type": "toy", **of_the_rule, "max_norm": 1.0},
        "help": True,
        "estimator": "Toy(lr=0.001, reach=2.0, weight_decay=0.2, l2_summed=0.0001)",
        "public": 4.0,
    }


@pytest.mark.full
def test_a_new_schedule(found):
    course = {"type": "by-halves", "lr": 0.001, "total_steps": 3, "times": 2.0}  # of four updates one warms up
    warm_up = "WarmUp(after=Halves(lr=0.001, total_steps=3, times=2.0), steps=1, start=0.3333333333333333)"
    assert found["schedule"] == {
        "config": {"type": "warm-up", "after": course, "steps": 1, "start": 1 / 3},
        "read back": warm_up,
        "help": True,
        "estimator": "Halves(lr=0.001, total_steps=4, times=4.0)",
        "public": "Halves(lr=0.1, total_steps=8, times=4.0)",
    }


@pytest.mark.full
def test_a_new_loss_with_a_parameter(found):
    assert found["loss"] == {
        "config": {"name": "scaled", "factor": 2.5},
        "file": "Scaled(factor=2.5)",
        "read back": "Scaled(factor=2.5)",
        "help": True,
        "estimator": "Scaled(factor=1.5)",
    }


@pytest.mark.full
def test_a_new_layer_with_parameters(found):
    layer = found["layer"]
    assert layer.pop("norms") <= 0.5 * (1 + 1e-12)
    assert layer.pop("refused").startswith("a training step has 2 samples and Mixing(n=4, scale=0.3) needs 3 or more; ")
    assert layer == {
        "gradient": True,
        "matrices": [[4, 3], [4, 4], [2, 4]],
        "columns": [True, True, True],
        "spec": {"type": "mixing", "n": 4, "scale": 0.3},
        "read back": True,
        "numbers": True,
    }


@pytest.mark.full
def test_a_new_activation(found):
    assert found["activation"] == {"spec": {"type": "activation", "name": "half"}, "help": True}


@pytest.mark.full
def test_a_new_engine(found):
    names = {"few steps": "replay", "many steps": "toy", "by name": "toy"}
    assert found["engine"] == {**names, "estimator": 2, "help": True}
