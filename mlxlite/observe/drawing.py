"""The graph of a plan: Graphviz text, and an SVG of our own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from .description import Node, Plan, bytes_text, time_text
from .text import counted, node_title

_COLORS = {
    "kernel": ("#dbeafe", "#3b82f6"),
    "matmul": ("#ffedd5", "#f97316"),
    "library": ("#ede9fe", "#8b5cf6"),
    "numpy": ("#dbeafe", "#3b82f6"),
    "view": ("#f8fafc", "#94a3b8"),
    "leaf": ("#f1f5f9", "#64748b"),
    "output": ("#dcfce7", "#16a34a"),
}
_LETTER = 6.9  # px of a letter at 12px, with room to spare
_LINE, _PAD, _GAP_X, _GAP_Y, _MARGIN = 16, 10, 22, 46, 20
_MAX_LETTERS = 44


@dataclass
class _Box:
    """Something that is drawn: a node, or an array at either end."""

    key: str
    kind: str
    lines: list[str]
    title: str
    layer: int = 0
    x: float = 0
    y: float = 0
    sources: list[str] = field(default_factory=list)
    tall: float = 0  # of a bend: as its row

    @property
    def width(self) -> float:
        if self.kind == "bend":
            return 8
        return max(len(line) for line in self.lines) * _LETTER + 2 * _PAD

    @property
    def height(self) -> float:
        return self.tall if self.kind == "bend" else len(self.lines) * _LINE + _PAD

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def _boxes(plan: Plan) -> tuple[dict[str, _Box], list[tuple[str, str, str]]]:
    """Boxes by key, and arrows (from, to, what moves)."""
    boxes: dict[str, _Box] = {}
    arrows: list[tuple[str, str, str]] = []
    buffers = {b.name: b for b in plan.buffers}
    sizes = {(n.index, a.buffer): a.nbytes for n in plan.nodes for a in n.reads}
    node_boxes = {n.index: _node_box(n) for n in plan.nodes}
    for origin, reader, buffer in plan.sources():
        text = bytes_text(sizes[reader, buffer])
        if isinstance(origin, str):
            if origin not in boxes and origin in buffers:
                b = buffers[origin]
                boxes[origin] = _Box(origin, "leaf", [origin, *_cut([b.content])], f"{origin}: {b.content} ({b.kind})")
            if origin in boxes:
                arrows.append((origin, f"node {reader}", text))
        else:
            arrows.append((f"node {origin}", f"node {reader}", text))
    for box in node_boxes.values():
        boxes[box.key] = box
    for b in plan.buffers:
        if b.kind != "output":
            continue
        home = b.content.partition(" in ")[2] or b.name
        writers = [n.index for n in plan.nodes if any(a.buffer == home for a in n.writes)]
        if not writers:
            continue
        if home.startswith("out "):  # an intermediate step may overwrite a leaf: only the last one is the result
            arrows += [(f"node {w}", f"= {b.name}", bytes_text(b.nbytes)) for w in writers]
        else:
            arrows.append((f"node {writers[-1]}", f"= {b.name}", ""))
        boxes[f"= {b.name}"] = _Box(f"= {b.name}", "output", [b.name, *_cut([b.content])], f"{b.name}: {b.content}")
    for first, second, _ in arrows:
        boxes[second].sources.append(first)
    return boxes, arrows


def _node_box(node: Node) -> _Box:
    lines = _cut([f"{node.index}  {node_title(node)}"])
    if node.kind != "view":
        lines.append(f"{bytes_text(node.bytes_read + node.bytes_written)}, floor {time_text(node.floor)}")
    title = "\n".join([f"node {node.index} ({node.kind}): {node.label}", *map(str, node.ops), node.detail])
    return _Box(f"node {node.index}", node.kind, lines, title.strip())


def _cut(lines: Sequence[str]) -> list[str]:
    return [line if len(line) <= _MAX_LETTERS else line[: _MAX_LETTERS - 3] + "..." for line in lines]


# ---- Graphviz


def dot(plans: Sequence[Plan]) -> str:
    """The plans in Graphviz's language."""
    lines = ["digraph plan {", '  node [fontname="sans-serif", fontsize=11, style=filled];', "  edge [fontsize=9];"]
    for p, plan in enumerate(plans):
        boxes, arrows = _boxes(plan)
        for box in boxes.values():
            fill, line = _COLORS[box.kind]
            shape = "box" if box.key.startswith("node") else "ellipse"
            label = "\\n".join(map(_quoted, box.lines))
            lines.append(
                f'  "{p}/{box.key}" [label="{label}", shape={shape}, fillcolor="{fill}", color="{line}", '
                f'tooltip="{_quoted(box.title)}"];'
            )
        lines += [f'  "{p}/{a}" -> "{p}/{b}" [label="{text}"];' for a, b, text in arrows]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# ---- SVG


