"""Kernels that compute one op together, by way of memory of their own."""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels.pipeline import Pipeline
from .builder import Builder, Operand
from .sym import Sym


def emit_pipeline(b: Builder, pipeline: Pipeline, dims: Sequence[Sym], operand: Operand, out: Operand, i: int) -> None:
    """The stages of a pipeline over `dims`, of which the last one completes node i."""
    env = {f"d{k}": d for k, d in enumerate(dims)}
    places = {("operand", 0): operand, ("output", 0): out}
    for t, nbytes in enumerate(pipeline.temporaries):
        places["temporary", t] = Operand(b.new([b.size(nbytes, env)], "uint8"), (1,))
    for k, stage in enumerate(pipeline.stages):
        is_last = k == len(pipeline.stages) - 1
        b.kernel(
            stage.kernel,
            dims,
            [places[name] for name in (*stage.operands, *stage.updates)],
            [places[name] for name in stage.outputs],
            ints=[stage.number],
            covers=(i,) if is_last else (),
            label=f"{b.label((i,))} {k + 1}/{len(pipeline.stages)}",
        )
