"""A network as one C99 header: the launches of its recorded predictions as loops, for one row at a time.

The words are those of `xpnet.engines.c_text`, which prints the kernels of a GPU too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xpnet.checks import one_line
from xpnet.engines.c_text import WordPrinter, WorkerPrinter, helpers
from xpnet.exporting.subject import EACH, VALUES, Subject
from xpnet.exporting.trace import n_forward_calls, predicting
from xpnet.program.calls import Buffer, Program
from xpnet.program.grouping import Group, launches, workers
from xpnet.program.places import place_of
from xpnet.program.sizes import Sizes

_PER_LINE = 8  # numbers of the table of parameters
_SUMS = 8  # that a product adds up side by side, so that a compiler can use vector instructions
_PAGE = """\
/* Predictions of {network}.
 *
 * {use}
 *
 * Written by xpnet from the recorded calls. C99, without allocation; it needs math.h alone.
 */
#ifndef {NAME}_H
#define {NAME}_H

#include <math.h>

#define {NAME}_INPUTS {n_inputs}
#define {NAME}_OUTPUTS {n_outputs}

{helpers}
/* C = A B^T of one row: C[j] is the sum over i of A[i] B[j n_in + i]. */
static inline void {name}_product(const real *A, const real *B, real *C, int n_in, int n_out) {{
  for (int j = 0; j < n_out; ++j, B += n_in) {{
    real sums[{sums}] = {{0}}, total = 0;
    int i = 0;
    for (; i + {sums} <= n_in; i += {sums}) {{
      for (int k = 0; k < {sums}; ++k) sums[k] += A[i + k] * B[i + k];
    }}
    for (; i < n_in; ++i) total += A[i] * B[i];
    for (int k = 0; k < {sums}; ++k) total += sums[k];
    C[j] = total;
  }}
}}

static const real {name}_parameters[] = {{
{parameters}
}};

/* M: the buffers of one row, whose inputs are there; y receives the predictions. */
static inline {returns} {name}_run(real *M, real *y) {{
  const real *const T = {name}_parameters;
{lines}
{outputs}
}}

static inline {returns} {name}_predict(const real *x, real *y) {{
  real M[{n_floats}];
  for (int i = 0; i < {n_inputs}; ++i) M[{start} + i] = x[i];
  {result}{name}_run(M, y);
}}
{more}
#endif
"""
_BYTES = """
/* x: bytes, which are scaled as those of the training. */
static inline {returns} {name}_predict_bytes(const unsigned char *x, real *y) {{
  real M[{n_floats}];
  for (int i = 0; i < {n_inputs}; ++i) M[{start} + i] = x[i] * {scale};
  {result}{name}_run(M, y);
}}
"""
_LABEL = """
/* The name of a class by its place, as {name}_predict returns it. */
static inline const char *{name}_label(int place) {{
  static const char *const labels[] = {{{labels}}};
  return labels[place];
}}
"""


def c_header(subject: Subject, stem: str) -> bytes:
    """Return the header.  stem: the name of the file without suffix, with which all its names begin."""
    return _text(subject, _identifier(stem)).encode("ascii", "replace")


def _text(subject: Subject, name: str) -> str:
    program = _with_output(predicting(subject.network.architecture, 1), subject)
    found = launches(program, share=False)
    printer = WordPrinter(program, Sizes(program, found), subject.network.backend.dtype)
    lines = [line for launch in found for group in launch.groups for line in _loop(printer, program, group, name)]
    facts = {
        "name": name,
        "NAME": name.upper(),
        "n_inputs": subject.n_inputs,
        "n_floats": program.n_floats - program.n_owned,
        "start": place_of(program, program.gathers[0][1]).start,
        "returns": "void" if subject.kind in (VALUES, EACH) else "int",
        "result": "" if subject.kind in (VALUES, EACH) else "return ",
    }
    more = _BYTES.format(scale=printer.literal(subject.scale), **facts) if subject.scale is not None else ""
    if subject.kind != VALUES:
        more += _LABEL.format(name=name, labels=", ".join(_quoted(str(label)) for label in subject.classes))
    text = _PAGE.format(
        network=one_line(subject.network.architecture, 100).replace("*/", "* /"),
        use=_use(subject, name),
        n_outputs=subject.n_outputs,
        helpers=helpers("static inline"),
        sums=_SUMS,
        parameters="\n".join(_numbers(printer, subject)),
        lines="\n".join(f"  {line}" for line in lines),
        outputs="\n".join(f"  {line}" for line in _outputs(printer, program, subject)),
        more=more,
        **facts,
    )
    types = {"real": "float" if printer.dtype == np.float32 else "double", "integer": "int"}
    text = re.sub(r"\b(real|integer)\b", lambda found: types[found[0]], text)
    return re.sub(r"\b(larger|smaller|sign)(?=\()", rf"{name}_\1", text)


def _last(program: Program, subject: Subject) -> Buffer:
    """Return the buffer of the last layer's output, by which the class is chosen."""
    return program.calls[n_forward_calls(subject.network.architecture) - 1].out.buffer


