"""scikit-learn's two classes replaced by xpnet's: names, pickles, what is left to scikit-learn, and the ways in."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import fakecupy
import numpy as np
import pytest
from refusals import refusal
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.neural_network import _multilayer_perceptron
from sklearn.preprocessing import scale

import xpnet
from xpnet import accelerate
from xpnet.accelerate.__main__ import main
from xpnet.accelerate.report import REPORT, Report

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = scale(load_iris().data), load_iris().target
THEIRS = {"MLPClassifier": neural_network.MLPClassifier, "MLPRegressor": neural_network.MLPRegressor}
SETTINGS = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
SCRIPT = """
import sys
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier

features, classes = load_iris(return_X_y=True)
model = MLPClassifier(4, max_iter=60, random_state=0)
print(sys.argv[1:], __name__, hasattr(model.fit(features, classes), "network_"))
if "jobs" in sys.argv:
    print(cross_val_score(model, features, classes, n_jobs=2).mean())
"""


@pytest.fixture
def installed():
    accelerate.install()
    yield
    accelerate.uninstall()
    REPORT.__init__()


def fitted(name, **settings):
    return getattr(neural_network, name)(**SETTINGS | settings).fit(X, Y)


def test_every_name_of_the_classes_is_swapped_and_swapped_back(monkeypatch):
    early = ModuleType("early")
    early.Net = neural_network.MLPClassifier
    monkeypatch.setitem(sys.modules, "early", early)
    accelerate.install()
    try:
        for found in (neural_network.MLPClassifier, _multilayer_perceptron.MLPClassifier, early.Net):
            assert issubclass(found, xpnet.MLPClassifier) and found.__name__ == "MLPClassifier"
        assert hasattr(clone(early.Net(**SETTINGS)).fit(X, Y), "network_")
        assert isinstance(object.__new__(THEIRS["MLPClassifier"]), early.Net)  # made before
    finally:
        accelerate.uninstall()
    assert early.Net is neural_network.MLPClassifier is THEIRS["MLPClassifier"]


@pytest.mark.parametrize(("name", "values"), [("MLPRegressor", ("poisson", (3,))), ("MLPClassifier", ((3,), "tanh"))])
def test_values_by_position_are_those_of_scikit_learn(installed, name, values):
    """Whose regressor has taken the loss first since 1.7."""
    if name == "MLPRegressor" and next(iter(inspect.signature(THEIRS[name]).parameters)) != "loss":
        values = values[1:]
    theirs, ours = THEIRS[name](*values, tol=0.5), getattr(neural_network, name)(*values, tol=0.5)
    assert theirs.get_params() == {key: ours.get_params()[key] for key in theirs.get_params()}
    assert clone(ours).get_params() == ours.get_params()
    for wrong in ([*values, 1.0, 2.0], {"activation": "relu", "unheard_of": 1}):
        for kind in (THEIRS[name], type(ours)):
            with pytest.raises(TypeError):
                kind(**wrong) if isinstance(wrong, dict) else kind(*wrong)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_lists_the_classes(installed):
    from sklearn.utils.discovery import all_estimators

    found = dict(all_estimators())
    assert all(found[name] is getattr(neural_network, name) is not theirs for name, theirs in THEIRS.items())


@pytest.mark.parametrize("name", THEIRS)
def test_pickles_are_those_of_scikit_learn(installed, name):
    """Read with xpnet they go on to the same bits; read without it they are scikit-learn's estimators."""
    ours = fitted(name, solver="sgd")
    ours.remark = "kept"
    stored, unfitted = pickle.dumps(ours), pickle.dumps(clone(ours))
    assert b"xpnet." not in stored and b"xpnet." not in unfitted
    again, copied = pickle.loads(stored), copy.deepcopy(ours)
    assert type(again) is type(copied) is type(ours) and again.remark == "kept"
    for model in (ours, again, copied):
        model.partial_fit(X, Y)
    for model in (again, copied):
        np.testing.assert_array_equal(model.coefs_[0], ours.coefs_[0])
    accelerate.uninstall()
    plain = pickle.loads(stored)
    assert type(plain) is THEIRS[name] and type(pickle.loads(unfitted)) is THEIRS[name]
    assert plain.remark == "kept" and plain.get_params() == pickle.loads(unfitted).get_params()
    plain.partial_fit(X, Y)  # by scikit-learn
    theirs = pickle.dumps(plain.fit(X, Y))
    accelerate.install()
    taken = pickle.loads(theirs)
    assert isinstance(taken, getattr(xpnet, name)) and taken.n_iter_ == 3
    np.testing.assert_allclose(taken.predict(X), plain.predict(X), rtol=1e-9)


