"""Ops along some axes as ops on rows: those axes go last and are merged, all others are merged into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .builder import Builder, Operand
from .elementwise import collapse
from .plan import View
from .sym import Sym


@dataclass
class Rows:
    """`rows` rows of `n` elements; an element is next to the one before, rows are `stride` apart."""

    view: View
    rows: Sym
    n: Sym
    stride: Sym

    @property
    def operand(self) -> Operand:
        """For a kernel whose loop dims are the rows and the elements."""
        return Operand(self.view, (self.stride, 1))


def permuted(view: View, order: Sequence[int]) -> View:
    """The view with its dims in another order."""
    dims, strides = tuple(view.dims[d] for d in order), tuple(view.strides[d] for d in order)
    return View(view.buffer, view.dtype, view.offset, dims, strides)


def _order(rank: int, axes: Sequence[int]) -> list[int]:
    return [d for d in range(rank) if d not in axes] + list(axes)


def _inverse(order: Sequence[int]) -> list[int]:
    return [order.index(d) for d in range(len(order))]


def _merged(b: Builder, view: View, n_axes: int) -> Rows | None:
    """The permuted view as rows, if its strides allow."""
    cut = len(view.dims) - n_axes
    rows, (row_strides,) = collapse(b, view.dims[:cut], [view.strides[:cut]])
    inner, (strides,) = collapse(b, view.dims[cut:], [view.strides[cut:]])
    if len(rows) != 1 or len(inner) != 1 or not (strides[0] == 1 or inner[0].const == 1):
        return None
    stride = inner[0] if rows[0].const == 1 else row_strides[0]
    return Rows(view, rows[0], inner[0], stride)


def read_rows(b: Builder, j: int, axes: Sequence[int], packed: bool = False) -> Rows:
    """Operand j as rows along `axes`, copied if strides do not allow it or, if `packed`, if rows are not adjacent."""
    view = b.read(j)
    order = _order(len(view.dims), axes)
    found = _merged(b, permuted(view, order), len(axes))
    if found is None or (packed and found.stride != found.n):
        copy = b.copied(j, f"rows along {tuple(axes)}", permuted(view, order))
        b.reads_as(j, permuted(copy, _inverse(order)))
        found = _merged(b, copy, len(axes))
        assert found is not None
    return found


def result_rows(b: Builder, i: int, axes: Sequence[int]) -> View:
    """Packed memory for the result of node i, as rows along `axes`."""
    dims = b.dims(i)
    order = _order(len(dims), axes)
    memory = b.new([dims[d] for d in order], b.dtype(i))
    b.define(i, permuted(memory, _inverse(order)))
    return memory
