"""Print functions of LLVM IR as text: values, loops, and notes on overlaps in memory.

This module knows nothing of Programs. Values are assigned once, as %v1, %v2, ...; only names and numbers made here
enter the text. The language: https://llvm.org/docs/LangRef.html.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xpnet.program.calls import Place

VECTOR_BYTES = 32  # of vectors, as in AVX2; narrower machines take two registers per vector
FEW_TURNS = 10  # of a loop: up to this number LLVM may unroll it
_WHOLE = ('!"llvm.loop.unroll.full"',)
_AS_IS = ('!"llvm.loop.unroll.disable"', '!"llvm.loop.vectorize.enable", i1 false')
FAST_MATH_FLAGS = "reassoc nsz contract"  # of an addition in any order; NaN and infinity are kept


class Metadata:
    """The numbered metadata at the end of a module."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def node(self, content: str) -> str:
        """Add a node !{...} and return its name; "self" in the content is the node itself and makes it distinct."""
        name = f"!{len(self.lines)}"
        is_distinct = "self" in content
        self.lines.append(f"{name} = {'distinct ' * is_distinct}!{{{content.replace('self', name)}}}")
        return name


@dataclass
class Loop:
    """A loop being printed: its index, and the values carried from turn to turn.

    carried: their names, in the loop and after it.  following: their values in the next turn, set by the body.
    """

    index: str
    carried: list[str]
    following: list[str] = field(default_factory=list)


class Function:
    """The body of one function, printed line by line.  vector_bytes: of the vectors that are printed as such."""

    def __init__(self, metadata: Metadata, real: str, vector_bytes: int = VECTOR_BYTES) -> None:
        self.metadata, self.real, self.vector_bytes = metadata, real, vector_bytes
        self.lines: list[str] = []
        self.stack: list[str] = []  # allocations, which must stand in the first block
        self._n_values = self._n_labels = 0
        self._label = "entry"

    @property
    def size(self) -> int:
        """Bytes of a floating-point number."""
        return 4 if self.real == "float" else 8

    def let(self, expression: str) -> str:
        """Assign a new value and return its name."""
        self._n_values += 1
        name = f"%v{self._n_values}"
        self.lines.append(f"  {name} = {expression}")
        return name

    def do(self, line: str) -> None:
        """Add a line without a value."""
        self.lines.append(f"  {line}")

    def own(self, kind: str) -> str:
        """Allocate stack memory for one number or vector and return its address."""
        name = f"%own{len(self.stack)}"
        self.stack.append(f"  {name} = alloca {kind}")
        return name

    def begin(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self._label = label

    def new_label(self, name: str) -> str:
        """Return a new label."""
        self._n_labels += 1
        return f"{name}{self._n_labels}"

    def element(self, kind: str, base: str, *offsets: str | int) -> str:
        """Return the address of an element of that type, at the sum of the offsets from a base address."""
        address = base
        for offset in offsets:
            if offset not in (0, "0"):
                address = self.let(f"getelementptr inbounds {kind}, ptr {address}, i64 {offset}")
        return address

    def calculated(self, word: str, left: str | int, right: str | int) -> str:
        """Return a sum ("add") or product ("mul") of integers; of known ones it is known."""
        if is_known(left) and is_known(right):
            return str(int(left) + int(right) if word == "add" else int(left) * int(right))
        if word == "add" and "0" in (str(left), str(right)):
            return str(right if str(left) == "0" else left)
        if word == "mul" and "1" in (str(left), str(right)):
            return str(right if str(left) == "1" else left)
        return self.let(f"{word} nsw i64 {left}, {right}")

    @contextmanager
    def loop(
        self,
        start: str | int,
        end: str | int,
        by: int = 1,
        carried: Sequence[tuple[str, str]] = (),
        *,
        as_is: bool = False,
        whole: bool = False,
    ) -> Iterator[Loop]:
        """Print a loop over start, start + by, ... below end; the body is printed in the context.

        carried: (type, first value) of each value carried from turn to turn.
        as_is: keeps LLVM from unrolling or vectorising it, which gains nothing for a tile of a product; a loop of a few
            turns may still be unrolled.
        whole: has LLVM unroll it whole, of a known number of turns, so that it may vectorise the loop around it.
        """
        head, body, after = (self.new_label(name) for name in ("head", "body", "after"))
        before = self._label
        self.do(f"br label %{head}")
        self.begin(head)
        place = len(self.lines)
        self._n_values += 1 + len(carried)
        names = [f"%v{self._n_values - i}" for i in range(1 + len(carried))]
        found = Loop(names[0], names[1:])
        more = self.let(f"icmp slt i64 {found.index}, {end}")
        self.do(f"br i1 {more}, label %{body}, label %{after}")
        self.begin(body)
        yield found
        following = self.let(f"add nsw i64 {found.index}, {by}")
        phis = [f"  {found.index} = phi i64 [ {start}, %{before} ], [ {following}, %{self._label} ]"]
        for name, (kind, first), later in zip(found.carried, carried, found.following, strict=True):
            phis.append(f"  {name} = phi {kind} [ {first}, %{before} ], [ {later}, %{self._label} ]")
        self.lines[place:place] = phis
        few = is_known(start) and is_known(end) and (int(end) - int(start)) // by <= FEW_TURNS
        options = _WHOLE if whole else _AS_IS if as_is and not few else ()
        self.do(f"br label %{head}{self._noted(options)}")
        self.begin(after)

    def _noted(self, options: tuple[str, ...]) -> str:
        """Return the note of a loop's options at its end."""
        if not options:
            return ""
        nodes = [self.metadata.node(option) for option in options]
        return f", !llvm.loop {self.metadata.node(', '.join(['self', *nodes]))}"

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Print a block that runs only if a condition (i1) holds."""
        then, after = self.new_label("then"), self.new_label("after")
        self.do(f"br i1 {condition}, label %{then}, label %{after}")
        self.begin(then)
        yield
        self.do(f"br label %{after}")
        self.begin(after)

    def text(self, name: str, arguments: Iterable[str], linkage: str = "internal ", notes: str = "nounwind") -> str:
        """Return the text of the function, which returns void."""
        head = f"define {linkage}void @{name}({', '.join(arguments)}) {notes} {{"
        return "\n".join([head, "entry:", *self.stack, *self.lines, "  ret void", "}", ""])


def is_known(value: str | int) -> bool:
    """Return whether an integer is known now, and not a value of the function."""
    return isinstance(value, int) or not value.startswith("%")


def in_llvm(extent: str) -> str:
    """Return an extent of `xpnet.program.sizes` in LLVM IR: a number, or the argument with the batch length."""
    return "%m" if extent == "m" else extent


def literal(value: float) -> str:
    """Return a floating-point number exactly: the bits of its double, even for type float."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{bits:016X}"


class Regions:
    """Tells LLVM which places in memory do not overlap, within one loop nest.

    See "noalias and alias.scope metadata" in LLVM's reference.
    """

    def __init__(self, metadata: Metadata, places: Iterable[Place]) -> None:
        self._notes: dict[Place, str] = {}
        domain = metadata.node("self")
        scopes = {place: metadata.node(f"self, {domain}") for place in dict.fromkeys(places)}
        for mine, scope in scopes.items():
            apart = [its for other, its in scopes.items() if not mine.overlaps(other)]
            self._notes[mine] = f", !alias.scope {metadata.node(scope)}"
            if apart:
                self._notes[mine] += f", !noalias {metadata.node(', '.join(apart))}"

    def notes(self, place: Place) -> str:
        """Return the notes of a load or store of that place."""
        return self._notes[place]
