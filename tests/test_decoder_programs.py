"""Random programs of what decoders are made of, whose plans are simulated: which of it becomes one kernel, and in what
order, depends on who reads whom."""

from __future__ import annotations

import random

import numpy as np
import pytest

import mlxlite.core as mx
from tests.checked_backend import checked

KEYS = 8  # of a cache


class Decoder:
    """Arrays (batch, rows, features) that steps add to, and caches that they update."""

    def __init__(self, seed: int) -> None:
        self.choose, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.dtype = self.choose.choice((mx.float32, mx.float32, mx.bfloat16, mx.float16))
        self.batch, self.rows = self.choose.choice(((1, 1), (1, 1), (1, 1), (1, 3), (2, 1), (1, 16), (3, 2)))
        self.features, self.heads = self.choose.choice(((16, 2), (32, 4), (24, 2)))
        self.position = self.choose.randrange(max(1, KEYS - self.rows))
        self.weights: dict[tuple[int, int, int], mx.array] = {}
        self.arrays = [self.leaf(self.batch, self.rows, self.features) for _ in range(self.choose.randrange(1, 3))]
        self.caches = [self.leaf(self.batch, self.heads, KEYS, self.features // self.heads) for _ in range(3)]
        self.read = self.arrays[0]
        self.outputs: list[mx.array] = []

    def leaf(self, *shape: int, scale: float = 1.0) -> mx.array:
        a = mx.array((self.numbers.uniform(-1, 1, shape) * scale).astype(np.float32)).astype(self.dtype)
        mx.eval(a)
        return a

    def pick(self) -> mx.array:
        return self.choose.choice(self.arrays[-4:] if self.choose.random() < 0.7 else self.arrays)

    def source(self) -> mx.array:
        """What a product reads: often what the one before read."""
        if self.choose.random() < 0.5:
            self.read = self.pick()
        return self.read

    def weight(self, n: int, k: int) -> mx.array:
        """One of three of a shape: several products may have the same."""
        key = n, k, self.choose.randrange(3)
        if key not in self.weights:
            self.weights[key] = self.leaf(n, k, scale=k**-0.5)
        return self.weights[key]

    def project(self, x: mx.array, times: int = 1) -> mx.array:
        return x @ self.weight(times * self.features, x.shape[-1]).T

    def vector(self) -> mx.array:
        return self.leaf(self.features)

    def in_heads(self, x: mx.array) -> mx.array:
        return x.reshape(self.batch, self.rows, self.heads, -1).transpose(0, 2, 1, 3)

    def out_of_heads(self, x: mx.array) -> mx.array:
        return x.transpose(0, 2, 1, 3).reshape(self.batch, self.rows, self.features)

    def rope(self, x: mx.array) -> mx.array:
        traditional = self.choose.random() < 0.5
        return mx.fast.rope(x, x.shape[-1], traditional=traditional, base=100.0, scale=1.0, offset=self.position)

    # ---- steps

    def product(self) -> mx.array:
        return self.project(self.source())

    def biased(self) -> mx.array:
        bias = self.choose.choice((self.vector, self.pick))()
        return mx.addmm(bias, self.source(), self.weight(self.features, self.features).T, alpha=0.5, beta=1.0)

    def norm(self) -> mx.array:
        if self.choose.random() < 0.6:
            return mx.fast.rms_norm(self.pick(), self.vector(), 1e-3)
        return mx.fast.layer_norm(self.pick(), self.vector(), self.choose.choice((None, self.vector())), 1e-3)

    def total(self) -> mx.array:
        return (self.pick() + self.pick()) * 0.7

    def gate(self) -> mx.array:
        return mx.tanh(self.pick()) * mx.sigmoid(self.pick())

    def turn(self) -> mx.array:
        return self.out_of_heads(self.rope(self.in_heads(self.pick())))

    def backwards(self) -> mx.array:
        return self.pick()[..., ::-1]

    def halves(self) -> mx.array:
        half = self.features // 2
        return mx.concatenate([self.pick()[..., half:], self.pick()[..., :half]], -1)

    def mlp(self) -> mx.array:
        x = self.source()
        gate, up = self.project(x, 2), self.project(x, 2)
        y = self.project(gate * mx.sigmoid(gate) * up)
        return self.pick() + y if self.choose.random() < 0.5 else y

    def split(self) -> mx.array:
        gate, up = mx.split(self.project(self.source(), 2), 2, -1)
        return gate * mx.sigmoid(gate) * up

    def softmax(self) -> mx.array:
        return mx.softmax(self.pick() * 2, -1) * self.features**0.5

    def attention(self) -> mx.array:
        if self.rows >= KEYS:
            return self.pick()
        x, which = self.source(), self.choose.randrange(3)
        cache, keys = self.caches[which], self.in_heads(self.project(x))
        if self.choose.random() < 0.6:
            keys = self.rope(keys)
        if self.choose.random() < 0.3:  # what was there before the update
            self.arrays.append(self.out_of_heads(cache[:, :, : self.rows]))
        if self.choose.random() < 0.7:
            cache[:, :, self.position : self.position + self.rows] = keys
        else:
            cache = mx.concatenate([cache[:, :, : KEYS - self.rows], keys], 2)
        self.caches[which] = cache
        if self.choose.random() < 0.5:
            self.outputs.append(cache)
        queries, values = self.in_heads(self.project(x)), self.choose.choice(self.caches)
        scale = (self.features // self.heads) ** -0.5
        return self.out_of_heads(mx.fast.scaled_dot_product_attention(queries, cache, values, scale=scale))

    def run(self) -> None:
        steps = (self.product, self.product, self.product, self.biased, self.norm, self.total, self.gate, self.turn)
        steps += (self.backwards, self.halves, self.mlp, self.split, self.softmax, self.attention, self.attention)
        for _ in range(self.choose.randrange(3, 14)):
            self.arrays.append(self.choose.choice(steps)())
            if self.choose.random() < 0.15:
                self.outputs.append(self.arrays[-1])
        outputs = [self.arrays[-1], *self.outputs]
        del self.arrays, self.read, self.outputs  # an array that somebody holds is written
        mx.eval(*outputs)
        mx.eval(*self.caches)


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_programs(first: int) -> None:
    with checked() as plans:
        for seed in range(first, first + 20):
            Decoder(seed).run()
    assert plans


def run_siblings(seed: int) -> None:
    """Products of one row, as they come or backwards, combined with one another in some order."""
    choose, numbers = random.Random(seed), np.random.default_rng(seed)
    dtype = choose.choice((mx.float32, mx.bfloat16))

    def leaf(*shape: int) -> mx.array:
        a = mx.array(numbers.uniform(-1, 1, shape).astype(np.float32)).astype(dtype)
        mx.eval(a)
        return a

    row = leaf(1, 8)
    if choose.random() < 0.3:
        row = mx.fast.rms_norm(row, leaf(8), 1e-3)
    arrays: list[mx.array] = []

    def pick() -> mx.array:
        found = choose.choice(arrays)
        return found[..., ::-1] if choose.random() < 0.4 else found

    steps = (
        lambda: mx.tanh(pick()),
        lambda: pick() + pick(),
        lambda: pick() * mx.sigmoid(pick()),
        lambda: choose.choice(arrays).astype(mx.float32),  # these are computed where they are read
        lambda: -choose.choice(arrays),
        lambda: mx.sum(pick(), -1, keepdims=True) + pick(),
    )
    for _ in range(7):
        if arrays and choose.random() < 0.2:
            arrays.append(mx.addmm(pick().astype(dtype), row, leaf(8, 8).T))
        else:
            arrays.append(row @ leaf(8, 8).T)
        while choose.random() < 0.6:
            arrays.append(choose.choice(steps)())
        if choose.random() < 0.2:
            break
    outputs = choose.sample(arrays, choose.randrange(1, min(len(arrays), 4) + 1))
    arrays.clear()  # an array that somebody holds is written
    del row
    mx.eval(outputs)


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_products_of_one_row(first: int) -> None:
    with checked() as plans:
        for seed in range(first, first + 100):
            run_siblings(seed)
    assert plans
