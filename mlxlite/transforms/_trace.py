"""Tracing a function: calling it on arrays that stand for its arguments, and reading what it recorded."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from .. import _graph
from .._graph import TracedGraph, TracedNode, array

VJP, JVP, VMAP = 1, 2, 4  # what a graph is read for; as in trace.h


class Trace:
    """While it is open, arrays that depend on its stand-ins keep their graphs even if they are evaluated.

    >>> with Trace() as trace:
    ...     (x,) = trace.stand_ins([mx.array(3.0)])
    ...     graph = trace.read([x * x], VJP)
    >>> [node.name for node in graph.nodes]
    ['multiply']
    """

    def __init__(self) -> None:
        self.arguments: list[array] = []  # never handed out: the function may change an object in place
        self._given: list[array] = []

    def __enter__(self) -> Trace:
        _graph.begin_trace()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        _graph.withdraw(self._given)
        self.arguments.clear()
        self._given.clear()
        _graph.end_trace()

    def _hand_out(self, made: list[array]) -> list[array]:
        self.arguments += [_graph.astype(a, a.dtype) for a in made]
        self._given += made
        return made

    def stand_ins(self, arguments: list[array]) -> list[array]:
        """Arrays of the arguments' values, which the trace recognises."""
        return self._hand_out([_graph.stand_in(a) for a in arguments])

    def abstract(self, shapes: list[tuple[int, ...]], dtypes: list[Any]) -> list[array]:
        """Arrays of shapes and dtypes, without values: to evaluate them raises ValueError."""
        return self._hand_out([_graph.abstract_argument(s, d) for s, d in zip(shapes, dtypes, strict=True)])

    def read(self, outputs: list[array], interpretation: int) -> Graph:
        """What leads from the stand-ins to the outputs."""
        return Graph(_graph.read_trace(outputs, self.arguments, interpretation))


class Graph:
    """The traced nodes. Values are numbered: the arguments, then the results of the nodes.

    Attributes:
        traced: the graph in C++; None when the nodes have been taken out of it.
        outputs: the number of each output's value, -1 if it depends on no argument.
        n_arguments: how many arguments there are.
    """

    __slots__ = ("_nodes", "n_arguments", "outputs", "traced")

    def __init__(self, traced: TracedGraph):
        self.traced: TracedGraph | None = traced
        self.outputs = traced.outputs
        self.n_arguments = traced.n_arguments
        self._nodes: list[TracedNode] | None = None

    @property
    def nodes(self) -> list[TracedNode]:
        """The nodes, producers first; a list that may be used up."""
        if self.traced is not None:
            self._nodes, self.traced = self.traced.take_nodes(), None
        assert self._nodes is not None
        return self._nodes
