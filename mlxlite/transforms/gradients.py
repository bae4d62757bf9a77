"""Reverse-mode differentiation: `vjp`, `grad`, `value_and_grad`."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from .. import _graph
from .._graph import Dtype, TracedNode, array
from ..core import creation
from ..core import elementwise as ew
from . import _trees, replay
from ._tables import COVERS, HOLOMORPHIC, PICKS, VJP, missing
from ._trace import VJP as READ_FOR_VJP
from ._trace import Graph, Trace

Argnums = int | Sequence[int] | None


def pull_back(graph: Graph, cotangents: list[array]) -> list[array | None]:
    """The cotangents of a graph's arguments; None for those that no output depends on. The graph is used up."""
    found = replay.recall(graph, cotangents, walk_back)
    return walk_back(graph.nodes, graph.outputs, graph.n_arguments, cotangents) if found is None else found


def walk_back(
    nodes: list[TracedNode], outputs: Sequence[int], n_arguments: int, cotangents: list[array]
) -> list[array | None]:
    """The cotangents of the first `n_arguments` values, by the rules of the nodes.

    The list of nodes is used up, so that an intermediate result is held no longer than it is needed.
    """
    flowing: dict[int, array] = {}
    picked: dict[int, list[tuple[TracedNode, array]]] = {}  # what belongs to parts of a value

    def add(values: Sequence[int], found: Sequence[array | None]) -> None:
        for value, cotangent in zip(values, found, strict=True):
            if value >= 0 and cotangent is not None:
                before = flowing.get(value)
                flowing[value] = cotangent if before is None else before + cotangent

    def arrived(value: int) -> array | None:
        return _put_together(flowing.pop(value, None), picked.pop(value, []))

    add(outputs, cotangents)
    while nodes:
        node = nodes.pop()
        if node.name == "call":
            results = node.outputs
            parts = [arrived(node.first + i) for i in range(len(results))]
            if any(part is not None for part in parts):
                given = [creation.zeros_like(o) if c is None else c for o, c in zip(results, parts, strict=True)]
                add(node.sources, node.info.vjp(node.inputs, given, results))
            continue
        cotangent = arrived(node.first)
        if cotangent is None:
            continue
        if node.name in PICKS and node.sources[0] >= 0:
            picked.setdefault(node.sources[0], []).append((node, cotangent))
        else:
            add(node.sources, cotangents_of(node, cotangent))
    return [arrived(i) for i in range(n_arguments)]


def _put_together(found: array | None, parts: list[tuple[TracedNode, array]]) -> array | None:
    """The cotangent of a value: what is known of all of it, and of parts."""
    name = parts[0][0].name if parts else ""
    if found is None and len(parts) > 1 and name in COVERS and all(node.name == name for node, _ in parts):
        found = COVERS[name](parts)
        if found is not None:
            return found
    for node, part in parts:
        if found is not None and found.dtype == part.dtype:
            found = PICKS[node.name](node, found, part)
        else:
            whole = cotangents_of(node, part)[0]
            assert whole is not None
            found = whole if found is None else found + whole
    return found


def cotangents_of(node: TracedNode, cotangent: array) -> Sequence[array | None]:
    """The cotangents of a node's inputs. NotImplementedError if its primitive has no rule."""
    rule = VJP.get(node.name)
    if rule is None:
        raise missing(node, "vjp")
    if node.name not in HOLOMORPHIC or node.dtype.category != "complex":
        return rule(node, cotangent)
    found = rule(node, ew.conjugate(cotangent))
    return [None if c is None else ew.conjugate(c) for c in found]


def _or_zeros(found: list[array | None], shapes: list[tuple[int, ...]], dtypes: list[Dtype]) -> list[array]:
    return [
        creation.zeros(shape, dtype) if c is None else c for c, shape, dtype in zip(found, shapes, dtypes, strict=True)
    ]


def _check_cotangents(outputs: list[array], cotangents: list[array], hint: str = "") -> None:
    for output, cotangent in zip(outputs, cotangents, strict=False):
        if output.shape != cotangent.shape:
            raise ValueError(
                f"[vjp] Output shape {output.shape} does not match cotangent shape {cotangent.shape}.{hint}"
            )


