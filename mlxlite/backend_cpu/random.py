"""Random bits by threefry2x32 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), laid out as by MLX.

A key fills n 32-bit words. Counter i of the first half pairs with counter i + ceil(n / 2), and the two hashed words go
to these places; when n is odd the middle word is hashed alone, paired with 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._rules import Array, rule

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def _threefry(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """The hash of counters (x0, x1) with keys (k0, k1), all uint32 and broadcast; 20 rounds."""
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for block in range(5):
        for turn in _ROTATIONS[block % 2]:
            x0 += x1
            x1 = (x1 << np.uint32(turn)) | (x1 >> np.uint32(32 - turn))
            x1 ^= x0
        x0 += keys[(block + 1) % 3]
        x1 += keys[(block + 2) % 3]
        x1 += np.uint32(block + 1)
    return x0, x1


@rule("random_bits")
def _random_bits(node: Any, key: Array) -> Array:
    shape, width = node.shape, node.static[0]
    keys = key.reshape(-1, 2, 1)
    n_bytes = math.prod(shape[key.ndim - 1 :]) * width
    if n_bytes == 0 or len(keys) == 0:
        return np.empty(shape, node.np_dtype)
    n = (n_bytes + 3) // 4
    half, odd = n // 2, n % 2
    words = np.empty((len(keys), n), np.uint32)
    k0, k1 = keys[:, 0], keys[:, 1]
    first = np.arange(half, dtype=np.uint32)
    words[:, :half], words[:, half + odd :] = _threefry(k0, k1, first[None], (first + np.uint32(half + odd))[None])
    if odd:
        middle = np.full((1, 1), half, np.uint32)
        words[:, half : half + 1] = _threefry(k0, k1, middle, np.zeros_like(middle))[0]
    return words.view(np.uint8)[:, :n_bytes].copy().view(node.np_dtype).reshape(shape)
