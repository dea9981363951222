"""scikit-learn's classes swapped in a real notebook, which the extra test-company brings."""

from __future__ import annotations

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra test-company brings it")
nbclient = pytest.importorskip("nbclient", reason="the extra test-company brings it")
pytest.importorskip("ipykernel", reason="the extra test-company brings it")

CELLS = (
    "from sklearn.datasets import load_iris; from sklearn.neural_network import MLPClassifier; import warnings",
    "warnings.simplefilter('ignore'); X, y = load_iris(return_X_y=True)",
    "%load_ext xpnet.accelerate",
    "model = MLPClassifier(max_iter=3).fit(X, y)",
    "print(hasattr(model, 'network_'))",
)


@pytest.mark.full
def test_a_notebook_that_has_imported_the_classes_trains_on_xpnet():
    """And says after each cell what ran where."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    texts = ["".join(output.text for output in cell.outputs) for cell in notebook.cells]
    assert texts[3].startswith("xpnet.accelerate: 1 fit of MLPClassifier on cpu (")
    assert texts[4] == "True\n"