def array_list(values: Any, name: str, what: str) -> list[array]:
    """The arrays of a list. TypeError for anything else."""
    found = list(values)
    for value in found:
        if not isinstance(value, array):
            raise TypeError(f"[{name}] {what} must be a list of arrays, found a {type(value).__name__}.")
    return found


def output_arrays(result: Any, name: str) -> list[array]:
    """The outputs of a function given to `vjp` or `jvp`: an array, or a list or tuple of arrays."""
    outputs = list(result) if isinstance(result, (list, tuple)) else [result]
    for output in outputs:
        if not isinstance(output, array):
            raise ValueError(
                f"[{name}] The function must return an array or a list or tuple of arrays, "
                f"but {type(output).__name__} was returned."
            )
    return outputs


def vjp(
    fun: Callable[..., Any], primals: Sequence[array], cotangents: Sequence[array]
) -> tuple[list[array], list[array]]:
    """The product of cotangents with the Jacobian of a function.

    Args:
        fun: a function of as many arrays as there are primals, that returns an array or a list or tuple of arrays.
        primals: where the Jacobian is taken.
        cotangents: one for each output, of its shape.

    Returns:
        The outputs, and for each primal the sum over all outputs of cotangent times derivative, of the primal's shape.

    Raises:
        ValueError: there are fewer cotangents than outputs, or one has another shape than its output.
        NotImplementedError: an operation has no rule.

    >>> mx.vjp(lambda x: x * x, [mx.array(3.0)], [mx.array(1.0)])
    ([array(9, dtype=float32)], [array(6, dtype=float32)])
    """
    given = array_list(primals, "vjp", "primals")
    weights = array_list(cotangents, "vjp", "cotangents")
    shapes, dtypes = [a.shape for a in given], [a.dtype for a in given]
    with Trace() as trace:
        outputs = output_arrays(fun(*trace.stand_ins(given)), "vjp")
        # Outputs of stop_gradient take no cotangent.
        wanted = [o for o in outputs if not _graph.stops_gradients(o)]
        if len(wanted) > len(weights):
            raise ValueError(
                f"[vjp] Number of outputs to compute gradients for ({len(wanted)}) does not match "
                f"number of cotangents ({len(weights)})."
            )
        _check_cotangents(wanted, weights)
        graph = trace.read(wanted, READ_FOR_VJP)
    return outputs, _or_zeros(pull_back(graph, weights[: len(wanted)]), shapes, dtypes)


def _checked_argnums(argnums: Argnums, argnames: str | Sequence[str], name: str) -> tuple[list[int], list[str]]:
    names = [argnames] if isinstance(argnames, str) else list(argnames)
    if any(not isinstance(n, str) for n in names):
        raise TypeError(f"[{name}] argnames must be a string or a sequence of strings, got {argnames!r}.")
    if argnums is None:
        numbers = [] if names else [0]
    else:
        try:
            several = isinstance(argnums, (list, tuple))
            numbers = sorted(map(operator.index, argnums if several else [argnums]))  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(
                f"[{name}] argnums must be an integer or a sequence of integers, got {argnums!r}."
            ) from None
    if not numbers and not names:
        raise ValueError("[grad] Gradient wrt no argument requested")
    if numbers and numbers[0] < 0:
        raise ValueError(f"[grad] Can't compute the gradient of negative argument index {numbers[0]}")
    for a, b in itertools.pairwise(numbers):
        if a == b:
            raise ValueError(f"[grad] Duplicate argument index {a} is not allowed.")
    return numbers, sorted(set(names))


