"""Lion."""

from __future__ import annotations

from collections.abc import Sequence

import mlxlite.core as mx

from .base import Optimizer, Schedule


class Lion(Optimizer):
    """Steps of one length, in the direction of the sign of a running mean of the gradients.

    The direction is sign(b1 * m + (1 - b1) * gradient); then m = b2 * m + (1 - b2) * gradient. Parameters also shrink
    by learning_rate * weight_decay of themselves. State of a parameter: m, zeros at first.

    Steps are longer than Adam's: the paper advises a learning rate 3 to 10 times smaller, and a weight decay as many
    times larger.

    Args:
        learning_rate: a number, or a function of the step.
        betas: how much of m counts in the direction, and how much of it is kept.
        weight_decay: none for 0.

    Raises:
        ValueError: a beta is not in [0, 1).

    Source: Chen et al., Symbolic discovery of optimization algorithms, 2023, arXiv:2302.06675.

    >>> optimizer = Lion(learning_rate=0.5)
    >>> optimizer.apply_gradients({"w": mx.array(0.01)}, {"w": mx.array(3.0)})
    {'w': array(2.5, dtype=float32)}
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule,
        betas: Sequence[float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__()
        self._check_betas(betas)
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.weight_decay = weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        b1, b2 = self.betas
        m = state["m"]
        direction = mx.sign(b1 * m + (1 - b1) * gradient)
        state["m"] = b2 * m + (1 - b2) * gradient
        if self.weight_decay > 0:
            parameter = self._once("kept", gradient.dtype, lambda: 1 - learning_rate * self.weight_decay) * parameter
        return parameter - learning_rate * direction
