"""Print matrix products as loops over tiles that stay in registers.

They pay up to some million operations, where a library spends as long on calls and on packing operands. A tile of the
result is a few vectors, which accumulate products along k. Source: Goto and van de Geijn, Anatomy of High-Performance
Matrix Multiplication (2008), section 4, without packing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from xpnet.engines.llvm.text import FAST_MATH_FLAGS, Function, is_known

FEW_ROWS = 8  # of a result: fewer do not repay transposing the right operand
COLUMN_UNIT = 12  # threads split columns at its multiples: the widths of all tiles along k divide it
SUMMING = 3  # vectors that one could multiply while those of a sum along k are added up
SHORT_INNER, LONG_INNER = 64, 128  # lengths of k below which few rows repay transposing, and above which none do


@dataclass(frozen=True)
class Factor:
    """A matrix in memory: element (i, j) is at address[i * rows + j * columns]."""

    address: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Product:
    """out (n_rows, n_columns) = left (n_rows, n_inner) right (n_inner, n_columns) + bias, out in C order.

    n_inner: a value of the function or a number.  n_columns: a number.
    first, last: the range of rows to compute, without last.
    columns: the range of columns, where `takes_columns` allows one; None for all.
    most_rows: upper bound of the number of rows.  multiple: a divisor of that number.
    bias: address of n_columns numbers that are added to each row, or None.
    scratch: address of n_inner * n_columns numbers for the transposed right operand; None to leave it as it is.
    packed: address of what `write_packing` made of the right operand; None if it made nothing.
    finish(type, value): prints what follows on a number or vector of the result.
    """

    left: Factor
    right: Factor
    out: str
    first: str | int
    last: str | int
    most_rows: int
    n_inner: str | int
    n_columns: int
    bias: str | None
    scratch: str | None = None
    columns: tuple[str, str] | None = None
    multiple: int = 1
    packed: str | None = None
    finish: Callable[[str, str], str] | None = None

    def finished(self, kind: str, value: str) -> str:
        """Return what is stored of a value of the result."""
        return value if self.finish is None else self.finish(kind, value)


def packed_columns(n_inner: int, n_columns: int, lanes: int) -> int:
    """Return how many columns of a right operand are packed for products of many rows: the first ones.

    The last ones, too few for a vector, are sums along k where these take fewer vectors, which are half as slow again.
    """
    rest = n_columns % lanes
    are_summed = n_inner >= lanes and 3 * rest * (-(-n_inner // lanes) + SUMMING) < 2 * n_inner
    return n_columns - rest if are_summed else n_columns


def packed_size(n_inner: int, n_columns: int, lanes: int) -> int:
    """Return the numbers of a packed operand."""
    columns = packed_columns(n_inner, n_columns, lanes)
    return n_inner * sum(width for _, width in _pieces(columns, lanes))


def write_packing(f: Function, right: Factor, n_inner: int, n_columns: int, packed: str) -> None:
    """Print the copy of a right operand (n_inner, n_columns), whose columns are contiguous, for many products.

    Each tile's columns lie together, row behind row, so that loads of whole vectors cross no cache lines.
    Source: Goto and van de Geijn (2008), section 4.2.
    """
    lanes = _lanes(f)
    for blocks, first, pieces in _panels(packed_columns(n_inner, n_columns, lanes), lanes):
        wide, before = sum(width for _, width in pieces), 0
        for start, width in pieces:
            with f.loop(0, blocks, as_is=True) as block:
                column = f.calculated("add", f.calculated("mul", block.index, wide), start)
                panel = f.element(f.real, packed, f.calculated("mul", block.index, wide * n_inner), n_inner * first)
                _write_turned(f, right, n_inner, (column, width), f.element(f.real, panel, before), wide)
            before += width


def _write_transposed(f: Function, right: Factor, n_inner: int, n_columns: int, scratch: str) -> None:
    """Print the copy of a right operand (n_inner, n_columns), whose columns are contiguous, in C order."""
    pieces = _pieces(n_columns, _lanes(f))
    width = pieces[0][1]
    with f.loop(0, n_columns // width * width, width, as_is=True) as j:
        _write_turned(f, right, n_inner, (j.index, width), f.element(f.real, scratch, j.index), n_columns)
    if n_columns % width:
        _write_turned(f, right, n_inner, pieces[-1], f.element(f.real, scratch, pieces[-1][0]), n_columns)


def _write_turned(
    f: Function, right: Factor, n_inner: int, part: tuple[str | int, int], target: str, wide: int
) -> None:
    """Print the copy of some columns of a right operand, (first, number), to rows that lie `wide` apart.

    Left to itself, LLVM unrolls these loops, for seconds.
    """
    column, width = part
    columns = [_at(f, right, 0, f.calculated("add", column, i)) for i in range(width)]
    whole = n_inner // width * width if width == _lanes(f) else 0
    if whole:
        with f.loop(0, whole, width, as_is=True) as k:
            _turn(f, columns, target, k.index, wide)
    with f.loop(whole, n_inner, as_is=True) as k:
        row = f.element(f.real, target, f.calculated("mul", k.index, wide))
        for i, address in enumerate(columns):
            value = f.let(f"load {f.real}, ptr {f.element(f.real, address, k.index)}")
            f.do(f"store {f.real} {value}, ptr {f.element(f.real, row, i)}")


def _turn(f: Function, columns: list[str], target: str, k: str, wide: int) -> None:
    """Print the copy of as many rows as columns, a vector each: vectors of columns become vectors of rows."""
    lanes = _lanes(f)
    kind, step = _vector(f, lanes), 1
    rows = [f.let(f"load {kind}, ptr {f.element(f.real, address, k)}, align {f.size}") for address in columns]
    while step < lanes:  # exchange a bit of the vector's number and the same bit of the place in it
        for one in (i for i in range(lanes) if not i & step):
            pair = rows[one], rows[one + step]
            masks = [
                [lane + shift if not lane & step else lanes + lane - step + shift for lane in range(lanes)]
                for shift in (0, step)
            ]
            rows[one], rows[one + step] = (
                f.let(f"shufflevector {kind} {pair[0]}, {kind} {pair[1]}, {_mask(iter(mask))}") for mask in masks
            )
        step *= 2
    for i, row in enumerate(rows):
        place = f.calculated("mul", f.calculated("add", k, i), wide)
        f.do(f"store {kind} {row}, ptr {f.element(f.real, target, place)}, align {f.size}")


def repays_transposing(n_inner: str | int, n_rows: int, n_columns: int) -> bool:
    """Return whether a thread that computes n_rows rows should first transpose a right operand of contiguous columns.

    Sums along k in vectors add up a vector for each element of the result, which longer ones of k outweigh; and of a
    transposed operand three vectors of columns stay in the nearest cache, up to some length of k.
    """
    if not is_known(n_inner) or int(n_inner) >= LONG_INNER or n_rows < FEW_ROWS:
        return False
    return int(n_inner) < SHORT_INNER or (2 * n_rows >= int(n_inner) and n_columns > 2 * COLUMN_UNIT)


def takes_columns(n_inner: int, n_columns: int) -> bool:
    """Return whether threads can split a product along k in vectors at multiples of `COLUMN_UNIT`."""
    return n_inner >= SHORT_INNER and n_columns > 2 * COLUMN_UNIT


def write_product(f: Function, product: Product) -> None:
    """Print the product in the form that suits its shape."""
    right, n_inner = product.right, product.n_inner
    if product.packed is not None:
        columns = packed_columns(int(n_inner), product.n_columns, _lanes(f))
        _by_outer_products(f, product, Factor(product.packed, 0, 1), columns)
        if columns < product.n_columns:
            _by_dot_products(f, product, columns)
    elif right.columns == 1 or product.n_columns == 1:
        _by_outer_products(f, product, Factor(right.address, right.rows, 1), product.n_columns)
    elif product.scratch is not None:
        transposed = Factor(product.scratch, product.n_columns, 1)
        _write_transposed(f, right, int(n_inner), product.n_columns, product.scratch)
        _by_outer_products(f, product, transposed, product.n_columns)
    elif is_known(n_inner) and int(n_inner) >= _lanes(f) and (product.left.columns, right.rows) == (1, 1):
        _by_dot_products(f, product)
    else:
        _one_by_one(f, product)


def _lanes(f: Function) -> int:
    return f.vector_bytes // f.size


def _at(f: Function, factor: Factor, i: str | int, j: str | int) -> str:
    """Return the address of an element."""
    offsets = (f.calculated("mul", i, factor.rows), f.calculated("mul", j, factor.columns))
    return f.element(f.real, factor.address, f.calculated("add", *offsets))


def _pieces(n: int, lanes: int) -> list[tuple[int, int]]:
    """Cut n columns into vectors: (first column, length). The last one may overlap the one before it."""
    width = lanes if n >= lanes else 1 << (n.bit_length() - 1)
    starts = list(range(0, n - width + 1, width))
    return [(start, width) for start in (starts if n % width == 0 else [*starts, n - width])]


def _in_rows(f: Function, product: Product, allowed: Sequence[int]) -> Iterator[tuple[int, str | int, str | int]]:
    """Yield ranges of rows for tiles: (rows of a tile, first row, row after the last), the tallest tiles first.

    allowed: the possible rows of a tile, falling to 1. Few heights are used, since each needs separate code.
    """
    first, last = product.first, product.last
    if is_known(first) and is_known(last):
        for rows in allowed:
            end = int(first) + (int(last) - int(first)) // rows * rows
            if end > int(first):
                yield rows, first, end
            first = end
        return
    for rows in _heights(allowed, product.most_rows):
        if product.multiple % rows == 0:
            yield rows, first, last
            return
        length = last if first in (0, "0") else f.let(f"sub nsw i64 {last}, {first}")
        rest = f.let(f"urem i64 {length}, {rows}")
        end_of_tiles = f.let(f"sub nsw i64 {last}, {rest}")
        yield rows, first, end_of_tiles
        first = end_of_tiles


def _heights(allowed: Sequence[int], n_rows: int) -> list[int]:
    """Return heights of tiles for at most n_rows rows: a divisor, or the tallest and its half; and 1."""
    fitting = [rows for rows in allowed if rows <= n_rows]
    even = [rows for rows in fitting if n_rows % rows == 0 and 2 * rows > fitting[0]]
    tall = even[:1] or [fitting[0], *(rows for rows in fitting if 2 * rows == fitting[0])]
    return tall if tall[-1] == 1 else [*tall, 1]


def _panels(n_columns: int, lanes: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Cut n columns into panels: (like ones side by side, widths of those before, the pieces of the first)."""
    pieces = _pieces(n_columns, lanes)
    width = pieces[0][1]
    regular = len([piece for i, piece in enumerate(pieces) if piece == (i * width, width)])
    n_blocks = regular // 3 if regular >= 6 else 0
    if n_blocks:
        yield n_blocks, 0, pieces[:3]
    for i in range(n_blocks * 3, len(pieces), 3):
        yield 1, i * width, pieces[i : i + 3]


