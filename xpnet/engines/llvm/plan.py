"""Plan what the threads of a step do, in which order, which part of it is whose, and where they wait for each other.

A UNIT is what lies between two possible waits: a group of the Program (see `xpnet.program.grouping`), of which each
thread does its share. Some calls are drawn into the products that come before them: the addition of a bias, and the
update of the weights. Printing comes next, in `xpnet.engines.llvm.step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from xpnet.engines.llvm.nests import VECTOR_UNIT
from xpnet.engines.llvm.products import COLUMN_UNIT, takes_columns
from xpnet.program.calls import Buffer, Call, Operand, Program, aligned
from xpnet.program.grouping import Group, Launch, direction, leader
from xpnet.program.places import Place, is_read_after, place_of

STRIP_UNIT, STRIP_FLOATS = 8, 8192  # a strip of gradient has a multiple of so many rows, and about so many elements


@dataclass(frozen=True)
class Update:
    """The update of a product's weights, strip by strip of rows, as soon as their gradient is there.

    group: its calls, on flat vectors.  gradient: the one that the product makes.  first: the matrix's first element.
    """

    group: Group
    gradient: Buffer
    first: int


@dataclass(frozen=True)
class Unit:
    """A group of calls of one phase.

    bias, update: what is drawn into a product.  done: ranges of a flat vector that products have updated already.
    """

    group: Group
    phase: str
    bias: Operand | None = None
    update: Update | None = None
    done: tuple[tuple[int, int], ...] = ()

    @property
    def index(self) -> int:
        """The number of its first call."""
        return self.group.steps[0].index


@dataclass(frozen=True)
class Touch:
    """What a unit does to a place. owned: by which cut each thread has a part of its own; "" where it has not."""

    place: Place
    owned: str
    writes: bool

    def clashes(self, other: Touch) -> bool:
        """Whether one must be over, for all threads, before the other begins."""
        if not (self.writes or other.writes) or self.place[0] != other.place[0]:
            return False
        start = max(self.place[1], other.place[1])
        end = min(self.place[1] + self.place[2], other.place[1] + other.place[2])
        return start < end and not (self.owned and (self.place, self.owned) == (other.place, other.owned))


class Plan:
    """The units of a Program for so many threads.

    library_flops: operations of a product from which on a library does it; None without one.
    has_data: whether samples are gathered from data, or fed.
    """

    def __init__(
        self, program: Program, found: Iterable[Launch], threads: int, library_flops: float | None, has_data: bool
    ) -> None:
        self.program, self.threads, self._library_flops = program, threads, library_flops
        self.own_samples = self._own_samples() if has_data and threads > 1 else []
        products = [call for call in program.calls if call.word == "matmul"]
        turned = (call.operands[1].buffer.size for call in products if call.operands[1].transposed)
        strips = (self.strip_rows(call.out.shape[1]) * call.out.shape[1] for call in products)
        # Elements behind the float arena: for operands that a product turns round, strips of gradient, and copies.
        self.turned_floats, self.strip_floats = aligned(max(turned, default=0)), aligned(max(strips, default=0))
        self.copied_floats = sum(aligned(buffer.size) for buffer in self.own_samples)
        self.units = self._with_biases([Unit(group, launch.phase) for launch in found for group in launch.groups])
        if program.accumulate == 1:
            self.units = self._with_updates(self.units)

    @property
    def extra_floats(self) -> int:
        """All elements behind the float arena: of each thread its turned operand and its strip, then copies."""
        return self.threads * (self.turned_floats + self.strip_floats) + (self.threads - 1) * self.copied_floats

    def strip_rows(self, n_columns: int) -> int:
        """Rows of a strip: a few tiles, that stay in a near cache."""
        return max(STRIP_UNIT, STRIP_FLOATS // n_columns // STRIP_UNIT * STRIP_UNIT)

    def call(self, unit: Unit) -> Call:
        """The first call of a unit; the only one of a product."""
        return self.program.calls[unit.index]

    def cuts(self, n: int, unit: int) -> list[int]:
        """Where the parts of the threads begin and end; of rows of weights where products may be cut too."""
        unit = COLUMN_UNIT if unit == 1 and n > 2 * COLUMN_UNIT else unit
        return [min(n, round(i * n / (self.threads * unit)) * unit) for i in range(self.threads)] + [n]

    def flat_parts(self, n: int, done: tuple[tuple[int, int], ...]) -> list[list[int]]:
        """Cut a flat vector of n elements, but the ranges that are done: for each piece, the cuts of the threads.

        What lies like theta is cut as the products cut its matrices, so that weights stay with the thread that has
        them: from another core's cache they come at the speed of memory.
        """
        pieces, position = [], 0
        matrices = {
            (buffer.offset, buffer.shape[0], buffer.shape[1])
            for buffer in self.program.buffers.values()
            if buffer.kind == "float"
            and buffer.form == "matrix"
            and not buffer.flipped
            and buffer.offset + buffer.size <= min(n, self.program.n_owned)
        }
        for offset, rows, columns in sorted(matrices):
            if offset >= position:  # of two that share memory, the first
                pieces.append([position + cut for cut in self.cuts(offset - position, VECTOR_UNIT)])
                pieces.append([offset + cut * columns for cut in self.cuts(rows, 1)])
                position = offset + rows * columns
        pieces.append([position + cut for cut in self.cuts(n - position, VECTOR_UNIT)])
        for start, end in done:
            parts = [part for piece in pieces for part in _without(piece, start, end)]
            pieces = [part for part in parts if part[0] < part[-1]]
        return [piece for piece in pieces if piece[0] < piece[-1]]

    def calls_library(self, unit: Unit) -> bool:
        """Whether a product is left to the library."""
        return self._library_flops is not None and self.call(unit).flops >= self._library_flops

    def by_columns(self, unit: Unit) -> bool:
        """Whether threads cut a product by its columns: where weights are more than samples, each keeps its own."""
        if unit.group.kind != "product" or self.threads == 1:
            return False
        left, right = self.call(unit).operands
        out = self.call(unit).out
        if not right.transposed or left.transposed or not takes_columns(right.shape[1], out.shape[1]):
            return False
        return right.buffer.size > left.buffer.size + out.buffer.size

    def is_own(self, buffer: Buffer) -> bool:
        """Whether each thread has a copy of its own of these samples."""
        return buffer.kind == "float" and any(buffer.offset == own.offset for own in self.own_samples)

    def filled(self) -> list[Touch]:
        """What is written before a step's first call: the gathered samples, by rows, and the slots."""
        found = [
            Touch(place_of(self.program, buffer), f"rows of {buffer.shape[1]}", True)
            for _, buffer in self.program.gathers
            if not self.is_own(buffer)
        ]
        slots = [self.program.buffers[name] for name in self.program.slots]
        return found + [Touch(place_of(self.program, slot), "the first thread", True) for slot in slots]

    def touches(self, unit: Unit) -> list[Touch]:
        """What a unit's threads touch, and which of it each has to itself."""
        calls, found = [self.program.calls[step.index] for step in unit.group.steps], []
        for call in calls:
            for operand in (*call.operands, call.out):
                if not self.is_own(operand.buffer):
                    owned = "" if self.by_columns(unit) else self._cut(unit.group.kind, calls, call, operand)
                    places = self._places(unit, call, operand)
                    found += [Touch(place, owned, operand is call.out) for place in places]
        if unit.bias is not None:
            found.append(Touch(place_of(self.program, unit.bias.buffer), "", False))
        return found + self._update_touches(unit)

    def _places(self, unit: Unit, call: Call, operand: Operand) -> Iterator[Place]:
        """Where an operand lies; of a vector that is done in part, the rest of it."""
        vector, offset, size = place_of(self.program, operand.buffer)
        if not unit.done or not operand.shape:
            yield vector, offset, size
            return
        for piece in self.flat_parts(call.out.shape[0], unit.done):
            yield vector, offset + piece[0], piece[-1] - piece[0]

    def _update_touches(self, unit: Unit) -> list[Touch]:
        if unit.update is None:
            return []
        size, found = self.call(unit).out.buffer.size, []
        for step in unit.update.group.steps:
            call = self.program.calls[step.index]
            for operand in (*call.operands, call.out):
                vector, offset, length = place_of(self.program, operand.buffer)
                place = (vector, offset + unit.update.first, size) if operand.shape else (vector, offset, length)
                found.append(Touch(place, "", operand is call.out))
        return found

    def _cut(self, kind: str, calls: list[Call], call: Call, operand: Operand) -> str:
        """By which cut, as the nests and products have it, each thread has its part of an operand."""
        if kind == "single":
            return "the first thread"
        if kind == "product":
            left = call.operands[0]
            by_rows = operand is call.out or (operand is left and not left.transposed)
            return f"rows of {call.out.shape[0]}" if by_rows else ""
        first = leader(call)
        if all(len(leader(other).shape) == 1 for other in calls):
            kind = "row" if first.buffer.flipped else "column"
        if first.buffer.form == "flat":
            return f"flat of {first.shape[0]}" if operand.shape else ""
        if len(first.shape) == 1:
            is_cut, length = bool(operand.shape), first.shape[0]
        else:
            along = "along rows" if kind == "column" else "along columns"
            is_cut, length = direction(call, operand) in ("matrix", along), first.shape[kind == "column"]
        return f"{'elements' if kind == 'column' else 'rows'} of {length}" if is_cut else ""

    def _own_samples(self) -> list[Buffer]:
        """The gathered buffers of which each thread gathers a copy of its own: those that only products read.

        All threads read all samples there, and what another core has just written comes slower than from memory.
        """
        uses = [(call, operand) for call in self.program.calls for operand in (*call.operands, call.out)]

        def suits(own: Buffer, call: Call, operand: Operand) -> bool:
            is_read = call.word == "matmul" and operand is not call.out
            used = operand.buffer
            return not used.overlaps(own) or (is_read and (used.offset, used.size) == (own.offset, own.size))

        return [buffer for _, buffer in self.program.gathers if all(suits(buffer, *use) for use in uses)]

    def _with_biases(self, units: list[Unit]) -> list[Unit]:
        """Draw the addition that follows a product, of a vector to each of its rows, into it."""
        drawn: list[Unit] = []
        for unit in units:
            before, call = (drawn[-1] if drawn else None), self.call(unit)
            if before is None or (before.group.kind, before.phase, call.word) != ("product", unit.phase, "add"):
                drawn.append(unit)
                continue
            one, other = call.inputs
            items = [item for item in (one, call.out, self.call(before).out) if isinstance(item, Operand)]
            places = {(place_of(self.program, item.buffer), item.shape) for item in items}
            is_same = len(items) == 3 and len(places) == 1
            is_bias = isinstance(other, Operand) and direction(call, other) == "along rows"
            if is_same and is_bias and isinstance(other, Operand) and not self.calls_library(before):
                drawn[-1] = replace(before, bias=other)
                rest = unit.group.steps[1:]
                drawn += [replace(unit, group=replace(unit.group, steps=rest))] if rest else []
            else:
                drawn.append(unit)
        return drawn

    def _with_updates(self, units: list[Unit]) -> list[Unit]:
        """Draw the update of the weights into the products that make their gradient: it need not go through memory."""
        for place in range(len(units)):  # what stands there stays there: only what is before it is moved
            for gradient in self._read_first(units[place]):
                units = self._hoisted(units, place)
                for i, product in enumerate(units[:place]):
                    update = self._update_of(product, units[place], gradient, units[i + 1 : place])
                    if update is not None:
                        units[i] = replace(product, update=update)
                        done = (update.first, update.first + self.call(product).out.buffer.size)
                        units[place] = replace(units[place], done=(*units[place].done, done))
        return units

    def _read_first(self, unit: Unit) -> list[Buffer]:
        """The flat vectors that a group of calls on such reads before it writes them."""
        calls = [self.program.calls[step.index] for step in unit.group.steps]
        if unit.group.kind != "element" or any(call.out.buffer.form != "flat" for call in calls):
            return []
        found: dict[int, Buffer] = {}
        written: set[int] = set()
        for call in calls:
            for operand in call.operands:
                if operand.shape and operand.buffer.kind == "float" and operand.buffer.offset not in written:
                    found[operand.buffer.offset] = operand.buffer
            written.add(call.out.buffer.offset)
        return list(found.values())

    def _hoisted(self, units: list[Unit], end: int) -> list[Unit]:
        """Move calls on single numbers, before a place, to the front as far as what they need allows."""
        units = list(units)
        for i in range(1, end):
            j = i
            while j and units[j].group.kind == "single" and not self._clash([units[j]], [units[j - 1]]):
                units[j - 1], units[j] = units[j], units[j - 1]
                j -= 1
        return units

    def _update_of(self, product: Unit, unit: Unit, gradient: Buffer, between: list[Unit]) -> Update | None:
        """What a product can do of an update; None if it makes none of the gradient, or others have a say meanwhile."""
        if product.group.kind != "product" or product.update is not None or self.calls_library(product):
            return None
        out, first = self.call(product).out.buffer, self.call(product).out.buffer.offset - gradient.offset
        is_part = out.kind == "float" and 0 <= first <= gradient.size - out.size and not out.flipped
        # Threads that cut it by columns have no whole rows.
        if not is_part or self.by_columns(product) or not self._is_all_that_reads(unit, gradient, product):
            return None
        update = Update(unit.group, gradient, first)
        drawn = replace(product, update=update)
        reads = {touch.place for touch in self.touches(product) if not touch.writes}
        own = any(
            touch.writes and any(Touch(place, "", False).clashes(replace(touch, owned="")) for place in reads)
            for touch in self._update_touches(drawn)
        )
        return None if own or self._clash([drawn], between) else update

    def _is_all_that_reads(self, unit: Unit, gradient: Buffer, product: Unit) -> bool:
        """Whether what a product makes is read by an update alone, as that vector.

        Other calls may run later than their numbers say, so all behind the product are asked.
        """
        out, group = self.call(product).out.buffer, {step.index for step in unit.group.steps}
        for index in range(product.index + 1, len(self.program.calls)):
            for buffer in (operand.buffer for operand in self.program.calls[index].operands):
                is_it = index in group and place_of(self.program, buffer) == place_of(self.program, gradient)
                if buffer.overlaps(out) and not is_it:
                    return False
        return not is_read_after(self.program, out, unit.group.steps[-1].index)

    def _clash(self, ones: list[Unit], others: list[Unit]) -> bool:
        """Whether units may not change places, on any number of threads."""
        one_side, other_side = (
            [replace(touch, owned="") for unit in units for touch in self.touches(unit)] for units in (ones, others)
        )
        return any(one.clashes(other) for one in one_side for other in other_side)


def _without(piece: list[int], start: int, end: int) -> list[list[int]]:
    """The cuts of a piece without a range: of what is before it, and of what is behind."""
    return [[min(cut, start) for cut in piece], [max(cut, end) for cut in piece]]
