"""A CPU backend that evaluates the GPU's plans, node by node, in NumPy: what `pytest --device plans` runs on.

Every evaluation of a test goes through lowering. As in a generated kernel, a fused group of 16-bit floats is computed
in float32 and rounded where it is written, so that what fusion does to results shows without a GPU.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

import mlxlite.core as mx
from backend_cuda.kernels.ops import NEEDS_ROUNDED
from backend_cuda.lowering.analysis import VIEWS
from backend_cuda.lowering.plan import MatmulNode
from mlxlite import _graph
from mlxlite.backend_cpu._rules import RULES
from tests.plan_simulator import Call, NodeSeen, Simulator, lower_as_large

active = False
NARROW = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}


class FusedSimulator(Simulator):
    """Runs a plan; results of 16-bit floats inside a node stay in float32."""

    def _execute(self, node: Any) -> None:
        if len(node.covers) < 2:
            super()._execute(node)
            return
        self._check_overwritten(node)
        for source, target in node.copies:
            self.array(target, writeable=True)[...] = np.array(self.array(source))
        values = {i: self._widened(np.array(self.array(view)), view.dtype) for i, view in node.inputs.items()}
        for i in node.covers:
            tape_node = self.tape.nodes[i]
            values[i] = self._wide(tape_node, values) if tape_node.role == "op" else self._scalar(tape_node)
        for i, view in node.outputs.items():
            out = self.array(view, writeable=True)
            out[...] = np.asarray(values[i]).astype(out.dtype).reshape(out.shape)
        if isinstance(node, MatmulNode):
            self._check_product(node)

    def _wide_argument(self, j: int, values: dict[int, Any]) -> np.ndarray:
        """An input, where a view of something computed inside is not rounded either."""
        node = self.tape.nodes[j]
        if j not in values and node.role == "op" and node.name in VIEWS:
            return self._wide(node, values)
        return self._argument(j, values)

    @staticmethod
    def _widened(a: np.ndarray, dtype: str) -> np.ndarray:
        return a.astype(np.float32) if dtype in NARROW else a

    def _wide(self, tape_node: Any, values: dict[int, Any]) -> np.ndarray:
        arguments = [
            self._widened(self._wide_argument(j, values), self.tape.nodes[j].dtype.name) for j in tape_node.inputs
        ]
        seen = NodeSeen(self.tape, tape_node)
        dtype = tape_node.dtype.name
        seen.input_dtypes = [mx.float32 if d.name in NARROW else d for d in seen.input_dtypes]
        if dtype in NARROW:
            seen.dtype, seen.np_dtype = mx.float32, np.dtype(np.float32)
        found = RULES[tape_node.name]
        options = {} if found.donates is None else {"inplace": False}
        if tape_node.name in NEEDS_ROUNDED:
            kinds = [NARROW.get(d.name) for d in (self.tape.nodes[j].dtype for j in tape_node.inputs)]
            rounded = zip(arguments, kinds, strict=True)
            arguments = [a if k is None else a.astype(k).astype(np.float32) for a, k in rounded]
        with np.errstate(all="ignore"):
            result = np.asarray(found.function(seen, *arguments, **options))
            if tape_node.name == "astype" and dtype in NARROW:
                result = result.astype(NARROW[dtype]).astype(np.float32)  # asked for: a cast rounds
        return result


class PlannedPlan:
    """What the CPU's plan is for others: lowered for the GPU, and simulated at each run."""

    def __init__(self, tape: Any) -> None:
        self.tape = tape
        self.plan = lower_as_large(tape)

    def run(self, sizes: list[int], scalars: list[Any], leaves: list[np.ndarray]) -> list[np.ndarray]:
        tape = self.tape
        call = Call(tape.nodes, tape.outputs, tape.leaves, tape.n_sizes, tape.n_scalars, list(sizes), list(scalars))
        results = FusedSimulator(self.plan, call, [np.array(leaf) for leaf in leaves], seed=0).run()
        for index, result in zip(tape.outputs, results, strict=True):
            node = tape.nodes[index]
            shape = tuple(sizes[node.size_slot : node.size_slot + len(node.shape)])
            assert result.shape == shape, f"{node.name} has shape {result.shape} in its plan, not {shape}"
        return results


def register() -> None:
    """Evaluate arrays of the CPU by the GPU's plans from now on."""
    global active
    active = True
    mx.eval(mx.zeros(1) + 1)  # the CPU's own backend is there, to be replaced

    def lowered(tape: Any) -> tuple[PlannedPlan, list[Any]]:
        plan = PlannedPlan(tape)
        return plan, plan.plan.table.ranges

    _graph.register_backend("cpu", lowered)
