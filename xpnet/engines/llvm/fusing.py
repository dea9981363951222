"""Fuse the addition of a bias, an activation and the update of the weights into the products before them."""

from __future__ import annotations

from dataclasses import replace

from xpnet.engines.llvm.sharing import Sharing
from xpnet.engines.llvm.units import FusedUpdate, WorkUnit
from xpnet.engines.llvm.words import OF_VECTORS
from xpnet.program.calls import Buffer, Operand
from xpnet.program.grouping import direction
from xpnet.program.places import is_read_after

STRIP_UNIT, STRIP_FLOATS = 8, 8192  # a strip of gradient has a multiple of these rows, and about these elements


def strip_rows(n_columns: int) -> int:
    """Return the rows of a strip: a few tiles that stay in a near cache."""
    return max(STRIP_UNIT, STRIP_FLOATS // n_columns // STRIP_UNIT * STRIP_UNIT)


def fuse_ends(sharing: Sharing, units: list[WorkUnit]) -> list[WorkUnit]:
    """Fuse into each product what follows it on its result: a vector added to its rows, and words with a number."""
    fused: list[WorkUnit] = []
    for unit in units:
        product, rest = (fused[-1] if fused else unit), unit
        bias = _bias(product, rest)
        if bias is not None:
            product, rest = replace(product, bias=bias), _without_first(rest)
        while _finishes(sharing, product, rest):
            product, rest = replace(product, finish=(*product.finish, rest.group.steps[0])), _without_first(rest)
        if rest is not unit:
            fused[-1] = product
        if rest.calls:
            fused.append(rest)
    return fused


def _follows(product: WorkUnit, unit: WorkUnit) -> bool:
    """Return whether the calls of a unit may follow those of a compiled product, within its loops."""
    is_product = product.group.kind == "product" and not product.by_library
    return is_product and product is not unit and product.phase == unit.phase and bool(unit.calls)


def _without_first(unit: WorkUnit) -> WorkUnit:
    return replace(unit, group=replace(unit.group, steps=unit.group.steps[1:]), calls=unit.calls[1:])


def _finishes(sharing: Sharing, product: WorkUnit, unit: WorkUnit) -> bool:
    """Return whether the first call of a unit is on each element of a compiled product's result, and one number."""
    if not _follows(product, unit):
        return False
    call, made = unit.call, product.call.out
    if call.word not in OF_VECTORS or isinstance(call.inputs[1], Operand) or sharing.sizes.varies(unit.index, 1):
        return False
    places = {(item.buffer.place, item.shape) for item in (*call.operands, call.out, made)}
    return len(places) == 1


def _bias(product: WorkUnit, unit: WorkUnit) -> Operand | None:
    """Return the vector that a unit first adds to each row of a compiled product; None if it adds none."""
    if not _follows(product, unit) or product.bias is not None or product.finish or unit.call.word != "add":
        return None
    call = unit.call
    (one, other), made = call.inputs, product.call.out
    if not isinstance(one, Operand) or not isinstance(other, Operand) or direction(call, other) != "along rows":
        return None
    places = {(item.buffer.place, item.shape) for item in (one, call.out, made)}
    return other if len(places) == 1 else None


def fuse_updates(sharing: Sharing, units: list[WorkUnit]) -> list[WorkUnit]:
    """Fuse the update of the weights into the products that make their gradient, which then stays in cache."""
    for at in range(len(units)):  # only units before this one are moved
        for gradient in _read_first(units[at]):
            units = _hoisted(sharing, units, at)
            for i, product in enumerate(units[:at]):
                update = _update_of(sharing, product, units[at], gradient, units[i + 1 : at])
                if update is not None:
                    units[i] = replace(product, update=update)
                    done = (update.first, update.first + product.call.out.buffer.size)
                    units[at] = replace(units[at], done=(*units[at].done, done))
    return units


def _read_first(unit: WorkUnit) -> list[Buffer]:
    """Return the flat vectors that a unit on flat vectors reads before it writes them."""
    if unit.group.kind != "element" or any(call.out.buffer.form != "flat" for call in unit.calls):
        return []
    found: dict[int, Buffer] = {}
    written: set[int] = set()
    for call in unit.calls:
        for operand in call.operands:
            if operand.shape and operand.buffer.kind == "float" and operand.buffer.offset not in written:
                found[operand.buffer.offset] = operand.buffer
        written.add(call.out.buffer.offset)
    return list(found.values())


def _hoisted(sharing: Sharing, units: list[WorkUnit], end: int) -> list[WorkUnit]:
    """Move the units on single numbers among the first `end` as far forward as their operands allow."""
    units = list(units)
    for i in range(1, end):
        j = i
        while j and units[j].group.kind == "single" and not _depend(sharing, units[j], units[j - 1]):
            units[j - 1], units[j] = units[j], units[j - 1]
            j -= 1
    return units


def _update_of(
    sharing: Sharing, product: WorkUnit, unit: WorkUnit, gradient: Buffer, between: list[WorkUnit]
) -> FusedUpdate | None:
    """Return the part of an update that a product can do; None if it makes no gradient, or others interfere."""
    if product.group.kind != "product" or product.update is not None or product.by_library:
        return None
    out, first = product.call.out.buffer, product.call.out.buffer.offset - gradient.offset
    is_part = out.kind == "float" and 0 <= first <= gradient.size - out.size and not out.flipped
    # Threads that split it by columns have no whole rows.
    if not is_part or product.by_columns or not _is_all_that_reads(sharing, unit, gradient, product):
        return None
    update = FusedUpdate(unit.group, gradient, first, strip_rows(product.call.out.shape[1]))
    fused = replace(product, update=update)
    reads = [access for access in sharing.accesses(product) if not access.writes]
    writes = [access for access in sharing.update_accesses(fused) if access.writes]
    own = any(write.depends(read) for write in writes for read in reads)
    return None if own or any(_depend(sharing, fused, other) for other in between) else update


def _is_all_that_reads(sharing: Sharing, unit: WorkUnit, gradient: Buffer, product: WorkUnit) -> bool:
    """Return whether only the update reads the product's result, as a part of the gradient.

    Units may have moved, so all calls recorded after the product are checked.
    """
    program, out, group = sharing.program, product.call.out.buffer, {step.index for step in unit.group.steps}
    for index in range(product.index + 1, len(program.calls)):
        for buffer in (operand.buffer for operand in program.calls[index].operands):
            if buffer.overlaps(out) and not (index in group and buffer.place == gradient.place):
                return False
    return not is_read_after(program, out, unit.group.steps[-1].index)


def _depend(sharing: Sharing, one: WorkUnit, other: WorkUnit) -> bool:
    """Return whether units must keep their order, on any number of threads."""
    ones, others = sharing.accesses(one), sharing.accesses(other)
    return any(mine.depends(its) for mine in ones for its in others)
