"""What the CPU backend lets others see: its steps as plan nodes, and how long each rule takes."""

from __future__ import annotations

import functools
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..observe import Measurement
from ..observe.description import Access, Buffer, Machine, Node, NodeTime, Op, Plan, Run, array_text
from . import plan as plans

# Ops whose rule returns a view of its first input where it can.
_VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "slice"})
# Bound by arithmetic, whose rate here is not known: they have no floor.
_PRODUCTS = frozenset({"matmul", "addmm", "sdpa", "sdpa_lse", "sdpa_vjp"})


@functools.cache
def machine() -> Machine:
    """This machine, with the memory bandwidth of a copy by NumPy, measured once."""
    source = np.ones(1 << 22)
    target = np.empty_like(source)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    name = platform.processor() or platform.machine()
    return Machine(f"NumPy {np.__version__} on {name}", 2 * source.nbytes / best)


class CpuProvider:
    """Registered as the provider of the device cpu."""

    def machine(self) -> Machine:
        """This machine."""
        return machine()

    def describe(self, tape: Any) -> Callable[[Sequence[int]], Plan]:
        """One node per op: NumPy fuses nothing."""
        return lambda sizes: _Describer(tape, sizes).plan()

    def measure(self, nodes: bool) -> Measurement:
        """Begin to time the rules."""
        return _Measurement(nodes)

    def counters(self) -> dict[str, int]:
        """The CPU backend has no caches of its own."""
        return {}


class _Describer:
    def __init__(self, tape: Any, sizes: Sequence[int]) -> None:
        self.tape, self.sizes = tape, sizes
        leaves = {i: f"leaf {k}" for k, i in enumerate(tape.leaves)}
        outputs = {i: f"out {k}" for k, i in enumerate(tape.outputs)}
        self.names = {i: leaves.get(i) or outputs.get(i) or f"value {i}" for i in range(len(tape.nodes))}

    def shape(self, i: int) -> tuple[int, ...]:
        node = self.tape.nodes[i]
        return tuple(self.sizes[node.size_slot : node.size_slot + len(node.shape)])

    def nbytes(self, i: int) -> int:
        return math.prod(self.shape(i)) * self.tape.nodes[i].dtype.size

    def plan(self) -> Plan:
        tape = self.tape
        steps = [i for i, n in enumerate(tape.nodes) if n.role == "op"]
        number = {i: k for k, i in enumerate(steps)}
        nodes = tuple(self.node(k, i, number) for k, i in enumerate(steps))
        return Plan("cpu", machine(), nodes, tuple(self.buffers()), in_cache=tape.in_cache)

    def node(self, k: int, i: int, number: dict[int, int]) -> Node:
        node = self.tape.nodes[i]
        inputs = [j for j in dict.fromkeys(node.inputs) if self.tape.nodes[j].role != "scalar"]
        op = Op(i, node.name, node.dtype.name, self.shape(i))
        is_view = node.name in _VIEWS
        reads = tuple(self.access(j, is_view) for j in inputs)
        readers = [c for c, n in enumerate(self.tape.nodes) if i in n.inputs]
        held = ["held"] if node.is_output else []
        why = ", ".join(held + [f"node {number[c]}" for c in readers])
        written = (self.access(i, is_view, why),)
        is_product = node.name in _PRODUCTS
        operations = (
            2 * math.prod(op.shape) * self.shape(node.inputs[-2])[-1] if node.name in ("matmul", "addmm") else 0
        )
        floor, limit = (None, "") if is_product else machine().floor(sum(a.nbytes for a in (*reads, *written)))
        kind = "view" if is_view else "numpy"
        after = tuple(number[j] for j in inputs if j in number)
        return Node(k, kind, node.name, (op,), reads, written, operations, floor, limit, after)

    def access(self, i: int, is_view: bool, why: str = "") -> Access:
        nbytes = 0 if is_view else self.nbytes(i)
        return Access(self.names[i], nbytes, self.tape.nodes[i].dtype.name, self.shape(i), why)

    def buffers(self) -> Iterator[Buffer]:
        for k, i in enumerate(self.tape.leaves):
            node = self.tape.nodes[i]
            yield Buffer(f"leaf {k}", "leaf", self.nbytes(i), array_text(node.dtype.name, self.shape(i)))
        for k, i in enumerate(self.tape.outputs):
            node = self.tape.nodes[i]
            yield Buffer(f"out {k}", "output", self.nbytes(i), array_text(node.dtype.name, self.shape(i)))


class _Measurement:
    """Times rules while it lives, through the recorder that plans look for."""

    def __init__(self, nodes: bool) -> None:
        self._runs: list[Run] = []
        self._current: list[NodeTime] = []
        self._nodes = nodes
        self._timed: dict[int, tuple[Any, Any]] = {}  # by id; the plan is kept, so that the id stays its own
        plans.set_recorder(self)

    def steps(self, plan: Any, steps: Any) -> Any:
        """Called by a plan at the start of each run: its steps, with rules that note their time."""
        self._current = []
        if not self._nodes:
            return steps
        if id(plan) not in self._timed:
            self._timed[id(plan)] = (plan, [(index, self._wrapped(f), *rest) for index, f, *rest in steps])
        return self._timed[id(plan)][1]

    def _wrapped(self, function: Any) -> Any:
        @functools.wraps(function)
        def timed(node: Any, *arrays: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(node, *arrays, **options)
            seconds = time.perf_counter() - start
            is_view = node.name in _VIEWS and np.may_share_memory(result, arrays[0])
            known = not is_view and node.name not in _PRODUCTS
            nbytes = _touched(result) + sum(map(_touched, arrays)) if known else -1
            text = f"{node.name} {array_text(node.dtype.name, node.shape)}"
            self._current.append(NodeTime(node.name, start, seconds, nbytes, text))
            return result

        return timed

    def stop(self) -> None:
        plans.set_recorder(None)

    def commit(self) -> None:
        self._runs.append(Run(tuple(self._current)))

    def take(self) -> list[Run]:
        runs, self._runs = self._runs, []
        return runs


def _touched(array: Any) -> int:
    """Bytes of the distinct elements of an array: broadcast ones count once."""
    array = np.asarray(array)
    return math.prod(n for n, s in zip(array.shape, array.strides, strict=True) if s) * array.itemsize
