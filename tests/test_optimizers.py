"""Optimizers against mlx.optimizers: the same parameters, gradients and steps must give the same states."""

from __future__ import annotations

import copy
import doctest
import gc
import importlib
import inspect
import pkgutil
import weakref
from typing import Any

import mlx.core
import mlx.nn
import mlx.optimizers as oracle
import numpy as np
import pytest

from tests.checked_backend import checked
from tests.differential import assert_close, dtype_name, dtype_of, to_module, to_numpy
from tests.module_under_test import IS_MLX, mx, subpackage

nn = subpackage("nn")
optim = subpackage("optimizers")
utils = subpackage("utils")
flatten = utils.tree_flatten

# A vector, a matrix taller and one wider than it is long, a filter, a number, and a place where nothing is trained.
SHAPES: dict[str, Any] = {
    "layers": [{"weight": (6, 4), "bias": (6,)}, {}, {"weight": (2, 5)}],
    "filter": (3, 2, 2, 4),
    "pair": ((3,), (1, 1)),
    "scale": (),
}
# MLX cannot put the parts of several optimizers together where none of them has anything.
FULL_SHAPES = {**SHAPES, "layers": [SHAPES["layers"][0], SHAPES["layers"][2]]}
STEPS = 10


def is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def tree_of(module: Any, seed: int, dtype: str = "float32", shapes: Any = None) -> Any:
    """Normal numbers in a tree of `SHAPES`, the same for both modules."""
    rng = np.random.default_rng(seed)

    def values(shape: tuple[int, ...]) -> Any:
        return to_module(module, rng.normal(size=shape).astype(np.float32)).astype(dtype_of(module, dtype))

    return utils.tree_map(values, SHAPES if shapes is None else shapes, is_leaf=is_shape)


def run(optimizer: Any, module: Any, dtype: str, steps: int = STEPS, shapes: Any = None) -> Any:
    """The parameters after some steps."""
    parameters = tree_of(module, 0, dtype, shapes)
    for step in range(steps):
        parameters = optimizer.apply_gradients(tree_of(module, step + 1, dtype, shapes), parameters)
        module.eval(parameters, optimizer.state)
    return parameters


def assert_trees(ours: Any, theirs: Any, *, case: str = "", tolerance: float | None = None, scale: float = 1.0) -> None:
    mine, expected = flatten(ours, destination={}), flatten(theirs, destination={})
    assert list(mine) == list(expected), case
    for name, value in mine.items():
        what = f"{case} {name}"
        assert dtype_name(value.dtype) == dtype_name(expected[name].dtype), what
        assert value.shape == expected[name].shape, what
        assert_close(to_numpy(value), to_numpy(expected[name]), case=what, tolerance=tolerance, scale=scale)


def assert_equal_trees(a: Any, b: Any) -> None:
    assert_trees(a, b, tolerance=0.0)


RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"learning_rate": 0.1}),
    "SGD with momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "SGD with Nesterov's momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "SGD, dampened": ("SGD", {"learning_rate": 0.1, "momentum": 0.5, "dampening": 0.25, "weight_decay": 0.1}),
    "RMSprop": ("RMSprop", {"learning_rate": 0.01}),
    "RMSprop with arguments": ("RMSprop", {"learning_rate": 0.01, "alpha": 0.5, "eps": 0.01}),
    "Adagrad": ("Adagrad", {"learning_rate": 0.1, "eps": 1e-4}),
    "AdaDelta": ("AdaDelta", {"learning_rate": 1.0, "rho": 0.8, "eps": 1e-3}),
    "Adam": ("Adam", {"learning_rate": 0.01, "eps": 1e-4}),
    "Adam, corrected": ("Adam", {"learning_rate": 0.01, "betas": [0.8, 0.95], "eps": 1e-4, "bias_correction": True}),
    "AdamW": ("AdamW", {"learning_rate": 0.01, "eps": 1e-4}),
    "AdamW, corrected": (
        "AdamW",
        {"learning_rate": 0.01, "eps": 1e-4, "weight_decay": 0.1, "bias_correction": True},
    ),
    "Adamax": ("Adamax", {"learning_rate": 0.01, "eps": 1e-4}),
    "Lion": ("Lion", {"learning_rate": 0.01}),
    "Lion with decay": ("Lion", {"learning_rate": 0.01, "betas": [0.8, 0.7], "weight_decay": 0.1}),
    "Adafactor": ("Adafactor", {"eps": (1e-6, 1e-3)}),
    "Adafactor, warmed up": ("Adafactor", {"eps": (1e-6, 1e-3), "warmup_init": True}),
    "Adafactor with a learning rate": (
        "Adafactor",
        {
            "learning_rate": 0.01,
            "relative_step": False,
            "scale_parameter": False,
            "beta_1": 0.9,
            "weight_decay": 0.1,
            "clip_threshold": 0.5,
            "decay_rate": -0.5,
            "eps": (1e-6, 1e-3),
        },
    ),
    "Muon": ("Muon", {"learning_rate": 0.02}),
    "Muon with arguments": (
        "Muon",
        {"learning_rate": 0.02, "momentum": 0.8, "weight_decay": 0.0, "nesterov": False, "ns_steps": 3},
    ),
}