def _by_outer_products(f: Function, product: Product, right: Factor, n_columns: int) -> None:
    """Print vectors of columns times single numbers of the left operand: the right operand's rows are contiguous.

    n_columns: the first ones, which are computed.
    """
    for n_blocks, before, pieces in _panels(n_columns, _lanes(f)):
        wide = sum(width for _, width in pieces)
        with f.loop(0, n_blocks * wide, wide, as_is=True) if n_blocks > 1 else nullcontext(None) as j:
            column = "0" if j is None else j.index
            if product.packed is None:
                columns = replace(right, address=f.element(f.real, right.address, column)), pieces
            else:
                panel = f.element(
                    f.real, right.address, f.calculated("mul", column, product.n_inner), int(product.n_inner) * before
                )
                columns = (
                    Factor(panel, wide, 1),
                    [(sum(w for _, w in pieces[:i]), pieces[i][1]) for i in range(len(pieces))],
                )
            most = {1: 8, 2: 6, 3: 4}[len(pieces)]  # so that a tile's sums and operands fit 16 registers
            for rows, first, end in _in_rows(f, product, range(most, 0, -1)):
                with f.loop(first, end, rows, as_is=True) as i:
                    _column_tile(f, product, columns, i.index, rows, column, pieces)


def _column_tile(
    f: Function,
    product: Product,
    panel: tuple[Factor, list[tuple[int, int]]],
    i: str,
    rows: int,
    column: str | int,
    pieces: list[tuple[int, int]],
) -> None:
    """Print a tile of rows x pieces of the result."""
    right, places = panel
    kinds = [_vector(f, width) for _, width in pieces]
    starts = []
    for (start, _), kind in zip(pieces, kinds, strict=True):
        if product.bias is None:
            starts.append((kind, "zeroinitializer"))
        else:
            address = f.element(f.real, product.bias, column, start)
            starts.append((kind, f.let(f"load {kind}, ptr {address}, align {f.size}")))
    left_rows = [_at(f, product.left, f.calculated("add", i, row), 0) for row in range(rows)]
    with f.loop(0, product.n_inner, carried=starts * rows, as_is=True) as k:
        vectors = []
        right_row = f.element(f.real, right.address, f.calculated("mul", k.index, right.rows))
        for (start, _), kind in zip(places, kinds, strict=True):
            vectors.append(f.let(f"load {kind}, ptr {f.element(f.real, right_row, start)}, align {f.size}"))
        for row in range(rows):
            address = f.element(f.real, left_rows[row], f.calculated("mul", k.index, product.left.columns))
            number = f.let(f"load {f.real}, ptr {address}")
            for p, ((_, width), kind) in enumerate(zip(pieces, kinds, strict=True)):
                many = _broadcast(f, number, width)
                k.following.append(_multiplied(f, kind, many, vectors[p], k.carried[row * len(pieces) + p]))
    for row in range(rows):
        address = f.element(f.real, product.out, f.calculated("mul", f.calculated("add", i, row), product.n_columns))
        address = f.element(f.real, address, column)
        for p, ((start, _), kind) in enumerate(zip(pieces, kinds, strict=True)):
            place, value = f.element(f.real, address, start), k.carried[row * len(pieces) + p]
            f.do(f"store {kind} {product.finished(kind, value)}, ptr {place}, align {f.size}")


