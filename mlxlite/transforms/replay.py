"""Gradients derived once: the ops that the rules recorded for a graph are recorded again for a graph like it.

What the rules record follows from what `TracedGraph.describe` gives: primitives, attributes, shapes, dtypes, and who
reads whom. So the first gradient of a graph is taken of arrays without values, kept as a template, and replayed from
then on, without Python; a rule must not look at anything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .. import _graph
from .._graph import Template, TracedGraph, array
from ._trace import Graph, Trace

CAPACITY = 200_000  # nodes of all graphs that have a template; the least recently used are dropped
MAX_NODES = 20_000  # a longer graph is rarely met again

counters = {"hits": 0, "misses": 0, "nodes": 0}

WalkBack = Callable[..., "list[array | None]"]


class _Node:
    """What a rule sees of a traced node, with arrays that have no values."""

    __slots__ = ("dtype", "first", "floats", "inputs", "ints", "name", "output", "shape", "sources", "static")

    def __init__(self, node: Any, inputs: list[array], output: array):
        self.name, self.static, self.ints, self.floats = node.name, node.static, node.ints, node.floats
        self.shape, self.dtype, self.first, self.sources = node.shape, node.dtype, node.first, node.sources
        self.inputs = inputs
        self.output = output


class _Derivative:
    """A template of the cotangents; those that are None have no place in it."""

    __slots__ = ("known", "n_nodes", "template")

    def __init__(self, template: Template, known: list[bool], n_nodes: int):
        self.template = template
        self.known = known
        self.n_nodes = n_nodes


_derivatives: OrderedDict[Any, _Derivative] = OrderedDict()


def clear() -> None:
    """Forget all templates."""
    _derivatives.clear()
    counters["nodes"] = 0


def recall(graph: Graph, cotangents: list[array], walk_back: WalkBack) -> list[array | None] | None:
    """The cotangents of a graph's arguments by a template; None for a graph that is not for templates.

    A graph with calls of `custom_function` or `checkpoint`, whose rules are the user's, is not.
    """
    traced = graph.traced
    if traced is None or not 0 < traced.n_nodes <= MAX_NODES:
        return None
    description = traced.describe()
    if not description:
        return None
    of_cotangents = tuple([(c.shape, c.dtype.name) for c in cotangents])
    key = (description, of_cotangents, _graph.default_device().type.name)
    found = _derivatives.get(key)
    if found is None:
        counters["misses"] += 1
        found = _derivatives[key] = _derive(graph, traced, cotangents, walk_back)
        counters["nodes"] += found.n_nodes
        while counters["nodes"] > CAPACITY:
            counters["nodes"] -= _derivatives.popitem(last=False)[1].n_nodes
    else:
        counters["hits"] += 1
        _derivatives.move_to_end(key)
    results = iter(found.template.of_graph(traced, cotangents))
    return [next(results) if known else None for known in found.known]


def _derive(graph: Graph, traced: TracedGraph, cotangents: list[array], walk_back: WalkBack) -> _Derivative:
    values = traced.values()
    with Trace() as trace:  # nothing is evaluated, and the pending ops are not counted against the budget
        everything = values + cotangents
        abstract = trace.abstract([a.shape for a in everything], [a.dtype for a in everything])
        of_arguments = graph.n_arguments
        n_constants = len(values) - of_arguments - traced.n_nodes
        constants = abstract[of_arguments : of_arguments + n_constants]
        numbered = abstract[:of_arguments] + abstract[of_arguments + n_constants : len(values)]
        which = iter(traced.constant_inputs)
        nodes = [
            _Node(node, [numbered[v] if v >= 0 else constants[next(which)] for v in node.sources], numbered[node.first])
            for node in traced.peek_nodes()
        ]
        found = walk_back(nodes, graph.outputs, of_arguments, abstract[len(values) :])
        template = Template([c for c in found if c is not None], trace.arguments)
    return _Derivative(template, [c is not None for c in found], traced.n_nodes)
