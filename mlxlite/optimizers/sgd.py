"""Stochastic gradient descent."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Optimizer, Schedule


class SGD(Optimizer):
    """Steps against the gradient, or against a running sum of gradients.

    With momentum, v = momentum * v + (1 - dampening) * gradient, and the step is learning_rate * v; with Nesterov's
    variant it is learning_rate * (gradient + momentum * v). State of a parameter: v, zeros at first.

    Args:
        learning_rate: a number, or a function of the step.
        momentum: how much of v is kept; none for 0.
        weight_decay: times the parameter, added to the gradient.
        dampening: how much of the gradient is left out of v.
        nesterov: whether to look ahead by one step of momentum.

    Raises:
        ValueError: `nesterov` without momentum or with dampening.

    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.

    >>> optimizer = SGD(learning_rate=0.5)
    >>> optimizer.apply_gradients({"w": mx.array(2.0)}, {"w": mx.array(3.0)})
    {'w': array(2, dtype=float32)}
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening.")
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.dampening = dampening
        self.nesterov = nesterov

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if self.weight_decay != 0:
            gradient = gradient + self.weight_decay * parameter
        learning_rate = self._learning_rate(gradient.dtype)
        if self.momentum <= 0:
            return parameter - learning_rate * gradient
        added = (1 - self.dampening) * gradient if self.dampening > 0 else gradient
        v = self.momentum * state["v"] + added
        state["v"] = v
        direction = gradient + self.momentum * v if self.nesterov else v
        return parameter - learning_rate * direction
