"""AdaDelta."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Optimizer, Schedule


class AdaDelta(Optimizer):
    """Scales each gradient by the ratio of two running means: of squared steps and of squared gradients.

    v = rho * v + (1 - rho) * gradient**2; d = sqrt(u + eps) / sqrt(v + eps) * gradient; u = rho * u + (1 - rho) * d**2;
    the step is learning_rate * d. State of a parameter: v and u, zeros at first.

    Args:
        learning_rate: a number, or a function of the step; 1 gives the paper's rule.
        rho: how much of the running means is kept.
        eps: keeps the divisor from 0, and the first steps from being 0.

    Raises:
        ValueError: rho is negative, or eps is not positive.

    Source: Zeiler, ADADELTA: an adaptive learning rate method, 2012, arXiv:1212.5701.

    >>> optimizer = AdaDelta(learning_rate=1.0, rho=0.75, eps=1.0)
    >>> optimizer.apply_gradients({"w": mx.array(0.0)}, {"w": mx.array(3.0)})
    {'w': array(3, dtype=float32)}
    """

    def __init__(self, learning_rate: float | mx.array | Schedule, rho: float = 0.9, eps: float = 1e-6) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self._check_not_negative(rho=rho)
        self._check_positive(eps=eps)
        self.rho = rho
        self.eps = eps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)
        state["u"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        u = state["u"]
        v = self.rho * state["v"] + (1 - self.rho) * mx.square(gradient)
        d = mx.sqrt(u + self.eps) / mx.sqrt(v + self.eps) * gradient
        state["v"] = v
        state["u"] = self.rho * u + (1 - self.rho) * mx.square(d)
        return parameter - learning_rate * d