def make(module: Any, rule: str) -> Any:
    name, arguments = RULES[rule]
    return getattr(module, name)(**arguments)


def test_every_optimizer_of_mlx_is_here_and_tested():
    rules = {
        name
        for name, value in vars(oracle.optimizers).items()
        if inspect.isclass(value) and issubclass(value, oracle.Optimizer)
    }
    assert {name for name, _ in RULES.values()} == rules - {"Optimizer", "MultiOptimizer"}
    functions = [name for name, value in vars(oracle).items() if inspect.isfunction(value) and "tree" not in name]
    assert len(functions) >= 6
    assert [name for name in sorted(rules) + functions if not hasattr(optim, name)] == []


@pytest.mark.parametrize("name", sorted({name for name, _ in RULES.values()} | {"Optimizer", "MultiOptimizer"}))
def test_parameters_and_defaults(name):
    def described(function: Any) -> list[tuple[str, Any]]:
        def plain(default: Any) -> Any:
            return list(default) if isinstance(default, (list, tuple)) else default

        return [(p.name, plain(p.default)) for p in inspect.signature(function).parameters.values()]

    assert described(getattr(optim, name).__init__) == described(getattr(oracle, name).__init__)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_ten_steps(rule, dtype, is_fused):
    ours, theirs = make(optim, rule), make(oracle, rule)
    parameters, expected = run(ours, mx, dtype), run(theirs, mlx.core, dtype)
    assert ours.step.item() == STEPS and dtype_name(ours.step.dtype) == "uint64"
    if is_fused and dtype != "float32":
        _assert_as_near_as(parameters, expected, rule, dtype)
        return
    # Each step rounds a few times: in 16 bits one rounding the other way moves what follows.
    tolerance = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    assert_trees(parameters, expected, case="parameter", tolerance=tolerance)
    assert_trees(ours.state, theirs.state, case="state", tolerance=tolerance, scale=0.01)


def _assert_as_near_as(ours: Any, theirs: Any, rule: str, dtype: str) -> None:
    """Steps that round once, where MLX rounds each operation, go another way: they must not be farther from the way of
    float32, on the average over all parameters."""
    parameters = tree_of(mlx.core, 0, dtype)
    exact = utils.tree_map(lambda p: p.astype(mlx.core.float32), parameters)
    optimizer = make(oracle, rule)
    for step in range(STEPS):
        gradients = utils.tree_map(lambda g: g.astype(mlx.core.float32), tree_of(mlx.core, step + 1, dtype))
        exact = optimizer.apply_gradients(gradients, exact)
    wanted = flatten(exact, destination={})
    errors = []
    for tree in (ours, theirs):
        found = flatten(tree, destination={})
        assert list(found) == list(wanted)
        apart = [np.abs(to_numpy(found[name]).astype(np.float64) - to_numpy(wanted[name])).ravel() for name in wanted]
        errors.append(np.concatenate(apart).mean())
    assert errors[0] <= 1.5 * errors[1] + 1e-6, errors  # over some 70 parameters, chance alone makes a tenth


