"""A plan as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from .description import Access, Node, Op, Plan, array_text, bytes_text, fusion_text, quantity_text, time_text


def plan_text(plan: Plan) -> str:
    """The plan for a terminal: nodes in order, buffers, and what was not fused."""
    return "\n".join(_lines(plan))


def counted(n: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def counted_times(texts: Iterable[str]) -> list[str]:
    """Each text once, with how often it comes if that is not once: `float32 (4,) x2`."""
    return [text if n == 1 else f"{text} x{n}" for text, n in Counter(texts).items()]


def node_title(node: Node) -> str:
    """What a node computes, in few words."""
    if not node.ops:
        return node.label
    names = fusion_text([op.name for op in _of_first_instance(node)])
    return names if node.instances == 1 else f"{node.instances} times {names}"


def _of_first_instance(node: Node) -> tuple[Op, ...]:
    return node.ops[: len(node.ops) // node.instances]


def _lines(plan: Plan) -> Iterator[str]:
    cached = "in the plan cache" if plan.in_cache else "not in the plan cache"
    ops = counted(plan.n_ops, "op") + (f", {len(plan.views)} of them views" if plan.views else "")
    yield f"{plan.device} plan: {counted(len(plan.nodes), 'node')} for {ops}; {cached}"
    machine = plan.machine
    yield (
        machine.name
        + (" (assumed: there is no GPU here)" if machine.assumed else "")
        + (f", {bytes_text(machine.bandwidth)}/s" if machine.bandwidth else ", memory bandwidth unknown")
    )
    read, written = sum(n.bytes_read for n in plan.nodes), sum(n.bytes_written for n in plan.nodes)
    yield (
        f"reads {bytes_text(read)}, writes {bytes_text(written)}, floor {time_text(plan.floor)}"
        + (f", arena {bytes_text(plan.arena_bytes)}" if plan.arena_bytes else "")
    )
    if plan.nodes:
        yield ""
        yield from _nodes(plan)
    if plan.views:
        yield ""
        yield "views, which cost nothing"
        yield from (f"  {op}" for op in plan.views)
    if plan.buffers:
        yield ""
        yield "buffers"
        width = max(len(b.name) for b in plan.buffers)
        for b in plan.buffers:
            kind = "" if b.name.startswith(b.kind) or b.kind in ("arena", "output") else f" ({b.kind})"
            yield f"  {b.name:<{width}}  {bytes_text(b.nbytes):>8}  {b.content}{kind}"
    if plan.refusals:
        yield ""
        yield "not fused"
        for r in plan.refusals:
            yield (
                f"  #{r.producer.index} {r.producer.name} (node {r.producer_node}) -> "
                f"#{r.consumer.index} {r.consumer.name} (node {r.consumer_node}): {r.reason}"
            )
    if plan.apart:
        yield ""
        yield "not side by side"
        for a in plan.apart:
            numbers = ", ".join(map(str, a.nodes))
            yield f"  {node_title(plan.nodes[a.nodes[0]])} (nodes {numbers}): {a.reason}"


def _nodes(plan: Plan) -> Iterator[str]:
    width = max(len("node"), *(len(node_title(n)) + 4 for n in plan.nodes))
    yield f"{'node':<{width}}  {'kind':<7}  {'reads':>8}  {'writes':>8}  {'floor':>8}  limit"
    for node in plan.nodes:
        title = f"{node.index:<3} {node_title(node)}"
        limit = node.limit if node.floor is not None else "-"
        yield (
            f"{title:<{width}}  {node.kind:<7}  {bytes_text(node.bytes_read):>8}  {bytes_text(node.bytes_written):>8}"
            f"  {time_text(node.floor):>8}  {limit}"
        )
        yield f"      {_flow(node)}"
        if node.operations:
            yield f"      {quantity_text(node.operations)} operations"
        first = _of_first_instance(node)
        for op in first:
            yield f"      {op}"
        if node.instances > 1:
            last = (node.ops[k * len(first) - 1] for k in range(2, node.instances + 1))
            shapes = ", ".join(counted_times(array_text(op.dtype, op.shape) for op in last))
            yield f"      and the same for {shapes}"


def _flow(node: Node) -> str:
    read = ", ".join(dict.fromkeys(a.buffer for a in node.reads)) or "nothing"
    return f"{read} -> {', '.join(map(_written, node.writes)) or 'nothing'}"


def _written(access: Access) -> str:
    return f"{access.buffer} [{access.why}]" if access.why else access.buffer
