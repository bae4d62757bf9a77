"""Optimizer: the state of an update rule, kept in a tree beside the parameters."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import mlxlite.core as mx

from .._graph import tree_leaves
from ..nn.base import Module
from ..utils import tree_map

# The number of steps so far (a uint64 array) to a value.
Schedule = Callable[[Any], Any]

_PLAIN = (float, int, str, type(None))  # and bool, which is an int
# Of each optimizer its state, and a function that records a step for it. Not an attribute, which copies would share.
_step_functions: weakref.WeakKeyDictionary[Optimizer, tuple[dict, Callable[..., dict]]] = weakref.WeakKeyDictionary()


class Optimizer:
    """The base of the optimizers: walks the trees and calls the rule of a subclass for every parameter.

    A subclass defines `init_single`, which fills the state of one parameter, and `apply_single`, which returns the
    parameter's next value.

    `state` is a dict: "step" (a uint64 array), the values that may follow a schedule ("learning_rate"), and the tree of
    the parameters with a dict of arrays in the place of each. It goes through `tree_flatten` into a file, and through
    `tree_unflatten` back into `optimizer.state`.

    Args:
        schedulers: functions of the step by the name of what they set in the state.
    """

    _recorded: dict[tuple[str, mx.Dtype], mx.array] | None = None  # of the step that is being recorded: see `_once`

    def __init__(self, schedulers: dict[str, Schedule] | None = None) -> None:
        self._initialized = False
        self._state: dict[str, Any] = {"step": mx.array(0, mx.uint64)}
        self._schedulers = dict(schedulers or {})

    def update(self, model: Module, gradients: dict) -> None:
        """Gives the model's parameters their next values.

        Args:
            model: whose parameters.
            gradients: a tree as of `model.trainable_parameters()`, or a part of it.
        """
        model.update(self.apply_gradients(gradients, model))

    def init(self, parameters: dict) -> None:
        """Makes the state of every parameter that has none yet. The first update does so too.

        Args:
            parameters: a tree of arrays, at its root a dict.

        Raises:
            TypeError: there is no dict at the root.
            ValueError: a parameter has the name of an entry that is the optimizer's own, such as "step".
            IndexError: the state holds more parameters in a list than there are.
        """
        if not isinstance(parameters, dict):
            raise TypeError(f"The parameters must be in a dict, got {type(parameters).__name__}.")
        _with_places(parameters, self._state, "")
        tree_map(lambda parameter, state: state or self.init_single(parameter, state), parameters, self._state)
        self._initialized = True

    def init_single(self, parameter: mx.array, state: dict) -> Any:
        """For subclasses: puts what the rule keeps of one parameter into `state`, an empty dict."""
        raise NotImplementedError(f"{type(self).__name__} does not define init_single")

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        """One step: the next values of the parameters, in a tree like that of the gradients.

        Args:
            gradients: a tree of arrays.
            parameters: a tree that holds at least what `gradients` holds (a module, for example). It is not changed.
        """
        if not self._initialized:
            self.init(gradients)
        for name, schedule in self._schedulers.items():
            self.state[name] = schedule(self.step)
        settings = self._settings()
        if settings is None:
            return self._apply(gradients, parameters)
        wanted = tree_map(lambda _, parameter: parameter, gradients, parameters)
        return self._step_function()(gradients, wanted, settings)

    def _apply(self, gradients: dict, parameters: dict) -> dict:
        self.state["step"] = self.step + 1
        self._recorded = {}
        try:
            return tree_map(self.apply_single, gradients, parameters, self.state)
        finally:
            self._recorded = None

    def _settings(self) -> dict[str, Any] | None:
        """What the rule depends on besides arrays; None if it may depend on something else.

        Only of this package's own classes it is known that a step has no effects but on the state.
        """
        if type(self).__module__.rpartition(".")[0] != __package__:
            return None
        settings = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return settings if all(isinstance(s, _PLAIN) for s in tree_leaves(settings)) else None

    def _step_function(self) -> Callable[[dict, dict, dict], dict]:
        """`_apply` for the state as it is, traced once for settings and trees of a kind: recording takes less then."""
        found = _step_functions.get(self)
        if found is None or found[0] is not self._state:
            itself = weakref.ref(self)  # a function that holds the optimizer would keep both until a garbage collection

            def step(gradients: dict, parameters: dict, settings: dict) -> dict:
                return cast(Optimizer, itself())._apply(gradients, parameters)

            found = _step_functions[self] = self._state, mx.compile(step, inputs=self._state, outputs=self._state)
        return found[1]

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        """For subclasses: the next value of one parameter. `state` is the parameter's own, brought up to date here."""
        raise NotImplementedError(f"{type(self).__name__} does not define apply_single")

    def _once(self, name: str, dtype: mx.Dtype, make: Callable[[], mx.array]) -> mx.array:
        """What all parameters of a dtype share in one step, such as a bias correction: recorded for the first of them.

        Args:
            name: of the value.
            dtype: of the parameters.
            make: records it.
        """
        if self._recorded is None:  # a call of `apply_single` by itself
            return make()
        key = name, dtype
        if key not in self._recorded:
            self._recorded[key] = make()
        return self._recorded[key]

    def _learning_rate(self, dtype: mx.Dtype) -> mx.array:
        """The learning rate for parameters of a dtype."""
        return self._once("learning_rate", dtype, lambda: self.learning_rate.astype(dtype))

    @property
    def state(self) -> dict[str, Any]:
        """The optimizer's state, by reference. A tree that is set is taken over, and completed at the next update."""
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._initialized = False
        self._state = state

    @property
    def step(self) -> mx.array:
        """How many updates there were: a uint64 array."""
        return self.state["step"]

    @property
    def learning_rate(self) -> mx.array:
        """The learning rate of the last update. What is set stays, unless a schedule sets the next one."""
        return self.state["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        self.state["learning_rate"] = mx.array(learning_rate)

    def _maybe_schedule(self, name: str, value: float | mx.array | Schedule) -> None:
        """Puts a number into the state, or what a schedule gives for now, and then at every step."""
        if callable(value):
            self._schedulers[name] = value
            self.state[name] = value(self.step)
        else:
            self.state[name] = mx.array(value)

    def _check_not_negative(self, **numbers: float) -> None:
        for name, number in numbers.items():
            if number < 0:
                raise ValueError(f"{type(self).__name__} {name} should be >=0, {number} was provided instead")

    def _check_positive(self, **numbers: float) -> None:
        for name, number in numbers.items():
            if number <= 0:
                raise ValueError(f"{type(self).__name__} {name} should be >0, {number} was provided instead")

    def _check_betas(self, betas: Sequence[float]) -> None:
        for i, beta in enumerate(betas):
            if not 0 <= beta < 1:
                raise ValueError(f"{type(self).__name__} beta{i + 1} should be in [0, 1), {beta} was provided instead")


def _with_places(parameters: Any, state: Any, path: str) -> Any:
    """`state` with a dict for every array of `parameters`; dicts that are there are kept and extended in place."""
    if isinstance(parameters, (list, tuple)):
        if len(state) > len(parameters):
            raise IndexError(f"The state of {path} has {len(state)} entries for {len(parameters)} parameters.")
        known = [*state, *({} for _ in parameters[len(state) :])]
        places = [_with_places(p, s, f"{path}.{i}") for i, (p, s) in enumerate(zip(parameters, known, strict=True))]
        return places if isinstance(parameters, list) else tuple(places)
    # An array here is "step" or "learning_rate": the optimizer's own.
    if isinstance(state, mx.array):
        raise ValueError(f"No parameter can be called {path!r}: the optimizer's state has an entry of that name.")
    if isinstance(parameters, dict):
        for key, value in parameters.items():
            state[key] = _with_places(value, state.get(key, {}), f"{path}.{key}" if path else str(key))
    return state