def test_pickles_of_what_scikit_learn_lacks_are_refused(installed):
    for options in ({"dropout": 0.5}, {"solver": "adamw"}):
        ours = fitted("MLPClassifier", **options)
        ((name, value),) = options.items()
        with refusal(TypeError, f"{name}={value!r}", "scikit-learn reads", "make it by xpnet.MLPClassifier"):
            pickle.dumps(ours)
        np.testing.assert_array_equal(copy.deepcopy(ours).predict(X), ours.predict(X))


def test_what_only_scikit_learn_can_is_left_to_it_and_said_once(installed, capsys):
    settings = SETTINGS | {"solver": "sgd", "momentum": 1.0, "learning_rate_init": 1e-4}
    models = [neural_network.MLPClassifier(**settings).fit(X, Y) for _ in range(2)]
    theirs = THEIRS["MLPClassifier"](**settings).fit(X, Y)
    np.testing.assert_allclose(models[1].predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    err = capsys.readouterr().err
    assert err.count("MLPClassifier.fit is left to scikit-learn: momentum is 1.0") == 1
    REPORT.tell()
    assert "2 fits of MLPClassifier by scikit-learn in " in capsys.readouterr().err
    with pytest.raises(ValueError, match="The 'max_iter' parameter of MLPClassifier"):  # which both refuse
        neural_network.MLPClassifier(max_iter=0).fit(X, Y)
    with refusal(TypeError, "validation is a int", "(X, y)"):  # which only xpnet has
        fitted("MLPClassifier").fit(X, Y, validation=3)


def test_wide_sparse_rows_are_left_to_scikit_learn(installed, capsys):
    """Whose products leave out zeros; to the estimators themselves, and to a GPU, they are as good as others."""
    wide = sparse.random(150, 1000, 0.01, "csr", random_state=0)
    model = neural_network.MLPClassifier(**SETTINGS).fit(wide, Y)
    theirs = THEIRS["MLPClassifier"](**SETTINGS).fit(wide, Y)
    np.testing.assert_array_equal(model.coefs_[0], theirs.coefs_[0])
    for rows in (wide, wide, wide.toarray()):
        for each in (model, theirs):
            each.partial_fit(rows, Y)
        np.testing.assert_allclose(model.coefs_[0], theirs.coefs_[0], rtol=0, atol=1e-12)  # the optimizer goes on
    said = "MLPClassifier.fit is left to scikit-learn: X is sparse, 1.00% of it is not 0"
    assert said in capsys.readouterr().err
    for rows, options in ((wide[:, :999], {}), (wide.toarray(), {}), (wide, {"dropout": 0.1})):
        neural_network.MLPClassifier(**SETTINGS | options).fit(rows, Y)
    REPORT.tell()
    assert "3 fits of MLPClassifier on cpu (" in capsys.readouterr().err


def test_a_class_that_overrides_private_methods_is_left_to_scikit_learn(installed, capsys):
    class Public(neural_network.MLPClassifier):
        def predict(self, X):
            return super().predict(X)[::-1]

    class Private(neural_network.MLPClassifier):
        def _init_coef(self, *sizes):
            coefs, intercepts = super()._init_coef(*sizes)
            return 0 * coefs, intercepts

    assert issubclass(Public, xpnet.MLPClassifier) and Public(**SETTINGS).fit(X, Y).predict(X).shape == (150,)

    class Late(Public):
        def _init_coef(self, *sizes):
            return super()._init_coef(*sizes)

    class Latest(Late, Sequence):
        __len__ = __getitem__ = None

        def predict(self, X):
            return super().predict(X)[::-1]

    assert issubclass(Public, xpnet.MLPClassifier) and Public(**SETTINGS).fit(X, Y).predict(X).shape == (150,)
    err = capsys.readouterr().err
    for kind in (Private, Late, Latest):
        assert issubclass(kind, THEIRS["MLPClassifier"]) and issubclass(kind, neural_network.MLPClassifier)
        assert not issubclass(kind, xpnet.MLPClassifier)
    model = Private(4, learning_rate_init=1e-300, max_iter=1).fit(X, Y)
    assert not hasattr(model, "network_") and not model.coefs_[0].round(12).any()
    theirs = THEIRS["MLPClassifier"](**SETTINGS).fit(X, Y)
    np.testing.assert_array_equal(clone(Latest(**SETTINGS)).fit(X, Y).predict(X), theirs.predict(X))
    np.testing.assert_array_equal(Late(**SETTINGS).fit(X, Y).predict(X), theirs.predict(X)[::-1])
    for name in ("Private", "Late"):
        assert err.count(f"class {name} overrides _init_coef, and is left to scikit-learn") == 1
    assert "Latest" not in err + capsys.readouterr().err


def test_a_script_runs_and_its_fits_are_told(installed, tmp_path, monkeypatch, capsys):
    script = tmp_path / "old.py"
    script.write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main([str(script), "one", "-two"]) == 0
    REPORT.tell()
    out, err = capsys.readouterr()
    assert out == "['one', '-two'] __main__ True\n"
    assert err.startswith("xpnet.accelerate: 1 fit of MLPClassifier on cpu (") and err.endswith(" s\n")
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "old", "three"]) == 0
    assert capsys.readouterr().out == "['three'] __main__ True\n"


