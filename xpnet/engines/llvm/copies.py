"""Print the copies around a step: samples of the data into buffers, slots into memory, results out of it."""

from __future__ import annotations

from collections.abc import Iterator

from xpnet.engines.llvm.step import StepPrinter
from xpnet.engines.llvm.text import Function, literal
from xpnet.program.calls import Buffer

LINE_BYTES = 64
AHEAD_BYTES = 30_000  # of samples prefetched while others are gathered


class CopyPrinter:
    """Prints copies for the steps that `step` prints."""

    def __init__(self, step: StepPrinter) -> None:
        self._step, self._program = step, step.plan.program
        self._real, self._type = step.real, step.dtype

    def row(self, f: Function, rows: str, names: tuple[str, ...], step: str, into_memory: bool) -> None:
        """Print, for the first thread, the copy of a row of slots into memory, or of results out of it."""
        if not names:
            return
        with f.when(f.let("icmp eq i64 %thread, 0")):
            place = self._program.buffers[names[0]].offset - self._program.n_owned
            row = f.calculated("mul", step, len(names))
            for i in range(len(names)):
                addresses = f.element(self._real, f"%{rows}", row, i), f.element(self._real, "%M", place, i)
                source, target = addresses if into_memory else addresses[::-1]
                f.do(f"store {self._real} {f.let(f'load {self._real}, ptr {source}')}, ptr {target}")

    def gather(
        self, f: Function, source: str, scale: float | None, buffer: Buffer, rows: tuple[str, str], done: str
    ) -> None:
        """Print the copy of this thread's samples into a buffer, while later samples are prefetched."""
        n, base = buffer.shape[0], self._step.base(f, buffer)
        kind, size = (self._real, self._type.itemsize) if scale is None else ("i8", 1)
        line, last = LINE_BYTES // size, f.let("sub i64 %n_samples, 1")
        with f.loop(*rows) as row:
            place = f.calculated("add", done, row.index)
            ahead = f.calculated("add", place, max(1, AHEAD_BYTES // (n * size)))
            later = f.let(f"call i64 @llvm.smin.i64(i64 {ahead}, i64 {last})")
            samples = [f.let(f"load i64, ptr {f.element('i64', '%order', at)}") for at in (place, later)]
            data, coming = (f.element(kind, source, f.calculated("mul", sample, n)) for sample in samples)
            target, whole = f.element(self._real, base, f.calculated("mul", row.index, n)), n // line * line
            if whole:
                with f.loop(0, whole, line, as_is=True) as i:
                    _prefetch(f, f.element(kind, coming, i.index))
                    addresses = f.element(kind, data, i.index), f.element(self._real, target, i.index)
                    self._move(f, *addresses, line, scale)
            else:  # else the last full line has mostly fetched the rest
                for at in sorted({0, n - 1}):
                    _prefetch(f, f.element(kind, coming, at))
            for at, width in _halves(whole, n):
                self._move(f, f.element(kind, data, at), f.element(self._real, target, at), width, scale)

    def _move(self, f: Function, source: str, target: str, n: int, scale: float | None) -> None:
        """Print the copy of n numbers of a sample; uint8 ones are scaled."""
        kind, own = (
            f"<{n} x {name}>" if n > 1 else name for name in (self._real, self._real if scale is None else "i8")
        )
        value = f.let(f"load {own}, ptr {source}, align {self._type.itemsize if scale is None else 1}")
        if scale is not None:
            factor = literal(float(self._type.type(scale)))
            value = f.let(f"uitofp {own} {value} to {kind}")
            value = f.let(f"fmul {kind} {value}, {f'splat ({self._real} {factor})' if n > 1 else factor}")
        f.do(f"store {kind} {value}, ptr {target}, align {self._type.itemsize}")


def _halves(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a range in parts (first, length) of falling powers of two."""
    while start < end:
        length = 1 << ((end - start).bit_length() - 1)
        yield start, length
        start += length


def _prefetch(f: Function, address: str) -> None:
    """Print a request to fetch a line that is soon read."""
    f.do(f"call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 2, i32 1)")