@pytest.mark.parametrize("rule", RULES)
def test_state_goes_through_a_file(rule, tmp_path):
    """What is saved after four steps goes on as if nothing had happened, bit for bit, here and in MLX."""
    whole = make(optim, rule)
    expected = run(whole, mx, "float32")

    first = make(optim, rule)
    parameters = run(first, mx, "float32", 4)
    path = str(tmp_path / "state.safetensors")
    mx.save_safetensors(path, dict(flatten(first.state)))
    mx.save_safetensors(str(tmp_path / "parameters.safetensors"), flatten(parameters, destination={}))

    for module, core, tolerance in ((optim, mx, 0.0), (oracle, mlx.core, 2e-5)):
        resumed = make(module, rule)
        resumed.state = utils.tree_unflatten(list(core.load(path).items()))
        parameters = utils.tree_unflatten(list(core.load(str(tmp_path / "parameters.safetensors")).items()))
        assert resumed.step.item() == 4
        for step in range(4, STEPS):
            gradients = tree_of(core, step + 1)
            parameters = resumed.apply_gradients(gradients, parameters)
            # As in the run without a break: what a GPU fuses, and so rounds, is what is evaluated together.
            core.eval(parameters, resumed.state)
        compared = flatten(expected, destination={})
        mine = flatten(parameters, destination={})
        assert mine.keys() == compared.keys()
        for name in compared:
            assert_close(to_numpy(mine[name]), to_numpy(compared[name]), case=name, tolerance=tolerance)


def test_a_model_learns():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [nn.Linear(3, 2), nn.Linear(2, 1)]

    model = Model()
    model.layers[0].freeze()
    before = model.layers[0].weight
    optimizer = optim.SGD(0.5)
    gradients = utils.tree_map(mx.ones_like, model.trainable_parameters())
    expected = to_numpy(model.layers[1].weight) - 0.5
    optimizer.update(model, gradients)
    np.testing.assert_array_equal(to_numpy(model.layers[1].weight), expected)
    assert model.layers[0].weight is before
    names = {name.rpartition(".")[0] for name, _ in flatten(optimizer.state)}
    assert names == {"", "layers.1.weight", "layers.1.bias"}


@pytest.mark.skipif(not hasattr(mx, "value_and_grad"), reason="mx.value_and_grad is not there yet")
def test_a_convolutional_network_learns_as_in_mlx():
    histories = [_trained(mx, nn, optim), _trained(mlx.core, mlx.nn, oracle)]
    assert histories[0][-1] < histories[0][0] / 2
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-3)


