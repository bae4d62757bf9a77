"""Activation functions, and a Module class for each.

The functions take an array of any shape and return one of the same shape (but `glu`) and, for floating input, the same
dtype (but `step`, int32). They are plain compositions: a backend fuses them into one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import mlxlite.core as mx

from ..core._registry import remembered
from .base import Module

_SQRT_2 = math.sqrt(2)
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


@remembered
def relu(x: mx.array) -> mx.array:
    """max(x, 0)."""
    return mx.maximum(x, 0)


@remembered
def relu2(x: mx.array) -> mx.array:
    """max(x, 0) ** 2."""
    return mx.square(mx.maximum(x, 0))


@remembered
def relu6(x: mx.array) -> mx.array:
    """x clipped to [0, 6]."""
    return mx.minimum(mx.maximum(x, 0), 6.0)


@remembered
def leaky_relu(x: mx.array, negative_slope: float = 0.01) -> mx.array:
    """max(x, negative_slope * x)."""
    return mx.maximum(negative_slope * x, x)


@remembered
def prelu(x: mx.array, alpha: mx.array) -> mx.array:
    """x where positive, alpha * x elsewhere; alpha broadcasts."""
    return mx.maximum(0, x) + alpha * mx.minimum(0, x)


@remembered
def elu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    return mx.where(x > 0, x, alpha * (mx.exp(x) - 1))


@remembered
def celu(x: mx.array, alpha: float = 1.0) -> mx.array:
    """max(x, 0) + alpha * (exp(min(x, 0) / alpha) - 1)."""
    return mx.maximum(x, 0.0) + alpha * (mx.exp(mx.minimum(x, 0.0) / alpha) - 1)


@remembered
def selu(x: mx.array) -> mx.array:
    """1.0507 * elu(x, 1.67326)."""
    return elu(x, 1.67326) * 1.0507


@remembered
def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + exp(-x))."""
    return mx.sigmoid(x)


@remembered
def silu(x: mx.array) -> mx.array:
    """x * sigmoid(x), also known as swish."""
    return x * mx.sigmoid(x)


@remembered
def log_sigmoid(x: mx.array) -> mx.array:
    """log(sigmoid(x)), with no overflow."""
    return -softplus(-x)


@remembered
def softplus(x: mx.array) -> mx.array:
    """log(1 + exp(x)), with no overflow."""
    return mx.logaddexp(x, 0)


@remembered
def softsign(x: mx.array) -> mx.array:
    """x / (1 + |x|)."""
    return x / (1 + mx.abs(x))


@remembered
def softshrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """x moved towards 0 by lambd; 0 within lambd of it."""
    return mx.where(mx.abs(x) > lambd, x - mx.sign(x) * lambd, 0)


@remembered
def hard_shrink(x: mx.array, lambd: float = 0.5) -> mx.array:
    """x, or 0 within lambd of it."""
    return mx.where(mx.abs(x) > lambd, x, 0)


@remembered
def softmax(x: mx.array, axis: int = -1) -> mx.array:
    """exp(x), divided by its sum over the axis."""
    return mx.softmax(x, axis=axis)


@remembered
def softmin(x: mx.array, axis: int = -1) -> mx.array:
    """softmax(-x)."""
    return mx.softmax(-x, axis=axis)


@remembered
def log_softmax(x: mx.array, axis: int = -1) -> mx.array:
    """log(softmax(x)). The maximum is taken off first, or 16-bit floats would lose the result's digits."""
    x = x - mx.stop_gradient(mx.max(x, axis=axis, keepdims=True))
    return x - mx.logsumexp(x, axis=axis, keepdims=True)


@remembered
def gelu(x: mx.array) -> mx.array:
    """x * P(a standard normal variable is below x)."""
    return x * (1 + mx.erf(x / _SQRT_2)) / 2


@remembered
def gelu_approx(x: mx.array) -> mx.array:
    """gelu by a tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))."""
    return 0.5 * x * (1 + mx.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * x**3)))


@remembered
def gelu_fast_approx(x: mx.array) -> mx.array:
    """gelu by a sigmoid: x * sigmoid(1.702 x)."""
    return x * mx.sigmoid(1.702 * x)


@remembered
def glu(x: mx.array, axis: int = -1) -> mx.array:
    """The first half of x along the axis, times the sigmoid of the second half. ValueError if the dim is odd."""
    a, b = mx.split(x, 2, axis=axis)
    return a * mx.sigmoid(b)


