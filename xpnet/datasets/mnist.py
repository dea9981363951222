"""MNIST and Fashion-MNIST: 28x28 grey images in 10 classes, and a sample of MNIST inside the package.

Every loader returns `(train, test)`: X (784, n_samples) uint8 with scale 1/255, Y (10, n_samples) one-hot.
The full sets come from a folder that the user names, else from public mirrors by pooch, checked by SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.datasets.idx import read_idx

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 28
_N_CLASSES = 10

_TRAIN_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class _Source(NamedTuple):
    """A data set of the family: `name` is its folder, `checksums` the SHA-256 of each file on the mirrors."""

    name: str
    mirrors: tuple[str, ...]
    checksums: dict[str, str]


_MNIST = _Source(
    "mnist",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
)

_FASHION_MNIST = _Source(
    "fashion-mnist",
    (
        # The bucket's web address speaks plain HTTP only; the SHA-256 vouches for what comes.
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
)

FAMILY = {source.name: source for source in (_MNIST, _FASHION_MNIST)}
SAMPLE = "mnist-sample"  # lies in the package
FIGURE_SIDES = {SAMPLE: 20, _MNIST.name: 20, _FASHION_MNIST.name: 28}  # pixels of the longer side of a figure, of 28


def load_mnist_sample() -> tuple[Dataset, Dataset]:
    """Return (train, test): 5,000 and 1,000 digits of MNIST from inside the package, every class equally.

    X (784, n_samples) uint8 with scale 1/255, Y (10, n_samples) one-hot. Shuffled; the last 500
    training images hold every class equally too and serve as a validation set.
    """
    sample = resources.files(__package__).joinpath("mnist_sample.npz")
    with sample.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        train = _dataset(arrays["train_images"], arrays["train_labels"])
        return train, _dataset(arrays["test_images"], arrays["test_labels"])


def load_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return (train, test): the 60,000 and 10,000 handwritten digits of MNIST.

    X (784, n_samples) uint8 with scale 1/255, Y (10, n_samples) one-hot.
    data_dir: folder of the four IDX files, each gzipped or raw. Without it $XPNET_DATA/mnist, or $XPNET_DATA
        where that folder is not there; only with neither given are they downloaded, once, into a cache.
    Raises FileNotFoundError for missing files, ValueError for damaged ones, OSError where no mirror answers,
    ImportError where the download needs pooch.
    """
    return load_from(_MNIST.name, named_directory(_MNIST.name, data_dir))


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return (train, test): the 60,000 and 10,000 pictures of clothes of Fashion-MNIST.

    X (784, n_samples) uint8 with scale 1/255, Y (10, n_samples) one-hot.
    data_dir: folder of the four IDX files, each gzipped or raw. Without it $XPNET_DATA/fashion-mnist, or
        $XPNET_DATA where that folder is not there; only with neither given are they downloaded, once, into a
        cache.
    Raises FileNotFoundError for missing files, ValueError for damaged ones, OSError where no mirror answers,
    ImportError where the download needs pooch.
    """
    return load_from(_FASHION_MNIST.name, named_directory(_FASHION_MNIST.name, data_dir))


def load_from(name: str, directory: Path | None) -> tuple[Dataset, Dataset]:
    """Return (train, test) of a name of FAMILY, read from what `named_directory` gave; downloaded where that is None.

    Raises as `load_mnist` does.
    """
    if directory is None:
        directory = _download(name, FAMILY[name].checksums, FAMILY[name].mirrors)
    return _read_directory(directory)


def named_directory(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """Return the one folder to look in, or None where the user named none."""
    if data_dir is not None:
        return Path(os.path.expanduser(data_dir))
    from_environment = os.environ.get("XPNET_DATA")
    if not from_environment:
        return None
    root = Path(os.path.expanduser(from_environment))
    return root / name if (root / name).is_dir() else root


def _read_directory(directory: Path) -> tuple[Dataset, Dataset]:
    paths = {name: _find(directory, name) for name in (*_TRAIN_FILES, *_TEST_FILES)}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        found = f"lacks {', '.join(missing)}" if directory.is_dir() else "is not a folder"
        raise FileNotFoundError(
            f"{directory} {found}; it must hold {', '.join(paths)}, each raw or with .gz. Put them "
            "there, or leave out data_dir (--data-dir) and XPNET_DATA to have them downloaded (pip install "
            "'xpnet[download]')."
        )
    train_images, train_labels, test_images, test_labels = (path for path in paths.values() if path is not None)
    return _read_pair(train_images, train_labels), _read_pair(test_images, test_labels)


def _find(directory: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")  # as some archives unpack
    candidates = [directory / f"{written}{end}" for written in (name, dotted) for end in (".gz", "")]
    return next((path for path in candidates if path.is_file()), None)


def _read_pair(images_path: Path, labels_path: Path) -> Dataset:
    """Return the Dataset of an image file and its label file, having checked that they belong together."""
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(
            f"{images_path} holds an array {images.shape}; it must hold images of {_SIDE}x{_SIDE}, (n, "
            f"{_SIDE}, {_SIDE}). Check that it is the right file."
        )
    if labels.ndim != 1:
        raise ValueError(
            f"{labels_path} holds an array {labels.shape}; it must hold one label an image, (n,). Check that it "
            "is the right file."
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images but {labels_path.name} holds {len(labels)} labels; "
            "there must be as many of each. Take both files from the same source."
        )
    if labels.max() >= _N_CLASSES:
        where = int(np.argmax(labels >= _N_CLASSES))
        raise ValueError(
            f"{labels_path} holds label {labels[where]} at sample {where}; labels must be 0 to {_N_CLASSES - 1}. "
            "Check that it is the right file."
        )
    return _dataset(images, labels)


def _dataset(images: NDArray[Any], labels: NDArray[Any]) -> Dataset:
    return Dataset.from_labels(images.reshape(len(images), -1).T, labels, n_classes=_N_CLASSES)


def _download(
    name: str, checksums: Mapping[str, str], mirrors: Sequence[str], cache: Path | None = None, retries: int = 2
) -> Path:
    """Return the folder that holds the files of `checksums`, fetched from the first mirror to deliver them.

    Files that lie there with the right SHA-256 are not fetched again. Raises OSError where all mirrors fail.
    """
    try:
        import pooch
    except ImportError:
        raise ImportError(
            f"downloading {name} needs pooch, which is not installed. Run: pip install 'xpnet[download]', or "
            "pass data_dir (--data-dir), a folder that holds the four files."
        ) from None
    folder = (Path(pooch.os_cache("xpnet")) if cache is None else cache) / name
    # Some servers would unpack or repack a .gz on the way, which changes its SHA-256.
    downloader = pooch.HTTPDownloader(headers={"Accept-Encoding": "identity"}, timeout=(10, 30))
    failures = []
    for mirror in mirrors:
        fetcher = pooch.create(folder, base_url=mirror, registry=dict(checksums), retry_if_failed=retries)
        try:
            for file_name in checksums:
                fetcher.fetch(file_name, downloader=downloader)
        except (OSError, ValueError) as error:  # no answer or a bad one; a wrong SHA-256
            failures.append(f"{mirror}: {_one_line(error)}")
        else:
            return folder
    raise OSError(
        f"cannot download {name} into {folder} ({'; '.join(failures)}). Try again later, or fetch "
        f"{', '.join(checksums)} yourself and pass their folder as data_dir (--data-dir)."
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    # Long ones say at the start which file it was and at the end why.
    return text if len(text) <= 160 else f"{text[:60]} ... {text[-95:]}"
