"""Make xpnet/datasets/mnist_sample.npz from MNIST's IDX files; the same input gives the same bytes.

Usage, where xpnet is importable: python ci/make_mnist_sample.py FOLDER_WITH_IDX_FILES OUTPUT.npz
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.datasets.idx import read_idx

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0
N_CLASSES = 10
TRAIN_PER_CLASS = 500
VALIDATION_PER_CLASS = 50  # of these 500: they come last, so that the tail is a balanced validation set
TEST_PER_CLASS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with MNIST's four IDX files, gzipped")
    parser.add_argument("output", type=Path, help="the .npz file to write")
    arguments = parser.parse_args()

    generator = np.random.default_rng(SEED)
    arrays: dict[str, NDArray[Any]] = {}
    for part, prefix, sizes in (
        ("train", "train", (TRAIN_PER_CLASS - VALIDATION_PER_CLASS, VALIDATION_PER_CLASS)),
        ("test", "t10k", (TEST_PER_CLASS,)),
    ):
        images = read_idx(arguments.folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.folder / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = balanced_groups(labels, sizes, generator)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[chosen], labels[chosen]
    write_npz(arguments.output, arrays)


def balanced_groups(labels: NDArray[Any], sizes: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    """Return indices: one group after the other, each with `size` samples of every class, shuffled within."""
    by_class = [generator.permutation(np.flatnonzero(labels == label)) for label in range(N_CLASSES)]
    groups, start = [], 0
    for size in sizes:
        group = np.concatenate([indices[start : start + size] for indices in by_class])
        groups.append(generator.permutation(group))
        start += size
    return np.concatenate(groups)


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as np.savez_compressed does, but without the time of day and at the best compression."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # otherwise it differs by operating system
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=9)


if __name__ == "__main__":
    main()
