"""The error function, which NumPy lacks, by Cody's rational approximations (Math. Comp. 23, 1969, 631-637)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._rules import Array

# Numerators and denominators on Cody's three intervals. A numerator begins with the highest power, a denominator
# with the one below it, its highest having the factor 1.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
_LARGE = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip

_BLOCK = 1 << 13  # elements whose temporaries stay in a core's cache


def _quotient(x: Array, coefficients: tuple[Sequence[float], Sequence[float]]) -> Array:
    numerator, denominator = coefficients
    above = numerator[0] * x + numerator[1]
    below = x + denominator[0]
    for a in numerator[2:]:
        above *= x
        above += a
    for b in denominator[1:]:
        below *= x
        below += b
    return above / below


def erf(a: Array) -> Array:
    """erf of float32 or float64, to three units in the last place."""
    flat = np.ascontiguousarray(a).reshape(-1)
    out = np.empty_like(flat)
    for start in range(0, flat.size, _BLOCK):
        out[start : start + _BLOCK] = _of_block(flat[start : start + _BLOCK])
    return out.reshape(a.shape)


def _of_block(a: Array) -> Array:
    y = np.abs(a)
    with np.errstate(all="ignore"):
        result = 1 - np.exp(-y * y) * _quotient(np.minimum(y, 4), _MIDDLE)
        if a.dtype == np.float64:  # float32 is 1 there
            far = (y > 4) & (y < 6)
            if far.any():
                t = y[far]
                square = 1 / (t * t)
                tail = (1 / math.sqrt(math.pi) - square * _quotient(square, _LARGE)) / t
                result[far] = 1 - np.exp(-t * t) * tail
        near = np.minimum(y, 0.5)
        near *= _quotient(near * near, _SMALL)
        return np.copysign(np.where(y <= 0.46875, near, result), a)
