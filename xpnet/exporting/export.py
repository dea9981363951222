"""`xpnet.export`: a model in the form of another program, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import check_option, check_path, shown
from xpnet.exporting.c_header import c_header
from xpnet.exporting.keras_layers import keras_file
from xpnet.exporting.numpy_text import numpy_page
from xpnet.exporting.onnx_model import onnx_model
from xpnet.exporting.subject import Subject, subject_of
from xpnet.exporting.torch_modules import torch_files
from xpnet.files import write_atomically

__all__ = ["export"]


def _as_numpy(subject: Subject, path: Path, opset: int | None) -> dict[Path, bytes]:
    page, arrays = numpy_page(subject, path.stem)
    return {path.with_suffix(".npz"): arrays, path: page}


def _as_c(subject: Subject, path: Path, opset: int | None) -> dict[Path, bytes]:
    return {path: c_header(subject, path.stem)}


def _as_onnx(subject: Subject, path: Path, opset: int | None) -> dict[Path, bytes]:
    return {path: onnx_model(subject, opset)}


def _as_torch(subject: Subject, path: Path, opset: int | None) -> dict[Path, bytes]:
    page, state = torch_files(subject, path.stem)
    return {path.with_suffix(".py"): page, path: state}


def _as_keras(subject: Subject, path: Path, opset: int | None) -> dict[Path, bytes]:
    return {path: keras_file(subject)}


@dataclass(frozen=True)
class Format:
    """A form that models are written in.

    suffix: of its file.  about: what it is, for help.
    content: from what is exported, the path and an opset to the bytes of each file.
    beside: suffixes of the files that are written beside it.  takes_tables: whether raw rows of a table go in.
    """

    suffix: str
    about: str
    content: Callable[[Subject, Path, int | None], dict[Path, bytes]]
    beside: tuple[str, ...] = ()
    takes_tables: bool = False


FORMATS = {
    "onnx": Format(".onnx", "for ONNX Runtime; extra: xpnet[onnx]", _as_onnx, takes_tables=True),
    "torch": Format(
        ".safetensors", "a state_dict of PyTorch, and the lines that build its module", _as_torch, (".py",)
    ),
    "keras": Format(".keras", "for keras.models.load_model; extra: xpnet[keras]", _as_keras),
    "numpy": Format(".py", "a page of Python that needs NumPy alone", _as_numpy, (".npz",)),
    "c": Format(".h", "a C99 header that needs math.h alone", _as_c),
}


def export(
    model: Any,
    path: str | os.PathLike[str],
    to: str | None = None,
    *,
    scale: float | None = None,
    classes: Sequence[Any] | None = None,
    opset: int | None = None,
) -> tuple[Path, ...]:
    """Write a model as files that need no xpnet, and return their paths.

    model: a `Network`, a `TableModel` or a fitted estimator.  path: of the file, which must not exist.
    to: "onnx" (raw rows of a table go in), "torch" (a state_dict in safetensors, and a .py beside it that builds the
    module), "keras", "numpy" (a .py, and its arrays in a .npz beside it) or "c" (a header); None goes by the suffix.
    scale: the factor of rows of bytes, None for that of the network's training.
    classes: the names of a network's classes, in order of its outputs; None for numbers, or those of an estimator.
    opset: the version of ONNX's operators, None for 18.
    Raises FileExistsError, or ValueError for what a format does not have.
    """
    path = Path(check_path("path", path, 'xpnet.export(network, "model.py")'))
    form_name = _format_of(path, to)
    form = FORMATS[form_name]
    if opset is not None and form_name != "onnx":
        raise ValueError(
            f"opset is {shown(opset)}, which goes with onnx, and {path} is of {form_name}; leave opset out"
        )
    subject = subject_of(model, scale, classes)
    if subject.table is not None and not form.takes_tables:
        raise ValueError(
            f"the model is of a table, whose raw rows {form.suffix} files do not take; "
            "export it to onnx, or its network alone: of a run xpnet export RUN/model.safetensors, in Python "
            "xpnet.export(model.network, path)"
        )
    wrong = next((name for name, array in subject.arrays.items() if not np.isfinite(array).all()), None)
    if wrong is not None:
        raise ValueError(f"{wrong} holds NaN or infinity, all weights must be finite; train the model again")
    for name in (path, *(path.with_suffix(suffix) for suffix in form.beside)):
        if name.exists() or name.is_symlink():
            raise FileExistsError(f"{name} exists already; what is exported must be a new file; name another")
    return _written(form.content(subject, path, opset))


def _format_of(path: Path, to: str | None) -> str:
    """Return the name of the format that a path or `to` says; raises ValueError where they disagree."""
    if to is None:
        found = [name for name, form in FORMATS.items() if form.suffix == path.suffix.lower()]
        if found:
            return found[0]
        known = ", ".join(f"{form.suffix} ({name})" for name, form in FORMATS.items())
        raise ValueError(
            f"the suffix of {path} is {shown(path.suffix)}, which says no format; it must be one of {known}"
        )
    suffix = FORMATS[check_option("to", to, FORMATS)].suffix
    if path.suffix.lower() != suffix:
        raise ValueError(
            f"{path} is to be a file of {to}, whose name must end in {suffix}; name {path.with_suffix(suffix)}"
        )
    return to


def _written(content: dict[Path, bytes]) -> tuple[Path, ...]:
    """Write files, all or none, and return their paths, the one that was asked for first."""
    done = list[Path]()
    try:
        for path, data in content.items():
            write_atomically(path, data)
            done.append(path)
    except BaseException:
        for path in done:
            path.unlink(missing_ok=True)
        raise
    return tuple(reversed(done))
