"""RMSprop."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Optimizer, Schedule


class RMSprop(Optimizer):
    """Divides each gradient by the root of a running mean of its squares.

    v = alpha * v + (1 - alpha) * gradient**2; the step is learning_rate * gradient / (sqrt(v) + eps). State of a
    parameter: v, zeros at first.

    Args:
        learning_rate: a number, or a function of the step.
        alpha: how much of the running mean is kept.
        eps: keeps the divisor from 0.

    Raises:
        ValueError: alpha is negative, or eps is not positive.

    Source: Tieleman and Hinton, lecture 6.5 of Neural networks for machine learning, 2012.

    >>> optimizer = RMSprop(learning_rate=0.1)
    >>> round(optimizer.apply_gradients({"w": mx.array(4.0)}, {"w": mx.array(3.0)})["w"].item(), 3)
    2.0
    """

    def __init__(self, learning_rate: float | mx.array | Schedule, alpha: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self._check_not_negative(alpha=alpha)
        self._check_positive(eps=eps)
        self.alpha = alpha
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        v = self.alpha * state["v"] + (1 - self.alpha) * mx.square(gradient)
        state["v"] = v
        return parameter - learning_rate * gradient / (mx.sqrt(v) + self.eps)
