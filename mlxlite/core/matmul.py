"""Matrix products and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from .. import _graph
from . import elementwise as ew
from . import shape as shapes
from ._registry import Dtype, array, general, is_inexact, normalize_axis, remembered, require_array, to_dtype

_matmul = general("matmul", "contraction")
_addmm = general("addmm", "contraction")


def _common_dtype(name: str, *arrays: array) -> Dtype:
    dtype = arrays[0].dtype
    for a in arrays[1:]:
        dtype = _graph.promote_types(dtype, a.dtype)
    if not is_inexact(dtype):
        given = " and ".join(a.dtype.name for a in arrays)
        raise ValueError(
            f"[{name}] Only inexact types are supported but {given} were provided which results in {dtype.name}, "
            "which is not inexact: cast with astype."
        )
    return dtype


def _product_shape(name: str, a: array, b: array) -> tuple[int, ...]:
    """The shape of a @ b for a and b of at least two dims."""
    left, right = a.shape, b.shape
    if left[-1] != right[-2]:
        raise ValueError(
            f"[{name}] Last dimension of first input with shape {left} must match second to last dimension of "
            f"second input with shape {right}."
        )
    batch = left[:-2] if left[:-2] == right[:-2] else shapes.broadcast_shapes(left[:-2], right[:-2])
    return (*batch, left[-2], right[-1])


def _as_matrices(name: str, a: array, b: array, stream: Any) -> tuple[array, array]:
    require_array(a, name)
    require_array(b, name)
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"[{name}] Got 0 dimension input. Inputs must have at least one dimension.")
    a2 = shapes.expand_dims(a, 0, stream=stream) if a.ndim == 1 else a
    b2 = shapes.expand_dims(b, 1, stream=stream) if b.ndim == 1 else b
    return a2, b2


def _drop_vector_dims(out: array, a: array, b: array, stream: Any) -> array:
    axes = ([-2] if a.ndim == 1 else []) + ([-1] if b.ndim == 1 else [])
    return shapes.squeeze(out, axes, stream=stream) if axes else out


@remembered
def matmul(a: array, b: array, /, *, stream: Any = None) -> array:
    """The matrix product.

    Args:
        a: (..., M, K), or (K,) taken as one row.
        b: (..., K, N), or (K,) taken as one column. The leading dims broadcast.
        stream: a stream or device.

    Returns:
        (..., M, N), without the dim of a vector, in the promoted dtype.

    Raises:
        ValueError: the shapes do not fit, a 0-d input, or a dtype that is not floating or complex.

    >>> mx.matmul(mx.ones((2, 3)), mx.ones((3, 2)))
    array([[3, 3],
           [3, 3]], dtype=float32)
    """
    found = _graph.try_matmul(a, b, stream)
    if found is not None:
        return found
    a2, b2 = _as_matrices("matmul", a, b, stream)
    shape = _product_shape("matmul", a2, b2)
    dtype = _common_dtype("matmul", a, b)
    out = _matmul.record((to_dtype(a2, dtype, stream), to_dtype(b2, dtype, stream)), shape, dtype, stream=stream)
    return _drop_vector_dims(out, a, b, stream)


@remembered
def addmm(c: array, a: array, b: array, /, alpha: float = 1.0, beta: float = 1.0, *, stream: Any = None) -> array:
    """beta * c + alpha * (a @ b), rounded once.

    Args:
        c: broadcasts to the product.
        a, b: as for `matmul`.
        alpha, beta: numbers; they are data, a changed one keeps the plan.
        stream: a stream or device.
    """
    alpha, beta = float(alpha), float(beta)
    found = _graph.try_addmm(c, a, b, alpha, beta, stream)
    if found is not None:
        return found
    require_array(c, "addmm")
    a2, b2 = _as_matrices("addmm", a, b, stream)
    shape = _product_shape("addmm", a2, b2)
    dtype = _common_dtype("addmm", c, a, b)
    final = shape
    if a.ndim == 1:
        final = (*final[:-2], *final[-1:])
    if b.ndim == 1:
        final = final[:-1]
    if shapes.broadcast_shapes(c.shape, final) != final:
        raise ValueError(f"[addmm] input c of shape {c.shape} must broadcast to the output shape {final}")
    # A vector operand's dim is put into c as well.
    if a.ndim == 1 and c.ndim >= (1 if b.ndim == 1 else 2):
        c = shapes.expand_dims(c, c.ndim - (0 if b.ndim == 1 else 1), stream=stream)
    if b.ndim == 1 and c.ndim:
        c = shapes.expand_dims(c, c.ndim, stream=stream)
    operands = [to_dtype(x, dtype, stream) for x in (c, a2, b2)]
    out = _addmm.record(operands, shape, dtype, floats=(alpha, beta), stream=stream)
    return _drop_vector_dims(out, a, b, stream)


@remembered
def inner(a: array, b: array, /, *, stream: Any = None) -> array:
    """Sums of products over the last dims: (..., K), (..., K) -> all other dims of a, then of b."""
    require_array(a, "inner")
    require_array(b, "inner")
    if a.ndim == 0 or b.ndim == 0:
        return ew.multiply(a, b, stream=stream)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError("[inner] a and b must have the same last dimension.")
    return tensordot(a, b, [[-1], [-1]], stream=stream)


@remembered
def outer(a: array, b: array, /, *, stream: Any = None) -> array:
    """Every product of an element of a and one of b: (a.size, b.size)."""
    require_array(a, "outer")
    require_array(b, "outer")
    column = _graph.reshape(a, [a.size, 1], stream)
    return ew.multiply(column, shapes.flatten(b, stream=stream), stream=stream)


@remembered
def kron(a: array, b: array, *, stream: Any = None) -> array:
    """The Kronecker product: every element of a replaced by it times b."""
    require_array(a, "kron")
    require_array(b, "kron")
    ndim = max(a.ndim, b.ndim)
    left = (1,) * (ndim - a.ndim) + a.shape
    right = (1,) * (ndim - b.ndim) + b.shape
    spread_left = [n for m in left for n in (m, 1)]
    spread_right = [n for m in right for n in (1, m)]
    product = ew.multiply(
        _graph.reshape(a, spread_left, stream), _graph.reshape(b, spread_right, stream), stream=stream
    )
    return _graph.reshape(product, [m * n for m, n in zip(left, right, strict=True)], stream)


@remembered
def tensordot(a: array, b: array, /, axes: int | Sequence[Sequence[int]] = 2, *, stream: Any = None) -> array:
    """Sums of products over pairs of axes.

    Args:
        a, b: arrays.
        axes: how many (the last of a with the first of b), or the axes of a and those of b.
        stream: a stream or device.

    Returns:
        The other dims of a, then of b.

    Raises:
        ValueError: the sizes of paired axes differ, or there are too many.
    """
    require_array(a, "tensordot")
    require_array(b, "tensordot")
    if isinstance(axes, int):
        if axes < 0:
            raise ValueError("[tensordot] axis must be greater or equal to 0.")
        if axes > min(a.ndim, b.ndim):
            raise ValueError("[tensordot] axis must be less than the number of dimensions of a and b.")
        of_a, of_b = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        of_a, of_b = (list(x) if isinstance(x, (tuple, list)) else [cast(int, x)] for x in axes)
        if len(of_a) != len(of_b):
            raise ValueError("[tensordot] axes must have the same size.")
        of_a = [normalize_axis(d, a.ndim, "tensordot") for d in of_a]
        of_b = [normalize_axis(d, b.ndim, "tensordot") for d in of_b]
    if any(a.shape[i] != b.shape[j] for i, j in zip(of_a, of_b, strict=True)):
        raise ValueError("[tensordot] a and b must have the same shape on the contracted axes.")
    rest_a = [d for d in range(a.ndim) if d not in of_a]
    rest_b = [d for d in range(b.ndim) if d not in of_b]
    shape_a, shape_b = [a.shape[d] for d in rest_a], [b.shape[d] for d in rest_b]
    summed = math.prod(a.shape[d] for d in of_a)
    left = _graph.reshape(shapes.transpose(a, rest_a + of_a, stream=stream), [math.prod(shape_a), summed], stream)
    right = _graph.reshape(shapes.transpose(b, of_b + rest_b, stream=stream), [summed, math.prod(shape_b)], stream)
    return _graph.reshape(matmul(left, right, stream=stream), shape_a + shape_b, stream)


ew.OPERATORS["matmul"] = matmul
