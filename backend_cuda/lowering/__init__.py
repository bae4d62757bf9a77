"""Tapes to plans. Pure Python data: needs neither a GPU nor a driver."""

from __future__ import annotations

import os
from typing import Any

from . import (  # noqa: F401  lowerings register
    attention,
    attention_vjp,
    elementwise,
    fast,
    indexing,
    matmul,
    normalize_vjp,
    random,
    reduce,
    rope,
    scan,
    shape,
    sort,
)
from .builder import Builder
from .plan import Plan

__all__ = ["Builder", "Plan", "lower"]


def lower(tape: Any, fuse: bool | None = None) -> Plan:
    """The plan of a tape.

    Args:
        tape: the graph module's.
        fuse: whether elementwise ops share kernels; by default unless the environment has MLXLITE_FUSE=0.

    Raises:
        NotImplementedError: an op that the GPU has no kernel for; names the op, the dtype and what to do.
    """
    if fuse is None:
        fuse = os.environ.get("MLXLITE_FUSE", "1") != "0"
    return Builder(tape, fuse).build()
