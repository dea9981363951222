"""What each thread of a printed step reads and writes between two waits: the text itself, followed instruction by
instruction, for whole numbers and addresses only; the elements' values do not decide where a loop goes.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

from xpnet.engines.llvm.run import TABLE

_SIZES = {"float": 4, "double": 8, "i8": 1, "i32": 4, "i64": 8, "ptr": 8}
_SHARED = ("T", "M", "U", "rows_out")  # what more than one thread may reach, and one may write
_FUNCTION = re.compile(r"^define [^@]*void @(\w+)\((.*?)\) [^{]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_PATTERNS = {
    name: re.compile(pattern)
    for name, pattern in {
        "element": r"(%\w+) = getelementptr (?:inbounds )?(\w+), ptr (\S+), i64 (\S+)",
        "load": r"(%\w+) = load (<.*?>|\w+), ptr ([^\s,]+)",
        "store": r"store (<.*?>|\w+) .*, ptr ([^\s,]+)",
        "own": r"(%\w+) = alloca",
        "smin": r"(%\w+) = call i64 @llvm.smin.i64\(i64 (\S+), i64 (\S+)\)",
        "whole": r"(%\w+) = (add|sub|mul|udiv|urem)(?: nsw)? i64 (\S+), (\S+)",
        "compare": r"(%\w+) = icmp (eq|slt) i64 (\S+), (\S+)",
        "either": r"(%\w+) = or i1 (%\w+), (%\w+)",
        "choose": r"(%\w+) = select i1 (%\w+), (?:ptr|i64) (\S+), (?:ptr|i64) (\S+)",
        "branch": r"br i1 (%\w+), label %(\w+), label %(\w+)",
        "go": r"br label %(\w+)",
        "wait": r"call void @wait\(",
        "call": r"call void @(step|update)\((.*)\)",
        "return": r"ret void",
    }.items()
}
_TABLE = re.compile(r"^@(\w+) = internal constant \[\d+ x i64\] \[(.*)\]$", re.MULTILINE)
_PHI = re.compile(r"(%\w+) = phi i64 (.*)")
_FROM = re.compile(r"\[ (\S+), %(\w+) \]")
_CALCULATED = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "udiv": lambda a, b: a // b,
    "urem": lambda a, b: a % b,
    "eq": lambda a, b: a == b,
    "slt": lambda a, b: a < b,
}

Phases = list[tuple[set[Any], set[Any]]]  # between waits: elements read, elements written


class Text:
    """A printed module."""

    def __init__(self, text: str, item_size: int) -> None:
        self._item_size = item_size
        self._functions = {}
        self._tables = {
            name: [int(part.split()[-1]) for part in values.split(",")] for name, values in _TABLE.findall(text)
        }
        for name, arguments, body in _FUNCTION.findall(text):
            if name in ("run", "step", "update"):
                self._functions[name] = ([part.split()[-1] for part in arguments.split(",")], _blocks(body))

    def every(self, order: list[int], threads: int) -> list[Phases]:
        """What each thread does in a run."""
        return [self._phases(order, thread) for thread in range(threads)]

    def _phases(self, order: list[int], thread: int) -> Phases:
        known = {"n_samples": len(order), "continues": 0}
        table = [known.get(name, (name, 0)) for name in TABLE] + [("data", 0)] * 9
        found: Phases = [(set(), set())]
        self._follow("run", [("table", 0), thread], {"table": table, "order": order, **self._tables}, found)
        return found

    def _follow(self, name: str, values: list[Any], memory: dict[str, Any], found: Phases) -> None:
        arguments, blocks = self._functions[name]
        known: dict[str, Any] = dict(zip(arguments, values, strict=True))

        def value(word: str) -> Any:
            return known[word] if word[0] == "%" else (word[1:], 0) if word[0] == "@" else int(word)

        def touch(kind: str, address: tuple[str, int], writes: bool) -> None:
            region, start = address
            if region in _SHARED:
                n, size = _length(kind)
                assert size == (4 if region == "U" else self._item_size) and start >= 0 and start % size == 0
                found[-1][writes].update((region, start // size + i) for i in range(n))

        label, before = "entry", ""
        while True:
            phis, lines = blocks[label]
            known.update([(result, value(sources[before])) for result, sources in phis if before in sources])
            for what, parts in lines:
                if what == "element":
                    result, kind, base, offset = parts
                    region, start = value(base)
                    known[result] = region, start + _SIZES[kind] * value(offset)
                elif what == "load":
                    result, kind, address = parts
                    region, start = value(address)
                    if region in memory:
                        known[result] = memory[region][start // 8]
                    touch(kind, (region, start), False)
                elif what == "store":
                    touch(parts[0], known[parts[1]], True)
                elif what == "own":
                    known[parts[0]] = "own", 0
                elif what == "smin":
                    known[parts[0]] = min(value(parts[1]), value(parts[2]))
                elif what in ("whole", "compare"):
                    known[parts[0]] = _CALCULATED[parts[1]](value(parts[2]), value(parts[3]))
                elif what == "either":
                    if parts[1] in known:  # else it is of floats
                        known[parts[0]] = known[parts[1]] or known[parts[2]]
                elif what == "choose":
                    if parts[1] in known:  # else it is of floats
                        known[parts[0]] = value(parts[2] if known[parts[1]] else parts[3])
                elif what == "wait":
                    found.append((set(), set()))
                elif what == "call":
                    passed = [value(part.split()[-1]) for part in parts[1].split(",")]
                    self._follow(parts[0], passed, memory, found)
                elif what == "return":
                    return
                else:
                    before, label = label, parts[0] if what == "go" else parts[1 if known[parts[0]] else 2]


def conflicts(every: list[Phases]) -> list[tuple[int, Any]]:
    """(phase, element) of all that one thread writes while another reads or writes it; every: of each thread."""
    found = []
    for number, phase in enumerate(zip(*every, strict=True)):  # all have come to as many waits
        for (reads, writes), (its_reads, its_writes) in combinations(phase, 2):
            clash = (writes & its_writes) | (writes & its_reads) | (reads & its_writes)
            found += [(number, element) for element in sorted(clash)]
    return found


def _blocks(body: str) -> dict[str, tuple[list[Any], list[Any]]]:
    """Label -> what its values are by where one comes from, and what is done; only what decides about places."""
    blocks: dict[str, tuple[list[Any], list[Any]]] = {}
    for line in body.splitlines():
        if line.endswith(":"):
            phis, lines = blocks[line[:-1]] = ([], [])
            continue
        line = line.strip().split(", !")[0]
        phi = _PHI.match(line)
        if phi:
            phis.append((phi[1], {label: word for word, label in _FROM.findall(phi[2])}))
            continue
        for name, pattern in _PATTERNS.items():
            match = pattern.match(line)
            if match:
                lines.append((name, match.groups()))
                break
    return blocks


def _length(kind: str) -> tuple[int, int]:
    if kind[0] != "<":
        return 1, _SIZES[kind]
    n, of = kind[1:-1].split(" x ")
    return int(n), _SIZES[of]
