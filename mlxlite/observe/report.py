"""A profile as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from . import provider
from .description import time_text
from .profile import Profile, spans
from .table import percent, row_title
from .text import counted

# Of the parts of the host's time.
COLORS = {
    "walk": "#a5b4fc",
    "move": "#fda4af",
    "lower": "#fbbf24",
    "bind": "#67e8f9",
    "launch": "#6ee7b7",
    "rules": "#93c5fd",
    "finish": "#cbd5e1",
    "wait": "#d8b4fe",
    "profiler": "#e5e7eb",
    "outside": "#94a3b8",
}
_MEANINGS = {
    "walk": "tape and key of the graph, looked up in the plan cache",
    "move": "arrays brought to the device; the backend loaded, the first time",
    "lower": "a plan made in Python, on a miss",
    "bind": "sizes, addresses and changed nodes of the plan",
    "launch": "starting it on the GPU",
    "rules": "NumPy's work",
    "finish": "results handed to their arrays",
    "wait": "for the GPU",
    "profiler": "the measuring itself",
    "outside": "the program: recording ops, and all else",
}
_MOST_BARS = 60_000
_ALWAYS_SHOWN = ("hits", "misses", "builds", "evictions")


def page(profile: Profile) -> str:
    """The whole page."""
    folder = Path(__file__).parent
    style, script = ((folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    data = json.dumps(_data(profile), separators=(",", ":")).replace("</", "<\\/")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>mlxlite profile</title>'
        f'<meta name="viewport" content="width=device-width"><style>\n{style}</style></head><body>\n'
        + "\n".join(_body(profile))
        + f'\n<div id="tip" role="tooltip"></div><script type="application/json" id="data">{data}</script>'
        f"<script>\n{script}</script></body></html>\n"
    )


def frame(profile: Profile) -> str:
    """The page inside a frame, for a notebook."""
    return (
        f'<iframe srcdoc="{escape(page(profile))}" sandbox="allow-scripts" '
        'style="width:100%;height:720px;border:0"></iframe>'
    )


def _body(profile: Profile) -> Iterator[str]:
    summary, rows = profile.summary, profile.rows
    devices = sorted({e.device for e in profile.evaluations})
    names = [f"{d}: {provider(d).machine().name}" for d in devices]
    yield f'<h1>mlxlite profile</h1><div class="soft">{escape(", ".join(names) or "no evaluations")}</div>'
    figures = [
        (time_text(summary["seconds"]), "in all"),
        (str(summary["evaluations"]), "evaluation" if summary["evaluations"] == 1 else "evaluations"),
        (time_text(summary["node_seconds"]), f"in {counted(summary['node_calls'], 'node')}"),
    ]
    if summary["device_seconds"]:
        busy = summary["device_seconds"]
        figures.append((percent(busy, summary["seconds"]), "of the time on the GPU"))
    measured = [r for r in rows if r.floor_total]
    if measured:
        floors, total = sum(r.floor_total or 0.0 for r in measured), sum(r.total for r in measured)
        figures.append((percent(floors, total), "floor over time, of nodes with a floor"))
    yield '<div class="card figures">'
    yield from (
        f'<div class="figure"><b>{escape(a)}</b><span class="soft">{escape(b)}</span></div>' for a, b in figures
    )
    yield "</div>"
    yield '<div class="card"><h2>Host</h2>' + _host(profile) + "</div>"
    note = ""
    if sum(len(e.nodes) for e in profile.evaluations) > _MOST_BARS:
        note = f" The first {_MOST_BARS} nodes are drawn; the table has all."
    yield (
        '<div class="card"><div class="bar-head"><h2>Timeline</h2><span class="soft">wheel to zoom, drag to move, '
        f'double-click for all.{note} <span id="range"></span></span><span><button id="first">first evaluation'
        '</button> <button id="all">all</button></span></div><div id="timeline"></div></div>'
    )
    yield '<div class="card scroll"><h2>Nodes</h2><table id="nodes"></table>'
    if not rows:
        yield '<span class="soft">none were measured</span>'
    yield "</div>"
    yield '<div class="card scroll"><h2>Counters</h2>' + _counters(profile) + "</div>"


def _host(profile: Profile) -> str:
    parts = [(name, t) for name, t in profile.host.items() if t > 0]
    whole = sum(t for _, t in parts) or 1.0
    bars = "".join(
        f'<div style="width:{100 * t / whole:.3f}%;background:{COLORS[name]}" title="{name} {time_text(t)}"></div>'
        for name, t in parts
    )
    legend = "".join(
        f'<span title="{escape(_MEANINGS[name])}"><i style="background:{COLORS[name]}"></i>{name} {time_text(t)} '
        f'<span class="soft">{percent(t, whole)}, {escape(_MEANINGS[name])}</span></span>'
        for name, t in parts
    )
    return f'<div class="split">{bars}</div><div class="legend">{legend}</div>'


def _counters(profile: Profile) -> str:
    lines = []
    for device, counts in profile.summary["counters"].items():
        shown = {k: n for k, n in counts.items() if n or k in _ALWAYS_SHOWN}
        cells = "".join(f"<tr><td>{escape(k.replace('_', ' '))}</td><td>{n}</td></tr>" for k, n in shown.items())
        lines.append(f'<td class="device"><b>{device}</b><table>{cells}</table></td>')
    return f'<table id="counters" style="width:auto"><tr>{"".join(lines)}</tr></table>'


def _data(profile: Profile) -> dict[str, Any]:
    """What the script draws; times in microseconds from the start of the profile."""
    names: dict[str, int] = {}

    def name(text: str) -> int:
        return names.setdefault(text, len(names))

    def us(seconds: float) -> float:
        return round(seconds * 1e6, 3)

    lanes: dict[str, list[list[Any]]] = {"host": [], "cpu rules": [], "gpu nodes": []}
    evaluations = []
    left = _MOST_BARS
    for k, evaluation in enumerate(profile.evaluations):
        start = us(evaluation.start - profile.start)
        what = (
            f"evaluation {k + 1} on {evaluation.device}, plan {evaluation.plan}, {'hit' if evaluation.hit else 'miss'}"
        )
        evaluations.append([start, us(evaluation.seconds), what])
        for part, at, length in spans(evaluation):
            lanes["host"].append([name(part), us(at - profile.start), us(length), k])
        lane = lanes["cpu rules" if evaluation.device == "cpu" else "gpu nodes"]
        if evaluation.nodes:
            for node in evaluation.nodes[:left]:
                floor = None if node.floor is None else us(node.floor)
                bar = [name(node.label), us(node.start - profile.start), us(node.seconds), k, floor, name(node.ops)]
                lane.append(bar)
            left = max(left - len(evaluation.nodes), 0)
        elif evaluation.device_time:
            begin, length = evaluation.device_time
            lane.append([name("whole plan"), us(begin - profile.start), us(length), k])
    lanes["host"] += [[name("wait"), us(at - profile.start), us(length), None] for at, length in profile.waits]
    for bars in lanes.values():
        bars.sort(key=lambda bar: bar[1])
    ends = [bar[1] + bar[2] for bars in lanes.values() for bar in bars[-1:]]
    rows = [
        {
            "name": row_title(row),
            "label": row.label,
            "device": row.device,
            "calls": row.calls,
            "total": us(row.total),
            "mean": us(row.mean),
            "floor": None if row.floor is None else us(row.floor),
            "fraction": row.fraction,
        }
        for row in profile.rows
    ]
    return {
        "total": max([us(profile.seconds), 1.0, *ends]),
        "names": list(names),
        "colors": COLORS,
        "lanes": [{"name": lane, "bars": bars} for lane, bars in lanes.items() if bars],
        "evaluations": evaluations,
        "rows": rows,
    }