def _by_dot_products(f: Function, product: Product, first_column: int = 0) -> None:
    """Print vectors along k, summed at the end: the rows of both operands are contiguous in k."""
    for rows, first, end in _in_rows(f, product, (4, 2, 1)):
        width = {4: 3, 2: 4, 1: 6}[rows]
        n, rest = product.n_columns, (product.n_columns - first_column) % width
        start, stop = product.columns or (str(first_column), str(n))
        end_of_whole: str | int = n - rest
        if product.columns is not None and rest:
            end_of_whole = f.let(f"call i64 @llvm.smin.i64(i64 {stop}, i64 {n - rest})")
        elif product.columns is not None:
            end_of_whole = stop
        with f.loop(start, end_of_whole, width, as_is=True) as j, f.loop(first, end, rows, as_is=True) as i:
            _row_tile(f, product, i.index, rows, j.index, width)
        if rest:
            is_mine = nullcontext() if product.columns is None else f.when(f.let(f"icmp eq i64 {stop}, {n}"))
            with is_mine, f.loop(first, end, rows, as_is=True) as i:
                _row_tile(f, product, i.index, rows, str(n - rest), rest)


def _row_tile(f: Function, product: Product, i: str, rows: int, j: str, columns: int) -> None:
    """Print a tile of rows x columns of the result, each a sum along k."""
    lanes, n_inner = _lanes(f), int(product.n_inner)
    kind = _vector(f, lanes)
    lefts = [_at(f, product.left, f.calculated("add", i, row), 0) for row in range(rows)]
    rights = [_at(f, product.right, 0, f.calculated("add", j, column)) for column in range(columns)]
    with f.loop(
        0, n_inner // lanes * lanes, lanes, carried=[(kind, "zeroinitializer")] * (rows * columns), as_is=True
    ) as k:
        k.following = _row_turn(f, k.carried, lefts, rights, k.index, None)
    sums = k.carried
    if n_inner % lanes:  # the last vector overlaps the one before it; a mask drops the overlap
        fresh = ", ".join(f"i1 {'true' if lane >= lanes - n_inner % lanes else 'false'}" for lane in range(lanes))
        sums = _row_turn(f, sums, lefts, rights, str(n_inner - lanes), f"<{fresh}>")
    for column in range(columns):
        total = _summed(f, [sums[row * columns + column] for row in range(rows)], lanes)
        at_column = f.calculated("add", j, column)
        bias = None
        if product.bias is not None:
            bias = f.let(f"load {f.real}, ptr {f.element(f.real, product.bias, at_column)}")
        for row in range(rows):
            value = total if rows == 1 else f.let(f"extractelement {_vector(f, rows)} {total}, i64 {row}")
            if bias is not None:
                value = f.let(f"fadd {f.real} {value}, {bias}")
            place = f.calculated("mul", f.calculated("add", i, row), product.n_columns)
            address = f.element(f.real, product.out, f.calculated("add", place, at_column))
            f.do(f"store {f.real} {product.finished(f.real, value)}, ptr {address}")


