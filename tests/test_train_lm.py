"""The language model example: text, batches, steps, checkpoints, the command line; and its training against MLX's."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.module_under_test import IS_MLX, mx

if IS_MLX:
    pytest.skip("the example is a program of mlxlite's", allow_module_level=True)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import checkpoints  # noqa: E402
import mlx_gpt  # noqa: E402
import text_data  # noqa: E402
import train_lm  # noqa: E402
import training  # noqa: E402
from gpt import GPT, GPTConfig  # noqa: E402

import mlxlite.optimizers as optim  # noqa: E402
from mlxlite import io  # noqa: E402
from mlxlite.utils import tree_flatten  # noqa: E402
from tests.checked_backend import checked  # noqa: E402

TEXT = argparse.__file__  # about 100 kB of Python
TINY = GPTConfig(layers=2, heads=2, width=32)
SIZES = ["--layers", "2", "--heads", "2", "--width", "32", "--context", "32", "--batch-size", "8", "--sample", "0"]


def make_trainer(config: GPTConfig = TINY, rate: float = 1e-2, steps: int = 100, **settings) -> training.Trainer:
    mx.random.seed(3)
    schedule = training.warmup_and_cosine(rate, 10, steps)
    optimizer = optim.AdamW(schedule, betas=(0.9, 0.95), weight_decay=0.1, bias_correction=True)
    return training.Trainer(GPT(config), optimizer, **settings)


def make_windows(length: int = 33) -> text_data.Windows:
    return text_data.Windows(np.frombuffer(Path(TEXT).read_bytes(), np.uint8), length, seed=0)


def arrays_of(trainer: training.Trainer) -> dict[str, np.ndarray]:
    trees = {"model": trainer.model.parameters(), "optimizer": trainer.optimizer.state, "random": mx.random.state[0]}
    return {name: np.array(a) for name, a in tree_flatten(trees)}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# --- Text -------------------------------------------------------------------------------------------------------------


def test_the_standard_library_is_found_and_divided():
    training_part, evaluation = text_data.read_text(None, 20_000_000)
    assert len(training_part) > 5_000_000
    assert 0.01 < len(evaluation) / len(training_part) < 0.2
    everything = {text for part in (training_part, evaluation) for text in part.tobytes().split(b"\0")}
    assert Path(TEXT).read_bytes() in everything
    assert not set(training_part.tobytes().split(b"\0")) & set(evaluation.tobytes().split(b"\0")) - {b""}
    # Of the same text the same bytes, and no more than asked for.
    again = text_data.read_text(None, 100_000)
    assert len(again[0]) + len(again[1]) <= 100_000 + 1
    assert text_data.fingerprint(again[0]) == text_data.fingerprint(text_data.read_text(None, 100_000)[0])
    assert text_data.fingerprint(again[0]) != text_data.fingerprint(training_part)


def test_text_of_ones_own(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in {"a.md": "first", "deep/b.txt": "second", "c.bin": "no text"}.items():
        (tmp_path / name).write_text(text)
    assert [part.tobytes() for part in text_data.read_text(tmp_path, 1000)] == [b"first\0", b"second\0"]
    (tmp_path / "one.txt").write_bytes(bytes(range(100)))
    parts = text_data.read_text(tmp_path / "one.txt", 1000)
    assert [part.tolist() for part in parts] == [list(range(95)), list(range(95, 100))]
    with pytest.raises(FileNotFoundError, match="--text"):
        text_data.read_text(tmp_path / "none", 1000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files"):
        text_data.read_text(tmp_path / "empty", 1000)


def test_windows_of_an_epoch_cover_the_text_once():
    data = np.arange(200, dtype=np.uint8)
    windows = text_data.Windows(data, 10, seed=4)
    first, second = windows.take(0, windows.per_epoch), windows.take(windows.per_epoch, windows.per_epoch)
    for epoch in (first, second):
        seen = np.sort(epoch.ravel())
        np.testing.assert_array_equal(seen, np.arange(seen[0], seen[0] + 190))
        assert (np.diff(epoch, axis=1) == 1).all()
    assert first.tolist() != second.tolist()
    # Wherever one begins to read.
    np.testing.assert_array_equal(
        text_data.Windows(data, 10, seed=4).take(15, 9), np.concatenate([first, second])[15:24]
    )
    assert text_data.Windows(data, 10, seed=5).take(0, 19).tolist() != first.tolist()
    with pytest.raises(ValueError, match="--context"):
        text_data.Windows(data, 101, seed=0)


# --- Steps ------------------------------------------------------------------------------------------------------------


# Losses of 100 steps differ by at most 2e-6 in three orders of the text. (With a learning rate of 1e-2 it is 9e-4: each
# step builds on the one before, and longer ones make more of the differences.)
MLX_TOLERANCE = 1e-5


# In bfloat16, whose numbers are 8e-3 apart, the last loss differs by 3e-4 at most, and one on the way by 2e-3.
BFLOAT16_TOLERANCE = 1e-3


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_losses_are_those_of_mlx(dtype):
    steps, rate = 100, 3e-3
    trainer, windows = make_trainer(rate=rate, steps=steps, dtype=dtype), make_windows()
    weights = {name: np.array(a) for name, a in tree_flatten(trainer.model.parameters())}
    batches = [windows.take(8 * i, 8) for i in range(steps)]
    ours = [trainer.step(batch)[0] for batch in batches]
    theirs = mlx_gpt.losses(weights, TINY.heads, batches, rate, 10, steps, clip=1.0)
    assert theirs[0] - theirs[-1] > 2  # it did train
    if dtype == mx.float32:
        np.testing.assert_allclose(ours, theirs, rtol=MLX_TOLERANCE, atol=0)
    else:
        assert ours[0] != theirs[0]  # it did round
        np.testing.assert_allclose(ours[-1], theirs[-1], rtol=BFLOAT16_TOLERANCE, atol=0)


def test_a_batch_in_two_parts_makes_the_same_step():
    whole, halves = make_trainer(), make_trainer(parts=2)
    windows = make_windows()
    for i in range(3):
        batch = windows.take(8 * i, 8)
        np.testing.assert_allclose(halves.step(batch), whole.step(batch), rtol=1e-5)
    expected = arrays_of(whole)
    for name, found in arrays_of(halves).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="2 equal parts"):
        halves.step(windows.take(0, 7))


@pytest.mark.parametrize("parts", [1, 2])
def test_compiled_steps_are_the_same(parts):
    config = GPTConfig(layers=1, heads=2, width=16, dropout=0.1)
    plain, found = make_trainer(config, parts=parts), []
    windows = make_windows()
    expected = [plain.step(windows.take(8 * i, 8)) for i in range(4)]
    compiled = make_trainer(config, parts=parts, compile=True)  # which seeds anew
    found = [compiled.step(windows.take(8 * i, 8)) for i in range(4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    batch = windows.take(100, 12)
    np.testing.assert_allclose(compiled.evaluate(batch, 5), plain.evaluate(batch, 5), rtol=1e-6)


def test_bfloat16_computes_with_roundings_of_float32_parameters():
    rate = 1e-4  # so small that a parameter of 1 in bfloat16, whose neighbours are 4e-3 apart, would never move
    exact, rounded = make_trainer(rate=rate), make_trainer(rate=rate, dtype=mx.bfloat16)
    windows = make_windows()
    for i in range(5):
        batch = windows.take(8 * i, 8)
        (a, _), (b, _) = exact.step(batch), rounded.step(batch)
        assert a != b and abs(a - b) < 0.02
    for name, value in tree_flatten(rounded.model.parameters()):
        assert value.dtype == mx.float32, name
    scale = np.array(rounded.model.norm.weight)
    assert 0 < np.abs(scale - 1).max() < 2e-3


def test_evaluation_is_without_dropout_and_leaves_everything():
    trainer, windows = make_trainer(GPTConfig(layers=1, heads=2, width=16, dropout=0.5)), make_windows()
    before = arrays_of(trainer)
    batch = windows.take(0, 7)
    loss = trainer.evaluate(batch, 3)
    assert loss == trainer.evaluate(batch, 3) == pytest.approx(trainer.evaluate(batch, 7), rel=1e-6)
    assert_same(arrays_of(trainer), before)
    assert trainer.model.training
    assert trainer.step(batch)[0] != pytest.approx(loss, rel=1e-3)


def test_the_learning_rate_rises_and_falls():
    schedule = training.warmup_and_cosine(1.0, 4, 14)
    rates = [float(schedule(mx.array(step, mx.uint64))) for step in range(16)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rates[9], 0.55, rtol=1e-6)
    np.testing.assert_allclose(rates[14:], [0.1, 0.1], rtol=1e-6)
    assert float(training.warmup_and_cosine(1.0, 0, 5)(mx.array(0))) == 1.0


def test_a_step_is_lowered_for_the_gpu():
    trainer = make_trainer(GPTConfig(vocabulary=16, layers=1, heads=2, width=8, dropout=0.1))
    batch = np.arange(2 * 6).reshape(2, 6).astype(np.int32)
    with checked() as plans:
        losses = [trainer.step(batch)[0] for _ in range(2)]
    assert len(plans) > 0 and losses[0] != losses[1]


# --- Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    trainer, windows = make_trainer(), make_windows()
    for i in range(2):
        trainer.step(windows.take(8 * i, 8))
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.save_checkpoint(path, trainer.model, trainer.optimizer, {"step": 2})
    return path, arrays_of(trainer)


def test_a_checkpoint_restores_everything(saved):
    path, expected = saved
    other = make_trainer()
    checkpoint = checkpoints.read_checkpoint(path)
    assert checkpoint.values == {"step": 2}
    checkpoint.restore(other.model, other.optimizer)
    assert_same(arrays_of(other), expected)
    assert expected["optimizer.step"] == 2


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated data": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "truncated header": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit of a tensor": lambda path: flip(path, -5),
    "a bit of the values": lambda path: flip(path, path.read_bytes().index(b'\\"step') + 9),
    "text": lambda path: path.write_text("not a checkpoint, but long enough to have a header"),
    "other tensors": lambda path: io.save_safetensors(str(path), {"weight": mx.ones(2)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(saved, damage):
    path, _ = saved
    DAMAGES[damage](path)
    other = make_trainer()
    before = arrays_of(other)
    with pytest.raises(checkpoints.CheckpointError, match=r"damaged|is no checkpoint") as refused:
        checkpoints.read_checkpoint(path).restore(other.model, other.optimizer)
    assert str(path) in str(refused.value)
    assert_same(arrays_of(other), before)


@pytest.mark.parametrize("config", [GPTConfig(layers=3, heads=2, width=32), GPTConfig(layers=2, heads=2, width=16)])
def test_a_checkpoint_of_another_model_changes_nothing(saved, config):
    path, _ = saved
    other = make_trainer(config)
    before = arrays_of(other)
    with pytest.raises(checkpoints.CheckpointError, match=r"does not fit: .* there and .* here"):
        checkpoints.read_checkpoint(path).restore(other.model, other.optimizer)
    assert_same(arrays_of(other), before)


def test_a_failing_write_leaves_the_old_checkpoint(saved, monkeypatch):
    path, expected = saved

    def disk_full(out, header, values):
        out.write(header)
        raise OSError("no space left on device")

    monkeypatch.setattr("mlxlite.io.safetensors._write", disk_full)
    other = make_trainer()
    with pytest.raises(OSError, match="no space"):
        checkpoints.save_checkpoint(path, other.model, other.optimizer, {"step": 3})
    assert list(path.parent.iterdir()) == [path]
    checkpoint = checkpoints.read_checkpoint(path)
    assert checkpoint.values == {"step": 2}
    np.testing.assert_array_equal(np.array(checkpoint.arrays["model.norm.weight"]), expected["model.norm.weight"])


# --- The program ------------------------------------------------------------------------------------------------------


def run(out: Path, device: str, *arguments: str) -> dict:
    """The record of a run of train_lm.py."""
    result = out.parent / f"{out.name}.json"
    common = ["--text", TEXT, "--out", str(out), "--device", device, "--json", str(result)]
    assert train_lm.main([*common, *SIZES, *arguments]) == 0
    return json.loads(result.read_text())


def test_the_loss_falls(tmp_path, device):
    arguments = ["--steps", "60", "--warmup", "5", "--learning-rate", "1e-2", "--evaluate-every", "30"]
    record = run(tmp_path / "run", device, *arguments)
    assert record["first_step"] == 0 and len(record["losses"]) == 60
    # It begins by guessing: log(256), and half the variance of the logits, which is 1. Text has few distinct bytes:
    # over seeds, and over the texts of Python's versions, the mean of a batch is spread by about 0.5.
    assert record["losses"][0] == pytest.approx(math.log(256) + 0.5, abs=1.5)
    assert record["losses"][-1] < record["losses"][0] - 2.5
    assert [step for step, _ in record["evaluations"]] == [30, 60]
    assert record["evaluations"][1][1] < record["evaluations"][0][1] < record["losses"][0] - 2


@pytest.mark.parametrize(
    "extra",
    [["--dropout", "0.1"], ["--dropout", "0.1", "--compile", "--accumulate", "2"], ["--dtype", "bfloat16"]],
    ids=["plain", "compiled in parts", "bfloat16"],
)
def test_a_resumed_run_is_the_same_bit_by_bit(tmp_path, monkeypatch, capsys, device, extra):
    if device == "gpu":
        pytest.skip("the order of a GPU's sums may differ from run to run")
    arguments = ["--steps", "12", "--warmup", "3", "--save-every", "5", "--evaluate-every", "4", *extra]
    expected = run(tmp_path / "whole", device, *arguments)

    original, calls = training.Trainer.step, []

    def interrupted(self, tokens):
        calls.append(len(tokens))
        if len(calls) == 7:
            signal.raise_signal(signal.SIGTERM)  # in the middle of a step, which is finished nevertheless
        return original(self, tokens)

    monkeypatch.setattr(training.Trainer, "step", interrupted)
    first = run(tmp_path / "parts", device, *arguments)
    monkeypatch.undo()
    assert "stopped after step 7; go on with --resume" in capsys.readouterr().err
    second = run(tmp_path / "parts", device, *arguments, "--resume")
    assert (len(first["losses"]), second["first_step"]) == (7, 7)
    assert first["losses"] + second["losses"] == expected["losses"]
    assert first["evaluations"] + second["evaluations"] == expected["evaluations"]
    ends = [checkpoints.read_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("parts", "whole")]
    assert ends[0].values == ends[1].values
    assert_same(*({name: np.array(a) for name, a in end.arrays.items()} for end in ends))


def test_what_can_not_be_resumed_says_why(tmp_path, capsys, device):
    out = tmp_path / "run"
    common = [*SIZES, "--text", TEXT, "--steps", "2", "--warmup", "0", "--device", device, "--out", str(out)]
    assert train_lm.main([*common, "--resume"]) == 1
    assert "start without --resume" in capsys.readouterr().err
    assert train_lm.main(common) == 0
    capsys.readouterr()
    file = out / "checkpoint.safetensors"
    content = file.read_bytes()
    assert train_lm.main(common) == 1
    assert "go on with --resume, or begin anew with another --out" in capsys.readouterr().err
    assert train_lm.main([*common, "--resume", "--learning-rate", "0.5"]) == 1
    assert "--learning-rate 0.003, not 0.5" in capsys.readouterr().err
    assert train_lm.main([*common, "--resume", "--text", json.__file__]) == 1
    assert "another text" in capsys.readouterr().err
    assert file.read_bytes() == content
    file.write_bytes(content[:1000])
    assert train_lm.main([*common, "--resume"]) == 1
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "8", "--accumulate", "3"], "--accumulate 3"),
        (["--steps", "5", "--warmup", "5"], "less than --steps"),
        (["--prompt", ""], "--prompt"),
        (["--steps", "0"], "at least 1"),
        (["--steps", "many"], "not an integer"),
        (["--dropout", "1"], "below 1"),
        (["--clip", "0"], "above 0"),
        (["--learning-rate", "nan"], "above 0"),
        (["--dtype", "float16"], "float16"),
    ],
)
def test_wrong_options(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        train_lm.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_heads_that_do_not_fit(tmp_path, capsys, device):
    arguments = ["--text", TEXT, "--out", str(tmp_path / "run"), "--width", "30", "--heads", "4", "--device", device]
    assert train_lm.main(arguments) == 1
    assert "width 30 can not be divided into 4 heads" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, monkeypatch, capsys, device):
    monkeypatch.setattr(training.Trainer, "step", lambda self, tokens: (math.nan, 1.0))
    arguments = ["--text", TEXT, "--out", str(tmp_path / "run"), "--steps", "2", "--warmup", "0", "--device", device]
    assert train_lm.main([*SIZES, *arguments]) == 1
    assert "lower --learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


@pytest.mark.parametrize("context", [4, 16])
def test_text_is_written_from_what_stands_before_it(context):
    model = make_trainer(GPTConfig(layers=1, heads=2, width=16)).model
    found = train_lm.write(model, context, b"def ", 8, temperature=1e-4, seed=0)
    expected = list(b"def ")
    for _ in range(8):
        logits = model(mx.array([expected[-context:]]))[0, -1]
        expected.append(mx.argmax(logits).item())
    assert list(found) == expected


def test_a_second_signal_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with training.StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
