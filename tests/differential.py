"""Comparing the module under test with MLX and with NumPy.

A *call* is a function of a module and arrays, `lambda m, a: m.sum(a, axis=0)`. It is made on the module under test and
on MLX with the same numbers, and all that can be seen of the two outcomes must agree: dtype, shape, values, or the type
of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import mlx.core as oracle
import numpy as np

from .module_under_test import IS_MLX, mx

BOOLS = ("bool",)
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = UNSIGNED + SIGNED
FLOATS = ("float16", "bfloat16", "float32", "float64")
DTYPES = (*BOOLS, *INTEGERS, *FLOATS, "complex64")
# One of each way of computing, for tests that need not go through all of them.
SOME_DTYPES = ("bool", "uint8", "int32", "float16", "bfloat16", "float32", "complex64")

# The greatest relative difference of one operation. 16-bit floats: two units in the last place, since one side may
# round an intermediate that the other keeps in float32. float32: 64 units, for polynomial and hardware approximations
# of functions such as tan. float64: libm against libm, 500 units. complex64: a product or quotient of float32s.
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 8e-6, "float64": 1e-13, "complex64": 1.6e-5}


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def dtype_of(module: Any, name: str) -> Any:
    return module.bool_ if name == "bool" else getattr(module, name)


def dtype_name(dtype: Any) -> str:
    """`float32` for `mlxlite.core.float32`; `bool` for both spellings."""
    name = str(dtype).rpartition(".")[2]
    return "bool" if name == "bool_" else name


def to_module(module: Any, values: np.ndarray) -> Any:
    """An array of a module with a NumPy array's values and dtype."""
    name = values.dtype.name
    if name == "bfloat16":
        return module.array(values.astype(np.float32), dtype=module.bfloat16)
    return module.array(values, dtype=dtype_of(module, name))


def to_numpy(array: Any) -> np.ndarray:
    """The values of an array; bfloat16 as ml_dtypes.bfloat16."""
    if dtype_name(array.dtype) == "bfloat16":
        return np.array(array.astype(type_module(array).float32)).astype(ml_dtypes.bfloat16)
    return np.array(array)


def type_module(array: Any) -> Any:
    return oracle if isinstance(array, oracle.array) else mx


def is_array(value: Any) -> bool:
    return isinstance(value, (mx.array, oracle.array))


def samples(dtype: str, shape: Sequence[int], *, seed: int = 0, domain: str = "any") -> np.ndarray:
    """Numbers of a dtype and a domain.

    `any` has the extremes among them, `small` is -3..3; the others are `positive`, `nonzero`, `unit`, `above_one`.
    """
    rng = np.random.default_rng([seed, len(shape), *shape])
    size = int(np.prod(shape))
    if dtype == "bool":
        flat = rng.integers(0, 2, size).astype(bool)
        return (flat | True if domain in ("positive", "nonzero") else flat).reshape(shape)
    if dtype in INTEGERS:
        return _integers(rng, dtype, size, domain).reshape(shape)
    if dtype == "complex64":
        parts = [
            samples("float32", shape, seed=seed + k, domain=domain if domain != "any" else "small") for k in (0, 1)
        ]
        return np.asarray(parts[0] + 1j * parts[1], np.complex64)
    return _floats(rng, size, domain).astype(numpy_dtype(dtype)).reshape(shape)


def _integers(rng: np.random.Generator, dtype: str, size: int, domain: str) -> np.ndarray:
    info = np.iinfo(dtype)
    if domain == "any":
        values = rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)
        extremes = [0, 1, info.max, info.min][: size // 2]
        values[: len(extremes)] = extremes
        return values
    low = {"small": -3, "nonzero": -3, "positive": 1, "above_one": 1, "unit": 0}[domain]
    values = rng.integers(max(low, info.min), 4 if domain != "unit" else 2, size).astype(dtype)
    return np.where(values == 0, 2, values).astype(dtype) if domain == "nonzero" else values


def _floats(rng: np.random.Generator, size: int, domain: str) -> np.ndarray:
    if domain == "any":
        values = rng.normal(size=size) * 4
        extremes = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -2.5, 1.5, 100.25, -3000.0][: size // 2]
        values[: len(extremes)] = extremes
        return values
    low, high = {
        "small": (-3, 3),
        "nonzero": (0.25, 3),
        "positive": (0.05, 8),
        "unit": (-0.95, 0.95),
        "above_one": (1.02, 8),
    }[domain]
    values = rng.uniform(low, high, size)
    return values * np.where(rng.random(size) < 0.5, -1, 1) if domain == "nonzero" else values


def layouts(shape: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...], Callable[[Any], Any]]]:
    """Ways to hold an array of a shape: a name, the shape of the base, and the view of the base that has the shape.

    The view is made of what arrays of NumPy and of both modules understand.
    """
    shape = tuple(shape)
    yield "contiguous", shape, lambda a: a
    if not shape:
        yield "an element", (3,), lambda a: a[1]
        return
    if len(shape) > 1:
        yield "transposed", shape[::-1], lambda a: a.T
    yield "every second", (*shape[:-1], 2 * shape[-1]), lambda a: a[..., ::2]
    yield "reversed", shape, lambda a: a[::-1]
    yield "offset", (shape[0] + 2, *shape[1:]), lambda a: a[1:-1]
    yield "backwards by two", (*shape[:-1], 2 * shape[-1]), lambda a: a[..., ::-2]


