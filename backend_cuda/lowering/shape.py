"""Views as strides, and the ops that only move elements."""

from __future__ import annotations

import itertools

from .analysis import Analysis, Dims, dim_rule
from .builder import Builder, lowers, view_rule
from .plan import View, row_major
from .sym import Sym

# ---- dims


@dim_rule("reshape")
def _reshape_dims(a: Analysis, i: int) -> Dims:
    """Each run of input dims has the product of its run of output dims; one unknown of them follows from the others."""
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    dims = [a.fresh(i, d) for d in range(len(node.shape))]
    for i0, i1, o0, o1 in node.static[0]:
        if any(d.const == 0 for d in (*source[i0:i1], *dims[o0:o1])):
            continue  # of no elements: one size says nothing about another
        before = a.numel(source[i0:i1])
        unknown = [d for d in range(o0, o1) if dims[d].const is None]
        if len(unknown) == 1:
            dims[unknown[0]] = before
        elif unknown:
            a.table.equate(before, a.numel(dims[o0:o1]))
    return tuple(dims)


@dim_rule("transpose")
def _transpose_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    return tuple(source[p] for p in node.static[0])


@dim_rule("broadcast_to")
def _broadcast_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    first = len(node.shape) - len(source)
    return tuple(
        source[d - first] if d >= first and source[d - first].const != 1 else a.fresh(i, d)
        for d in range(len(node.shape))
    )


@dim_rule("slice")
def _slice_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    source = a.dims[node.inputs[0]]
    dims = tuple(source[d] if how == 0 else a.fresh(i, d) for d, how in enumerate(node.static[0]))
    if len(node.static) > 1:
        axis, _, parts = node.static[1]
        a.table.equate(source[axis], dims[axis] * parts)
    return dims


@dim_rule("concatenate")
def _concatenate_dims(a: Analysis, i: int) -> Dims:
    node = a.nodes[i]
    (axis,) = node.static
    parts = [a.dims[j] for j in node.inputs]
    dims = list(parts[0])
    for part in parts[1:]:
        for d in range(len(dims)):
            if d != axis:
                a.table.equate(dims[d], part[d])
    total = a.table.lift(0)
    for part in parts:
        total = total + part[axis]
    dims[axis] = total
    return tuple(dims)


@dim_rule("copy")
def _same_dims(a: Analysis, i: int) -> Dims:
    return a.dims[a.nodes[i].inputs[0]]


# ---- views


@view_rule("transpose")
def _transpose(b: Builder, i: int) -> View:
    node = b.tape_nodes[i]
    view = b.value(node.inputs[0])
    strides = tuple(view.strides[p] for p in node.static[0])
    return View(view.buffer, view.dtype, view.offset, b.dims(i), strides)


@view_rule("broadcast_to")
def _broadcast_to(b: Builder, i: int) -> View:
    view = b.value(b.tape_nodes[i].inputs[0])
    dims = b.dims(i)
    zero = b.lift(0)
    strides = [zero] * (len(dims) - len(view.dims))
    strides += [zero if d.const == 1 else s for d, s in zip(view.dims, view.strides, strict=True)]
    return View(view.buffer, view.dtype, view.offset, dims, tuple(strides))


@view_rule("slice")
def _slice(b: Builder, i: int) -> View:
    node = b.tape_nodes[i]
    view = b.value(node.inputs[0])
    starts = b.ints(i)
    if len(node.static) > 1:  # one of equal parts
        axis, index, _ = node.static[1]
        starts[axis] = b.dims(i)[axis] * index
    return sliced(b, view, node.static[0], starts, b.dims(i))


def sliced(b: Builder, view: View, mask: tuple[int, ...], ints: list[Sym], dims: Dims) -> View:
    """The part of a view that starts and steps select."""
    rank = len(mask)
    offset = view.offset
    strides = []
    for d, how in enumerate(mask):
        if how == 0:
            strides.append(view.strides[d])
            continue
        offset = offset + ints[d] * view.strides[d]
        strides.append(view.strides[d] if how == 1 else view.strides[d] * ints[rank + d])
    return View(view.buffer, view.dtype, offset, dims, tuple(strides))


