"""A network as a page of Python that needs NumPy alone: each kernel a function, each layer a line that calls it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any

import numpy as np

from xpnet.exporting.subject import EACH, ONE_OF, VALUES, Subject, in_quotes
from xpnet.exporting.trace import Line, Trace, trace_of
from xpnet.program.calls import Operand

MOST_LINES = 200
# How NumPy says each word; the others are functions of these names.
_WORDS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "greater": "np.greater({0}, {1}).astype(DTYPE)",
    "matmul": "{0} @ {1}",
    "sum": "{0}.sum(axis={axis}, keepdims=True)",
    "max": "{0}.max(axis={axis}, keepdims=True)",
}
_HEAD = '''\
"""Predictions of {network}, by NumPy alone.

    from {stem} import predict

Written by xpnet from the recorded calls. It reads {stem}.npz, which must lie beside it.
"""

from pathlib import Path

import numpy as np

DTYPE, N_INPUTS = np.{dtype}, {n_inputs}
with np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False) as _file:
    T = {{name: _file[name] for name in _file.files}}
'''
_FORWARD = '''\
@np.errstate(over="ignore")
def forward(X):
    """Return the last layer's output (n_samples, {n}) of rows X (n_samples, {n_inputs})."""
    X = rows(X)
{lines}
    return {output}
'''
_PREDICT = '''\
@np.errstate(over="ignore")
def predict(X):
    """Return {called} (n_samples, {n_outputs}) of rows X (n_samples, {n_inputs})."""
    {output} = forward(X)
{lines}
    return {result}
'''
_CLASSIFY = '''\
def classify(X):
    """Return {what} of each row of X (n_samples, {n_inputs})."""
    Z = forward(X)
    return {found}
'''
_ROWS = '''\
def rows(X):
    """Return X as the network takes it; raises ValueError for rows of another length."""
    X = np.asarray(X)
    if X.ndim != 2 or X.shape[1] != N_INPUTS:
        raise ValueError(f"X is {{X.shape}}; it must be (n_samples, {{N_INPUTS}}); give one sample per row")
    return {rows}
