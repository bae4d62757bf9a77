"""Muon."""

from __future__ import annotations

import mlxlite.core as mx

from .base import Optimizer, Schedule

# The odd polynomial a x + b x**3 + c x**5 takes singular values in (0, 1] near 1: in few steps, not exactly.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def _orthogonalized(matrix: mx.array, steps: int) -> mx.array:
    """A matrix with the singular vectors of `matrix` and singular values near 1, by Newton-Schulz iterations."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix  # the products are of the smaller side
    x = x / (mx.sqrt(mx.sum(mx.square(x), keepdims=True)) + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        polynomial = mx.addmm(_B * square, square, square, alpha=_C)
        x = mx.addmm(_A * x, polynomial, x)
    return x.T if tall else x


class Muon(Optimizer):
    """Momentum whose steps are orthogonal matrices: all singular values of a step are near 1.

    v = momentum * v + (1 - momentum) * gradient. A parameter of more than two dims counts as a matrix of its first dim
    by all others. Vectors get plain momentum; they, embeddings and a model's last layer are better left to another
    optimizer (see `MultiOptimizer`). State of a parameter: v, zeros at first.

    Args:
        learning_rate: a number, or a function of the step. For a matrix taller than wide it is multiplied by the root
            of that ratio (of the last two dims).
        momentum: how much of v is kept.
        weight_decay: times the parameter, added to the gradient.
        nesterov: whether to look ahead by one step of momentum.
        ns_steps: how many Newton-Schulz iterations are made.

    Source: Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024.

    >>> optimizer = Muon(learning_rate=1.0, weight_decay=0.0)
    >>> step = optimizer.apply_gradients({"w": 100 * mx.eye(2)}, {"w": mx.zeros((2, 2))})["w"]
    >>> mx.allclose(step, -mx.eye(2), atol=0.4).item()
    True
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        nesterov: bool = True,
        ns_steps: int = 5,
    ) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.nesterov = nesterov
        self.ns_steps = ns_steps

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        if self.weight_decay != 0:
            gradient = gradient + self.weight_decay * parameter
        v = self.momentum * state["v"] + (1 - self.momentum) * gradient
        state["v"] = v
        update = gradient * (1 - self.momentum) + v * self.momentum if self.nesterov else v
        learning_rate = self._learning_rate(gradient.dtype)
        shape = update.shape
        if len(shape) >= 2:
            matrix = update if len(shape) == 2 else update.reshape(shape[0], -1)
            update = _orthogonalized(matrix, self.ns_steps).reshape(shape)
            learning_rate = learning_rate * max(1, shape[-2] / shape[-1]) ** 0.5
        return parameter - learning_rate * update
