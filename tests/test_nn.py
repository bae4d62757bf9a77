"""Layers against mlx.nn with the same weights, and Module's dealings with the tree below it."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import mlx.core
import mlx.nn as oracle
import numpy as np
import pytest

from tests.differential import TOLERANCE, dtype_name, dtype_of, to_module, to_numpy
from tests.module_under_test import mx, subpackage

nn = subpackage("nn")
utils = subpackage("utils")
flatten = utils.tree_flatten


def values(*shape: int, dtype: str = "float32", scale: float = 3.0) -> np.ndarray:
    """The same normal numbers for the same shape."""
    drawn = (np.random.default_rng(sum(shape)).normal(size=shape) * scale).astype(np.float32)
    return to_numpy(to_module(mx, drawn).astype(dtype_of(mx, dtype)))


def assert_same(ours: Any, theirs: Any, factor: float = 1.0) -> None:
    assert dtype_name(ours.dtype) == dtype_name(theirs.dtype)
    assert ours.shape == theirs.shape
    tolerance = TOLERANCE.get(dtype_name(ours.dtype), 0) * factor
    np.testing.assert_allclose(
        to_numpy(ours).astype(np.float64), to_numpy(theirs).astype(np.float64), rtol=tolerance, atol=tolerance
    )


def compare(ours: Any, theirs: Any, *inputs: np.ndarray, factor: float = 1.0) -> None:
    """Calls a layer of each with the same input, after giving theirs our weights if it has any."""
    if isinstance(theirs, oracle.Module):
        weights = [(name, to_module(mlx.core, to_numpy(a))) for name, a in flatten(ours.parameters())]
        theirs.load_weights(weights, strict=True)
    mine = ours(*[to_module(mx, x) for x in inputs])
    assert_same(mine, theirs(*[to_module(mlx.core, x) for x in inputs]), factor)


# --- Activations ------------------------------------------------------------------------------------------------------

FUNCTIONS = sorted(
    name
    for name, value in vars(oracle.layers.activations).items()
    if name.islower() and not name.startswith("_") and hasattr(oracle, name) and inspect.isroutine(value)
)
CLASSES = sorted(
    name
    for name, value in vars(oracle.layers.activations).items()
    if inspect.isclass(value) and issubclass(value, oracle.Module) and value is not oracle.Module
)
# Near 0, far from it, and where pieces of the piecewise functions meet.
POINTS = np.array([-40, -6, -3.5, -3, -1, -0.5, -0.01, 0, 0.01, 0.5, 1, 2.9, 3, 6, 7, 40], np.float32)


def test_every_activation_of_mlx_is_found():
    assert {"relu", "gelu", "silu", "softmax", "prelu", "glu"} <= set(FUNCTIONS)
    assert {"ReLU", "GELU", "SiLU", "Softmax", "PReLU", "GLU"} <= set(CLASSES)
    missing = [name for name in FUNCTIONS + CLASSES if not hasattr(nn, name)]
    assert missing == []


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_functions(name, dtype):
    slope = [np.array([0.3], np.float32)] if name == "prelu" else []
    # A composition of a few operations, each of them rounded.
    compare(getattr(nn, name), getattr(oracle, name), POINTS.astype(np.float32), *slope, factor=4)
    x = to_module(mx, POINTS).astype(dtype_of(mx, dtype))
    compare(getattr(nn, name), getattr(oracle, name), to_numpy(x).reshape(4, 4), *slope, factor=4)


@pytest.mark.parametrize("name", CLASSES)
def test_activation_modules(name):
    compare(getattr(nn, name)(), getattr(oracle, name)(), POINTS.reshape(4, 4), factor=4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CELU", {"alpha": 0.5}),
        ("ELU", {"alpha": 0.5}),
        ("GELU", {"approx": "precise"}),
        ("GELU", {"approx": "tanh"}),
        ("GELU", {"approx": "fast"}),
        ("GLU", {"axis": 0}),
        ("HardShrink", {"lambd": 2.0}),
        ("LeakyReLU", {"negative_slope": 0.2}),
        ("PReLU", {"num_parameters": 4, "init": 0.1}),
        ("Softshrink", {"lambd": 2.0}),
        ("Step", {"threshold": 1.0}),
    ],
)
def test_activation_modules_with_arguments(name, arguments):
    compare(getattr(nn, name)(**arguments), getattr(oracle, name)(**arguments), POINTS.reshape(4, 4), factor=4)


def test_activation_errors():
    with pytest.raises(ValueError):
        nn.GELU(approx="best")
    with pytest.raises(ValueError):
        nn.glu(mx.ones((3, 3)))


# --- Layers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (0, 5)])
def test_linear(bias, shape):
    compare(nn.Linear(5, 4, bias=bias), oracle.Linear(5, 4, bias=bias), values(*shape), factor=4)


def test_linear_begins_uniform():
    layer = nn.Linear(64, 300)
    for parameter, shape in ((layer.weight, (300, 64)), (layer.bias, (300,))):
        assert parameter.shape == shape and parameter.dtype == mx.float32
        assert np.abs(to_numpy(parameter)).max() <= 1 / 8
        assert np.abs(to_numpy(parameter)).max() > 0.9 / 8
        assert abs(to_numpy(parameter).mean()) < 0.02


def test_embedding():
    ours, theirs = nn.Embedding(7, 4), oracle.Embedding(7, 4)
    for ids in ([0, 6, 3], [[1, 2], [-1, 0]]):
        compare(ours, theirs, np.array(ids, np.int32))
    assert_same(ours.as_linear(to_module(mx, values(2, 4))), theirs.as_linear(to_module(mlx.core, values(2, 4))), 4)
    assert abs(to_numpy(nn.Embedding(1000, 16).weight).std() - 1 / 4) < 0.01


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}, {"eps": 0.5}])
def test_layer_norm(options, dtype):
    ours = nn.LayerNorm(8, **options)
    if "weight" in ours:
        ours.weight = to_module(mx, values(8))
    ours.set_dtype(dtype_of(mx, dtype))
    compare(ours, oracle.LayerNorm(8, **options), values(3, 8, dtype=dtype), factor=4)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rms_norm(dtype):
    ours = nn.RMSNorm(8, eps=1e-3)
    ours.weight = to_module(mx, values(8, dtype=dtype))
    compare(ours, oracle.RMSNorm(8, eps=1e-3), values(3, 8, dtype=dtype), factor=4)


@pytest.mark.parametrize("offset", [0, 5])
@pytest.mark.parametrize("options", [{}, {"traditional": True}, {"base": 500.0}, {"scale": 0.25}])
def test_rope(options, offset):
    x = values(2, 3, 7, 8)
    for dims in (8, 4):
        ours, theirs = nn.RoPE(dims, **options), oracle.RoPE(dims, **options)
        assert_same(ours(to_module(mx, x), offset=offset), theirs(to_module(mlx.core, x), offset=offset), factor=8)


def test_sequential():
    ours = nn.Sequential(nn.Linear(4, 8), nn.relu, nn.Linear(8, 2))
    theirs = oracle.Sequential(oracle.Linear(4, 8), oracle.relu, oracle.Linear(8, 2))
    compare(ours, theirs, values(3, 4), factor=4)


def test_identity():
    x = mx.ones((2, 3))
    assert nn.Identity(3, any="thing")(x) is x


def test_dropout():
    layer = nn.Dropout(0.25)
    x = mx.ones((200, 200))
    out = to_numpy(layer(x))
    kept = out != 0
    np.testing.assert_allclose(out[kept], 1 / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 0.02
    assert layer.eval()(x) is x
    assert nn.Dropout(0)(x) is x
    for p in (1.0, -0.1):
        with pytest.raises(ValueError):
            nn.Dropout(p)


# --- Module: a model of each, with everything that a tree can hold ----------------------------------------------------


def make_model(m: Any, core: Any) -> Any:
    class Block(m.Module):
        def __init__(self):
            super().__init__()
            self.linear = m.Linear(4, 8)
            self.norm = m.RMSNorm(8)
            self.drop = m.Dropout(0.3)
            self._hidden = core.zeros(3)
            self.parts = {"first": m.Linear(8, 8, bias=False), "rest": [m.GELU(), core.ones(2)]}

    class Model(m.Module):
        def __init__(self):
            super().__init__()
            self.embedding = m.Embedding(10, 4)
            self.layers = [Block() for _ in range(2)]
            self.head = m.Sequential(m.LayerNorm(8), m.ReLU(), m.Linear(8, 2))
            self.pair = (1, 2)
            self.rope = m.RoPE(8)

    return Model()


@pytest.fixture
def models() -> tuple[Any, Any]:
    return make_model(nn, mx), make_model(oracle, mlx.core)


def names(tree: Any) -> list[str]:
    return [name for name, _ in flatten(tree, is_leaf=lambda v: hasattr(v, "_no_grad"))]


def described(model: Any) -> dict[str, Any]:
    """All that can be seen of a model but the values of its parameters."""
    return {
        "parameters": names(model.parameters()),
        "shapes": [a.shape for _, a in flatten(model.parameters())],
        "dtypes": [dtype_name(a.dtype) for _, a in flatten(model.parameters())],
        "trainable": names(model.trainable_parameters()),
        "children": names(model.children()),
        "leaf modules": names(model.leaf_modules()),
        "named modules": [name for name, _ in model.named_modules()],
        "training": [m.training for m in model.modules()],
        "types": [type(m).__name__ for m in model.modules()],
        "repr": repr(model),
    }


CHANGES = {
    "nothing": lambda m: m,
    "freeze": lambda m: m.freeze(),
    "freeze and unfreeze biases": lambda m: m.freeze().unfreeze(keys="bias"),
    "freeze and unfreeze a layer": lambda m: (m.freeze(), m.layers[0].unfreeze()),
    "freeze keys here": lambda m: m.freeze(keys=["weight"], recurse=False),
    "freeze biases": lambda m: m.freeze(keys="bias", strict=True),
    "freeze one layer only": lambda m: m.layers[1].freeze(recurse=False),
    "unfreeze here": lambda m: m.freeze().unfreeze(recurse=False),
    "eval": lambda m: m.eval(),
    "eval and train one": lambda m: m.eval().layers[0].train(),
    "train(False)": lambda m: m.train(False),
    "apply": lambda m: m.apply(lambda a: a[:1]),
    "apply to some": lambda m: m.apply(
        lambda a: a[1:], lambda module, key, v: m.valid_parameter_filter(module, key, v) and key != "bias"
    ),
    "replace a list": lambda m: setattr(m, "layers", m.layers[:1]),
    "delete": lambda m: delattr(m, "head"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_tree_is_as_in_mlx(models, change):
    for model in models:
        CHANGES[change](model)
    assert described(models[0]) == described(models[1])


def test_set_dtype(models):
    ours, theirs = models
    ours.set_dtype(mx.float16)
    theirs.set_dtype(mlx.core.float16)
    assert described(ours) == described(theirs)
    ours.set_dtype(mx.float32, lambda dtype: dtype == mx.bfloat16)
    assert set(described(ours)["dtypes"]) == {"float16"}


def test_filter_and_map(models):
    def odd_keys(module, key, value):
        return module.valid_parameter_filter(module, key, value) and key != "bias" and not key.endswith("1")

    ours, theirs = (m.filter_and_map(odd_keys, lambda a: a.shape) for m in models)
    assert ours == theirs
    whole = models[0].filter_and_map(
        nn.Module.valid_child_filter, type, lambda module, key, value: isinstance(value, nn.Linear)
    )
    assert whole["layers"][0]["linear"] is nn.Linear and whole["head"]["layers"][2] is nn.Linear


ERRORS = {
    "update of an unknown name": lambda m, core: m.update({"q": 1}),
    "update by a number": lambda m, core: m.update({"embedding": {"weight": 3}}),
    "update beyond a list": lambda m, core: m.update({"layers": [{}, {}, {}]}),
    "update of a list by a number": lambda m, core: m.update({"layers": 5}),
    "weights missing": lambda m, core: m.load_weights([]),
    "weights unknown": lambda m, core: m.load_weights([("x", core.ones(2))]),
    "weights of another shape": lambda m, core: m.load_weights(
        [(k, v if k != "embedding.weight" else core.ones(3)) for k, v in flatten(m.parameters())]
    ),
    "weights that are no arrays": lambda m, core: m.load_weights([(k, 1.0) for k, _ in flatten(m.parameters())]),
    "weights in an unknown file": lambda m, core: m.save_weights("weights.bin"),
    "freeze of an unknown key": lambda m, core: m.freeze(keys="q", strict=True),
    "freeze of a key that is only below": lambda m, core: m.freeze(keys="weight", strict=True, recurse=False),
    "unfreeze of an unknown key": lambda m, core: m.unfreeze(keys="q", strict=True),
    "unknown attribute": lambda m, core: m.nothing,
    "unknown attribute deleted": lambda m, core: delattr(m, "nothing"),
    "modules by a number": lambda m, core: m.update_modules({"embedding": 3}),
    "modules unknown": lambda m, core: m.update_modules({"nothing": m.embedding}),
    "eps that is not positive": lambda m, core: type(m.head.layers[0])(3, eps=0),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_those_of_mlx(models, case):
    before = described(models[0])
    raised = []
    for model, core in zip(models, (mx, mlx.core), strict=True):
        with pytest.raises(Exception) as caught:
            ERRORS[case](model, core)
        raised.append(caught.type)
    assert raised[0] is raised[1]
    assert described(models[0]) == before


def test_update_takes_a_part(models):
    model = models[0]
    untouched = model.layers[0].linear.bias
    new = mx.full((8, 4), 2.0)
    assert model.update({"layers": [{"linear": {"weight": new}}]}) is model
    assert model.layers[0].linear.weight is new
    assert model.layers[0].linear.bias is untouched
    model.update({"nothing": new, "layers": [{}, {}, {"more": new}]}, strict=False)
    assert described(model) == described(models[1])


def test_update_modules(models):
    for model, m in zip(models, (nn, oracle), strict=True):
        model.update_modules({"layers": [{"linear": m.Linear(2, 3)}], "head": {"layers": [{}, m.Tanh()]}})
    assert described(models[0]) == described(models[1])
    assert isinstance(models[0].head.layers[1], nn.Tanh)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_weights_in_a_file(models, tmp_path, ending):
    path = str(tmp_path / f"weights.{ending}")
    source = make_model(nn, mx)
    source.save_weights(path)
    ours, theirs = models
    assert ours.load_weights(path) is ours
    theirs.load_weights(path)  # the file is one that MLX reads
    for (name, a), (other_name, b), (_, c) in zip(
        flatten(ours.parameters()), flatten(theirs.parameters()), flatten(source.parameters()), strict=True
    ):
        assert name == other_name
        np.testing.assert_array_equal(to_numpy(a), to_numpy(c))
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


def test_load_weights_not_strict(models):
    model = models[0]
    bias = mx.full((8,), 7.0)
    model.load_weights([("layers.1.linear.bias", bias), ("nothing.at.all", bias)], strict=False)
    assert model.layers[1].linear.bias is bias
    assert described(model) == described(models[1])


def test_strict_errors_name_the_parameters(models):
    with pytest.raises(ValueError, match="not in model: \nfirst,\nsecond"):
        models[0].load_weights([("second", mx.ones(1)), ("first", mx.ones(1))])
    weights = dict(flatten(models[0].parameters()))
    del weights["head.layers.2.bias"]
    with pytest.raises(ValueError, match=r"Missing 1 parameters: \nhead.layers.2.bias"):
        models[0].load_weights(list(weights.items()))


def test_attributes():
    module = nn.Linear(2, 2)
    assert "bias" in module and module["bias"] is module.bias
    module.bias = 5  # no array any more: a plain attribute
    assert module.bias == 5 and "bias" not in module
    module.bias = mx.ones(2)
    assert "bias" in module and module["bias"] is module.bias
    module["bias"] = mx.zeros(2)
    assert module["bias"] is module.bias
    del module.bias
    assert not hasattr(module, "bias") and "bias" not in module
    assert names(module.parameters()) == ["weight"]
    module["weight"] = mx.zeros((2, 2))
    assert to_numpy(module(mx.ones((1, 2)))).sum() == 0
    assert module.state is module


@pytest.mark.mlxlite_only
def test_items_and_attributes_stay_the_same():
    module = nn.Module()
    module["a"] = mx.ones(1)
    module |= {"b": mx.ones(2)}
    assert module.a is module["a"] and module.b is module["b"]
    assert module.setdefault("c", mx.ones(3)) is module.c
    assert module.pop("b").shape == (2,) and not hasattr(module, "b")
    assert module.pop("eps", 3) == 3
    assert module.popitem()[0] == "c" and not hasattr(module, "c")
    module["keys"] = mx.ones(4)  # the class has that: it stays a method, and the item an item
    assert list(module.keys()) == ["a", "keys"]
    copied = pickle.loads(pickle.dumps(module))
    copied["a"] = mx.zeros(1)
    assert copied.a.item() == 0 and module.a.item() == 1
    module.clear()
    assert not module and not hasattr(module, "a")


def test_value_and_grad():
    ours, theirs = nn.Linear(4, 3), oracle.Linear(4, 3)
    ours.freeze(keys="bias")
    theirs.freeze(keys="bias")
    theirs.load_weights([(name, to_module(mlx.core, to_numpy(a))) for name, a in flatten(ours.parameters())])
    x = values(5, 4)
    value, gradients = nn.value_and_grad(ours, lambda a: (ours(a) ** 2).sum())(to_module(mx, x))
    expected, expected_gradients = oracle.value_and_grad(theirs, lambda a: (theirs(a) ** 2).sum())(
        to_module(mlx.core, x)
    )
    assert_same(value, expected, 8)
    assert gradients.keys() == expected_gradients.keys() == {"weight"}
    assert_same(gradients["weight"], expected_gradients["weight"], 64)
    assert ours.weight.tolist() == ours.parameters()["weight"].tolist()


def test_checkpoint_of_a_module():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    x = to_module(mx, values(5, 4))
    again = nn.utils.checkpoint(model)
    plain = nn.value_and_grad(model, lambda a: (model(a) ** 2).sum())(x)
    value, gradients = nn.value_and_grad(model, lambda a: (again(a) ** 2).sum())(x)
    assert_same(value, plain[0], 8)
    for (name, ours), (_, expected) in zip(flatten(gradients), flatten(plain[1]), strict=True):
        assert np.array_equal(to_numpy(ours), to_numpy(expected)), name
    mx.eval(model.parameters())
