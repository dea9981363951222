"""Store models in one safetensors file: named tensors and the spec, written atomically. Never pickle."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown
from xpnet.files import check_readable, parse_json, tensor_bytes, write_atomically
from xpnet.network.architecture import Architecture
from xpnet.network.inputs import InputRange


def save_model(
    path: str | os.PathLike[str],
    architecture: Architecture,
    tensors: dict[str, np.ndarray],
    inputs: InputRange | None = None,
) -> None:
    """Write the spec and the named tensors (`layers.0.W`, ...) to `path`, replacing it atomically.

    inputs: the range that the features of the training lay in; it stands in the spec.
    """
    known = {} if inputs is None else {"inputs": asdict(inputs)}
    write_atomically(path, tensor_bytes(tensors, "spec", architecture.to_spec() | known))


def load_model(
    path: str | os.PathLike[str], functions: Mapping[str, Any] | None = None
) -> tuple[Architecture, dict[str, np.ndarray], InputRange | None]:
    """Read what `save_model` wrote: architecture, tensors and the range of the inputs.

    functions: custom activations and losses.

    Everything is checked before a tensor is read: the header against the file's size (by safetensors), the names,
    shapes and types against the spec. Raises FileNotFoundError, or ValueError for any other file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}; `Network.save` and `xpnet train` write one")
    check_readable(path)
    try:
        with safe_open(path, framework="numpy") as file:
            architecture, inputs = _read_spec(path, file.metadata(), functions)
            expected = tensor_shapes(architecture)
            _check_tensors(path, file, expected)
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({one_line(error)}); save the model again") from None
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{path}: tensor {name} holds NaN or infinity and must be finite; train the model again")
        if name.endswith("running_variance") and value.min() < 0.0:
            raise ValueError(f"{path}: tensor {name} has negative numbers, a variance has none; train the model again")
    return architecture, tensors, inputs


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Return the shape of every tensor of a model file by name; names contain the layer's index in the spec."""
    layout = architecture.layout
    return {place.path: place.shape for place in (*layout.places, *layout.statistics)}


def _read_spec(
    path: Path, metadata: dict[str, str] | None, functions: Mapping[str, Any] | None
) -> tuple[Architecture, InputRange | None]:
    if not metadata or "spec" not in metadata:
        raise ValueError(
            f"{path} is a safetensors file but not an xpnet model: it has no spec; use a file that `Network.save` wrote"
        )
    try:
        spec = parse_json(metadata["spec"])
    except ValueError:
        raise ValueError(f"{path}: its spec is not readable JSON; use a file that `Network.save` wrote") from None
    inputs = spec.pop("inputs", None) if isinstance(spec, dict) else None
    try:
        return Architecture.from_spec(spec, functions), None if inputs is None else _input_range(inputs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _input_range(found: Any) -> InputRange:
    """Check the range of the inputs that a file tells."""
    try:
        inputs = InputRange(**found)
        numbers = [inputs.low, inputs.high, 1.0 if inputs.scale is None else inputs.scale]
        is_right = all(type(number) is float and math.isfinite(number) for number in numbers)
        if is_right and inputs.low <= inputs.high and numbers[2] > 0.0:
            return inputs
    except TypeError:
        pass
    raise ValueError(
        f"inputs of the spec is {str(found)[:80]!r}, needed are finite numbers low, high and scale; "
        "use a file that `Network.save` wrote"
    )


def _check_tensors(path: Path, file: Any, expected: dict[str, tuple[int, int]]) -> None:
    names = set(file.keys())
    if names != set(expected):
        missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
        raise ValueError(
            f"{path} does not fit its spec: tensors missing {shown(missing[:3])}, not expected {shown(extra[:3])}; "
            "use a file that `Network.save` wrote"
        )
    for name, shape in expected.items():
        part = file.get_slice(name)
        found, dtype = tuple(part.get_shape()), part.get_dtype()
        if found != shape or dtype not in ("F32", "F64"):
            raise ValueError(
                f"{path}: tensor {name} is {dtype} {found}, its spec needs F32 or F64 {shape}; "
                "use a file that `Network.save` wrote"
            )