def _layers(boxes: dict[str, _Box]) -> tuple[list[list[_Box]], dict[tuple[str, str], list[_Box]]]:
    """Boxes in rows, so that every arrow points down, in an order with few crossings; and the bends of long arrows."""
    done: set[str] = set()
    for box in boxes.values():  # arrays that are read come first, then nodes in order, then outputs
        box.layer = max((boxes[s].layer + 1 for s in box.sources if s in done), default=0)
        done.add(box.key)
    for box in boxes.values():
        if box.kind == "leaf":
            box.layer = min((b.layer for b in boxes.values() if box.key in b.sources), default=1) - 1
    lowest = min(box.layer for box in boxes.values())
    for box in boxes.values():
        box.layer -= lowest
    bends: dict[tuple[str, str], list[_Box]] = {}
    above: dict[str, list[str]] = {}
    everything = dict(boxes)
    for box in boxes.values():
        above[box.key] = []
        for s in dict.fromkeys(box.sources):
            chain = [
                _Box(f"{s} to {box.key} {layer}", "bend", [], "", layer)
                for layer in range(boxes[s].layer + 1, box.layer)
            ]
            bends[s, box.key] = chain
            for upper, lower in itertools.pairwise([s, *(c.key for c in chain), box.key]):
                above.setdefault(lower, []).append(upper)
            everything.update({c.key: c for c in chain})
    below: dict[str, list[str]] = {}
    for lower, uppers in above.items():
        for upper in uppers:
            below.setdefault(upper, []).append(lower)
    rows: list[list[_Box]] = [[] for _ in range(max(box.layer for box in boxes.values()) + 1)]
    for box in everything.values():
        rows[box.layer].append(box)
    _untangle(rows, above, below)
    return [row for row in rows if row], bends


def _untangle(rows: list[list[_Box]], above: dict[str, list[str]], below: dict[str, list[str]]) -> None:
    """Order each row by the average place of its neighbours, down and up in turn (Sugiyama's method)."""
    for sweep in range(8):
        near = above if sweep % 2 == 0 else below
        place = {box.key: k / len(row) for row in rows for k, box in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):

            def middle(box: _Box, near: dict[str, list[str]] = near, place: dict[str, float] = place) -> float:
                ties = near.get(box.key, [])
                return sum(place[t] for t in ties) / len(ties) if ties else place[box.key]

            row.sort(key=middle)
            place.update({box.key: k / len(row) for k, box in enumerate(row)})


def _place(rows: list[list[_Box]], top: float) -> tuple[float, float]:
    """Set positions; returns the width and the lower end."""
    widths = [sum(b.width for b in row) + _GAP_X * (len(row) - 1) for row in rows]
    whole = max(widths)
    y = top
    for row, width in zip(rows, widths, strict=True):
        tallest = max(b.height for b in row)
        x = _MARGIN + (whole - width) / 2
        for box in row:
            box.x, box.y = x, y
            if box.kind == "bend":
                box.tall = tallest
            x += box.width + _GAP_X
        y += tallest + _GAP_Y
    return whole + 2 * _MARGIN, y - _GAP_Y + _MARGIN


