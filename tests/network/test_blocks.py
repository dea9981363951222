"""Prediction in blocks: the same bits as at once, whatever the rows are, and no more of them ready than is said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from xpnet import Dataset, Network, select_backend
from xpnet.data.feed import feed_of
from xpnet.estimators.data import outputs_for_rows
from xpnet.network.blocks import predict_in_blocks, predicted_blocks
from xpnet.program.calls import BATCH
from xpnet.tables.model import outputs_of
from xpnet.training.evaluation import outputs

CPU = select_backend("cpu")
NETWORK = Network([7, 5, 3], activation="tanh", backend=CPU, seed=2)
ROWS = np.random.default_rng(0).standard_normal((2 * BATCH + 77, 7)).astype(np.float32)


@pytest.mark.parametrize("method", ["predict", "forward", "classify"])
def test_blocks_of_whole_chunks_give_the_same_bits(method):
    infer = getattr(NETWORK, method)
    found, held = infer(ROWS.T), []

    def ready(rows):
        held.append(len(rows))
        return rows

    np.testing.assert_array_equal(predict_in_blocks(CPU, infer, ROWS, ready, BATCH), found)
    assert held == [BATCH, BATCH, 77]
    np.testing.assert_array_equal(predict_in_blocks(CPU, infer, ROWS, CPU.to_device), found)
    np.testing.assert_array_equal(outputs_of(NETWORK, ROWS.T, infer), found)
    np.testing.assert_array_equal(outputs(NETWORK, Dataset(ROWS.T, np.zeros(len(ROWS))), infer), found)


def test_bytes_and_mapped_rows_give_the_same_bits(tmp_path):
    pixels, scale = (np.arange(len(ROWS) * 7) % 251).astype(np.uint8).reshape(-1, 7), 1 / 255
    scaled = pixels.astype(np.float32)
    scaled *= scale
    np.save(tmp_path / "X.npy", pixels)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for rows in (pixels, mapped):
        dataset = Dataset(rows.T, np.zeros(len(rows)))
        assert dataset.is_mapped == (rows is mapped)
        found = outputs(NETWORK, dataset, NETWORK.predict, feed_of(dataset, CPU, BATCH))
        np.testing.assert_array_equal(found, NETWORK.predict(scaled.T))


def test_sparse_rows_become_dense_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr("xpnet.estimators.data.PREDICTED", BATCH)
    matrix = sparse.csr_matrix(np.where(ROWS > 0, ROWS, 0).astype(np.float32))
    whole, predict, shapes = NETWORK.predict(matrix.toarray().T).T, NETWORK.predict, []
    monkeypatch.setattr(NETWORK, "predict", lambda X: (shapes.append(X.shape), predict(X))[1])
    np.testing.assert_array_equal(outputs_for_rows(NETWORK, matrix, linked=True), whole)
    assert shapes == [(7, BATCH), (7, BATCH), (7, 77)]
    outputs_for_rows(NETWORK, ROWS, linked=True)
    assert shapes[3:] == [ROWS.T.shape]  # nothing to make ready


def test_only_one_block_is_ready_before_it_is_asked_for():
    ready = []
    blocks = predicted_blocks(NETWORK.predict, ROWS, lambda rows: (ready.append(len(rows)), rows)[1], 1000)
    assert next(blocks).shape == (3, 1000) and ready == [1000]