class Outcome:
    """What a call did: a value or an error."""

    def __init__(self, module: Any, call: Callable[..., Any], inputs: Sequence[Any]):
        self.value: Any = None
        self.error: Exception | None = None
        try:
            arrays = [to_module(module, x) if isinstance(x, np.ndarray) else x for x in inputs]
            self.value = call(module, *arrays)
            for part in _leaves(self.value):
                if is_array(part):
                    module.eval(part)
        except (TypeError, ValueError, IndexError, RuntimeError, OverflowError, AttributeError) as error:
            self.error = error


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def same_as_mlx(
    call: Callable[..., Any], *inputs: Any, case: Any = "", tolerance: float | None = None, scale: float = 1.0
) -> Any:
    """Make a call on both modules and compare.

    Returns the value of the module under test, None if it raised as MLX did.

    Args:
        inputs: NumPy arrays become arrays of the module; anything else is passed as it is.
        case: named in the message of a failure.
        tolerance, scale: as for `assert_close`.
    """
    ours = Outcome(mx, call, inputs)
    theirs = ours if IS_MLX else Outcome(oracle, call, inputs)
    if theirs.error is not None or ours.error is not None:
        assert ours.error is not None, f"{case}: MLX raises {theirs.error!r}, we return {ours.value!r}"
        assert theirs.error is not None, f"{case}: we raise {ours.error!r}, MLX returns {theirs.value!r}"
        # A RuntimeError of MLX is often about a bad argument: there we may say more exactly what is wrong.
        allowed = (
            (type(theirs.error), ValueError, TypeError) if type(theirs.error) is RuntimeError else type(theirs.error)
        )
        assert isinstance(ours.error, allowed), f"{case}: MLX raises {theirs.error!r}, we raise {ours.error!r}"
        return None
    _same(ours.value, theirs.value, case, tolerance, scale)
    return ours.value


def _same(ours: Any, theirs: Any, case: Any, tolerance: float | None, scale: float) -> None:
    if isinstance(theirs, (tuple, list)):
        assert type(ours) is type(theirs) and len(ours) == len(theirs), f"{case}: {ours!r} is not like {theirs!r}"
        for a, b in zip(ours, theirs, strict=True):
            _same(a, b, case, tolerance, scale)
    elif is_array(theirs):
        assert is_array(ours), f"{case}: {ours!r} is no array"
        assert dtype_name(ours.dtype) == dtype_name(theirs.dtype), f"{case}: dtype {ours.dtype}, MLX has {theirs.dtype}"
        assert ours.shape == theirs.shape, f"{case}: shape {ours.shape}, MLX has {theirs.shape}"
        assert_close(to_numpy(ours), to_numpy(theirs), case=case, tolerance=tolerance, scale=scale)
    elif isinstance(theirs, float):
        assert isinstance(ours, float), f"{case}: {ours!r} is no float"
        assert_close(np.asarray(ours), np.asarray(theirs), case=case, tolerance=tolerance, scale=scale)
    else:
        assert type(ours) is type(theirs) and ours == theirs, f"{case}: {ours!r}, MLX has {theirs!r}"


def same_as_numpy(
    actual: Any, expected: np.ndarray, *, case: Any = "", tolerance: float | None = None, scale: float = 1.0
) -> None:
    """Shape and values of an array must be NumPy's, to the precision of its dtype; `expected` may have a better one."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{case}: shape {actual.shape}, NumPy has {expected.shape}"
    assert_close(to_numpy(actual), expected, case=case, tolerance=tolerance, scale=scale)


def assert_close(
    actual: np.ndarray, expected: np.ndarray, *, case: Any = "", tolerance: float | None = None, scale: float = 1.0
) -> None:
    """Equal if exact dtypes, else |actual - expected| <= tolerance * max(|expected|, scale).

    Infinities and NaNs must be where they are expected.

    Args:
        tolerance: of the dtype of `actual` by default.
        scale: the size of the numbers that were added up, where the result may be much smaller.
    """
    name = actual.dtype.name
    if name not in TOLERANCE:
        np.testing.assert_array_equal(actual, expected, err_msg=str(case))
        return
    if tolerance is None:
        tolerance = TOLERANCE[name]
    wide = np.complex128 if name == "complex64" or expected.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        a, b = actual.astype(wide), expected.astype(numpy_dtype(name)).astype(wide)
        agree = (np.isnan(a) & np.isnan(b)) | (a == b) | (np.abs(a - b) <= tolerance * np.maximum(np.abs(b), scale))
    if not agree.all():
        where = tuple(int(i) for i in np.argwhere(~agree)[0]) if a.ndim else ()
        raise AssertionError(
            f"{case}: {int((~agree).sum())} of {agree.size} differ ({name}, tolerance {tolerance:g}, scale {scale:g}); "
            f"first at {where}: {actual[where]} instead of {expected[where]}"
        )
