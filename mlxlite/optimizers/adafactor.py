"""Adafactor."""

from __future__ import annotations

from typing import Any

import mlxlite.core as mx

from .base import Optimizer, Schedule


def _root_mean_square(a: mx.array) -> mx.array:
    return mx.sqrt(mx.mean(mx.square(a)))


def _rsqrt_of_product(rows: mx.array, columns: mx.array) -> mx.array:
    """1 / sqrt of the matrix whose row means are `rows` and whose column means are `columns`, taken to be of rank 1."""
    rows = mx.rsqrt(rows / mx.mean(rows, axis=-1, keepdims=True))
    return mx.expand_dims(rows, -1) * mx.expand_dims(mx.rsqrt(columns), -2)


class Adafactor(Optimizer):
    """Adam's divisor in the memory of a row and a column: running means of the squared gradients' rows and columns.

    State of a parameter: for a matrix (..., R, C) "exp_avg_sq_row" (..., R) and "exp_avg_sq_col" (..., C), for a
    vector "exp_avg_sq" of its shape; with `beta_1` also "exp_avg" of the parameter's shape. Zeros at first.

    Args:
        learning_rate: a number, a function of the step, or None with `relative_step`.
        eps: added to squared gradients; and the least root mean square that a parameter counts with.
        clip_threshold: an update whose root mean square is above it is scaled down to it.
        decay_rate: the running means keep 1 - step**decay_rate of what they are.
        beta_1: how much of a running mean of the updates is kept; None for the update itself.
        weight_decay: a multiple of the learning rate by which parameters shrink.
        scale_parameter: whether the learning rate is multiplied by the parameter's root mean square.
        relative_step: whether the learning rate is min(1e-2, 1 / sqrt(step)) and not `learning_rate`.
        warmup_init: whether 1e-6 * step takes the place of 1e-2 there.

    Raises:
        KeyError: at an update, with neither a learning rate nor `relative_step`.

    Source: Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018, arXiv:1804.04235.

    >>> optimizer = Adafactor(learning_rate=0.5, relative_step=False, scale_parameter=False)
    >>> optimizer.apply_gradients({"w": mx.array([4.0])}, {"w": mx.array([3.0])})
    {'w': array([2.5], dtype=float32)}
    """

    def __init__(
        self,
        learning_rate: float | mx.array | Schedule | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta_1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        super().__init__()
        if learning_rate is not None:
            self._maybe_schedule("learning_rate", learning_rate)
        self.eps = eps
        self.clip_threshold = clip_threshold
        self.decay_rate = decay_rate
        self.beta_1 = beta_1
        self.weight_decay = weight_decay
        self.scale_parameter = scale_parameter
        self.relative_step = relative_step
        self.warmup_init = warmup_init

    def init_single(self, parameter: mx.array, state: dict) -> None:
        shape, dtype = parameter.shape, parameter.dtype
        if len(shape) >= 2:
            state["exp_avg_sq_row"] = mx.zeros(shape[:-1], dtype)
            state["exp_avg_sq_col"] = mx.zeros((*shape[:-2], shape[-1]), dtype)
        else:
            state["exp_avg_sq"] = mx.zeros_like(parameter)
        if self.beta_1 is not None:
            state["exp_avg"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        size = _root_mean_square(parameter)
        learning_rate = self._step_size(size)
        kept = 1.0 - (self.step**self.decay_rate).astype(size.dtype)
        squares = mx.square(gradient) + self.eps[0]

        def averaged(name: str, new: mx.array) -> mx.array:
            state[name] = kept * state[name] + (1 - kept) * new
            return state[name]

        if gradient.ndim >= 2:
            rows = averaged("exp_avg_sq_row", mx.mean(squares, axis=-1))
            columns = averaged("exp_avg_sq_col", mx.mean(squares, axis=-2))
            update = _rsqrt_of_product(rows, columns) * gradient
        else:
            update = mx.rsqrt(averaged("exp_avg_sq", squares)) * gradient
        update = learning_rate * (update / mx.maximum(1.0, _root_mean_square(update) / self.clip_threshold))
        if self.beta_1 is not None:
            update = self.beta_1 * state["exp_avg"] + (1 - self.beta_1) * update
            state["exp_avg"] = update
        if self.weight_decay != 0:
            parameter = parameter + parameter * (-self.weight_decay * learning_rate)
        return parameter - update

    def _step_size(self, size: mx.array) -> Any:
        """The learning rate of a parameter whose root mean square is `size`."""
        if self.relative_step:
            most = 1e-6 * self.step if self.warmup_init else 1e-2
            step_size = mx.minimum(most, mx.rsqrt(self.step))
        else:
            step_size = self.learning_rate
        step_size = step_size.astype(size.dtype)
        return mx.maximum(self.eps[1], size) * step_size if self.scale_parameter else step_size