def _with_output(program: Program, subject: Subject) -> Program:
    """Return the Program with the last layer's output among its own, so that it is written."""
    return replace(program, outputs=(*program.outputs, _last(program, subject).name))


def _use(subject: Subject, name: str) -> str:
    sizes = f"{name.upper()}_INPUTS", f"{name.upper()}_OUTPUTS"
    said = f"{name}_predict(x, y) reads a row x of {sizes[0]} numbers and writes {sizes[1]} {subject.called} to y"
    return f"{said}, and returns the place of the class." if subject.kind not in (VALUES, EACH) else f"{said}."


def _numbers(printer: WordPrinter, subject: Subject) -> Iterator[str]:
    """Yield the lines of the table of parameters, theta and the running statistics."""
    network = subject.network
    texts = [printer.literal(value)[1:-1] for value in network.backend.to_host(network.owned)]
    texts = ["0" if float(text.rstrip("f")) == 0.0 else text for text in texts]
    for start in range(0, len(texts), _PER_LINE):
        yield "  " + ", ".join(texts[start : start + _PER_LINE]) + ","


def _loop(printer: WordPrinter, program: Program, group: Group, name: str) -> list[str]:
    """Return the lines of a group: a loop over its workers, or a product."""
    if group.kind != "product":
        lines = WorkerPrinter(printer, group).lines()
        return [f"for (integer w = 0; w < {workers(program, group)}; ++w) {{", *(f"  {line}" for line in lines), "}"]
    call = program.calls[group.steps[0].index]
    left, right = call.operands
    assert right.transposed and not left.transposed  # Z = W A of one sample, as it lies in memory
    places = [place_of(program, each.buffer) for each in (left, right, call.out)]
    A, B, C = (f"{place.memory} + {place.start}" for place in places)
    return [f"{name}_product({A}, {B}, {C}, {left.shape[1]}, {right.shape[0]}); // {call.text}"]


def _outputs(printer: WordPrinter, program: Program, subject: Subject) -> list[str]:
    """Return the lines that hand over the predictions, and choose the class."""
    n, first = subject.network.architecture.n_outputs, place_of(program, program.buffers["output0"]).start
    lines = [f"for (int i = 0; i < {n}; ++i) y[i] = M[{first} + i];"]
    if subject.is_pair:
        lines = [f"y[0] = 1 - M[{first}];", f"y[1] = M[{first}];"]
    if subject.kind in (VALUES, EACH):
        return lines
    Z = place_of(program, _last(program, subject)).start
    if n == 1:
        threshold = "HUGE_VAL" if np.isinf(subject.threshold) else printer.literal(subject.threshold)
        return [*lines, f"return M[{Z}] > {threshold};"]
    lines += ["int best = 0;", f"for (int i = 1; i < {n}; ++i) if (M[{Z} + i] > M[{Z} + best]) best = i;"]
    return [*lines, "return best;"]


def _identifier(stem: str) -> str:
    found = re.sub(r"[^0-9A-Za-z_]", "_", stem)
    return found if found[:1].isalpha() else f"model_{found}"


def _quoted(text: str) -> str:
    """Return a text as a string of C, in ASCII."""
    plain = {chr(code) for code in range(32, 127)} - set('"?\\')  # ?? would begin a trigraph
    signs = [sign if sign in plain else "".join(f"\\{byte:03o}" for byte in sign.encode()) for sign in text]
    return f'"{"".join(signs)}"'
