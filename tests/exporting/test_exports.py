"""Pages of NumPy and headers of C: they predict what the network does, alone; and what `xpnet.export` refuses."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forms import NAMES, apart, every, expected, network, of_your_own, rows_for
from refusals import refusal, says

import xpnet
from xpnet.cli import main
from xpnet.exporting.numpy_text import MOST_LINES
from xpnet.network.inputs import InputRange

BOUND = {"float32": 1e-6, "float64": 1e-14}
PYTHON = os.environ.get("XPNET_PYTHON_WITH_NUMPY_ALONE", sys.executable)
ALONE = """
import sys
sys.modules["xpnet"] = None
import numpy as np
import model
assert not {name.partition(".")[0] for name in sys.modules} & {"safetensors", "tqdm", "scipy", "pandas"}
np.save("P.npy", model.predict(np.load("X.npy")))
"""
MAIN = """
#include <stdio.h>
#include "model.h"
#include "other.h"

int main(void) {
  static REAL y[MODEL_OUTPUTS];
  static TAKEN x[MODEL_INPUTS];
  while (fread(x, sizeof x, 1, stdin) == 1) {
    PLACE PREDICT(x, y);
    fwrite(y, sizeof y, 1, stdout);
    WRITE;
  }
  return 0;
}
"""


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", every())
def test_a_page_predicts_what_the_network_does(name, dtype, tmp_path):
    made = network(name, dtype)
    rows, (P, places) = rows_for(made), expected(made, rows_for(made))
    assert xpnet.export(made, tmp_path / "model.py") == (tmp_path / "model.py", tmp_path / "model.npz")
    page = runpy.run_path(str(tmp_path / "model.py"))
    found = page["predict"](rows)
    assert found.dtype == dtype and apart(found, P) < BOUND[dtype]
    assert "classify" not in page or (page["classify"](rows) == places).all()
    with refusal(ValueError, "X is (1000, 0)", "it must be (n_samples,", "one sample per row"):
        page["predict"](rows[:, :0])
    assert (tmp_path / "model.py").read_text(encoding="utf-8").count("\n") <= MOST_LINES


@pytest.mark.full
def test_a_page_needs_numpy_alone(tmp_path):
    made = network("everything", "float32")
    xpnet.export(made, tmp_path / "model.py")
    np.save(tmp_path / "X.npy", rows := rows_for(made))
    subprocess.run([PYTHON, "-c", ALONE], cwd=tmp_path, check=True, timeout=300)
    assert apart(np.load(tmp_path / "P.npy"), expected(made, rows)[0]) < BOUND["float32"]


def compiled(folder, made, *, classes):
    """The path of a program that reads rows and writes predictions, and the place of each class if there are any."""
    is_bytes, real = made.inputs is not None, {4: "float", 8: "double"}[made.backend.dtype.itemsize]
    names = {
        "REAL": real,
        "TAKEN": "unsigned char" if is_bytes else real,
        "PLACE": "int place =" if classes else "",
        "WRITE": "fwrite(&place, sizeof place, 1, stdout)" if classes else "(void)0",
        "PREDICT": "model_predict_bytes" if is_bytes else "model_predict",
    }
    (folder / "main.c").write_text(MAIN, encoding="utf-8")
    options = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsanitize=address,undefined"]
    options += [f"-D{name}={value}" for name, value in names.items()]
    subprocess.run(["gcc", *options, "main.c", "-o", "main", "-lm"], cwd=folder, check=True, timeout=300)
    return folder / "main"


@pytest.mark.full
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", NAMES)
def test_a_header_predicts_without_a_warning(name, dtype, tmp_path):
    """Beside the header of another network, as all names begin with the file's."""
    made = network(name, dtype)
    rows, (P, places) = rows_for(made), expected(made, rows_for(made))
    xpnet.export(made, tmp_path / "model.h")
    xpnet.export(network("loss hinge", "float32"), tmp_path / "other.h", "c")
    is_classes = "label" in (tmp_path / "model.h").read_text(encoding="ascii")
    program = compiled(tmp_path, made, classes=is_classes)
    done = subprocess.run([program], input=rows.tobytes(), capture_output=True, check=True, timeout=300)
    assert not done.stderr
    found = np.frombuffer(done.stdout, [("y", dtype, P.shape[1]), *[("place", "i4")] * is_classes])
    assert apart(found["y"].reshape(P.shape), P) < BOUND[dtype]
    assert not is_classes or (found["place"] == places).all()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_a_header_tells_the_names_of_classes(tmp_path):
    names = ["grün", 'a "b"\\', "??=\n", "ok"]
    made = xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))
    xpnet.export(made, tmp_path / "9 lives.h", classes=names)
    text = '#include <stdio.h>\n#include "9 lives.h"\nint main(void) {{ for (int i = 0; i < 4; ++i) puts({}(i)); }}'
    (tmp_path / "main.c").write_text(text.format("model_9_lives_label"), encoding="ascii")
    subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True)
    out = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout
    assert out.decode() == "".join(f"{name}\n" for name in names)


