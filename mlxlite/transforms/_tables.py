"""The rules of the transforms: one table an interpretation, from a primitive's name to what it means there.

The rules of a family stand in `rules/<family>.py`. They are made of ordinary lazy operations, so that a transform can
be transformed again.

* `vjp`: `rule(node, cotangent)` gives the cotangent of each input, None for one that has none.
* `picks`: for a primitive whose results are elements of its first input, `rule(node, before, cotangent)` gives the
  cotangent of that input: what has reached it from elsewhere, `before`, with this one added where it was picked; None
  stands for zeros. It is the vjp too. So parts of one array are put together in one array, and not in one each.
* `covers`: for such a primitive, `rule(parts)` gives the same for a list of (node, cotangent) of one input, if together
  they are all of it and nothing twice; else None.
* `jvp`: `rule(node, tangents)` gives the tangent of the output. A tangent is None where it is zero; not all of them
  are. A primitive without such a rule gets its tangent from its vjp.
* `vmap`: `rule(node, inputs, batched, size)`: the inputs of which `batched` is true have a new first axis of that size,
  at least one of them; gives the output with such an axis.

`node` is a `_graph.TracedNode`: `.inputs .output .static .ints .floats .shape .dtype`, of the call that was traced, and
`.sources`, where an input that no derivative is wanted of has -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._graph import TracedNode, array

Cotangents = Sequence["array | None"]
Rule = Callable[..., Any]

PICKS: dict[str, Callable[[TracedNode, array | None, array], array]] = {}
COVERS: dict[str, Callable[[list[tuple[TracedNode, array]]], array | None]] = {}
VJP: dict[str, Callable[[TracedNode, array], Cotangents]] = {}
JVP: dict[str, Callable[[TracedNode, list[array | None]], array | None]] = {}
VMAP: dict[str, Callable[[TracedNode, list[array], list[bool], int], array]] = {}

# Primitives whose results do not change with small changes of their inputs, or are integers.
WITHOUT_GRADIENT: set[str] = set()

# Primitives whose vjp rules give the product with the derivative itself. Of complex numbers the cotangent is a product
# with the conjugate: see `gradients.cotangents_of`.
HOLOMORPHIC: set[str] = set()


def _registers(table: dict[str, Any]) -> Callable[..., Callable[[Rule], Rule]]:
    def decorator(*names: str) -> Callable[[Rule], Rule]:
        def register(rule: Rule) -> Rule:
            for name in names:
                if name in table:
                    raise ValueError(f"two rules for {name!r}")
                table[name] = rule
            return rule

        return register

    return decorator


vjp = _registers(VJP)
_picks = _registers(PICKS)


def picks(*names: str) -> Callable[[Rule], Rule]:
    """Declare a `picks` rule."""

    def register(rule: Rule) -> Rule:
        _picks(*names)(rule)
        vjp(*names)(lambda node, cotangent: [rule(node, None, cotangent), *[None] * (len(node.sources) - 1)])
        return rule

    return register


covers = _registers(COVERS)
jvp = _registers(JVP)
vmap = _registers(VMAP)


def without_gradient(names: str) -> None:
    """Declare that nothing flows through primitives; their names stand in a string, with spaces between."""
    for name in names.split():
        vjp(name)(lambda node, cotangent: [None] * len(node.sources))
        jvp(name)(lambda node, tangents: None)
        WITHOUT_GRADIENT.add(name)


def missing(node: TracedNode, transform: str) -> NotImplementedError:
    """The error for a primitive that has no rule."""
    return NotImplementedError(
        f"[{transform}] There is no rule for {node.name} (result {node.dtype.name}): "
        "wrap the computation in mx.custom_function and give one, or stop_gradient its inputs."
    )
