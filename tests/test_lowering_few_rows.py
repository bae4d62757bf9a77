"""Plans of products of a few rows of 16-bit floats: when our own kernel does them. Every plan is simulated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import mlxlite.core as mx
from backend_cuda.lowering.plan import KernelNode, MatmulNode, Plan
from tests.checked_backend import checked


@pytest.fixture
def plans() -> Iterator[list[Plan]]:
    """The plans that were lowered and checked."""
    with checked() as found:
        yield found


def normal(*shape: int, dtype: mx.Dtype = mx.bfloat16) -> mx.array:
    a = mx.array(np.random.default_rng(shape).normal(size=shape).astype(np.float32)).astype(dtype)
    mx.eval(a)
    return a


def few_rows(plan: Plan) -> list[KernelNode]:
    return [n for n in plan.nodes if isinstance(n, KernelNode) and n.source.name.startswith("few_rows")]


def reads_early(node: KernelNode) -> bool:
    """Whether it copies weights before it waits for the kernels in front."""
    text = node.source.source
    return text.index("product.prefetch();") < text.index("wait_for_producers();")


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_2_to_16_rows_times_a_weight(plans: list[Plan], dtype: mx.Dtype) -> None:
    w = normal(40, 24, dtype=dtype)
    for shape in ((2, 24), (16, 24), (3, 5, 24), (1, 7, 24)):
        mx.eval(normal(*shape, dtype=dtype) @ w.T)
        (node,) = few_rows(plans[-1])
        assert len(plans[-1].nodes) == 1 and reads_early(node)


def test_more_rows_other_dtypes_and_other_layouts_are_the_library_s(plans: list[Plan]) -> None:
    for x, w in (
        (normal(17, 24), normal(40, 24).T),
        (normal(4, 24, dtype=mx.float32), normal(40, 24, dtype=mx.float32).T),
        (normal(4, 24), normal(24, 40)),
        (normal(24, 4).T, normal(40, 24).T),
        (normal(3, 4, 24), normal(3, 40, 24).swapaxes(1, 2)),
    ):
        mx.eval(x @ w)
        assert not few_rows(plans[-1]) and any(isinstance(n, MatmulNode) for n in plans[-1].nodes)


def test_kernels_take_8_or_16_rows(plans: list[Plan]) -> None:
    w = normal(40, 24)
    names = []
    for m in (2, 5, 8, 9, 12, 16):
        mx.eval(normal(m, 24) @ w.T)
        names.append(few_rows(plans[-1])[0].source.name)
    assert len({*names[:3]}) == len({*names[3:]}) == 1 and names[0] != names[3]


def test_a_residual_is_added_by_the_product(plans: list[Plan]) -> None:
    x, w, c = normal(1, 4, 24), normal(40, 24), normal(1, 4, 40)
    mx.eval(c + x @ w.T)
    (node,) = plans[-1].nodes
    assert few_rows(plans[-1]) == [node] and "_add_" in node.source.name


def test_a_weight_that_the_plan_computes_is_not_read_early(plans: list[Plan]) -> None:
    x, w = normal(4, 24), normal(40, 24)
    mx.eval(x @ mx.exp(w).T)
    (node,) = few_rows(plans[-1])
    assert not reads_early(node)
    cache, row = normal(1, 40, 24), normal(1, 1, 24)
    cache = cache * 1
    mx.eval(cache)
    cache[:, 3:4] = row
    mx.eval(x @ cache[0].T)
    (node,) = few_rows(plans[-1])
    assert not reads_early(node)
