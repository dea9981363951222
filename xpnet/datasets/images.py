"""Images as samples: a folder that holds a folder of images for each class, read by Pillow (extra `images`).

An image is one sample, its rows of pixels one after another, each pixel 1 byte (grey) or 3 (red, green, blue).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import check_path, check_whole, one_line, shown
from xpnet.cores import usable_cores
from xpnet.data.dataset import Dataset
from xpnet.data.image_files import entries_of, images_in
from xpnet.files import check_regular

LARGEST = 64 * 64  # pixels of images that are taken as they are, if all have one size
SIDE = 32  # pixels of a side that others are resized to
N_NAMED = 3  # files that a message names
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # modes of Pillow's for grey of 16 bits and more


@dataclass(frozen=True)
class ImageFormat:
    """What all images of a data set are made to be.

    height, width: in pixels.  channels: 1 (grey) or 3 (colours).  classes: their names, by number.
    """

    height: int
    width: int
    channels: int
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels"):
            check_whole(name, getattr(self, name), 1)
        if self.channels not in (1, 3) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(
                f"channels is {self.channels} and classes is {shown(self.classes)}; they must be 1 or 3, and names; "
                "restore them"
            )

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return f"{self.height}x{self.width} pixels, {'grey' if self.channels == 1 else 'in colours'}"

    def pixels(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Return the image (n_features,) uint8 in a file; raises ValueError for a file that is none."""
        return _opened(path, self._pixels)

    def rows(self, paths: Sequence[str]) -> tuple[np.ndarray, dict[str, str]]:
        """Return the images (n, n_features) uint8, and why files are unreadable, by path; their rows are left out."""
        rows, failures = np.empty((len(paths), self.n_features), np.uint8), dict[str, str]()

        def read(place: int) -> bool:
            try:
                rows[place] = self.pixels(paths[place])
            except ValueError as error:
                failures[paths[place]] = str(error)
                return False
            return True

        with ThreadPoolExecutor(usable_cores()) as pool:
            is_read = np.fromiter(pool.map(read, range(len(paths))), bool, len(paths))
        return rows if is_read.all() else rows[is_read], failures

    def _pixels(self, image: Any) -> np.ndarray:
        from PIL import Image

        image = _upright(image, "L" if self.channels == 1 else "RGB")
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(-1)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder that holds a folder for each class.

    paths, labels (n,): the files, and the class of each by number.  classes: the names of the folders.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    @classmethod
    def of(cls, folder: str | os.PathLike[str], classes: Sequence[str] | None = None) -> ImageFolder:
        """Return the images of a folder, in the order of their names.

        classes: those known; None for those of the folder.  Raises ValueError for fewer than two, or other classes.
        """
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"there is no folder {folder}; name one that holds a folder of images a class")
        found = {entry.name: images_in(entry.path) for entry in entries_of(folder) if entry.is_dir()}
        found = {name: paths for name, paths in found.items() if paths}
        known = tuple(found) if classes is None else tuple(classes)
        if len(known) < 2:
            raise ValueError(
                f"{folder} holds {len(known)} folder{'s' * (len(known) != 1)} of images; there must be two at least, "
                "one for each class; sort the images into folders that have the names of the classes"
            )
        others = [name for name in found if name not in known]
        if others or not found:
            raise ValueError(
                f"{folder} holds {f'the class {shown(others[0])}' if others else 'no images'}; it must hold folders "
                f"of {', '.join(map(shown, known[:N_NAMED]))}{', ...' * (len(known) > N_NAMED)}; rename it, or leave "
                "it out"
            )
        paths = [path for name in found for path in found[name]]
        labels = np.repeat([known.index(name) for name in found], [len(found[name]) for name in found])
        return cls(tuple(paths), labels, known)

    def format(self, side: int | None = None) -> ImageFormat:
        """Return the format for these images, by their headers.

        side: pixels of height and width; None for the size of all, if they have one and no more than LARGEST pixels,
        or else for SIDE.
        """
        with ThreadPoolExecutor(usable_cores()) as pool:
            headers = {header for header in pool.map(_header, self.paths) if header is not None}
        sizes, has_colours = {size for size, _ in headers}, any(colours for _, colours in headers)
        width, height = sizes.pop() if len(sizes) == 1 else (SIDE, SIDE)
        if side is not None or width * height > LARGEST:
            width = height = SIDE if side is None else side
        return ImageFormat(height, width, 3 if has_colours else 1, self.classes)

    def dataset(self, form: ImageFormat) -> tuple[Dataset, dict[str, str]]:
        """Return the images as a Dataset, and why files are unreadable, by path; these are left out."""
        rows, failures = form.rows(self.paths)
        if not len(rows):
            raise ValueError(f"no file can be read; the first is {next(iter(failures.values()))}")
        labels = self.labels[[path not in failures for path in self.paths]]
        return Dataset.from_labels(rows.T, labels, len(self.classes)), failures