def test_functions_of_your_own_are_exported_by_what_they_record(tmp_path):
    made = of_your_own()
    xpnet.export(made, tmp_path / "model.py")
    X = rows_for(made, 50)
    P, _ = expected(made, X)
    assert apart(runpy.run_path(str(tmp_path / "model.py"))["predict"](X), P) < 1e-6
    xpnet.export(made, tmp_path / "model.h")


@pytest.mark.full
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_functions_of_your_own_are_in_a_header(tmp_path):
    made = of_your_own()
    X = rows_for(made, 50)
    P, _ = expected(made, X)
    xpnet.export(made, tmp_path / "model.h")
    xpnet.export(made, tmp_path / "other.h")
    program = compiled(tmp_path, made, classes=False)
    done = subprocess.run([program], input=X.tobytes(), capture_output=True, check=True, timeout=300)
    assert apart(np.frombuffer(done.stdout, "f").reshape(P.shape), P) < 1e-6


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    made = xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))
    made.parameters.weights[0][1, 1] = np.inf
    with refusal(ValueError, "layers.0.W holds NaN or infinity", "must be finite", "train the model again"):
        xpnet.export(made, tmp_path / "model.h")


def test_functions_that_ask_for_the_batch_are_refused(tmp_path):
    def forward(xp, Z, out):
        xp.multiply(Z, 2.0 * Z.shape[1], out=out)

    def backward(xp, A, dA, out):
        xp.multiply(dA, 2.0 * A.shape[1], out=out)

    own = xpnet.CustomActivation("sized", forward, backward)
    made = xpnet.Network([3, 4, 2], activation=own, backend=xpnet.select_backend("cpu"))
    for name in ("model.py", "model.h"):
        with refusal(ValueError, "the function forward of your own", "must be the same for every", "X.shape[1]"):
            xpnet.export(made, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_many_layers_of_different_widths_share_functions(tmp_path):
    made = xpnet.Network(
        [4, *range(20, 50, 2), 3],
        activation="selu",
        normalization="layer",
        backend=xpnet.select_backend("cpu", "float64"),
    )
    xpnet.export(made, tmp_path / "model.py")
    page = runpy.run_path(str(tmp_path / "model.py"))
    assert apart(page["predict"](rows_for(made)), expected(made, rows_for(made))[0]) < 1e-13  # 16 layers


def test_a_page_has_an_end(tmp_path):
    with refusal(ValueError, "its page would take", f"may have {MOST_LINES}", "export it to c or onnx"):
        xpnet.export(xpnet.Network([2] * 90, backend=xpnet.select_backend("cpu")), tmp_path / "many.py")


@pytest.mark.skipif(os.name == "nt", reason="files of Windows have no such names")
@pytest.mark.parametrize("stem", ['a"""b', "a\\Nb", "a\nb", 'b"'])
def test_a_page_is_python_whatever_it_is_called(stem, tmp_path):
    made = xpnet.Network([3, 4], device="cpu")
    for to, suffix in (("numpy", ".py"), ("torch", ".safetensors")):
        (tmp_path / to).mkdir()
        xpnet.export(made, (tmp_path / to / stem).with_suffix(suffix), to)
        compile((tmp_path / to / f"{stem}.py").read_text(encoding="utf-8"), stem, "exec")


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path):
    made = xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))
    with refusal(ValueError, "the suffix of", "it must be one of .onnx (onnx)", ".h (c)"):
        xpnet.export(made, tmp_path / "model.pkl")
    with refusal(ValueError, "is to be a file of c", "must end in .h", "name"):
        xpnet.export(made, tmp_path / "model.py", "c")
    with refusal(ValueError, "classes has 3 names", "tells 4 classes apart", "one name for each"):
        xpnet.export(made, tmp_path / "model.h", classes="abc")
    with refusal(TypeError, "the model is 3", "must be a Network", "call fit first"):
        xpnet.export(3, tmp_path / "model.h")
    kinds = Path(__file__).parents[1] / "written_by_49e9937/runs/kinds"
    with refusal(ValueError, "is of a table", "raw rows .h files do not take", "xpnet export RUN/model.safetensors"):
        xpnet.export(xpnet.load(kinds), tmp_path / "model.h")
    with refusal(ValueError, "scale is 2", "a TableModel has its own", "leave both out"):
        xpnet.export(xpnet.load(kinds), tmp_path / "model.h", scale=2)
    with refusal(ValueError, "scale is -1.0", "above 0", "1 / 255"):
        xpnet.export(made, tmp_path / "model.h", scale=-1.0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "model.npz").write_bytes(b"mine")
    with refusal(FileExistsError, "model.npz exists already", "must be a new file", "name another"):
        xpnet.export(made, tmp_path / "model.py")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("model.npz", b"mine")]


