"""`mx.explain`: what evaluating arrays would run, shown without evaluating them."""

from __future__ import annotations

from typing import Any, Literal

from .. import _graph, observe
from ..observe import drawing
from ..observe.description import Plan
from ..observe.text import plan_text
from . import cuda

__all__ = ["Explanation", "explain"]


class Explanation:
    """What `explain` returns.

    Attributes:
        plans: a plan for each part that one device runs, in order; one unless arrays of several devices meet.
        nodes: the nodes of all plans (`mlxlite.observe.description.Node`: kind, ops, reads, writes, floor...).
    """

    def __init__(self, plans: list[Plan]) -> None:
        self.plans = plans

    @property
    def nodes(self) -> list[Any]:
        return [node for plan in self.plans for node in plan.nodes]

    def __str__(self) -> str:
        if not self.plans:
            return "nothing to evaluate: all of it is evaluated already"
        return "\n\n".join(map(plan_text, self.plans))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.plans)} plans, {len(self.nodes)} nodes; print it to read it>"

    def dot(self) -> str:
        """The graph of nodes and buffers in Graphviz's language."""
        return drawing.dot(self.plans)

    def svg(self) -> str:
        """The graph of nodes and buffers as a picture; needs no other program."""
        return drawing.svg(self.plans)

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return drawing.html(self.plans, str(self))


def explain(*outputs: Any, device: Any = None) -> Explanation:
    """Lower the unevaluated graph below arrays, without evaluating it, and show the plan.

    Args:
        outputs: arrays, or lists, tuples and dicts of them, as for `eval`.
        device: where the plan is for; by default, the devices that the operations were recorded for. `mx.gpu` needs no
            GPU: where there is none, floors are those of a GPU that the text names.

    Returns:
        An `Explanation`: print it; `.nodes` has it as data, `.dot()` and `.svg()` as a picture, which a notebook shows.

    Raises:
        TypeError: an output is neither an array nor a list, tuple or dict of them.
        NotImplementedError: an op has no kernel on the GPU; names the op and the dtype.

    >>> x = mx.ones((4, 4))
    >>> [node.label for node in mx.explain(mx.exp(x) + 1, device=mx.gpu).nodes]
    ['full+exp+add']
    """
    _check(outputs)
    name = None if device is None else _name(device)
    plans = []
    for tape in _graph.tapes(outputs, name):
        if tape.device == "gpu" and not _graph.is_registered("gpu") and cuda.is_available():
            cuda.load_backend("gpu")  # to describe the GPU that is there
        plans.append(observe.provider(tape.device).describe(tape)(tape.sizes))
    return Explanation(plans)


def _name(device: Any) -> Literal["cpu", "gpu"]:
    if isinstance(device, _graph.Stream):
        device = device.device
    if isinstance(device, _graph.Device):
        device = device.type
    if not isinstance(device, _graph.DeviceType):
        raise TypeError(f"[explain] device must be a Device or a Stream such as mx.gpu, got {type(device).__name__}")
    return "gpu" if device == _graph.DeviceType.gpu else "cpu"


def _check(tree: Any) -> None:
    if isinstance(tree, (list, tuple)):
        for item in tree:
            _check(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            _check(item)
    elif not isinstance(tree, _graph.array):
        raise TypeError(f"[explain] expected arrays or trees of arrays, got {type(tree).__name__}")
