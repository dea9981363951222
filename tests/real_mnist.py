"""The real MNIST files, for the tests that need them."""

from __future__ import annotations

from pathlib import Path

import pytest

from xpnet.datasets.mnist import named_directory

# $XPNET_DATA, or a folder beside the clone; read before any test changes the environment.
REAL_MNIST = named_directory("mnist", None) or Path(__file__).parents[2] / "shared/data/mnist"


def need_real_mnist():
    """Skip the test unless the files are there."""
    if not any(REAL_MNIST.glob("train-images*")):
        pytest.skip(
            f"{REAL_MNIST} has no MNIST: put its four IDX files there, or into the folder that XPNET_DATA names"
        )
