"""GGML's block formats to NumPy. A block is 32 values of one row, laid out as ggml's block_q4_0 and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

BLOCK = 32

_q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
_q4_1 = np.dtype([("scale", "<f2"), ("low", "<f2"), ("codes", "u1", 16)])
_q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])


def _nibbles(codes: np.ndarray) -> np.ndarray:
    """Values 0 to 15: the low halves of a block's 16 bytes are its first 16 values, the high halves the others."""
    out = np.empty((*codes.shape[:-1], BLOCK), np.float32)
    np.bitwise_and(codes, 15, out=out[..., :16], casting="unsafe", dtype=np.uint8)
    np.right_shift(codes, 4, out=out[..., 16:], casting="unsafe", dtype=np.uint8)
    return out


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[..., None]


def _from_q4_0(blocks: np.ndarray) -> np.ndarray:
    out = _nibbles(blocks["codes"])
    out -= 8.0
    out *= _column(blocks["scale"])
    return out


def _from_q4_1(blocks: np.ndarray) -> np.ndarray:
    out = _nibbles(blocks["codes"])
    out *= _column(blocks["scale"])
    out += _column(blocks["low"])
    return out


def _from_q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks["codes"] * _column(blocks["scale"])


class Format(NamedTuple):
    """How a tensor type is stored."""

    name: str
    storage: np.dtype[Any]  # of one element, or of one block
    block: int  # values in one item of storage
    decode: Callable[[np.ndarray], np.ndarray] | None  # blocks (n,) to float32 (n, 32); None: the storage is the value


# By ggml's type number.
FORMATS = {
    0: Format("F32", np.dtype("<f4"), 1, None),
    1: Format("F16", np.dtype("<f2"), 1, None),
    2: Format("Q4_0", _q4_0, BLOCK, _from_q4_0),
    3: Format("Q4_1", _q4_1, BLOCK, _from_q4_1),
    8: Format("Q8_0", _q8_0, BLOCK, _from_q8_0),
    30: Format("BF16", np.dtype(ml_dtypes.bfloat16), 1, None),
}

# For errors: what the other numbers are called.
OTHER_NAMES = {
    6: "Q5_0",
    7: "Q5_1",
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
    41: "Q1_0",
}
