"""Reductions, softmax and scans. 16-bit floats accumulate in float32 and are rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._rules import Array, narrow, rule, widen

_np: Any = np  # NumPy's stubs have `keepdims` by keyword only, which is slower


def _reduction(name: str, function: Callable[..., Any]) -> None:
    @rule(name)
    def _(node: Any, a: Array) -> Any:
        axes, keepdims = node.static
        return narrow(np.asarray(function(widen(a), axes, keepdims, node.np_dtype)), node.np_dtype)


def _accumulator(a: Array, dtype: np.dtype[Any]) -> np.dtype[Any]:
    return a.dtype if a.dtype.kind == "f" else dtype


_reduction("sum", lambda a, axes, keep, dtype: _np.add.reduce(a, axes, _accumulator(a, dtype), None, keep))
_reduction("prod", lambda a, axes, keep, dtype: _np.multiply.reduce(a, axes, _accumulator(a, dtype), None, keep))
_reduction("max", lambda a, axes, keep, dtype: _np.maximum.reduce(a, axes, None, None, keep))
_reduction("min", lambda a, axes, keep, dtype: _np.minimum.reduce(a, axes, None, None, keep))
_reduction("any", lambda a, axes, keep, dtype: _np.logical_or.reduce(a != 0, axes, None, None, keep))
_reduction("all", lambda a, axes, keep, dtype: _np.logical_and.reduce(a != 0, axes, None, None, keep))


def _logsumexp(a: Array, axes: tuple[int, ...], keepdims: bool, dtype: Any) -> Any:
    greatest = np.max(a, axis=axes, keepdims=True)
    finite = np.where(np.isfinite(greatest), greatest, 0)  # an infinite maximum is the result
    # NumPy adds down columns one by one: a sum of 400,000 exponentials in float32 was off by 7e-5 of it.
    wide = np.result_type(a.dtype, np.float64)
    total = np.log(np.sum(np.exp(a - finite), axis=axes, keepdims=True, dtype=wide)) + finite
    return total if keepdims else np.squeeze(total, axes)


_reduction("logsumexp", _logsumexp)


def _index_reduction(name: str, function: Callable[..., Any]) -> None:
    @rule(name)
    def _(node: Any, a: Array) -> Array:
        axes, _ = node.static
        found = np.asarray(function(widen(a), axis=axes[0] if axes else None))  # the first NaN, if there is one
        return found.reshape(node.shape).astype(node.np_dtype)


_index_reduction("argmax", np.argmax)
_index_reduction("argmin", np.argmin)


@rule("softmax")
def _softmax(node: Any, a: Array) -> Array:
    axes = node.static[0]
    a = widen(a)
    if a.size == 0:
        return narrow(a, node.np_dtype)
    out = np.exp(a - np.max(a, axis=axes, keepdims=True))
    return narrow(np.asarray(out / np.sum(out, axis=axes, keepdims=True)), node.np_dtype)


def _logaddexp_scan(a: Array, axis: int) -> Array:
    if a.dtype.kind != "c":
        return np.logaddexp.accumulate(a, axis)
    greatest = np.max(a.real, axis=axis, keepdims=True, initial=0)
    return np.log(np.add.accumulate(np.exp(a - greatest), axis)) + greatest


def _lowest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "c":
        return complex(-np.inf, -np.inf)
    return False if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "c":
        return complex(np.inf, np.inf)
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _scan(name: str, function: Callable[[Array, int], Any], identity: Callable[[np.dtype[Any]], Any]) -> None:
    @rule(name)
    def _(node: Any, a: Array) -> Array:
        axis, reverse, inclusive = node.static
        a = widen(a)
        if a.dtype.kind not in "fc" and a.dtype != node.np_dtype:
            a = a.astype(node.np_dtype)
        if reverse:
            a = np.flip(a, axis)
        out = function(a, axis)
        if not inclusive and a.shape[axis]:
            before = [slice(None)] * a.ndim
            before[axis] = slice(0, 1)
            first = np.full_like(out[tuple(before)], identity(out.dtype))
            before[axis] = slice(0, -1)
            out = np.concatenate([first, out[tuple(before)]], axis)
        return narrow(np.flip(out, axis) if reverse else out, node.np_dtype)


_scan("cumsum", lambda a, axis: np.add.accumulate(a, axis, a.dtype), lambda dtype: 0)
_scan("cumprod", lambda a, axis: np.multiply.accumulate(a, axis, a.dtype), lambda dtype: 1)
_scan("cummax", np.maximum.accumulate, _lowest)
_scan("cummin", np.minimum.accumulate, _highest)
_scan("logcumsumexp", _logaddexp_scan, lambda dtype: -np.inf)
