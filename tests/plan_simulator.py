"""Executes a plan without a GPU: its nodes in a random order that respects its edges, on one block of bytes.

Every node carries the tape nodes that it covers and the memory they read and write; the CPU backend's rules compute
them. What a missing edge, an overlap in the arena, a wrong stride or a wrong group would do to a GPU's results, it does
here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from backend_cuda.lowering import lower, memory
from backend_cuda.lowering.analysis import ELEMENTWISE, VIEWS
from backend_cuda.lowering.plan import Buffer, MatmulNode, Plan, View
from mlxlite._numpy import to_numpy_dtype
from mlxlite.backend_cpu._rules import RULES

EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "complex64": 2.0**-23, "float64": 2.0**-53}
TINY = {"float16": 2.0**-23, "bfloat16": 1e-37, "float32": 1e-37, "complex64": 1e-37, "float64": 1e-300}
LARGEST = {"float16": 6e4, "bfloat16": 3e38, "float32": 3e38, "complex64": 1e19, "float64": 1e308}


def lower_as_large(tape: Any, fuse: bool = True) -> Plan:
    """The plan, with intermediates in the memory of outputs, as it is otherwise where they are large."""
    with mock.patch.object(memory, "LEAST_IN_OUTPUT", 1):
        return lower(tape, fuse)


@dataclass
class Call:
    """The tape with the sizes and scalars of one call."""

    nodes: Any
    outputs: Any
    leaves: Any
    n_sizes: int
    n_scalars: int
    sizes: list[int]
    scalars: list[Any]


class NodeSeen:
    """What a CPU rule sees of a tape node."""

    def __init__(self, tape: Any, node: Any) -> None:
        rank = len(node.shape)
        first = node.size_slot
        self.name = node.name
        self.shape = tuple(tape.sizes[first : first + rank])
        self.dtype = node.dtype
        self.np_dtype = to_numpy_dtype(node.dtype)
        self.static = node.static
        self.ints = list(tape.sizes[first + rank : first + rank + len(node.ints)])
        self.floats = list(tape.scalars[node.scalar_slot : node.scalar_slot + len(node.floats)])
        self.input_dtypes = [tape.nodes[j].dtype for j in node.inputs]


class Simulator:
    """One plan with one set of leaves.

    Args:
        plan: what was lowered from `tape`.
        tape: the tape; its `sizes` and `scalars` are those of the call, which need not be the one that was lowered.
        leaves: NumPy arrays in the tape's order; they are copied.
        seed: of the order.
    """

    def __init__(self, plan: Plan, tape: Any, leaves: list[np.ndarray], seed: int) -> None:
        self.plan, self.tape = plan, tape
        self.random = random.Random(seed)
        self.value = lambda sym: plan.table.value(sym, list(tape.sizes))
        self.memory: dict[Any, np.ndarray] = {}
        # Intermediates and outputs begin as garbage, so that reading too early shows.
        generator = np.random.default_rng(seed)
        self.generator = generator
        self.leaves = [np.array(leaf).reshape(-1).view(np.uint8).copy() for leaf in leaves]

    def _bytes(self, buffer: Buffer) -> np.ndarray:
        if buffer.kind == "leaf":
            return self.leaves[buffer.leaf]
        key, nbytes = self._memory_of(buffer)
        if key not in self.memory:
            self.memory[key] = self.generator.integers(0, 256, nbytes, np.uint8)
        return self.memory[key]

    def _memory_of(self, buffer: Buffer) -> tuple[Any, int]:
        """What stands for the memory of a buffer, and its bytes."""
        if buffer.kind != "arena":
            return id(buffer), self.value(buffer.nbytes)
        slot = self.plan.slots[buffer.slot]
        if slot.output is not None and self.value(slot.nbytes) <= self.value(slot.output.nbytes):
            return self._memory_of(slot.output)
        return ("slot", buffer.slot), self.value(slot.nbytes)

    def array(self, view: View, writeable: bool = False) -> np.ndarray:
        """The view as NumPy sees it; an offset or stride outside the buffer raises."""
        dtype = to_numpy_dtype(_dtype(view.dtype))
        dims = [self.value(d) for d in view.dims]
        strides = [self.value(s) * dtype.itemsize for s in view.strides]
        memory = self._bytes(view.buffer)
        offset = self.value(view.offset) * dtype.itemsize
        if 0 in dims:
            return np.empty(dims, dtype)
        reach = [(n - 1) * s for n, s in zip(dims, strides, strict=True)]
        low = offset + sum(r for r in reach if r < 0)
        high = offset + sum(r for r in reach if r > 0) + dtype.itemsize
        if low < 0 or high > len(memory):
            raise AssertionError(f"a view reaches bytes {low} to {high} of a buffer of {len(memory)}")
        flat = memory[offset : offset + dtype.itemsize].view(dtype)
        return np.lib.stride_tricks.as_strided(flat, dims, strides, writeable=writeable)

    def run(self) -> list[np.ndarray]:
        """Execute everything; returns copies of the outputs."""
        waiting = [0] * len(self.plan.nodes)
        followers: dict[int, list[int]] = {}
        for before, after in self.plan.edges:
            waiting[after] += 1
            followers.setdefault(before, []).append(after)
        ready = [i for i, n in enumerate(waiting) if n == 0]
        done = 0
        while ready:
            i = ready.pop(self.random.randrange(len(ready)))
            self._execute(self.plan.nodes[i])
            done += 1
            for f in followers.get(i, ()):
                waiting[f] -= 1
                if waiting[f] == 0:
                    ready.append(f)
        if done != len(self.plan.nodes):
            raise AssertionError("the plan's edges form a circle")
        return [np.array(self.array(view)) for view in self.plan.outputs]

    def _check_overwritten(self, node: Any) -> None:
        """Only donated leaves are written; an elementwise kernel writes them where a thread itself has read them."""
        for buffer in node.writes:
            if buffer.kind == "leaf":
                assert self.tape.nodes[self.tape.leaves[buffer.leaf]].donatable, f"{node.label} overwrites a leaf"
        if any(self.tape.nodes[i].name not in ELEMENTWISE for i in node.covers):
            return
        for target in node.outputs.values():
            for view in node.inputs.values():
                assert view.buffer is not target.buffer or view.same_place(target), f"{node.label} reads what it writes"

    def _execute(self, node: Any) -> None:
        self._check_overwritten(node)
        for source, target in node.copies:
            self.array(target, writeable=True)[...] = np.array(self.array(source))
        values: dict[int, Any] = {i: np.array(self.array(view)) for i, view in node.inputs.items()}
        for i in node.covers:
            tape_node = self.tape.nodes[i]
            if tape_node.role == "op":
                values[i] = self._compute(tape_node, values)
            else:
                values[i] = self._scalar(tape_node)
        for i, view in node.outputs.items():
            self.array(view, writeable=True)[...] = np.asarray(values[i]).reshape([self.value(d) for d in view.dims])
        if isinstance(node, MatmulNode) and node.covers:  # without: a step of a later node, which does all of it here
            self._check_product(node)

    def _check_product(self, node: MatmulNode) -> None:
        """What cuBLASLt makes of the node's matrices must be what the node's ops made."""
        if any(view.buffer is node.places["d"].buffer for name, view in node.places.items() if name != "d"):
            raise AssertionError(f"{node.label} reads what it writes")

        def matrix(name: str, rows: str, columns: str) -> np.ndarray:
            dims, strides = [rows, columns], [node.sizes[f"ld{name}"], 1]
            if node.options.get(f"trans_{name}"):
                strides.reverse()
            view = replace(
                node.places[name],
                dims=tuple(node.sizes[d] for d in ("batch", *dims)),
                strides=(node.sizes[f"batch_stride_{name}"], *strides),
            )
            found = np.array(self.array(view))
            return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64)

        def factor(name: str) -> Any:
            slot = node.options[name]
            return 1.0 if slot is None else self.tape.scalars[slot]

        with np.errstate(all="ignore"):
            a, b = matrix("a", "m", "k"), matrix("b", "k", "n")
            expected, most = factor("alpha") * (a @ b), abs(factor("alpha")) * (abs(a) @ abs(b))
            if "c" in node.places:
                c = factor("beta") * matrix("c", "m", "n")
                expected, most = expected + c, most + abs(c)
            error = abs(matrix("d", "m", "n") - expected)
        dtype = node.places["d"].dtype
        bound = EPSILON[dtype] * (8 + a.shape[-1] * (dtype not in ("float16", "bfloat16"))) * most + TINY[dtype]
        known = np.isfinite(most) & (most < LARGEST[dtype])
        assert np.all(~known | (error <= bound)), f"{node.label} is described as another product"

    def _scalar(self, tape_node: Any) -> np.ndarray:
        return np.array(self.tape.scalars[tape_node.scalar_slot], to_numpy_dtype(tape_node.dtype))

    def _argument(self, j: int, values: dict[int, Any]) -> np.ndarray:
        """An input: read from memory, computed by the same node, or a view of a number."""
        node = self.tape.nodes[j]
        if j in values:
            return values[j]
        if node.role == "scalar":
            return self._scalar(node)
        if node.role == "op" and node.name in VIEWS:
            return self._compute(node, values)
        raise AssertionError(f"tape node {j} ({node.name}) is used and not read")

    def _compute(self, tape_node: Any, values: dict[int, Any]) -> np.ndarray:
        arguments = [self._argument(j, values) for j in tape_node.inputs]
        found = RULES[tape_node.name]
        with np.errstate(all="ignore"):
            if found.donates is None:
                return found.function(NodeSeen(self.tape, tape_node), *arguments)
            return found.function(NodeSeen(self.tape, tape_node), *arguments, inplace=False)


def _dtype(name: str) -> Any:
    from mlxlite import _graph

    return _graph.dtype_named(name)