def _check_call(numbers: list[int], names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if numbers and numbers[-1] >= len(args):
        raise ValueError(
            f"[grad] Can't compute the gradient of argument index {numbers[-1]} because the function is called "
            f"with only {len(args)} positional arguments."
        )
    for name in names:
        if name not in kwargs:
            raise ValueError(
                f"[grad] Can't compute the gradient of keyword argument {name!r} because the function is called "
                f"with the keyword arguments {sorted(kwargs)}."
            )


def _scalar_of(result: Any, scalar_only: bool) -> array:
    """The array to differentiate among what the function returned."""
    wanted = "an array" if scalar_only else "an array, or a tuple whose first value is one"
    first = result
    if not scalar_only and type(result) is tuple and result:
        first = result[0]
    if not isinstance(first, array):
        raise ValueError(
            f"[{'grad' if scalar_only else 'value_and_grad'}] The return value of the function whose gradient we want "
            f"to compute should be {wanted}, a scalar; but {type(result).__name__} was returned."
        )
    return first


def _differentiated(
    fun: Callable[..., Any], argnums: Argnums, argnames: str | Sequence[str], name: str
) -> Callable[..., tuple[Any, Any]]:
    if not callable(fun):
        raise TypeError(f"[{name}] fun must be callable, got {type(fun).__name__}.")
    numbers, names = _checked_argnums(argnums, argnames, name)

    def call(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        _check_call(numbers, names, args, kwargs)
        trees = [args[i] for i in numbers] + [kwargs[n] for n in names]
        given = _trees.arrays(trees)
        shapes, dtypes = [a.shape for a in given], [a.dtype for a in given]
        with Trace() as trace:
            traced = _trees.replace(trees, trace.stand_ins(given))
            positional, keyword = list(args), dict(kwargs)
            for i, tree in zip(numbers, traced, strict=False):
                positional[i] = tree
            keyword.update(zip(names, traced[len(numbers) :], strict=True))
            result = fun(*positional, **keyword)
            value = _scalar_of(result, name == "grad")
            one = [creation.ones((), value.dtype)]
            _check_cotangents([value], one, " A function given to grad must return a scalar.")
            graph = trace.read([value], READ_FOR_VJP)
        gradients = _trees.replace(trees, _or_zeros(pull_back(graph, one), shapes, dtypes))
        of_numbers = gradients[0] if len(numbers) == 1 else tuple(gradients[: len(numbers)]) or None
        if not names:
            return result, of_numbers
        return result, (of_numbers, dict(zip(names, gradients[len(numbers) :], strict=True)))

    return call


def value_and_grad(
    fun: Callable[..., Any], argnums: Argnums = None, argnames: str | Sequence[str] = ()
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns what `fun` does and its gradients.

    Args:
        fun: returns a scalar array, or a tuple whose first value is one; only that is differentiated.
        argnums: the positional argument, or arguments, to differentiate by; the first one unless `argnames` is given.
        argnames: the keyword arguments to differentiate by.

    Returns:
        A function of the arguments of `fun`. It returns (value, gradients). The gradient of an argument is a tree like
        it, of arrays of the same shapes. For several `argnums` there is a tuple of them, in the order of the arguments;
        with `argnames` there is a pair of that (None without `argnums`) and a dict by name.

    Raises:
        ValueError: a negative, repeated or missing argument, one whose tree has leaves that are not arrays, or a
            returned value that is not a scalar.
        TypeError: `fun` is not callable, or the arguments are not named by integers and strings.
        NotImplementedError: an operation has no rule.

    >>> mx.value_and_grad(lambda p: p["w"] * p["b"])({"w": mx.array(2.0), "b": mx.array(3.0)})
    (array(6, dtype=float32), {'w': array(3, dtype=float32), 'b': array(2, dtype=float32)})
    """
    call = _differentiated(fun, argnums, argnames, "value_and_grad")

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return call(*args, **kwargs)

    return wrapped


def grad(fun: Callable[..., Any], argnums: Argnums = None, argnames: str | Sequence[str] = ()) -> Callable[..., Any]:
    """A function that returns the gradients of `fun`, which returns a scalar array.

    Arguments, errors and the form of the gradients are those of `value_and_grad`.

    >>> mx.grad(mx.sin)(mx.array(0.0))
    array(1, dtype=float32)
    >>> mx.grad(mx.grad(lambda x: x ** 3))(mx.array(2.0))
    array(12, dtype=float32)
    """
    call = _differentiated(fun, argnums, argnames, "grad")

    @wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)[1]

    return wrapped
