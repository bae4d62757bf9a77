"""The cache of cuDNN graphs: keys as bytes, hits and misses, and its bound. No GPU is needed: entries are stand-ins."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from backend_cuda import sdpa

PACKED = sdpa.Tensor((1, 8, 128, 64), (65536, 8192, 64, 1))
KEYS = sdpa.Tensor((1, 2, 256, 64), (32768, 16384, 64, 1))
BIAS = sdpa.Tensor((1, 1, 128, 256), (32768, 32768, 256, 1))
CALL = sdpa.Call("bfloat16", False, PACKED, KEYS, KEYS, PACKED, BIAS, False, 0.125)


def _variations() -> list[tuple[str, sdpa.Call]]:
    """CALL with every field changed once, every dim and every stride too."""
    out = [
        ("dtype", dataclasses.replace(CALL, dtype="float16")),
        ("causal", dataclasses.replace(CALL, causal=True)),
        ("has_sinks", dataclasses.replace(CALL, has_sinks=True)),
        ("scale", dataclasses.replace(CALL, scale=0.25)),
        ("no bias", dataclasses.replace(CALL, bias=None)),
    ]
    for name in ("q", "k", "v", "o", "bias"):
        tensor = getattr(CALL, name)
        for part in ("dims", "strides"):
            for d in range(4):
                values = list(getattr(tensor, part))
                values[d] += 1
                changed = dataclasses.replace(tensor, **{part: tuple(values)})
                out.append((f"{name}.{part}[{d}]", dataclasses.replace(CALL, **{name: changed})))
    return out


@pytest.mark.parametrize(("what", "call"), _variations(), ids=[what for what, _ in _variations()])
def test_every_field_changes_the_key(what: str, call: sdpa.Call) -> None:
    assert call.key() != CALL.key()


def test_all_variations_differ_from_one_another() -> None:
    keys = [call.key() for _, call in _variations()]
    assert len(set(keys)) == len(keys)


def test_every_field_of_a_call_is_varied() -> None:
    named = {what.partition(".")[0].replace("no bias", "bias") for what, _ in _variations()}
    assert named == {field.name for field in dataclasses.fields(sdpa.Call)}


def test_equal_calls_have_equal_keys() -> None:
    assert len({dataclasses.replace(CALL).key() for _ in range(100)}) == 1


def test_dims_of_one_get_packed_strides() -> None:
    tensor = sdpa.normalized((1, 8, 1, 64), (7, 64, 999, 1))
    assert tensor.strides == (512, 64, 64, 1)


class _StandIn:
    """What the cache holds in place of a cuDNN graph."""

    made = 0

    def __init__(self, call: sdpa.Call) -> None:
        if call.scale == 0:
            raise sdpa.DeclinedError("not this one")
        type(self).made += 1


@pytest.fixture
def cache() -> sdpa.Cache:
    _StandIn.made = 0
    return sdpa.Cache(capacity=3, make=_StandIn)


def _get(cache: sdpa.Cache, call: sdpa.Call) -> Any:
    return cache.get(call, call.key())


def test_one_graph_for_many_layers_of_one_shape(cache: sdpa.Cache) -> None:
    entries = {id(_get(cache, CALL)) for _ in range(32)}
    assert (len(entries), _StandIn.made) == (1, 1)


def test_the_least_recently_used_graph_leaves(cache: sdpa.Cache) -> None:
    calls = [dataclasses.replace(CALL, scale=float(i + 1)) for i in range(4)]
    for call in calls[:3]:
        _get(cache, call)
    first = _get(cache, calls[0])
    evictions = sdpa.counters["evictions"]
    _get(cache, calls[3])
    assert sdpa.counters["evictions"] == evictions + 1
    assert len(cache) == 3
    assert _get(cache, calls[0]) is first
    _get(cache, calls[1])
    assert _StandIn.made == 5


def test_what_was_declined_is_not_asked_again(cache: sdpa.Cache) -> None:
    declined = sdpa.counters["declined"]
    for _ in range(3):
        with pytest.raises(sdpa.DeclinedError, match="not this one"):
            _get(cache, dataclasses.replace(CALL, scale=0.0))
    assert sdpa.counters["declined"] == declined + 1