def test_a_second_file_that_fails_takes_the_first_with_it(tmp_path, monkeypatch):
    from xpnet.exporting import export as exporting

    def fails(path, content):
        if path.suffix == ".py":
            raise OSError("the disk is full")
        path.write_bytes(content)

    monkeypatch.setattr(exporting, "write_atomically", fails)
    with pytest.raises(OSError, match="the disk is full"):
        xpnet.export(xpnet.Network([3, 4], backend=xpnet.select_backend("cpu")), tmp_path / "model.py")
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_estimators_are_exported_with_their_classes(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3)).astype("f")
    y = np.where(X[:, 0] > 0, "yes", "no")
    model = xpnet.MLPClassifier((4,), tol=10, n_iter_no_change=2, random_state=0).fit(X, y)
    xpnet.export(model, tmp_path / "model.py")
    page = runpy.run_path(str(tmp_path / "model.py"))
    assert apart(page["predict"](X), model.predict_proba(X)) < 1e-6
    assert (page["classify"](X) == model.predict(X)).all()
    with refusal(TypeError, "MLPClassifier", "a fitted estimator", "call fit first"):
        xpnet.export(xpnet.MLPClassifier(), tmp_path / "other.py")
    several = (X[:, :2] > 0).astype(int)
    model = xpnet.MLPClassifier((4,), tol=10, n_iter_no_change=2, random_state=0).fit(X, several)
    xpnet.export(model, tmp_path / "several.py")
    assert (runpy.run_path(str(tmp_path / "several.py"))["classify"](X) == model.predict(X)).all()


@pytest.mark.full
def test_the_command_exports_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--epochs", "1", "--hidden", "8", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["export", "run", "--to", "numpy", "--out", "model.py"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["model.py", "model.npz"]
    bytes_ = np.random.default_rng(0).integers(256, size=(20, 784), dtype=np.uint8)
    np.save("X.npy", bytes_)
    page = runpy.run_path("model.py")
    assert main(["predict", "run", "X.npy", "--out", "Y.npy"]) == 0
    assert apart(page["predict"](bytes_), np.load("Y.npy")) < 1e-6
    assert main(["predict", "run", "X.npy", "--labels", "--out", "L.npy"]) == 0
    assert (page["classify"](bytes_) == np.load("L.npy").ravel()).all()


def test_the_command_and_what_it_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = xpnet.Network([3, 4], backend=xpnet.select_backend("cpu"))
    made.inputs = InputRange(0.0, 1.0, 1 / 255)
    made.save("model.safetensors")
    assert main(["export", "model.safetensors", "--out", "m.h"]) == 0
    assert "m_predict_bytes" in (tmp_path / "m.h").read_text(encoding="ascii")
    capsys.readouterr()
    assert main(["export", "model.safetensors", "--out", "m.h"]) == 2
    assert (
        capsys.readouterr().err
        == "xpnet: --out m.h exists already; what is exported must be a new file; name another\n"
    )
    assert main(["export", "nowhere", "--out", "n.h"]) == 1
    says(capsys.readouterr().err.strip(), "nowhere is neither a run", "directory nor a model file", "`xpnet train`")
    (tmp_path / "n.safetensors").write_text(json.dumps({}), encoding="utf-8")
    assert main(["export", "n.safetensors", "--out", "n.h"]) == 1
    assert (
        "n.safetensors is not a whole safetensors file" in capsys.readouterr().err and not (tmp_path / "n.h").exists()
    )
