"""Functions that bring rules of their own: `custom_function`, `checkpoint`, `stop_gradient`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper, wraps
from typing import Any

from .. import _graph
from .._graph import array
from ..core import creation
from ..core import reduce as reductions
from ..core import shape as shapes
from ..core._registry import require_array
from . import _trees
from ._trace import JVP, VJP, VMAP
from .gradients import vjp as vjp_of
from .vectorize import map_arrays

Arrays = list[array]


@dataclass
class Rules:
    """What a call means to each transform, in lists of arrays. A transform for which it is None sees through the call.

    Attributes:
        function: what was called.
        of_vjp: (arguments, cotangents, outputs) -> cotangents of the arguments, each an array or None.
        of_jvp: (arguments, tangents) -> tangents of the outputs.
        of_vmap: (arguments, batched, size) -> outputs with the axis first.
    """

    function: Callable[[Arrays], Arrays]
    of_vjp: Callable[[Arrays, Arrays, Arrays], list[array | None]] | None = None
    of_jvp: Callable[[Arrays, Arrays], Arrays] | None = None
    of_vmap: Callable[[Arrays, list[bool], int], Arrays] | None = None

    def call(self, arguments: Arrays) -> Arrays:
        """Call the function, so that an open trace finds these rules."""
        outputs = self.function(arguments)
        if not _graph.is_tracing():
            return outputs
        differentiable = self.of_vjp is not None or self.of_jvp is not None
        known = (VJP if self.of_vjp else 0) | (JVP if self.of_jvp else 0)
        # A vectorised call must still have the derivatives that it brings.
        known |= VMAP if self.of_vmap or differentiable else 0
        return _graph.record_call(self, known, arguments, outputs) if known and outputs else outputs

    def vjp(self, arguments: Arrays, cotangents: Arrays, outputs: Arrays) -> list[array | None]:
        """The rule of `vjp`, for one that reads a graph."""
        assert self.of_vjp is not None
        return self.of_vjp(arguments, cotangents, outputs)

    def jvp(self, arguments: Arrays, tangents: Arrays) -> Arrays:
        """The rule of `jvp`, for one that reads a graph."""
        assert self.of_jvp is not None
        return self.of_jvp(arguments, tangents)

    def vmap(self, arguments: Arrays, batched: list[bool], size: int) -> Arrays:
        """The rule of `vmap`: the one that was given, or a call of the vectorised function with vectorised rules."""
        if self.of_vmap is not None:
            return self.of_vmap(arguments, batched, size)
        return self._vectorized(batched, size).call(arguments)

    def _vectorized(self, batched: list[bool], size: int) -> Rules:
        def run(function: Callable[[Arrays], Arrays], arrays: Arrays, axes: list[bool]) -> Arrays:
            return map_arrays(function, arrays, axes, size)  # type: ignore[return-value]

        def function(arguments: Arrays) -> Arrays:
            return run(self.function, arguments, batched)

        def of_vjp(arguments: Arrays, cotangents: Arrays, outputs: Arrays) -> list[array | None]:
            n, m = len(arguments), len(cotangents)

            def one(arrays: Arrays) -> Arrays:
                primals = arrays[:n]
                found = self.vjp(primals, arrays[n : n + m], arrays[n + m :])
                return [creation.zeros_like(p) if c is None else c for p, c in zip(primals, found, strict=True)]

            found = run(one, [*arguments, *cotangents, *outputs], batched + [True] * (2 * m))
            # An argument that is the same for every element gets what all of them send.
            return [c if b else reductions.sum(c, 0) for c, b in zip(found, batched, strict=True)]

        def of_jvp(arguments: Arrays, tangents: Arrays) -> Arrays:
            n = len(arguments)
            return run(lambda arrays: self.jvp(arrays[:n], arrays[n:]), [*arguments, *tangents], batched * 2)

        return Rules(function, of_vjp if self.of_vjp else None, of_jvp if self.of_jvp else None)


def _unpacked(args: tuple[Any, ...]) -> Any:
    return args[0] if len(args) == 1 else args


def _matching(found: Any, tree: Any, place: Callable[[array | None], None]) -> None:
    """Call `place` with what stands in `found` for each array leaf of `tree`: an array, or None."""
    if found is None:
        for _ in _trees.some_arrays(tree):
            place(None)
    elif isinstance(tree, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) < len(tree):
            raise ValueError(
                f"[custom_function] a rule returned {type(found).__name__} for a tree of {len(tree)} parts."
            )
        for f, t in zip(found, tree, strict=False):
            _matching(f, t, place)
    elif isinstance(tree, dict):
        if not isinstance(found, dict):
            raise ValueError(f"[custom_function] a rule returned {type(found).__name__} for a dict.")
        for key, t in tree.items():
            _matching(found.get(key), t, place)
    elif isinstance(tree, array):
        if isinstance(found, (list, tuple)) and found:
            found = found[0]
        if not isinstance(found, array):
            raise ValueError(f"[custom_function] a rule returned {type(found).__name__} where an array must be.")
        if found.shape != tree.shape:
            raise ValueError(f"[custom_function] a rule returned shape {found.shape} for an array of {tree.shape}.")
        place(found)


class custom_function:
    """A function with derivatives, or a vectorised form, of its own.

    The rules are given by the decorators `vjp`, `jvp` and `vmap`; a transform for which there is no rule transforms the
    function itself. Arguments and results are arrays or trees of them; in `primals`, `tangents` and `cotangents` they
    are as the function takes and returns them, a tuple for several arguments. Keyword arguments are passed on to the
    rules, and are constants to them.

    * `vjp(primals, cotangents, outputs)` returns the cotangents of the primals, None for one that has none.
    * `jvp(primals, tangents)` returns the tangents of the outputs.
    * `vmap(inputs, axes)` gets for each array the mapped axis or None, and returns (outputs, their axes).

    >>> @mx.custom_function
    ... def clipped(x):
    ...     return mx.clip(x, -1, 1)
    >>> @clipped.vjp
    ... def clipped_vjp(primals, cotangents, outputs):
    ...     return cotangents  # straight through
    >>> mx.grad(clipped)(mx.array(3.0))
    array(1, dtype=float32)
    """

    def __init__(self, fun: Callable[..., Any]):
        if not callable(fun):
            raise TypeError(f"[custom_function] fun must be callable, got {type(fun).__name__}.")
        self._fun = fun
        self._vjp: Callable[..., Any] | None = None
        self._jvp: Callable[..., Any] | None = None
        self._vmap: Callable[..., Any] | None = None
        update_wrapper(self, fun)

    def vjp(self, rule: Callable[..., Any]) -> custom_function:
        """Decorator: `rule(primals, cotangents, outputs)` gives the cotangents of the primals."""
        self._vjp = rule
        return self

    def jvp(self, rule: Callable[..., Any]) -> custom_function:
        """Decorator: `rule(primals, tangents)` gives the tangents of the outputs."""
        self._jvp = rule
        return self

    def vmap(self, rule: Callable[..., Any]) -> custom_function:
        """Decorator: `rule(inputs, axes)` gives the outputs for inputs with a mapped axis, and the axes of these."""
        self._vmap = rule
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function. With an open trace, the rules apply to it."""
        if not _graph.is_tracing():
            return self._fun(*args, **kwargs)
        result: Any = None

        def function(arrays: Arrays) -> Arrays:
            nonlocal result
            result = self._fun(*_trees.replace_arrays(args, arrays), **kwargs)
            return _trees.some_arrays(result)

        outputs = self._rules(function, args, kwargs, lambda: result).call(_trees.some_arrays(args))
        return _trees.replace_arrays(result, list(outputs))

    def _rules(
        self, function: Callable[[Arrays], Arrays], args: Any, kwargs: dict[str, Any], result: Callable[[], Any]
    ) -> Rules:
        primals_of = _trees.replace_arrays

        def of_vjp(arguments: Arrays, cotangents: Arrays, outputs: Arrays) -> list[array | None]:
            assert self._vjp is not None
            returned = result()
            found = self._vjp(
                _unpacked(primals_of(args, arguments)),
                _trees.replace_arrays(returned, cotangents),
                _trees.replace_arrays(returned, outputs),
                **kwargs,
            )
            flat: list[array | None] = []
            _matching(found, _unpacked(primals_of(args, arguments)), flat.append)
            return flat

        def of_jvp(arguments: Arrays, tangents: Arrays) -> Arrays:
            assert self._jvp is not None
            found = self._jvp(_unpacked(primals_of(args, arguments)), _unpacked(primals_of(args, tangents)), **kwargs)
            flat: list[array | None] = []
            _matching(found, result(), flat.append)
            outputs = _trees.some_arrays(result())
            return [creation.zeros_like(o) if t is None else t for o, t in zip(outputs, flat, strict=True)]

        def of_vmap(arguments: Arrays, batched: list[bool], size: int) -> Arrays:
            assert self._vmap is not None
            axes: Any = _unpacked(_trees.replace_arrays(args, [0 if b else None for b in batched]))
            outputs, places = self._vmap(_unpacked(primals_of(args, arguments)), axes, **kwargs)
            flat = _trees.some_arrays(outputs)
            given = _trees.spread_prefix(places, outputs)
            return [
                shapes.broadcast_to(o, (size, *o.shape)) if axis is None else shapes.moveaxis(o, axis, 0)
                for o, axis in zip(flat, given, strict=True)
            ]

        return Rules(
            function,
            of_vjp if self._vjp else None,
            of_jvp if self._jvp else None,
            of_vmap if self._vmap else None,
        )


