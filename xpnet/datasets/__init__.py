"""Data sets by name; every loader returns `(train, test)`, two `xpnet.data.dataset.Dataset` values.

The MNIST sample ships inside the package; the full sets are read from a folder or downloaded once.
"""

from __future__ import annotations

from xpnet.datasets.images import load_images
from xpnet.datasets.mnist import load_fashion_mnist, load_mnist, load_mnist_sample

__all__ = ["load_fashion_mnist", "load_images", "load_mnist", "load_mnist_sample"]