@remembered
def tanh(x: mx.array) -> mx.array:
    """The hyperbolic tangent."""
    return mx.tanh(x)


@remembered
def hard_tanh(x: mx.array, min_val: float = -1.0, max_val: float = 1.0) -> mx.array:
    """x clipped to [min_val, max_val]."""
    return mx.minimum(mx.maximum(x, min_val), max_val)


@remembered
def hardswish(x: mx.array) -> mx.array:
    """x * clip(x + 3, 0, 6) / 6."""
    return x * mx.minimum(mx.maximum(x + 3, 0), 6) / 6


@remembered
def mish(x: mx.array) -> mx.array:
    """x * tanh(softplus(x))."""
    return x * mx.tanh(softplus(x))


@remembered
def step(x: mx.array, threshold: float = 0.0) -> mx.array:
    """1 where x >= threshold, else 0, as int32."""
    return mx.where(x >= threshold, 1, 0)


def _module(name: str, function: Callable[[mx.array], mx.array]) -> type[Module]:
    """A Module class that calls `function`."""

    def call(self: Module, x: mx.array) -> mx.array:
        return function(x)

    doc = f"`nn.{function.__name__}` as a module."
    return type(name, (Module,), {"__call__": call, "__doc__": doc, "__module__": __name__})


Hardswish = _module("Hardswish", hardswish)
HardTanh = _module("HardTanh", hard_tanh)
LogSigmoid = _module("LogSigmoid", log_sigmoid)
LogSoftmax = _module("LogSoftmax", log_softmax)
Mish = _module("Mish", mish)
ReLU = _module("ReLU", relu)
ReLU2 = _module("ReLU2", relu2)
ReLU6 = _module("ReLU6", relu6)
SELU = _module("SELU", selu)
Sigmoid = _module("Sigmoid", sigmoid)
SiLU = _module("SiLU", silu)
Softmax = _module("Softmax", softmax)
Softmin = _module("Softmin", softmin)
Softplus = _module("Softplus", softplus)
Softsign = _module("Softsign", softsign)
Tanh = _module("Tanh", tanh)


class CELU(Module):
    """`nn.celu` as a module."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._alpha = alpha

    def __call__(self, x: mx.array) -> mx.array:
        return celu(x, self._alpha)


class ELU(Module):
    """`nn.elu` as a module."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self._alpha = alpha

    def __call__(self, x: mx.array) -> mx.array:
        return elu(x, self._alpha)


class GELU(Module):
    """`nn.gelu` as a module.

    Args:
        approx: "none" for `gelu`, "precise" or "tanh" for `gelu_approx`, "fast" for `gelu_fast_approx`.
    """

    _FUNCTIONS: ClassVar = {"none": gelu, "precise": gelu_approx, "tanh": gelu_approx, "fast": gelu_fast_approx}

    def __init__(self, approx: str = "none") -> None:
        super().__init__()
        if approx not in self._FUNCTIONS:
            raise ValueError(f"The approximation should be in {list(self._FUNCTIONS)} but '{approx}' was given")
        self._approx = approx

    def __call__(self, x: mx.array) -> mx.array:
        return self._FUNCTIONS[self._approx](x)


class GLU(Module):
    """`nn.glu` as a module."""

    def __init__(self, axis: int = -1) -> None:
        super().__init__()
        self.axis = axis

    def __call__(self, x: mx.array) -> mx.array:
        return glu(x, self.axis)


class HardShrink(Module):
    """`nn.hard_shrink` as a module."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def __call__(self, x: mx.array) -> mx.array:
        return hard_shrink(x, self.lambd)


class LeakyReLU(Module):
    """`nn.leaky_relu` as a module."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self._negative_slope = negative_slope

    def __call__(self, x: mx.array) -> mx.array:
        return leaky_relu(x, self._negative_slope)


class PReLU(Module):
    """`nn.prelu` with a learned slope: weight (num_parameters,), `init` at first."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.weight = mx.full([num_parameters], init)

    def __call__(self, x: mx.array) -> mx.array:
        return prelu(x, self.weight)


class Softshrink(Module):
    """`nn.softshrink` as a module."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def __call__(self, x: mx.array) -> mx.array:
        return softshrink(x, self.lambd)


class Step(Module):
    """`nn.step` as a module."""

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def __call__(self, x: mx.array) -> mx.array:
        return step(x, self.threshold)
