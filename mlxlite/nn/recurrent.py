"""Recurrent layers: a state that every element of a sequence changes."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlxlite.core as mx

from .activations import tanh
from .base import Module


def _weights(hidden_size: int, *shape: int) -> mx.array:
    scale = 1 / math.sqrt(hidden_size)
    return mx.random.uniform(low=-scale, high=scale, shape=shape)


def _projected(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    """What all elements of the sequence add to their steps, in one product."""
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


class RNN(Module):
    """Elman's network: h = nonlinearity(Wxh x + Whh h + bias).

    Args:
        input_size: the last dim of the input.
        hidden_size: the size of the state.
        bias: whether there is a bias.
        nonlinearity: a function; tanh for None.

    Parameters: Wxh (hidden_size, input_size), Whh (hidden_size, hidden_size), bias (hidden_size,); all begin uniform
    in +-1/sqrt(hidden_size).

    Raises:
        ValueError: `nonlinearity` cannot be called.

    Source: Elman, Finding structure in time, 1990.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Callable[[mx.array], mx.array] | None = None,
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity or tanh
        if not callable(self.nonlinearity):
            raise ValueError(f"The nonlinearity must be callable, got {nonlinearity!r}.")
        self.hidden_size = hidden_size
        self.Wxh = _weights(hidden_size, hidden_size, input_size)
        self.Whh = _weights(hidden_size, hidden_size, hidden_size)
        self.bias = _weights(hidden_size, hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return (
            f"input_dims={self.Wxh.shape[1]}, hidden_size={self.hidden_size}, nonlinearity={self.nonlinearity}, "
            f"bias={self.bias is not None}"
        )

    def __call__(self, x: mx.array, hidden: mx.array | None = None) -> mx.array:
        """(..., L, input_size), and the state (..., hidden_size) before it, to all L states (..., L, hidden_size)."""
        x = _projected(x, self.Wxh, self.bias)
        states = []
        for i in range(x.shape[-2]):
            now = x[..., i, :]
            hidden = self.nonlinearity(now if hidden is None else mx.addmm(now, hidden, self.Whh.T))
            states.append(hidden)
        return mx.stack(states, axis=-2)


class GRU(Module):
    """A gated recurrent unit: r and z are sigmoids, n = tanh(Wx x + r (Wh h + bhn)), h = (1 - z) n + z h.

    Args:
        input_size: the last dim of the input.
        hidden_size: the size of the state.
        bias: whether there are biases.

    Parameters: Wx (3 hidden_size, input_size), Wh (3 hidden_size, hidden_size), b (3 hidden_size,), in the order r, z,
    n; bhn (hidden_size,); all begin uniform in +-1/sqrt(hidden_size).

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, arXiv:1406.1078.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = _weights(hidden_size, 3 * hidden_size, input_size)
        self.Wh = _weights(hidden_size, 3 * hidden_size, hidden_size)
        self.b = _weights(hidden_size, 3 * hidden_size) if bias else None
        self.bhn = _weights(hidden_size, hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return f"input_dims={self.Wx.shape[1]}, hidden_size={self.hidden_size}, bias={self.b is not None}"

    def __call__(self, x: mx.array, hidden: mx.array | None = None) -> mx.array:
        """(..., L, input_size), and the state (..., hidden_size) before it, to all L states (..., L, hidden_size)."""
        x = _projected(x, self.Wx, self.b)
        size = self.hidden_size
        states = []
        for i in range(x.shape[-2]):
            gates, n = x[..., i, : 2 * size], x[..., i, 2 * size :]
            recurrent = self.bhn
            if hidden is not None:
                from_state = hidden @ self.Wh.T
                gates = gates + from_state[..., : 2 * size]
                recurrent = from_state[..., 2 * size :]
                if self.bhn is not None:
                    recurrent = recurrent + self.bhn
            r, z = mx.split(mx.sigmoid(gates), 2, axis=-1)
            n = mx.tanh(n if recurrent is None else n + r * recurrent)
            hidden = (1 - z) * n if hidden is None else (1 - z) * n + z * hidden
            states.append(hidden)
        return mx.stack(states, axis=-2)


class LSTM(Module):
    """Long short-term memory: i, f and o are sigmoids, g a tanh, c = f c + i g, h = o tanh(c).

    Args:
        input_size: the last dim of the input.
        hidden_size: the size of the state.
        bias: whether there is a bias.

    Parameters: Wx (4 hidden_size, input_size), Wh (4 hidden_size, hidden_size), bias (4 hidden_size,), in the order i,
    f, g, o; all begin uniform in +-1/sqrt(hidden_size).

    Source: Hochreiter and Schmidhuber, Long short-term memory, 1997.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.Wx = _weights(hidden_size, 4 * hidden_size, input_size)
        self.Wh = _weights(hidden_size, 4 * hidden_size, hidden_size)
        self.bias = _weights(hidden_size, 4 * hidden_size) if bias else None

    def _extra_repr(self) -> str:
        return f"input_dims={self.Wx.shape[1]}, hidden_size={self.hidden_size}, bias={self.bias is not None}"

    def __call__(
        self, x: mx.array, hidden: mx.array | None = None, cell: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """(..., L, input_size), and the state and cell (..., hidden_size) before it, to all L states and cells."""
        x = _projected(x, self.Wx, self.bias)
        states, cells = [], []
        for step in range(x.shape[-2]):
            now = x[..., step, :]
            if hidden is not None:
                now = mx.addmm(now, hidden, self.Wh.T)
            i, f, g, o = mx.split(now, 4, axis=-1)
            new = mx.sigmoid(i) * mx.tanh(g)
            cell = new if cell is None else mx.sigmoid(f) * cell + new
            hidden = mx.sigmoid(o) * mx.tanh(cell)
            states.append(hidden)
            cells.append(cell)
        return mx.stack(states, axis=-2), mx.stack(cells, axis=-2)