def _row_turn(f: Function, sums: list[str], lefts: list[str], rights: list[str], k: str, mask: str | None) -> list[str]:
    """Print one vector along k of each row and column; returns the new sums."""
    kind = _vector(f, _lanes(f))

    def loaded(address: str) -> str:
        value = f.let(f"load {kind}, ptr {f.element(f.real, address, k)}, align {f.size}")
        if mask is None:
            return value
        return f.let(f"select <{_lanes(f)} x i1> {mask}, {kind} {value}, {kind} zeroinitializer")

    left, right = [loaded(address) for address in lefts], [loaded(address) for address in rights]
    pairs = [(one, other) for one in left for other in right]
    return [_multiplied(f, kind, one, other, total) for (one, other), total in zip(pairs, sums, strict=True)]


def _summed(f: Function, vectors: list[str], lanes: int) -> str:
    """Return the sums of four, two or one vectors, as one vector of their number (for one, a number)."""
    kind = _vector(f, lanes)
    if len(vectors) == 1:
        zero = "0x8000000000000000"  # -0.0, which changes nothing
        function = f"@llvm.vector.reduce.fadd.{_suffix(f, lanes)}"
        return f.let(f"call {FAST_MATH_FLAGS} {f.real} {function}({f.real} {zero}, {kind} {vectors[0]})")
    step = 1
    while len(vectors) > 1:  # two vectors become one of the sums of neighbours
        vectors = [_paired(f, one, other, lanes, step) for one, other in zip(vectors[::2], vectors[1::2], strict=True)]
        step *= 2
    total, width = vectors[0], lanes
    while width > step:
        halves = [
            f.let(
                f"shufflevector {_vector(f, width)} {total}, {_vector(f, width)} poison, "
                f"{_mask(range(start, start + width // 2))}"
            )
            for start in (0, width // 2)
        ]
        width //= 2
        total = f.let(f"fadd {_vector(f, width)} {halves[0]}, {halves[1]}")
    return total


def _paired(f: Function, one: str, other: str, lanes: int, step: int) -> str:
    """Return the sums of neighbours `step` apart, alternately from one vector and the other."""
    firsts = [lane // step % 2 * lanes + lane // (2 * step) * 2 * step + lane % step for lane in range(lanes)]
    kind = _vector(f, lanes)
    parts = [
        f.let(f"shufflevector {kind} {one}, {kind} {other}, {_mask(lane + shift for lane in firsts)}")
        for shift in (0, step)
    ]
    return f.let(f"fadd {kind} {parts[0]}, {parts[1]}")


def _one_by_one(f: Function, product: Product) -> None:
    """Print the plain triple loop, for small or unusual shapes."""
    with f.loop(product.first, product.last) as i, f.loop(0, product.n_columns) as j:
        start = "0x0000000000000000"
        if product.bias is not None:
            start = f.let(f"load {f.real}, ptr {f.element(f.real, product.bias, j.index)}")
        with f.loop(0, product.n_inner, carried=[(f.real, start)]) as k:
            one = f.let(f"load {f.real}, ptr {_at(f, product.left, i.index, k.index)}")
            other = f.let(f"load {f.real}, ptr {_at(f, product.right, k.index, j.index)}")
            multiplied = f.let(f"fmul {FAST_MATH_FLAGS} {f.real} {one}, {other}")
            k.following = [f.let(f"fadd {FAST_MATH_FLAGS} {f.real} {k.carried[0]}, {multiplied}")]
        place = f.calculated("add", f.calculated("mul", i.index, product.n_columns), j.index)
        value = product.finished(f.real, k.carried[0])
        f.do(f"store {f.real} {value}, ptr {f.element(f.real, product.out, place)}")


def _vector(f: Function, width: int) -> str:
    return f"<{width} x {f.real}>"


def _suffix(f: Function, width: int) -> str:
    return f"v{width}f{8 * f.size}"


def _mask(lanes: range | Iterator[int]) -> str:
    numbers = list(lanes)
    return f"<{len(numbers)} x i32> <{', '.join(f'i32 {lane}' for lane in numbers)}>"


def _broadcast(f: Function, number: str, width: int) -> str:
    kind = _vector(f, width)
    one = f.let(f"insertelement {kind} poison, {f.real} {number}, i64 0")
    return f.let(f"shufflevector {kind} {one}, {kind} poison, <{width} x i32> zeroinitializer")


def _multiplied(f: Function, kind: str, one: str, other: str, total: str) -> str:
    """Return one * other + total, rounded once where the machine can."""
    return f.let(f"fadd contract {kind} {f.let(f'fmul contract {kind} {one}, {other}')}, {total}")