def checkpoint(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose intermediate results are computed again for its gradient instead of being kept.

    (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.)

    Args:
        fun: a function of arrays and trees of arrays. Gradients reach the arrays among its positional arguments only.

    Returns:
        A function of the same arguments.

    >>> mx.grad(mx.checkpoint(lambda x: x * x))(mx.array(3.0))
    array(6, dtype=float32)
    """
    if not callable(fun):
        raise TypeError(f"[checkpoint] fun must be callable, got {type(fun).__name__}.")

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not _graph.is_tracing():
            return fun(*args, **kwargs)
        result: Any = None

        def function(arrays: Arrays) -> Arrays:
            nonlocal result
            result = fun(*_trees.replace_arrays(args, arrays), **kwargs)
            return _trees.some_arrays(result)

        def of_vjp(arguments: Arrays, cotangents: Arrays, outputs: Arrays) -> list[array | None]:
            return list(vjp_of(lambda *arrays: function(list(arrays)), arguments, cotangents)[1])

        outputs = Rules(function, of_vjp).call(_trees.some_arrays(args))
        return _trees.replace_arrays(result, list(outputs))

    return wrapped


def stop_gradient(a: array, /, *, stream: Any = None) -> array:
    """The same values, taken as constant by gradients.

    >>> mx.grad(lambda x: x * mx.stop_gradient(x))(mx.array(3.0))
    array(3, dtype=float32)
    """
    return _graph.stop_gradient(require_array(a, "stop_gradient"))
