"""`coefs_` and `intercepts_` of an estimator: lists of arrays that can be read, changed in place and assigned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


class LayerArrays(list[Any]):
    """One array a layer; an item that is assigned is written into the network.  Copies and pickles are plain lists."""

    def __init__(self, arrays: Iterable[Any], put: Callable[[int, Any], None]) -> None:
        super().__init__(arrays)
        self._put = put

    def __setitem__(self, layer: Any, array: Any) -> None:
        for index, new in zip(
            range(len(self))[layer] if isinstance(layer, slice) else (range(len(self))[layer],),
            array if isinstance(layer, slice) else (array,),
            strict=True,
        ):
            self._put(index, new)

    def __reduce__(self) -> Any:
        return list, (list(self),)


class Weights:
    """The attribute of an estimator for its weights or its biases.

    Before the first fit it holds what was assigned, with which partial_fit and a warm start begin.
    kind: "weights" or "biases" of the network's parameters.
    """

    def __init__(self, kind: str) -> None:
        self._kind, self._name = kind, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, estimator: Any, owner: Any = None) -> Any:
        if estimator is None:
            return self
        if "network_" not in vars(estimator) and self._name in vars(estimator).get("_given", ()):
            return estimator._given[self._name]
        to_host, inside = estimator._fitted.backend.to_host, self._inside(estimator)
        arrays = [to_host(W).T if self._kind == "weights" else to_host(W).reshape(-1) for W in inside]
        return LayerArrays(arrays, lambda layer, array: self._put(estimator, layer, array))

    def __set__(self, estimator: Any, arrays: Any) -> None:
        if "network_" not in vars(estimator):
            vars(estimator).setdefault("_given", {})[self._name] = arrays
            return
        inside = self._inside(estimator)
        if len(arrays) != len(inside):
            raise ValueError(
                f"{self._name} has {len(arrays)} arrays, and the network has {len(inside)} layers; give one array a "
                f"layer, such as [array.copy() for array in estimator.{self._name}]"
            )
        checked = [self._checked(estimator, layer, array) for layer, array in enumerate(arrays)]
        for layer, array in enumerate(checked):
            self._put(estimator, layer, array)

    def _inside(self, estimator: Any) -> Any:
        return getattr(estimator._fitted.parameters, self._kind)

    def _checked(self, estimator: Any, layer: int, array: Any) -> np.ndarray:
        """Return an array of the right shape; raises ValueError for another."""
        array, needed = np.asarray(array, np.float64), self._inside(estimator)[layer].shape
        needed = needed[::-1] if self._kind == "weights" else needed[:1]
        if array.shape != needed:
            raise ValueError(
                f"{self._name}[{layer}] is {array.shape}, and the network's is {needed}; give an array of this shape, "
                "or fit a new estimator with other hidden_layer_sizes"
            )
        return array

    def _put(self, estimator: Any, layer: int, array: Any) -> None:
        found = self._checked(estimator, layer, array)
        found = found.T if self._kind == "weights" else found.reshape(-1, 1)
        self._inside(estimator)[layer][...] = estimator.network_.backend.to_device(found)


def take_given(estimator: Any, begins: bool) -> None:
    """Put into a new network what was assigned before it, if it begins with that; forget it otherwise."""
    given = vars(estimator).pop("_given", {})
    for name, arrays in given.items():
        if begins:
            setattr(estimator, name, arrays)
