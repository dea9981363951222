"""Copies of what lies in the checkout, for tests to change."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a folder and of those in it, but not their modes: a checkout may be read-only."""
    for path in source.rglob("*"):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
