"""Cells of a real notebook, which the extra test-company brings: pictures, progress, and those of README and guide."""

from __future__ import annotations

import pytest
from test_package import ROOT, examples

nbformat = pytest.importorskip("nbformat", reason="the extra test-company brings it")
nbclient = pytest.importorskip("nbclient", reason="the extra test-company brings it")
pytest.importorskip("ipykernel", reason="the extra test-company brings it")

CELL = """
import sys
sys.modules["ipywidgets"] = None  # as if it were not installed: progress is a line of text
import numpy as np, xpnet
from xpnet.plots import LiveCurve
X = np.random.default_rng(0).normal(size=(2, 40)).astype("float32")
data = xpnet.Dataset.from_labels(X, (X[0] > 0).astype(int))
network = xpnet.Network([2, 4, 2], backend=xpnet.select_backend("cpu"))
history = xpnet.train(network, data, xpnet.SGD(lr=0.1), epochs=EPOCHS, validation=data, callbacks=[LiveCurve(EVERY)])
"""


class Watched(nbclient.NotebookClient):
    """Runs a notebook and notes what the kernel sends to be shown."""

    def process_message(self, msg, cell, cell_index):
        if "display" in msg["msg_type"]:
            self.__dict__.setdefault("shown", []).append((cell_index, msg["msg_type"], msg["content"]["data"]))
        return super().process_message(msg, cell, cell_index)


@pytest.mark.full
def test_in_a_notebook_one_picture_grows_with_the_epochs():
    cells = [CELL.replace("EPOCHS", "3").replace("EVERY", ""), CELL.replace("EPOCHS", "5").replace("EVERY", "every=4")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    client = Watched(notebook, timeout=120, kernel_name="python3")
    client.execute()
    for index, n_pictures in ((0, 4), (1, 3)):  # the untrained network's and one an epoch; of epochs 0, 4 and the last
        kinds = [kind for at, kind, _ in client.shown if at == index]
        assert kinds == ["display_data", *["update_display_data"] * (n_pictures - 1)]
        pictures = [data["image/png"] for at, _, data in client.shown if at == index]
        assert len(set(pictures)) == n_pictures and all(picture.startswith("iVBORw0KGgo") for picture in pictures)
        outputs = notebook.cells[index].outputs
        (output,) = [item for item in outputs if item.output_type == "display_data"]  # one place, the last picture
        line = "".join(item.text for item in outputs if item.output_type == "stream").rstrip().rsplit("\r", 1)[-1]
        assert line.startswith(f"epoch {(3, 5)[index]}/") and "val_accuracy" in line
        assert output["data"]["image/png"].strip() == pictures[-1].strip()


def executed(sources, folder):
    """Run cells in `folder` on the CPU; return the notebook."""
    first = f"import os; os.chdir({str(folder)!r}); os.environ['XPNET_DEVICE'] = 'cpu'"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (first, *sources)])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


def python_of(page):
    return [block for language, block in examples(page) if language == "python"]


@pytest.mark.full
def test_the_cells_of_the_guide_show_pictures_and_a_bar_by_themselves(tmp_path):
    pytest.importorskip("ipywidgets", reason="the extra test-company brings it")
    notebook = executed(python_of(ROOT / "ci/guide/notebooks.md"), tmp_path)
    training, *pictures, live = notebook.cells[1:]
    for cell in pictures:
        (output,) = cell.outputs
        assert output.output_type == "execute_result" and output["data"]["image/png"].startswith("iVBORw0KGgo")
    kinds = [set(output.get("data", {})) for output in training.outputs]
    assert any("application/vnd.jupyter.widget-view+json" in kind for kind in kinds)
    assert not any(output.output_type == "stream" and output.name == "stderr" for output in training.outputs)
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    values = [state["state"].get("value") for state in states]
    steps = 3 * -(-4500 // 32)
    assert steps in values and any("val_accuracy" in str(value) for value in values)
    assert any("image/png" in output.get("data", {}) for output in live.outputs)


@pytest.mark.full
def test_the_python_of_the_readme_runs_as_a_notebook(tmp_path):
    """That of the guide's other pages is run without one, in tests/test_readme.py."""
    cells = python_of(ROOT / "README.md")
    notebook = executed(cells, tmp_path)
    assert len(notebook.cells) == len(cells) + 1 > 1
    assert not [output for cell in notebook.cells for output in cell.outputs if output.output_type == "error"]
