"""The cache of cuDNN graphs: keys as bytes, hits and misses, and its bound. No GPU is needed: entries are stand-ins."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import pytest

from backend_cuda import sdpa
from backend_cuda.sdpa_gradient import GradientCall

PACKED = sdpa.Tensor((1, 8, 128, 64), (65536, 8192, 64, 1))
KEYS = sdpa.Tensor((1, 2, 256, 64), (32768, 16384, 64, 1))
BIAS = sdpa.Tensor((1, 1, 128, 256), (32768, 32768, 256, 1))
CALL = sdpa.Call("bfloat16", False, PACKED, KEYS, KEYS, PACKED, BIAS, False, 0.125)


GRADIENT = GradientCall("bfloat16", False, PACKED, KEYS, KEYS, PACKED, PACKED, PACKED, KEYS, KEYS, BIAS, 0.125, False)


def _variations(call: Any, flags: list[str]) -> list[tuple[str, Any]]:
    """A call with every field changed once, every dim and every stride too."""
    out = [
        ("dtype", dataclasses.replace(call, dtype="float16")),
        ("scale", dataclasses.replace(call, scale=0.25)),
        ("no bias", dataclasses.replace(call, bias=None)),
        *((name, dataclasses.replace(call, **{name: True})) for name in flags),
    ]
    for name in (f.name for f in dataclasses.fields(call) if isinstance(getattr(call, f.name), sdpa.Tensor)):
        tensor = getattr(call, name)
        for part in ("dims", "strides"):
            for d in range(4):
                values = list(getattr(tensor, part))
                values[d] += 1
                changed = dataclasses.replace(tensor, **{part: tuple(values)})
                out.append((f"{name}.{part}[{d}]", dataclasses.replace(call, **{name: changed})))
    return out


KINDS = {
    "attention": (CALL, _variations(CALL, ["causal", "has_sinks", "has_stats"])),
    "gradient": (GRADIENT, _variations(GRADIENT, ["causal", "deterministic"])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_changes_the_key(kind: str) -> None:
    call, variations = KINDS[kind]
    assert [what for what, changed in variations if changed.key() == call.key()] == []
    named = {what.partition(".")[0].replace("no bias", "bias") for what, _ in variations}
    assert named == {field.name for field in dataclasses.fields(call)}


def test_all_variations_differ_from_one_another() -> None:
    keys = [call.key() for _, variations in KINDS.values() for _, call in variations]
    assert len(set(keys)) == len(keys)


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


def test_a_gpu_without_cudnn_says_so_once(monkeypatch):
    monkeypatch.setattr(sdpa, "why_unavailable", lambda: "No module named 'cudnn'; install it")
    monkeypatch.setattr(sdpa.cuda, "is_available", lambda: True)
    sdpa.can_be_used.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="scaled_dot_product_attention.*No module named 'cudnn'; install it"):
            assert not sdpa.can_be_used()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not sdpa.can_be_used()
    finally:
        sdpa.can_be_used.cache_clear()
