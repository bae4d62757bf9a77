"""Running a tape with NumPy: one rule per node, memory given back after its last use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._numpy import to_numpy_dtype
from ._rules import RULES, Array

# What refers to a donated array while `_may_overwrite` looks at it: the caller's name, the parameter, and the argument
# of getrefcount. One more is a view of it, or somebody who still needs it.
_REFERENCES = 3


# Asked for the steps of every run while it is set: a measurement, which has them note their times.
_recorder: Any = None


def set_recorder(recorder: Any) -> None:
    """Install what `recorder.steps(plan, steps)` asks of every run; None for nothing."""
    global _recorder
    _recorder = recorder


class Node:
    """What a rule is told about its primitive. Shapes and numbers are read from the run in progress."""

    __slots__ = (
        "_floats",
        "_frame",
        "_ints",
        "_shape",
        "dtype",
        "input_dtypes",
        "name",
        "np_dtype",
        "static",
    )

    def __init__(self, tape: Any, node: Any, frame: Frame):
        self.name: str = node.name
        self.dtype = node.dtype
        self.np_dtype: np.dtype[Any] = to_numpy_dtype(node.dtype)
        self.static = node.static
        self.input_dtypes = tuple(tape.nodes[i].dtype for i in node.inputs)
        end = node.size_slot + len(node.shape)
        self._shape = slice(node.size_slot, end)
        self._ints = slice(end, end + len(node.ints))
        self._floats = slice(node.scalar_slot, node.scalar_slot + len(node.floats))
        self._frame = frame

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._frame.sizes[self._shape])

    @property
    def ints(self) -> tuple[int, ...]:
        return tuple(self._frame.sizes[self._ints])

    @property
    def floats(self) -> tuple[float, ...]:
        return tuple(self._frame.scalars[self._floats])


class Frame:
    """The sizes and scalars of the run in progress."""

    __slots__ = ("scalars", "sizes")

    def __init__(self) -> None:
        self.sizes: Sequence[int] = ()
        self.scalars: Sequence[Any] = ()


class CpuPlan:
    """A tape made ready to run, for any sizes, scalars and leaves of its key."""

    def __init__(self, tape: Any):
        self._frame = Frame()
        self._outputs = list(tape.outputs)
        self._leaves = list(tape.leaves)
        self._scalars = [
            (i, to_numpy_dtype(n.dtype), n.scalar_slot) for i, n in enumerate(tape.nodes) if n.role == "scalar"
        ]
        self._n_nodes = len(tape.nodes)
        last_use = {i: user for user, node in enumerate(tape.nodes) for i in node.inputs}
        kept = set(self._outputs)
        self._steps = [
            self._step(tape, index, [i for i in dict.fromkeys(node.inputs) if last_use[i] == index and i not in kept])
            for index, node in enumerate(tape.nodes)
            if node.role == "op"
        ]

    @property
    def labels(self) -> list[str]:
        """The names of the ops, in the order in which they run."""
        return [step[2].name for step in self._steps]

    def _step(self, tape: Any, index: int, dying: list[int]) -> tuple[Any, ...]:
        tape_node = tape.nodes[index]
        found = RULES.get(tape_node.name)
        if found is None:
            raise NotImplementedError(
                f"[{tape_node.name}] There is no CPU rule for this primitive (result {tape_node.dtype.name}); "
                "run it on another device with stream=."
            )
        inputs = list(tape_node.inputs)
        donor = None  # the tape index of memory that the rule may overwrite
        references = _REFERENCES
        if found.donates is not None:
            candidate = inputs[found.donates]
            source = tape.nodes[candidate]
            if candidate in dying and inputs.count(candidate) == 1:
                if source.role == "op":
                    donor = candidate
                elif source.role == "leaf" and source.donatable:
                    donor = candidate
                    references += 1  # the graph's own buffer
        node = Node(tape, tape_node, self._frame)
        return (index, found.function, node, inputs, dying, node.np_dtype, found.donates, donor, references)

    def run(self, sizes: Sequence[int], scalars: Sequence[Any], leaves: list[Array]) -> list[Array]:
        """Evaluate. `sizes` and `scalars` are the tape's, `leaves` its leaves; returns its outputs in their order."""
        self._frame.sizes = sizes
        self._frame.scalars = scalars
        values: list[Any] = [None] * self._n_nodes
        leaf: Any
        for index, leaf in zip(self._leaves, leaves, strict=True):
            values[index] = leaf
        leaf = None
        leaves.clear()  # so that a donated leaf is held by the graph and by `values` alone
        recorder = _recorder  # read once: another thread may end a measurement
        steps = self._steps if recorder is None else recorder.steps(self, self._steps)
        with np.errstate(all="ignore"):  # overflow, NaN and division by zero are values here, as on a device
            for index, dtype, slot in self._scalars:
                values[index] = np.array(scalars[slot], dtype)
            for index, function, node, inputs, dying, dtype, donates, donor, references in steps:
                if donates is None:
                    result = function(node, *[values[i] for i in inputs])
                else:
                    result = _run_donating(function, node, inputs, values, donates, donor, references)
                if result.__class__ is not np.ndarray:
                    result = np.asarray(result, dtype)  # NumPy makes scalars of 0-d arrays
                values[index] = result
                result = None
                for i in dying:
                    values[i] = None
        self._frame.scalars = ()
        return [values[i] for i in self._outputs]


def _run_donating(
    function: Any, node: Node, inputs: list[int], values: list[Any], donates: int, donor: int | None, references: int
) -> Any:
    arrays = [values[i] for i in inputs]
    inplace = False
    if donor is not None:
        values[donor] = None
        array = arrays[donates]
        arrays[donates] = None
        inplace = _may_overwrite(array, references)
        arrays[donates] = array
    return function(node, *arrays, inplace=inplace)


def _may_overwrite(array: Array, references: int) -> bool:
    """Whether nobody else can see this memory: the array owns it, and no view (which would hold the array) is alive."""
    return array.base is None and array.flags.writeable and sys.getrefcount(array) <= references


def lower(tape: Any) -> CpuPlan:
    """The plan of a tape."""
    return CpuPlan(tape)
