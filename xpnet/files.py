"""Write files atomically, and make values ready for file formats."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file entirely or not at all: write a temporary file beside it, fsync, rename."""
    path = Path(os.path.realpath(path))  # keeps a link and replaces its target
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            # Name the requested file, not the temporary one.
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise


def tensor_bytes(tensors: Mapping[str, np.ndarray], name: str, facts: Any) -> bytes:
    """Return a safetensors file of host arrays, however they lie in memory, and of JSON-ready facts in its metadata.

    name: the only key of the metadata: with more, safetensors writes them in an order that changes from file to file.
    """
    from safetensors.numpy import save  # heavy enough to be imported on use

    # It writes memory as it lies, without regard to strides and order of bytes.
    ready = {key: np.asarray(array, array.dtype.newbyteorder("="), order="C") for key, array in tensors.items()}
    return save(ready, {name: json_text(facts)})


def json_text(value: Any) -> str:
    """Return a value as JSON; numbers of NumPy's are numbers.  Raises TypeError for what JSON does not have."""
    return json.dumps(value, default=_number)


def _number(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no JSON")
