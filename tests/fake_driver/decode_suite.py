"""A Llama that generates text, on the fake driver: lowered, bound and launched as on a GPU by kernels that do nothing.

It counts what a token takes of the driver. Run by tests/test_runtime_fake_driver.py.
"""

import pathlib
import sys

import pytest
from framework import gpu  # noqa: F401  (a fixture)
from suite import BY_WORD

import mlxlite.core as mx
from backend_cuda import _runtime
from backend_cuda.lowering import plan as plans

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from generate import generate
from llama import Config, Llama

pytestmark = pytest.mark.usefixtures("gpu")
LAYERS = 12


def calls_by_token(n_tokens):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16}
    model = Llama(Config(**sizes, n_layers=LAYERS, vocab_size=64))
    mx.eval(model.parameters())
    calls = []
    before = None
    for _ in generate(model, [1], n_tokens, lambda logits: mx.argmax(logits, axis=-1)):
        now = _runtime.counters()
        if before:
            calls.append(now["driver_calls"] - before["driver_calls"])
        before = now
    return calls


def test_a_token_takes_four_driver_calls():
    calls = calls_by_token(40)
    steady = calls[10:-1]  # the last is read without another being launched
    assert set(steady) == {4 if BY_WORD else 5}, calls
    assert max(calls[1:4]) > 2 * LAYERS, calls  # before the arguments are moved


def test_without_arguments_in_memory(monkeypatch):
    monkeypatch.setattr(plans, "ARGUMENTS_IN_MEMORY", False)
    assert min(calls_by_token(20)[10:-1]) > 2 * LAYERS
