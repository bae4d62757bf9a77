"""Adam and two relatives."""

from __future__ import annotations

from collections.abc import Sequence

import mlxlite.core as mx

from .base import Optimizer, Schedule


class Adam(Optimizer):
    """Steps along a running mean of the gradients, over the root of a running mean of their squares.

    m = b1 * m + (1 - b1) * gradient; v = b2 * v + (1 - b2) * gradient**2; the step is learning_rate * m /
    (sqrt(v) + eps). State of a parameter: m and v, zeros at first.

    Args:
        learning_rate: a number, or a function of the step.
        betas: how much of the two running means is kept, (b1, b2).
        eps: keeps the divisor from 0.
        bias_correction: whether m is divided by 1 - b1**step and v by 1 - b2**step, as in the paper. Off by default,
            as in MLX: the first steps are then longer than learning_rate.

    Raises:
        ValueError: a beta is not in [0, 1), or eps is negative.

    Source: Kingma and Ba, Adam: a method for stochastic optimization, 2015, arXiv:1412.6980.

    >>> optimizer = Adam(learning_rate=0.5, bias_correction=True)
    >>> round(optimizer.apply_gradients({"w": mx.array(4.0)}, {"w": mx.array(3.0)})["w"].item(), 3)
    2.5
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        bias_correction: bool = False,
    ) -> None:
        super().__init__()
        self._check_betas(betas)
        self._check_not_negative(eps=eps)
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.eps = eps
        self.bias_correction = bias_correction

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros_like(parameter)
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        b1, b2 = self.betas
        m = b1 * state["m"] + (1 - b1) * gradient
        v = b2 * state["v"] + (1 - b2) * mx.square(gradient)
        state["m"], state["v"] = m, v
        if not self.bias_correction:
            return parameter - learning_rate * m / (mx.sqrt(v) + self.eps)
        # The corrections are float32, whatever the parameter is: 1 - b2**step is 0 in 16 bits at first.
        dtype = gradient.dtype
        c1 = self._once("c1", dtype, lambda: (learning_rate / (1 - b1**self.step)).astype(dtype))
        c2 = self._once("c2", dtype, lambda: mx.rsqrt(1 - b2**self.step).astype(dtype))
        return parameter - c1 * m / (mx.sqrt(v) * c2 + self.eps)


class AdamW(Adam):
    """Adam, with parameters that also shrink by learning_rate * weight_decay of themselves at each step.

    Args:
        learning_rate, betas, eps, bias_correction: as for `Adam`.
        weight_decay: not divided by the running mean, unlike a penalty in the gradient.

    Raises:
        ValueError: as for `Adam`.

    Source: Loshchilov and Hutter, Decoupled weight decay regularization, 2019, arXiv:1711.05101.

    >>> optimizer = AdamW(learning_rate=0.5, weight_decay=0.5)
    >>> optimizer.apply_gradients({"w": mx.array(0.0)}, {"w": mx.array(4.0)})
    {'w': array(3, dtype=float32)}
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        bias_correction: bool = False,
    ) -> None:
        super().__init__(learning_rate, betas, eps, bias_correction)
        self.weight_decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        kept = self._once("kept", gradient.dtype, lambda: 1 - learning_rate * self.weight_decay)
        return super().apply_single(gradient, parameter * kept, state)


class Adamax(Adam):
    """Adam with a decaying maximum of |gradient| in the place of the root of a mean of squares.

    v = max(b2 * v, |gradient|); the step is learning_rate * m / (v + eps), with no bias correction.

    Args:
        learning_rate, betas, eps: as for `Adam`.

    Raises:
        ValueError: as for `Adam`.

    Source: Kingma and Ba, Adam: a method for stochastic optimization, 2015, section 7.1.

    >>> optimizer = Adamax(learning_rate=1.0, betas=(0.5, 0.5))
    >>> optimizer.apply_gradients({"w": mx.array(4.0)}, {"w": mx.array(3.0)})
    {'w': array(2.5, dtype=float32)}
    """

    def __init__(
        self, learning_rate: float | mx.array | Schedule, betas: Sequence[float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(learning_rate, betas, eps)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        learning_rate = self._learning_rate(gradient.dtype)
        b1, b2 = self.betas
        m = b1 * state["m"] + (1 - b1) * gradient
        v = mx.maximum(b2 * state["v"], mx.abs(gradient))
        state["m"], state["v"] = m, v
        return parameter - learning_rate * m / (v + self.eps)
