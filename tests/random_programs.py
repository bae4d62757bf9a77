"""Random array programs: chains of ops of all families on small arrays, some of whose results are kept."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

_UNARY = ("exp", "sin", "abs", "negative", "sqrt", "square", "sigmoid", "floor", "isnan", "logical_not")
_BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "less", "equal")
_REDUCE = ("sum", "max", "min", "mean", "prod", "any", "argmax", "logsumexp")
_DIMS = (1, 1, 2, 3, 4, 6, 8)


class RandomProgram:
    """Draws ops by a seed.

    Args:
        mx: the module.
        seed: equal seeds draw equal programs.
        families: which families besides elementwise and shape: of "reduce", "matmul", "indexing", "sort", "fast".
    """

    def __init__(self, mx: Any, seed: int, families: tuple[str, ...]) -> None:
        self.mx = mx
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.pool: list[Any] = []
        self.steps = [self._unary, self._binary, self._scalar, self._where, self._reshape, self._transpose]
        self.steps += [self._slice, self._broadcast, self._concatenate, self._cast, self._arange]
        if "reduce" in families:
            self.steps += [self._reduce, self._softmax, self._scan]
        if "matmul" in families:
            self.steps += [self._matmul, self._addmm, self._row_products, self._row_products]
        if "indexing" in families:
            self.steps += [self._update, self._update, self._take, self._at]
        if "sort" in families:
            self.steps += [self._sort]
        if "fast" in families:
            self.steps += [self._norm]

    def run(self, n_ops: int) -> list[Any]:
        """Record `n_ops` ops; returns arrays that are kept, not evaluated."""
        for _ in range(3):
            self.pool.append(self._leaf())
        for _ in range(n_ops):
            result = self.random.choice(self.steps)()
            if result is not None:
                self.pool.append(result)
        kept = self.random.sample(self.pool, min(len(self.pool), self.random.randint(1, 4)))
        self.pool = []
        return kept

    # ---- choices

    def _leaf(self, shape: tuple[int, ...] | None = None) -> Any:
        if shape is None:
            shape = tuple(self.random.choice(_DIMS) for _ in range(self.random.randint(0, 4)))
        values = self.numbers.normal(size=shape)
        if self.random.random() < 0.25:
            return self.mx.array((values * 4).astype(np.int32))
        return self.mx.array(values.astype(np.float32))

    def _pick(self) -> Any:
        return self.random.choice(self.pool[-8:] if self.random.random() < 0.7 else self.pool)

    def _float(self) -> Any:
        """A float32 array, tamed so that chains do not overflow."""
        a = self._pick().astype(self.mx.float32)
        return self.mx.clip(self.mx.nan_to_num(a), -4, 4)

    def _unary(self) -> Any:
        return getattr(self.mx, self.random.choice(_UNARY))(self._float())

    def _binary(self) -> Any:
        a = self._float()
        name = self.random.choice(_BINARY)
        b = self._float()
        try:
            self.mx.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            b = a if self.random.random() < 0.3 else self._leaf(a.shape[self.random.randint(0, a.ndim) :])
        result = getattr(self.mx, name)(a, b)
        return result if result.size <= 4096 else None

    def _scalar(self) -> Any:
        return self._pick() * self.random.choice((0.5, 2, -1.25, 3)) + self.random.random()

    def _where(self) -> Any:
        a = self._float()
        return self.mx.where(a > 0.1, a, self.random.choice((0.0, 1.5, self._leaf(a.shape))))

    def _reshape(self) -> Any:
        a = self._pick()
        size, shape = a.size, []
        for _ in range(self.random.randint(0, 3)):
            n = self.random.choice([d for d in (1, 2, 3, 4, 6, 8) if size % d == 0])
            shape.append(n)
            size //= n
        shape.insert(self.random.randint(0, len(shape)), size)
        return a.reshape(shape)

    def _transpose(self) -> Any:
        a = self._pick()
        return self.mx.transpose(a, self.random.sample(range(a.ndim), a.ndim)) if a.ndim else None

    def _index(self, a: Any) -> tuple[Any, ...]:
        index: list[Any] = []
        for n in a.shape:
            kind = self.random.random()
            if kind < 0.4 or n == 0:
                index.append(slice(None))
            elif kind < 0.55:
                index.append(self.random.randrange(n))
            else:
                start = self.random.randrange(n)
                stop = self.random.randint(start + 1, n)
                index.append(slice(start, stop, self.random.choice((1, 1, 2))))
                if kind > 0.9:
                    index[-1] = slice(stop - 1, start - 1 if start else None, -1)
        return tuple(index)

    def _slice(self) -> Any:
        a = self._pick()
        return a[self._index(a)]

    def _broadcast(self) -> Any:
        a = self._pick()
        if a.size > 256 or a.ndim > 4:
            return None
        shape = [self.random.choice((2, 3)) if n == 1 else n for n in a.shape]
        return self.mx.broadcast_to(a, [self.random.choice((1, 2)), *shape])

    def _concatenate(self) -> Any:
        a = self._pick()
        if a.ndim == 0 or a.size > 512:
            return None
        axis = self.random.randrange(a.ndim)
        return self.mx.concatenate([a, a[self._index_along(a, axis)], a], axis)

    def _index_along(self, a: Any, axis: int) -> tuple[Any, ...]:
        return (*(slice(None),) * axis, slice(0, self.random.randint(1, max(1, a.shape[axis]))))

    def _cast(self) -> Any:
        mx = self.mx
        return self._float().astype(self.random.choice((mx.float16, mx.bfloat16, mx.int32, mx.bool_, mx.float32)))

    def _arange(self) -> Any:
        return self.mx.arange(self.random.choice((1, 4, 6))) * self.random.choice((1, 0.5))

    def _reduce(self) -> Any:
        a = self._float()
        name = self.random.choice(_REDUCE)
        if a.ndim == 0 or self.random.random() < 0.2:
            return getattr(self.mx, name)(a)
        if name == "argmax":
            return self.mx.argmax(a, axis=self.random.randrange(a.ndim)).astype(self.mx.int32)
        axes = tuple(sorted(self.random.sample(range(a.ndim), self.random.randint(1, a.ndim))))
        return getattr(self.mx, name)(a, axis=axes, keepdims=self.random.random() < 0.5)

    def _softmax(self) -> Any:
        a = self._float()
        return self.mx.softmax(a, axis=self.random.randrange(a.ndim)) if a.ndim else None

    def _scan(self) -> Any:
        a = self._float()
        if a.ndim == 0:
            return None
        name = self.random.choice(("cumsum", "cummax"))
        return getattr(self.mx, name)(a, axis=self.random.randrange(a.ndim), reverse=self.random.random() < 0.5)

    def _matmul(self) -> Any:
        a = self._float()
        if a.ndim == 0:
            return None
        if a.ndim > 1 and self.random.random() < 0.3:
            return a @ self.mx.swapaxes(a, -1, -2)
        return a @ self._leaf((a.shape[-1], self.random.choice((1, 3, 8)))).astype(self.mx.float32)

    def _addmm(self) -> Any:
        a = self._float()
        if a.ndim < 2:
            return None
        n = self.random.choice((1, 5))
        b = self._leaf((a.shape[-1], n)).astype(self.mx.float32)
        return self.mx.addmm(self._leaf((n,)).astype(self.mx.float32), a, b, 0.5, self.random.choice((1.0, 2.0)))

    def _weight(self, n: int, k: int) -> Any:
        """A matrix whose rows are contiguous, for x @ w.T."""
        return self.mx.array(self.numbers.normal(size=(n, k)).astype(np.float32) * 0.3)

    def _row_products(self) -> Any:
        """A row, normalised or not, times some weights; with what a model does to such products."""
        mx, choose = self.mx, self.random.choice
        a = self._float()
        if not 1 < a.size <= 96:
            return None
        x = a.reshape(choose(((1, a.size), (1, 1, a.size))))
        if self.random.random() < 0.5:
            x = mx.fast.rms_norm(x, self._leaf((a.size,)).astype(mx.float32), 1e-5)
        heads, features = choose((1, 2, 3)), choose((2, 6, 8))
        n = heads * features
        kind = self.random.randrange(5)
        if kind == 0:
            gate = x @ self._weight(n, a.size).T
            return mx.tanh(gate * mx.sigmoid(gate) * (x @ self._weight(n, a.size).T))
        if kind == 1:
            return self._leaf((n,)).astype(mx.float32) * 0.5 + x @ self._weight(n, a.size).T
        if kind == 2:
            return mx.addmm(self._leaf((n,)).astype(mx.float32), x, self._weight(n, a.size).T)
        cache = self._leaf((1, heads, 4, features)).astype(mx.float32) * 1
        at = self.random.randrange(4)
        turned = choose([d for d in (2, 4, 6, 8) if d <= features])
        for k in range(2):
            row = (x @ self._weight(n, a.size).T).reshape(1, 1, heads, features).transpose(0, 2, 1, 3)
            if k == 0 or kind == 3:
                row = mx.fast.rope(row, turned, traditional=kind == 3, base=100.0, scale=1.0, offset=at)
            if k == 0:
                cache[:, :, at : at + 1] = row
            else:
                cache = cache + row
        return cache

    def _update(self) -> Any:
        a = self._pick()
        index = self._index(a)
        if a.ndim == 0:
            return None
        part = a[index]
        value = self.random.choice((1, part * 2, self._leaf(part.shape).astype(a.dtype)))
        a = a * 1 if self.random.random() < 0.5 else self.mx.array(a)
        a[index] = value
        return a

    def _take(self) -> Any:
        a = self._pick()
        if a.ndim == 0 or a.size == 0:
            return None
        axis = self.random.randrange(a.ndim)
        n = a.shape[axis]
        indices = self.mx.array(self.numbers.integers(-n, n, self.random.choice(((2,), (2, 3), ()))).astype(np.int32))
        if self.random.random() < 0.3 and a.ndim > 1:
            return a[indices, 0]
        return self.mx.take(a, indices, axis=axis)

    def _at(self) -> Any:
        a = self._float()
        if a.ndim == 0 or a.size == 0:
            return None
        indices = self.mx.array(self.numbers.integers(0, a.shape[0], 3).astype(np.int32))
        return a.at[indices].add(self._leaf((3, *a.shape[1:])).astype(a.dtype))

    def _sort(self) -> Any:
        a = self._float()
        if a.ndim == 0:
            return None
        if self.random.random() < 0.5:
            return self.mx.sort(a, axis=self.random.randrange(a.ndim))
        return self.mx.argsort(a, axis=self.random.randrange(a.ndim)).astype(self.mx.int32)

    def _norm(self) -> Any:
        a = self._float()
        return self.mx.fast.rms_norm(a, self._leaf((a.shape[-1],)).astype(self.mx.float32), 1e-5) if a.ndim else None
