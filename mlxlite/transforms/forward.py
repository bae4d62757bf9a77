"""Forward-mode differentiation: `jvp`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._graph import TracedNode, array
from ..core import creation
from ._tables import JVP, VJP, missing
from ._trace import JVP as READ_FOR_JVP
from ._trace import VJP as READ_FOR_VJP
from ._trace import Graph, Trace
from .gradients import array_list, cotangents_of, output_arrays, pull_back


def push_forward(graph: Graph, tangents: list[array]) -> list[array | None]:
    """The tangents of a graph's outputs; None where they are zero."""
    flowing: dict[int, array | None] = dict(enumerate(tangents))
    last_use = {value: i for i, node in enumerate(graph.nodes) for value in node.sources}
    kept = set(graph.outputs)
    for i, node in enumerate(graph.nodes):
        given = [flowing.get(value) for value in node.sources]
        info = node.info if node.name == "call" else None
        if all(t is None for t in given):
            pass
        elif info is not None:
            inputs = node.inputs
            whole = [creation.zeros_like(a) if t is None else t for a, t in zip(inputs, given, strict=True)]
            for k, tangent in enumerate(info.jvp(inputs, whole)):
                flowing[node.first + k] = tangent
        else:
            flowing[node.first] = tangent_of(node, given)
        for value in node.sources:
            if value >= 0 and last_use[value] == i and value not in kept:
                flowing.pop(value, None)
    return [flowing.get(value) for value in graph.outputs]


def tangent_of(node: TracedNode, tangents: list[array | None]) -> array | None:
    """The tangent of a node's output. NotImplementedError if its primitive has no rule."""
    rule = JVP.get(node.name)
    if rule is not None:
        return rule(node, tangents)
    if node.name in VJP:
        return transposed_twice(node, tangents)
    raise missing(node, "jvp")


def transposed_twice(node: TracedNode, tangents: list[array | None]) -> array | None:
    """The tangent by the vjp rule: a vjp is linear in its cotangent, and its own vjp by that is the jvp.

    (Townsend, "A new trick for calculating Jacobian vector products", 2017.)
    """
    with Trace() as trace:
        cotangent = trace.stand_ins([creation.zeros(node.shape, node.dtype)])[0]
        found = cotangents_of(node, cotangent)
        pairs = [(c, t) for c, t in zip(found, tangents, strict=True) if c is not None and t is not None]
        graph = trace.read([c for c, _ in pairs], READ_FOR_VJP)
    return pull_back(graph, [t for _, t in pairs])[0]


def jvp(
    fun: Callable[..., Any], primals: Sequence[array], tangents: Sequence[array]
) -> tuple[list[array], list[array]]:
    """The product of the Jacobian of a function with tangents.

    Args:
        fun: a function of as many arrays as there are primals, that returns an array or a list or tuple of arrays.
        primals: where the Jacobian is taken.
        tangents: one for each primal, of its shape.

    Returns:
        The outputs, and for each output the sum over all primals of derivative times tangent, of the output's shape.

    Raises:
        ValueError: tangents that do not match the primals in number or shape.
        NotImplementedError: an operation has no rule.

    >>> mx.jvp(mx.sin, [mx.array(0.0)], [mx.array(2.0)])
    ([array(0, dtype=float32)], [array(2, dtype=float32)])
    """
    given = array_list(primals, "jvp", "primals")
    moving = array_list(tangents, "jvp", "tangents")
    if len(given) != len(moving):
        raise ValueError(f"[jvp] Number of inputs ({len(given)}) does not match number of tangents ({len(moving)}).")
    for a, t in zip(given, moving, strict=True):
        if a.shape != t.shape:
            raise ValueError(f"[jvp] Input shape {a.shape} does not match shape of tangent {t.shape}.")
    with Trace() as trace:
        outputs = output_arrays(fun(*trace.stand_ins(given)), "jvp")
        graph = trace.read(outputs, READ_FOR_JVP)
    found = push_forward(graph, moving)
    return outputs, [creation.zeros_like(o) if t is None else t for o, t in zip(outputs, found, strict=True)]
