"""Images as the data of a command: their options, what a run keeps of them, and predictions for images."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.commands.arguments import UsageError, whole
from xpnet.commands.report import say
from xpnet.data.dataset import Dataset
from xpnet.data.image_files import images_in
from xpnet.datasets.images import ImageFolder, ImageFormat, as_mnist, check_pillow, said_of
from xpnet.datasets.mnist import FIGURE_SIDES
from xpnet.network.blocks import predict_in_blocks
from xpnet.network.network import Network
from xpnet.specs import from_spec, values_of
from xpnet.tables.decisions import Decision
from xpnet.tables.files import FOLDER_ENDS, Names, called, each, is_images
from xpnet.tables.model import by_class

FORM = "a folder that holds a folder of images for each class"


def add_images(group: argparse._ActionsContainer) -> None:
    """Add --image-size."""
    group.add_argument(
        "--image-size",
        type=whole(1),
        metavar="SIDE",
        help="of a folder of images: pixels of height and width that all are resized to (default: their own size if it "
        "is one and at most 64x64, else 32)",
    )


def check_images(arguments: argparse.Namespace) -> None:
    """Refuse a single image, and the options of images for other data; raises UsageError."""
    names = arguments.dataset
    if not is_images(names):
        if arguments.image_size is not None:
            raise UsageError(f"--image-size goes with {FORM}, not with {called(names)}; leave it out")
        return
    if isinstance(names, list) or not names.endswith(FOLDER_ENDS):
        raise UsageError(f"--dataset {called(names)} is an image; it must be {FORM}; name that folder")
    check_pillow()


def read_images(
    folder: str, side: int | None, kept: dict[str, Any] | None
) -> tuple[Dataset, ImageFormat, dict[str, Any], list[Decision]]:
    """Return the images of a folder, their format, what a run keeps of both, and what was decided.

    side: pixels asked for, None for what suits.  kept: of the run's config.json, None for a new run.
    Raises ValueError for other files than those of the run, of which some were held out by their order.
    """
    check_pillow()
    form = None if kept is None else format_of(kept)
    found = ImageFolder.of(folder, None if form is None else form.classes)
    files = _digest(folder, found)
    if kept is not None and kept.get("files", files) != files:
        raise ValueError(
            f"{folder} holds other images than those of the run, by their names, so that those held out cannot be "
            "told; restore them, or train again"
        )
    is_new, form = form is None, form or found.format(side)
    dataset, failures = found.dataset(form)
    name, said = Path(folder).name, list[Decision]()
    if is_new:
        found_as = f"{dataset.n_samples} images of {len(form.classes)} classes"
        said.append(Decision(name, found_as, f"each is {form}", "--image-size", False))
    if failures:
        said.append(Decision(name, said_of(failures), "left out"))
    return dataset, form, values_of(form) | {"classes": list(form.classes), "files": files}, said


def _digest(folder: str, found: ImageFolder) -> str:
    """Return a hash of the names of a folder's images, in order."""
    names = "\0".join(os.path.relpath(path, folder) for path in found.paths)
    return hashlib.sha256(os.fsencode(names)).hexdigest()


def read_other_images(folder: str, form: ImageFormat) -> Dataset:
    """Return the images of another folder, as those of the training were read."""
    dataset, failures = ImageFolder.of(folder, form.classes).dataset(form)
    if failures:
        say(f"xpnet: {said_of(failures)}")
    return dataset


def format_of(kept: dict[str, Any]) -> ImageFormat:
    """Return the format that a run keeps in its config.json; raises ValueError for a bad one."""
    try:
        classes = kept["classes"] if isinstance(kept, dict) else None
        if not isinstance(classes, list):
            raise ValueError(f"it has the classes {shown(classes)}")
        given = {name: value for name, value in kept.items() if name != "files"} | {"classes": tuple(classes)}
        form: ImageFormat = from_spec(ImageFormat, given, "type", "format of images")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the images of the run: {error}; train again, or restore config.json") from None
    return form


def predict_images(network: Network, names: Names, data: dict[str, Any], as_labels: bool) -> dict[str, Any]:
    """Return the columns of predictions for images: the file, its label, and unless as_labels what each class is given.

    names: of images, or of folders with some.  data: that section of the run's config.json.
    """
    check_pillow()
    paths = [path for name in each(names) for path in _files(name)]
    rows, classes = _rows_of(paths, data)
    if rows.shape[1] != network.architecture.n_inputs:
        raise ValueError(
            f"the images have {rows.shape[1]} pixels and the network takes {network.architecture.n_inputs} inputs; "
            "restore config.json, or train again"
        )
    backend, scale = network.backend, data.get("scale") or 1 / 255

    def ready(block: np.ndarray) -> Any:
        return backend.to_device(np.multiply(block, scale, dtype=backend.dtype))

    labels = predict_in_blocks(backend, network.classify, rows, ready).reshape(-1)
    columns: dict[str, Any] = {"file": paths, "label": np.array(classes)[labels]}
    if as_labels:
        return columns
    return columns | by_class(network, predict_in_blocks(backend, network.predict, rows, ready), classes)


def check_images_for(arguments: argparse.Namespace, data: dict[str, Any]) -> None:
    """Refuse images for a run that takes none.  data: that section of its config.json; raises UsageError."""
    if arguments.input is None or not is_images(arguments.input):
        return
    run, has_folder = arguments.directory, data.get("images") is not None
    if arguments.command == "evaluate" and not has_folder:
        raise UsageError(
            f"{run} was not trained on {FORM}, and {called(arguments.input)} is one; leave it out, or name a run on one"
        )
    if not has_folder and data.get("dataset") not in FIGURE_SIDES:
        raise UsageError(
            f"{run} was not trained on images, and {called(arguments.input)} is one, or holds some; name a file such "
            f"as the run was trained on, or a run on {FORM}"
        )


def _rows_of(paths: list[str], data: dict[str, Any]) -> tuple[np.ndarray, Sequence[Any]]:
    """Return files as rows (n, n_features) uint8, as those of a run's training were, and the names of its classes."""
    if data.get("images") is not None:
        form = format_of(data["images"])
        rows, failures = form.rows(paths)
        if failures:
            raise ValueError(f"{len(failures)} of {len(paths)} files cannot be read: {next(iter(failures.values()))}")
        return rows, form.classes
    found = [as_mnist(path, FIGURE_SIDES[data["dataset"]]) for path in paths]
    n = sum(is_negative for _, is_negative in found)
    if n:
        of = "it is made a negative" if len(paths) == 1 else f"{n} of {len(paths)} images are made negatives"
        say(f"xpnet: dark on light, where those of the training are light on dark: {of}")
    return np.array([pixels for pixels, _ in found]), range(10)


def _files(name: str) -> list[str]:
    if not os.path.isdir(name):
        if not os.path.exists(name):
            raise FileNotFoundError(f"there is no file {name}; name an image, or a folder of images")
        return [name]
    return images_in(name)