def test_what_cannot_be_run_is_said_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # main sets its beginning
    for words, said in (
        ([], "usage: "),
        (["-x"], "usage: "),
        (["-m"], "usage: "),
        (["none.py"], "no script none.py"),
        ([str(tmp_path)], f"no script {tmp_path}"),
        (["-m", "none.a"], "no module none.a"),
        (["-m", ".a"], "no module .a"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert main(["--help"]) == 0 and "usage: " in capsys.readouterr().out
    monkeypatch.setenv("XPNET_DEVICE", "gpuu")
    assert main([__file__]) == 2
    assert "XPNET_DEVICE" in capsys.readouterr().err
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes `import cupy` fail
    assert main([__file__]) == 2 and neural_network.MLPClassifier is THEIRS["MLPClassifier"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xpnet.accelerate: ") and "CuPy is not installed" in line and "xpnet[cuda12]" in line


def test_a_notebook_is_told_of_the_fits_of_each_cell(capsys):
    hooks = []
    events = SimpleNamespace(register=lambda _, hook: hooks.append(hook), unregister=lambda _, hook: hooks.remove(hook))
    shell = SimpleNamespace(events=events)
    accelerate.load_ipython_extension(shell)
    try:
        fitted("MLPRegressor")
        hooks[0]("result"), hooks[0]("result")
        assert capsys.readouterr().err.count("1 fit of MLPRegressor on cpu") == 1
    finally:
        accelerate.unload_ipython_extension(shell)
    assert not hooks and neural_network.MLPRegressor is THEIRS["MLPRegressor"]


def test_a_report_counts_by_class_and_place(capsys):
    report = Report()
    for name, where in (("A", "here"), ("A", "here"), ("B", "there")):
        report.ran(name, where, 0.5)
    report.sent()
    report.tell(), report.tell()
    line = "2 fits of A here in 1.00 s; 1 fit of B there in 0.50 s; estimators sent 1 times to other processes"
    assert capsys.readouterr().err.startswith(f"xpnet.accelerate: {line}")


@pytest.mark.full
def test_a_script_on_the_gpu_that_xpnet_device_names(tmp_path):
    """Played by fakecupy; the script is none the wiser."""
    (tmp_path / "old.py").write_text(SCRIPT, encoding="utf-8")
    code = "import sys, fakecupy; sys.modules['cupy'] = fakecupy; from xpnet.accelerate.__main__ import main; "
    words = [sys.executable, "-W", "ignore", "-c", f"{code} main(['old.py'])"]
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), os.path.dirname(fakecupy.__file__)]
    setting = {"XPNET_DEVICE": "cuda", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | setting)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[] __main__ True\n"
    assert done.stderr.startswith("xpnet.accelerate: 1 fit of MLPClassifier on cuda (")


@pytest.mark.full
def test_a_script_in_a_process_of_its_own_and_its_workers(tmp_path):
    (tmp_path / "old.py").write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, "-W", "ignore", "-m", "xpnet.accelerate", "old.py", "jobs"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['jobs'] __main__ True\n") and float(done.stdout.split()[-1]) > 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("xpnet.accelerate: 1 fit of MLPClassifier on cpu (") and "to other processes" in line