'''


def numpy_page(subject: Subject, stem: str) -> tuple[bytes, bytes]:
    """Return the page and the file of arrays that it reads; raises ValueError for a page that is too long.

    stem: the name of both files, without suffix.
    """
    trace = trace_of(subject)
    text = "\n\n".join(_parts(subject, trace, stem))
    n_lines = text.count("\n")
    if n_lines > MOST_LINES:
        raise ValueError(
            f"the network has {len(subject.network.layers)} layers, and its page would take {n_lines} lines; it may "
            f"have {MOST_LINES}; export it to c or onnx"
        )
    arrays = trace.arrays | ({"classes": np.array(subject.classes)} if subject.kind == ONE_OF else {})
    return text.encode(), _npz(arrays)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    """Return a file of arrays by name, the same bytes for the same arrays."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())
    return made.getvalue()


def _parts(subject: Subject, trace: Trace, stem: str) -> Iterator[str]:
    """Yield the parts of the page."""
    network, sizes = subject.network, {"n_inputs": subject.n_inputs, "n_outputs": subject.n_outputs}
    facts = {"network": in_quotes(network.architecture), "dtype": network.backend.dtype}
    yield _HEAD.format(stem=in_quotes(stem), **facts, **sizes)
    blocks = _blocks(trace)
    functions = _functions(blocks)
    yield from (function.text for function in functions.values())
    says = [functions[block.key].call(block) for block in blocks]
    n_before = sum(block.start < trace.n_forward for block in blocks)
    output, result = _name(trace.output), _name(trace.prediction)
    names = {"n": network.architecture.n_outputs, "called": subject.called, "output": output, **sizes}
    yield _FORWARD.format(lines=_indented(says[:n_before]), **names)
    pair = f"np.hstack([1 - {result}, {result}])" if subject.is_pair else result
    yield _PREDICT.format(lines=_indented(says[n_before:]), result=pair, **names).replace("\n\n", "\n")
    if subject.kind != VALUES:
        yield _CLASSIFY.format(**_classes(subject), **sizes)
    yield _ROWS.format(rows=_taken(subject))


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _taken(subject: Subject) -> str:
    """Return what of rows X the network takes."""
    if subject.scale is None:
        return "X.astype(DTYPE)"
    return f"X.astype(DTYPE) * DTYPE({subject.scale!r}) if X.dtype == np.uint8 else X.astype(DTYPE)"


def _classes(subject: Subject) -> dict[str, str]:
    """Return what `classify` finds, and how."""
    threshold = "np.inf" if np.isinf(subject.threshold) else repr(subject.threshold)
    if subject.kind == EACH:
        return {"what": "which labels (n_samples, n_labels) are there", "found": f"(Z > {threshold}).astype(int)"}
    place = "Z.argmax(axis=1)" if subject.network.architecture.n_outputs > 1 else f"(Z[:, 0] > {threshold}).astype(int)"
    return {"what": "the class (n_samples,)", "found": f'T["classes"][{place}]'}


@dataclass(frozen=True)
class _Block:
    """Lines of one kernel.

    start: the place of the first.  read: names from outside, in order.  results: names of what is read after them.
    """

    start: int
    lines: tuple[Line, ...]
    read: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def key(self) -> Any:
        """Equal for blocks that one function serves."""
        made = [*self.read, *(line.out for line in self.lines)]
        places = {name: place for place, name in enumerate(made)}
        said = [
            (
                *(line.call.kernel, line.call.word, line.axis, line.turned),
                *(places[each] if isinstance(each, str) else "number" for each in line.inputs),
            )
            for line in self.lines
        ]
        return (*said, *(places[name] for name in self.results))

    @property
    def numbers(self) -> list[float]:
        """The numbers in the lines, in order."""
        return [each for line in self.lines for each in line.inputs if not isinstance(each, str)]


def _blocks(trace: Trace) -> list[_Block]:
    """Cut the lines where another kernel begins, a layer, or the link."""
    starts = [
        i
        for i, line in enumerate(trace.lines)
        if i in (0, trace.n_forward) or line.call.word == "matmul" or line.call.kernel != trace.lines[i - 1].call.kernel
    ]
    blocks = []
    for start, stop in zip(starts, [*starts[1:], len(trace.lines)], strict=True):
        lines = trace.lines[start:stop]
        made = {line.out: None for line in lines}
        read = dict.fromkeys(name for line in lines for name in line.inputs if isinstance(name, str))
        after = {name for line in trace.lines[stop:] for name in line.inputs} | {trace.output, trace.prediction}
        results = tuple(name for name in made if name in after)
        blocks.append(_Block(start, lines, tuple(name for name in read if name not in made), results))
    return blocks


@dataclass(frozen=True)
class _Function:
    """A function of the page.  varying: places of the numbers that are arguments, as its blocks differ in them."""

    name: str
    text: str
    varying: tuple[int, ...]

    def call(self, block: _Block) -> str:
        """Return the line that calls it for a block."""
        given = [f'T["{name}"]' if name.startswith("layers.") else _name(name) for name in block.read]
        given += [_number(block.numbers[place]) for place in self.varying]
        return f"{', '.join(map(_name, block.results))} = {self.name}({', '.join(given)})"


def _functions(blocks: Sequence[_Block]) -> dict[Any, _Function]:
    """Return the function of each kind of block, by its key."""
    functions, taken = dict[Any, _Function](), {"forward", "predict", "classify", "rows", "np", "Path"}
    for block in blocks:
        if block.key in functions:
            continue
        alike = [other.numbers for other in blocks if other.key == block.key]
        varying = tuple(place for place, numbers in enumerate(zip(*alike, strict=True)) if len(set(numbers)) > 1)
        kernel = re.sub(r"\W", "", block.lines[0].call.kernel)
        name = next(name for name in _numbered(kernel) if name not in taken and not iskeyword(name))
        taken.add(name)
        functions[block.key] = _Function(name, _function(name, block, varying), varying)
    return functions


def _function(name: str, block: _Block, varying: Sequence[int]) -> str:
    """Return the text of a function."""
    called = dict[str, str]()  # by buffer: a later value of the same buffer takes its name over
    known = dict[str, str]()
    for line in block.lines:
        for each, operand in zip(line.inputs, line.call.inputs, strict=True):
            if isinstance(operand, Operand) and each in block.read and each not in known:
                known[str(each)] = _local(operand.buffer.name, called)
    numbers = [f"number{place}" if place in varying else _number(each) for place, each in enumerate(block.numbers)]
    arguments = [*(known[each] for each in block.read), *(numbers[place] for place in varying)]
    lines = [f"def {name}({', '.join(arguments)}):", f'    """{in_quotes(block.lines[0].call.equation)}"""']
    left = iter(numbers)
    for line in block.lines:
        values = [known[each] if isinstance(each, str) else next(left) for each in line.inputs]
        values = [f"{value}{'.T' * turned}" for value, turned in zip(values, line.turned, strict=True)]
        known[line.out] = _local(line.call.out.buffer.name, called)
        said = _WORDS.get(line.call.word, f"np.{line.call.word}({', '.join(values)})")
        lines.append(f"    {known[line.out]} = {said.format(*values, axis=line.axis)}")
    return "\n".join([*lines, f"    return {', '.join(known[each] for each in block.results)}", ""])


def _number(value: float) -> str:
    return repr(value) if np.isfinite(value) else f'float("{value}")'


def _local(buffer: str, called: dict[str, str]) -> str:
    """Return the name of a buffer inside a function, without the number of its layer."""
    if buffer not in called:
        plain = re.sub(r"\W|\d", "", buffer.removesuffix("^T").partition(" ")[0]) or "v"
        called[buffer] = next(name for name in _numbered(plain) if name not in called.values())
    return called[buffer]


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 10_000):
        yield f"{name}_{number}"


def _name(value: str) -> str:
    """Return the name of a value on the page: a later value of a buffer takes its name over."""
    return re.sub(r"\W", "_", value.partition(".")[0])