def _trained(core: Any, m: Any, o: Any) -> list[float]:
    """The losses of a small network that tells four noisy 8 x 8 images apart."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, 64)
    images = rng.normal(size=(4, 8, 8, 1))[kinds] + 0.5 * rng.normal(size=(64, 8, 8, 1))
    x, y = to_module(core, images.astype(np.float32)), to_module(core, kinds.astype(np.int32))

    class Net(m.Module):
        def __init__(self):
            super().__init__()
            self.first = m.Conv2d(1, 8, 3, padding=1)
            self.norm = m.BatchNorm(8)
            self.second = m.Conv2d(8, 8, 3, stride=2)
            self.pool = m.MaxPool2d(2)
            self.last = m.Linear(8, 4)

        def __call__(self, x):
            x = self.second(self.pool(m.relu(self.norm(self.first(x)))))
            return self.last(x.reshape(x.shape[0], -1))

    core.random.seed(1)
    net, optimizer = Net(), o.AdamW(o.cosine_decay(0.02, 40), bias_correction=True)
    value_and_grad = m.value_and_grad(net, lambda x, y: m.losses.cross_entropy(net(x), y, reduction="mean"))
    history = []
    for _ in range(25):
        loss, gradients = value_and_grad(x, y)
        gradients, _ = o.clip_grad_norm(gradients, 1.0)
        optimizer.update(net, gradients)
        core.eval(loss, net.parameters(), optimizer.state)
        history.append(loss.item())
    return history


# --- The state tree ---------------------------------------------------------------------------------------------------


def test_init_makes_the_state_that_updates_make():
    for module, core in ((optim, mx), (oracle, mlx.core)):
        early, late = module.Adam(0.1), module.Adam(0.1)
        early.init(tree_of(core, 0))
        late.apply_gradients(tree_of(core, 1), tree_of(core, 0))
        assert [name for name, _ in flatten(early.state)] == [name for name, _ in flatten(late.state)]
    assert list(early.state) == ["step", "learning_rate", *SHAPES]


def test_init_keeps_what_is_there_and_adds_what_is_missing():
    states = []
    for module, core in ((optim, mx), (oracle, mlx.core)):
        optimizer = module.SGD(0.1, momentum=0.9)
        optimizer.apply_gradients({"a": [core.ones(2)]}, {"a": [core.ones(2)]})
        held = optimizer.state
        optimizer.init({"a": [core.ones(2), core.ones(3)], "b": {"c": core.ones(1)}})
        assert optimizer.state is held  # whoever holds the state sees the new parts
        states.append(optimizer.state)
    assert_equal_trees(*states)
    np.testing.assert_array_equal(to_numpy(states[0]["a"][0]["v"]), [1, 1])
    np.testing.assert_array_equal(to_numpy(states[0]["a"][1]["v"]), [0, 0, 0])


def test_a_state_that_is_set_is_completed():
    optimizer = optim.Adam(0.1)
    optimizer.state = {"step": mx.array(7, mx.uint64), "learning_rate": mx.array(0.5)}
    optimizer.apply_gradients({"w": mx.ones(2)}, {"w": mx.ones(2)})
    assert optimizer.step.item() == 8 and optimizer.learning_rate.item() == 0.5
    assert sorted(optimizer.state["w"]) == ["m", "v"]


def test_parameters_may_be_more_than_gradients():
    for module, core in ((optim, mx), (oracle, mlx.core)):
        result = module.SGD(1.0).apply_gradients({"a": core.array(1.0)}, {"a": core.array(3.0), "b": core.array(4.0)})
        assert list(result) == ["a"] and result["a"].item() == 2.0


def test_learning_rate_is_a_number_an_array_or_a_schedule():
    optimizer = optim.SGD(0.25)
    assert optimizer.learning_rate.item() == 0.25 and optimizer.learning_rate.dtype == mx.float32
    optimizer.learning_rate = 0.5
    assert optimizer.state["learning_rate"].item() == 0.5
    optimizer.learning_rate = mx.array(0.125)
    result = optimizer.apply_gradients({"a": mx.array(1.0)}, {"a": mx.array(1.0)})
    assert result["a"].item() == 0.875
    assert optim.SGD(mx.array(0.25)).learning_rate.item() == 0.25
    scheduled = optim.SGD(lambda step: 1.0 / (step + 1))
    rates = []
    for _ in range(3):
        scheduled.update({}, {})
        rates.append(scheduled.learning_rate.item())
    np.testing.assert_allclose(rates, [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_other_values_may_be_scheduled():
    class Shrink(optim.Optimizer):
        def init_single(self, parameter, state):
            state["count"] = mx.array(0)

        def apply_single(self, gradient, parameter, state):
            state["count"] = state["count"] + 1
            return parameter * self.state["factor"]

    optimizer = Shrink(schedulers={"factor": lambda step: 0.5 * (step + 1)})
    parameters = {"a": mx.array(8.0)}
    values = []
    for _ in range(3):
        parameters = optimizer.apply_gradients(parameters, parameters)
        values.append(parameters["a"].item())
    assert values == [4.0, 4.0, 6.0]
    assert optimizer.state["a"]["count"].item() == 3


# --- MultiOptimizer ---------------------------------------------------------------------------------------------------


def multi(module: Any) -> Any:
    return module.MultiOptimizer(
        [module.Muon(0.1), module.Lion(0.01), module.AdamW(0.02)],
        [lambda path, g: g.ndim == 2, lambda path, g: path.startswith("pair")],
    )


def test_several_optimizers():
    ours, theirs = multi(optim), multi(oracle)
    parameters = run(ours, mx, "float32", shapes=FULL_SHAPES)
    expected = run(theirs, mlx.core, "float32", shapes=FULL_SHAPES)
    mine, other = flatten(parameters, destination={}), flatten(expected, destination={})
    assert mine.keys() == other.keys()
    for name in mine:
        assert_close(to_numpy(mine[name]), to_numpy(other[name]), case=name, tolerance=2e-5)
    assert_trees(ours.state, theirs.state, tolerance=2e-5)
    held = [{name.partition(".")[0] for name, _ in flatten(state)} for state in ours.state["states"]]
    own = {"step", "learning_rate"}
    assert held == [{"layers", "pair"} | own, {"pair"} | own, {"layers", "filter", "scale"} | own]


def test_several_optimizers_in_one():
    ours = multi(optim)
    assert ours.learning_rate.item() == pytest.approx(0.1)
    ours.learning_rate = 0.5
    assert [o.learning_rate.item() for o in ours.optimizers] == [0.5] * 3
    run(ours, mx, "float32", 2, FULL_SHAPES)
    other = multi(optim)
    other.state = ours.state
    assert_equal_trees(other.state, ours.state)
    alone = optim.MultiOptimizer([optim.SGD(1.0)])
    assert alone.apply_gradients({"a": mx.array(1.0)}, {"a": mx.array(3.0)})["a"].item() == 2.0
    explicit = multi(optim)
    explicit.init(tree_of(mx, 0, shapes=FULL_SHAPES))
    assert [len(flatten(state)) for state in explicit.state["states"]] == [
        len(flatten(state)) for state in ours.state["states"]
    ]


@pytest.mark.mlxlite_only
def test_several_optimizers_where_a_layer_is_frozen():
    optimizer = multi(optim)
    parameters = run(optimizer, mx, "float32", 2)
    assert [name for name, _ in flatten(parameters["layers"])] == ["0.weight", "0.bias", "2.weight"]
    nothing = optim.MultiOptimizer([optim.SGD(1.0), optim.SGD(1.0)], [lambda path, g: True])
    assert nothing.apply_gradients({"frozen": {}}, {"frozen": {"weight": mx.ones(1)}}) == {}


# --- Schedules --------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "exponential": lambda m: m.exponential_decay(1e-1, 0.9),
    "steps": lambda m: m.step_decay(1e-1, 0.5, 7),
    "cosine": lambda m: m.cosine_decay(0.1, 10),
    "cosine to an end": lambda m: m.cosine_decay(0.1, 13, 0.05),
    "linear": lambda m: m.linear_schedule(0.0, 1e-1, 12),
    "linear down": lambda m: m.linear_schedule(1e-1, 1e-2, 5),
    "joined": lambda m: m.join_schedules(
        [m.linear_schedule(0, 0.1, 5), m.cosine_decay(0.1, 6), m.exponential_decay(0.1, 0.5)], [5, 11]
    ),
    "one": lambda m: m.join_schedules([m.exponential_decay(1.0, 0.5)], []),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule):
    ours, theirs = SCHEDULES[schedule](optim), SCHEDULES[schedule](oracle)
    for dtype in ("uint64", "int32"):
        for step in range(20):
            value = ours(mx.array(step, dtype_of(mx, dtype)))
            expected = theirs(mlx.core.array(step, dtype_of(mlx.core, dtype)))
            assert_trees(value, expected, case=f"step {step}", scale=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scheduled_learning_rates(schedule):
    optimizers = [m.SGD(SCHEDULES[schedule](m)) for m in (optim, oracle)]
    for _ in range(15):
        rates = [optimizer.learning_rate for optimizer in optimizers]
        assert_trees(*rates, scale=0.01)
        for optimizer in optimizers:
            optimizer.update({}, {})


# --- Clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e6])
def test_clip_grad_norm(max_norm, dtype):
    ours, norm = optim.clip_grad_norm(tree_of(mx, 3, dtype), max_norm)
    theirs, expected = oracle.clip_grad_norm(tree_of(mlx.core, 3, dtype), max_norm)
    assert_trees(norm, expected)
    assert_trees(ours, theirs)
    length = np.sqrt(sum((to_numpy(g).astype(np.float64) ** 2).sum() for _, g in flatten(ours)))
    assert length <= max_norm + 1e-2 or max_norm == 1e6
    assert dtype_name(flatten(ours)[0][1].dtype) == dtype


def test_clip_grad_norm_of_large_and_of_whole_numbers():
    for module, core in ((optim, mx), (oracle, mlx.core)):
        large = {"a": core.full((4,), 30000.0, dtype=core.float16)}
        clipped, norm = module.clip_grad_norm(large, 1.0)
        assert norm.item() == pytest.approx(60000, rel=1e-3)
        np.testing.assert_allclose(np.array(clipped["a"].astype(core.float32)), 0.5, rtol=1e-3)
        clipped, _ = module.clip_grad_norm({"a": core.array([2, 3]), "b": core.array([1])}, max_norm=2.0)
        assert dtype_name(clipped["a"].dtype) == "float32"


# --- Errors -----------------------------------------------------------------------------------------------------------

ERRORS = {
    "Nesterov without momentum": lambda m, core: m.SGD(0.1, nesterov=True),
    "Nesterov with dampening": lambda m, core: m.SGD(0.1, momentum=0.9, dampening=0.1, nesterov=True),
    "alpha": lambda m, core: m.RMSprop(0.1, alpha=-0.1),
    "eps of RMSprop": lambda m, core: m.RMSprop(0.1, eps=0.0),
    "eps of Adagrad": lambda m, core: m.Adagrad(0.1, eps=0.0),
    "rho": lambda m, core: m.AdaDelta(0.1, rho=-1.0),
    "eps of AdaDelta": lambda m, core: m.AdaDelta(0.1, eps=-1e-6),
    "first beta": lambda m, core: m.Adam(0.1, betas=[1.0, 0.9]),
    "second beta": lambda m, core: m.AdamW(0.1, betas=[0.9, -0.1]),
    "eps of Adam": lambda m, core: m.Adamax(0.1, eps=-1.0),
    "beta of Lion": lambda m, core: m.Lion(0.1, betas=[0.9, 1.5]),
    "filters missing": lambda m, core: m.MultiOptimizer([m.SGD(0.1), m.SGD(0.1)]),
    "filters too many": lambda m, core: m.MultiOptimizer([m.SGD(0.1)], [lambda path, g: True]),
    "state of no states": lambda m, core: setattr(m.MultiOptimizer([m.SGD(0.1)]), "state", {}),
    "state of fewer": lambda m, core: setattr(m.MultiOptimizer([m.SGD(0.1)]), "state", {"states": []}),
    "step size": lambda m, core: m.step_decay(0.1, 0.5, 0),
    "decay steps": lambda m, core: m.cosine_decay(0.1, 0),
    "linear steps": lambda m, core: m.linear_schedule(0.0, 0.1, 0),
    "no schedules": lambda m, core: m.join_schedules([], []),
    "boundaries": lambda m, core: m.join_schedules([lambda step: step], [3]),
    "max_norm": lambda m, core: m.clip_grad_norm({"a": core.ones(1)}, -1.0),
    "the base has no rule": lambda m, core: m.Optimizer().init({"a": core.ones(1)}),
    "no learning rate": lambda m, core: m.Adafactor(relative_step=False).apply_gradients(
        {"a": core.ones(1)}, {"a": core.ones(1)}
    ),
    "no learning rate of the base": lambda m, core: m.Optimizer().learning_rate,
    "a parameter is missing": lambda m, core: m.SGD(0.1).apply_gradients({"a": core.ones(1)}, {"b": core.ones(1)}),
    "shapes differ": lambda m, core: m.SGD(0.1).apply_gradients({"a": core.ones(2)}, {"a": core.ones(3)}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_those_of_mlx(case):
    raised = []
    for module, core in ((optim, mx), (oracle, mlx.core)):
        with pytest.raises(Exception) as caught:
            ERRORS[case](module, core)
        raised.append(caught.type)
    assert raised[0] is raised[1]


@pytest.mark.mlxlite_only
def test_trees_that_cannot_be_optimized():
    with pytest.raises(ValueError, match="'step'"):
        optim.SGD(0.1).init({"step": mx.ones(1)})
    with pytest.raises(ValueError, match="'learning_rate'"):
        optim.SGD(0.1).init({"learning_rate": {"weight": mx.ones(1)}})
    with pytest.raises(TypeError, match="dict"):
        optim.SGD(0.1).init([mx.ones(1)])
    optimizer = optim.SGD(0.1)
    optimizer.init({"a": [mx.ones(1), mx.ones(1)]})
    with pytest.raises(IndexError, match="a has 2 entries for 1"):
        optimizer.init({"a": [mx.ones(1)]})


@pytest.mark.skipif(IS_MLX, reason="MLX's docstrings are not ours to test")
def test_docstrings():
    tried = 0
    for module in pkgutil.iter_modules(optim.__path__, optim.__name__ + "."):
        result = doctest.testmod(importlib.import_module(module.name), extraglobs={"mx": mx, **vars(optim)})
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried > 25


@pytest.mark.mlxlite_only
@pytest.mark.parametrize("rule", RULES)
def test_steps_are_lowered_for_the_gpu(rule):
    with checked() as checks:
        run(make(optim, rule), mx, "float32", 2)
        assert checks


@pytest.mark.mlxlite_only
def test_a_setting_that_changes_counts_from_the_next_step_on():
    optimizer = optim.SGD(learning_rate=1.0, weight_decay=0.0)
    w = {"w": mx.array([4.0, 2.0])}
    gradients = {"w": mx.array([1.0, 1.0])}
    first = optimizer.apply_gradients(gradients, w)
    assert first["w"].tolist() == [3.0, 1.0]
    optimizer.weight_decay = 0.5
    assert optimizer.apply_gradients(gradients, w)["w"].tolist() == [1.0, 0.0]
    optimizer.weight_decay = mx.array(0.25)  # not a number that a step could be traced for
    assert optimizer.apply_gradients(gradients, w)["w"].tolist() == [2.0, 0.5]
    optimizer.weight_decay = mx.array(0.5)
    assert optimizer.apply_gradients(gradients, w)["w"].tolist() == [1.0, 0.0]
    optimizer.learning_rate = 2.0
    assert optimizer.apply_gradients(gradients, w)["w"].tolist() == [-2.0, -2.0]


def test_the_python_of_a_users_rule_runs_at_every_step():
    class Counting(optim.SGD):
        calls = 0

        def apply_single(self, gradient, parameter, state):
            self.calls += 1
            return super().apply_single(gradient, parameter, state) * (1.0 if self.calls < 3 else 0.0)

    optimizer = Counting(learning_rate=1.0)
    w = {"w": mx.array([4.0])}
    found = [optimizer.apply_gradients({"w": mx.array([1.0])}, w)["w"].item() for _ in range(3)]
    assert optimizer.calls == 3 and found == [3.0, 3.0, 0.0]


@pytest.mark.mlxlite_only
def test_copies_of_an_optimizer_are_apart():
    optimizer = optim.Adam(learning_rate=0.1)
    w, gradients = {"w": mx.array([4.0])}, {"w": mx.array([1.0])}
    optimizer.apply_gradients(gradients, w)
    other = copy.deepcopy(optimizer)
    for _ in range(2):
        other.apply_gradients(gradients, w)
    assert optimizer.state["step"].item() == 1 and other.state["step"].item() == 3
    optimizer.state = other.state
    optimizer.apply_gradients(gradients, w)
    assert optimizer.state["step"].item() == 4 and other.state is optimizer.state


@pytest.mark.mlxlite_only
def test_an_optimizer_goes_when_nobody_holds_it():
    optimizer = optim.AdamW(learning_rate=0.1)
    optimizer.apply_gradients({"w": mx.array([1.0])}, {"w": mx.array([4.0])})
    gone = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.mlxlite_only
def test_a_step_that_fails_changes_nothing():
    optimizer = optim.Adam(learning_rate=0.1)
    w = {"a": mx.array([4.0]), "b": mx.array([4.0])}
    optimizer.init(w)
    with pytest.raises(KeyError, match="c"):
        optimizer.apply_gradients({"a": mx.array([1.0]), "c": mx.array([1.0])}, w)
    with pytest.raises(ValueError, match="broadcast"):
        wrong = {"a": mx.ones((3,)), "b": mx.ones((3, 2))}
        optimizer.apply_gradients({"a": mx.ones((2,)), "b": mx.ones((3, 2))}, wrong)
    assert optimizer.state["step"].item() == 0 and optimizer.state["a"]["m"].tolist() == [0.0]
    after = optimizer.apply_gradients({"a": mx.array([1.0])}, w)["a"].item()
    assert after == pytest.approx(4 - 0.1 * 0.1 / 0.001**0.5, rel=1e-3)
