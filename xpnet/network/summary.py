"""A network as a table: its layers with their outputs, parameters and operations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from xpnet.backend import Backend
from xpnet.checks import shown
from xpnet.network.architecture import Architecture
from xpnet.network.layers import Activation
from xpnet.network.programs import inference_program
from xpnet.rows import as_html, as_text

__all__ = ["summary"]


class Described(Protocol):
    """A `Network`, of which the table tells."""

    architecture: Architecture
    backend: Backend


HEADER = ("layer", "outputs", "weights", "parameters", "FLOPs")


@dataclass(frozen=True)
class Summary:
    """The table, which shows itself at a prompt and in a notebook, and is printed by `print`.

    title: the network in a line.  rows: one of the inputs, one a layer, and their sums.
    """

    title: str
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        return f"{self.title}\n{as_text(HEADER, self.rows)}"

    def _repr_html_(self) -> str:
        return as_html(self.title, HEADER, self.rows)


def summary(network: Described) -> Summary:
    """Return the network's layers as a table: `print(xpnet.summary(network))`.

    Parameters are numbers that training changes. FLOPs are those of a prediction for one sample, before the loss's
    link: 2 for a weight, one for each element of any other call.
    """
    if not isinstance(getattr(network, "architecture", None), Architecture):
        raise TypeError(
            f"network is {shown(network)} ({type(network).__name__}); it must be a Network; pass "
            "xpnet.Network.load(file), or model.network of a TableModel"
        )
    architecture = network.architecture
    rows: list[tuple[str, ...]] = [("inputs", f"{architecture.n_inputs:,}", "", "", "")]
    n_outputs, counts, flops = architecture.n_inputs, [], layer_flops(architecture)
    for layer, n_flops in zip(architecture.layers, flops, strict=True):
        name = layer.name if isinstance(layer, Activation) else layer.type
        n_outputs = layer.output_size(n_outputs)
        shapes = layer.parameter_shapes()
        counts.append(sum(n_rows * n_columns for n_rows, n_columns in shapes.values()))
        weights = [" x ".join(map(str, shapes[each])) for each in layer.matrices]
        cells = (f"{count:,}" if count else "" for count in (counts[-1], n_flops))
        rows.append((name, f"{n_outputs:,}", ", ".join(weights), *cells))
    rows.append(("sum", "", "", f"{sum(counts):,}", f"{sum(flops):,}"))
    backend = network.backend
    return Summary(f"{architecture}; {backend.dtype} on {backend.device}", tuple(rows))


def layer_flops(architecture: Architecture) -> list[int]:
    """Return the operations of each layer in a prediction for one sample; 0 of one that only trains."""
    program, ends = inference_program(architecture, 1, "activations"), [0]
    for i, _ in enumerate(architecture.layers):
        output = program.buffers[f"output{i}"]
        made = [k for k, call in enumerate(program.calls) if call.out.buffer.overlaps(output)]
        ends.append(max([ends[-1], *(k + 1 for k in made)]))
    return [sum(call.flops for call in program.calls[start:end]) for start, end in pairwise(ends)]
