"""Several optimizers for the parameters of one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlxlite.core as mx

from ..utils import tree_flatten, tree_unflatten
from .base import Optimizer

# (the dotted path of a parameter, its gradient) -> is it this optimizer's?
Filter = Callable[[str, mx.array], bool]


class MultiOptimizer(Optimizer):
    """Leaves each parameter to the first optimizer whose filter takes it, or else to the last.

    `state` is {"states": the states of the optimizers}.

    Args:
        optimizers: each keeps the state of its own parameters.
        filters: functions of a parameter's dotted path and its gradient, one for every optimizer but the last.

    Raises:
        ValueError: more or fewer filters than that, or a state that is set has another number of states.

    >>> optimizer = MultiOptimizer([SGD(1.0), SGD(2.0)], [lambda path, gradient: path == "b"])
    >>> optimizer.apply_gradients({"w": mx.array(1), "b": mx.array(1)}, {"w": mx.array(5), "b": mx.array(5)})
    {'b': array(4, dtype=int32), 'w': array(3, dtype=int32)}
    """

    def __init__(self, optimizers: list[Optimizer], filters: Sequence[Filter] = ()) -> None:
        super().__init__()
        if len(filters) != len(optimizers) - 1:
            raise ValueError(f"Given {len(filters)} filters but {len(optimizers) - 1} needed.")
        self.optimizers = optimizers
        self.filters: list[Filter] = [*filters, lambda path, gradient: True]

    def _parts(self, tree: dict) -> list[Any]:
        """The tree of each optimizer's parameters."""
        if len(self.optimizers) == 1:
            return [tree]
        pairs: list[list[tuple[str, mx.array]]] = [[] for _ in self.optimizers]
        for path, leaf in tree_flatten(tree):
            chosen = next(i for i, accepts in enumerate(self.filters) if accepts(path, leaf))
            pairs[chosen].append((path, leaf))
        # Of no pairs tree_unflatten makes a list.
        return [tree_unflatten(part) if part else {} for part in pairs]

    def init(self, parameters: dict) -> None:
        for optimizer, part in zip(self.optimizers, self._parts(parameters), strict=True):
            optimizer.init(part)

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        if len(self.optimizers) == 1:
            return self.optimizers[0].apply_gradients(gradients, parameters)
        pairs: list[tuple[str, mx.array]] = []
        for optimizer, part in zip(self.optimizers, self._parts(gradients), strict=True):
            tree_flatten(optimizer.apply_gradients(part, parameters), destination=pairs)
        return tree_unflatten(pairs) if pairs else {}

    @property
    def state(self) -> dict[str, Any]:
        return {"states": [optimizer.state for optimizer in self.optimizers]}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if "states" not in state or len(state["states"]) != len(self.optimizers):
            raise ValueError(f'A state of {len(self.optimizers)} optimizers has as many under "states".')
        for optimizer, own in zip(self.optimizers, state["states"], strict=True):
            optimizer.state = own

    @property
    def learning_rate(self) -> mx.array:
        """The first optimizer's; setting it sets all."""
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        for optimizer in self.optimizers:
            optimizer.learning_rate = learning_rate
