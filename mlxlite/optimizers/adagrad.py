"""Adagrad."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Optimizer, Schedule


class Adagrad(Optimizer):
    """Divides each gradient by the root of the sum of all its squares so far.

    v = v + gradient**2; the step is learning_rate * gradient / (sqrt(v) + eps). State of a parameter: v, zeros at
    first.

    Args:
        learning_rate: a number, or a function of the step.
        eps: keeps the divisor from 0.

    Raises:
        ValueError: eps is not positive.

    Source: Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and stochastic optimization, 2011.

    >>> optimizer = Adagrad(learning_rate=1.0)
    >>> optimizer.apply_gradients({"w": mx.array(4.0)}, {"w": mx.array(3.0)})
    {'w': array(2, dtype=float32)}
    """

    def __init__(self, learning_rate: float | mx.array | Schedule, eps: float = 1e-8) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self._check_positive(eps=eps)
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        v = state["v"] + mx.square(gradient)
        state["v"] = v
        return parameter - learning_rate * gradient / (mx.sqrt(v) + self.eps)
