"""Files of images, by their names alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def is_image(name: str | os.PathLike[str]) -> bool:
    """Whether a file's name is that of an image."""
    return os.fspath(name).lower().endswith(SUFFIXES)


def holds_images(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder, or one in it, holds an image."""
    return os.path.isdir(folder) and (_has_image(folder) or any(_classes_in(folder)))


def holds_classes(folder: str | os.PathLike[str]) -> bool:
    """Whether two folders in this one hold an image."""
    return len(list(islice(_classes_in(folder), 2))) == 2


def _classes_in(folder: str | os.PathLike[str]) -> Iterator[str]:
    return (entry.path for entry in entries_of(folder) if entry.is_dir() and _has_image(entry.path))


def _has_image(folder: str | os.PathLike[str]) -> bool:
    with os.scandir(folder) as entries:  # up to the first one: a class may have many
        return any(is_image(entry.name) and not entry.name.startswith(".") for entry in entries)


def images_in(folder: str | os.PathLike[str]) -> list[str]:
    """Return the images in a folder and in those within, by their names; links to folders are left out."""
    found = []
    for entry in entries_of(folder):
        if entry.is_dir(follow_symlinks=False):  # a link may lead back
            found += images_in(entry.path)
        elif is_image(entry.name):
            found.append(entry.path)
    return found


def entries_of(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