def svg(plans: Sequence[Plan]) -> str:
    """The plans as one SVG, one below the other."""
    parts: list[str] = []
    width, bottom = 320.0, float(_MARGIN)
    for plan in plans:
        heading = (
            f"{plan.device}: {counted(len(plan.nodes), 'node')}, floor {time_text(plan.floor)}, {plan.machine.name}"
        )
        parts.append(f'<text x="{_MARGIN}" y="{bottom + 12}" class="head">{escape(heading)}</text>')
        width = max(width, len(heading) * 7.5 + 2 * _MARGIN)
        boxes, arrows = _boxes(plan)
        if not boxes:
            bottom += 40
            continue
        rows, bends = _layers(boxes)
        plan_width, bottom = _place(rows, bottom + 30)
        width = max(width, plan_width)
        parts += _arrows(boxes, arrows, bends)
        parts += [_drawn(box) for box in boxes.values()]
    if not plans:
        parts.append(f'<text x="{_MARGIN}" y="32" class="head">nothing to evaluate</text>')
        bottom = 52
    style = (
        "text{font:12px system-ui,sans-serif;fill:#0f172a}.head{font-weight:600;font-size:13px}"
        ".edge{fill:none;stroke:#64748b;stroke-width:1.2}.small{font-size:10px;fill:#475569}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{bottom:.0f}" '
        f'viewBox="0 0 {width:.0f} {bottom:.0f}" role="img"><style>{style}</style>'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#64748b"/></marker></defs>'
        f'<rect width="100%" height="100%" rx="8" fill="#ffffff"/>{"".join(parts)}</svg>'
    )


def _drawn(box: _Box) -> str:
    fill, stroke = _COLORS[box.kind]
    radius = 5 if box.key.startswith("node") else box.height / 2
    small = ' class="small"'
    text = "".join(
        f'<text x="{box.middle:.1f}" y="{box.y + 5 + _LINE * (k + 0.72):.1f}" text-anchor="middle"'
        f"{small if k else ''}>{escape(line)}</text>"
        for k, line in enumerate(box.lines)
    )
    dashed = ' stroke-dasharray="4 3"' if box.kind == "view" else ""
    return (
        f'<g data-key="{escape(box.key)}"><title>{escape(box.title)}</title><rect x="{box.x:.1f}" y="{box.y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius:.1f}" fill="{fill}" stroke="{stroke}"{dashed}/>'
        f"{text}</g>"
    )


def _arrows(
    boxes: dict[str, _Box], arrows: Sequence[tuple[str, str, str]], bends: dict[tuple[str, str], list[_Box]]
) -> Iterator[str]:
    leaving: dict[str, list[tuple[float, str]]] = {}
    entering: dict[str, list[tuple[float, str]]] = {}
    for first, second, _ in arrows:
        way = bends[first, second]
        leaving.setdefault(first, []).append(((way[0] if way else boxes[second]).middle, second))
        entering.setdefault(second, []).append(((way[-1] if way else boxes[first]).middle, first))
    for ends in (*leaving.values(), *entering.values()):
        ends.sort()
    for first, second, text in arrows:
        a, b = boxes[first], boxes[second]
        starts, stops = [key for _, key in leaving[first]], [key for _, key in entering[second]]
        x, y = a.x + a.width * (starts.index(second) + 1) / (len(starts) + 1), a.y + a.height
        path = f"M{x:.1f} {y:.1f}"
        for bend in bends[first, second]:
            path += f"{_curve(x, y, bend.middle, bend.y)}V{bend.y + bend.height:.1f}"
            x, y = bend.middle, bend.y + bend.height
        path += _curve(x, y, b.x + b.width * (stops.index(first) + 1) / (len(stops) + 1), b.y)
        what = f"{first} to {second}: {text}".replace("= ", "")
        yield f'<path class="edge" marker-end="url(#tip)" d="{path}"><title>{escape(what)}</title></path>'


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    half = (y2 - y1) / 2
    return f"C{x1:.1f} {y1 + half:.1f} {x2:.1f} {y2 - half:.1f} {x2:.1f} {y2:.1f}"


def html(plans: Sequence[Plan], text: str) -> str:
    """The picture, and the text below it, for a notebook."""
    return f'<div style="overflow:auto">{svg(plans)}</div><pre style="font-size:12px">{escape(text)}</pre>'