@view_rule("reshape")
def _reshape(b: Builder, i: int) -> View:
    node = b.tape_nodes[i]
    view = b.value(node.inputs[0])
    strides = _reshaped_strides(b, view, b.dims(i), node.static[0])
    if strides is None:
        view = b.contiguous(node.inputs[0])
        strides = list(row_major(b.table, b.dims(i)))
    return View(view.buffer, view.dtype, view.offset, b.dims(i), tuple(strides))


def _reshaped_strides(b: Builder, view: View, dims: Dims, groups: tuple[tuple[int, ...], ...]) -> list[Sym] | None:
    """The strides of the reshaped view, or None if it needs a copy."""
    strides: list[Sym] = [b.lift(0)] * len(dims)
    for i0, i1, o0, o1 in groups:
        inner = [d for d in range(i0, i1) if view.dims[d].const != 1]
        outer = [d for d in range(o0, o1) if dims[d].const != 1]
        if not inner:
            step = view.strides[i1 - 1] if i1 > i0 else b.lift(1)
            for d in range(o0, o1):
                strides[d] = step
            continue
        if [view.dims[d] for d in inner] == [dims[d] for d in outer]:
            for d, s in zip(outer, inner, strict=True):
                strides[d] = view.strides[s]
        else:
            # The run must step through memory as one dim does.
            for d, following in itertools.pairwise(inner):
                if view.strides[d] != view.strides[following] * view.dims[following]:
                    return None
            step = view.strides[inner[-1]]
            for d in reversed(outer):
                strides[d] = step
                step = step * dims[d]
        for d in range(o0, o1):
            if dims[d].const == 1:
                later = [e for e in outer if e > d]
                strides[d] = strides[later[0]] * dims[later[0]] if later else view.strides[inner[-1]]
    return strides


# ---- copies


@lowers("copy")
def _copy(b: Builder, i: int) -> None:
    b.copy(b.value(b.tape_nodes[i].inputs[0]), b.result(i))


@lowers("concatenate")
def _concatenate(b: Builder, i: int) -> None:
    node = b.tape_nodes[i]
    (axis,) = node.static
    parts = [b.value(j) for j in node.inputs if not b.analysis.is_empty(j)]
    if parts and _follow_one_another(b, parts, axis):
        first = parts[0]
        b.define(i, View(first.buffer, first.dtype, first.offset, b.dims(i), first.strides))
        return
    out = b.result(i)
    offset = out.offset
    for j in node.inputs:
        if not b.analysis.is_empty(j):
            view = b.value(j)
            b.copy(view, View(out.buffer, out.dtype, offset, view.dims, out.strides))
            offset = offset + view.dims[axis] * out.strides[axis]


def _follow_one_another(b: Builder, parts: list[View], axis: int) -> bool:
    """Whether results of this plan lie in memory as they are to be put together: what was split and not moved since."""
    for before, after in itertools.pairwise(parts):
        same = before.buffer is after.buffer and before.buffer.kind == "arena" and before.dtype == after.dtype
        if not same or before.offset + before.dims[axis] * before.strides[axis] != after.offset:
            return False
        if any(
            x != y
            for d, (x, y) in enumerate(zip(before.strides, after.strides, strict=True))
            if d == axis or before.dims[d].const != 1
        ):
            return False
    return len(parts) > 1


@lowers("view")
def _reinterpret(b: Builder, i: int) -> None:
    """A copy: a part of memory that begins anywhere need not be aligned as the new dtype wants it."""
    source = b.value(b.tape_nodes[i].inputs[0])
    out = b.result(i)
    b.copy(source, View(out.buffer, source.dtype, out.offset, source.dims, row_major(b.table, source.dims)))
