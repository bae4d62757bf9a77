"""The gradient of attention by cuDNN, from the same cache as attention (`sdpa.py`).

cuDNN computes the probabilities again from the queries, the keys and the logarithms of the softmax's sums, and adds up
the cotangent of the queries in float32 in its workspace.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .sdpa import DTYPES, Callback, Tensor, as_output, declare, diagonal, stats_of, tensors_of


def is_deterministic() -> bool:
    """Whether gradients of attention shall be equal in every run: `MLXLITE_DETERMINISTIC_ATTENTION=1`."""
    return os.environ.get("MLXLITE_DETERMINISTIC_ATTENTION", "0") != "0"


@dataclass(frozen=True)
class GradientCall:
    """The cotangents dq, dk and dv of one attention, from that of its result, c."""

    dtype: str
    causal: bool
    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    c: Tensor
    dq: Tensor
    dk: Tensor
    dv: Tensor
    bias: Tensor | None
    scale: float
    deterministic: bool

    def key(self) -> bytes:
        bias = self.bias or Tensor((0,) * 4, (0,) * 4)
        integers: list[int] = []
        for tensor in (self.q, self.k, self.v, self.o, self.c, self.dq, self.dk, self.dv, bias):
            integers += (*tensor.dims, *tensor.strides)
        flags = DTYPES.index(self.dtype) | self.causal << 1 | (self.bias is not None) << 2 | self.deterministic << 3
        return struct.pack("<qd72q", flags, self.scale, *integers)

    def build(self, library: Any, graph: Any) -> list[Any]:
        given = {"q": self.q, "k": self.k, "v": self.v, "o": self.o, "dO": self.c}
        inputs = {name: declare(graph, name, tensor) for name, tensor in given.items()}
        inputs["stats"] = declare(graph, "stats", stats_of(self.q), library.data_type.FLOAT)
        tensors = list(inputs.values())
        options: dict[str, Any] = {}
        if self.bias is not None:
            options["bias"] = declare(graph, "bias", self.bias)
            tensors.append(options["bias"])
        if self.causal:
            options |= diagonal(library, self.q, self.k)
        found = graph.sdpa_backward(
            name="sdpa_backward",
            attn_scale=self.scale,
            use_deterministic_algorithm=self.deterministic,
            **inputs,
            **options,
        )
        results = zip(found, (self.dq, self.dk, self.dv), strict=True)
        return [*tensors, *(as_output(tensor, t) for tensor, t in results)]


class Gradient(Callback):
    """The gradient, of tensors q, k, v, o, c, dq, dk, dv and, if there is one, the bias.

    Pointers: q, k, v, o, c, stats, the bias if there is one, dq, dk, dv.
    """

    def __init__(self, dtype: str, causal: bool, has_bias: bool) -> None:
        super().__init__()
        self.dtype, self.causal, self.has_bias = dtype, causal, has_bias
        self.deterministic = is_deterministic()

    def call_for(self, sizes: Sequence[int], scale: float) -> GradientCall:
        q, k, v, o, c, dq, dk, dv, *bias = tensors_of(sizes)
        found = bias[0] if self.has_bias else None
        return GradientCall(self.dtype, self.causal, q, k, v, o, c, dq, dk, dv, found, scale, self.deterministic)
