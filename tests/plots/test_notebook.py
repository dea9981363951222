"""A curve that grows under a cell of a real notebook, which the extra test-company brings."""

from __future__ import annotations

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra test-company brings it")
nbclient = pytest.importorskip("nbclient", reason="the extra test-company brings it")
pytest.importorskip("ipykernel", reason="the extra test-company brings it")

CELL = """
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
