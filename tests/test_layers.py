"""Layers against mlx.nn: with the same weights the same outputs, and with the same seed the same weights."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from typing import Any

import mlx.core
import mlx.nn as oracle
import numpy as np
import pytest

from tests.checked_backend import checked
from tests.differential import assert_close, dtype_name, dtype_of, same_as_mlx, to_module, to_numpy
from tests.module_under_test import IS_MLX, mx, subpackage

nn = subpackage("nn")
utils = subpackage("utils")
flatten = utils.tree_flatten


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    drawn = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
    return to_numpy(to_module(mx, drawn).astype(dtype_of(mx, dtype)))


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).integers(-9, 9, shape).astype(np.int32)


IMAGE, VOLUME, SERIES = numbers(2, 6, 7, 4), numbers(2, 5, 4, 6, 4), numbers(2, 9, 4)
TOKENS, MEMORY = numbers(2, 5, 8), numbers(2, 3, 8, seed=1)
MASK = np.triu(np.full((5, 5), -1e9, np.float32), 1)

# The layer's class, its arguments, and the inputs of a call.
Case = tuple[str, dict[str, Any], list[Any]]
CONVOLUTIONS: dict[str, Case] = {
    "Conv1d": ("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, [SERIES]),
    "Conv1d with arguments": (
        "Conv1d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "dilation": 2,
            "groups": 2,
            "bias": False,
        },
        [SERIES],
    ),
    "Conv2d": ("Conv2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, [IMAGE]),
    "Conv2d with arguments": (
        "Conv2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": (3, 2),
            "stride": (2, 1),
            "padding": (1, 2),
            "dilation": (1, 2),
            "groups": 2,
            "bias": False,
        },
        [IMAGE],
    ),
    "Conv3d": ("Conv3d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, [VOLUME]),
    "Conv3d with arguments": (
        "Conv3d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": (3, 2, 1),
            "stride": (2, 1, 2),
            "padding": (1, 2, 0),
            "dilation": (1, 2, 1),
            "bias": False,
        },
        [VOLUME],
    ),
    "ConvTranspose1d": ("ConvTranspose1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 3}, [SERIES]),
    "ConvTranspose1d with arguments": (
        "ConvTranspose1d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "dilation": 2,
            "output_padding": 1,
            "bias": False,
        },
        [SERIES],
    ),
    "ConvTranspose2d": ("ConvTranspose2d", {"in_channels": 4, "out_channels": 6, "kernel_size": 2}, [IMAGE]),
    "ConvTranspose2d with arguments": (
        "ConvTranspose2d",
        {
            "in_channels": 4,
            "out_channels": 6,
            "kernel_size": (3, 2),
            "stride": (2, 1),
            "padding": (1, 0),
            "dilation": (1, 2),
            "output_padding": (1, 0),
            "bias": False,
        },
        [IMAGE],
    ),
    "ConvTranspose3d": ("ConvTranspose3d", {"in_channels": 4, "out_channels": 6, "kernel_size": 2}, [VOLUME]),
    "ConvTranspose3d with arguments": (
        "ConvTranspose3d",
        {"in_channels": 4, "out_channels": 2, "kernel_size": (3, 2, 1), "stride": (2, 1, 1), "output_padding": 1},
        [VOLUME],
    ),
}
NORMS: dict[str, Case] = {
    "InstanceNorm": ("InstanceNorm", {"dims": 4}, [IMAGE]),
    "InstanceNorm with a weight": ("InstanceNorm", {"dims": 4, "eps": 0.1, "affine": True}, [SERIES]),
    "GroupNorm": ("GroupNorm", {"num_groups": 2, "dims": 4}, [IMAGE]),
    "GroupNorm as PyTorch's": ("GroupNorm", {"num_groups": 2, "dims": 4, "pytorch_compatible": True}, [IMAGE]),
    "GroupNorm of no space": ("GroupNorm", {"num_groups": 2, "dims": 8, "affine": False}, [numbers(3, 8)]),
    "BatchNorm": ("BatchNorm", {"num_features": 4}, [IMAGE]),
    "BatchNorm of vectors": ("BatchNorm", {"num_features": 8, "momentum": 0.5, "eps": 0.1}, [numbers(3, 8)]),
    "BatchNorm of series": ("BatchNorm", {"num_features": 4, "affine": False}, [SERIES]),
    "BatchNorm of the batch": ("BatchNorm", {"num_features": 4, "track_running_stats": False}, [SERIES]),
}
POOLS: dict[str, Case] = {
    f"{kind}Pool{rank}d {name}": (f"{kind}Pool{rank}d", arguments[rank - 1], [(SERIES, IMAGE, VOLUME)[rank - 1]])
    for kind in ("Max", "Avg")
    for rank in (1, 2, 3)
    for name, arguments in {
        "apart": [{"kernel_size": 2}] * 3,
        "overlapping": [{"kernel_size": 3, "stride": 2}] * 3,
        "padded": [{"kernel_size": 3, "stride": 1, "padding": 2}] * 3,
        "padded and apart": [{"kernel_size": 3, "padding": 1}] * 3,
        "of one": [{"kernel_size": 1}] * 3,
        "wide apart": [{"kernel_size": 2, "stride": 3}] * 3,
        "by dim": [
            {"kernel_size": (3,), "stride": (2,), "padding": (1,)},
            {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
            {"kernel_size": (3, 2, 1), "stride": (2, 1, 2), "padding": (1, 0, 1)},
        ],
        "in lists": [{"kernel_size": [2] * rank, "stride": [1] * rank} for rank in (1, 2, 3)],
    }.items()
}
RECURRENT: dict[str, Case] = {
    name: (kind, arguments, inputs)
    for kind in ("RNN", "GRU", "LSTM")
    for name, arguments, inputs in (
        (kind, {"input_size": 4, "hidden_size": 3}, [SERIES]),
        (f"{kind} without bias", {"input_size": 4, "hidden_size": 3, "bias": False}, [SERIES]),
        (f"{kind} with a state", {"input_size": 4, "hidden_size": 3}, [SERIES, numbers(2, 3)]),
        (f"{kind} with a state, no bias", {"input_size": 4, "hidden_size": 3, "bias": False}, [SERIES, numbers(2, 3)]),
        (f"{kind} of one series", {"input_size": 4, "hidden_size": 3}, [SERIES[0]]),
        (f"{kind} of one step", {"input_size": 4, "hidden_size": 3}, [SERIES[:, :1]]),
    )
} | {
    "LSTM with a state and a cell": (
        "LSTM",
        {"input_size": 4, "hidden_size": 3},
        [SERIES, numbers(2, 3), numbers(2, 3, seed=1)],
    ),
}
SMALL = {"dims": 8, "num_heads": 2}
TRANSFORMERS: dict[str, Case] = {
    "MultiHeadAttention": ("MultiHeadAttention", SMALL, [TOKENS, MEMORY, MEMORY]),
    "MultiHeadAttention, masked": ("MultiHeadAttention", {**SMALL, "bias": True}, [TOKENS, TOKENS, TOKENS, MASK]),
    "MultiHeadAttention of many sizes": (
        "MultiHeadAttention",
        {
            **SMALL,
            "query_input_dims": 6,
            "key_input_dims": 4,
            "value_input_dims": 5,
            "value_dims": 12,
            "value_output_dims": 7,
        },
        [numbers(2, 5, 6), numbers(2, 3, 4), numbers(2, 3, 5)],
    ),
    "encoder layer": ("TransformerEncoderLayer", SMALL, [TOKENS, MASK]),
    "encoder layer, norms last": ("TransformerEncoderLayer", {**SMALL, "norm_first": False}, [TOKENS, None]),
    "encoder": ("TransformerEncoder", {"num_layers": 2, **SMALL, "mlp_dims": 5}, [TOKENS, MASK]),
    "decoder layer": ("TransformerDecoderLayer", SMALL, [TOKENS, MEMORY, MASK, None]),
    "decoder layer, norms last": (
        "TransformerDecoderLayer",
        {**SMALL, "norm_first": False},
        [TOKENS, MEMORY, None, MASK[:, :3]],
    ),
    "decoder": ("TransformerDecoder", {"num_layers": 2, **SMALL}, [TOKENS, MEMORY, MASK, None]),
    "transformer": (
        "Transformer",
        {**SMALL, "num_encoder_layers": 1, "num_decoder_layers": 2, "norm_first": False},
        [MEMORY, TOKENS, None, MASK, None],
    ),
}
OTHERS: dict[str, Case] = {
    "Bilinear": ("Bilinear", {"input1_dims": 4, "input2_dims": 3, "output_dims": 5}, [SERIES, numbers(2, 9, 3)]),
    "Bilinear of vectors": (
        "Bilinear",
        {"input1_dims": 4, "input2_dims": 3, "output_dims": 5, "bias": False},
        [numbers(4), numbers(3)],
    ),
    "Sinusoidal": ("SinusoidalPositionalEncoding", {"dims": 8}, [numbers(2, 3)]),
    "Sinusoidal of two": ("SinusoidalPositionalEncoding", {"dims": 2, "cos_first": True}, [numbers(2, 3)]),
    "Sinusoidal with arguments": (
        "SinusoidalPositionalEncoding",
        {"dims": 6, "min_freq": 0.01, "max_freq": 2.0, "scale": 1, "full_turns": True},
        [numbers(5)],
    ),
    "ALiBi": ("ALiBi", {}, [numbers(2, 4, 5, 7)]),
    "ALiBi of six heads": ("ALiBi", {}, [numbers(2, 6, 5, 5)]),
    "ALiBi with an offset": ("ALiBi", {}, [numbers(2, 3, 5, 7), 2]),
    "ALiBi with a mask": ("ALiBi", {}, [numbers(2, 1, 5, 5), 0, MASK]),
}
SCALES = {
    "doubled": 2,
    "halved": 0.5,
    "by a fraction": 1.7,
    "shrunk": 0.6,
    "by dim": (3.0, 0.7),
    "to integers by dim": (2, 3),
}
UPSAMPLES: dict[str, Case] = {
    f"Upsample {scale}, {kind}": ("Upsample", {"scale_factor": SCALES[scale], **arguments}, [IMAGE])
    for scale in SCALES
    for kind, arguments in {
        "nearest": {},
        "linear": {"mode": "linear"},
        "cubic": {"mode": "cubic"},
        "linear, aligned": {"mode": "linear", "align_corners": True},
        "cubic, aligned": {"mode": "cubic", "align_corners": True},
        "linear, smoothed": {"mode": "linear", "antialias": True},
        "cubic, smoothed": {"mode": "cubic", "antialias": True},
    }.items()
} | {
    "Upsample of series": ("Upsample", {"scale_factor": 2.5, "mode": "linear"}, [SERIES]),
    "Upsample of volumes": ("Upsample", {"scale_factor": (2, 1.5, 1), "mode": "cubic"}, [VOLUME]),
    "Upsample of one element": (
        "Upsample",
        {"scale_factor": 3, "mode": "linear", "align_corners": True},
        [SERIES[:, :1]],
    ),
}
CASES = CONVOLUTIONS | NORMS | POOLS | RECURRENT | TRANSFORMERS | OTHERS | UPSAMPLES


def pair(case: str) -> tuple[Any, Any]:
    """The layer of each, made with the same seed."""
    name, arguments, _ = CASES[case]
    layers = []
    for module, m in ((mx, nn), (mlx.core, oracle)):
        module.random.seed(7)
        layers.append(getattr(m, name)(**arguments))
    return layers[0], layers[1]


def randomized(ours: Any, theirs: Any) -> None:
    """Puts the same random numbers in the place of all parameters, ones and zeros too."""
    drawn = [(name, numbers(*a.shape, seed=i + 1) * 0.5) for i, (name, a) in enumerate(flatten(ours.parameters()))]
    drawn = [(name, np.abs(value) if "var" in name else value) for name, value in drawn]
    ours.load_weights([(name, to_module(mx, value)) for name, value in drawn])
    theirs.load_weights([(name, to_module(mlx.core, value)) for name, value in drawn])


def called(module: Any, layer: Any, inputs: list[Any], dtype: str | None = None) -> list[Any]:
    arrays = [to_module(module, x) if isinstance(x, np.ndarray) else x for x in inputs]
    if dtype is not None:
        arrays = [x.astype(dtype_of(module, dtype)) if isinstance(x, module.array) else x for x in arrays]
    result = layer(*arrays)
    return list(result) if isinstance(result, tuple) else [result]


def assert_same(ours: list[Any], theirs: list[Any], case: str, tolerance: float, scale: float) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert dtype_name(a.dtype) == dtype_name(b.dtype) and a.shape == b.shape, case
        assert_close(to_numpy(a), to_numpy(b), case=case, tolerance=tolerance, scale=scale)


def test_every_layer_of_mlx_is_here():
    apart = re.compile("Quantized|QQ|Sharded")
    names = [n for n, v in vars(oracle).items() if inspect.isclass(v) and issubclass(v, oracle.Module)]
    assert len(names) > 60
    assert [name for name in names if not apart.search(name) and not hasattr(nn, name)] == []
    here = {name for name, _, _ in CASES.values()}
    files = ("convolution", "convolution_transpose", "pooling", "recurrent", "transformer", "upsample")
    for name in names:
        if getattr(oracle, name).__module__.rpartition(".")[2] in files:
            assert name in here


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CASES.values()} | {"Dropout2d", "Dropout3d"}))
def test_parameters_and_defaults(name):
    def described(cls: Any, method: str) -> list[tuple[str, Any]]:
        parameters = inspect.signature(getattr(cls, method)).parameters.values()
        return [(p.name, getattr(p.default, "__name__", p.default)) for p in parameters if "args" not in p.name]

    assert described(getattr(nn, name), "__init__") == described(getattr(oracle, name), "__init__")
    if "Pool" not in name and name != "ALiBi":
        ours = [p for p, _ in described(getattr(nn, name), "__call__")]
        assert ours == [p for p, _ in described(getattr(oracle, name), "__call__")]


@pytest.mark.parametrize("case", CASES)
def test_same_seed_same_layer(case):
    ours, theirs = pair(case)
    mine, other = flatten(ours.parameters()), flatten(theirs.parameters())
    assert [(n, a.shape) for n, a in mine] == [(n, a.shape) for n, a in other]
    for (name, a), (_, b) in zip(mine, other, strict=True):
        assert_close(to_numpy(a), to_numpy(b), case=name, tolerance=1e-6, scale=0.1)
    assert [n for n, _ in flatten(ours.trainable_parameters())] == [
        n for n, _ in flatten(theirs.trainable_parameters())
    ]
    address = re.compile(r"function (\w+) at 0x\w+")
    assert address.sub(r"\1", repr(ours)) == address.sub(r"\1", repr(theirs))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_forward(case, training):
    ours, theirs = pair(case)
    randomized(ours, theirs)
    ours.train(training)
    theirs.train(training)
    inputs = CASES[case][2]
    for _ in range(2 if "BatchNorm" in case else 1):
        mine, other = called(mx, ours, inputs), called(mlx.core, theirs, inputs)
        # Sums of up to a hundred products, then often a norm.
        assert_same(mine, other, case, tolerance=2e-5, scale=2.0)
    for (name, a), (_, b) in zip(flatten(ours.parameters()), flatten(theirs.parameters()), strict=True):
        assert_close(to_numpy(a), to_numpy(b), case=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", [*CONVOLUTIONS, *NORMS, *POOLS, *RECURRENT, *OTHERS, *list(UPSAMPLES)[:14]])
def test_forward_in_16_bits(case, dtype):
    ours, theirs = pair(case)
    randomized(ours, theirs)
    for module, layer in ((mx, ours), (mlx.core, theirs)):
        layer.set_dtype(dtype_of(module, dtype))
    inputs = CASES[case][2]
    mine, other = called(mx, ours, inputs, dtype), called(mlx.core, theirs, inputs, dtype)
    # Each layer rounds several times, recurrent ones at every step.
    assert_same(mine, other, case, tolerance={"float16": 4e-3, "bfloat16": 3e-2}[dtype], scale=4.0)


@pytest.mark.skipif(not hasattr(mx, "value_and_grad"), reason="mx.value_and_grad is not there yet")
@pytest.mark.parametrize("case", CASES)
def test_gradients(case):
    """Of the parameters and of the input, of a function of the output that tells all its elements apart."""
    results = []
    for module, layer in zip((mx, mlx.core), pair(case), strict=True):
        results.append(_gradients(module, layer, CASES[case][2]))
    (value, ours), (expected, theirs) = results
    assert_close(to_numpy(value), to_numpy(expected), case=case, tolerance=1e-4)
    assert ours.keys() == theirs.keys() and "input" in ours
    for name, gradient in ours.items():
        # MLX's gradient of a transposed convolution with output padding lacks a row.
        if case == "ConvTranspose3d with arguments" and name == "input":
            assert gradient.shape == CASES[case][2][0].shape
            continue
        a, b = to_numpy(gradient), to_numpy(theirs[name])
        assert_close(a, b, case=(case, name), tolerance=1e-4, scale=max(0.1, float(np.abs(b).max())))


def _gradients(module: Any, layer: Any, inputs: list[Any]) -> tuple[Any, dict[str, Any]]:
    arrays = [to_module(module, x) if isinstance(x, np.ndarray) else x for x in inputs]

    def loss(parameters: Any, x: Any) -> Any:
        layer.update(parameters)
        out = layer(x, *arrays[1:])
        out = out[0] if isinstance(out, tuple) else out
        return (module.sin(module.arange(out.size, dtype=module.float32)).reshape(out.shape) * out * out).sum()

    value, gradients = module.value_and_grad(loss, argnums=(0, 1))(layer.trainable_parameters(), arrays[0])
    return value, {**dict(flatten(gradients[0])), "input": gradients[1]}


def test_pools_of_whole_numbers():
    for name, arguments in (("MaxPool2d", {"kernel_size": 2}), ("MaxPool2d", {"kernel_size": 3, "stride": 1})):
        x = integers(2, 6, 7, 3)
        mine = called(mx, getattr(nn, name)(**arguments), [x])
        assert_same(mine, called(mlx.core, getattr(oracle, name)(**arguments), [x]), name, 0.0, 1.0)
        assert dtype_name(mine[0].dtype) == "int32"


def test_nonlinearity_of_rnn():
    ours = nn.RNN(4, 3, nonlinearity=nn.relu)
    theirs = oracle.RNN(4, 3, nonlinearity=oracle.relu)
    randomized(ours, theirs)
    assert_same(called(mx, ours, [SERIES]), called(mlx.core, theirs, [SERIES]), "relu", 1e-5, 1.0)


def test_a_state_goes_on_where_it_was():
    """Half a series and then the other half, from the state between, is the whole series."""
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        layer = kind(4, 3)
        whole = called(mx, layer, [SERIES])
        first = called(mx, layer, [SERIES[:, :4]])
        second = layer(to_module(mx, SERIES[:, 4:]), *(part[:, -1] for part in first))
        second = list(second) if isinstance(second, tuple) else [second]
        for a, b, c in zip(whole, first, second, strict=True):
            joined = np.concatenate([to_numpy(b), to_numpy(c)], axis=1)
            np.testing.assert_allclose(joined, to_numpy(a), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_masks(dtype):
    def same(call: Any) -> None:
        ours, theirs = call(nn, dtype_of(mx, dtype)), call(oracle, dtype_of(mlx.core, dtype))
        assert_same([ours], [theirs], "", 0.0 if dtype == "float32" else 1e-2, 1e-3)

    same(lambda m, d: m.MultiHeadAttention.create_additive_causal_mask(4, d))
    same(lambda m, d: m.ALiBi.create_alibi_matrix(5, 6, 4, 2, d))
    same(lambda m, d: m.ALiBi.create_alibi_slope(12, d))


def test_custom_encoder_and_decoder():
    model = nn.Transformer(
        custom_encoder=lambda src, mask: src + 1, custom_decoder=lambda tgt, memory, mask, memory_mask: tgt * memory
    )
    assert to_numpy(model(mx.array([1.0]), mx.array([3.0]), None, None, None)).tolist() == [6.0]
    assert flatten(model.parameters()) == []


@pytest.mark.mlxlite_only
def test_checkpoint_says_what_is_missing():
    if hasattr(mx, "checkpoint"):
        pytest.skip("mx.checkpoint is there")
    layer = nn.TransformerEncoder(1, 8, 2, checkpoint=True)
    with pytest.raises(NotImplementedError, match="checkpoint"):
        layer(to_module(mx, TOKENS), None)


# --- Running statistics, dropout --------------------------------------------------------------------------------------


def test_running_statistics_are_never_trained():
    for m in (nn, oracle):
        layer = m.BatchNorm(4)
        assert sorted(layer.trainable_parameters()) == ["bias", "weight"]
        layer.unfreeze()
        assert sorted(layer.trainable_parameters()) == ["bias", "weight"]
        layer.freeze()
        layer.unfreeze(keys=["weight", "running_mean"])
        assert sorted(layer.trainable_parameters()) == ["weight"]
        assert sorted(layer.parameters()) == ["bias", "running_mean", "running_var", "weight"]


def test_running_statistics_come_to_those_of_the_data():
    layer = nn.BatchNorm(4, momentum=0.5)
    x = to_module(mx, IMAGE * 3 + 1)
    for _ in range(30):
        layer(x)
        mx.eval(layer.parameters())
    flat = (IMAGE * 3 + 1).reshape(-1, 4)
    np.testing.assert_allclose(to_numpy(layer.running_mean), flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(to_numpy(layer.running_var), flat.var(0, ddof=1), rtol=1e-4)
    before = to_numpy(layer.running_mean)
    out = to_numpy(layer.eval()(x))
    assert abs(out.mean()) < 1e-2 and abs(out.std() - 1) < 1e-2
    np.testing.assert_array_equal(to_numpy(layer.running_mean), before)


@pytest.mark.parametrize(("name", "shape"), [("Dropout2d", (3, 4, 5, 400)), ("Dropout3d", (3, 2, 4, 5, 400))])
def test_dropout_of_channels(name, shape):
    layer = getattr(nn, name)(0.25)
    for dims in (shape, shape[1:]):
        out = to_numpy(layer(mx.ones(dims)))
        flat = out.reshape(len(out) if dims == shape else 1, -1, dims[-1])
        assert (flat == flat[:, :1]).all()  # a channel is zeroed as a whole
        kept = flat[:, 0] != 0
        np.testing.assert_allclose(flat[:, 0][kept], 1 / 0.75, rtol=1e-6)
        assert abs(kept.mean() - 0.75) < 0.1
    x = mx.ones(shape)
    assert layer.eval()(x) is x and getattr(nn, name)(0)(x) is x
    assert repr(layer) == repr(getattr(oracle, name)(0.25))


def test_dropout_is_mlx_s_for_the_same_seed():
    for name, x in (("Dropout", SERIES), ("Dropout2d", IMAGE), ("Dropout3d", VOLUME)):
        results = []
        for module, m in ((mx, nn), (mlx.core, oracle)):
            module.random.seed(3)
            results.append(called(module, getattr(m, name)(0.4), [x]))
        assert_same(*results, name, 1e-6, 1.0)


# --- Errors -----------------------------------------------------------------------------------------------------------

ERRORS: dict[str, Any] = {
    "groups of Conv1d": lambda m, core: m.Conv1d(3, 4, 2, groups=2),
    "groups of Conv2d": lambda m, core: m.Conv2d(3, 4, 2, groups=2),
    "outputs of Conv2d": lambda m, core: m.Conv2d(4, 3, 2, groups=2)(core.ones((1, 4, 4, 4))),
    "channels of Conv2d": lambda m, core: m.Conv2d(4, 3, 2)(core.ones((1, 4, 4, 5))),
    "dims of Conv2d": lambda m, core: m.Conv2d(4, 3, 2)(core.ones((4, 4, 4))),
    "dims of Conv3d": lambda m, core: m.Conv3d(4, 3, 2)(core.ones((1, 4, 4, 4))),
    "channels of ConvTranspose1d": lambda m, core: m.ConvTranspose1d(4, 3, 2)(core.ones((1, 4, 5))),
    "eps of InstanceNorm": lambda m, core: m.InstanceNorm(4, eps=0),
    "dims of InstanceNorm": lambda m, core: m.InstanceNorm(4)(core.ones((2, 4))),
    "eps of GroupNorm": lambda m, core: m.GroupNorm(2, 4, eps=-1.0),
    "no groups of GroupNorm": lambda m, core: m.GroupNorm(0, 4),
    "no features of GroupNorm": lambda m, core: m.GroupNorm(2, 0),
    "groups of GroupNorm": lambda m, core: m.GroupNorm(3, 4),
    "eps of BatchNorm": lambda m, core: m.BatchNorm(4, eps=0.0),
    "dims of BatchNorm": lambda m, core: m.BatchNorm(4)(core.ones((4,))),
    "too many dims of BatchNorm": lambda m, core: m.BatchNorm(4)(core.ones((2, 2, 2, 2, 4))),
    "one value for BatchNorm": lambda m, core: m.BatchNorm(4)(core.ones((1, 4))),
    "dropout of all": lambda m, core: m.Dropout2d(1.0),
    "negative dropout": lambda m, core: m.Dropout3d(-0.5),
    "dims of Dropout2d": lambda m, core: m.Dropout2d()(core.ones((2, 2))),
    "dims of Dropout2d in evaluation": lambda m, core: m.Dropout2d().eval()(core.ones((2, 2))),
    "dims of Dropout3d": lambda m, core: m.Dropout3d()(core.ones((2, 2, 2))),
    "no kernel": lambda m, core: m.MaxPool1d(0),
    "negative stride": lambda m, core: m.AvgPool2d(2, stride=-1),
    "negative padding": lambda m, core: m.MaxPool3d(2, padding=-1),
    "kernel of many": lambda m, core: m.MaxPool2d((1, 2, 3)),
    "stride of many": lambda m, core: m.MaxPool1d(2, stride=(1, 2)),
    "padding of many": lambda m, core: m.AvgPool3d(2, padding=(1, 2)),
    "kernel of a fraction": lambda m, core: m.MaxPool2d(1.5),
    "dims of MaxPool2d": lambda m, core: m.MaxPool2d(3, stride=1)(core.ones((2, 4, 4))),
    "too many dims of MaxPool1d": lambda m, core: m.MaxPool1d(3, stride=1)(core.ones((2, 4, 4, 1))),
    "too few dims of AvgPool1d": lambda m, core: m.AvgPool1d(3, stride=1)(core.ones((2, 4))),
    "nonlinearity": lambda m, core: m.RNN(2, 3, nonlinearity=3),
    "input of RNN": lambda m, core: m.RNN(2, 3)(core.ones((1, 4, 5))),
    "heads": lambda m, core: m.MultiHeadAttention(8, 3),
    "odd dims": lambda m, core: m.SinusoidalPositionalEncoding(3),
    "no dims": lambda m, core: m.SinusoidalPositionalEncoding(0),
    "mode of Upsample": lambda m, core: m.Upsample(2, mode="best"),
    "antialias of nearest": lambda m, core: m.Upsample(2, antialias=True),
    "antialias and corners": lambda m, core: m.Upsample(2, mode="linear", antialias=True, align_corners=True),
    "dims of Upsample": lambda m, core: m.Upsample(2)(core.ones((2, 2))),
    "scales of Upsample": lambda m, core: m.Upsample((2, 2, 2))(core.ones((1, 2, 2, 1))),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    def call(module: Any) -> Any:
        return ERRORS[case](oracle if module is mlx.core else nn, module)

    assert same_as_mlx(call, case=case) is None


@pytest.mark.mlxlite_only
def test_pools_larger_than_their_input():
    for pool in (nn.MaxPool2d(5), nn.MaxPool2d(5, stride=1), nn.AvgPool2d((2, 9), padding=1)):
        with pytest.raises(ValueError, match="larger"):
            pool(mx.ones((1, 4, 4, 2)))


@pytest.mark.mlxlite_only
def test_layers_are_lowered_for_the_gpu():
    with checked() as checks:
        for case in ("Conv2d", "ConvTranspose2d with arguments", "GroupNorm", "MaxPool2d padded", "AvgPool2d apart"):
            mx.eval(called(mx, pair(case)[0], CASES[case][2]))
        for case in ("LSTM with a state and a cell", "GRU", "BatchNorm", "Upsample by a fraction, cubic", "encoder"):
            layer = pair(case)[0]
            mx.eval(called(mx, layer, CASES[case][2]), layer.parameters())
        assert len(checks) >= 10


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    for name in ("pooling", "upsample"):
        module = importlib.import_module(f"{nn.__name__}.{name}")
        result = doctest.testmod(module, extraglobs={"mx": mx, "nn": nn})
        assert result.failed == 0 and result.attempted >= 1
