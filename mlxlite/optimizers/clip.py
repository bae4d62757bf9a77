"""Bounding the size of gradients."""

from __future__ import annotations

from typing import Any

import mlxlite.core as mx

from ..utils import tree_map, tree_reduce


def clip_grad_norm(grads: Any, max_norm: float) -> tuple[Any, mx.array]:
    """Scales all gradients down, by one factor, if together they are longer than max_norm.

    Args:
        grads: a tree of arrays.
        max_norm: the greatest length that is left as it is.

    Returns:
        The tree with gradients of the same dtypes, and the length before: the root of the sum of all squares.

    Raises:
        ValueError: max_norm is negative.

    Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013.

    >>> _, norm = clip_grad_norm({"w": mx.array([3.0, 4.0])}, max_norm=1.0)
    >>> norm
    array(5, dtype=float32)
    """
    if max_norm < 0:
        raise ValueError(f"max_norm should be >=0, {max_norm} was provided instead")

    def squares(gradient: mx.array) -> mx.array:
        # 256**2 is more than float16 holds.
        wide = gradient.astype(mx.float32) if gradient.dtype == mx.float16 else gradient
        return mx.sum(mx.square(wide))

    norm = mx.sqrt(tree_reduce(lambda total, gradient: total + squares(gradient), grads, 0.0))
    factor = mx.minimum(max_norm / (norm + 1e-6), 1.0)

    def scaled(gradient: mx.array) -> mx.array:
        # Multiplied before it is rounded: the factor may be less than 16 bits hold.
        product = gradient * factor
        return product.astype(gradient.dtype) if mx.issubdtype(gradient.dtype, mx.floating) else product

    return tree_map(scaled, grads), norm