def load_images(
    folder: str | os.PathLike[str], side: int | None = None, classes: Sequence[str] | None = None
) -> tuple[Dataset, list[str]]:
    """Return (dataset, classes) of a folder that holds a folder of images for each class.

    X (n_features, n_samples) uint8 with scale 1/255, Y (n_classes, n_samples) one-hot, in the order of the names.
    side: pixels of height and width that all images are resized to; None for the size of all, if they have one and no
        more than 4,096 pixels, or else for 32.
    classes: their names in order, to read test images as those of the training; None for those of the folder.
    Warns of files that are unreadable, which are left out. Raises ImportError without Pillow, ValueError for a folder
    with fewer than two classes.
    """
    check_pillow()
    check_path("folder", folder, 'xpnet.datasets.load_images("flowers")')
    found = ImageFolder.of(folder, classes)
    dataset, failures = found.dataset(found.format(None if side is None else check_whole("side", side, 1)))
    if failures:
        warnings.warn(said_of(failures), stacklevel=2)
    return dataset, list(found.classes)


def said_of(failures: dict[str, str]) -> str:
    """Return what is said of files that are unreadable."""
    n, first = len(failures), next(iter(failures.values()))
    return f"{n} file{'s are' if n > 1 else ' is'} unreadable and left out, such as {first}" if n > 1 else first


def check_pillow() -> None:
    """Raise ImportError if Pillow is not installed."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError("images need Pillow, which is not installed. Run: pip install 'xpnet[images]'") from None


def as_mnist(path: str | os.PathLike[str], box: int = 20) -> tuple[np.ndarray, bool]:
    """Return the image (784,) uint8 in a file, prepared as those of MNIST, and whether it was made a negative.

    Their figures are light on dark. An image whose edge is light is made a negative. Of one that is not 28x28 the
    figure is fitted into a box, and its centre of mass is put in the middle.
    box: pixels of the longer side of a figure: 20 of MNIST, 28 of Fashion-MNIST, which keep to the middle.
    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998, section III.A.
    """
    pixels = _opened(path, lambda image: np.asarray(_upright(image, "L"), np.uint8))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    is_negative = bool(np.median(edge) > 127)
    pixels = 255 - pixels if is_negative else pixels
    return (pixels if pixels.shape == (28, 28) else _in_box(pixels, box)).reshape(-1), is_negative


def _in_box(pixels: np.ndarray, box: int) -> np.ndarray:
    """Return an image (28, 28) of the figure in another one, which is light on dark."""
    from PIL import Image

    figure = pixels.astype(float) - np.median(pixels)
    is_figure = figure > max(figure.max() / 4, 1.0)
    if not is_figure.any():
        return np.zeros((28, 28), np.uint8)
    rows, columns = np.flatnonzero(is_figure.any(1)), np.flatnonzero(is_figure.any(0))
    figure = figure[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].clip(0)
    scaled = Image.fromarray(np.uint8(figure * (255.0 / figure.max())))
    height, width = (max(1, round(side * box / max(figure.shape))) for side in figure.shape)
    figure = np.asarray(scaled.resize((width, height), Image.Resampling.LANCZOS), float)
    mass, middle = (figure, 14.0) if box < 28 else (np.ones(figure.shape), 13.5)
    top, left = (
        int(np.clip(round(middle - np.average(np.arange(side), weights=mass.sum(1 - axis))), 0, 28 - side))
        for axis, side in enumerate(figure.shape)
    )
    whole = np.zeros((28, 28), np.uint8)
    whole[top : top + height, left : left + width] = figure.round()
    return whole


def _header(path: str) -> tuple[tuple[int, int], bool] | None:
    """Return the size (width, height) of an upright image, and whether it has colours; None for an unreadable one."""

    def header(image: Any) -> tuple[tuple[int, int], bool]:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        width, height = image.size
        return (height, width) if turned else (width, height), image.mode not in ("1", "L", "LA", *DEEP)

    try:
        return _opened(path, header)
    except ValueError:
        return None


def _opened(path: str | os.PathLike[str], use: Callable[[Any], Any]) -> Any:
    """Return what a function makes of an opened image; raises ValueError in one line if the file is none."""
    from PIL import Image

    try:
        check_regular(Path(path))
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return use(image)
    except Exception as error:  # a hostile file fails in many ways, a link to nowhere in another
        raise ValueError(
            f"{path} is no image that Pillow can read ({one_line(error)}); save it as PNG, or remove it"
        ) from None


def _upright(image: Any, mode: str) -> Any:
    """Return an image turned as its camera says, over white where it is transparent, in a mode of Pillow's."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in DEEP:  # of which 8 bits are kept, by one scale for all files of a type
        values = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode != "F" else 255.0 if values.max(initial=0) > 1 else 1.0
        return Image.fromarray(np.uint8(np.clip(values / top * 255.0, 0, 255).round())).convert(mode)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
